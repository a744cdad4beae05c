"""The last word of a process that is ended from outside.

When a process of a job dies, JAX ends the others by abort(), from a thread of its own: none of their Python code runs
any more. So a small program stands by each, reads from a pipe that the process alone holds open, and speaks when the
pipe closes without a word.
"""

import subprocess
import sys

_PROGRAM = "import sys; sys.stdin.read() or sys.stderr.write(sys.argv[1] + chr(10))"
_watchers: list[subprocess.Popen] = []


def stand_by(message: str) -> None:
    """Has the message said on stderr when this process is gone, unless `dismiss` is called before."""
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-c", _PROGRAM, message],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # What interrupts this process must not silence the watcher.
    )
    _watchers.append(watcher)


def dismiss() -> None:
    """All is well, or said already."""
    while _watchers:
        _watchers.pop().communicate(b"all is well")
