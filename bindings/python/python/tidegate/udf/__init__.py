"""User functions of a Tidegate vertex.

A vertex reads a source, gives batches of records to a function in another process over shared memory, and writes what comes
back to sinks. This package is the other process::

    from tidegate.udf import Drop, worker

    w = worker()

    @w.batch_map
    def enrich(records, ctx):
        return [bytes(r.value).upper() or Drop("empty") for r in records]

    w.run()

The pipeline file names the program under ``udf.command``; the runtime starts it, passes the control socket, and ends it.
Take ``batch_map`` or ``batch_table`` where throughput counts: a call per batch costs less than one per record. N workers of a
pipeline are N processes.

What is returned for an input:

- ``bytes`` or another buffer: one output, which keeps the key and the event time of the input;
- ``Output``: one output with a key, an event time, headers or a route of its own;
- a list or tuple of these: as many outputs;
- ``None``: no output, the input is filtered;
- ``Drop``, ``Fail``, ``Reject``, ``Nack``: what else became of it; its outputs do not count.

A function that raises fails its record, or, if it is one of batches, its batch; the traceback goes to standard error and into
the reason. ``KeyboardInterrupt`` and ``SIGTERM`` end the worker and give its batches back; ``SystemExit`` ends it as a crash
does.
"""

from .._native import Batch, Ctx, Drop, Fail, Nack, Output, Record, Reject, Stop, WorkerError
from ._columns import Columns, Rows, Table
from ._worker import Answer, Worker, worker

__all__ = [
    "Answer",
    "Batch",
    "Columns",
    "Ctx",
    "Drop",
    "Fail",
    "Nack",
    "Output",
    "Record",
    "Reject",
    "Rows",
    "Stop",
    "Table",
    "Worker",
    "WorkerError",
    "worker",
]
