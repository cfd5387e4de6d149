"""Reads pickles of NumPy arrays and plain containers, and nothing else: a pickle can otherwise run any code.

NumPy's own functions are not called either, as a forged dtype can corrupt memory: arrays are built here from their
shape, type and bytes.
"""

from __future__ import annotations

import collections
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.errors import UserError


def read_array_pickle(path: Path) -> Any:
    """The object in a pickle of arrays, numbers, text, lists, tuples and dicts; arrays of objects come as lists.

    Raises UserError if it holds anything else, or is damaged.
    """
    try:
        with path.open("rb") as file:
            return _resolve(_Unpickler(file).load())
    except _Refused as error:
        raise UserError(
            f"{path} is a pickle that asks for {error}, which could run code: only arrays, numbers, text, lists and "
            "dicts are read. If you trust the file, save its arrays in such containers with your own Python."
        ) from None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle can raise nearly any exception
        raise UserError(f"{path} is not a pickle, or is damaged: {error or type(error).__name__}.") from error


class _Refused(Exception):
    """The file asks for something else."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="latin1")  # as which Python 2's bytes are read

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        # NumPy 2 calls numpy.core numpy._core.
        place = f"{module.replace('numpy._core', 'numpy.core')}.{name}"
        if place not in _ADMITTED:
            raise _Refused(f"{module}.{name}")
        return _ADMITTED[place]


class _DType:
    """Stands for a dtype."""

    def __init__(self, code: str, *flags: object) -> None:
        self._code, self._byte_order = code, "="

    def __setstate__(self, state: tuple) -> None:
        self._byte_order, (subarray, names, fields) = state[1], state[2:5]
        if subarray or names or fields:
            raise ValueError("an array of records")

    @property
    def of_objects(self) -> bool:
        return self._code.startswith("O")

    def resolve(self) -> np.dtype:
        dtype = np.dtype(self._code)
        if dtype.kind not in "biufcSU":
            raise ValueError(f"an array of type {self._code!r}")
        return dtype.newbyteorder("=" if self._byte_order == "|" else self._byte_order)  # type: ignore[arg-type]


class _Array:
    """Stands for an array whose contents follow in the pickle."""

    def __init__(self, *empty: object) -> None:
        self.value: Any = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        if dtype.of_objects:
            self.value = list(data)
        else:
            content = data.encode("latin1") if isinstance(data, str) else data
            self.value = _from_buffer(content, dtype, shape, "F" if fortran else "C")


def _from_buffer(content: Any, dtype: _DType, shape: tuple[int, ...], order: Any, *axes: object) -> np.ndarray:
    """Since protocol 5, and of numpy.core.numeric."""
    if any(axis is not None for axis in axes):
        raise ValueError("an array in another order than C's or Fortran's")
    return np.frombuffer(content, dtype.resolve()).reshape(shape, order=order)


def _scalar(dtype: _DType, content: Any) -> Any:
    return _from_buffer(content.encode("latin1") if isinstance(content, str) else content, dtype, (), "C")[()]


def _encode(text: str, encoding: str) -> bytes:
    """By which protocol 2 stores bytes."""
    if encoding != "latin1":
        raise ValueError(f"bytes as text in {encoding!r}")
    return text.encode(encoding)


def _resolve(value: Any) -> Any:
    """`value` with arrays in place of what stands for them."""
    if isinstance(value, _Array):
        return _resolve(value.value)
    if isinstance(value, dict):
        return {_resolve(key): _resolve(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_resolve, value))
    return value


_ADMITTED: dict[str, Any] = {
    "numpy.ndarray": None,  # only ever named
    "numpy.dtype": _DType,
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "collections.OrderedDict": collections.OrderedDict,
    "_codecs.encode": _encode,
    "__builtin__.bytes": bytes,
}
"""What pickles of arrays call -> what is called in its place."""
