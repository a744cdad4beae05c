"""Writes the record of a run: `metrics.jsonl`, and TensorBoard files on request.

Of several hosts only the main one writes; all compute the same numbers.
"""

import pathlib
from typing import Any

from minmax_jax.base import disk, strict_json
from minmax_jax.base.errors import OptionError
from minmax_jax.distributed import hosts
from minmax_jax.report import metric_records


class MetricWriter:
    """Appends to `metrics.jsonl`; a resumed run first removes the lines after the step it resumes from."""

    def __init__(self, folder: pathlib.Path, *, first_step: int, tensorboard: bool = False):
        """Opens the record.

        Args:
            folder: of the run.
            first_step: number of completed steps.
            tensorboard: also writes TensorBoard files to `folder/tensorboard`.

        Raises:
            OptionError: if TensorBoard files are wanted and tensorboardX is not installed.
        """
        self._board, self._path = None, folder / "metrics.jsonl"
        if not hosts.is_main_host():
            return
        if tensorboard:
            self._board = _summary_writer(folder / "tensorboard", first_step + 1)
        kept = [line for line in metric_records.read(self._path) if line["step"] <= first_step]
        with disk.replacing(self._path) as replacement:
            replacement.write_text("".join(strict_json.dumps(line) + "\n" for line in kept))

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """Adds the measurements of a step; kind is "train", "validation" or "test".

        Args:
            step: of the training.
            kind: "train", "validation" or "test".
            values: by name; only numbers reach TensorBoard.
        """
        if not hosts.is_main_host():
            return
        with self._path.open("a") as file:
            file.write(strict_json.dumps({"step": step, "kind": kind} | values) + "\n")
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self._board.add_scalar(f"{kind}/{name}", value, step)
            self._board.flush()

    def close(self) -> None:
        """Closes the TensorBoard files."""
        if self._board is not None:
            self._board.close()


def _summary_writer(folder: pathlib.Path, purge_step: int):
    try:
        import tensorboardX
    except ModuleNotFoundError as error:
        raise OptionError(
            "config.train.tensorboard=True needs tensorboardX: pip install 'minmax_jax[tensorboard]'."
        ) from error
    return tensorboardX.SummaryWriter(str(folder), purge_step=purge_step)
