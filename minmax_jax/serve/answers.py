"""From the bytes of an image file to the answer: class, mask, entropies, flags, and what the classifier saw."""

import base64
from collections.abc import Sequence
import dataclasses
import io
from typing import Any

import numpy as np
from PIL import Image

from minmax_jax.base import options as options_lib
from minmax_jax.base.errors import OptionError, UserError
from minmax_jax.data import (
    canvases,
    image_endings,
    image_files,
    image_reading,
    lossy_reading,
    padding,
    pixel_size,
    preprocessing,
    readings,
    tiff_files,
    unread_formats,
)
from minmax_jax.evaluation import image_predictions, trust
from minmax_jax.evaluation.image_predictions import ImagePrediction, NotFiniteError
from minmax_jax.ops import canvas
from minmax_jax.prediction import sources
from minmax_jax.prediction.options import Options
from minmax_jax.prediction.outputs import regions
from minmax_jax.runs.predictor import Predictor

MIN_AREA = Options.min_area  # pixels; smaller regions are no instances
_MAX_SIDE = 16384  # pixels; what a browser draws
_MAX_SHOWN_SIDE = 2048  # pixels of the picture that goes back; masks keep the size of the image
_MAX_SEEN_SIDE = 512
_MIN_PIXELS = 128 * 128  # to compute with
_MAX_SHRINKING = 0.75  # of the sides of an image that is shrunk anyway, so that a canvas has room for it
_LARGE = "the image is much larger than those of the training: predict cuts it into tiles, which this page does not"


class TooLargeError(UserError):
    """An image of more bytes or pixels than the limits allow."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an image may have.

    Attributes:
        max_megabytes: of the file, 1e6 bytes each.
        max_megapixels: of the image as it is, and after the preprocessing of the run.
        max_pixels: at which an image is computed: one that has more after the preprocessing is shrunk to that many;
            0 computes each at its full size.

    Raises:
        OptionError: for a number out of range.
    """

    max_megabytes: float = 20.0
    max_megapixels: float = 16.0
    max_pixels: int = 1 << 20

    def __post_init__(self):
        options_lib.check_range("max_megabytes", self.max_megabytes, 0.01, 1000)
        options_lib.check_range("max_megapixels", self.max_megapixels, 0.01, 1000)
        if self.max_pixels:
            options_lib.check_range("max_pixels", self.max_pixels, _MIN_PIXELS, 1_000_000_000)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An image as it is and as the networks take it.

    Attributes:
        image: [H, W, 3] uint8, upright.
        preprocessed: [h, w, 3] uint8.
        inputs: [1, h', w', 3] uint8, padded, or on a canvas; each new shape of these compiles the networks.
        microns: a pixel of the image, None if the file does not say.
        flags: what the size of the image and of its pixels, and what of the file is not read, say against its mask.
    """

    image: np.ndarray
    preprocessed: np.ndarray
    inputs: canvas.Images
    microns: float | None
    flags: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(h', w') of the inputs."""
        return canvas.split(self.inputs)[0].shape[1:3]


def prepare(predictor: Predictor, content: bytes, *, limits: Limits, shapes: np.ndarray | None = None) -> Prepared:
    """Reads and preprocesses an image, at the magnification of the training where both are known.

    Args:
        predictor: of a run.
        content: of an image file.
        limits: of the image; its size is known before its pixels are decoded.
        shapes: [K, 2] of the canvases, as of `shapes.choose`. An image that none has room for is computed at its own
            shape, or, if it is shrunk anyway, at a size that fits; None: each image at its own shape.

    Raises:
        TooLargeError: for an image beyond the limits.
        UserError: for content that is no image, or an image that is too small.
    """
    if len(content) > limits.max_megabytes * 1e6:
        raise too_many_bytes(limits)
    width, height = _read_size(content)
    _check_size((height, width), "", limits)
    said = pixel_size.read(io.BytesIO(content))
    factor = pixel_size.rescaling(said.microns, predictor.card.get("microns_per_pixel", 0.0))
    try:
        prepare = dataclasses.replace(predictor.preprocessing, scale=predictor.preprocessing.scale * factor)
        (size,) = prepare.sizes(np.array([[height, width]])).tolist()
        prepare, is_reduced = _reduce(prepare, size, limits.max_pixels, shapes)
        (size,) = prepare.sizes(np.array([[height, width]])).tolist()
        _check_size(tuple(size), " after the preprocessing of the run", limits)
        read = image_reading.read(content, "The file", readings.from_json(predictor.card.get("reading")))
        image = read.pixels
        preprocessed = prepare(image)
    except OptionError as error:
        raise UserError(f"The image does not suit the run: {error}") from error
    crop_size = predictor.card["crop_size"]
    is_large = sources.find_tiling(image.shape[:2], prepare, crop_size=crop_size, tile_size=None) is not None
    flags = (*sources.find_flags(said), *(_LARGE,) * is_large, *lossy_reading.flags(read.lossy))
    if is_reduced:
        flags += (f"{_describe_size(preprocessed, image)}: small objects can be lost (max_pixels={limits.max_pixels})",)
    return Prepared(image, preprocessed, _place(padding.pad(preprocessed), shapes), said.microns, flags)


