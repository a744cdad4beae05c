"""Saving and restoring a run: its state, whose step is also the position in the data, and the validations so far.

The newest two checkpoints and the selected one are kept. A checkpoint is written under another name, renamed when it is
complete, and contains a digest of its state. A damaged one is never deleted: it is moved aside, and the run resumes
from the one before. One that cannot be read at the moment is not damaged: the run stops and can be restarted.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import logging
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from minmax_jax.base import disk, interrupts, strict_json
from minmax_jax.base.errors import UserError
from minmax_jax.distributed import devices, hosts
from minmax_jax.evaluation import selection
from minmax_jax.runs.folder import digests
from minmax_jax.training.state import TrainState

logger = logging.getLogger(__name__)
_NUM_NEWEST = 2
DAMAGED = "damaged_checkpoints"


@dataclasses.dataclass
class RunRecord:
    """What a run knows besides its state.

    Attributes:
        validations: summary of each validation so far, with its step.
        selected_step: step of the selected model, 0 before the first validation.
        selected_score: its score, lower is better.
        seconds: time spent on training so far, over all starts.
    """

    validations: list[dict] = dataclasses.field(default_factory=list)
    selected_step: int = 0
    selected_score: float = float("inf")
    seconds: float = 0.0


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that is needed cannot be used; the message names the folder and what to do."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint is incomplete or was changed since it was written."""


def _with_key_data(state: TrainState) -> TrainState:
    return state.replace(rng=jax.random.key_data(state.rng))


def _to_host(state: TrainState) -> TrainState:
    """A copy in NumPy arrays, the key as its data: the same for any devices and hosts."""
    return jax.tree.map(np.asarray, _with_key_data(state))


def _empty_like(state: TrainState) -> TrainState:
    """Arrays to restore into. Only shapes are read: the state itself may have been donated to a step."""
    shapes = jax.eval_shape(_with_key_data, state)
    return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)


def _to_devices(on_host: TrainState, like: TrainState) -> TrainState:
    rng = jax.random.wrap_key_data(on_host.rng, impl=jax.random.key_impl(like.rng))
    return devices.replicate(on_host.replace(rng=rng))


@dataclasses.dataclass
class _KeepSelected(preservation_policy.PreservationPolicy):
    """Keeps the checkpoint of the selected model; a replaced one is deleted once the new one is complete."""

    step: int = 0

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        del context
        return [checkpoint.step == self.step for checkpoint in checkpoints]


