"""Own images with labels and no masks, from their folders to a prediction: what most users have."""

import dataclasses
import json
import math
import re
import shutil

from minmax_jax.configs import custom
import numpy as np
from PIL import Image
import pytest

import minmax_jax as mm
from minmax_jax.base.errors import OptionError
from minmax_jax.data.importing import image_folder, mask_rules, records
from minmax_jax.prediction import folder as prediction_folder
from minmax_jax.prediction import inputs, options
from minmax_jax.report import page
from minmax_jax.runs import faithfulness_test, finished_runs, training
from minmax_jax.runs.building import data_splits
from minmax_jax.runs.building import options as options_lib
from minmax_jax.runs.folder import checkpoints, results
from tests import programs, splits
from tests.test_strict_json import read_all

_NUM_IMAGES = {"train": {"cat": 14, "dog": 2}, "valid": {"cat": 2, "dog": 2}, "test": {"cat": 3, "dog": 2}}


def _write_images(root, masks=()):
    """Noise, red of one class and blue of the other, and full masks of the images that are named."""
    rng = np.random.default_rng(0)
    for split, counts in _NUM_IMAGES.items():
        for label, (name, count) in enumerate(counts.items()):
            for index in range(count):
                pixels = rng.integers(0, 100, (32, 32, 3), np.uint8)
                pixels[..., 2 * label] += 120
                place = f"{split}/{name}/{index}.png"
                for path, content in (("images", pixels), ("masks", np.full((32, 32), 255, np.uint8))):
                    if path == "images" or place in masks:
                        (root / path / place).parent.mkdir(parents=True, exist_ok=True)
                        Image.fromarray(content).save(root / path / place)


def _read(root, **masks):
    return image_folder.read_raw(str(root / "images"), mask_rule=mask_rules.above(0), **masks)


