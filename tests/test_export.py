"""Files of models: the same answers as the model's own, for every kind of network, checked before they are kept."""

import dataclasses
import datetime
import hashlib
import os
import pathlib
import subprocess
import sys
import textwrap
from unittest import mock

import jax.numpy as jnp
import numpy as np
import onnxruntime
from PIL import Image
import pytest

import minmax_jax as mm
from minmax_jax.base.errors import OptionError, UserError
from minmax_jax.export import calibrations, model_files, onnx_file, stablehlo, verification
from minmax_jax.models import vit
from minmax_jax.refinement import calibration
from minmax_jax.runs import predictor
from tests import programs, saved_models

SIZE = (64, 45)  # of which 45 is padded to 64
_REFINED = {"refine__enabled": True}
_NETWORKS = {
    "resnet": {},
    "separate trunks, mirror images, sizes": {
        "model__separate_trunks": True,
        "evaluation__flips": True,
        "evaluation__scales": (1.0, 1.5),
    },
    "resnet50, corners": {
        "model__trunk": "resnet50",
        "model__resnet__stage_sizes": (1, 1, 1, 1),
        "model__resnet__stage_strides": (1, 2, 2, 2),
        "mask__alignment": "corners",
    },
    "plain stem, lowest values, bfloat16, rematerialised": {
        "model__resnet__stem": "plain",
        "model__alpha": 0.5,
        "model__dtype": "bfloat16",
        "model__remat": True,
    },
    "wildcat, second stage": {"method": "wildcat", "evaluation__flips": True, **_REFINED},
    "cam, second stage": {"method": "cam", **_REFINED},
    "mask head, percentiles, second stage as it is": {
        "mask__range": "percentiles",
        "mask__gradient": "flow",
        "model__mask_head": True,
        "refine__calibration": "none",
        **_REFINED,
    },
    "efficientnet, second stage": {
        "model__trunk": "efficientnet_lite0",
        "model__output_stride": 16,
        "model__resnet__stage_sizes": (),
        **_REFINED,
    },
    "vision transformer, patches": {
        "model__trunk": "vit_small14",
        "model__pretrained": "dinov2.pth",
        "mask__alignment": "patches",
        **_REFINED,
    },
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A folder with the first of the networks."""
    folder = tmp_path_factory.mktemp("workdir")
    saved_models.write(folder)
    return folder


@pytest.fixture
def small_transformer(monkeypatch):
    """ViT-S/14 of one narrow block."""
    small = dataclasses.replace(vit.vit_small14(), width=16, depth=1, num_heads=2, grid=4)
    monkeypatch.setitem(vit.TRUNKS, "vit_small14", lambda dtype: dataclasses.replace(small, dtype=dtype))


def _write(workdir, folder, format="onnx", *, size=SIZE, **options):
    folder.mkdir(exist_ok=True)
    return model_files.write(workdir, folder / f"model.{format}", format=format, size=size, **options)


def _images(number, size=SIZE):
    """Smooth noise, other than that of the check."""
    rng = np.random.default_rng(9)
    coarse = rng.integers(0, 256, (number, 6, 5, 3), np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)) for image in coarse]
    )


def _run_onnx(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images.astype(np.float32) / 127.5 - 1})))


_QUICK = ("cam, second stage", "mask head, percentiles, second stage as it is", "vision transformer, patches")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in _QUICK else [pytest.mark.slow]) for name in _NETWORKS]
)
def test_every_network_answers_from_onnx_as_by_itself(tmp_path, small_transformer, name):
    saved_models.write(tmp_path / "run", **_NETWORKS[name])
    written = _write(tmp_path / "run", tmp_path / "out")
    images = _images(1)
    results = _run_onnx(written["file"], images)
    prediction = predictor.load(tmp_path / "run", dtype="float32")(images)
    has_classifier = _NETWORKS[name].get("method", "minmax") == "minmax"
    entropies = ["foreground_entropy", "background_entropy"] if has_classifier else []
    assert list(results) == ["probabilities", "masks", *entropies]
    np.testing.assert_allclose(results["probabilities"], prediction.probabilities, atol=1e-4)
    np.testing.assert_allclose(results["masks"], prediction.masks, atol=1e-4)
    assert results["masks"].shape == (1, *SIZE, 1) and np.ptp(results["masks"]) > 0.1
    for entropy in entropies:
        np.testing.assert_allclose(results[entropy], prediction.scores[entropy], atol=1e-4)
    assert set(written["differences"]) == set(results) and max(written["differences"].values()) < 1e-4


_ANY_SIZE = ("resnet", "mask head, percentiles, second stage as it is", "resnet50, corners")
_ANY_SIZE += ("efficientnet, second stage", "wildcat, second stage")


@pytest.mark.parametrize("format", model_files.FORMATS)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "resnet" else [pytest.mark.slow]) for name in _ANY_SIZE]
)
def test_one_file_for_images_of_any_size(tmp_path, name, format):
    """Compared at sizes other than those that the export compares."""
    saved_models.write(tmp_path / "run", **_NETWORKS[name])
    written = _write(tmp_path / "run", tmp_path / "out", format, size=None)
    assert (
        f"| `model.{format}` |" in (card := (tmp_path / "out/MODEL_CARD.md").read_text()) and "| [B, H, W, 3] |" in card
    )
    run = model_files.FORMATS[format].read(pathlib.Path(written["file"]))
    model = predictor.load(tmp_path / "run", dtype="float32")
    for size in ((33, 130), (96, 32)):
        images = _images(2, size)
        results, prediction = run(images.astype(np.float32) / 127.5 - 1), model(images)
        assert results["masks"].shape == (2, *size, 1)
        np.testing.assert_allclose(results["masks"], prediction.masks, atol=1e-4)
        np.testing.assert_allclose(results["probabilities"], prediction.probabilities, atol=1e-4)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"evaluation__scales": (1.0, 1.5)}, "scales=1,1.5 are rounded for one size .scales=1 leaves them out"),
        (
            {"model__trunk": "vit_small14", "model__pretrained": "dinov2.pth", "mask__alignment": "patches"},
            "trunk='vit_small14' resizes its position",
        ),
        ({"model__classifier_scale": 0.7}, "classifier_scale=0.7 of a free side has no exact form"),
        ({"model__k_max": 0.1234}, "a share of 0.1234 of a free number of locations has no exact form"),
    ],
)
def test_models_that_need_one_size_say_why(tmp_path, small_transformer, changes, message):
    saved_models.write(tmp_path / "run", **changes)
    with pytest.raises(
        OptionError, match=f"size=any has no form for this model: {message}.*Give H,W, one file for each"
    ):
        _write(tmp_path / "run", tmp_path / "out", size=None)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_jax_cannot_trace_without_a_size_is_refused(workdir, tmp_path, monkeypatch):
    def write(path, network, size, metadata):
        return onnx_file.write(path, lambda images: network(images) if images.shape[1] < 50 else None, size, metadata)

    monkeypatch.setattr(model_files, "FORMATS", {"onnx": mock.Mock(wraps=onnx_file, write=write)})
    with pytest.raises(OptionError, match="size=any has no form for this model: JAX cannot trace it .*Give H,W"):
        _write(workdir, tmp_path, size=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["resnet", "wildcat, second stage"])
def test_stablehlo_is_read_by_jax_alone(tmp_path, name):
    """In another process, which imports neither this library nor Flax; two numbers of images."""
    saved_models.write(tmp_path / "run", **_NETWORKS[name])
    written = _write(tmp_path / "run", tmp_path / "out", "stablehlo")
    images = _images(2)
    np.save(tmp_path / "images.npy", images)
    program = f"""
        import sys
        import numpy as np
        from jax import export
        with open({written["file"]!r}, "rb") as file:
            model = export.deserialize(bytearray(file.read()))
        images = np.load({str(tmp_path / "images.npy")!r}).astype(np.float32) / 127.5 - 1
        results = model.call(images)
        np.savez({str(tmp_path / "results.npz")!r}, first=model.call(images[:1])["masks"], **results)
        assert model.platforms == ("cpu", "cuda", "tpu"), model.platforms
        assert "custom_call @minmax" not in model.mlir_module() and ".py" not in model.mlir_module()
        assert not {{"minmax_jax", "flax", "orbax"}} & {{name.partition(".")[0] for name in sys.modules}}
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, cwd=tmp_path)
    results, prediction = np.load(tmp_path / "results.npz"), mm.load(tmp_path / "run")(images)
    np.testing.assert_allclose(results["probabilities"], prediction.probabilities, atol=1e-4)
    np.testing.assert_allclose(results["masks"], prediction.masks, atol=1e-4)
    np.testing.assert_allclose(results["first"], prediction.masks[:1], atol=1e-4)
    assert ("foreground_entropy" in results) == (name == "resnet")
    content = pathlib.Path(written["file"]).read_bytes()
    # Nothing of the machine that wrote it.
    for path in (programs.ROOT, pathlib.Path(sys.prefix), pathlib.Path.home(), tmp_path):
        assert str(path).encode() not in content
    until = datetime.date.fromisoformat(written["guaranteed_until"])
    assert 181 <= (until - datetime.date.today()).days <= 182
    assert f"JAX may refuse the file after {until}" in (tmp_path / "out/MODEL_CARD.md").read_text()


