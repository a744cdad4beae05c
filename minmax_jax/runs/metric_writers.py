"""The record of a run: a line of JSON for each measurement, and TensorBoard files if wanted.

Of several hosts only the main one writes; all of them measure the same.
"""

import json
import pathlib
from typing import Any

from minmax_jax.distributed import pmap


class MetricWriter:
    """Appends to `metrics.jsonl`; a continued run first forgets what lies after the step that it continues from."""

    def __init__(self, folder: pathlib.Path, *, first_step: int, tensorboard: bool = False):
        """Opens the record.

        Args:
            folder: of the run.
            first_step: steps already done.
            tensorboard: also write TensorBoard files to `folder/tensorboard`.

        Raises:
            ModuleNotFoundError: if TensorBoard files are wanted and tensorboardX is not installed.
        """
        self._board, self._path = None, folder / "metrics.jsonl"
        if not pmap.is_main_host():
            return
        if tensorboard:
            self._board = _summary_writer(folder / "tensorboard", first_step + 1)
        kept = [line for line in read(self._path) if line["step"] <= first_step]
        replacement = self._path.with_suffix(".new")
        replacement.write_text("".join(json.dumps(line) + "\n" for line in kept))
        replacement.replace(self._path)

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """Adds the measurements of a step; kind is "train", "validation" or "test"."""
        if not pmap.is_main_host():
            return
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, "kind": kind} | values) + "\n")
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self._board.add_scalar(f"{kind}/{name}", value, step)
            self._board.flush()

    def close(self) -> None:
        """Ends the TensorBoard files."""
        if self._board is not None:
            self._board.close()


def _summary_writer(folder: pathlib.Path, purge_step: int):
    try:
        import tensorboardX
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "config.train.tensorboard=True needs tensorboardX: pip install 'minmax_jax[tensorboard]'."
        ) from error
    return tensorboardX.SummaryWriter(str(folder), purge_step=purge_step)


def read(path: pathlib.Path) -> list[dict]:
    """All whole lines of a record; a last line that was cut short by a kill is left out."""
    lines = path.read_text().splitlines() if path.exists() else []
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records
