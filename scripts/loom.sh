#!/usr/bin/env bash
# Model-checks the synchronisation of tidegate-shm, tidegate-io, tidegate-hub and the vertex over the shipped code. Fails when it
# finds no model to run.
set -euo pipefail
cd "$(dirname "$0")/.."

export RUSTFLAGS="--cfg loom"

# Runs what is named by the arguments of `cargo test` after the package.
check() {
    local package=$1 name=$2 output passed
    shift 2
    output=$(cargo test --quiet --locked --release --package "$package" --target-dir target/loom "$@" 2>&1) ||
        { echo "$output" >&2; exit 1; }
    passed=$(sed -n 's/^test result: ok\. \([0-9]*\) passed.*/\1/p' <<<"$output")
    ((${passed:-0} > 0)) || { echo "$name ran no model" >&2; echo "$output" >&2; exit 1; }
    echo "$name: $passed models"
}

for package in tidegate-shm tidegate-io; do
    models=("crates/$package"/tests/loom_*.rs)
    [[ -e ${models[0]} ]] || { echo "found no model of $package" >&2; exit 1; }
    for model in "${models[@]}"; do
        name=$(basename "$model" .rs)
        check "$package" "$name" --test "$name"
    done
done
# Models of what is private to the engine stand beside the code.
check tidegate-io "tidegate-io engine" --lib engine::
# Those of the hub need what only the coordination core sees.
check tidegate-hub "tidegate-hub core" --lib core::models::
# The ring and the fence of the vertex.
check tidegate-udf "tidegate-udf ring" --lib ring::models::
check tidegate-vertex "tidegate-vertex fence" --lib fence::models::
