"""A saved model as a function: from images to classes and masks, without checkpoints and without the dataset."""

from collections.abc import Callable
import dataclasses
import functools
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from minmax_jax import inference, localizer_alone, minmax
from minmax_jax.crf import RefineFn
from minmax_jax.data import padding, preprocessing
from minmax_jax.errors import OptionError
from minmax_jax.masks import resize_mask
from minmax_jax.method import Prediction
from minmax_jax.objective import MaskOptions, Objective
from minmax_jax.paths import local_path
from minmax_jax.runs import build_model, model_card


@dataclasses.dataclass(frozen=True)
class Predictor:
    """The model of a run, applied as in its evaluation: same preprocessing, test-time augmentation, second stage, CRF.

    Attributes:
        card: content of `model_card.json`.
        preprocessing: of each image.
        predict: [B, h, w, 3] preprocessed images to a Prediction.
        refine_fn: what becomes of each mask, or None.
    """

    card: dict[str, Any]
    preprocessing: preprocessing.Preprocessing
    predict: Callable[[np.ndarray], Prediction]
    refine_fn: RefineFn | None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the C classes, in the order of the probabilities."""
        return tuple(self.card["class_names"])

    def __call__(self, images: np.ndarray) -> Prediction:
        """Predicts class and mask of images of one size; compiles once per size and number of images.

        Args:
            images: [B, H, W, 3] uint8, RGB, at the resolution of the images that were prepared for training.

        Returns:
            A Prediction in NumPy arrays, masks at the resolution of the given images.

        Raises:
            OptionError: for another shape or dtype, or images that are too small.
        """
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or not len(images):
            raise OptionError(
                f"images={images.dtype}{list(images.shape)} must be uint8 [B, H, W, 3] with B at least 1."
            )
        prepared = [self.preprocessing(image) for image in images]
        prediction = self.predict(np.stack([padding.pad(image) for image in prepared]))
        masks = [
            self.finish_mask(mask, image, images.shape[1:3])
            for mask, image in zip(np.asarray(prediction.masks)[..., 0], prepared)
        ]
        return Prediction(
            probabilities=np.asarray(prediction.probabilities),
            masks=np.stack(masks)[..., None],
            scores={name: np.asarray(values) for name, values in prediction.scores.items()},
        )

    def finish_mask(self, mask: np.ndarray, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The mask of an image as it was given, [H, W] float32.

        Args:
            mask: [h', w'] of `predict`, for the padded image.
            image: [h, w, 3] uint8, preprocessed.
            size: (H, W) of the image before its preprocessing.
        """
        mask = padding.crop_back(mask, image.shape[:2])
        if self.refine_fn is not None:
            mask = self.refine_fn(mask, image)
        return resize_mask(mask, size).astype(np.float32)


def load(workdir: str | pathlib.Path) -> Predictor:
    """Loads the selected model of a finished run.

    Args:
        workdir: folder of the run; only `model_card.json` and `model.safetensors` are read.

    Raises:
        ModelCardError: if the folder holds no usable model.
    """
    card, variables = model_card.read(local_path("workdir", workdir))
    model = build_model.create_model(
        # Cards that are older than the mask head have none.
        ml_collections.ConfigDict({"mask_head": False} | card["model"] | {"cross_replica_norm": False}),
        num_classes=len(card["class_names"]),
        method=card["method"],
        alignment=card["mask"]["alignment"],
    )
    predict = functools.partial(
        (minmax if card["method"] == "minmax" else localizer_alone).predict,
        model=model,
        objective=Objective(mask=MaskOptions(**card["mask"])),
        flip_horizontal=card["flips"]["horizontal"],
        flip_vertical=card["flips"]["vertical"],
        scales=tuple(card.get("scales", (1.0,))),
    )
    refine = ml_collections.ConfigDict(card.get("refine", {"enabled": False}))
    if refine.enabled:
        predict = build_model.create_refined_predict(
            predict,
            functools.partial(inference.trunk_stages, model=model),
            refine,
            trunk=card["model"]["trunk"],
            flip_horizontal=card["flips"]["horizontal"],
            flip_vertical=card["flips"]["vertical"],
        )
    variables = jax.device_put(variables | {"step": np.int32(card["step"])})
    return Predictor(
        card=card,
        preprocessing=preprocessing.Preprocessing(**card["preprocessing"]),
        predict=functools.partial(jax.jit(predict), variables),
        refine_fn=build_model.create_postprocessing(ml_collections.ConfigDict(card["crf"]), refine),
    )
