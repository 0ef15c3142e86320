"""Exceptions of user code as texts."""

import sys
import traceback

_LINES = 20


def describe(error):
    """Type and message, then the last lines of the traceback; also shows the whole on standard error."""
    lines = "".join(traceback.format_exception(error)).rstrip("\n").split("\n")
    print(*lines, sep="\n", file=sys.stderr, flush=True)
    first = "".join(traceback.format_exception_only(error)).strip()
    return "\n".join([first, *lines[-_LINES:]])
