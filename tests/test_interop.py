"""State dicts of the published layout and of torchvision, and the files that hold them."""

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import minmax_jax as mm
from minmax_jax import interop
from minmax_jax.models import mask_head
from minmax_jax.runs.building import creation
from minmax_jax.runs.building import options as options_lib
from minmax_jax.runs.building.run import build_run
from tests import networks, torch_layout

NUM_CLASSES, MODALITIES = 3, 2


@functools.cache
def _variables(*, stem="deep", shared=False, separate=False, **heads):
    def trunk():
        return mm.ResNet(stage_sizes=(2, 1), stage_strides=(1, 2), width=4, stem=stem)

    model = mm.create_model(
        trunk(),
        num_classes=NUM_CLASSES,
        head=networks.wildcat(modalities=MODALITIES),
        classifier_trunk=trunk() if separate else None,
        **heads,
    )
    state, _ = networks.start(model, mm.Objective(), shared_statistics=shared)
    return state.variables


def _shapes(stem):
    """Names and shapes of the trunk of `_variables`, written down from the layout of PyTorch's residual networks."""
    shapes = {}

    def add(conv, norm, out, in_, window):
        shapes[f"{conv}.weight"] = (out, in_, window, window)
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{name}"] = (out,)
        shapes[f"{norm}.num_batches_tracked"] = ()

    if stem == "deep":
        add("conv1", "bn1", 4, 3, 3)
        add("conv2", "bn2", 4, 4, 3)
        add("conv3", "bn3", 8, 4, 3)
        add("layer1.0.conv1", "layer1.0.bn1", 4, 8, 3)
        add("layer1.0.downsample.0", "layer1.0.downsample.1", 4, 8, 1)
    else:
        add("conv1", "bn1", 4, 3, 7)
        add("layer1.0.conv1", "layer1.0.bn1", 4, 4, 3)
    add("layer1.0.conv2", "layer1.0.bn2", 4, 4, 3)
    add("layer1.1.conv1", "layer1.1.bn1", 4, 4, 3)
    add("layer1.1.conv2", "layer1.1.bn2", 4, 4, 3)
    add("layer2.0.conv1", "layer2.0.bn1", 8, 4, 3)
    add("layer2.0.conv2", "layer2.0.bn2", 8, 8, 3)
    add("layer2.0.downsample.0", "layer2.0.downsample.1", 8, 4, 1)
    return shapes


def _published_shapes():
    channels = NUM_CLASSES * MODALITIES
    heads = {f"{head}.to_modalities": channels for head in ("headseg", "cl32")}
    return (
        {"sigma": (1,), "w": (1,)}
        | _shapes("deep")
        | {f"{head}.weight": (out, 8, 1, 1) for head, out in heads.items()}
        | {f"{head}.bias": (out,) for head, out in heads.items()}
    )


