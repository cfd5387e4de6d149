"""Write a .npy file record by record, so that an index of 1e8 frames need not fit in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.lib import format as npy


class IndexWriter:
    """Appends records of `dtype` to `path`; `close` completes the file as a one-dimensional array."""

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self._dtype, self._count = dtype, 0
        self._file = path.open("wb")
        self._write_header()

    def append(self, record: np.ndarray) -> None:
        self._file.write(record.tobytes())
        self._count += 1

    def close(self) -> None:
        self._file.seek(0)
        self._write_header()  # as long as the first one: numpy reserves room for the count to grow
        self._file.close()

    def _write_header(self) -> None:
        header = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self._count,)}
        npy.write_array_header_1_0(self._file, header)
