"""Trunks: shapes, strides and the number of parameters of the published networks."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minmax_jax as mm
from minmax_jax.models import trunks
from tests import networks


def _shapes(trunk, size=64):
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    features, variables = jax.eval_shape(
        functools.partial(trunk.init_with_output, train=False), jax.random.key(0), images
    )
    return trunks.last_features(features).shape, variables


def _count(tree):
    return sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    "trunk, channels, count",
    [
        # ResNet without its last layer (11,176,512; 23,508,032; 42,500,160), the 7x7 stem of 9,408 + 128 weights
        # replaced by 3x3 stems of 1,728 + 36,864 + 73,728 + 512, and a first stage that takes 128 channels.
        (mm.resnet18(), 512, 11_176_512 - 9_536 + 112_832 + 36_864 + 8_192 + 128),
        (mm.resnet50(), 2048, 23_508_032 - 9_536 + 112_832 + 4_096 + 16_384),
        (mm.resnet101(), 2048, 42_500_160 - 9_536 + 112_832 + 4_096 + 16_384),
        (mm.resnet18(stem="plain"), 512, 11_176_512),
        (mm.resnet34(stem="plain"), 512, 21_284_672),
        (mm.resnet50(stem="plain"), 2048, 23_508_032),
        (mm.resnet101(stem="plain"), 2048, 42_500_160),
    ],
)
def test_published_trunks(trunk, channels, count):
    shape, variables = _shapes(trunk)
    assert shape == (2, 2, 2, channels)
    assert _count(variables["params"]) == count


@pytest.mark.parametrize(
    "options, shape",
    [
        (dict(stage_sizes=(1, 1), stage_strides=(1, 1), width=8), (2, 16, 16, 16)),
        (dict(stage_sizes=(1, 1, 1), stage_strides=(1, 2, 1), width=8), (2, 8, 8, 32)),
        (dict(stage_sizes=(2,), stage_strides=(2,), width=3), (2, 8, 8, 3)),
    ],
)
def test_width_depth_and_stride_are_free(options, shape):
    assert _shapes(mm.ResNet(**options))[0] == shape


def test_odd_sizes_round_up_at_each_halving():
    images = jax.ShapeDtypeStruct((1, 65, 97, 3), jnp.float32)
    trunk = mm.ResNet(stage_sizes=(1, 1), stage_strides=(1, 2), width=4)
    features, _ = jax.eval_shape(functools.partial(trunk.init_with_output, train=False), jax.random.key(0), images)
    assert {stride: stage.shape for stride, stage in features.items()} == {4: (1, 17, 25, 4), 8: (1, 9, 13, 8)}


def test_of_stages_with_one_stride_the_last_is_returned():
    trunk = mm.ResNet(stage_sizes=(1, 1, 1), stage_strides=(1, 1, 2), width=2)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    stages, _ = jax.eval_shape(functools.partial(trunk.init_with_output, train=False), jax.random.key(0), images)
    assert {stride: stage.shape for stride, stage in stages.items()} == {4: (1, 8, 8, 4), 8: (1, 4, 4, 8)}


class _MeanHead(nn.Module):
    """A head without WILDCAT pooling: class maps by one dense layer, scores by their mean."""

    @nn.compact
    def __call__(self, features, sample_keys=None):
        class_maps = nn.Dense(3, name="maps")(features)
        return jnp.mean(class_maps, axis=(1, 2)), class_maps


def test_any_module_can_be_the_head(batch):
    model = mm.MinMaxNet(networks.TinyTrunk(), localizer_head=_MeanHead(), classifier_head=_MeanHead())
    state, step = networks.start(model, networks.objective(num_erasures=2))
    state, metrics = jax.jit(step)(state, batch)
    assert set(state.params["localizer_head"]) == {"maps"} and np.isfinite(metrics["loss"])


def test_bottleneck_and_basic_blocks_keep_the_shortcut_where_nothing_changes():
    _, variables = _shapes(mm.resnet50())
    with_shortcut = {name for name, block in variables["params"].items() if "shortcut_conv" in block}
    assert with_shortcut == {f"stage{stage}_block1" for stage in (1, 2, 3, 4)}


def test_parameters_are_float32_in_bfloat16_too():
    trunk = mm.ResNet(stage_sizes=(1,), stage_strides=(1,), width=4, dtype=jnp.bfloat16)
    images = jnp.zeros((1, 32, 32, 3))
    variables = trunk.init(jax.random.key(0), images, train=False)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert trunk.apply(variables, images, train=False)[4].dtype == jnp.bfloat16


def test_a_stride_for_each_stage_is_needed():
    with pytest.raises(ValueError, match="shorter"):
        _shapes(mm.ResNet(stage_sizes=(1, 1), stage_strides=(1,)))


def test_unknown_stems_are_refused():
    with pytest.raises(ValueError, match="stem='shallow' must be one of"):
        _shapes(mm.ResNet(stage_sizes=(1,), stage_strides=(1,), stem="shallow"))


def test_importing_touches_no_device_and_nothing_heavy():
    import subprocess
    import sys

    program = (
        "import sys, minmax_jax; from jax._src import xla_bridge;"
        "heavy = {'tensorflow', 'torch', 'matplotlib', 'tensorflow_datasets'} & set(sys.modules);"
        "sys.exit(str(heavy or xla_bridge._backends or ''))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_remat_changes_nothing_but_what_is_kept():
    """Same parameters, and the same step, gradients (SGD) and running statistics included, with two erasures."""
    rng, after = np.random.default_rng(0), []
    batch = {"images": rng.integers(0, 256, (4, 32, 32, 3), np.uint8), "labels": np.arange(4, dtype=np.int32) % 3}
    for remat in (False, True):
        trunk = mm.ResNet(stage_sizes=(1, 3), stage_strides=(1, 1), width=4, remat=remat)
        state, step = networks.start(
            mm.create_model(trunk, num_classes=3, head=networks.wildcat(modalities=2)),
            networks.objective(num_erasures=2),
        )
        traced = jax.jit(step).trace(state, batch)
        assert ("prevent_cse" in str(traced.jaxpr)) == remat
        after.append(traced.lower().compile()(state, batch))
    for plain, again in zip(*map(jax.tree.leaves, ((s.params, s.batch_stats, m) for s, m in after))):
        np.testing.assert_allclose(plain, again, rtol=1e-5, atol=1e-6)
    assert after[0][1]["num_passes"] == 2
