"""What all programs share: flags, logging, other hosts, the compilation cache, and errors in one line."""

from collections.abc import Callable
import faulthandler
import functools
import gc
import logging
import multiprocessing
import os
import pathlib
import sys
import time
import traceback
from typing import Any, NoReturn
import warnings

from absl import app, flags
from absl import logging as absl_logging

from minmax_jax.base import disk
from minmax_jax.base.errors import OptionError, UserError, naming

from . import config_files, process

_COORDINATOR = flags.DEFINE_string("coordinator", "", "Address and port of process 0 of a job on several hosts.")
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes",
    0,
    "Number of processes: of a job, with --coordinator; of predict and prepare_data, all started on this machine, or"
    " with --process_id one of them.",
)
_PROCESS_ID = flags.DEFINE_integer("process_id", 0, "Number of this process, from 0; with --num_processes.")
_MULTIHOST = flags.DEFINE_bool(
    "multihost",
    False,
    "Join the other hosts of a TPU pod, SLURM or Open MPI job; predict and prepare_data: take the share of this task.",
)
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show the traceback of an error.")

# Seconds that a process of a job stays after an error that others may report as well: its end ends them.
_SECONDS_TO_REPORT = 3
_SAVES_MEMORY = (
    "Lower config.batch_size, config.data.crop_size or config.evaluation.batch_size, raise config.train.accumulation,"
    " or set config.model.remat=True (docs/scale.md). Of prepare_data: cut large images by --tile_size."
)
# Flags of earlier versions, and what to do instead.
_DELETED_FLAGS = {
    "crf": "Predictions and exported files are without a CRF; evaluate --crf measures a run with one (docs/crf.md)."
}
# Former names of flags; the old name ends a program with an error that gives the new one.
_RENAMED = {"least_area": "min_area", "least_tissue": "min_tissue"}
_logger = logging.getLogger("minmax_jax")


class Terminated(KeyboardInterrupt):
    """SIGTERM: what job schedulers send before they kill. It ends a program as Ctrl-C does."""


def run(main: Callable[..., None], *, takes_paths: bool = False) -> None:
    """Runs a program.

    Args:
        main: the program; called without arguments, or with the list of those that are not flags.
        takes_paths: whether there may be arguments that are not flags.

    An error that a user can correct ends it with its message alone and status 1, Ctrl-C with 130, SIGTERM with 143. The
    process ends with it, unless that is a notebook's.
    """

    others = frozenset(multiprocessing.active_children())

    def run_main(argv: list[str]) -> None:
        if len(argv) > 1 and not takes_paths:
            sys.exit(f"Error: {argv[1:]} are not flags; a flag is --NAME=VALUE.")
        _log_to_stderr()
        warnings.filterwarnings("ignore", "Image size .* exceeds limit")  # Pillow's; what it refuses is an error
        if not _TRACEBACK.value:
            _silence_threads()
        process.handle_termination(_terminate)
        try:
            main(argv[1:]) if takes_paths else main()
        except KeyboardInterrupt as stop:
            _stop(stop, others)
        except BaseException as error:
            if _is_in_job():
                _end_job(error, others)
            if message := _explain(error):
                sys.exit(message)
            raise
        if _is_in_job():
            from minmax_jax.distributed import hosts

            hosts.leave()

    process.show_all_characters()
    process.reset_flags(__name__)
    document = main.__globals__["__doc__"]
    with process.own_flags(main), process.restored():
        app.run(run_main, flags_parser=functools.partial(_parse_flags, document))


def _silence_threads() -> None:
    """Keeps the libraries' reports of a failed save to themselves: the main thread raises it again, as one error."""
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").addFilter(_is_no_lost_task)
    report = sys.unraisablehook

    def report_unless_closed(unraisable) -> None:
        # What the readers and writers of checkpoints call once the first of them has failed.
        if "Event loop is closed" not in str(unraisable.exc_value):
            report(unraisable)

    sys.unraisablehook = report_unless_closed


def _is_no_lost_task(record: logging.LogRecord) -> bool:
    # asyncio's report of a task that failed after the first one of the same save.
    return "exception was never retrieved" not in record.getMessage()


def _terminate(number, frame) -> NoReturn:
    del number, frame
    raise Terminated


def _stop(stop: KeyboardInterrupt, others: frozenset) -> NoReturn:
    """Ends the program at once: threads that are still working would only show that they cannot go on."""
    print(f"Stopped. {str(stop) or 'Rerun the same command.'}", file=sys.stderr, flush=True)
    process.end(143 if isinstance(stop, Terminated) else 130, others=others)


