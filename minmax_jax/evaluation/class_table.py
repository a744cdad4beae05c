"""The table of the classes of a split: the error of each, and of naming the majority class for every image."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minmax_jax.data import dataset
from minmax_jax.evaluation import intervals
from minmax_jax.evaluation.evaluators import Row
from minmax_jax.evaluation.metrics import classification


def describe(rows: Sequence[Row], split: dataset.Split, train_labels: np.ndarray) -> dict[str, Any]:
    """Two entries of `results.json`.

    Args:
        rows: of `evaluate`, one for each image of the split.
        split: the images; where their patients are known, the bootstrap draws patients.
        train_labels: [N] classes of the training images.

    Returns:
        "classes": {name: {"num_train", "num_images" (of the split), "error" in percent, its 95 % interval "low" and
        "high"; None where the split has no image of the class}}; "majority_class": the "class" with the most training
        images, and the "classification_error" and "balanced_error" in percent of a model that always names it.
    """
    names = split.class_names
    num_train = np.bincount(train_labels, minlength=len(names))
    num_images = np.bincount(split.labels, minlength=len(names))
    errors = dict(enumerate(classification.class_errors(rows, len(names))))
    table = intervals.describe(errors, len(rows), groups=intervals.patients_of(split))
    classes = {
        name: {"num_train": int(num_train[index]), "num_images": int(num_images[index])}
        | {"error": table[index]["value"], "low": table[index]["low"], "high": table[index]["high"]}
        for index, name in enumerate(names)
    }
    majority = int(np.argmax(num_train))
    is_present = num_images > 0
    return {
        "classes": classes,
        "majority_class": {
            "class": names[majority],
            "classification_error": float(100 * (1 - num_images[majority] / num_images.sum())),
            "balanced_error": float(100 * (1 - is_present[majority] / is_present.sum())),
        },
    }
