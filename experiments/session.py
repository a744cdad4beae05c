"""What all programs do first and last: logging, other hosts, the compilation cache, and errors in one line."""

from collections.abc import Callable
import logging
import os
import pathlib
import sys

from absl import app, flags
from absl import logging as absl_logging
import jax

from minmax_jax import checkpoints, parallel, training

_COORDINATOR = flags.DEFINE_string("coordinator", "", "Address and port of process 0, to train on several hosts.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "Of the job; with --coordinator.")
_PROCESS_ID = flags.DEFINE_integer("process_id", 0, "Of this process, from 0; with --coordinator.")
_MULTIHOST = flags.DEFINE_bool("multihost", False, "Several hosts that know each other: a TPU pod, SLURM, Open MPI.")
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where in the code an error arose.")

_MENDABLE = (ValueError, OSError, ModuleNotFoundError, checkpoints.CheckpointError, training.DivergedError)
_logger = logging.getLogger("minmax_jax")


def run(main: Callable[[], None]) -> None:
    """Runs a program; an error that a user can mend ends it with the message alone, and status 1."""

    def with_errors_in_one_line(argv: list[str]) -> None:
        if len(argv) > 1:
            sys.exit(f"Error: {argv[1:]} are no flags; a flag is --NAME=VALUE.")
        absl_logging.set_verbosity(absl_logging.WARNING)
        _log_to_stderr()
        try:
            main()
        except _MENDABLE as error:
            if _TRACEBACK.value:
                raise
            sys.exit(f"Error: {error}\n(--traceback shows where it arose.)")

    app.run(with_errors_in_one_line, flags_parser=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except AttributeError as error:  # What ml_collections raises, around another error, for an unknown field.
        cause = error.args[0].args[0] if isinstance(error.args[0], Exception) else str(error)
        sys.exit(f"Error: --config has no field {' '.join(cause.split())}")
    except (flags.Error, KeyError, TypeError, ValueError) as error:
        # Where a configuration file itself failed, the message holds a whole traceback; its last line tells why.
        message = str(error).strip()
        if "Traceback" in message:
            message = message.splitlines()[-1].partition(": ")[2]
        sys.exit(f"Error: {message}\n(--help explains the flags.)")


def start(cache: str) -> None:
    """Joins other hosts, if there are any, and opens the compilation cache.

    Args:
        cache: its folder, "" for ~/.cache/minmax_jax, or "off".
    """
    if _COORDINATOR.value or _MULTIHOST.value:
        parallel.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if not parallel.is_main_host():
        _logger.setLevel(logging.WARNING)
    if cache == "off":
        return
    folder = pathlib.Path(cache or os.environ.get("JAX_COMPILATION_CACHE_DIR", "~/.cache/minmax_jax")).expanduser()
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    _logger.info("Compiled programs are kept in %s (--config.compilation_cache=off: nowhere).", folder)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    _logger.addHandler(handler)
    _logger.setLevel(logging.INFO)
    _logger.propagate = False