def _place(padded: np.ndarray, shapes: np.ndarray | None) -> canvas.Images:
    """A batch of one padded image, on its canvas where there are any."""
    if shapes is None:
        return padded[None]
    (shape,) = canvases.assign(np.array([padded.shape[:2]]), shapes).tolist()
    return canvas.Canvas(padding.place(padded, shape)[None], np.array([padded.shape[:2]], np.int32))


def _reduce(
    prepare: preprocessing.Preprocessing, size: Sequence[int], max_pixels: int, shapes: np.ndarray | None
) -> tuple[preprocessing.Preprocessing, bool]:
    """Preprocessing to at most so many pixels, and whether that differs; no side gets too small for the networks."""
    if not max_pixels or size[0] * size[1] <= max_pixels:
        return prepare, False
    factor = (max_pixels / (size[0] * size[1])) ** 0.5
    if shapes is not None:
        fitting = np.min(np.sort(shapes) / np.sort(size), axis=1).max()  # landscape and portrait have the same room
        factor = min(factor, fitting) if fitting >= _MAX_SHRINKING * factor else factor
    # Rounded down, and the larger side is rounded: a pixel less for that.
    side = max(preprocessing.MIN_SIDE, int(factor * min(size)) - 1)
    return dataclasses.replace(prepare, min_side=min(prepare.min_side, side), max_side=side), True


def _describe_size(preprocessed: np.ndarray, image: np.ndarray) -> str:
    (height, width), (full_height, full_width) = preprocessed.shape[:2], image.shape[:2]
    return f"computed at {width} x {height} of {full_width} x {full_height} pixels"


def too_many_bytes(limits: Limits) -> TooLargeError:
    """The error of a file with too many bytes, which need not all have been read."""
    return TooLargeError(
        f"The file has more than {limits.max_megabytes:g} MB. Save it as JPEG, shrink it, or restart the server with a"
        " greater max_megabytes."
    )


