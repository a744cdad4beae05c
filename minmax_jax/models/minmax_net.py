"""Localizer and classifier together, on one trunk or on two."""

from collections.abc import Callable

import flax.linen as nn
import jax

from minmax_jax.models import classifier, heads, localizer, trunks
from minmax_jax.ops import canvas


class MinMaxNet(nn.Module):
    """The two networks of the method.

    The running statistics of batch norm are kept outside: the caller passes in those of the stream (whole images,
    foreground, background) that the call reads, see `minmax_jax.training.batch_stats`. Any module with batch norm can
    therefore be the trunk.

    Attributes:
        trunk: any module from [B, H, W, 3] images, called with `train`, to `trunks.Stages`.
        localizer_head: any module from (features, sample keys) to (logits, class maps), see `models.heads`.
        classifier_head: the same for the classifier.
        mask_head: as in `localizer.Localizer`.
        classifier_trunk: a separate trunk of the classifier; None shares the localizer's.
        classifier_scale: size of the classifier's input, as a share of the image's height and width.

    Example:
        The logits and class maps of the localizer, for a trunk whose output stride is 4, without running it:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> import minmax_jax as mm
        >>> trunk = mm.ResNet(stage_sizes=(1,), stage_strides=(1,), width=4)
        >>> model, images = mm.create_model(trunk, num_classes=3), jnp.zeros((2, 64, 64, 3))
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), images, images[..., :1])
        >>> logits, class_maps = jax.eval_shape(lambda v: model.apply(v, images, method="localize"), variables)
        >>> logits.shape, class_maps.shape
        ((2, 3), (2, 16, 16, 3))
    """

    trunk: nn.Module
    localizer_head: nn.Module
    classifier_head: nn.Module
    mask_head: nn.Module | None = None
    classifier_trunk: nn.Module | None = None
    classifier_scale: float = 0.5

    def __post_init__(self):
        for name in ("trunk", "localizer_head", "classifier_head", "mask_head", "classifier_trunk"):
            if getattr(self, name) is not None:
                trunks.check_module(name, getattr(self, name))
        super().__post_init__()

    def setup(self):
        self.localizer = localizer.Localizer(self.trunk, self.localizer_head, self.mask_head)
        self.classifier = classifier.Classifier(
            self.classifier_trunk or self.trunk, self.classifier_head, self.classifier_scale
        )

    @property
    def reads_canvases(self) -> bool:
        """Whether both networks take a `Canvas` in place of images, at inference."""
        networks = (self.trunk, self.classifier_trunk or self.trunk)
        return self.mask_head is None and all(map(trunks.reads_canvases, networks))

    def localize(
        self, images: canvas.Images, *, train: bool = False, sample_keys: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """[B, H, W, 3] images to the localizer's ([B, C] logits, [B, h, w, C] maps of the mask).

        Args:
            images: [B, H, W, 3], scaled to [-1, 1].
            train: whether batch norm uses the statistics of the batch.
            sample_keys: [B] random keys for the dropout of the head; None drops nothing.
        """
        return self.localizer(images, train=train, sample_keys=sample_keys)

    def stages(self, images: canvas.Images) -> trunks.Stages:
        """The features of the localizer's trunk, {output stride: [B, h, w, K]}, for [B, H, W, 3] images."""
        return trunks.apply(self.localizer.trunk, images, train=False, needs_strides=True)

    def classify(
        self,
        images: canvas.Images,
        masks: jax.Array,
        *,
        train: bool = False,
        sample_keys: jax.Array | None = None,
    ) -> jax.Array:
        """[B, H, W, 3] images, seen through [B, H, W, 1] masks, to the classifier's [B, C] logits.

        Args:
            images: [B, H, W, 3], scaled to [-1, 1].
            masks: [B, H, W, 1], multiplied with the images.
            train: as in `localize`.
            sample_keys: as in `localize`.
        """
        return self.classifier(images, masks, train=train, sample_keys=sample_keys)

    def __call__(self, images: jax.Array, masks: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(localizer, classifier) logits; runs both networks, so that `init` creates all variables."""
        logits, _ = self.localize(images)
        return logits, self.classify(images, masks)


def create_model(
    trunk: nn.Module,
    *,
    num_classes: int,
    mask_head: nn.Module | None = None,
    classifier_trunk: nn.Module | None = None,
    classifier_scale: float = 0.5,
    head: Callable[[int], nn.Module] = heads.WildcatHead,
) -> MinMaxNet:
    """The two networks, with heads of one kind.

    Args:
        trunk: any module from [B, H, W, 3] images, called with `train`, to `trunks.Stages`.
        num_classes: C.
        mask_head: as in `localizer.Localizer`.
        classifier_trunk: a separate trunk of the classifier; None shares the localizer's.
        classifier_scale: size of the classifier's input, as a share of the image's height and width.
        head: C to a module of `models.heads` or one like them, such as
            `functools.partial(heads.WildcatHead, k_max=0.3)`; called for the localizer and again for the classifier.

    Raises:
        OptionError: for a trunk or a head that is no Linen module.

    Example:
        >>> import functools
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import minmax_jax as mm
        >>> head = functools.partial(mm.heads.WildcatHead, k_max=0.3)
        >>> model = mm.create_model(mm.resnet18(), num_classes=4, head=head)
        >>> images, masks = jnp.zeros((2, 64, 64, 3)), jnp.zeros((2, 64, 64, 1))
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), images, masks)
        >>> sorted(variables["params"])
        ['classifier_head', 'localizer_head', 'trunk']
    """
    return MinMaxNet(
        trunk=trunk,
        localizer_head=head(num_classes),
        classifier_head=head(num_classes),
        mask_head=mask_head,
        classifier_trunk=classifier_trunk,
        classifier_scale=classifier_scale,
    )
