"""Functions without a runtime: what is returned, what is raised, and views of inputs."""

import gc
import subprocess
import sys

import numpy as np
import pytest
from tidegate.udf import Drop, Fail, Nack, Output, Reject, WorkerError, worker
from tidegate.udf._worker import Made


def on(kind, function, *inputs, **options):
    w = worker()
    getattr(w, kind)(function)
    return w.test(*inputs, **options)


def test_everything_that_a_function_may_return():
    made = {
        b"bytes": b"out",
        b"buffer": bytearray(b"out"),
        b"list": [b"one", memoryview(b"two"), None],
        b"tuple": (b"one",),
        b"none": None,
        b"drop": Drop("empty"),
        b"fail": Fail("not yet"),
        b"reject": Reject("never"),
        b"nack": Nack(0.25, "later"),
    }
    answers = on("map", lambda record, ctx: made[record.tobytes()], *made)
    shown = [(a.outcome, a.values, a.reason, a.delay) for a in answers]
    assert shown == [
        ("done", [b"out"], "", 0.0),
        ("done", [b"out"], "", 0.0),
        ("done", [b"one", b"two"], "", 0.0),
        ("done", [b"one"], "", 0.0),
        ("done", [], "", 0.0),
        ("dropped", [], "empty", 0.0),
        ("failed", [], "not yet", 0.0),
        ("rejected", [], "never", 0.0),
        ("nacked", [], "later", 0.25),
    ]


FULL = Made(b"value", b"key", 1234, 0, [("name", b"1"), ("other", b"")])


def test_inputs_have_everything_and_outputs_keep_key_and_time():
    seen = []

    def function(record, ctx):
        seen.append((bytes(record.value), bytes(record.key), record.event_time, record.headers, record.position, record.index))
        return record.value

    assert on("map", function, b"plain", FULL)[1].outputs == [Made(b"value", b"key", 1234)]
    assert seen == [(b"plain", b"", None, [], 1000, 0), (b"value", b"key", 1234, FULL.headers, 1010, 1)]
    assert on("filter", lambda record, ctx: len(record.key), b"plain", FULL)[1].outputs == [FULL]
    assert on("filter", lambda record, ctx: len(record.key), b"plain")[0].outputs == []


def test_outputs_of_their_own():
    def function(record, ctx):
        assert ctx.routes == ["main", "late"] and ctx.params == {"to": "late"} and ctx.pipeline == "harness"
        to = record.tobytes().decode()
        return Output(b"x", key=b"k", event_time=5, route=int(to) if to.isdigit() else to, headers=[("a", b"b")])

    options = {"params": {"to": "late"}, "routes": ("main", "late")}
    by_name, by_number, nowhere = on("map", function, b"late", b"1", b"elsewhere", **options)
    assert by_name.outputs == by_number.outputs == [Made(b"x", b"k", 5, 1, [("a", b"b")])]
    assert nowhere.outcome == "rejected" and "elsewhere" in nowhere.reason


def test_a_record_that_raises_fails_alone_with_its_traceback(capfd):
    def deep(left):
        if left == 0:
            raise ValueError("no such thing")
        deep(left - 1)

    def function(record, ctx):
        if record.value == b"bad":
            deep(30)
        return b"text" if record.value != b"str" else "text"

    good, bad, text = on("map", function, b"good", b"bad", b"str")
    assert good.values == [b"text"]
    assert bad.outcome == "failed" and bad.reason.startswith("ValueError: no such thing\n")
    assert len(bad.reason.splitlines()) <= 22 and "deep(left - 1)" in bad.reason
    assert "TypeError" in text.reason and "encode" in text.reason
    assert "no such thing" in capfd.readouterr().err


def test_a_reason_ends_at_4_kib():
    def function(record, ctx):
        raise ValueError("é" * 5000)

    reason = on("map", function, b"")[0].reason.encode()
    assert 4000 < len(reason) <= 4096


def test_a_generator_that_raises_takes_its_outputs_with_it():
    def words(record, ctx):
        yield from record.tobytes().split()
        if b"!" in record.tobytes():
            raise ValueError("shouting")

    calm, loud = on("flat_map", words, b"to be", b"or not!")
    assert calm.values == [b"to", b"be"]
    assert loud.outcome == "failed" and loud.values == []


def test_batches_are_answered_as_a_whole():
    def function(records, ctx):
        assert len(records) == 3 and records[-1].value == b"c"
        return [b"1", [b"2", b"2"], Drop()]

    assert [a.values for a in on("batch_map", function, b"a", b"b", b"c")] == [[b"1"], [b"2", b"2"], []]
    with pytest.raises(RuntimeError, match="2 results for 3"):
        on("batch_map", lambda records, ctx: [b"", b""], b"a", b"b", b"c")
    # The last half of a batch that failed.
    alone = on("batch_map", lambda records, ctx: [b"", b""], b"a")[0]
    assert alone.outcome == "failed" and "2 results for 1" in alone.reason


def test_views_outlive_their_batch_and_cannot_be_written():
    kept = []

    def function(records, ctx):
        kept.extend(record.value for record in records)
        kept.append(memoryview(records))
        with pytest.raises(TypeError):
            records[0].value[0] = 7
        with pytest.raises(IndexError):
            records[2]
        return [None] * len(records)

    on("batch_map", function, b"first", b"second")
    gc.collect()
    on("batch_map", lambda records, ctx: [None] * len(records), *[b"other" * 20] * 50)
    assert kept[0] == b"first" and kept[1] == b"second" and kept[1][2:4] == b"co"
    assert kept[2].readonly and b"second" in kept[2].tobytes()


