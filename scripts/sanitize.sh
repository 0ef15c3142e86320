#!/usr/bin/env bash
# Runs tests under AddressSanitizer, ThreadSanitizer and valgrind, on the stable toolchain: all of tidegate-shm, the I/O
# kernel, the sockets on top of it, and the hub.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v valgrind >/dev/null || { echo "valgrind is missing; run: sudo apt-get install -y valgrind" >&2; exit 1; }
target=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1

# Arguments: sanitizer, then those of `cargo test`.
run() {
    local sanitizer=$1
    shift
    echo "== $sanitizer sanitizer: $*"
    RUSTFLAGS="-Zsanitizer=$sanitizer -Cunsafe-allow-abi-mismatch=sanitizer" cargo test --locked --target "$target" \
        --target-dir "target/$sanitizer-sanitizer" "$@"
}

# Processes that a stray store must end by SIGSEGV: the sanitizer would end them its own way.
ASAN_OPTIONS=handle_segv=0:handle_sigbus=0 run address --package tidegate-shm --lib --tests
run address --package tidegate-io --lib --test toy_protocol
# Guards that are leaked on purpose are no findings, and what must not compile needs no sanitizer. A process without /proc
# does not find the sanitizer's options, which are read there, and fails looking for leaks.
ASAN_OPTIONS=detect_leaks=0 run address --package tidegate-hub --lib --test attachment --test block --test channel \
    --test recovery -- --skip guards_do_not_outlive_what_they_guard --skip who_cannot_say_who_he_is_takes_no_part
# How threads of the standard library wait for each other must be seen too: it is built anew.
[[ -d $(rustc --print sysroot)/lib/rustlib/src/rust/library ]] || rustup component add rust-src
TSAN_OPTIONS=handle_segv=0:handle_sigbus=0 run thread -Zbuild-std --package tidegate-shm --lib --tests
# What counts wake-ups would count those of the sanitizer's own thread.
run thread -Zbuild-std --package tidegate-io --lib --test engine --test toy_protocol -- --skip idle_connections_cost_no_wake_ups
# A test forks.
TSAN_OPTIONS=die_after_fork=0 run thread -Zbuild-std --package tidegate-mq --lib --test api --test libzmq
# The hub's threads: what they do to one block in one process; between processes nothing is seen.
run thread -Zbuild-std --package tidegate-hub --lib --test channel -- \
    --skip guards_do_not_outlive_what_they_guard --skip points:: --skip crashes::

echo "== valgrind: receive pages"
binary=$(cargo test --locked --package tidegate-io --lib --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
valgrind --quiet --error-exitcode=1 --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite "$binary" buffer:: batch::
