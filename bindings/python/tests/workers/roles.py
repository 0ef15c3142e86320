"""Workers of the tests of the runtime, by role."""

import os
import pathlib
import signal
import sys
import time

from tidegate.udf import worker

ROLE = os.environ["TIDEGATE_TEST_FUNCTION"]
PLACE = pathlib.Path(os.environ["TIDEGATE_TEST_PLACE"])
# As the pipeline file of the test has them, in another form.
TYPED = {"schema_in": [7, '{"type":"object","required":["id","at"]}'], "schema_out": 'syntax = "proto3";\r\nmessage Enriched {}\r\n'}
w = worker(ROLE, **(TYPED if ROLE == "typed" else {}))


def upper(record):
    return b"UPPER " + bytes(record.value).upper()


def once(name):
    """Whether this is the first time that a worker comes here."""
    try:
        (PLACE / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def at_123(misfortune):
    @w.map
    def function(record, ctx):
        if record.position == 123:
            misfortune()
        return upper(record)


def fail():
    raise ValueError("123 is not for me")


def die_once():
    if once("died"):
        os.kill(os.getpid(), signal.SIGKILL)


def terminated_once():
    if once("terminated"):
        os.kill(os.getpid(), signal.SIGTERM)


def interrupted_once():
    if once("interrupted"):
        raise KeyboardInterrupt


def fork_once():
    # The child comes back from here as if it were the worker.
    if once("forked") and os.fork() == 0:
        (PLACE / "child").touch()


def hold():
    (PLACE / "hangs").touch()
    while True:
        pass


with (PLACE / "pids").open("a") as pids:
    pids.write(f"{os.getpid()}\n")

match ROLE:
    case "upper" | "typed":
        w.batch_map(lambda records, ctx: [upper(record) for record in records])
    case "slow upper":
        @w.map
        def slow(record, ctx):
            time.sleep(0.0002)
            return upper(record)
    case "table":
        @w.batch_table("S8")
        def table(rows, ctx):
            return rows.rows(rows.position % 2 == 0, rows.values[rows.position % 2 == 0])
    case "batch fails on 123":
        @w.batch_map
        def strict(records, ctx):
            if any(record.position == 123 for record in records):
                fail()
            return [upper(record) for record in records]
    case "counts":
        @w.batch_map
        def counted(records, ctx):
            ctx.count("batches")
            ctx.count("records", len(records))
            ctx.log("a batch", records=len(records))
            known = (ctx.pipeline, ctx.partition, ctx.generation > 0, ctx.epoch > 0, ctx.batch > 0, ctx.attempt, ctx.is_replay)
            assert known == ("test", 0, True, True, True, 0, False), known
            assert ctx.is_current() and not ctx.stop.is_set() and 0 < ctx.time_left() <= 300
            return [upper(record) for record in records]
    case "stopped once":
        @w.map
        def stopped(record, ctx):
            if record.position == 123 and once("terminated"):
                os.kill(os.getpid(), signal.SIGTERM)
                assert ctx.stop.wait(600)
            return upper(record)
    case "fails on 123":
        at_123(fail)
    case "dies once":
        at_123(die_once)
    case "terminated once":
        at_123(terminated_once)
    case "interrupted once":
        at_123(interrupted_once)
    case "exits on 123":
        at_123(sys.exit)
    case "forks once":
        at_123(fork_once)
    case "holds the interpreter on 123":
        at_123(hold)
w.run()
