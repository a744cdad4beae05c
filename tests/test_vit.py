"""Frozen Vision Transformers: shapes, a forward pass in NumPy, positions, files, and a training step."""

import functools
import math

import flax
import jax
import jax.numpy as jnp
from minmax_jax.configs import synthetic
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import minmax_jax as mm
from minmax_jax import interop, masks
from minmax_jax.base import errors
from minmax_jax.models import vit
from minmax_jax.ops import bicubic
from minmax_jax.runs import training
from minmax_jax.runs.building import creation
from minmax_jax.runs.building import options as options_lib
from tests import networks, programs, torch_layout

WIDTH, DEPTH, HEADS, GRID = 24, 2, 3, 5
SMALL = functools.partial(vit.VisionTransformer, WIDTH, DEPTH, HEADS, grid=GRID)


@functools.cache
def draw_variables(num_registers=0):
    """Drawn, so that no scale is 1 and no bias 0."""
    trunk = SMALL(num_registers=num_registers)
    shapes = jax.eval_shape(lambda: trunk.init(jax.random.key(0), jnp.zeros((1, 28, 28, 3)), train=False))
    rng = np.random.default_rng(0)
    draw = lambda leaf: np.float32(rng.normal(size=leaf.shape) / np.sqrt(leaf.shape[-2] if leaf.ndim > 1 else 4))
    return jax.tree.map(draw, shapes)


def features(images, num_registers=0, variables=None):
    trunk = SMALL(num_registers=num_registers)
    apply = jax.jit(lambda variables, images: trunk.apply(variables, images, train=False)[14])
    return apply(variables or draw_variables(num_registers), images)


def draw_images(*shape):
    return np.random.default_rng(1).uniform(-1, 1, (*shape, 3)).astype(np.float32)


