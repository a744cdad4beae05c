"""The second stage in whole programs: after training, on a finished run, interrupted, and what is refused."""

import errno
import json
import shutil

from minmax_jax.configs import synthetic
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import minmax_jax as mm
from minmax_jax.base.errors import OptionError
from minmax_jax.refinement import decoder_training
from minmax_jax.runs import dry_run, estimate, faithfulness_test, final_test, finished_runs, training
from minmax_jax.runs.building import data_splits, methods
from minmax_jax.runs.building import options as options_lib
from minmax_jax.runs.drawing import pictures
from minmax_jax.runs.folder import model_card
from minmax_jax.runs.folder.model_card import MODEL
from minmax_jax.runs.folder.workdir import WorkdirError
from tests import programs, splits, test_method

# Padding of 41 to 64 pixels, and mirror images.
_CHANGES = {
    "train.epochs": 2,
    "data.synthetic.image_size": 41,
    "evaluation.flips": True,
    "refine.num_steps": 12,
    "refine.scales": (1.0,),
}
_F1 = {"f1_foreground", "f1_background"}


def _config(**changes):
    config = synthetic.get_config()
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    config.update_from_flattened_dict(programs.TINY | _CHANGES | changes)
    return config


def _read(path):
    return json.loads(path.read_text())


def _tensors(folder):
    return safetensors_numpy.load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def plain(once):
    """(workdir, results) of a run without a second stage; read only."""
    return once("plain", lambda folder: training.train_and_evaluate(_config(), folder))


@pytest.fixture(scope="module")
def refined(once, tmp_path_factory):
    """(workdir, results) of the same run with one, a copy."""
    folder, found = once("refined", lambda folder: training.train_and_evaluate(_config(refine__enabled=True), folder))
    return shutil.copytree(folder, tmp_path_factory.mktemp("refined") / "run"), found


@pytest.fixture
def copy(request, tmp_path):
    """A copy of the workdir of a fixture, and its results."""
    folder, found = request.getfixturevalue(request.param)
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy", found


_of_plain = pytest.mark.parametrize("copy", ["plain"], indirect=True)
_of_refined = pytest.mark.parametrize("copy", ["refined"], indirect=True)


@pytest.fixture
def trainings(monkeypatch):
    """The seeds of the decoders that are trained while a test runs."""
    seeds, train = [], decoder_training.train

    def counting(*arguments, seed, **options):
        seeds.append(seed)
        return train(*arguments, seed=seed, **options)

    monkeypatch.setattr(decoder_training, "train", counting)
    return seeds


def test_a_run_with_a_second_stage_keeps_the_numbers_of_the_first(plain, refined):
    folder, found = refined
    assert _read(folder / "results.json") == found
    assert found["refine"] == _read(folder / "config.json")["refine"] and found["refine"]["enabled"]
    assert found["state_digest"] == plain[1]["state_digest"]
    assert found["test_unrefined"] == plain[1]["test"]
    changed = {name for name, value in found["test"].items() if value != found["test_unrefined"][name]}
    assert {"f1_background"} <= changed <= _F1
    assert "refine" not in plain[1] and "test_unrefined" not in plain[1]
    assert 0 < found["edge_weight_used"] <= found["refine"]["edge_weight"]
    assert _read(folder / "model_card.json")["edge_weight_used"] == found["edge_weight_used"]
    assert {name for name in _tensors(folder) if name.startswith("decoder/")} >= {"decoder/image/kernel"}
    assert len([path for path in (folder / "pictures").iterdir() if path.name.startswith("test_")]) == 2


