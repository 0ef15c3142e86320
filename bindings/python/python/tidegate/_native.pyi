"""Native part of the package; use it through `tidegate.udf`."""

from collections.abc import Buffer, Callable, Iterator
from random import Random
from typing import Any

from .udf import Columns

__version__: str

class WorkerError(Exception):
    """There is no runtime, it refused the worker, or it broke the protocol."""

class Batch(Buffer):
    """The records of a batch: a sequence, and a read-only buffer of the payload.

    It is a copy that this process alone has: views and arrays of it live as long as anybody keeps them.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Record: ...
    def __iter__(self) -> Iterator[Record]: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def values_matrix(self, dtype: Any, width: int | None = None) -> Any:
        """The values as a numpy array, of shape ``(records,)`` or ``(records, width)``.

        Without a copy when all values lie at equal distances, as they do when their lengths and those of keys and headers are
        the same. Raises ValueError if a value has another number of bytes.
        """

    def columns(self) -> Columns:
        """Positions, event times and lengths as numpy arrays."""

class Record:
    """One input."""

    @property
    def value(self) -> memoryview:
        """The value, read-only."""

    @property
    def key(self) -> memoryview:
        """The key, empty if there is none."""

    @property
    def event_time(self) -> int | None:
        """Event time in milliseconds since 1970, if the source has one."""

    @property
    def position(self) -> int:
        """Where the record is in its source partition."""

    @property
    def index(self) -> int:
        """Ordinal in the batch."""

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """Name and value of each header."""

    def tobytes(self) -> bytes:
        """A copy of the value."""

class Ctx:
    """What is around an input."""

    @property
    def pipeline(self) -> str:
        """Name of the pipeline."""

    @property
    def params(self) -> Any:
        """``udf.params`` of the pipeline file."""

    @property
    def routes(self) -> list[str]:
        """Names of the sinks; the number of a route is its place here."""

    @property
    def partition(self) -> int:
        """The partition of the input."""

    @property
    def generation(self) -> int:
        """Generation of the partition. A write of the function itself to the outside carries this and ``attempt``."""

    @property
    def epoch(self) -> int:
        """Epoch at admission."""

    @property
    def batch(self) -> int:
        """Number of the batch."""

    @property
    def attempt(self) -> int:
        """Which try this is, from 0 on."""

    @property
    def is_replay(self) -> bool:
        """Whether the input was given to a function before."""

    @property
    def watermark(self) -> int | None:
        """The watermark at this batch, in milliseconds."""

    @property
    def stop(self) -> Stop:
        """Whether the function should come to an end."""

    def log(self, message: str, /, level: str = "info", **fields: Any) -> None:
        """Writes a line to the log of the runtime, which adds pipeline, partition and worker.

        ``level`` is error, warn, info or debug; fields are what JSON has, or their texts. Does not wait: what comes faster than it
        is read is left out and counted.
        """

    def count(self, name: str, by: int = 1, /) -> None:
        """Adds to a counter of the function, which ``tidegate vertex status`` and ``/metrics`` show.

        Names are at most 64 letters, digits and ``_-.:/``, others are changed to such; there are at most 256 of them.
        """

    def is_current(self) -> bool:
        """Whether the vertex may still act for this batch; for functions with effects of their own."""

    def time_left(self) -> float:
        """Seconds that the batch may still take before the runtime ends this worker."""

    def rng(self, record: Record, /) -> Random:
        """Random numbers for an input: the same in every try, also on another host."""

class Stop:
    """Says that a function should come to an end.

    The vertex may not act for the batch any more, the session is over, the time of the batch is, or somebody ended the worker.
    """

    def is_set(self) -> bool:
        """Whether it should."""

    def wait(self, seconds: float, /) -> bool:
        """Sleeps until it should (True), or so many seconds have passed (False)."""

class Output:
    """One output with everything it can have; ``route`` is the name of a sink or its number."""

    def __init__(
        self,
        value: Buffer,
        *,
        key: Buffer | None = None,
        event_time: int | None = None,
        route: str | int | None = None,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None: ...

class Drop:
    """Left out on purpose."""

    reason: str
    def __init__(self, reason: str = "") -> None: ...

class Fail:
    """Failed; the runtime tries the input again."""

    reason: str
    def __init__(self, reason: str) -> None: ...

class Reject:
    """Bad for good: no further try."""

    reason: str
    def __init__(self, reason: str) -> None: ...

class Nack:
    """Back to the source, to come again after ``delay`` seconds."""

    reason: str
    def __init__(self, delay: float, reason: str) -> None: ...

def serve(
    name: str,
    kind: str,
    function: Callable[..., Any],
    stop: Any,
    schema_in: list[str | int],
    schema_out: str | int | None,
) -> None: ...
def harness(
    kind: str,
    function: Callable[..., Any],
    inputs: list[tuple[bytes, bytes, int | None, list[tuple[str, bytes]]]],
    params: str,
    routes: list[str],
) -> tuple[
    list[tuple[str, str, float, list[tuple[bytes, bytes, int | None, int, list[tuple[str, bytes]]]]]],
    dict[str, int],
]: ...
