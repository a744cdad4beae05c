"""A process that is ended from outside has a last word; one that ends by itself has not."""

import signal
import subprocess
import sys

import pytest

from tests import programs

_PROGRAM = """
import os, signal, sys
from experiments import last_word
last_word.stand_by("All is lost.")
print("before", file=sys.stderr, flush=True)
{ending}
"""


@pytest.mark.parametrize(
    "ending, code, said",
    [
        ("os.abort()", -signal.SIGABRT, "before\nAll is lost.\n"),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, "before\nAll is lost.\n"),
        ("last_word.dismiss(); os.abort()", -signal.SIGABRT, "before\n"),
        ("last_word.dismiss()", 0, "before\n"),
    ],
)
def test_the_last_word(ending, code, said):
    program = [sys.executable, "-c", _PROGRAM.format(ending=ending)]
    # Until the watcher, too, has closed stderr.
    done = subprocess.run(program, cwd=programs.ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, said)