def test_the_loaded_model_predicts_what_the_run_tested(refined, tmp_path):
    folder, _ = refined
    for name in ("model_card.json", "model.safetensors"):
        shutil.copy(folder / name, tmp_path / name)
    test = data_splits.create_splits(options_lib.read(_config()).data)["test"]
    prediction = mm.load(tmp_path)(np.stack([test.read_image(index) for index in range(len(test))]))
    assert prediction.masks.shape == (12, 41, 41, 1) and prediction.masks.dtype == np.float32
    for index, line in enumerate((folder / "predictions.jsonl").read_text().splitlines()):
        row, mask = json.loads(line), prediction.masks[index, ..., 0]
        np.testing.assert_allclose(row["probabilities"], prediction.probabilities[index], atol=1e-5)
        # Calibrated: the 5th and the 95th percentile are 0 and 1.
        np.testing.assert_allclose(np.percentile(mask, [5, 95]), [0, 1], atol=1e-4)
        predicted, true = mask >= 0.5, test.read_mask(index)
        dice = 2 * (predicted & true).sum() / (predicted.sum() + true.sum())
        assert row["f1_foreground"] == pytest.approx(dice, abs=0.01)


def test_evaluating_again_gives_the_numbers_of_either_stage(refined):
    folder, found = refined
    again = finished_runs.evaluate_workdir(folder, "test")
    assert again["test"] == found["test"] and again["refine"] == found["refine"]
    first = finished_runs.evaluate_workdir(folder, "test", refine=False)
    assert first["test"] == found["test_unrefined"] and "refine" not in first
    rows = [json.loads(line) for line in (folder / "predictions_test_norefine.jsonl").read_text().splitlines()]
    means = [100 * np.mean([row[name] for row in rows]) for name in sorted(_F1)]
    np.testing.assert_allclose(means, [first["test"][name] for name in sorted(_F1)], rtol=1e-6)
    assert finished_runs.evaluate_workdir(folder, "validation", refine=True)["validation"]["num_images"] == 8
    assert (folder / "predictions_validation_refine.jsonl").exists()
    with pytest.raises(OptionError, match="crf=True refines masks of the first stage, .*: add refine=False"):
        finished_runs.evaluate_workdir(folder, "test", crf=True)


@_of_refined
def test_a_run_that_has_no_decoder_yet_is_evaluated_as_what_it_is(copy):
    """Its configuration says that there will be one: a training is under way, or was killed."""
    folder, found = copy
    (folder / "model_card.json").unlink()
    again = finished_runs.evaluate_workdir(folder, "test")
    assert again["test"] == found["test_unrefined"] and "refine" not in again
    with pytest.raises(OptionError, match="has no second stage for this model: run minmax-jax refine"):
        finished_runs.evaluate_workdir(folder, "test", refine=True)


@_of_refined
def test_a_decoder_of_another_model_is_not_used(copy):
    folder, found = copy
    card = _read(folder / "model_card.json")
    (folder / "model_card.json").write_text(json.dumps(card | {"state_digest": "0" * 64}))
    assert finished_runs.evaluate_workdir(folder, "test")["test"] == found["test_unrefined"]


@_of_refined
def test_a_second_stage_that_was_not_finished_leaves_the_one_before(copy, monkeypatch):
    folder, found = copy
    before = _read(folder / "config.json")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(decoder_training, "train", _interrupt)
        finished_runs.refine_workdir(folder, {"num_steps": 99})
    assert _read(folder / "config.json") == before and _read(folder / "results.json") == found
    # A training command notes its configuration before it trains.
    (folder / "config.json").write_text(json.dumps(before | {"refine": before["refine"] | {"num_steps": 99}}))
    again = finished_runs.evaluate_workdir(folder, "test")
    assert again["test"] == found["test"] and again["refine"] == found["refine"]


