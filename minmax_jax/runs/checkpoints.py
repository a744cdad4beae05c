"""Saving and restoring a run: state, position in the data, and what was validated so far.

The newest checkpoints and the best one are kept. A checkpoint is written under another name and renamed when it is
whole, and carries a digest of its state: one that was cut short or damaged is passed over for the one before.
"""

import dataclasses
import logging
import pathlib

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from minmax_jax import digests
from minmax_jax.distributed import pmap
from minmax_jax.state import TrainState

logger = logging.getLogger(__name__)
_NUM_NEWEST = 2


@dataclasses.dataclass
class Progress:
    """What a run knows besides its state.

    Attributes:
        validations: summary of each validation so far, with its step.
        selected_step: step of the selected model, 0 before the first validation.
        selected_score: its score, lower is better.
        seconds: time spent training so far, over all starts.
    """

    validations: list[dict] = dataclasses.field(default_factory=list)
    selected_step: int = 0
    selected_score: float = float("inf")
    seconds: float = 0.0


class CheckpointError(RuntimeError):
    """No checkpoint that is needed can be read; the message names the folder and the mend."""


def _with_key_data(state: TrainState) -> TrainState:
    return state.replace(rng=jax.random.key_data(state.rng))


def _to_host(state: TrainState) -> TrainState:
    """A copy in NumPy arrays, the key as its data: the same whatever devices and hosts it was on."""
    return jax.tree.map(np.asarray, _with_key_data(state))


def _empty_like(state: TrainState) -> TrainState:
    """Arrays to restore to. Only shapes are read: the state itself may have been donated to a step."""
    shapes = jax.eval_shape(_with_key_data, state)
    return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)


def _to_devices(on_host: TrainState, like: TrainState) -> TrainState:
    rng = jax.random.wrap_key_data(on_host.rng, impl=jax.random.key_impl(like.rng))
    return pmap.replicate(on_host.replace(rng=rng))


@dataclasses.dataclass
class _KeepSelected(preservation_policy.PreservationPolicy):
    """Keeps the checkpoint of the selected model; what it replaces goes when the new one is whole."""

    step: int = 0

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        del context
        return [checkpoint.step == self.step for checkpoint in checkpoints]


class Checkpoints:
    """The checkpoints of a run: the newest two, and that of the selected model."""

    def __init__(self, folder: str | pathlib.Path):
        """Opens a folder, which is made if need be; leftovers of a save that was cut short are removed."""
        self.folder = pathlib.Path(folder).absolute()
        self._selected = _KeepSelected()
        policy = preservation_policy.AnyPreservationPolicy([preservation_policy.LatestN(_NUM_NEWEST), self._selected])
        options = ocp.CheckpointManagerOptions(preservation_policy=policy, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are whole by name, in ascending order."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, batches: grain.DatasetIterator, progress: Progress) -> None:
        """Starts to save; the files are written while the program goes on."""
        self._selected.step = progress.selected_step
        on_host = _to_host(state)
        record = dataclasses.asdict(progress) | {"digest": digests.digest(on_host)}
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(on_host),
                # The same on all hosts, and not grain's own handler: its files are of one number of hosts only.
                data=ocp.args.JsonSave(batches.get_state()),
                progress=ocp.args.JsonSave(record),
            ),
        )

    def wait(self) -> None:
        """Until all that was saved is written."""
        self._manager.wait_until_finished()

    def restore_newest(
        self, state: TrainState, batches: grain.DatasetIterator | None = None
    ) -> tuple[TrainState, Progress] | None:
        """Goes back to the newest whole checkpoint.

        Args:
            state: a fresh state of the same shape.
            batches: set to where it was, if given.

        Returns:
            State and progress, or None where nothing was saved.

        Raises:
            CheckpointError: if there are checkpoints and all are damaged.
        """
        for step in reversed(self.steps()):
            try:
                return self.restore(step, state, batches)
            except CheckpointError as error:
                logger.warning("%s Falling back to the one before.", error)
        if self.steps():
            raise CheckpointError(f"All checkpoints in {self.folder} are damaged. Start again in another workdir.")
        return None

    def restore(
        self, step: int, state: TrainState, batches: grain.DatasetIterator | None = None
    ) -> tuple[TrainState, Progress]:
        """Reads one checkpoint.

        Args:
            step: which one.
            state: a fresh state of the same shape.
            batches: set to where it was, if given.

        Raises:
            CheckpointError: if it is missing or damaged.
        """
        items = {"state": ocp.args.StandardRestore(_empty_like(state)), "progress": ocp.args.JsonRestore()}
        if batches is not None:
            items["data"] = ocp.args.JsonRestore()
        where = f"The checkpoint of step {step} in {self.folder}"
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
            record = dict(restored["progress"])
            expected = record.pop("digest")
            progress = Progress(**record)
            if batches is not None:
                batches.set_state(restored["data"])
        except Exception as error:  # Damage can surface as nearly anything on its way through orbax.
            raise CheckpointError(f"{where} cannot be read ({type(error).__name__}: {error}).") from error
        if digests.digest(restored["state"]) != expected:
            raise CheckpointError(f"{where} is damaged: its digest does not fit.")
        return _to_devices(restored["state"], state), progress

    def remove_after(self, step: int) -> None:
        """Removes the checkpoints of later steps: damaged ones that a run fell back from."""
        for later in self.steps():
            if later > step:
                self._manager.delete(later)
