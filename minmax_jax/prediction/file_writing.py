"""Predicts files one batch after another, and writes their outputs and rows while the networks go on."""

from collections.abc import Callable, Sequence
import contextlib
import logging
import pathlib
from typing import Any

from minmax_jax.base import disk, threads
from minmax_jax.prediction import batches, completion
from minmax_jax.prediction import rows as rows_lib
from minmax_jax.prediction.inputs import Input
from minmax_jax.prediction.large.disk_arrays import DiskArray
from minmax_jax.prediction.options import Options
from minmax_jax.prediction.outputs import image_outputs
from minmax_jax.prediction.predicted_images import Predicted, Skipped
from minmax_jax.runs.predictor import Predictor

logger = logging.getLogger(__name__)
SCRATCH = "unfinished"  # folder for what does not fit in memory


def predict(
    predictor: Predictor,
    rest: Sequence[Input],
    output: pathlib.Path,
    options: Options,
    *,
    own: pathlib.Path,
    all_inputs: Sequence[Input],
    of_model: Sequence[str],
    update: Callable[[int], None],
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Writes the files of each image in threads, then its row.

    Args:
        predictor: the model.
        rest: the files.
        output: folder of their outputs.
        options: what is written.
        own: folder of the rows, and of what does not fit in memory.
        all_inputs: the files of the whole prediction, as of `batches.predict`.
        of_model: flags of all images.
        update: is called with 1 after each file.

    Returns:
        The rows, and the files that were skipped, with reasons.
    """
    rows, skipped, kinds, scratch = [], [], set(), own / SCRATCH
    files = {item.stem: rows_lib.describe_file(item.path) for item in rest}  # before they are read

    def write(answer: Predicted | Skipped) -> dict[str, Any] | Skipped:
        if isinstance(answer, Skipped):
            return answer
        with disk.explained(output, needed_bytes=image_outputs.max_bytes(answer, options)):
            row = image_outputs.write(
                output,
                answer,
                options,
                class_names=predictor.class_names,
                scores=predictor.scores,
                background_classes=predictor.background_classes,
                of_model=of_model,
                scratch=scratch,
            )
        return row | {"file": files[answer.source.input.stem]}

    with (
        (own / rows_lib.NAME).open("a", encoding="utf-8") as file,
        # Closed at once after an error: it then deletes its files.
        contextlib.closing(
            batches.predict(predictor, rest, options, scratch=scratch, all_inputs=all_inputs)
        ) as answers,
        contextlib.closing(
            threads.map_in_order(
                write,
                answers,
                num_threads=batches.NUM_THREADS,
                num_ahead=max(batches.NUM_THREADS, options.batch_size),
                is_alone=_is_on_disk,
            )
        ) as written,
    ):
        for row in written:
            update(1)
            if isinstance(row, Skipped):
                skipped.append({"path": str(row.input.path), "reason": row.reason})
                kind = row.reason.replace(str(row.input.path), "")
                if kind not in kinds:  # a line each would hide what else is said
                    logger.warning("Skipped: %s", row.reason)
                kinds.add(kind)
                continue
            file.write(rows_lib.to_line(row))
            file.flush()
            rows.append(row)
    if more := len(skipped) - len(kinds):
        logger.warning(
            "%d more images were skipped for the same reasons: %s will list all.", more, output / completion.MANIFEST
        )
    return rows, skipped


def _is_on_disk(answer: Predicted | Skipped) -> bool:
    """Whether an answer has files that are deleted when the next one is asked for."""
    return isinstance(answer, Predicted) and isinstance(answer.mask, DiskArray)