def _explain(error: BaseException) -> str:
    """One line for an error that a user can correct, "" for any other: it keeps its traceback."""
    if _TRACEBACK.value:
        return ""
    if isinstance(error, UserError):
        text = str(error)
    elif _is_out_of_memory(error):
        first = str(error).strip().partition("\n")[0]
        text = f"out of memory ({first}).\n{_SAVES_MEMORY}"
    elif disk.is_full(error):
        text = str(disk.full_error(error))
    # A file that cannot be read or written: its name and the reason are all that a user needs.
    elif isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        text = f"{error.filename}: {error.strerror}.{disk.advise(error)}"
    else:
        return ""
    return f"Error: {text}\n(--traceback shows where it arose.)"


def _is_out_of_memory(error: BaseException) -> bool:
    """Of this process, or of an accelerator: JAX raises one kind of error for everything that a device reports."""
    words = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory")
    is_of_device = type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError") and any(
        w in str(error) for w in words
    )
    return isinstance(error, MemoryError) or is_of_device


def _is_in_job() -> bool:
    """Whether this process is one of a job; JAX is not imported for it."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _end_job(error: BaseException, others: frozenset) -> NoReturn:
    """Ends this process at once: the other processes of the job must not wait for data that it will never send."""
    import jax

    if message := _explain(error):
        print(message, file=sys.stderr, flush=True)
        time.sleep(_SECONDS_TO_REPORT)
    elif isinstance(error, jax.errors.JaxRuntimeError) and not _TRACEBACK.value:
        print(error, file=sys.stderr, flush=True)  # usually that another process is gone
    else:
        traceback.print_exception(error)
    process.end(1, others=others)


def _parse_flags(document: str, argv: list[str]) -> list[str]:
    if {"-h", "-help", "--help"} & set(argv[1:]):
        print(document)
        for module in flags.FLAGS.flags_by_module_dict():
            if "experiments" in module:
                print(flags.FLAGS.module_help(module).partition("\n")[2], end="\n")
        sys.exit(0)
    try:
        _refuse_renamed(argv)
        sys.argv = argv = _without_deleted(argv)  # ml_collections reads there which fields are given
        return flags.FLAGS(config_files.resolve(argv))
    except UserError as error:
        sys.exit(f"Error: {error}")
    except flags.UnrecognizedFlagError as error:
        advice = _DELETED_FLAGS.get(error.flagname.removeprefix("no"), "(--help explains the flags.)")
        sys.exit(f"Error: {error}\n{advice}")
    except AttributeError as error:  # from ml_collections, around another error, for an unknown field
        exit_for_unknown_field("config", error, argv)
    except KeyError as error:  # from ml_collections, for an unknown group, or from a configuration file itself
        message = " ".join(str(error.args[0]).split())
        groups = [f"'{part}'" for flag in argv for part in flag.partition("=")[0].split(".")[1:]]
        kind = "has no field" if message.startswith(tuple(groups)) else "raises KeyError:"
        sys.exit(f"Error: --config {kind} {message}")
    except (flags.Error, TypeError, ValueError) as error:
        # If a configuration file itself failed, the message is a traceback, whose last line has the reason.
        message = str(error).strip()
        if "Traceback" in message:
            message = message.splitlines()[-1].partition(": ")[2]
        sys.exit(f"Error: {message}\n(--help explains the flags.)")


def exit_for_unknown_field(group: str, error: AttributeError, argv: list[str]) -> NoReturn:
    """Ends the program for a flag --GROUP.FIELD of which there is no field, or none any more.

    Args:
        group: GROUP.
        error: what ml_collections raised.
        argv: the arguments of the program.
    """
    from minmax_jax.runs.building import deleted_fields

    prefix = "" if group == "config" else f"{group}."
    fields = [prefix + flag.partition("=")[0].lstrip("-").partition(".")[2] for flag in argv if flag.startswith("-")]
    gone = next(filter(None, map(deleted_fields.explain, fields)), "")
    cause = error.args[0].args[0] if isinstance(error.args[0], Exception) else str(error)
    sys.exit(f"Error: {gone or f'--{group} has no field ' + ' '.join(cause.split())}")


def _refuse_renamed(argv: list[str]) -> None:
    """Raises OptionError for the former name of a flag of this program."""
    for argument in argv[1:]:
        if argument == "--":  # what follows are no flags
            return
        name = argument.lstrip("-").partition("=")[0]
        if argument.startswith("-") and name in _RENAMED and _RENAMED[name] in flags.FLAGS:
            raise OptionError(f"--{name} is now --{_RENAMED[name]}. Use the new name.")


def _without_deleted(argv: list[str]) -> list[str]:
    """The arguments without fields that are gone and whose value is the one that every run has now, with a warning."""
    from minmax_jax.runs.building import deleted_fields

    kept = []
    for argument in argv:
        name, _, value = argument.lstrip("-").partition("=")
        group, _, field = name.partition(".")
        if argument.startswith("-") and group == "config" and deleted_fields.changes_nothing(field, value):
            print(f"Warning: config.{field} is gone; {argument} has no effect. Leave it out.", file=sys.stderr)
        else:
            kept.append(argument)
    return kept


def start(*, keeps_compiled: bool = True, joins_hosts: bool = True) -> None:
    """Joins other hosts, if there are any, and opens the compilation cache.

    Args:
        keeps_compiled: whether programs are kept for later runs: in the folder that JAX_COMPILATION_CACHE_DIR names, or
            else in ~/.cache/minmax_jax, unless JAX_ENABLE_COMPILATION_CACHE is false. JAX itself reads both.
        joins_hosts: whether the flags of a job connect this process to others; not of programs that share files.
    """
    import jax

    from minmax_jax.distributed import hosts

    gc.set_threshold(50_000)  # Tracing creates many objects and no garbage: collection took a sixth of its time.
    job = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if joins_hosts and (any(job) or _MULTIHOST.value):
        if not _TRACEBACK.value:
            faulthandler.disable()  # the stacks of all threads do not explain that another process died
        with naming("--"):
            hosts.join(*job)
    _check_platforms()
    if not hosts.is_main_host():
        _logger.setLevel(logging.WARNING)
    if keeps_compiled and jax.config.jax_enable_compilation_cache:
        _keep_compiled()
    else:
        jax.config.update("jax_enable_compilation_cache", False)


def _keep_compiled() -> None:
    import jax

    if not jax.config.jax_compilation_cache_dir:
        try:
            jax.config.update("jax_compilation_cache_dir", str(pathlib.Path("~/.cache/minmax_jax").expanduser()))
        except RuntimeError:
            _logger.info("Compiled programs are not kept: there is no home directory.")
            return
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    folder = jax.config.jax_compilation_cache_dir
    _logger.info("Compiled programs are kept in %s (JAX_ENABLE_COMPILATION_CACHE=false turns this off).", folder)


class _BoolOr(flags.ArgumentParser):
    """Parses true, false, or one more value."""

    def __init__(self, value: str):
        super().__init__()
        self.syntactic_help = f"true, false or {value}"
        self._value = value

    def parse(self, argument: bool | str) -> bool | str:
        if argument == self._value:
            return argument
        try:
            return flags.BooleanParser().parse(argument)
        except ValueError:
            raise ValueError(f"value must be true, false or {self._value}") from None


def create_bool_or(name: str, value: str, text: str) -> flags.Flag:
    """A flag that is --name, --noname or --name=VALUE; default: False.

    Args:
        name: of the flag.
        value: name of the value that the flag takes instead of true or false, as in --name=VALUE.
        text: description for --help.
    """
    return flags.Flag(_BoolOr(value), flags.ArgumentSerializer(), name, False, text, boolean=True)


def _check_platforms() -> None:
    """Raises UserError where JAX finds no device of the platforms that an environment variable names."""
    import jax

    try:
        jax.local_devices()
    except (RuntimeError, AssertionError) as error:  # of a platform without a package, JAX asserts only
        names = [name for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME") if os.environ.get(name)]
        if not names:
            raise
        values = " ".join(f"{name}={os.environ[name]!r}" for name in names)
        raise UserError(
            f"{values} names a platform that is not there. This machine has: {', '.join(_platforms())}. Set {names[0]}"
            " to one of these, or unset it: JAX then chooses."
        ) from error


def _platforms() -> list[str]:
    """The platforms that JAX finds, whatever the environment says."""
    import jax
    from jax.extend import backend

    logging.getLogger("jax").setLevel(logging.ERROR)  # not that there is no TPU
    for option in ("jax_platforms", "jax_platform_name"):
        jax.config.update(option, "")
    return sorted(backend.backends())


def read_scales(values: list[str] | None) -> tuple[float, ...] | None:
    """The value of a flag that lists sizes, such as 0.75,1,1.25, None without."""
    try:
        return None if values is None else tuple(map(float, values))
    except ValueError as error:
        raise OptionError(f"scales={','.join(values)!r} must be numbers, such as 0.75,1,1.25.") from error


def print_on_main_host(text: str) -> None:
    """Prints a text once, of several hosts on the main one."""
    from minmax_jax.distributed import hosts

    if hosts.is_main_host():
        print(text)


def print_results(content: dict[str, Any], workdir: str) -> None:
    """Prints the test results of a run in words, on the main host: `content` is that of its results.json."""
    from minmax_jax.runs.folder import results

    print_on_main_host(results.describe(content))
    print_on_main_host(f"Results: {workdir}/results.json   Pictures: {workdir}/pictures/")


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    _logger.addHandler(handler)
    _logger.setLevel(logging.INFO)
    _logger.propagate = False