def _read_size(content: bytes) -> tuple[int, int]:
    """Width and height that a file declares; nothing is decoded."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            size, kind = picture.size, picture.format
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLargeError(f"The image has too many pixels ({error}). Shrink it, or cut it into tiles.") from error
    except Exception as error:  # of Pillow's many readers
        if tiff_files.is_tiff(content) and (tiff := tiff_files.describe(io.BytesIO(content))) is not None:
            return tiff.size[::-1]  # of a kind that Pillow does not know
        if kind := unread_formats.name_format(content):
            raise UserError(f"The file is {kind}, which is not read here. Save it as JPEG, PNG or TIFF.") from error
        if content:
            raise UserError(
                "The file cannot be read as an image. Give a JPEG, PNG, TIFF, WebP, BMP or GIF that is intact."
            ) from error
        raise UserError("The file is empty.") from error
    if kind not in image_endings.formats():  # for some, Pillow would start programs
        raise UserError(f"The file is {kind}, which is not read here. Save it as JPEG, PNG, TIFF or WebP.")
    return size


def _check_size(size: tuple[int, int], when: str, limits: Limits) -> None:
    height, width = size
    if height * width > limits.max_megapixels * 1e6 or max(size) > _MAX_SIDE:
        raise TooLargeError(
            f"The image has {width} x {height} pixels{when}. At most {limits.max_megapixels:g} megapixels are taken,"
            f" and {_MAX_SIDE} pixels a side: shrink it, cut it into tiles, or restart the server with a greater"
            " max_megapixels."
        )


def predict(predictor: Predictor, prepared: Prepared, *, model_flags: Sequence[str]) -> dict[str, Any]:
    """The answer, as JSON values; pictures are PNGs in data URLs.

    Args:
        predictor: of the run.
        prepared: the image.
        model_flags: what speaks against all masks of the model.

    Raises:
        NotFiniteError: if the model predicts what is no number.
    """
    found, first_masks = predictor.predict_with_first_masks(prepared.inputs)
    prediction = ImagePrediction(
        index=0,
        probabilities=np.asarray(found.probabilities)[0],
        mask=predictor.finish_mask(
            np.asarray(found.masks)[0, ..., 0], prepared.preprocessed.shape[:2], prepared.image.shape[:2]
        ),
        scores={name: np.asarray(values)[0].item() for name, values in found.scores.items()},
    )
    if not all(np.isfinite(value).all() for value in (prediction.probabilities, prediction.mask)):
        raise NotFiniteError("The model's numbers for this image are not finite. Train it again.")
    names, best = predictor.class_names, prediction.predicted
    threshold = predictor.card["foreground_threshold"]
    has_region, first_mask = best not in predictor.background_classes, np.asarray(first_masks)[0, ..., 0]
    if not has_region:  # the classifier read the whole image, and nothing is left for a background
        first_mask = np.ones_like(first_mask)
    return {
        "height": prediction.mask.shape[0],
        "width": prediction.mask.shape[1],
        "computed_height": prepared.preprocessed.shape[0],
        "computed_width": prepared.preprocessed.shape[1],
        "class": names[best],
        "has_region": has_region,
        "probability": float(prediction.probabilities[best]),
        "probabilities": dict(zip(names, map(float, prediction.probabilities))),
        **image_predictions.known_scores(prediction, predictor.scores, background_classes=predictor.background_classes),
        "threshold": threshold,
        "foreground_share": float(np.mean(prediction.mask >= threshold)),
        "num_instances": len(regions.find(prediction.mask, threshold=threshold, min_area=MIN_AREA)[1]),
        "microns_per_pixel": prepared.microns,
        "flags": [
            *trust.find_flags(
                prediction,
                threshold=threshold,
                scores=predictor.scores,
                background_classes=predictor.background_classes,
            ),
            *prepared.flags,
            *model_flags,
        ],
        "image": _to_url(_shrink(prepared.image, _MAX_SHOWN_SIDE)),
        # Rounded half up, so that a level is at least 255 t where the mask is at least t = 0.5.
        "mask": _to_url(np.floor(255 * np.clip(prediction.mask, 0, 1) + 0.5).astype(np.uint8)),
        "seen": _draw_seen(predictor, prepared, first_mask, has_background=has_region)
        if predictor.has_classifier
        else {},
    }


def _draw_seen(predictor: Predictor, prepared: Prepared, mask: np.ndarray, *, has_background: bool) -> dict[str, str]:
    """The classifier's two inputs, X+ and X-, at its resolution: grey, 0 of [-1, 1], is what a mask hides."""
    image = prepared.preprocessed.astype(np.float32) - 127.5
    mask = padding.crop_back(mask, image.shape[:2])[..., None]
    scale = predictor.card["model"]["classifier_scale"]
    size = tuple(max(1, int(scale * side)) for side in image.shape[:2])
    drawn = {}
    for name, weight in (("foreground", mask), ("background", 1 - mask))[: 1 + has_background]:
        shown = np.clip(np.round(127.5 + image * weight), 0, 255).astype(np.uint8)
        drawn[name] = _to_url(_shrink(preprocessing.resize(shown, size), _MAX_SEEN_SIDE))
    return drawn


def _shrink(image: np.ndarray, max_side: int) -> np.ndarray:
    """[H, W, 3] uint8 with sides of at most so many pixels."""
    factor = max_side / max(image.shape)
    if factor >= 1:
        return image
    height, width = (max(1, round(factor * side)) for side in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def _to_url(pixels: np.ndarray) -> str:
    return f"data:image/png;base64,{base64.b64encode(image_files.to_png(pixels)).decode()}"
