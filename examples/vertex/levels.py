"""Water levels at a gate: adds the rise since the level that is expected at that time, and leaves out readings that are none.

Readings that close the gate go to the sink "gate", too, if the pipeline has one."""

import json
import math

from tidegate.udf import Drop, Output, worker

w = worker()


def expected(minute):
    """Millimetres: a tide of 12 h 25 min with a range of 3 m."""
    return 2000 + 1500 * math.sin(2 * math.pi * minute / 745)


def judge(reading, has_gate):
    if reading["mm"] is None:
        return Drop("the gauge was silent")
    rise = round(reading["mm"] - expected(reading["minute"]))
    close = rise > 400
    level = json.dumps({**reading, "rise_mm": rise, "close": close}).encode()
    return [level, Output(level, route="gate")] if close and has_gate else level


@w.batch_map
def levels(records, ctx):
    has_gate = "gate" in ctx.routes
    return [judge(json.loads(bytes(record.value)), has_gate) for record in records]


w.run()
