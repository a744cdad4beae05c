"""Localizer and classifier together, on one trunk or on two."""

import flax.linen as nn
import jax

from minmax_jax.models import classifier, localizer, pooling


class MinMaxNet(nn.Module):
    """The two networks of the method.

    The running statistics of batch norm are kept outside: the caller passes in those of the stream (whole images,
    foreground, background) that the call reads, see `minmax_jax.batch_stats`. So any module with batch norm can be the
    trunk.

    Attributes:
        trunk: any module from [B, H, W, 3] images, called with `train`, to a [B, h, w, K] feature map.
        localizer_head: pooling head of the localizer.
        classifier_head: pooling head of the classifier.
        classifier_trunk: a trunk of the classifier's own; None shares the localizer's.
        classifier_scale: size of what the classifier sees, as a share of the image's height and width.
    """

    trunk: nn.Module
    localizer_head: pooling.WildcatHead
    classifier_head: pooling.WildcatHead
    classifier_trunk: nn.Module | None = None
    classifier_scale: float = 0.5

    def setup(self):
        self.localizer = localizer.Localizer(self.trunk, self.localizer_head)
        self.classifier = classifier.Classifier(
            self.classifier_trunk or self.trunk, self.classifier_head, self.classifier_scale
        )

    def localize(
        self, images: jax.Array, *, train: bool = False, sample_keys: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """[B, H, W, 3] images to the localizer's ([B, C] scores, [B, h, w, C] class maps)."""
        return self.localizer(images, train=train, sample_keys=sample_keys)

    def classify(
        self,
        images: jax.Array,
        masks: jax.Array,
        *,
        train: bool = False,
        sample_keys: jax.Array | None = None,
    ) -> jax.Array:
        """[B, H, W, 3] images, seen through [B, H, W, 1] masks, to the classifier's [B, C] scores."""
        return self.classifier(images, masks, train=train, sample_keys=sample_keys)

    def __call__(self, images: jax.Array, masks: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Runs both networks once, so that `init` makes all variables: (localizer, classifier) scores."""
        logits, _ = self.localize(images)
        return logits, self.classify(images, masks)


def create_model(
    trunk: nn.Module,
    *,
    num_classes: int,
    classifier_trunk: nn.Module | None = None,
    classifier_scale: float = 0.5,
    **pooling_options,
) -> MinMaxNet:
    """The two networks with like heads.

    Args:
        trunk: any module from [B, H, W, 3] images, called with `train`, to a [B, h, w, K] feature map.
        num_classes: C.
        classifier_trunk: a trunk of the classifier's own; None shares the localizer's.
        classifier_scale: size of what the classifier sees, as a share of the image's height and width.
        **pooling_options: attributes of `pooling.WildcatHead`: modalities, k_max, k_min, alpha, dropout, dtype.
    """
    return MinMaxNet(
        trunk=trunk,
        localizer_head=pooling.WildcatHead(num_classes, **pooling_options),
        classifier_head=pooling.WildcatHead(num_classes, **pooling_options),
        classifier_trunk=classifier_trunk,
        classifier_scale=classifier_scale,
    )
