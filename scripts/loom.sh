#!/usr/bin/env bash
# Model-checks the synchronisation of tidegate-shm over the shipped code. Fails when it finds no model to run.
set -euo pipefail
cd "$(dirname "$0")/.."

models=(crates/tidegate-shm/tests/loom_*.rs)
[[ -e ${models[0]} ]] || { echo "found no model" >&2; exit 1; }
export RUSTFLAGS="--cfg loom"
for model in "${models[@]}"; do
    name=$(basename "$model" .rs)
    output=$(cargo test --quiet --locked --release --package tidegate-shm --test "$name" \
        --target-dir target/loom 2>&1) || { echo "$output" >&2; exit 1; }
    passed=$(sed -n 's/^test result: ok\. \([0-9]*\) passed.*/\1/p' <<<"$output")
    ((${passed:-0} > 0)) || { echo "$name ran no model" >&2; echo "$output" >&2; exit 1; }
    echo "$name: $passed models"
done
