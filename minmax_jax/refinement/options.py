"""Options of the second stage; the group `refine` of a configuration."""

import dataclasses
import math

from minmax_jax.base import options
from minmax_jax.refinement import calibration, priors


@dataclasses.dataclass(frozen=True)
class RefineOptions:
    """How the decoder learns and what becomes of its masks.

    Attributes:
        enabled: whether there is a second stage.
        prior: "" or "glands", as in `refinement.priors`: seeds are drawn from its map instead of the first stage's.
        num_steps: steps of Adam.
        edge_weight: of the pairwise term; 0 leaves it out.
        calibration: "percentiles" or "none", as in `refinement.calibration`.
        scales: sizes of the training images, as shares, that the first stage's masks are means over.
        cache_gib: memory for images, features and masks; where it is too small, a random choice of the images is used.

    Raises:
        OptionError: for an unknown option or a number out of range.
    """

    enabled: bool = False
    prior: str = ""
    num_steps: int = 400
    edge_weight: float = 20.0
    calibration: str = "percentiles"
    scales: tuple[float, ...] = (1.0, 1.5)
    cache_gib: float = 4.0

    def __post_init__(self):
        options.check_ranges(self, num_steps=(1, math.inf), edge_weight=(0, math.inf), cache_gib=(1e-9, math.inf))
        options.check_sizes("scales", self.scales)
        options.check_choice("prior", self.prior, ("", *priors.PRIORS))
        options.check_choice("calibration", self.calibration, tuple(calibration.CALIBRATIONS))
