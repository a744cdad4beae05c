"""Files with timm's names: the same variables as from the names of torchvision and of the installed packages."""

import flax
import jax
from minmax_jax.configs import synthetic
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import minmax_jax as mm
from minmax_jax import interop
from minmax_jax.base import errors
from minmax_jax.models import efficientnet_lite
from minmax_jax.runs.building import creation
from minmax_jax.runs.building import options as options_lib
from tests import networks, test_efficientnet_lite, torch_layout

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
# Names in this library and in timm, written down from timm's networks.
_BASIC = {
    f"stage{stage}_block1/{ours}": f"layer{stage}.0.{timm}"
    for stage in (1, 2)
    for ours, timm in {
        "conv1": "conv1",
        "norm1": "bn1",
        "conv2": "conv2",
        "norm2": "bn2",
        "shortcut_conv": "downsample.0",
        "shortcut_norm": "downsample.1",
    }.items()
}
PLAIN = {"stem_conv1": "conv1", "stem_norm1": "bn1"} | _BASIC
DEEP = {
    "stem_conv1": "conv1.0",
    "stem_norm1": "conv1.1",
    "stem_conv2": "conv1.3",
    "stem_norm2": "conv1.4",
    "stem_conv3": "conv1.6",
    "stem_norm3": "bn1",
} | _BASIC
# The blocks of `test_efficientnet_lite.STAGES`: the first without an expansion.
_PLACES = {1: "1.0", 2: "1.1", 3: "2.0", 4: "3.0", 5: "3.1", 6: "4.0"}
LITE = {
    "stem_conv": "conv_stem",
    "stem_norm": "bn1",
    "block0/depthwise_conv": "blocks.0.0.conv_dw",
    "block0/depthwise_norm": "blocks.0.0.bn1",
    "block0/project_conv": "blocks.0.0.conv_pw",
    "block0/project_norm": "blocks.0.0.bn2",
} | {
    f"block{number}/{ours}": f"blocks.{place}.{timm}"
    for number, place in _PLACES.items()
    for ours, timm in {
        "expand_conv": "conv_pw",
        "expand_norm": "bn1",
        "depthwise_conv": "conv_dw",
        "depthwise_norm": "bn2",
        "project_conv": "conv_pwl",
        "project_norm": "bn3",
    }.items()
}
# Layers that new heads replace.
_RESNET_HEAD = {"fc.weight": (10, 8), "fc.bias": (10,)}
_LITE_HEAD = {"conv_head.weight": (30, 20, 1, 1), "bn2.weight": (30,), "bn2.bias": (30,), "bn2.running_mean": (30,)}
_LITE_HEAD |= {"bn2.running_var": (30,), "classifier.weight": (10, 30), "classifier.bias": (10,)}


def _resnet(stem):
    return mm.ResNet(stage_sizes=(1, 1), stage_strides=(1, 2), width=4, stem=stem)


CASES = {
    "resnet18, plain": (lambda: _resnet("plain"), PLAIN, _RESNET_HEAD),
    "resnet18, deep": (lambda: _resnet("deep"), DEEP, _RESNET_HEAD),
    "efficientnet_lite0": (
        lambda: efficientnet_lite.EfficientNetLite(test_efficientnet_lite.STAGES),
        LITE,
        _LITE_HEAD,
    ),
}


def _drawn(case):
    """A state, the variables of a trunk, and the same under timm's names."""
    create_trunk, names, head = CASES[case]
    trunk, rng = create_trunk(), np.random.default_rng(0)
    state, _ = networks.start(mm.create_model(trunk, num_classes=2), mm.Objective())
    variables = {"params": state.params["trunk"], "batch_stats": state.batch_stats["whole"]["trunk"]}
    draw = lambda leaf: rng.normal(size=leaf.shape).astype(np.float32)
    variables = jax.tree.map(draw, jax.device_get(variables))
    tensors = {name: np.zeros(shape, np.float32) for name, shape in head.items()}
    for (_, *modules, leaf), value in flax.traverse_util.flatten_dict(variables).items():
        tensor = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
        tensors[f"{names['/'.join(modules)]}.{_LEAVES[leaf]}"] = np.ascontiguousarray(tensor)
        if leaf == "var":
            tensors[f"{names['/'.join(modules)]}.num_batches_tracked"] = np.array(3)
    return state, variables, tensors


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_trunks_are_recognised_by_their_names(tmp_path, case, suffix):
    state, wanted, tensors = _drawn(case)
    path = tmp_path / f"model{suffix}"
    if suffix == ".pth":
        path.write_bytes(torch_layout.write_zip(tensors))
    else:
        safetensors_numpy.save_file(tensors, path)
    config = synthetic.get_config()
    config.model.trunk, config.model.pretrained = case.partition(",")[0], str(path)
    found = creation.load_pretrained(options_lib.read(config).model, state)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found.params["trunk"]), wanted["params"])
    for stream in jax.device_get(found.batch_stats).values():
        jax.tree.map(np.testing.assert_array_equal, stream["trunk"], wanted["batch_stats"])


def test_shortcuts_that_average_are_refused(tmp_path):
    """timm's resnet18d: a deep stem, and in shortcuts a pool before convolution and batch norm."""
    state, _, tensors = _drawn("resnet18, deep")
    shifted = {"downsample.0": "downsample.1", "downsample.1": "downsample.2"}
    for name in list(tensors):
        if "downsample" in name:
            layer, _, leaf = name.rpartition(".")
            tensors[f"{layer[:-12]}{shifted[layer[-12:]]}.{leaf}x"] = tensors.pop(name)
    tensors = {name.removesuffix("x"): tensor for name, tensor in tensors.items()}
    safetensors_numpy.save_file(tensors, tmp_path / "resnet18d.safetensors")
    config = synthetic.get_config()
    config.model.trunk, config.model.pretrained = "resnet18", str(tmp_path / "resnet18d.safetensors")
    with pytest.raises(errors.ConfigError, match="layer1.0.downsample.1.weight .*ResNet-D.*without d"):
        creation.load_pretrained(options_lib.read(config).model, state)


@pytest.mark.parametrize(
    "case, name, message",
    [
        ("efficientnet_lite0", "blocks.1.0.se.conv_reduce.weight", "not in the model: _blocks.1.se.conv_reduce.weight"),
        ("efficientnet_lite0", "norm_pre.weight", "not in the model: norm_pre.weight"),
        ("resnet18, deep", "layer1.0.se.fc1.weight", "not in the model: layer1.0.se.fc1.weight"),
    ],
)
def test_layers_that_a_trunk_lacks_are_named(case, name, message):
    state, _, tensors = _drawn(case)
    family = interop.resnet if case.startswith("resnet") else interop.efficientnet_lite
    tensors[name] = np.ones((2, 2, 1, 1), np.float32)
    with pytest.raises(interop.InteropError, match=message):
        interop.load_trunk(tensors, state.variables, family=family)


def test_a_narrow_deep_stem_is_of_another_shape():
    """timm's resnet50c has 32, 32 and 64 channels in its stem, the published trunk twice as many."""
    state, _, tensors = _drawn("resnet18, deep")
    tensors["conv1.0.weight"] = tensors["conv1.0.weight"][:2]
    with pytest.raises(interop.InteropError, match=r"of another shape: conv1.weight \(2, 3, 3, 3\) instead of \(4, 3,"):
        interop.load_trunk(tensors, state.variables)