@pytest.mark.parametrize("name, parameters", [("vit_small14", 22_056_192), ("vit_small14_reg4", 22_057_728)])
def test_features_and_number_of_parameters(name, parameters):
    """The numbers are those of the published networks less the mask token's 384."""
    trunk = vit.TRUNKS[name]()
    variables = jax.eval_shape(lambda: trunk.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == parameters
    assert set(variables) == {"params"}
    for size, grid in {(224, 112): (16, 8), (256, 480): (18, 34), (518, 518): (37, 37), (6, 21): (1, 2)}.items():
        images = jnp.zeros((2, *size, 3))
        stages = jax.eval_shape(lambda variables: trunk.apply(variables, images, train=True), variables)
        assert {stride: x.shape for stride, x in stages.items()} == {14: (2, *grid, 384)}


def _numpy_forward(params, images, positions, num_registers):
    """DINOv2's network on images whose sides are multiples of 14, in float64; `positions` [h, w, width]."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["frozen"])
    erf = np.vectorize(math.erf)

    def norm(x, p):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]

    def dense(x, p):
        return x @ p["kernel"] + p["bias"]

    def attend(x, block):
        qkv = dense(x, block["qkv"])
        per_head, heads = WIDTH // HEADS, []
        for head in range(HEADS):
            query, key, value = (
                qkv[:, part * WIDTH + head * per_head : part * WIDTH + (head + 1) * per_head] for part in range(3)
            )
            scores = query @ key.T / math.sqrt(per_head)
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(shares / shares.sum(-1, keepdims=True) @ value)
        return dense(np.concatenate(heads, -1), block["projection"])

    pixels = ((images.astype(np.float64) + 1) / 2 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    outputs = []
    for image in pixels:
        height, width = image.shape[0] // 14, image.shape[1] // 14
        kernel = params["patch_embedding"]["kernel"].reshape(-1, WIDTH)
        patches = [
            image[14 * row : 14 * row + 14, 14 * column : 14 * column + 14].reshape(-1) @ kernel
            + params["patch_embedding"]["bias"]
            + positions[row, column]
            for row in range(height)
            for column in range(width)
        ]
        registers = list(params["register_tokens"][0]) if num_registers else []
        first = params["class_token"][0, 0] + params["position_embedding"][0, 0]
        x = np.stack([first, *registers, *patches])
        for index in range(DEPTH):
            block = params[f"block{index}"]
            x = x + block["scale1"] * attend(norm(x, block["norm1"]), block)
            y = dense(norm(x, block["norm2"]), block["mlp1"])
            x = x + block["scale2"] * dense(y * (1 + erf(y / math.sqrt(2))) / 2, block["mlp2"])
        outputs.append(norm(x, params["norm"])[1 + num_registers :].reshape(height, width, WIDTH))
    return np.stack(outputs)


def _cubic(x, a):
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def _numpy_positions(grid, size, *, antialias):
    """Output by output: the sum over the field's values, those beyond the border included unless antialiased."""

    def weights(size_in, size_out, index):
        ratio = size_in / size_out if antialias else size_in / (size_out + 0.1)
        centre, found = (index + 0.5) * ratio - 0.5, np.zeros(size_in)
        if not antialias:
            for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
                found[min(max(tap, 0), size_in - 1)] += _cubic(tap - centre, -0.75)
            return found
        for tap in range(size_in):
            found[tap] = _cubic((tap - centre) / max(ratio, 1), -0.5)
        return found / found.sum()

    output = np.zeros((*size, grid.shape[-1]))
    for row in range(size[0]):
        for column in range(size[1]):
            both = np.outer(weights(len(grid), size[0], row), weights(len(grid), size[1], column))
            output[row, column] = np.tensordot(both, grid.astype(np.float64), 2)
    return output


@pytest.mark.parametrize("num_registers", [0, 4])
@pytest.mark.parametrize("size", [(2, 3), (5, 5), (7, 4), (5, 6)])
def test_a_forward_pass_in_numpy(num_registers, size):
    """Fewer patches than positions, as many, and more."""
    variables = draw_variables(num_registers)
    grid = variables["params"]["frozen"]["position_embedding"][0, 1:].reshape(GRID, GRID, WIDTH)
    own = size == (GRID, GRID)
    positions = grid if own else _numpy_positions(grid, size, antialias=num_registers > 0)
    images = draw_images(2, 14 * size[0], 14 * size[1])
    found = features(images, num_registers)
    expected = _numpy_forward(variables["params"], images, positions, num_registers)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_bicubic_weights_by_hand():
    """Distances 0.25, 0.75, 1.25 and 1.75, with a = -0.75, of 0.25, 0.75 and 1.25 with a = -0.5."""
    near, far, farther, farthest = 0.87890625, 0.26171875, -0.10546875, -0.03515625
    expected = [[near + far + farthest, farther], [near + farther, far + farthest]]
    np.testing.assert_allclose(bicubic.interpolation_matrix(2, 4)[:2], expected, rtol=1e-12)
    row = np.array([0.8671875, 0.8671875, 0.2265625, -0.0703125]) / 1.890625
    np.testing.assert_allclose(bicubic.interpolation_matrix(4, 2, antialias=True), [row, row[::-1]], rtol=1e-12)
    np.testing.assert_allclose(bicubic.interpolation_matrix(3, 3), np.eye(3), atol=1e-12)


def test_images_of_other_sizes_are_resized_to_whole_patches():
    """37 x 50 pixels to 42 x 56: pixel i of n' reads (i + 0.5) n / n' - 0.5."""

    def resize(image, axis, size):
        old = image.shape[axis]
        where = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
        return np.apply_along_axis(lambda line: np.interp(where, np.arange(old), line), axis, image)

    images = draw_images(1, 37, 50)
    whole = resize(resize(images.astype(np.float64), 1, 42), 2, 56).astype(np.float32)
    np.testing.assert_allclose(features(images), features(whole), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side, patches", [(56, 4), (64, 5), (32, 2)])
def test_a_mask_is_highest_on_the_centre_of_the_patch(side, patches):
    for patch in range(patches):
        maps = np.zeros((1, patches, patches, 1), np.float32)
        maps[0, patch, 0] = 1
        found = masks.foreground_masks(
            np.zeros((1, 1)), maps, (side, side), options=masks.MaskOptions(alignment="patches")
        )[0, :, 0, 0]
        brightest = np.flatnonzero(np.isclose(found, found.max(), atol=1e-6))
        centre = (patch + 0.5) * side / patches - 0.5
        if 0 < patch < patches - 1:
            assert abs(brightest.mean() - centre) <= 0.5
        else:  # as far as the border
            assert {brightest[0], brightest[-1]} == ({0, int(centre)} if patch == 0 else {math.ceil(centre), side - 1})


def _model(num_registers=0, **options):
    return mm.create_model(
        SMALL(num_registers=num_registers), num_classes=3, head=networks.wildcat(k_max=0.5), **options
    )


@functools.cache
def _state(num_registers):
    return networks.start(_model(num_registers), mm.Objective())[0]


@pytest.mark.parametrize("optimizer, gradient", [("sgd", "stop"), ("adamw", "flow")])
def test_a_step_trains_the_heads_alone(batch, optimizer, gradient):
    objective = networks.objective(num_erasures=2, gradient=gradient, alignment="patches")
    state, step = networks.start(_model(4), objective, tx=mm.create_optimizer(optimizer, 0.1, weight_decay=0.1))
    after, metrics = jax.jit(step)(state, batch)
    assert np.isfinite(metrics["loss"]) and metrics["gradient_norm"] > 0
    assert state.batch_stats == after.batch_stats == {"whole": {}, "foreground": {}, "background": {}}
    jax.tree.map(np.testing.assert_array_equal, after.params["trunk"], state.params["trunk"])
    for head in ("localizer_head", "classifier_head"):
        for leaf in ("kernel", "bias"):
            before, now = (s.params[head]["modality_maps"][leaf] for s in (state, after))
            assert not np.array_equal(before, now)


def test_masks_get_gradients_through_the_frozen_trunk_and_nothing_else_is_differentiated():
    images, mask = draw_images(1, 56, 56), jnp.full((1, 56, 56, 1), 0.5)
    params = _state(0).params

    def loss(params, mask):
        return _model().apply({"params": params}, images, mask, method="classify").sum()

    assert np.abs(jax.jit(jax.grad(loss, 1))(params, mask)).max() > 0
    operations = [str(jax.make_jaxpr(f)(params, mask)) for f in (loss, jax.grad(loss))]
    for name in ("conv_general_dilated", "erfc ", "exp "):
        assert operations[0].count(name) == operations[1].count(name) > 0


def to_tensors(params, naming):
    """In the layout of the files, with names written down from DINOv2's and timm's code."""
    params, layers = params["frozen"], {"norm1": "norm1", "qkv": "attn.qkv", "projection": "attn.proj"}
    layers |= {"norm2": "norm2", "mlp1": "mlp.fc1", "mlp2": "mlp.fc2"}
    tensors = {"cls_token": params["class_token"], "pos_embed": params["position_embedding"]}
    if "register_tokens" in params:
        tensors[{"dinov2": "register_tokens", "timm": "reg_token"}[naming]] = params["register_tokens"]
        if naming == "timm":
            tensors["cls_token"] = params["class_token"] + params["position_embedding"][:, :1]
            tensors["pos_embed"] = params["position_embedding"][:, 1:]
    if naming == "dinov2":
        tensors["mask_token"] = np.zeros((1, WIDTH), np.float32)
    tensors["patch_embed.proj.weight"] = params["patch_embedding"]["kernel"].transpose(3, 2, 0, 1)
    tensors["patch_embed.proj.bias"] = params["patch_embedding"]["bias"]
    norms = {"norm": params["norm"]}
    for index in range(DEPTH):
        block = params[f"block{index}"]
        tensors |= {f"blocks.{index}.ls{n}.gamma": block[f"scale{n}"] for n in (1, 2)}
        norms |= {f"blocks.{index}.{name}": block[ours] for ours, name in layers.items()}
    for name, layer in norms.items():
        tensors[f"{name}.weight"] = layer["scale"] if "scale" in layer else layer["kernel"].T
        tensors[f"{name}.bias"] = layer["bias"]
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


@pytest.mark.parametrize("num_registers", [0, 4])
@pytest.mark.parametrize("naming", ["dinov2", "timm"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_of_both_layouts(tmp_path, suffix, naming, num_registers):
    wanted = draw_variables(num_registers)["params"]
    tensors, path = to_tensors(wanted, naming), tmp_path / f"vit{suffix}"
    if suffix == ".pth":
        path.write_bytes(torch_layout.write_zip(tensors))
    else:
        safetensors_numpy.save_file(tensors, path)
    state = _state(num_registers)
    found = interop.load_trunk(interop.read_tensors(path), state.variables, family=interop.vit)["params"]
    if naming == "timm" and num_registers:  # the class token has its position in it
        wanted = flax.traverse_util.flatten_dict(wanted)
        token, positions = ("frozen", "class_token"), ("frozen", "position_embedding")
        wanted[token] = wanted[token] + wanted[positions][:, :1]
        wanted[positions] = np.concatenate([0 * wanted[positions][:, :1], wanted[positions][:, 1:]], axis=1)
        wanted = flax.traverse_util.unflatten_dict(wanted)
    jax.tree.map(np.testing.assert_array_equal, found["trunk"], wanted)
    jax.tree.map(np.testing.assert_array_equal, found["localizer_head"], state.params["localizer_head"])
    images = draw_images(1, 28, 42)
    out = features(images, num_registers, {"params": found["trunk"]})
    np.testing.assert_allclose(out, features(images, num_registers), rtol=1e-4, atol=1e-5)


def test_files_of_another_network_are_named():
    state, tensors = _state(0), to_tensors(draw_variables(4)["params"], "dinov2")
    with pytest.raises(interop.InteropError, match="not in the model: register_tokens"):
        interop.load_trunk(tensors, state.variables, family=interop.vit)
    with pytest.raises(interop.InteropError, match="no name for .*params/trunk/frozen/block0"):
        interop.load_trunk(tensors, state.variables, family=interop.efficientnet_lite)
    for modules, leaf in ((("frozen", "block0", "other"), "kernel"), (("frozen", "other"), "bias"), ((), "other")):
        assert interop.vit.tensor_name(modules, leaf) is None


def _config(tmp_path, **changes):
    config = synthetic.get_config()
    small = {name: value for name, value in programs.TINY.items() if not name.startswith("model.resnet")}
    config.update_from_flattened_dict(small | {"model.trunk": "vit_small14", "mask.alignment": "patches"})
    config.update_from_flattened_dict({"train.epochs": 1, "train.average_decay": 0.9})
    config.model.pretrained = str(tmp_path / "vit.safetensors")
    config.update_from_flattened_dict(changes)
    safetensors_numpy.save_file(to_tensors(draw_variables()["params"], "dinov2"), tmp_path / "vit.safetensors")
    return config


@pytest.mark.parametrize("method", [pytest.param("minmax", marks=pytest.mark.slow), "wildcat"])
def test_a_whole_training_leaves_the_trunk_as_it_was(tmp_path, monkeypatch, method):
    monkeypatch.setitem(vit.TRUNKS, "vit_small14", SMALL)
    results = training.train_and_evaluate(_config(tmp_path, method=method), tmp_path / "run")
    assert results["test"]["num_images"] == 12
    saved = safetensors_numpy.load_file(tmp_path / "run" / "model.safetensors")
    expected = flax.traverse_util.flatten_dict({"params": {"trunk": draw_variables()["params"]}}, sep="/")
    for name, leaf in expected.items():
        np.testing.assert_allclose(saved[name], leaf, rtol=1e-6, err_msg=name)  # an average of equal numbers
    prediction = mm.load(tmp_path / "run")(np.zeros((1, 45, 60, 3), np.uint8))
    assert prediction.masks.shape == (1, 45, 60, 1)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"mask.alignment": "features"}, "mask.alignment='features' .*trunk='vit_small14' lie; set 'patches'"),
        ({"model.trunk": "resnet18"}, "mask.alignment='patches' .*trunk='resnet18' lie; set 'features'"),
        (
            {"model.pretrained": ""},
            "model.pretrained is empty.*'vit_small14' is not trained.*vits14_pretrain.pth",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, changes, message):
    with pytest.raises(errors.ConfigError, match=f"(?s){message}"):
        options_lib.read(_config(tmp_path, **changes), num_devices=1, num_local_devices=1)


def test_options_and_weights_of_other_trunks_are_refused(tmp_path):
    config = _config(tmp_path, **{"model.frozen_norm": True})
    with pytest.raises(ValueError, match="frozen_norm=True .*not vit_small14"):
        options_lib.read(config)
    config.model.frozen_norm = False
    config.model.pretrained = str(tmp_path / "absent.pth")
    with pytest.raises(errors.ConfigError, match="(?s)There is no file .*dinov2_vits14_reg4_pretrain.pth"):
        creation.load_pretrained(options_lib.read(config).model, None)
    config.model.pretrained = "imagenet"
    with pytest.raises(errors.ConfigError, match="No package has ImageNet weights of vit_small14"):
        creation.load_pretrained(options_lib.read(config).model, None)