def address(array):
    return array.__array_interface__["data"][0]


def test_values_at_equal_distances_are_shown_where_they_are():
    kept = {}

    def function(records, ctx):
        payload = np.frombuffer(records, np.uint8)
        values = records.values_matrix("<f8", 2)
        assert address(payload) <= address(values) < address(payload) + payload.nbytes
        assert not values.flags.writeable
        columns = records.columns()
        assert columns.position.tolist() == [1000, 1010, 1020] and columns.index.tolist() == [0, 1, 2]
        assert np.isnat(columns.event_time[0]) and columns.value_len.tolist() == [16] * 3
        kept["values"] = values
        return [None] * len(records)

    on("batch_map", function, *[np.array([n, 0.5]).tobytes() for n in range(3)])
    gc.collect()
    assert kept["values"].tolist() == [[0.0, 0.5], [1.0, 0.5], [2.0, 0.5]]


def test_values_at_other_distances_are_copied():
    def function(records, ctx):
        assert records._uniform() is None
        values = records.values_matrix("<u4")
        assert values.tolist() == [1, 2, 3] and not values.flags.writeable
        times = records.columns().event_time
        assert np.isnat(times[0]) and times[1] == np.datetime64(1234, "ms")
        with pytest.raises(ValueError, match="at 1000 has 4 bytes"):
            records.values_matrix("<u8")
        return [None] * 3

    one, two, three = (np.uint32(n).tobytes() for n in (1, 2, 3))
    answers = on("batch_map", function, one, Made(two, b"a key", 1234), three)
    assert [a.outcome for a in answers] == ["done"] * 3


ROW = np.dtype([("time", "<i8"), ("x", "<f8")])


def rows(*pairs):
    return [np.array(pair, ROW).tobytes() for pair in pairs]


def test_tables():
    w = worker()

    @w.batch_table(ROW)
    def doubled(table, ctx):
        return table.rows(table.values["x"] > 1, 2 * table.values["x"][table.values["x"] > 1])

    answers = w.test(*rows((1, 0.5)), b"short", *rows((2, 2.0), (3, 3.0)))
    assert [np.frombuffer(b"".join(a.values), "<f8").tolist() for a in answers] == [[], [], [4.0], [6.0]]
    assert answers[1].outcome == "rejected" and "5 bytes" in answers[1].reason
    w = worker()
    w.batch_table("<u4")(lambda table, ctx: np.stack([table.values, table.values], axis=1))
    keyed = Made(np.uint32(7).tobytes(), b"k", 9)
    assert w.test(keyed)[0].outputs == [Made(np.uint32([7, 7]).tobytes(), b"k", 9)]
    w = worker()
    w.batch_table("<u4")(lambda table, ctx: table.values[:1])
    with pytest.raises(RuntimeError, match="for 2 rows"):
        w.test(bytes(4), bytes(4))
    with pytest.raises(TypeError, match="fixed number"):
        worker().batch_table("O")(print)


def test_long_values_are_whole():
    long = bytes(range(256)) * 1024
    assert on("map", lambda record, ctx: [record.value, bytes(record.value)], long)[0].values == [long, long]


def test_random_numbers_belong_to_their_input():
    def function(record, ctx):
        return str(ctx.rng(record).random()).encode()

    first = [a.values for a in on("map", function, b"a", b"b")]
    assert first == [a.values for a in on("map", function, b"a", b"b")] and first[0] != first[1]


def test_lines_and_counters(capfd):
    w = worker()

    @w.map
    def function(record, ctx):
        ctx.count("seen")
        ctx.count("bytes", len(record.value))
        ctx.log("seen", level="warn", at=record.position, ratio=float("nan"), what=b"x")
        return None

    w.test(b"a", b"bcd")
    assert w.counters == {"seen": 2, "bytes": 4}
    assert 'warn: seen {"at":1000,"ratio":"NaN","what":"b\'x\'"}' in capfd.readouterr().err
    for bad in (lambda ctx: ctx.log("x", level="loud"), lambda ctx: ctx.count("x", -1), lambda ctx: ctx.count("x", 1.5)):
        answer = on("map", lambda record, ctx, bad=bad: bad(ctx), b"a")[0]
        assert answer.outcome == "failed" and ("level is" in answer.reason or "Error" in answer.reason)


def test_nothing_stops_a_function_in_a_test():
    def function(record, ctx):
        assert not ctx.stop.is_set() and not ctx.stop.wait(0.001) and ctx.is_current() and ctx.time_left() > 0
        return f"{ctx.partition} {ctx.generation} {ctx.epoch} {ctx.batch} {ctx.attempt} {ctx.is_replay} {ctx.watermark}".encode()

    assert on("map", function, b"a")[0].values == [b"0 1 1 1 0 False None"]


def test_a_worker_has_one_function_and_needs_a_runtime():
    w = worker("named")
    with pytest.raises(TypeError, match="no function"):
        w.run()
    w.map(lambda record, ctx: None)
    with pytest.raises(TypeError, match="already"):
        w.filter(lambda record, ctx: True)
    # In a process of its own: run takes standard input.
    text = "from tidegate.udf import worker\nw = worker()\nw.map(print)\nw.run()"
    ended = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1 and "udf.command" in ended.stderr
    assert issubclass(WorkerError, Exception)


def test_one_schema_is_not_a_list_of_letters():
    for schema_in, taken in [("text", ["text"]), (7, [7]), (["a", 7], ["a", 7]), ((), [])]:
        assert worker(schema_in=schema_in, schema_out="made")._schemas == (taken, "made")
