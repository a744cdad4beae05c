"""Options of the second stage; the group `refine` of a configuration."""

import dataclasses

from minmax_jax.base import options
from minmax_jax.refinement import calibration, priors


@dataclasses.dataclass(frozen=True)
class RefineOptions:
    """How the decoder learns and what becomes of its masks.

    Attributes:
        prior: "" or "glands", as in `refinement.priors`: seeds are drawn from its map instead of the first stage's.
        num_steps: steps of Adam.
        batch_size: images of a step.
        learning_rate: of the first step; it falls along a cosine to 0.
        width: channels of the decoder.
        num_seeds: foreground pixels that are drawn in each image and step, and as many of the background.
        seed_power: foreground seeds are drawn in proportion to (mask - its least value)^seed_power.
        background_share: background seeds are drawn among this share of the pixels, those with the least values.
        edge_weight: of the pairwise term; 0 leaves it out.
        edge_bandwidth: squared distance of colours in [0, 1] at which a mask may change.
        edge_reach: pixels of the mask, at half the image's size, between the two of a pair.
        calibration: "percentiles", "otsu" or "none", as in `refinement.calibration`.
        scales: sizes of the training images, as shares, that the first stage's masks are means over.
        cache_gib: memory for images, features and masks; where it is too small, a random choice of the images is used.

    Raises:
        OptionError: for an unknown option or a number out of range.
    """

    prior: str = ""
    num_steps: int = 400
    batch_size: int = 8
    learning_rate: float = 3e-3
    width: int = 32
    num_seeds: int = 20
    seed_power: float = 2.0
    background_share: float = 0.5
    edge_weight: float = 20.0
    edge_bandwidth: float = 0.02
    edge_reach: int = 4
    calibration: str = "percentiles"
    scales: tuple[float, ...] = (1.0, 1.5)
    cache_gib: float = 4.0

    def __post_init__(self):
        for field in ("num_steps", "batch_size", "width", "num_seeds", "edge_reach"):
            options.check_range(field, getattr(self, field), 1)
        for field in ("learning_rate", "edge_bandwidth", "cache_gib"):
            options.check_range(field, getattr(self, field), 1e-9)
        for field in ("seed_power", "edge_weight"):
            options.check_range(field, getattr(self, field), 0)
        options.check_range("background_share", self.background_share, 1e-3, 1 - 1e-3)
        options.check_choice("prior", self.prior, ("", *priors.PRIORS))
        options.check_choice("calibration", self.calibration, tuple(calibration.CALIBRATIONS))
