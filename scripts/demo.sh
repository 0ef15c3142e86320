#!/usr/bin/env bash
# The main job, for real: one node, one recording, a fast and a slow reader, a producer that is killed, a second one that
# takes over in a new epoch. Every delivered frame is compared with the recording. Takes about 20 seconds.
set -euo pipefail

tidegate=$(realpath "${1:?usage: demo.sh PATH_OF_TIDEGATE}")
cd "$(dirname "$0")/.."
recording=examples/data/astronaut-pan.npy
work=$(mktemp -d)
export TIDEGATE_DIR=/dev/shm/tidegate-demo-$$
export TP_LOG_LEVEL=${TP_LOG_LEVEL:-0}
node= fast= slow= first= second=

say() { printf '\n== %s\n' "$*"; }

fail() {
    printf 'demo failed: %s\n' "$*" >&2
    tail -n 5 "$work"/*.err >&2 || true
    exit 1
}

cleanup() {
    for pid in $first $second $fast $slow $node; do
        kill -KILL "$pid" 2>/dev/null || true
    done
    rm -rf "$work" "$TIDEGATE_DIR"
}
trap cleanup EXIT

# wait_for SECONDS WHAT COMMAND...: until COMMAND succeeds.
wait_for() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        ((SECONDS < end)) || fail "waited too long for $what"
        sleep 0.05
    done
}

lines_at_least() { [[ -f $2 ]] && (($(wc -l <"$2") >= $1)); }
epochs_at_least() { (($(grep -o '"epoch":[0-9]*' "$2" | sort -u | wc -l) >= $1)); }

say "Start a node: media driver and tensor driver in one process"
"$tidegate" up --json >"$work/node.json" 2>"$work/node.err" &
node=$!
wait_for 10 "the node" lines_at_least 1 "$work/node.json"
cat "$work/node.json"

say "Two readers: one as fast as it can, one that pauses 250 ms after each frame"
"$tidegate" tensor sub camera --wait 10s --json >"$work/fast.jsonl" 2>"$work/fast.err" &
fast=$!
"$tidegate" tensor sub camera --wait 10s --delay-ms 250 --json >"$work/slow.jsonl" 2>"$work/slow.err" &
slow=$!

say "Publish $recording at 120 frames per second"
"$tidegate" tensor pub camera --input "$recording" --rate 120 --loop forever --json >"$work/first.jsonl" 2>"$work/first.err" &
first=$!
wait_for 10 "frames at the fast reader" lines_at_least 60 "$work/fast.jsonl"
wait_for 10 "frames at the slow reader" lines_at_least 1 "$work/slow.jsonl"
for second_count in 1 2 3; do
    before=$(wc -l <"$work/fast.jsonl") slow_before=$(wc -l <"$work/slow.jsonl")
    sleep 1
    echo "  fast reader $(($(wc -l <"$work/fast.jsonl") - before)) frames/s, slow reader" \
        "$(($(wc -l <"$work/slow.jsonl") - slow_before)) frames/s"
done
"$tidegate" tensor ls

say "Kill the producer with SIGKILL, start another one"
# No longer a job of this shell, which would comment on its end.
disown "$first"
kill -KILL "$first"
first=
"$tidegate" tensor pub camera --input "$recording" --rate 120 --loop 6 --json >"$work/second.jsonl" 2>"$work/second.err" &
second=$!
wait_for 10 "the second producer to take over" grep -q '"attached"' "$work/second.jsonl"
wait_for 10 "the fast reader to follow into the new epoch" epochs_at_least 2 "$work/fast.jsonl"
wait_for 10 "the slow reader to follow into the new epoch" epochs_at_least 2 "$work/slow.jsonl"
wait "$second" || fail "the second producer ended badly"
second=

say "Stop the readers"
kill -TERM "$fast" "$slow"
wait "$fast" || fail "the fast reader ended badly"
wait "$slow" || fail "the slow reader ended badly"
fast= slow=
echo "  fast: $(tail -n 1 "$work/fast.jsonl")"
echo "  slow: $(tail -n 1 "$work/slow.jsonl")"

say "Compare every delivered frame with the recording"
python3 scripts/verify_frames.py "$recording" "$work/fast.jsonl" "$work/slow.jsonl"

say "Stop the node"
kill -TERM "$node"
wait "$node" || fail "the node ended badly"
node=
[[ ! -e $TIDEGATE_DIR ]] || fail "$TIDEGATE_DIR is still there: $(find "$TIDEGATE_DIR")"
echo "  nothing left in /dev/shm"
say "Done"