def test_choices_at_test_time(tmp_path):
    """Mirror images and the second stage can be left out."""
    saved_models.write(tmp_path / "run", evaluation__flips=True, **_REFINED)
    options = dict(flips=False, refine=False)
    written = _write(tmp_path / "run", tmp_path / "out", **options)
    images = _images(1)
    masks = _run_onnx(written["file"], images)["masks"]
    np.testing.assert_allclose(masks, mm.load(tmp_path / "run", **options)(images).masks, atol=1e-4)
    card = (tmp_path / "out/MODEL_CARD.md").read_text()
    assert "mirror images: none; sizes: 1; second stage: no" in card


@pytest.mark.parametrize("name", calibrations.CALIBRATIONS)
@pytest.mark.parametrize("size", [(64, 64), (100, 37)])
def test_calibrations_are_those_of_the_second_stage(name, size):
    rng = np.random.default_rng(0)
    masks = np.stack(
        [
            np.asarray(
                Image.fromarray(rng.normal(size=(6, 5)).astype(np.float32)).resize(size[::-1], Image.Resampling.BICUBIC)
            )
            for _ in range(20)
        ]
    )
    masks = (1 / (1 + np.exp(-masks * rng.uniform(0.01, 4, (20, 1, 1))))).astype(np.float32)
    masks[0], masks[1] = 0.3, np.where(masks[1] > 0.5, 0.52, 0.5)  # constant, and of two values
    masks[2] = np.eye(*size)
    result = np.asarray(calibrations.CALIBRATIONS[name](jnp.asarray(masks[..., None])))[..., 0]
    expected = np.stack([calibration.CALIBRATIONS[name](mask) for mask in masks])
    np.testing.assert_allclose(result, expected, atol=1e-5)


