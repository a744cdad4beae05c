"""The process of a program, which may be a notebook that goes on: what a program changes in it is taken back."""

import builtins
from collections.abc import Callable, Iterator
import contextlib
import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
from typing import Any, NoReturn
import warnings

from absl import flags
from absl import logging as absl_logging

_logger = logging.getLogger("minmax_jax")


def is_shared() -> bool:
    """Whether something else goes on in this process when the program has ended."""
    in_notebook = hasattr(builtins, "__IPYTHON__") or hasattr(sys, "ps1")
    return in_notebook or threading.current_thread() is not threading.main_thread()


@contextlib.contextmanager
def own_flags(main: Callable[..., None]) -> Iterator[None]:
    """Removes the flags of a program in the end: the next program in this process has flags of the same names.

    Args:
        main: of the module that defines the flags.
    """
    names = [value.name for value in main.__globals__.values() if isinstance(value, flags.FlagHolder)]
    try:
        yield
    finally:
        # Fields of a configuration are flags as well, which parsing defines.
        for name in [name for name in flags.FLAGS if name.partition(".")[0] in names]:
            delattr(flags.FLAGS, name)


def reset_flags(module: str) -> None:
    """Gives the flags that a module defines their defaults: values of the program before are not those of the next."""
    for flag in flags.FLAGS.flags_by_module_dict().get(module, ()):
        flag.unparse()


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Takes back what a program changes for itself: handlers of signals and of the log, hooks, and warnings."""
    loggers = [(log, log.handlers[:], log.level, log.propagate) for log in (_logger, logging.getLogger())]
    lost_tasks = logging.getLogger("asyncio")
    filters = lost_tasks.filters[:]
    verbosity, report, thresholds = absl_logging.get_verbosity(), sys.unraisablehook, gc.get_threshold()
    can_set_signals = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings():
        try:
            yield
        finally:
            absl_logging.set_verbosity(verbosity)
            for log, log.handlers[:], level, log.propagate in loggers:
                log.setLevel(level)
            lost_tasks.filters[:] = filters
            sys.unraisablehook = report
            gc.set_threshold(*thresholds)
            if can_set_signals and before is not None:  # None: a handler that is not Python's
                signal.signal(signal.SIGTERM, before)


def handle_termination(handler: Callable[..., Any]) -> None:
    """Lets a function handle SIGTERM, where Python allows that: in the main thread."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def show_all_characters() -> None:
    """Lets the terminal show what it cannot: a name must not end a program. A notebook's streams show everything."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def end(status: int, *, others: frozenset[multiprocessing.process.BaseProcess]) -> NoReturn:
    """Ends the program at once, and the processes that read images for it, which would live on.

    Args:
        status: of the program.
        others: processes that are not the program's.
    """
    for child in frozenset(multiprocessing.active_children()) - others:
        child.kill()
    sys.stdout.flush()
    if is_shared():
        sys.exit(status)
    os._exit(status)
