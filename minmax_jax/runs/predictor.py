"""A saved model as a function: from images to classes and masks, without checkpoints and without the dataset."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import logging
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from minmax_jax.base.errors import OptionError
from minmax_jax.base.paths import local_path
from minmax_jax.configs import common
from minmax_jax.data import image_reading, padding, preprocessing, readings
from minmax_jax.method import Method, Prediction, Score
from minmax_jax.ops import canvas
from minmax_jax.ops.resize import resize_mask
from minmax_jax.refinement import calibration
from minmax_jax.runs import inference_options
from minmax_jax.runs.building import creation, methods
from minmax_jax.runs.building import options as options_lib
from minmax_jax.runs.building.options import RunOptions
from minmax_jax.runs.folder import model_card

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Predictor:
    """The model of a run, applied as in its evaluation: same preprocessing, test-time augmentation, second stage.

    Attributes:
        card: content of `model_card.json`, with the choices that `load` was given.
        preprocessing: of each image.
        predict: [B, h, w, 3] preprocessed images, or a `Canvas` of them, to a Prediction.
        predict_with_first_masks: as `predict`, and the [B, h, w, 1] masks of the first stage, through which its
            classifier saw the images; without a second stage they are those of the Prediction. It is jitted.
        method: whose model this is.
        calibrate_fn: of `calibration.CALIBRATIONS`, for the masks of a second stage, or None.

    Example:
        >>> import numpy as np
        >>> import minmax_jax as mm
        >>> predictor = mm.load("runs/demo")  # the model of `make demo`
        >>> predictor.class_names
        ('horizontal_stripes', 'vertical_stripes', 'checkerboard', 'dots')
        >>> predictor(np.zeros((2, 64, 64, 3), np.uint8)).probabilities.shape
        (2, 4)
    """

    card: dict[str, Any]
    preprocessing: preprocessing.Preprocessing
    predict: Callable[[canvas.Images], Prediction]
    predict_with_first_masks: functools.partial[tuple[Prediction, jax.Array]]
    method: Method
    calibrate_fn: Callable[..., np.ndarray] | None = None

    @property
    def scores(self) -> Mapping[str, Score]:
        """The meaning of the method's scores."""
        return self.method.scores

    @property
    def has_classifier(self) -> bool:
        """Whether a classifier sees the images through the masks."""
        return self.method.classify is not None

    @property
    def reads_canvases(self) -> bool:
        """Whether `predict` also takes an `ops.canvas.Canvas`, so that images of several sizes share a program."""
        return self.method.reads_canvases

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the C classes, in the order of the probabilities."""
        return tuple(self.card["class_names"])

    def read(self, file: str | pathlib.Path | bytes) -> np.ndarray:
        """Reads an image file as those of the training were: the same channels and intensities.

        Args:
            file: its path, or its content.

        Returns:
            [H, W, 3] uint8, upright; `self(image[None])` predicts it.

        Raises:
            DataError: if it is no image, or lacks these channels.
            OSError: if there is no such file.
        """
        content = file if isinstance(file, bytes) else pathlib.Path(file).read_bytes()
        name = "The file" if isinstance(file, bytes) else str(file)
        return image_reading.read(content, name, readings.from_json(self.card.get("reading"))).pixels

    @property
    def background_classes(self) -> tuple[int, ...]:
        """The numbers of the classes without a region, whose masks are empty."""
        return model_card.background_labels(self.card)

    def __call__(self, images: np.ndarray) -> Prediction:
        """Predicts class and mask of images of one size; compiles once per size and number of images.

        For images of many sizes `prediction.folder.predict` compiles at most four programs.

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
            self.finish_mask(mask, image.shape[:2], images.shape[1:3])
            for mask, image in zip(np.asarray(prediction.masks)[..., 0], prepared)
        ]
        return Prediction(
            probabilities=np.asarray(prediction.probabilities),
            masks=np.stack(masks)[..., None],
            scores={name: np.asarray(values) for name, values in prediction.scores.items()},
        )

    def compile(self, shape: tuple[int, int]) -> None:
        """Compiles `predict_with_first_masks` for a canvas with one image, or reads it from the compilation cache.

        Args:
            shape: (H, W) of the canvas.
        """
        jitted = self.predict_with_first_masks
        images = canvas.Canvas(jax.ShapeDtypeStruct((1, *shape, 3), np.uint8), jax.ShapeDtypeStruct((1, 2), np.int32))
        jitted.func.lower(*jitted.args, images).compile()

    def finish_mask(self, mask: np.ndarray, prepared_size: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
        """The mask of an image as it was given, [H, W] float32.

        Args:
            mask: [h', w'] of `predict`, for the padded image.
            prepared_size: (h, w) of the image after its preprocessing.
            size: (H, W) of the image before its preprocessing.
        """
        mask = padding.crop_back(mask, prepared_size)
        if self.calibrate_fn is not None:
            mask = self.calibrate_fn(mask)
        return resize_mask(mask, size).astype(np.float32)


def load(
    workdir: str | pathlib.Path,
    *,
    flips: bool | None = None,
    scales: Sequence[float] | None = None,
    refine: bool | None = None,
    dtype: str | None = None,
) -> Predictor:
    """Loads the selected model of a finished run.

    Args:
        workdir: folder of the run; only `model_card.json` and `model.safetensors` are read.
        flips: whether predictions are means over the mirror images of training; None: as in the run's own test.
        scales: sizes of the image, as shares from 0.1 to 8, that predictions are means over; None: as `flips`. Masks of
            a second stage are those of the image's own size.
        refine: whether masks are those of the second stage; None: as `flips`.
        dtype: of the computation, such as "float32"; None: as in training.

    Raises:
        ModelCardError: if the folder holds no usable model.
        OptionError: for scales out of range, and for what the model cannot do.

    Example:
        >>> import numpy as np
        >>> import minmax_jax as mm
        >>> predictor = mm.load("runs/demo")  # the model of `make demo`
        >>> image = np.zeros((96, 64, 3), np.uint8)
        >>> predictor(image[None]).masks.shape
        (1, 96, 64, 1)
    """
    card, variables = model_card.read(local_path("workdir", workdir))
    if card.get("crf", {}).get("enabled"):  # of a version in which the final test and predictions could use it
        logger.warning(
            "The model in %s was tested with masks that a CRF refined (evaluation.crf.enabled). These predictions are"
            " without it; minmax-jax evaluate --crf measures the run with it.",
            workdir,
        )
    card = inference_options.choose(card, flips=flips, scales=scales, refine=refine)
    if dtype is not None:
        card["model"] = card["model"] | {"dtype": dtype}
    options = _read_options(card)
    method = _create_method(card, options)
    predict = _refine(method, card, options)

    def predict_with_first_masks(variables, images):
        first = method.predict(variables, images)
        if not card["refine"]["enabled"]:
            return first, first.masks
        # Given to the second stage: XLA would not notice that it computes the first stage again.
        return predict(variables, images, first_stage=lambda *_: first), first.masks

    variables = jax.device_put(variables | {"step": np.int32(card["step"])})
    refine = card["refine"]
    return Predictor(
        card=card,
        preprocessing=preprocessing.Preprocessing(**card["preprocessing"]),
        predict=functools.partial(jax.jit(predict), variables),
        predict_with_first_masks=functools.partial(jax.jit(predict_with_first_masks), variables),
        method=method,
        calibrate_fn=calibration.CALIBRATIONS[refine["calibration"]] if refine["enabled"] else None,
    )


def _create_method(card: dict[str, Any], options: RunOptions) -> Method:
    return creation.create_method(
        options,
        num_classes=len(card["class_names"]),
        steps_per_epoch=1,
        background_classes=model_card.background_labels(card),
    )


def _refine(method: Method, card: dict[str, Any], options: RunOptions) -> Callable[..., Prediction]:
    """(variables, images) -> Prediction of the whole model, whose first stage is the method's."""
    if not card["refine"]["enabled"]:
        return method.predict
    return creation.create_refined_predict(options, method, background_classes=model_card.background_labels(card))


def _read_options(card: dict[str, Any]) -> RunOptions:
    """Options with which a method predicts as the card says; what only training reads has its default.

    Raises:
        ModelCardError: for a method that this version does not have.
    """
    if card["method"] not in methods.METHODS:
        raise model_card.ModelCardError(
            f"The model is of method {card['method']!r}, and this version has {', '.join(methods.METHODS)}. Install"
            f" the version that wrote it ({card.get('versions', {}).get('minmax_jax')}), or add the method to"
            " minmax_jax.runs.building.methods.METHODS."
        )
    config = common.get_config()
    config.data.dataset = "synthetic"  # any; no data is read
    config.method = card["method"]
    config.model = ml_collections.ConfigDict(card["model"] | {"cross_replica_norm": False})
    config.mask = ml_collections.ConfigDict(card["mask"])
    config.evaluation.scales, config.evaluation.flips = tuple(card["scales"]), any(card["flips"].values())
    for axis, is_flipped in card["flips"].items():
        config.data[f"flip_{axis}"] = is_flipped
    return options_lib.read(config)
