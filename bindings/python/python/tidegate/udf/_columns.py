"""Batches as numpy arrays.

Values of the same length lie at equal distances in the payload of a batch, so an array with that stride shows them where they
are; the array holds the batch. Values at other distances are copied once. All arrays are read-only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_MISSING_TIME = -(2**63)


@dataclass(frozen=True)
class Columns:
    """What surrounds the values of a batch, an entry for each record."""

    position: np.ndarray
    """Where the record is in its source partition, ``u8``."""
    event_time: np.ndarray
    """Event time as ``datetime64[ms]``, ``NaT`` if there is none."""
    index: np.ndarray
    """Ordinal in the batch, ``u4``."""
    value_len: np.ndarray
    """Bytes of the value, ``u4``."""


@dataclass(frozen=True)
class Rows:
    """Outputs of a ``batch_table`` function that are not one for each row; see `Table.rows`."""

    values: np.ndarray
    parents: np.ndarray


class Table:
    """The rows of a batch: the values as one array, and what surrounds them.

    A record whose value is not exactly one row is rejected and is not in the table.
    """

    def __init__(self, values, columns, kept):
        self.values: np.ndarray = values
        self.position: np.ndarray = columns.position[kept]
        self.event_time: np.ndarray = columns.event_time[kept]
        self.index: np.ndarray = columns.index[kept]

    def __len__(self):
        return len(self.values)

    def rows(self, where, values: Any) -> Rows:
        """Outputs of some rows: ``where`` is a mask of the table or the numbers of rows, one for each of ``values``."""
        return Rows(values, self.index[where])


def values_matrix(batch, dtype, width=None):
    """See `Batch.values_matrix`."""
    import numpy as np

    dtype = np.dtype(dtype)
    row = dtype.itemsize * (1 if width is None else width)
    tail = () if width is None else (width,)
    uniform = batch._uniform()
    if uniform is not None and uniform[2] == row and row > 0:
        start, stride, _ = uniform
        return _strided(batch, len(batch), start, stride, dtype, tail)
    data, others = batch._gather(row)
    if others:
        record = batch[others[0]]
        raise ValueError(f"the value at {record.position} has {len(record.value)} bytes, a row of {dtype} has {row}")
    return np.frombuffer(data, dtype).reshape(len(batch), *tail)


def columns(batch):
    """See `Batch.columns`."""
    import numpy as np

    heads = np.frombuffer(batch._heads(), [("position", "<u8"), ("time", "<M8[ms]"), ("index", "<u4"), ("len", "<u4")])
    return Columns(heads["position"], heads["time"], heads["index"], heads["len"])


def table(function, dtype):
    """Makes a function of a `Batch` out of one of a `Table`: what it returns is what the native side takes."""
    import numpy as np

    dtype = np.dtype(dtype)
    if dtype.itemsize == 0 or dtype.hasobject:
        raise TypeError(f"batch_table takes rows of a fixed number of bytes, not {dtype}")

    def call(batch, ctx):
        around = columns(batch)
        fits = around.value_len == dtype.itemsize
        if fits.all():
            values = values_matrix(batch, dtype)
        else:
            values = np.frombuffer(batch._gather(dtype.itemsize)[0], dtype)
        rejected = [
            (int(index), f"the value has {length} bytes, a row of {dtype} has {dtype.itemsize}")
            for index, length in zip(around.index[~fits], around.value_len[~fits])
        ]
        made = Table(values, around, fits)
        if len(made) == 0:
            return b"", 0, [], rejected
        returned = function(made, ctx)
        if returned is None:
            return b"", 0, [], rejected
        if not isinstance(returned, Rows):
            returned = Rows(returned, made.index)
        rows = np.ascontiguousarray(returned.values)
        if rows.ndim == 0 or len(rows) != len(returned.parents):
            raise ValueError(
                f"batch_table returned an array of shape {rows.shape} for {len(returned.parents)} rows; use table.rows for"
                " some of them"
            )
        width = rows.itemsize * int(np.prod(rows.shape[1:]))
        return rows.tobytes(), width, returned.parents.tolist(), rejected

    return call


def _strided(batch, count, start, stride, dtype, tail):
    import numpy as np

    shape = (count, *tail)
    strides = (stride, dtype.itemsize) if tail else (stride,)
    return np.ndarray(shape, dtype, memoryview(batch), start, strides)
