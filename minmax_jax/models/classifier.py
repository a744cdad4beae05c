"""The classifier: class logits of a masked image."""

import flax.linen as nn
import jax

from minmax_jax.base.errors import OptionError
from minmax_jax.models import trunks
from minmax_jax.ops import canvas, free_sizes


def check_size(scale: float, size: tuple[free_sizes.Size, free_sizes.Size]) -> None:
    """Raises OptionError where no pixel of images of that height and width is left for the classifier."""
    if any(map(free_sizes.is_free, size)):
        return
    height, width = size
    if int(scale * min(size)) < 1:
        raise OptionError(
            f"classifier_scale={scale} leaves no pixel of images of {height}x{width}: it must be at least"
            f" 1 / {min(size)}."
        )


class Classifier(nn.Module):
    """Logits of an image multiplied by a mask.

    Attributes:
        trunk: any module from [B, H, W, 3] images, called with `train`, to `trunks.Stages`.
        head: any module from ([B, h, w, K] features, sample keys) to ([B, C] logits, [B, h, w, C] class maps).
        scale: size of the trunk's input, as a share of the image's height and width.
    """

    trunk: nn.Module
    head: nn.Module
    scale: float = 0.5

    def __call__(
        self,
        images: canvas.Images,
        masks: jax.Array,
        *,
        train: bool = False,
        sample_keys: jax.Array | None = None,
    ) -> jax.Array:
        """[B, H, W, 3] images, or a `Canvas`, and [B, H, W, 1] masks to [B, C] logits."""
        pixels, sizes = canvas.split(images)
        full = pixels.shape[1:3]
        check_size(self.scale, full)

        def cut(side):
            return free_sizes.cut_share(side, self.scale, name="classifier_scale")

        new_sizes = canvas.look_up(sizes, cut, full)
        seen = canvas.resize_to(pixels * masks, tuple(map(cut, full)), sizes, new_sizes)
        seen = canvas.join(seen, new_sizes)
        stages = trunks.apply(self.trunk, seen, train=train)
        logits, _ = self.head(trunks.last_features(stages), sample_keys, **trunks.valid(seen, stages))
        return logits
