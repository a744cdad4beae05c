"""Arrays of MATLAB files, read in a process of their own: SciPy's reader crashes on some damaged files.

This file is also that process: `python mat_files.py PATH NAME...` writes a NumPy archive to its output.
"""

from collections.abc import Sequence
import io
import pathlib
import subprocess
import sys

import numpy as np


def read(path: pathlib.Path, names: Sequence[str]) -> list[np.ndarray]:
    """Arrays of whole numbers by name, made flat.

    Raises:
        ValueError: with the reason, if the file is damaged or lacks one of them.
    """
    # -P: the modules next to this file must not hide others of their name.
    command = [sys.executable, "-P", __file__, str(path), *names]
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise ValueError(lines[-1] if lines else f"its reader ended with status {done.returncode}")
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as arrays:
        return [arrays[name] for name in names]


def _main(path: str, *names: str) -> None:
    import scipy.io

    content = scipy.io.loadmat(path)
    np.savez(sys.stdout.buffer, **{name: content[name].ravel().astype(int) for name in names})


if __name__ == "__main__":
    _main(*sys.argv[1:])