class Checkpoints:
    """The checkpoints of a run: the newest two, and that of the selected model."""

    def __init__(self, folder: str | pathlib.Path, *, read_only: bool = False):
        """Opens a folder.

        Args:
            folder: created if it does not exist.
            read_only: changes nothing in the folder, in which another process may be training. Otherwise temporary
                files of an interrupted save are removed.
        """
        self.folder = pathlib.Path(folder).absolute()
        self._selected = _KeepSelected()
        self._num_bytes = 0
        policy = preservation_policy.AnyPreservationPolicy([preservation_policy.LatestN(_NUM_NEWEST), self._selected])
        options = ocp.CheckpointManagerOptions(
            preservation_policy=None if read_only else policy,
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            read_only=read_only,
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def steps(self) -> list[int]:
        """Steps of the checkpoints with a final name, in ascending order."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, record: RunRecord) -> None:
        """Starts to save; the files are written in the background. Ctrl-C and SIGTERM wait until it has started.

        Raises:
            CheckpointError: if this checkpoint, or the one before, cannot be written.
        """
        self._selected.step = record.selected_step
        on_host = _to_host(state)
        content = dataclasses.asdict(record) | {"digest": digests.digest(on_host)}
        self._num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(on_host))
        with interrupts.deferred(), self._explaining():
            self._manager.save(
                int(state.step),
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(on_host),
                    progress=ocp.args.JsonSave(strict_json.finite(content)),
                ),
            )

    def wait(self) -> None:
        """Blocks until all saves are written.

        Raises:
            CheckpointError: if one cannot be written.
        """
        with self._explaining():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        """Whatever a save raises, in this call or in the background since the last one."""
        try:
            yield
        except Exception as error:
            reason = f"A checkpoint cannot be written to {self.folder} ({type(error).__name__}: {error})."
            if disk.is_full(error):
                reason = f"{disk.explain(error, self.folder, needed_bytes=self._num_bytes)} Make room there."
            raise CheckpointError(
                f"{reason} The checkpoints before are kept: rerun the same command to resume."
            ) from error

    def restore_newest(self, state: TrainState) -> tuple[TrainState, RunRecord] | None:
        """Restores the newest undamaged checkpoint.

        Args:
            state: a fresh state of the same shape.

        Returns:
            State and record, or None if nothing was saved.

        Raises:
            CheckpointError: if there are checkpoints and all are damaged, or if one cannot be read at the moment.
        """
        for step in reversed(self.steps()):
            try:
                return self.restore(step, state)
            except DamagedCheckpointError as error:
                logger.warning("%s Falling back to the one before.", error)
        if self.steps():
            raise CheckpointError(f"All checkpoints in {self.folder} are damaged. Start again in another workdir.")
        return None

    def restore(self, step: int, state: TrainState) -> tuple[TrainState, RunRecord]:
        """Restores one checkpoint.

        Args:
            step: of the checkpoint.
            state: a fresh state of the same shape.

        Raises:
            DamagedCheckpointError: if it is missing or damaged.
            CheckpointError: if it cannot be read at the moment.
        """
        where = f"The checkpoint of step {step} in {self.folder}"
        try:
            restored = self._read_twice(step, state)
            content = dict(restored["progress"])
            expected = content.pop("digest")
            # JSON has no infinity: before the first validation the score is null.
            record = RunRecord(
                **{**content, "selected_score": selection.worst_unless_number(content["selected_score"])}
            )
            if record.validations and not record.selected_step:  # of an earlier version, where no score was a number
                record.selected_step = record.validations[-1]["step"]
        except Exception as error:  # Damage can surface as nearly any exception on its way through orbax.
            if reason := disk.find_read_error(error, self.folder / str(step)):
                raise CheckpointError(
                    f"{where} cannot be read at the moment ({reason}). It is kept. Rerun the same command when the file"
                    " system works."
                ) from error
            raise DamagedCheckpointError(f"{where} cannot be read ({type(error).__name__}: {error}).") from error
        if digests.digest(restored["state"]) != expected:
            raise DamagedCheckpointError(f"{where} is damaged: its digest differs.")
        return _to_devices(restored["state"], state), record

    def _read_twice(self, step: int, state: TrainState) -> Any:
        """Reads again what cannot be read: a failure that passed in the meantime is no damage."""
        try:
            return self._read(step, state)
        except Exception as error:  # orbax and its readers raise nearly anything
            logger.warning("The checkpoint of step %d cannot be read (%s); reading it again.", step, error)
            return self._read(step, state)

    def _read(self, step: int, state: TrainState) -> Any:
        items = {"state": ocp.args.StandardRestore(_empty_like(state)), "progress": ocp.args.JsonRestore()}
        return self._manager.restore(step, args=ocp.args.Composite(**items))

    def set_aside_after(self, step: int) -> None:
        """Moves the checkpoints of later steps, which are damaged, out of the way, to a folder next to this one."""
        later = [other for other in self.steps() if other > step]
        if not later:
            return
        if hosts.is_main_host():
            for other in later:
                target = _free_path(self.folder.parent / DAMAGED / str(other))
                target.parent.mkdir(exist_ok=True)
                (self.folder / str(other)).rename(target)
                logger.warning("The damaged checkpoint %s was moved to %s.", self.folder / str(other), target)
        hosts.gather_from_hosts([None])  # All wait for the main host.
        self._manager.reload()


def _free_path(path: pathlib.Path) -> pathlib.Path:
    """The path, or the first free one with a number after it."""
    candidates = (path, *(path.with_name(f"{path.name}-{number}") for number in range(2, 10_000)))
    return next(candidate for candidate in candidates if not candidate.exists())