# The check.


def _answers(number):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), number)
    return {"probabilities": probabilities, "masks": rng.random((number, 64, 45, 1)), "entropy": rng.random(number)}


def _check(change, expected):
    """Differences of changed answers, which are given in the order of the images."""
    given = iter(np.split(np.arange(4), np.cumsum(verification.BATCHES)[:-1]))

    def run(images):
        assert images.dtype == np.float32 and np.abs(images).max() <= 1
        rows = next(given)
        assert len(rows) == len(images)
        return change({name: values[rows] for name, values in expected.items()})

    return verification.check(run, verification.random_images(SIZE, number=4), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r | {"masks": r["masks"] + 2e-4}, "differs from the model: masks by 0.0002; 0.0001 is allowed"),
        (lambda r: r | {"entropy": r["entropy"] * np.nan}, "entropy by inf"),
        (lambda r: r | {"probabilities": r["probabilities"][:, ::-1]}, "names another class than the model for"),
        (lambda r: r | {"masks": r["masks"][:, 1:]}, r"the file has masks\[1, 63, 45, 1\], the model \[1, 64, 45, 1\]"),
    ],
)
def test_answers_that_differ_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        _check(change, _answers(4))


def test_a_class_may_differ_where_two_are_equally_probable():
    expected = _answers(4) | {"probabilities": np.tile([0.3, 0.35, 0.35], (4, 1))}
    found = _check(lambda r: r | {"probabilities": r["probabilities"] + [0, 0, 3e-5]}, expected)
    assert found["probabilities"] == pytest.approx(3e-5) and found["masks"] == 0


def test_random_images_are_noise_and_smooth_noise():
    noise, smooth = verification.random_images(SIZE, number=2).astype(float)
    assert noise.shape == smooth.shape == (*SIZE, 3)
    assert np.abs(np.diff(noise, axis=1)).mean() > 60 > 20 > np.abs(np.diff(smooth, axis=1)).mean()
    assert noise.std() > 60 and smooth.std() > 30


