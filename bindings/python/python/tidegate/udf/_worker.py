"""Workers: a function, and the process that runs it."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .. import _native
from . import _columns


@dataclass(frozen=True)
class Answer:
    """What became of an input in `Worker.test`."""

    outcome: str
    """``done``, ``dropped``, ``failed``, ``rejected`` or ``nacked``."""
    outputs: list[Made] = field(default_factory=list)
    reason: str = ""
    delay: float = 0.0

    @property
    def values(self) -> list[bytes]:
        """The values of the outputs."""
        return [made.value for made in self.outputs]


@dataclass(frozen=True)
class Made:
    """An output in `Worker.test`."""

    value: bytes
    key: bytes = b""
    event_time: int | None = None
    route: int = 0
    headers: list[tuple[str, bytes]] = field(default_factory=list)


class _Stop:
    requested = False

    def set(self, *_):
        self.requested = True


class Worker:
    """A worker process, to be given one function by one of its decorators. ``ctx`` is a `Ctx` in all of them."""

    def __init__(
        self,
        name: str | None = None,
        schema_in: str | int | Iterable[str | int] = (),
        schema_out: str | int | None = None,
    ):
        self._name = name
        single = isinstance(schema_in, (str, int))
        self._schemas = ([schema_in] if single else list(schema_in), schema_out)
        self._function = None
        self.counters: dict[str, int] = {}
        """What the function counted in the last `test`."""

    def map(self, function):
        """``function(record, ctx)``: what it returns is what became of the record."""
        return self._take("map", function, function)

    def filter(self, function):
        """``function(record, ctx)``: if it returns something true, the record goes on as it is."""
        return self._take("filter", function, function)

    def flat_map(self, function):
        """``function(record, ctx)`` returns or yields any number of outputs."""
        return self._take("flat_map", function, function)

    def batch_map(self, function):
        """``function(records, ctx)``: gets a `Batch` and returns a list with an entry for each record."""
        return self._take("batch_map", function, function)

    def batch_table(self, dtype):
        """``function(table, ctx)``: gets a `Table` of values of this numpy dtype.

        It returns an array with a row for each row, or ``table.rows(where, values)``, or None for nothing. The bytes of each
        row are one output.
        """

        def decorate(function):
            return self._take("batch_table", function, _columns.table(function, dtype))

        return decorate

    def run(self) -> None:
        """Answers batches until the runtime ends the session.

        Takes standard input if the runtime has started this process, over which it passes the control socket. Otherwise it
        connects to the socket that ``TIDEGATE_VX_SOCKET`` names, and waits for the runtime. Raises `WorkerError` if there is
        no runtime, if it refuses the worker, or if it breaks the protocol.
        """
        kind, name, function = self._chosen()
        stop = _Stop()
        if threading.current_thread() is not threading.main_thread():
            _native.serve(name, kind, function, stop, *self._schemas)
            return
        before = signal.signal(signal.SIGTERM, stop.set)
        try:
            _native.serve(name, kind, function, stop, *self._schemas)
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)

    def test(self, *inputs: bytes | Made, params: Any = None, routes: tuple[str, ...] = ("main",)) -> list[Answer]:
        """Runs the function over these inputs as one batch, without a runtime: an answer for each.

        An input is a value, or a `Made` with a key, an event time and headers. Raises RuntimeError if the function fails on the
        batch as a whole. What it counted is in `counters` then; its lines for the log go to standard error.
        """
        kind, _, function = self._chosen()
        records = [one if isinstance(one, Made) else Made(bytes(one)) for one in inputs]
        packed = [(r.value, r.key, r.event_time, r.headers) for r in records]
        answers, self.counters = _native.harness(kind, function, packed, json.dumps(params), list(routes))
        return [
            Answer(outcome, [Made(*output) for output in outputs], reason, delay)
            for outcome, reason, delay, outputs in answers
        ]

    def _take(self, kind, function, call):
        if self._function is not None:
            raise TypeError("this worker has a function already; a worker runs one")
        name = self._name or getattr(function, "__name__", kind)
        self._function = (kind, name, call)
        return function

    def _chosen(self):
        if self._function is None:
            raise TypeError("this worker has no function; decorate one with map, batch_map or another kind")
        return self._function


def worker(
    name: str | None = None,
    *,
    schema_in: str | int | Iterable[str | int] = (),
    schema_out: str | int | None = None,
) -> Worker:
    """A worker process, to be given its function. ``name`` is for logs, by default that of the function.

    ``schema_in`` is the schema of the records that it takes, or several of them, ``schema_out`` that of its outputs: the text, or
    the id as ``tidegate vertex validate`` says it. They are compared with ``[schema]`` of the pipeline file. Without them records
    are untyped bytes.
    """
    return Worker(name, schema_in, schema_out)
