"""Tidegate from Python.

`tidegate.udf` runs user functions of a fused vertex.
"""

from ._native import __version__

__all__ = ["__version__"]
