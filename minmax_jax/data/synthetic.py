"""Built-in images for weakly supervised localization: the texture of some objects is the class.

Each image has a background of 1/f noise, plain blobs that occur in all classes, and a few objects apart from each
other. The texture of the objects determines the class; colours and positions carry no information. With `part_share`, a
small part of each object has the texture clearly and the rest, its body, faintly: a localizer that finds the most
telling pixels alone misses the body. All arithmetic is in integers, but for products with a share, and the random
numbers come from NumPy's frozen legacy generator, so an image is the same, bit for bit, on every machine and with every
version.
"""

import dataclasses
import functools
import math

import numpy as np

from minmax_jax.base import options
from minmax_jax.base.errors import OptionError
from minmax_jax.data import dataset

SPLITS = ("train", "validation", "test")
_BACKGROUND_CONTRAST = 96
_PLACEMENT_TRIALS = 30
_MIN_RADIUS = 2  # pixels
# Of the fields with a minimum and a maximum: the limits of both.
_RANGES = {
    "num_objects": (1, math.inf),
    "object_radius": (0.0, 0.4),
    "num_distractors": (0, math.inf),
    "texture_contrast": (1, 255),
}


@dataclasses.dataclass(frozen=True)
class SyntheticConfig:
    """Content of the images.

    Attributes:
        seed: of all images.
        image_size: side of the square images in pixels, at least 32.
        num_classes: C, at most as many as there are textures.
        num_objects: minimum and maximum number of objects an image.
        object_radius: minimum and maximum half axis of an object, as a share of the side.
        num_distractors: minimum and maximum number of plain blobs an image.
        texture_period: of the textures, in pixels.
        texture_contrast: minimum and maximum distance of an object's two colours, out of 255 in each channel.
        part_share: share of an object's pixels, below 1, that have this contrast; 0: all have it, there is no body.
        body_contrast: contrast of the other pixels, the body, as a share of the part's; 0: the body is plain.
        empty_class: whether there is one more class, "empty", of images without an object.

    Raises:
        OptionError: for a number out of range.
    """

    seed: int = 0
    image_size: int = 64
    num_classes: int = 4
    num_objects: tuple[int, int] = (1, 3)
    object_radius: tuple[float, float] = (0.14, 0.24)
    num_distractors: tuple[int, int] = (1, 3)
    texture_period: int = 6
    texture_contrast: tuple[int, int] = (40, 160)
    part_share: float = 0.0
    body_contrast: float = 1.0
    empty_class: bool = False

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        return (*tuple(TEXTURES)[: self.num_classes], *(("empty",) * self.empty_class))

    def __post_init__(self):
        if self.image_size < 32:
            raise OptionError(f"image_size={self.image_size} must be at least 32 pixels.")
        if not 2 <= self.num_classes <= len(TEXTURES):
            raise OptionError(f"num_classes={self.num_classes} must be from 2 to {len(TEXTURES)}, one texture each.")
        for name, limits in _RANGES.items():
            values = getattr(self, name)
            options.check_numbers(name, values, *limits, count=2, whole=name != "object_radius")
            if values[0] > values[1]:
                raise OptionError(f"{name}={values} must be a minimum and a maximum, in this order.")
        if self.object_radius[0] * self.image_size < _MIN_RADIUS:
            raise OptionError(
                f"object_radius={self.object_radius} must be at least {_MIN_RADIUS} pixels, as a share of"
                f" image_size={self.image_size}."
            )
        if self.texture_period < 2:
            raise OptionError(f"texture_period={self.texture_period} must be at least 2 pixels.")
        if not 0 <= self.part_share < 1:
            raise OptionError(f"part_share={self.part_share} must be a share from 0 (no part) to below 1.")
        if not 0 <= self.body_contrast <= 1:
            raise OptionError(
                f"body_contrast={self.body_contrast} must be a share of the part's contrast, from 0 to 1."
            )


