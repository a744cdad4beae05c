"""Arrays in files, for what does not fit in memory."""

import pathlib

import numpy as np

_MAX_BYTES = 1 << 26  # that are mapped at once: a system reads more around what is asked for


class DiskArray:
    """A [H, W] array in a file. Windows are read as copies: nothing stays in memory, or mapped to it.

    Attributes:
        shape: (H, W).
    """

    def __init__(self, path: pathlib.Path, shape: tuple[int, int], dtype: np.typing.DTypeLike):
        """Creates the file, full of zeros.

        Args:
            path: of the file; what is there is replaced.
            shape: (H, W), both at least 1.
            dtype: of the file; float16 is read as float32, so that thresholds mean the same everywhere.
        """
        self.shape = tuple(map(int, shape))
        self._path, self._dtype = path, np.dtype(dtype)
        self._read_as = np.float32 if self._dtype == np.float16 else self._dtype
        with path.open("wb") as file:
            file.truncate(self._offset(self.shape[0]))

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        """The values of some rows and columns; rows without steps."""
        start, stop, _ = window[0].indices(self.shape[0])
        columns = range(*window[1].indices(self.shape[1]))
        values = np.empty((stop - start, len(columns)), self._read_as)
        at_once = max(1, _MAX_BYTES // self._offset(1))
        for first in range(start, stop, at_once):
            last = min(first + at_once, stop)
            rows = np.memmap(self._path, self._dtype, "r", self._offset(first), (last - first, self.shape[1]))
            values[first - start : last - start] = rows[:, window[1]]
        return values

    def __setitem__(self, rows: slice, values: np.typing.ArrayLike) -> None:
        """Writes whole rows, also of one value; not by a map: a full disk would kill the process."""
        start, stop, _ = rows.indices(self.shape[0])
        filled = np.broadcast_to(np.asarray(values, self._dtype), (stop - start, self.shape[1]))
        with self._path.open("r+b") as file:
            file.seek(self._offset(start))
            file.write(np.ascontiguousarray(filled))

    def _offset(self, row: int) -> int:
        return row * self.shape[1] * self._dtype.itemsize
