"""The two stains of H&E images, haematoxylin and eosin: separation, normalization, augmentation.

Light that passes through a stain is absorbed by its amount: optical densities, -ln((I + 1) / 256) of a channel's
value I from 0 to 255, are sums of the stains' vectors times their concentrations. White is 0, black is 5.5.

M. Macenko et al., A method for normalizing histology slides for quantitative analysis, ISBI 2009.
"""

import dataclasses

import numpy as np

_DENSITIES = -np.log((np.arange(256) + 1) / 256)
# Macenko's beta, of natural logarithms as the reference below: less in any channel is no tissue.
_MIN_DENSITY = 0.15
_PERCENTILE = 1  # Macenko's alpha: extremes are the 1st and the 99th percentile
# Below these no stains are detected: share of tissue in an image, angle between the stains (reference: 22 degrees).
_MIN_TISSUE = 0.01
_MIN_ANGLE = np.deg2rad(5)


@dataclasses.dataclass(frozen=True)
class Stains:
    """The stains of an image, haematoxylin first.

    Attributes:
        vectors: [2, 3] optical densities of red, green and blue, of length 1.
        max_concentrations: [2] maximum concentrations (99th percentile over the tissue).
    """

    vectors: np.ndarray
    max_concentrations: np.ndarray


# Defaults of M. Veta's normalizeStaining.m (github.com/mitkovetta/staining-normalization, 2013), which counts densities
# from a white of 240.
REFERENCE = Stains(
    vectors=np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]]),
    max_concentrations=np.array([1.9705, 1.0308]),
)


def optical_density(image: np.ndarray) -> np.ndarray:
    """-ln((I + 1) / 256), [H, W, 3], of an image [H, W, 3] uint8.

    Raises:
        ValueError: for an image of another type or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"The image is {list(image.shape)} {image.dtype}; it must be [H, W, 3] uint8.")
    return _DENSITIES[image]


def from_optical_density(density: np.ndarray) -> np.ndarray:
    """The image [H, W, 3] uint8 of optical densities, rounded; what no image can show is clipped."""
    return np.clip(np.rint(256 * np.exp(-density) - 1), 0, 255).astype(np.uint8)


def find_stains(image: np.ndarray) -> Stains | None:
    """The stains of an image [H, W, 3] uint8, or None if it has too little tissue or one stain only.

    Macenko's method: the densities of tissue are near a plane through 0, that of their first two singular vectors. The
    stains are the extremes of the angle in it.
    """
    density = optical_density(image)
    tissue = density[(density >= _MIN_DENSITY).all(axis=-1)]
    if len(tissue) < _MIN_TISSUE * density[..., 0].size:
        return None
    second, first = np.linalg.eigh(tissue.T @ tissue).eigenvectors.T[1:]
    first = first * np.sign(first.sum())  # towards the tissue, where angles are far from their jump
    angles = np.arctan2(tissue @ second, tissue @ first)
    extremes = np.percentile(angles, (_PERCENTILE, 100 - _PERCENTILE))
    if np.ptp(extremes) < _MIN_ANGLE:
        return None
    vectors = np.cos(extremes)[:, None] * first + np.sin(extremes)[:, None] * second
    vectors = vectors[np.argsort(-vectors[:, 0])]  # haematoxylin absorbs more of the red
    return Stains(vectors, np.percentile(concentrations(tissue, vectors), 100 - _PERCENTILE, axis=0))


def concentrations(density: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """[..., 2] amounts of stains with the vectors [2, 3] that come closest to densities [..., 3] (least squares)."""
    return density @ np.linalg.pinv(vectors)


def normalize_stains(image: np.ndarray, target: Stains = REFERENCE) -> np.ndarray:
    """The image as if it was stained as the target: its vectors, and concentrations scaled to its maximum.

    Args:
        image: [H, W, 3] uint8.
        target: the stains to have.

    Returns:
        [H, W, 3] uint8, without colours that are not of the two stains; the image itself where none are detected.

    Example:
        A pale image of the reference stains gets their maximum concentrations, 2.0 and 1.0 (rounded):

        >>> import numpy as np
        >>> from minmax_jax.data import stains
        >>> amounts = np.random.default_rng(0).uniform(0, 0.6, (64, 64, 2))
        >>> pale = stains.from_optical_density(amounts @ stains.REFERENCE.vectors)
        >>> print(stains.find_stains(stains.normalize_stains(pale)).max_concentrations.round(1))
        [2. 1.]
    """
    stains = find_stains(image)
    return image if stains is None else replace_stains(image, stains, target)


def replace_stains(image: np.ndarray, stains: Stains, target: Stains = REFERENCE) -> np.ndarray:
    """As `normalize_stains`, of an image, or a part of one, with these stains.

    Args:
        image: [H, W, 3] uint8.
        stains: its present stains, as `find_stains` finds them in the whole image.
        target: the new stains.

    Returns:
        [H, W, 3] uint8, without colours that are not of the two stains.
    """
    scale = target.max_concentrations / stains.max_concentrations
    return from_optical_density(concentrations(optical_density(image), stains.vectors) * scale @ target.vectors)


def augment_stains(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """The image with more or less of each of its own stains: concentrations c become (1 + u) c + v.

    After D. Tellez et al., Whole-slide mitosis detection in H&E breast histology, IEEE TMI 2018, with the image's
    stains in place of fixed ones. Colours that are not of the two stains stay.

    Args:
        image: [H, W, 3] uint8.
        rng: draws u and v of each stain.
        strength: both are uniform in [-strength, strength], v in optical density; from 0 to 1.

    Returns:
        [H, W, 3] uint8; the image itself where no stains are detected.

    Raises:
        ValueError: for another strength.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength={strength} must be from 0 to 1.")
    stains = find_stains(image)
    if stains is None:
        return image
    density = optical_density(image)
    u, v = rng.uniform(-strength, strength, (2, 2))
    return from_optical_density(density + (u * concentrations(density, stains.vectors) + v) @ stains.vectors)