def load(split: str, num_images: int, *, config: SyntheticConfig) -> dataset.Split:
    """A split of `num_images`; splits and seeds share no image.

    Args:
        split: one of `SPLITS`.
        num_images: N, at least 1.
        config: content of the images.

    Raises:
        OptionError: for an unknown split or fewer than one image.

    Example:
        >>> from minmax_jax.data import synthetic
        >>> split = synthetic.load("train", 8, config=synthetic.SyntheticConfig(num_classes=2))
        >>> split.class_names, split.labels.tolist()
        (('horizontal_stripes', 'vertical_stripes'), [0, 1, 0, 1, 0, 1, 0, 1])
        >>> split.read_image(0).shape, split.read_mask(0).shape
        ((64, 64, 3), (64, 64))
    """
    if split not in SPLITS:
        raise OptionError(f"split={split!r} must be one of {SPLITS}.")
    if num_images < 1:
        raise OptionError(f"num_images={num_images} must be at least 1: the {split} split would be empty.")
    return dataset.Split(
        names=tuple(f"{split}_{index:06d}" for index in range(num_images)),
        labels=np.arange(num_images, dtype=np.int32) % len(config.class_names),
        class_names=config.class_names,
        sizes=np.full((num_images, 2), config.image_size),
        read_image=functools.partial(_read_image, split=split, config=config),
        read_mask=functools.partial(_read_mask, split=split, config=config),
        read_instances=functools.partial(_read_instances, split=split, config=config),
    )


def _read_image(index: int, *, split: str, config: SyntheticConfig) -> np.ndarray:
    return render(index, split=split, config=config)[0]


def _read_mask(index: int, *, split: str, config: SyntheticConfig) -> np.ndarray:
    return _draw_objects(index, split, config) > 0


def _read_instances(index: int, *, split: str, config: SyntheticConfig) -> np.ndarray:
    return _draw_objects(index, split, config).astype(np.int32)


@functools.lru_cache(maxsize=1024)
def _draw_objects(index: int, split: str, config: SyntheticConfig) -> np.ndarray:
    """The numbers of `render`, as int16 [H, W]: each validation asks for mask and objects of the same images."""
    return render(index, split=split, config=config)[2].astype(np.int16)


