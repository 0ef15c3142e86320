#!/usr/bin/env bash
# A fused vertex with a function in Python: readings of a file go through it twice, once undisturbed, and once with its worker and
# then the vertex itself killed with SIGKILL, again and again. The outputs have to be the same, line by line.
set -euo pipefail

usage="usage: demo-vertex.sh PATH_OF_TIDEGATE VENV_DIR"
tidegate=$(realpath "${1:?$usage}")
PATH=$(realpath --no-symlinks "${2:?$usage}")/bin:$PATH
cd "$(dirname "$0")/.."
work=$(mktemp -d)
export TIDEGATE_DIR=$work/node
vertex=
readings=200000

say() { printf '\n== %s\n' "$*"; }

fail() {
    printf 'demo failed: %s\n' "$*" >&2
    tail -n 5 "$work"/*.err >&2 || true
    exit 1
}

cleanup() {
    [[ -z $vertex ]] || kill -KILL "$vertex" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

# start DIR: a vertex in a directory of its own.
start() {
    (cd "$1" && exec "$tidegate" vertex run -c levels.toml --json) >>"$work/report.json" 2>>"$work/vertex.err" &
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
cp examples/vertex/levels.* "$work/calm"
cp "$work/calm"/* "$work/disturbed"
(cd "$work/calm" && "$tidegate" vertex validate -c levels.toml)
start "$work/calm"
wait "$vertex" || fail "the undisturbed vertex ended badly"
vertex=
cat "$work/report.json"
lines "$work/calm" | sed -n '1p'

say "The same again; now its worker is killed with SIGKILL"
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

say "Compare"
lines "$work/calm" >"$work/calm.ndjson"
lines "$work/disturbed" | cmp - "$work/calm.ndjson" || fail "the outputs are not those of the undisturbed run"
echo "  $(wc -l <"$work/calm.ndjson") lines, none missing, none twice, all in order"