def _config(root, **changes):
    config = custom.get_config("pets,scratch")
    kept = {name: value for name, value in programs.TINY.items() if not name.startswith(("data.num_", "data.syn"))}
    changes = {"data.dir": str(root / "data"), "train.epochs": 2, **changes}
    config.update_from_flattened_dict(kept | changes)
    return config


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with images, "data", and the run "run"."""
    root = tmp_path_factory.mktemp("without_masks")
    _write_images(root)
    records.prepare("pets", lambda scratch: _read(root), root / "data")
    training.train_and_evaluate(_config(root), root / "run")
    return root


def test_a_run_without_masks_has_results_and_strict_json(root):
    found = json.loads((root / "run/results.json").read_text())
    test, metrics = found["test"], found["metrics"]
    assert test["num_images_with_mask"] == 0 and test["f1_foreground"] is None and metrics["pxap"]["value"] is None
    assert found["majority_class"] == {
        "class": "cat",
        "classification_error": pytest.approx(40),
        "balanced_error": pytest.approx(50),
    }
    rows = [json.loads(line) for line in (root / "run/predictions.jsonl").read_text().splitlines()]
    errors = {}
    for label, name in enumerate(("cat", "dog")):
        wrong = [row["predicted"] != label for row in rows if row["label"] == label]
        errors[name] = 100 * sum(wrong) / len(wrong)
        entry = found["classes"][name]
        assert entry["error"] == pytest.approx(errors[name]) and entry["num_images"] == len(wrong)
    assert [found["classes"][name]["num_train"] for name in ("cat", "dog")] == [14, 2]
    assert test["balanced_error"] == pytest.approx((errors["cat"] + errors["dog"]) / 2)
    assert metrics["balanced_error"]["value"] == test["balanced_error"] and metrics["balanced_error"]["low"] is not None
    assert read_all(root / "run") >= 8
    validations = [
        record
        for record in map(json.loads, (root / "run/metrics.jsonl").read_text().splitlines())
        if record["kind"] == "validation"
    ]
    assert all(record["f1_foreground"] is None and 0 <= record["balanced_error"] <= 100 for record in validations)
    text = results.describe(found)
    assert "always 'cat': 40.00 %" in text and "no image has a true mask: F1 is unknown" in text and "F1+" not in text


def test_its_report_shows_what_labels_show(root):
    text = re.sub(r"base64,[^\"]+", "", (root / "run/report.html").read_text())
    found = json.loads((root / "run/results.json").read_text())
    assert "No test image has a true mask" in text
    for absent in ("F1", "all ones", "true mask</option>", "by F1", "worst masks", "NaN", "PxAP", "pxap", "> to <"):
        assert absent not in text, absent
    assert "Balanced error" in text and "always “cat” 40.0" in text
    cells = re.search(r"<tr><td>dog</td><td>2</td><td>2</td><td>([\d.]+)</td>", text)
    assert float(cells[1]) == pytest.approx(found["classes"]["dog"]["error"], abs=0.05)
    for heading in ("Classes", "Confusion", "Swap test", "Flags", "Images", "Training"):
        assert re.search(rf"<h[23]>{heading}</h[23]>", text), heading
    own = found["diagnosis"]["own"]["probability"]
    assert f"<tr><td>its own</td><td>{own:.2f}</td>" in text
    assert "Foreground entropy" in text and text.count('alt="predicted mask"') == 5 and 'alt="true mask"' not in text
    assert "Masks, validation" not in text and "Entropies, validation" in text


def test_a_panel_without_a_mask_has_no_empty_box(root):
    panels = list((root / "run/pictures/test").rglob("*.png"))
    assert len(panels) == 2
    for path in panels:
        with Image.open(path) as panel:
            assert 2 < panel.width / panel.height < 3.2  # three square panels side by side, not four


def test_it_is_evaluated_tested_and_predicts(root, tmp_path):
    content = finished_runs.evaluate_workdir(root / "run", "validation")
    assert content["classes"]["dog"]["num_images"] == 2 and content["validation"]["f1_background"] is None
    content = faithfulness_test.test_workdir(root / "run", "test", num_images=2, num_steps=2)
    assert "insertion_mean" in content["faithfulness"] and "pointing" not in content["faithfulness"]
    assert "<h2>Faithfulness</h2>" in page.write([root / "run"]).read_text()
    model = mm.load(root / "run")
    paths = inputs.find([str(root / "images/test")], None, output=tmp_path / "out")
    found = prediction_folder.predict(model, paths, tmp_path / "out", options.Options(), model={}, results={})
    assert found["num_images"] == 5
    assert read_all(root / "run") + read_all(tmp_path / "out") >= 10


def test_two_runs_without_masks_are_compared_by_their_classes(root):
    text = page.write([root / "run", root / "run"]).read_text()
    assert "run, classification_error: +0.0 points" in text and "f1_foreground" not in text
    page.write([root / "run"])


def test_imbalanced_classes_are_named_with_the_option(root, caplog):
    config = _config(root)
    data_splits.warn_of_imbalance(options_lib.read(config).data, _split([14, 2]))
    (record,) = caplog.records
    message = record.getMessage()
    assert "14 training images of 'a', 2 of 'b'" in message and "--config.data.balanced=True" in message
    caplog.clear()
    data_splits.warn_of_imbalance(options_lib.read(config).data, _split([10, 2]))
    config.data.balanced = True
    data_splits.warn_of_imbalance(options_lib.read(config).data, _split([14, 2]))
    assert not caplog.records


def _split(counts):
    split = splits.make_split([(32, 32)] * sum(counts), num_classes=len(counts))
    return dataclasses.replace(split, labels=np.repeat(np.arange(len(counts), dtype=np.int32), counts))


def test_selection_by_masks_is_refused_before_training(root, tmp_path):
    with pytest.raises(OptionError, match="config.evaluation.selection='localization' needs masks of validation"):
        training.train_and_evaluate(_config(root, **{"evaluation.selection": "localization"}), tmp_path / "run")
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_score_that_is_no_number_is_the_worst(root):
    config, record = _config(root, **{"evaluation.selection": "localization"}), checkpoints.RunRecord()
    for step, (f1, selected) in enumerate([(math.nan, 1), (math.nan, 2), (80.0, 3), (math.nan, 3), (70.0, 3)], start=1):
        training._select(record, {"f1_foreground": 60.0, "f1_background": f1}, step, config.evaluation.selection)
        assert record.selected_step == selected


def test_a_run_that_an_earlier_version_ended_without_a_selected_step_is_finished(root, tmp_path):
    """Its F1 of all validations was no number, so that its checkpoints select step 0, which none of them has."""
    folder = tmp_path / "run"
    shutil.copytree(root / "run", folder)
    finished = json.loads((folder / "results.json").read_text())
    records = list((folder / "checkpoints").glob("*/progress/metadata"))
    for path in records:
        content = json.loads(path.read_text()) | {"selected_step": 0, "selected_score": math.inf}
        path.write_text(json.dumps(content))
    assert len(records) == 2 and "Infinity" in records[0].read_text()
    for name in ("results.json", "model_card.json", "model.safetensors"):
        (folder / name).unlink()
    assert finished_runs.evaluate_workdir(folder, "test")["step"] == 4
    found = training.train_and_evaluate(_config(root), folder)
    assert found["step"] == 4 and json.loads((folder / "results.json").read_text()) == found
    if finished["step"] == 4:
        assert found["test"] == finished["test"]
    assert mm.load(folder).card["step"] == 4


@pytest.mark.slow
def test_selection_by_f1_that_is_no_number_selects_the_last(tmp_path):
    """A full mask has no background: where the prediction is full as well, F1- is 0 / 0."""
    _write_images(tmp_path, masks={"valid/cat/0.png", "test/cat/0.png"})
    raw = _read(tmp_path, masks=str(tmp_path / "masks"))
    records.prepare("pets", lambda scratch: raw, tmp_path / "data")
    changes = {"evaluation.selection": "localization", "evaluation.threshold": 1e-6, "mask.omega": 1e-3}
    found = training.train_and_evaluate(_config(tmp_path, **changes), tmp_path / "run")
    validations = [
        json.loads(line)
        for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()
        if json.loads(line)["kind"] == "validation"
    ]
    assert [record["f1_background"] for record in validations] == [None, None]
    assert found["step"] == validations[-1]["step"] == 4
    assert training.train_and_evaluate(_config(tmp_path, **changes), tmp_path / "run") == found
