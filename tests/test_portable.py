"""Programs for export: XLA's forms alone, a symbolic batch, the same answers."""

import functools

import flax.linen as nn
import jax
from jax import export
import jax.numpy as jnp
import numpy as np
import pytest

import minmax_jax as mm
from minmax_jax import ops
from minmax_jax.ops import fused_conv
from minmax_jax.ops.cpu import native


@pytest.fixture(scope="module", params=["basic", "bottleneck"])
def localize(request):
    """A function of images alone, [B, 64, 64, 3], with random running statistics."""
    if request.param == "basic":
        trunk = mm.ResNet(stage_sizes=(1, 3), stage_strides=(1, 2), width=16)
    else:
        trunk = mm.resnet50(width=4, stage_sizes=(1, 1, 1, 1))
    model = mm.create_model(trunk, num_classes=3, head=functools.partial(mm.heads.WildcatHead, k_max=0.3))
    state = mm.create_train_state(
        jax.random.key(0), model=model, tx=mm.create_optimizer("sgd", 0.1), image_size=(64, 64)
    )
    rng = np.random.default_rng(0)
    batch_stats = jax.tree.map(lambda x: jnp.asarray(rng.uniform(0.5, 1.5, x.shape), x.dtype), state.batch_stats)
    return functools.partial(_localize, model, state.params, batch_stats)


def _localize(model, params, batch_stats, images):
    found = mm.localize(params, batch_stats, images, model=model, flip_horizontal=True)
    return found.probabilities, found.masks, found.foreground_entropy


def test_an_exported_program_with_a_symbolic_batch_answers_as_the_library(localize):
    assert native.is_available()
    images = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), np.uint8)
    before = jax.jit(localize)(images)
    shape = jax.ShapeDtypeStruct(export.symbolic_shape("b, 64, 64, 3"), np.uint8)
    with ops.portable():
        exported = export.export(jax.jit(localize))(shape)
    loaded = export.deserialize(exported.serialize())
    assert "@minmax_" not in exported.mlir_module()
    for batch in (1, 3):
        for expected, result in zip(jax.jit(localize)(images[:batch]), loaded.call(images[:batch])):
            np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    for earlier, again in zip(before, jax.jit(localize)(images)):
        np.testing.assert_array_equal(earlier, again)


def test_outside_of_the_context_the_kernels_are_called_and_refused_for_export(localize):
    assert "@minmax_conv" in jax.jit(localize).lower(np.zeros((1, 64, 64, 3), np.uint8)).as_text()
    with pytest.raises(ValueError, match="minmax_conv"):
        export.export(jax.jit(localize))(jax.ShapeDtypeStruct((1, 64, 64, 3), np.uint8))


def test_an_exporter_s_own_convolution_is_enough(localize, monkeypatch):
    """Exporters replace `nn.Conv` by a module of their own, which knows none of this library's forms."""
    conv, seen = nn.Conv.__call__, []

    def plain(module, inputs):
        seen.append(module.conv_general_dilated)
        return conv(module, inputs)

    monkeypatch.setattr(nn.Conv, "__call__", plain)
    monkeypatch.setattr(fused_conv, "conv_general_dilated", None)
    with ops.portable():
        jax.eval_shape(localize, jax.ShapeDtypeStruct((1, 64, 64, 3), np.uint8))
    assert seen and all(form is None for form in seen)
