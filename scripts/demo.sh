#!/usr/bin/env bash
# The main job, for real: one node, one recording, a fast and a slow reader, a producer that is killed, a second one that
# takes over in a new epoch. Every delivered frame is compared with the recording. Takes about 20 seconds.
# Then messages, encrypted, from libzmq to Tidegate and back, with pyzmq out of the environment VENV_DIR.
# Then telemetry of this host as typed records, read by three consumers, of which one is slow and one is killed.
set -euo pipefail

usage="usage: demo.sh PATH_OF_TIDEGATE VENV_DIR"
tidegate=$(realpath "${1:?$usage}")
python=$(realpath --no-symlinks "${2:?$usage}")/bin/python
cd "$(dirname "$0")/.."
recording=examples/data/astronaut-pan.npy
work=$(mktemp -d)
export TIDEGATE_DIR=/dev/shm/tidegate-demo-$$
export TP_LOG_LEVEL=${TP_LOG_LEVEL:-0}
node= fast= slow= first= second= publisher= subscriber= doomed=

say() { printf '\n== %s\n' "$*"; }

fail() {
    printf 'demo failed: %s\n' "$*" >&2
    tail -n 5 "$work"/*.err >&2 || true
    exit 1
}

cleanup() {
    for pid in $first $second $fast $slow $node $publisher $subscriber $doomed; do
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

say "Messages: make CURVE keys"
echo "  server $("$tidegate" mq keygen --out "$work/server.key")"
echo "  client $("$tidegate" mq keygen --out "$work/client.key")"
messages=100000

say "libzmq $("$python" -c 'import zmq; print(zmq.zmq_version())') publishes, Tidegate subscribes"
"$python" scripts/messaging_peer.py pub 'tcp://127.0.0.1:*' "$messages" "$work/server.key" - \
    >"$work/publisher.out" 2>"$work/publisher.err" &
publisher=$!
wait_for 10 "the publisher" lines_at_least 1 "$work/publisher.out"
# Queues without limit: a publisher drops what a slow subscriber has no room for.
"$tidegate" mq sub --connect "$(head -n 1 "$work/publisher.out")" --subscribe tide --count "$messages" --timeout 10s --hwm 0 \
    --curve-secret "$work/client.key" --curve-server "$work/server.key.pub" \
    >"$work/received.txt" 2>"$work/subscriber.err" || fail "not all messages of libzmq came"
wait "$publisher" || fail "the publisher ended badly"
publisher=
for ((number = 0; number < messages; number++)); do printf 'tide\t%d\n' "$number"; done >"$work/sent.txt"
cmp "$work/sent.txt" "$work/received.txt" || fail "the messages are not those that were sent"
echo "  $messages messages, none missing, all in order"

say "Tidegate publishes, libzmq subscribes"
"$tidegate" mq pub --bind "ipc://$work/tide" --timeout 10s --hwm 0 --curve-secret "$work/server.key" \
    --curve-allow "$work/client.key.pub" <"$work/sent.txt" 2>"$work/publisher.err" &
publisher=$!
"$python" scripts/messaging_peer.py sub "ipc://$work/tide" "$messages" "$work/client.key" "$work/server.key.pub" \
    2>"$work/subscriber.err" || fail "not all messages of Tidegate came"
wait "$publisher" || fail "the publisher ended badly"
publisher=

say "Telemetry: publish what /proc says, every 10 ms, as typed records of a channel"
channel=host-load-$$ samples=400
echo 'tds1 HostLoad size=32 align=8 {number:u64@0+8;available_kib:u64@8+8;switches:u64@16+8;load_centi:u32@24+4;running:u32@28+4}' \
    >"$work/load.tds1"
sample() {
    local number available switches load running
    for ((number = 0; number < samples; number++)); do
        available=$(awk '/^MemAvailable/ {print $2}' /proc/meminfo)
        switches=$(awk '/^ctxt/ {print $2}' /proc/stat)
        read -r load _ _ running _ </proc/loadavg
        printf '{"number":"%d","available_kib":"%d","switches":"%d","load_centi":%d,"running":%d}\n' \
            "$number" "$available" "$switches" "$((10#${load/./}))" "${running%%/*}"
        sleep 0.01
    done
}
sample | tee "$work/samples.ndjson" | "$tidegate" hub pub "$channel" --schema "$work/load.tds1" --input - --sync all \
    --slots 64 --consumers 3 --json >"$work/load.jsonl" 2>"$work/load.err" &
publisher=$!
"$tidegate" hub sub "$channel" --wait 10s >"$work/fast.ndjson" 2>"$work/fast.err" &
fast=$!
"$tidegate" hub sub "$channel" --wait 10s --delay-ms 15 >"$work/slow.ndjson" 2>"$work/slow.err" &
slow=$!
"$tidegate" hub sub "$channel" --wait 10s >"$work/doomed.ndjson" 2>"$work/doomed.err" &
doomed=$!
wait_for 10 "records at the reader that is killed" lines_at_least 50 "$work/doomed.ndjson"
head -n 1 "$work/doomed.ndjson"

say "Kill one reader with SIGKILL; the producer goes on, at the pace of the slow one"
disown "$doomed"
kill -KILL "$doomed"
doomed=
wait "$publisher" || fail "the publisher of telemetry ended badly"
publisher=
wait "$fast" || fail "the fast reader of telemetry ended badly"
wait "$slow" || fail "the slow reader of telemetry ended badly"
fast= slow=
cmp "$work/samples.ndjson" "$work/fast.ndjson" || fail "the fast reader did not get what was published"
cmp "$work/samples.ndjson" "$work/slow.ndjson" || fail "the slow reader did not get what was published"
head -n "$(wc -l <"$work/doomed.ndjson")" "$work/samples.ndjson" | cmp - "$work/doomed.ndjson" ||
    fail "the reader that was killed got something else"
echo "  $samples records at each of the two, $(wc -l <"$work/doomed.ndjson") at the one that was killed, all as published"
compgen -G "/dev/shm/tidegate_host-load-$$*" >/dev/null && fail "a block is still in /dev/shm"
echo "  nothing left in /dev/shm"
say "Done"