@_of_refined
def test_a_full_disk_leaves_the_model_with_its_results(copy, monkeypatch):
    folder, found = copy
    model = (folder / MODEL).read_bytes()

    def fill(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(final_test.model_card, "save", fill)
        finished_runs.refine_workdir(folder, {"num_steps": 2})
    assert (folder / MODEL).read_bytes() == model and _read(folder / "results.json") == found


@_of_refined
def test_a_decoder_without_its_card_is_not_used(copy):
    """A second stage with other options was stopped between the two files."""
    folder, found = copy
    tensors = _tensors(folder)
    safetensors_numpy.save_file(tensors | {"decoder/image/kernel": tensors["decoder/image/kernel"] + 1}, folder / MODEL)
    assert finished_runs.evaluate_workdir(folder, "test")["test"] == found["test_unrefined"]


@_of_refined
def test_results_are_those_of_the_selected_model_with_pictures(copy, monkeypatch):
    folder, found = copy
    config = _config(refine__enabled=True)
    assert final_test.read_results(folder, options_lib.read(config), found["step"]) == found
    assert final_test.read_results(folder, options_lib.read(config), found["step"] + 1) is None
    (folder / "results.json").unlink()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pictures, "draw", _interrupt)
        training.train_and_evaluate(config, folder)
    assert not (folder / "results.json").exists()
    shutil.rmtree(folder / "gallery")
    assert training.train_and_evaluate(config, folder)["test"] == found["test"]
    assert (folder / "gallery").exists() and (folder / "report.html").exists()


@_of_refined
def test_other_data_do_not_replace_what_the_run_is(copy):
    """Nor do their rows stand next to its results."""
    folder, _ = copy
    digests = _read(folder / "data.json")
    digests["test"]["digest"] = "0" * 64
    (folder / "data.json").write_text(json.dumps(digests))
    before = {path: path.read_bytes() for path in folder.glob("*.json*")}
    with pytest.raises(WorkdirError, match="belongs to a run on other data: The test split has 12 images"):
        finished_runs.refine_workdir(folder, {"num_steps": 3})
    finished_runs.evaluate_workdir(folder, "test")
    assert {path: path.read_bytes() for path in folder.glob("*.json*")} == before


@_of_refined
def test_only_what_makes_its_masks_is_randomized(copy):
    content = faithfulness_test.test_workdir(copy[0], "test", num_images=2, num_steps=1)
    assert set(content["randomized"]) == {"decoder", "all"}
    assert content["randomized"]["decoder"]["rank_correlation"] < 0.999


@_of_plain
def test_a_finished_run_gets_a_second_stage(copy, refined, trainings):
    """The same as in a run that had it from the start; again with the same options nothing is trained."""
    folder, before = copy
    found = finished_runs.refine_workdir(folder, {})
    assert found["test"] == refined[1]["test"] and found["test_unrefined"] == before["test"]
    assert _read(folder / "results.json") == found and _read(folder / "config.json")["refine"]["enabled"]
    decoders = [{n: v for n, v in _tensors(f).items() if n.startswith("decoder/")} for f in (folder, refined[0])]
    assert decoders[0].keys() == decoders[1].keys()
    for name, values in decoders[0].items():
        np.testing.assert_array_equal(values, decoders[1][name])
    assert finished_runs.refine_workdir(folder, {}) | {"environment": 0} == found | {"environment": 0}
    assert trainings == [0]

    other = finished_runs.refine_workdir(folder, {"num_steps": 5, "scales": (1.0, 0.5), "calibration": "none"})
    assert trainings == [0, 0] and other["refine"]["num_steps"] == 5
    assert other["test"] != found["test"] and other["test_unrefined"] == before["test"]
    card = mm.load(folder).card
    assert card["refine"]["scales"] == [1.0, 0.5]
    # Neither predictions nor exported files of the two second stages may be taken for those of one model.
    first, second = model_card.identify(mm.load(refined[0]).card), model_card.identify(card)
    assert first["state_digest"] == second["state_digest"]
    assert len({first["second_stage_digest"], second["second_stage_digest"], ""}) == 3
    assert model_card.identify(mm.load(folder, refine=False).card) == {"state_digest": card["state_digest"]}