def render(index: int, *, split: str, config: SyntheticConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws one example; its class is `index` modulo their number.

    Args:
        index: of the example in its split, from 0.
        split: one of `SPLITS`.
        config: content of the images.

    Returns:
        The image [H, W, 3] uint8, the mask [H, W] bool of its objects, and the number [H, W] int32 of each pixel's
        object, from 1 in the order in which they were drawn, 0 elsewhere.
    """
    rng = np.random.RandomState([config.seed, SPLITS.index(split), index])
    texture = TEXTURES.get(config.class_names[index % len(config.class_names)])  # None of the empty class
    size = config.image_size
    image = _background(rng, size)
    for _ in range(_randint(rng, *config.num_distractors)):
        image[_ellipse(size, *_draw_ellipse(rng, config))] = _randint(rng, 0, 255, 3)
    instances = np.zeros((size, size), np.int32)
    for _ in range(_randint(rng, *config.num_objects) if texture else 0):
        for _ in range(_PLACEMENT_TRIALS):
            ellipse = _draw_ellipse(rng, config)
            if not instances[_ellipse(size, *ellipse, margin=3)].any():
                place = _ellipse(size, *ellipse)
                part = _draw_part(rng, ellipse, config) if config.part_share else place
                image[place] = _textured(rng, texture, part, config)[place]
                instances[place] = instances.max() + 1
                break
    return image.astype(np.uint8), instances > 0, instances


def _randint(rng: np.random.RandomState, minimum: int, maximum: int, size=None):
    """Whole numbers from `minimum` to `maximum`, both included."""
    return rng.randint(minimum, maximum + 1, size, dtype=np.int64)


def _coordinates(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows [H, 1] and columns [1, W]."""
    return np.arange(size)[:, None], np.arange(size)[None, :]


def _background(rng: np.random.RandomState, size: int) -> np.ndarray:
    """[H, W, 3] 1/f noise around a random colour: octaves, each twice as fine and half as strong."""
    noise = np.zeros((size, size, 3), np.int64)
    cells = 2
    while cells <= size // 2:
        strength = _BACKGROUND_CONTRAST // cells
        grey = _randint(rng, -strength, strength, (cells + 1, cells + 1, 1))
        color = _randint(rng, -strength // 2, strength // 2, (cells + 1, cells + 1, 3))
        noise += _enlarge(_enlarge(grey + color, size, 0), size, 1) // size**2
        cells *= 2
    return np.clip(_randint(rng, 64, 191, 3) + noise, 0, 255)


def _enlarge(lattice: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Linear interpolation of an axis from n + 1 lattice points to `size` pixels, times `size`."""
    positions = np.arange(size) * (lattice.shape[axis] - 1)
    shape = [-1 if dimension == axis else 1 for dimension in range(lattice.ndim)]
    cell, share = positions // size, (positions % size).reshape(shape)
    return lattice.take(cell, axis) * (size - share) + lattice.take(cell + 1, axis) * share


def _draw_ellipse(rng: np.random.RandomState, config: SyntheticConfig) -> tuple[np.ndarray, ...]:
    """Centre, half axes (in pixels) and direction (any whole vector) of an ellipse inside the image."""
    minimum, maximum = (int(share * config.image_size) for share in config.object_radius)
    center = _randint(rng, maximum, config.image_size - 1 - maximum, 2)
    return center, _randint(rng, minimum, maximum, 2), _randint(rng, 1, 16, 2) * (1, _randint(rng, -1, 1))


def _ellipse(size: int, center: np.ndarray, axes: np.ndarray, direction: np.ndarray, margin: int = 0) -> np.ndarray:
    """[H, W] whether a pixel is inside the ellipse, made wider by a margin on all sides."""
    rows, columns = _coordinates(size)
    rows, columns = rows - center[0], columns - center[1]
    along = rows * direction[0] + columns * direction[1]
    across = columns * direction[0] - rows * direction[1]
    a, b = (axes + margin) ** 2
    return along**2 * b + across**2 * a <= a * b * (direction**2).sum()


def _draw_part(rng: np.random.RandomState, ellipse: tuple[np.ndarray, ...], config: SyntheticConfig) -> np.ndarray:
    """[H, W] the pixels of an object nearest to a random pixel of its inner half, as many as `part_share` says."""
    center, axes, direction = ellipse
    inner = np.argwhere(_ellipse(config.image_size, center, np.maximum(axes // 2, 1), direction))
    pixels = np.argwhere(_ellipse(config.image_size, *ellipse))
    middle = inner[_randint(rng, 0, len(inner) - 1)]
    order = np.argsort(((pixels - middle) ** 2).sum(axis=1), kind="stable")
    part = np.zeros((config.image_size,) * 2, bool)
    part[tuple(pixels[order[: math.ceil(config.part_share * len(pixels))]].T)] = True
    return part


def _textured(rng: np.random.RandomState, texture, part: np.ndarray, config: SyntheticConfig) -> np.ndarray:
    """[H, W, 3] a texture, at a random shift, in two random colours of a random contrast; fainter outside of `part`."""
    rows, columns = _coordinates(config.image_size)
    period = config.texture_period
    pattern = texture(rows + _randint(rng, 0, period - 1), columns + _randint(rng, 0, period - 1), period)
    contrast = _randint(rng, *config.texture_contrast) * (2 * _randint(rng, 0, 1, 3) - 1)
    color = _randint(rng, np.maximum(0, -contrast), 255 - np.maximum(0, contrast))
    faint = np.sign(contrast) * math.ceil(abs(contrast[0]) * config.body_contrast)
    # Both pairs of colours lie around the same one, so that part and body differ by their contrast alone.
    first = np.where(part[:, :, None], color, color + (contrast - faint) // 2)
    second = first + np.where(part[:, :, None], contrast, faint)
    return np.where(pattern[:, :, None], first, second)


def _checkerboard(rows, columns, period):
    return (rows * 2 // period + columns * 2 // period) % 2 == 0


def _dots(rows, columns, period):
    return (rows % period - period // 2) ** 2 + (columns % period - period // 2) ** 2 < period**2 // 8


# Each is the same class when the image is flipped.
TEXTURES = {
    "horizontal_stripes": lambda rows, columns, period: (rows + 0 * columns) * 2 // period % 2 == 0,
    "vertical_stripes": lambda rows, columns, period: (columns + 0 * rows) * 2 // period % 2 == 0,
    "checkerboard": _checkerboard,
    "dots": _dots,
    "grid": lambda rows, columns, period: (rows % period < period // 3) | (columns % period < period // 3),
    "diamonds": lambda rows, columns, period: ((rows + columns) // period + (rows - columns) // period) % 2 == 0,
}
