#!/usr/bin/env bash
# A fused vertex with a function in Python: readings of a file go through it twice, once undisturbed, and once with its worker and
# then the vertex itself killed with SIGKILL, again and again. What it wrote to files and to a stream of a NATS server has to be
# the same, line by line.
set -euo pipefail

usage="usage: demo-vertex.sh PATH_OF_TIDEGATE VENV_DIR"
tidegate=$(realpath "${1:?$usage}")
PATH=$(realpath --no-symlinks "${2:?$usage}")/bin:$PATH
cd "$(dirname "$0")/.."
work=$(mktemp -d)
export TIDEGATE_DIR=$work/node
vertex= nats=
readings=200000

say() { printf '\n== %s\n' "$*"; }

fail() {
    printf 'demo failed: %s\n' "$*" >&2
    tail -n 5 "$work"/*.err >&2 || true
    exit 1
}

cleanup() {
    [[ -z $vertex$nats ]] || kill -KILL $vertex $nats 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

cat >"$work/gate.py" <<'END'
"""gate.py URL make|show: makes the stream of the gate, or shows what is in it."""

import asyncio
import sys

import nats
from nats.js.api import DiscardPolicy, StreamConfig


async def main(url, what):
    client = await nats.connect(url)
    streams = client.jetstream()
    if what == "make":
        await streams.add_stream(
            StreamConfig(
                name="GATE_0",
                subjects=["gate.0.>"],
                discard=DiscardPolicy.NEW,
                deny_delete=True,
                deny_purge=True,
            )
        )
    else:
        last = (await streams.stream_info("GATE_0")).state.last_seq
        for first in range(1, last + 1, 1000):
            some = range(first, min(first + 1000, last + 1))
            for message in await asyncio.gather(*(streams.get_msg("GATE_0", place) for place in some)):
                if message.subject == "gate.0.data":
                    print(message.data.decode())
    await client.close()


asyncio.run(main(*sys.argv[1:]))
END

# start_nats DIR: a server with nothing in it but the stream of the gate, which is still empty.
start_nats() {
    local end=$((SECONDS + 60)) ports
    nats-server --addr 127.0.0.1 --port -1 --jetstream --store_dir "$1/nats" --ports_file_dir "$1" >"$work/nats.err" 2>&1 &
    nats=$!
    ports=$1/nats-server_$nats.ports
    until [[ -s $ports ]]; do
        ((SECONDS < end)) || fail "waited too long for nats-server"
        sleep 0.02
    done
    url=$(grep -o 'nats://127[^"]*' "$ports")
    python "$work/gate.py" "$url" make
    sed "s|nats://127.0.0.1:4222|$url|" examples/vertex/alarms.toml >"$1/alarms.toml"
}

# stop_nats FILE: what is in the stream goes to a file.
stop_nats() {
    python "$work/gate.py" "$url" show >"$1"
    kill "$nats"
    wait "$nats" || true
    nats=
}

# start DIR: a vertex in a directory of its own.
start() {
    (cd "$1" && exec "$tidegate" vertex run -c alarms.toml --json) >>"$work/report.json" 2>>"$work/vertex.err" &
    vertex=$!
}

# lines DIR: what is visible in the sink, in the order of its epochs.
lines() { find "$1/out" -name '*.ndjson' ! -path '*/.*' 2>/dev/null | LC_ALL=C sort | xargs -r cat; }

# wait_for_lines N: until so many are visible.
wait_for_lines() {
    local end=$((SECONDS + 60))
    until (($(lines "$work/disturbed" | wc -l) >= $1)); do
        ((SECONDS < end)) || fail "waited too long for $1 lines"
        kill -0 "$vertex" 2>/dev/null || fail "the vertex ended before it was killed"
        sleep 0.02
    done
}

say "Vertex: $readings readings of a gauge, one in a thousand missing, through a function in Python"
mkdir "$work/calm" "$work/disturbed"
awk -v count="$readings" 'BEGIN { srand(1); for (n = 0; n < count; n++)
    printf "{\"minute\": %d, \"mm\": %s}\n", n, rand() < 0.001 ? "null" : int(2000 + 1500 * sin(n / 118.6) + 900 * rand() - 300) }' \
    >"$work/calm/readings.ndjson"
cp examples/vertex/levels.py "$work/calm"
cp "$work/calm"/* "$work/disturbed"
start_nats "$work/calm"
(cd "$work/calm" && "$tidegate" vertex validate -c alarms.toml)
start "$work/calm"
wait "$vertex" || fail "the undisturbed vertex ended badly"
vertex=
cat "$work/report.json"
lines "$work/calm" | sed -n '1p'
stop_nats "$work/calm.gate"

say "The same again; now its worker is killed with SIGKILL"
start_nats "$work/disturbed"
start "$work/disturbed"
wait_for_lines 10000
worker=$(cat "/proc/$vertex"/task/*/children | tr -d ' ')
kill -KILL "$worker"
echo "  worker $worker killed at $(lines "$work/disturbed" | wc -l) lines"
for share in 3 6 9; do
    wait_for_lines $((readings * share / 12))
    say "Kill the vertex with SIGKILL at $(lines "$work/disturbed" | wc -l) lines, start it again"
    kill -KILL "$vertex"
    # The lock of its ledger goes with its last moment. The shell's comment on that is not needed.
    { wait "$vertex" || true; } 2>/dev/null
    start "$work/disturbed"
done
wait "$vertex" || fail "the vertex ended badly"
vertex=

stop_nats "$work/disturbed.gate"

say "Compare"
lines "$work/calm" >"$work/calm.ndjson"
lines "$work/disturbed" | cmp - "$work/calm.ndjson" || fail "the outputs are not those of the undisturbed run"
echo "  files: $(wc -l <"$work/calm.ndjson") lines, none missing, none twice, all in order"
[[ -s $work/calm.gate ]] || fail "there is nothing in the stream"
cmp "$work/disturbed.gate" "$work/calm.gate" || fail "the stream has not what the undisturbed run has"
echo "  stream: $(wc -l <"$work/calm.gate") messages, none missing, none twice, all in order"