def _draw(shapes):
    rng = np.random.default_rng(0)
    return {
        name: np.int64(7) if name.endswith("tracked") else rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def _assert_equal(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_published_names_and_shapes():
    tensors = interop.to_published(_variables(shared=True))
    assert {name: np.shape(tensor) for name, tensor in tensors.items()} == _published_shapes()


def test_values_go_where_they_belong():
    tensors = _draw(_published_shapes())
    found = interop.from_published(tensors, _variables())
    params, batch_stats = found.variables["params"], found.variables["batch_stats"]
    kernel = params["trunk"]["stage1_block1"]["conv1"]["kernel"]
    assert kernel.shape == (3, 3, 8, 4)
    assert kernel[0, 2, 5, 1] == tensors["layer1.0.conv1.weight"][1, 5, 0, 2]
    # Class 2's modality 1 is channel 2 * 2 + 1.
    head = params["localizer_head"]["modality_maps"]
    assert head["kernel"][6, 5] == tensors["headseg.to_modalities.weight"][5, 6, 0, 0]
    _assert_equal(params["classifier_head"]["modality_maps"]["bias"], tensors["cl32.to_modalities.bias"])
    _assert_equal(params["trunk"]["stem_norm3"]["scale"], tensors["bn3.weight"])
    _assert_equal(params["trunk"]["stage2_block1"]["shortcut_norm"]["bias"], tensors["layer2.0.downsample.1.bias"])
    for stream in ("whole", "foreground", "background"):
        statistics = batch_stats[stream]["trunk"]["stage1_block2"]["norm2"]
        _assert_equal(statistics["mean"], tensors["layer1.1.bn2.running_mean"])
        _assert_equal(statistics["var"], tensors["layer1.1.bn2.running_var"])
    assert (found.sigma, found.omega) == (tensors["sigma"][0], tensors["w"][0])


def test_round_trip_is_exact():
    tensors = _draw(_published_shapes())
    found = interop.from_published(tensors, _variables(shared=True))
    again = interop.to_published(found.variables, sigma=found.sigma, omega=found.omega)
    counters = {name for name in tensors if name.endswith("tracked")}
    assert again.keys() == tensors.keys()
    _assert_equal(*({name: d[name] for name in tensors.keys() - counters} for d in (again, tensors)))
    _assert_equal(interop.from_published(again, _variables(shared=True)).variables, found.variables)


def test_variables_share_no_memory_with_the_state_dict():
    tensors = _draw(_published_shapes())
    found = interop.from_published(tensors, _variables())
    before = jax.tree.map(np.array, found.variables)
    for tensor in tensors.values():
        if tensor.shape:
            tensor += 1
    _assert_equal(found.variables, before)


def test_of_several_streams_the_named_one_is_written():
    variables = jax.tree.map(np.array, _variables())
    variables["batch_stats"]["background"]["trunk"]["stem_norm1"]["mean"] += 3.0
    assert interop.to_published(variables)["bn1.running_mean"].max() == 0
    assert interop.to_published(variables, stream="background")["bn1.running_mean"].min() == 3


@pytest.mark.parametrize("stem", ["deep", "plain"])
def test_trunks_are_replaced_and_heads_are_not(stem):
    tensors = _draw(_shapes(stem) | {"fc.weight": (1000, 8), "fc.bias": (1000,)})
    before = _variables(stem=stem, separate=True, mask_head=mask_head.MaskHead(width=4))
    after = interop.load_trunk(tensors, before)
    for trunk in ("trunk", "classifier_trunk"):
        kernel = after["params"][trunk]["stem_conv1"]["kernel"]
        _assert_equal(kernel, tensors["conv1.weight"].transpose(2, 3, 1, 0))
        for stream in after["batch_stats"].values():
            _assert_equal(stream[trunk]["stem_norm1"]["var"], tensors["bn1.running_var"])
    for head in ("localizer_head", "classifier_head", "mask_head"):
        _assert_equal(after["params"][head], before["params"][head])


def test_a_published_checkpoint_can_start_another_number_of_classes():
    tensors = _draw(_published_shapes() | {"headseg.to_modalities.weight": (400, 8, 1, 1)})
    after = interop.load_trunk(tensors, _variables())
    _assert_equal(after["params"]["trunk"]["stem_norm2"]["bias"], tensors["bn2.bias"])


def test_all_that_does_not_fit_is_named():
    shapes = _published_shapes() | {"layer3.0.conv1.weight": (1,), "conv2.weight": (4, 4, 5, 5)}
    del shapes["bn1.bias"], shapes["w"]
    with pytest.raises(interop.InteropError) as error:
        interop.from_published(_draw(shapes), _variables())
    message = str(error.value)
    assert "missing: bn1.bias, w; " in message
    assert "not in the model: layer3.0.conv1.weight; " in message
    assert "of another shape: conv2.weight (4, 4, 5, 5) instead of (4, 4, 3, 3)" in message


def test_a_trunk_must_fit_whole():
    with pytest.raises(interop.InteropError, match="missing: .*conv2.weight.*of another shape: .*conv1.weight"):
        interop.load_trunk(_draw(_shapes("plain")), _variables())
    with pytest.raises(interop.InteropError, match="not in the model: decoder.weight"):
        interop.load_trunk(_draw(_shapes("deep") | {"decoder.weight": (1,)}), _variables())


def test_what_the_layout_cannot_hold_is_refused():
    with pytest.raises(interop.InteropError, match="no name for .*params/classifier_trunk/stem_conv1/kernel"):
        interop.to_published(_variables(separate=True))
    state, _ = networks.start(networks.tiny_model(), mm.Objective())
    with pytest.raises(interop.InteropError, match="no name for .*params/trunk/conv/bias"):
        interop.load_trunk({}, state.variables)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
def test_files_give_their_tensors(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    tensors = {"module.conv1.weight": np.float16([1.5, -2]), "bn1.num_batches_tracked": np.array(3)}
    if suffix == ".npz":
        np.savez(path, **tensors)
    elif suffix == ".safetensors":
        safetensors_numpy.save_file(tensors, path)
    else:
        path.write_bytes(torch_layout.write_zip({"epoch": 3, "state_dict": tensors}))
    found = interop.read_tensors(path)
    assert set(found) == {"conv1.weight", "bn1.num_batches_tracked"}
    assert found["conv1.weight"].dtype == np.float32 and found["conv1.weight"].tolist() == [1.5, -2]


def test_safetensors_of_reduced_precision(tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors_numpy.save_file({"a": np.asarray([1.5, -2], jnp.bfloat16)}, path)
    found = interop.read_tensors(path)["a"]
    assert found.dtype == np.float32 and found.tolist() == [1.5, -2]
    safetensors_numpy.save_file({"a": np.asarray([1.5, np.nan], jnp.bfloat16)}, path)
    with pytest.raises(interop.InteropError, match="infinite or not a number in: a"):
        interop.read_tensors(path)
    header = b'{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(2))
    with pytest.raises(interop.InteropError, match="weights.safetensors is not a complete safetensors file"):
        interop.read_tensors(path)


@pytest.mark.parametrize("suffix, kind", [(".npz", "NumPy archive"), (".safetensors", "safetensors file")])
@pytest.mark.parametrize("content", ["half", "text", "empty"])
def test_damaged_files_are_named(tmp_path, suffix, kind, content):
    path = tmp_path / f"weights{suffix}"
    tensors = {"a": np.zeros(1000, np.float32)}
    np.savez(path, **tensors) if suffix == ".npz" else safetensors_numpy.save_file(tensors, path)
    whole = path.read_bytes()
    path.write_bytes({"half": whole[: len(whole) // 2], "text": b"<html>404</html>", "empty": b""}[content])
    with pytest.raises(interop.InteropError, match=f"{path.name} is not a complete {kind}"):
        interop.read_tensors(path)


def test_damaged_and_unsafe_checkpoints_are_named(tmp_path):
    path = tmp_path / "weights.pth"
    runs = torch_layout.Call(torch_layout.Global("os", "system"), "true")
    for content in (b"<html>404</html>", torch_layout.write_zip({"state_dict": {"a": runs}})):
        path.write_bytes(content)
        with pytest.raises(interop.InteropError, match="is not a complete PyTorch checkpoint of plain tensors"):
            interop.read_tensors(path)
    path.write_bytes(torch_layout.write_old({"epoch": 3}))
    with pytest.raises(interop.InteropError, match="holds no state dict"):
        interop.read_tensors(path)


class Runs:
    """Calls a function when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("The checkpoint ran code.",)


def test_pickles_in_an_archive_are_refused(tmp_path):
    np.savez(tmp_path / "weights.npz", a=np.array([Runs()], object))
    with pytest.raises(interop.InteropError, match="is not a complete NumPy archive"):
        interop.read_tensors(tmp_path / "weights.npz")


def test_values_that_are_not_finite_are_named(tmp_path):
    np.savez(tmp_path / "weights.npz", good=np.ones(2), bad=np.array([1, np.nan]), worse=np.array(np.inf))
    with pytest.raises(interop.InteropError, match="not a number in: bad, worse"):
        interop.read_tensors(tmp_path / "weights.npz")


def test_names_that_hold_a_checksum_are_checked(tmp_path, monkeypatch):
    monkeypatch.setattr("minmax_jax.interop.tensor_files._read_checkpoint", lambda path: {"a": np.ones(1)})
    digest = hashlib.sha256(b"content").hexdigest()
    good, bad = tmp_path / f"resnet18-{digest[:8]}.pth", tmp_path / "resnet18-00000000.pth"
    good.write_bytes(b"content")
    bad.write_bytes(b"content")
    assert interop.read_tensors(good)["a"] == 1
    with pytest.raises(interop.InteropError, match=f"has SHA-256 {digest}, its name says 00000000"):
        interop.read_tensors(bad)


def test_absent_and_unknown_files_are_refused(tmp_path):
    with pytest.raises(interop.InteropError, match="There is no file"):
        interop.read_tensors(tmp_path / "resnet101-imagenet.pth")
    (tmp_path / "weights.h5").touch()
    with pytest.raises(interop.InteropError, match="must end with one of"):
        interop.read_tensors(tmp_path / "weights.h5")


@pytest.mark.parametrize("average_decay", [0.0, 0.9])
def test_training_starts_from_the_file(tmp_path, average_decay):
    from minmax_jax.configs import synthetic

    config = synthetic.get_config()
    config.data.num_train = config.data.num_validation = config.data.num_test = 8
    config.train.average_decay = average_decay
    config.model.resnet.width, config.model.resnet.stage_sizes, config.model.resnet.stage_strides = 4, (2, 1), (1, 2)
    tensors = _draw(_shapes("deep"))
    np.savez(tmp_path / "trunk.npz", **tensors)
    config.model.pretrained = str(tmp_path / "trunk.npz")
    state = creation.load_pretrained(options_lib.read(config).model, build_run(config).state)
    for variables in filter(None, (state.variables, state.average)):
        _assert_equal(variables["params"]["trunk"]["stem_norm1"]["scale"], tensors["bn1.weight"])


def test_a_bad_file_stops_the_program_before_it_writes(tmp_path):
    from minmax_jax.configs import synthetic

    from minmax_jax.runs import training

    config = synthetic.get_config()
    config.data.num_train = config.data.num_validation = config.data.num_test = 8
    config.model.pretrained = str(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match="config.model.pretrained='.*absent.npz': There is no file"):
        training.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # What is left of a first save that was killed is no checkpoint to resume from.
    (tmp_path / "run/checkpoints/2.orbax-checkpoint-tmp").mkdir(parents=True)
    with pytest.raises(ValueError, match="config.model.pretrained='.*absent.npz': There is no file"):
        training.train_and_evaluate(config, tmp_path / "run")


def test_a_resumed_run_does_not_need_the_file_any_more(tmp_path):
    from minmax_jax.configs import synthetic

    from minmax_jax.runs import training
    from tests import programs

    # A variance below 0 would give a model that predicts no numbers.
    np.savez(tmp_path / "trunk.npz", **{name: abs(tensor) for name, tensor in _draw(_shapes("deep")).items()})
    config = synthetic.get_config()
    config.update_from_flattened_dict(programs.TINY | {"train.epochs": 1})
    config.model.resnet.stage_sizes, config.model.resnet.stage_strides = (2, 1), (1, 2)
    config.model.pretrained = str(tmp_path / "trunk.npz")
    results = training.train_and_evaluate(config, tmp_path / "run")
    (tmp_path / "trunk.npz").unlink()
    (tmp_path / "run" / "results.json").unlink()
    assert training.train_and_evaluate(config, tmp_path / "run")["state_digest"] == results["state_digest"]
