"""What all programs do first and last: logging, other hosts, the compilation cache, and errors in one line."""

from collections.abc import Callable
import faulthandler
import gc
import logging
import os
import pathlib
import sys
import traceback
from typing import NoReturn

from absl import app, flags
from absl import logging as absl_logging
import jax

from experiments import last_word
from minmax_jax.distributed import hosts, pmap
from minmax_jax.runs import checkpoints, training

_COORDINATOR = flags.DEFINE_string("coordinator", "", "Address and port of process 0, to train on several hosts.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "Of the job; with --coordinator.")
_PROCESS_ID = flags.DEFINE_integer("process_id", 0, "Of this process, from 0; with --coordinator.")
_MULTIHOST = flags.DEFINE_bool("multihost", False, "Several hosts that know each other: a TPU pod, SLURM, Open MPI.")
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where in the code an error arose.")

_MENDABLE = (ValueError, OSError, ModuleNotFoundError, checkpoints.CheckpointError, training.DivergedError)
_LAST_WORD = (
    "Error: This process was ended, by a signal or because another process of the job is gone or never came: see what"
    " that one said. Start the same command again in all processes; training continues from its newest checkpoint."
)
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
            hosts.leave()
            last_word.dismiss()
        except BaseException as error:
            if hosts.is_joined():
                _end_for_all(error)
            if _is_told_in_one_line(error):
                last_word.dismiss()
                sys.exit(_in_one_line(error))
            raise

    app.run(with_errors_in_one_line, flags_parser=_parse_flags)


def _is_told_in_one_line(error: BaseException) -> bool:
    return isinstance(error, _MENDABLE) and not _TRACEBACK.value


def _in_one_line(error: BaseException) -> str:
    return f"Error: {error}\n(--traceback shows where it arose.)"


def _end_for_all(error: BaseException) -> NoReturn:
    """Ends this process at once: the others of the job must not wait for what it will never send."""
    if _is_told_in_one_line(error):
        print(_in_one_line(error), file=sys.stderr, flush=True)
        last_word.dismiss()
    elif isinstance(error, jax.errors.JaxRuntimeError) and not _TRACEBACK.value:
        print(error, file=sys.stderr, flush=True)  # That the other process is gone, most often.
    else:
        traceback.print_exception(error)
    sys.stdout.flush()
    os._exit(1)


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
    """Joins other hosts, if there are any, opens the compilation cache, and lets garbage wait.

    Args:
        cache: its folder, "" for ~/.cache/minmax_jax, or "off".
    """
    gc.set_threshold(50_000)  # Tracing makes many objects and no garbage: looking for it took a sixth of the time.
    named = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if any(named) or _MULTIHOST.value:
        last_word.stand_by(_LAST_WORD)
        if not _TRACEBACK.value:
            faulthandler.disable()  # Where all threads were, when another process is gone, tells nothing.
        hosts.join(*named)
    if not pmap.is_main_host():
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
