#!/usr/bin/env bash
# Runs fuzz targets for some seconds each, as many at a time as there are processors: all targets, or those whose name matches
# one of the patterns. Needs no nightly toolchain: coverage comes from LLVM's own pass, libFuzzer from the libfuzzer-sys crate.
# Findings are left in fuzz/artifacts, the corpus in fuzz/corpus. A run begins with what is kept in fuzz/seeds; an input that
# once broke something is added there.
set -euo pipefail

export seconds=${1:?usage: fuzz.sh SECONDS [PATTERN...]}
shift
patterns=("${@:-*}")
cd "$(dirname "$0")/.."

target=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 \
-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
target_dir=$PWD/fuzz/target
export programs=$target_dir/$target/release
cargo build --quiet --locked --release --manifest-path fuzz/Cargo.toml --target "$target" --target-dir "$target_dir"

mapfile -t names < <(sed -n 's/^name = "\([a-z0-9_]*\)"$/\1/p' fuzz/Cargo.toml)
targets=()
for pattern in "${patterns[@]}"; do
    before=${#targets[@]}
    for name in "${names[@]}"; do
        # shellcheck disable=SC2053
        [[ $name == $pattern ]] && targets+=("$name")
    done
    ((${#targets[@]} > before)) || { echo "found no fuzz target named $pattern" >&2; exit 1; }
done

# What recorded libzmq peers sent, as octets; the first one chooses the socket type.
recorded=$(mktemp -d)
kept=$(mktemp -d)
export recorded kept
trap 'rm -rf "$recorded" "$kept"' EXIT
for recording in conformance/vectors/messaging/*/*.txt; do
    octets=$(sed -n 's/^< //p' "$recording" | tr -d '\n' | tr a-f A-F)
    printf '07%s' "$octets" | basenc --decode --base16 >"$recorded/$(tr / - <<<"${recording#*messaging/}")"
done

# fuzz NAME: fails when there is a finding.
fuzz() {
    local name=$1 seeds=() log status=0
    mkdir -p "fuzz/corpus/$name" "fuzz/artifacts/$name"
    # Golden messages are good seeds for the decoders of their schema.
    case $name in
        control) seeds=(conformance/vectors/tensor-pool/wire) ;;
        driver | bridge | merge | tracelink | discovery) seeds=("conformance/vectors/tensor-pool/$name") ;;
        npy) seeds=(crates/tidegate/tests/data) ;;
        mq_greeting | mq_plain | mq_curve_handshake) seeds=("$recorded") ;;
    esac
    # The inputs that are kept and that a test replays, one a line.
    if [[ -f fuzz/seeds/$name.txt ]]; then
        mkdir "$kept/$name"
        seeds+=("$kept/$name")
        grep -v '^#' "fuzz/seeds/$name.txt" | tr a-f A-F | nl -ba | while read -r number line; do
            basenc --decode --base16 <<<"$line" >"$kept/$name/$number"
        done
    fi
    log=$(mktemp)
    if "$programs/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="fuzz/artifacts/$name/" "fuzz/corpus/$name" "${seeds[@]}" >"$log" 2>&1; then
        echo "fuzz $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, no finding"
    else
        status=1
        { echo "fuzz $name: FINDING, see fuzz/artifacts/$name"; tail -n 30 "$log"; } >&2
    fi
    rm -f "$log"
    return $status
}
export -f fuzz
# Fails when one of them does, after all.
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I '{}' bash -euo pipefail -c 'fuzz "{}"'
