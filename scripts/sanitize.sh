#!/usr/bin/env bash
# Runs the tests of tidegate-shm under AddressSanitizer and ThreadSanitizer, on the stable toolchain.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1
export TSAN_OPTIONS="suppressions=$PWD/crates/tidegate-shm/tests/thread-sanitizer.supp"
for sanitizer in address thread; do
    echo "== $sanitizer sanitizer"
    RUSTFLAGS="-Zsanitizer=$sanitizer -Cunsafe-allow-abi-mismatch=sanitizer" cargo test --locked \
        --package tidegate-shm --target "$target" --target-dir "target/$sanitizer-sanitizer" --lib --tests
done