@_of_refined
def test_the_command_that_trains_decides_on_the_second_stage(copy, trainings, monkeypatch):
    """Finished as it is; without, of the first stage again; with it again, trained again, but no step of the first."""
    folder, found = copy
    records = (folder / "metrics.jsonl").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(final_test, "evaluate_split", None)
        assert training.train_and_evaluate(_config(refine__enabled=True), folder) == found
    without = training.train_and_evaluate(_config(), folder)
    assert without["test"] == found["test_unrefined"] and "test_unrefined" not in without and "refine" not in without
    assert not any(name.startswith("decoder/") for name in _tensors(folder)) and trainings == []
    assert not mm.load(folder).card["refine"]["enabled"] and not _read(folder / "config.json")["refine"]["enabled"]
    again = training.train_and_evaluate(_config(refine__enabled=True), folder)
    assert again["test"] == found["test"] and again["state_digest"] == found["state_digest"] and trainings == [0]
    assert (folder / "metrics.jsonl").read_text() == records


@_of_plain
def test_a_run_stopped_before_its_test_keeps_the_decoder(copy, refined, trainings, monkeypatch):
    """Stopped while the decoder learns, then in the test: trained once."""
    folder, before = copy
    (folder / "results.json").unlink()
    config = _config(refine__enabled=True)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="resume from step 4"):
        patch.setattr(decoder_training, "train", _interrupt)
        training.train_and_evaluate(config, folder)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(final_test, "evaluate_model", _interrupt)
        training.train_and_evaluate(config, folder)
    assert trainings == [0] and not (folder / "results.json").exists()
    found = training.train_and_evaluate(config, folder)
    assert trainings == [0] and found["test"] == refined[1]["test"] and found["test_unrefined"] == before["test"]


def _interrupt(*arguments, **options):
    raise KeyboardInterrupt


def test_a_method_without_a_trunk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(methods.METHODS, "minmax", test_method.ENTRY)
    config = _config(refine__enabled=True, train__epochs=1)
    with pytest.raises(OptionError, match=r"refine.enabled=True needs a trunk; config.method='minmax' has none"):
        training.train_and_evaluate(config, tmp_path)


@pytest.mark.slow
def test_images_that_are_not_square_and_of_several_shapes(tmp_path, monkeypatch):
    sizes = [(32, 64), (40, 33), (32, 32)] * 4
    found = {name: splits.make_split(sizes, num_classes=4) for name in ("train", "validation", "test")}
    monkeypatch.setattr(data_splits, "create_splits", lambda config: found)
    config = _config(refine__enabled=True, data__crop_size=32, train__epochs=1, refine__scales=(1.0, 1.5))
    results = training.train_and_evaluate(config, tmp_path)
    assert 0 <= results["test"]["f1_background"] <= 100 and results["test"]["num_images_with_mask"] == 12
    images = np.stack([found["test"].read_image(index) for index in (0, 3)])
    assert mm.load(tmp_path)(images).masks.shape == (2, 32, 64, 1)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["wildcat", "cam"])
def test_other_methods_have_a_second_stage(tmp_path, method):
    results = training.train_and_evaluate(_config(refine__enabled=True, method=method, train__epochs=1), tmp_path)
    assert results["test"]["f1_background"] != results["test_unrefined"]["f1_background"]
    assert mm.load(tmp_path)(np.zeros((1, 32, 32, 3), np.uint8)).masks.shape == (1, 32, 32, 1)


def test_a_dry_run_measures_a_second_stage_that_is_to_come(plain, monkeypatch):
    monkeypatch.setattr(estimate, "describe_memory", str)
    text = dry_run.describe(_config(refine__enabled=True, refine__num_steps=2), plain[0])
    assert "Second stage: 2 steps." in text and " 0 remain, from the checkpoint of step 4." in text
    assert "masks and features of 16 images for the second stage" in text and " 2 steps of the second stage (" in text
    # Padded images, two float32 maps at half their size, and four float16 features at a quarter.
    num_bytes = 3 * 64 * 64 + 2 * 4 * 32 * 32 + 2 * 4 * 16 * 16
    assert f"'images and features of the second stage': {16 * num_bytes}" in text


@_of_refined
def test_a_dry_run_knows_a_second_stage_that_is_there(copy):
    folder, _ = copy
    (folder / "results.json").unlink()
    text = dry_run.describe(_config(refine__enabled=True), folder)
    assert "Second stage: 12 steps, done." in text and "of the second stage (" not in text
    assert "test of 12 images" in text
