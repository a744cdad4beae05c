"""Trunks of a user's own: what is taken, and what is refused by its name."""

from flax import nnx
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import minmax_jax as mm
from minmax_jax.base.errors import OptionError
from tests import networks


class _NnxTrunk(nnx.Module):
    def __init__(self, channels=8, *, rngs):
        self.conv = nnx.Conv(3, channels, (3, 3), strides=2, rngs=rngs)

    def __call__(self, x, train=False):
        return {2: nnx.relu(self.conv(x))}


class _Returning(nn.Module):
    """Returns what `kind` says in place of features."""

    kind: str

    @nn.compact
    def __call__(self, images, *, train):
        features = nn.Conv(4, (4, 4), strides=(4, 4))(images)
        found = {
            "list": [features, features],
            "pooled": features.mean((1, 2)),
            "nothing": None,
            "names": {"last": features},
            "flat": {32: features.reshape(len(images), -1)},
            "empty": {},
            "array": features,
            "mapping": {4: features},
        }
        return found[self.kind]


_IMAGES = jnp.zeros((2, 32, 32, 3))


def _init(trunk, **options):
    model = mm.create_model(trunk, num_classes=3, head=networks.wildcat(k_max=0.3), **options)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), _IMAGES, _IMAGES[..., :1]))
    return model, variables


@pytest.mark.parametrize(
    "trunk", [_NnxTrunk(rngs=nnx.Rngs(0)), _NnxTrunk, nnx.Sequential(nnx.Conv(3, 8, (3, 3), rngs=nnx.Rngs(0)))]
)
def test_an_nnx_module_is_refused_when_it_is_given(trunk):
    name = getattr(trunk, "__name__", type(trunk).__name__)
    with pytest.raises(OptionError, match=rf"trunk={name} is an nnx.Module, .*nnx.bridge.to_linen\({name}, \.\.\.\)"):
        mm.create_model(trunk, num_classes=3)
    for field in ("classifier_trunk", "mask_head"):
        with pytest.raises(OptionError, match=f"{field}={name} is an nnx.Module"):
            mm.create_model(networks.TinyTrunk(), num_classes=3, **{field: trunk})
    with pytest.raises(OptionError, match=f"localizer_head={name} is an nnx.Module"):
        mm.MinMaxNet(networks.TinyTrunk(), trunk, mm.heads.WildcatHead(3))


def test_a_function_is_no_trunk():
    with pytest.raises(OptionError, match="trunk=function must be an instance of a flax.linen.Module"):
        mm.create_model(lambda images, train: images, num_classes=3)


def test_an_nnx_module_is_trained_through_its_bridge():
    _, variables = _init(nnx.bridge.to_linen(_NnxTrunk, 8))
    assert variables["params"]["trunk"]["conv"]["kernel"].shape == (3, 3, 3, 8)


@pytest.mark.parametrize(
    ("kind", "described"),
    [
        ("list", r"a list of 2: an array \[2, 8, 8, 4\], an array \[2, 8, 8, 4\]"),
        ("pooled", r"an array \[2, 4\]"),
        ("nothing", "NoneType"),
        ("names", r"\{'last': an array \[2, 8, 8, 4\]\}"),
        ("flat", r"\{32: an array \[2, 256\]\}"),
        ("empty", r"\{\}"),
    ],
)
def test_what_a_trunk_must_return(kind, described):
    with pytest.raises(OptionError, match=rf"trunk=_Returning returned {described}; it must return a mapping"):
        _init(_Returning(kind))


def test_features_alone_are_the_only_stage_but_of_no_second_stage():
    model, variables = _init(_Returning("array"))
    with pytest.raises(
        OptionError, match=r"trunk=_Returning returned an array \[2, 8, 8, 4\]; it must return a mapping"
    ):
        jax.eval_shape(lambda v: model.apply(v, _IMAGES, method="stages"), variables)
    model, variables = _init(_Returning("mapping"))
    assert list(jax.eval_shape(lambda v: model.apply(v, _IMAGES, method="stages"), variables)) == [4]


def test_a_classifier_that_sees_no_pixel():
    with pytest.raises(
        OptionError, match=r"classifier_scale=0.03 leaves no pixel of images of 32x32: .*at least 1 / 32"
    ):
        _init(networks.TinyTrunk(), classifier_scale=0.03)
