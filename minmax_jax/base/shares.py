"""Which share of some files or slides a process takes: its number, and how many processes there are."""

from collections.abc import Mapping, Sequence
import os
from typing import Any, NamedTuple

from minmax_jax.base.errors import OptionError

# By launcher: what holds the number of a process, the number of processes, and the number of the process on its host.
# SLURM_STEP_NUM_TASKS is there in a step alone: a batch script is one process, whatever its job asks for.
_LAUNCHERS = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
)
_ARRAY = "SLURM_ARRAY_TASK_"


class Share(NamedTuple):
    """A share of the work.

    Attributes:
        index: number of the process, from 0.
        count: number of processes.
        local_index: number of the process on its host, from 0: that of its accelerator.

    Example:
        >>> from minmax_jax.base.shares import Share
        >>> Share(1, 3).of(["a", "b", "c", "d", "e"])
        ['b', 'e']
    """

    index: int = 0
    count: int = 1
    local_index: int = 0

    def of(self, items: Sequence[Any]) -> Sequence[Any]:
        """Every `count`-th item: neighbours, which are often alike, go to different processes."""
        return items[self.index :: self.count]


ALL = Share()


def check(index: int, count: int) -> Share:
    """The share that a user numbers.

    Args:
        index: from 0.
        count: of all processes.

    Raises:
        OptionError: naming num_processes and process_id.
    """
    if not 0 <= index < count:
        raise OptionError(
            f"process_id={index} must be at least 0 and less than num_processes={count}, equal in all processes."
        )
    return Share(index, count)


def of_launcher(environment: Mapping[str, str] = os.environ) -> Share:
    """The share that Open MPI or SLURM gave this process: its task of `srun`, its task of a job array, or both.

    Args:
        environment: variables of the process.

    Raises:
        OptionError: naming multihost, if no launcher started the process, or if the numbers of an array have gaps.

    Example:
        >>> from minmax_jax.base import shares
        >>> shares.of_launcher({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"})
        Share(index=3, count=8, local_index=1)
    """
    started = next((names for names in _LAUNCHERS if all(name in environment for name in names[:2])), None)
    is_in_array = f"{_ARRAY}ID" in environment
    if not started and not is_in_array:
        raise OptionError(
            "multihost: neither srun, nor a SLURM job array, nor mpirun of Open MPI started this process. Use one of"
            " them, or give num_processes and process_id."
        )
    index, count, local_index = (int(environment.get(name, 0)) for name in started) if started else ALL
    if is_in_array:
        task, tasks = _read_array(environment)
        index, count = task * count + index, tasks * count
    return Share(index, count, local_index)


def _read_array(environment: Mapping[str, str]) -> tuple[int, int]:
    """Number of a task in its job array, from 0, and number of tasks."""
    names = ("ID", "MIN", "MAX", "COUNT", "STEP")
    task, least, most, count, step = (int(environment.get(f"{_ARRAY}{name}", 1)) for name in names)
    if (task - least) % step or (most - least) // step + 1 != count:
        raise OptionError(
            f"multihost: the tasks of this SLURM job array, {count} from {least} to {most}, have gaps. Submit"
            " --array=0-N without gaps; one task alone, such as --array=3, finishes all that is missing."
        )
    return (task - least) // step, count
