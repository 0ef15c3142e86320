"""Measures how long partitions are without an owner (VX-908): when their vertex is drained, and when it is killed.

    handover.py PATH_OF_TIDEGATE [--rounds 10] [--partitions 16] [--lease 2s]

Two vertices share the partitions of a stream that gets a thousand records a second, on a NATS server of this run (nats-server
and nats-py are needed). The one that has all partitions is told to drain and to end, or killed; then it is started again, and it is
the other one's turn. A time ends when the bucket of ownership names the other vertex. It begins with the order or the kill: `all`;
or, when drained, with the release of the partition: `without_owner`. One JSON object for each kind, in milliseconds.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import nats
from nats.js.api import StreamConfig

PIPELINE = """
version = 1
[pipeline]
name = "handover"
uid = "00000000000000be"
delivery = "at_least_once"
[source]
kind = "jetstream"
mode = "partition"
url = "{url}"
stream = "IN"
subject = "in.{{partition}}"
partitions = {partitions}
[ownership]
kind = "jetstream"
url = "{url}"
lease = "{lease}"
instance = "{name}"
rebalance_interval = "1h"
[udf]
command = ["{tidegate}", "--quiet", "vertex", "bench-peer", "worker"]
[[sink]]
name = "main"
kind = "blackhole"
[ledger]
path = "{name}.ledger"
"""


class Owners:
    """What the bucket says: for each partition its owner, and when that was heard."""

    def __init__(self):
        self.owner, self.since, self.released = {}, {}, {}

    async def heard(self, message):
        partition, now = message.subject.rsplit(".", 1)[1], time.monotonic()
        document = json.loads(message.data)
        owner = None if document["released"] else document["owner"]
        if owner == self.owner.get(partition):
            return
        self.owner[partition] = owner
        (self.released if owner is None else self.since)[partition] = now

    async def all_of(self, name, partitions):
        deadline = time.monotonic() + 60
        while list(self.owner.values()) != [name] * partitions:
            if time.monotonic() > deadline:
                raise SystemExit(f"{name} does not get all partitions: {self.owner}")
            await asyncio.sleep(0.01)


def percentile(values, share):
    return round(sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1e3, 1)


def line(kind, what, values):
    figures = {"p50_ms": round(statistics.median(values) * 1e3, 1), "p99_ms": percentile(values, 0.99)}
    print(json.dumps({"measure": kind, "from": what, "count": len(values), **figures, "max_ms": percentile(values, 1)}))


async def server(place, exits):
    child = await asyncio.create_subprocess_exec(
        "nats-server", "--addr", "127.0.0.1", "--port", "-1", "--jetstream", "--store_dir", place / "store",
        "--ports_file_dir", place, stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"},
    )  # fmt: skip
    exits.callback(child.kill)
    ports = place / f"nats-server_{child.pid}.ports"
    while not (ports.exists() and "127.0.0.1" in ports.read_text()):
        await asyncio.sleep(0.01)
    return json.loads(ports.read_text())["nats"][0]


async def produce(streams, partitions):
    number = 0
    while True:
        for _ in range(10):
            await streams.publish_async(f"in.{number % partitions}", b"x" * 100)
            number += 1
        await asyncio.sleep(0.01)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tidegate", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument("--lease", default="2s")
    arguments = parser.parse_args()
    tidegate, partitions = arguments.tidegate.resolve(), arguments.partitions
    async with contextlib.AsyncExitStack() as exits:
        place = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-handover-")))
        url = await server(place, exits)
        client = await nats.connect(url)
        streams = client.jetstream()
        await streams.add_stream(StreamConfig(name="IN", subjects=["in.*"]))
        owners = Owners()
        await client.subscribe("$KV.tgvx_handover.own.*", cb=owners.heard)

        async def start(name):
            file = place / f"{name}.toml"
            settings = {"url": url, "partitions": partitions, "lease": arguments.lease, "tidegate": tidegate}
            file.write_text(PIPELINE.format(name=name, **settings))
            vertex = await asyncio.create_subprocess_exec(
                tidegate, "--quiet", "vertex", "run", "-c", file, cwd=place,
                env={**os.environ, "TIDEGATE_DIR": str(place / name)},
            )  # fmt: skip
            exits.callback(lambda: vertex.returncode is None and vertex.kill())
            return vertex

        vertices = {"one": await start("one")}
        await owners.all_of("one", partitions)
        load = asyncio.create_task(produce(streams, partitions))
        exits.callback(load.cancel)
        for kind, order in (("drained", signal.SIGTERM), ("killed", signal.SIGKILL)):
            times, gaps = [], []
            for turn in range(arguments.rounds):
                print(f"{kind}: {turn + 1} of {arguments.rounds}", file=sys.stderr)
                old = next(iter(vertices))
                new = "two" if old == "one" else "one"
                vertices[new] = await start(new)
                # Until it is a member, with its function at hand.
                await asyncio.sleep(3)
                ordered = time.monotonic()
                vertices[old].send_signal(order)
                await owners.all_of(new, partitions)
                times += [claimed - ordered for claimed in owners.since.values()]
                gaps += [owners.since[one] - released for one, released in owners.released.items()]
                await vertices.pop(old).wait()
                owners.released.clear()
            line(kind, "all", times)
            if gaps:
                line(kind, "without_owner", gaps)


asyncio.run(main())