def test_a_file_that_says_something_else_is_not_kept(workdir, tmp_path, monkeypatch):
    write = onnx_file.write

    def write_another(path, network, *arguments):
        write(path, lambda images: network(images) | {"masks": 1 - network(images)["masks"]}, *arguments)

    monkeypatch.setattr(onnx_file, "write", write_another)
    with pytest.raises(UserError, match="differs from the model: masks by"):
        _write(workdir, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_export_leaves_nothing(workdir, tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(verification, "check", stop)
    with pytest.raises(KeyboardInterrupt):
        _write(workdir, tmp_path)
    assert list(tmp_path.iterdir()) == []


# What cannot be exported.


@pytest.mark.parametrize("size", [(31, 64), (64, 2049), (64,), (64, 64, 64), (), (0, 64), (-64, 64)])
def test_sizes_that_no_file_can_have(workdir, tmp_path, size):
    with pytest.raises(OptionError, match=f"size={','.join(map(str, size))} must be H,W: two whole numbers"):
        _write(workdir, tmp_path, size=size)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("none/model.onnx", "the folder .*none' does not exist"),
        ("there", "there' exists already"),
        ("folder", "folder' exists already"),
        ("MODEL_CARD.md", "is the name of what describes the file"),
        ("rdf.yaml", "is the name of what describes the file"),
    ],
)
def test_files_that_cannot_be_written(workdir, tmp_path, output, message):
    (tmp_path / "there").write_text("kept")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OptionError, match=message):
        model_files.write(workdir, tmp_path / output, format="onnx", size=SIZE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "there"]
    assert (tmp_path / "there").read_text() == "kept"


def test_unknown_formats_and_folders_without_a_model(workdir, tmp_path):
    with pytest.raises(OptionError, match="format='tflite' must be one of"):
        _write(workdir, tmp_path, "tflite")
    with pytest.raises(UserError, match="holds no saved model"):
        _write(tmp_path / "none", tmp_path)


@pytest.mark.parametrize(
    ("module", "package", "extra"), [(onnx_file, "onnxruntime", "onnx"), (stablehlo, "flatbuffers", "stablehlo")]
)
def test_a_missing_package_is_named_with_its_command(monkeypatch, module, package, extra):
    find = module.importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(UserError, match=rf"pip install 'minmax_jax\[{extra}\]'"):
        module.check_installed()


def test_a_machine_whose_cpu_is_left_out(workdir, tmp_path, monkeypatch):
    def find(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(model_files.jax, "local_devices", find)
    with pytest.raises(UserError, match="JAX_PLATFORMS leaves out. Add it at the end, as in JAX_PLATFORMS=cuda,cpu"):
        _write(workdir, tmp_path)


def _start(*flags, **variables):
    """The program in a process of its own, with changed variables of the environment."""
    environment = os.environ | {"PYTHONWARNINGS": "error"} | variables
    command = [sys.executable, "-m", "experiments.export", *flags]
    return subprocess.run(command, cwd=programs.ROOT, capture_output=True, text=True, env=environment)


def test_from_the_command_line(workdir, tmp_path):
    flags = [f"--workdir={workdir}", "--size=64,45", f"--output={tmp_path}/model"]
    done = programs.run("export", *flags, "--format=stablehlo")
    assert done.returncode == 0, done.stderr
    path = pathlib.Path(tmp_path, "model")
    assert hashlib.sha256(path.read_bytes()).hexdigest() in done.stdout
    assert "Maximum differences from the model on random images: probabilities" in done.stdout
    assert "JAX may refuse the file after 20" in done.stdout


@pytest.mark.parametrize("variable", ["JAX_PLATFORMS", "JAX_PLATFORM_NAME"])
def test_a_platform_that_is_not_there_is_named_with_those_that_are(workdir, tmp_path, variable):
    flags = [f"--workdir={workdir}", "--size=64,45", f"--output={tmp_path}/model", "--format=stablehlo"]
    done = _start(*flags, **{"JAX_PLATFORMS": "", variable: "cuda,rocm" if variable == "JAX_PLATFORMS" else "rocm"})
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert f"Error: {variable}='" in error and "rocm' names a platform that is not there." in error
    assert f"This machine has: cpu. Set {variable} to one of these, or unset it" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format=tflite", "--size=64,64"], "tflite"),
        (["--format=onnx", "--size=64x64"], "--size=64x64 must be H,W"),
        (["--format=onnx", "--size=64"], "--size=64 must be H,W"),
        (["--format=onnx"], "--size"),
    ],
)
def test_flags_that_cannot_be_used(workdir, tmp_path, flags, message):
    done = programs.run("export", f"--workdir={workdir}", f"--output={tmp_path}/model", *flags)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert message in error and list(tmp_path.iterdir()) == []
