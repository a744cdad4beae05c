"""The report of a run: charts, the choice of images, and the page, also in a browser."""

import base64
import json
import re
import shutil
import subprocess

import numpy as np
from PIL import Image
import pytest

from minmax_jax.evaluation.metrics import flags
from minmax_jax.report import charts, layers, metric_records, page, tables
from minmax_jax.runs.drawing import gallery
from tests import browser


def test_points_of_a_chart_are_where_they_should_be():
    chart = charts.lines({"a<b": [(0, 10), (10, 20)], "none": []}, x_label="step", y_label="%", mark=5)
    (points,) = re.findall(r'points="([^"]+)"', chart)
    assert points == "46.0,206.0 408.0,24.0"  # the corners of the frame: 46 to 420 - 12, 240 - 34 to 24
    assert 'x1="227.0" x2="227.0"' in chart and "a&lt;b" in chart and "none" not in chart
    ticks = [float(tick) for tick in re.findall(r'text-anchor="(?:end|middle)">([\d.]+)<', chart)]
    assert ticks == [10, 12.5, 15, 17.5, 20, 0, 2.5, 5, 7.5, 10]


def test_points_that_are_no_numbers_are_left_out_of_a_chart():
    nan, inf = float("nan"), float("inf")
    chart = charts.lines({"a": [(0, 10), (4, nan), (5, None), (10, 20), (12, inf)]}, x_label="", y_label="")
    assert re.findall(r'points="([^"]+)"', chart) == ["46.0,206.0 408.0,24.0"] and "nan" not in chart
    assert charts.lines({"a": [(0, nan), (1, None)], "b": [(nan, 1)]}, x_label="", y_label="") == ""
    assert "b" not in re.sub("<[^>]+>", "", charts.lines({"a": [(0, 1)], "b": [(0, nan)]}, x_label="", y_label=""))


def test_a_record_of_an_earlier_version_with_nan_is_read(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "f1": NaN, "loss": Infinity}\n{"step": 2')
    assert metric_records.read(tmp_path / "metrics.jsonl") == [{"step": 1, "f1": None, "loss": None}]


def test_charts_of_one_value_and_of_none():
    assert "circle" in charts.lines({"a": [(3, 3)]}, x_label="", y_label="")
    assert charts.lines({"a": []}, x_label="", y_label="") == ""


def test_the_loss_is_drawn_with_its_terms_and_without_what_is_no_term():
    records = [
        {"step": step, "kind": "train", "loss": 3.0, "size_loss": float(step), "gradient_norm": 7.0, "map_norm": 9.0}
        for step in (1, 3)
    ]
    results = {"step": 2, "log_terms": ["size_loss"]}
    ((title, chart),) = page._draw_training([*records, {"step": 3, "kind": "validation", "other_loss": 1.0}], results)
    assert title == "Loss and its terms, training" and re.findall("<title>(.*?)</title>", chart) == ["loss", "size"]
    # From 1 at the bottom of the frame to 3 at its top; the selected step is in the middle.
    assert re.findall(r'points="([^"]+)"', chart) == ["46.0,24.0 408.0,24.0", "46.0,206.0 408.0,24.0"]
    assert 'x1="227.0" x2="227.0"' in chart


def _row(f1, *, wrong=0.0, flags=()):
    """A row of an image whose class is wrong with the given confidence, or right."""
    classes = {"predicted": int(wrong > 0), "label": 0, "probabilities": [1 - wrong, wrong]}
    return {"f1_foreground": f1, "f1_background": f1, "flags": list(flags)} | classes


def test_the_worst_the_best_the_wrong_and_the_flagged_are_chosen(monkeypatch):
    monkeypatch.setattr(gallery, "_OF_GROUP", 2)
    rows = [_row(0.5), _row(0.1), _row(None), _row(float("nan"), wrong=0.7), _row(0.9), _row(0.2), _row(0.8)]
    rows += [_row(0.5, wrong=0.6, flags="a"), _row(0.5, wrong=0.9, flags="a"), _row(0.5, flags="ab")]
    groups = {}
    for index, names in gallery.choose(rows).items():
        for name in names:
            groups.setdefault(name, []).append(index)
    random = groups.pop("random")
    assert groups == {"worst": [1, 5], "best": [4, 6], "wrong": [8, 3], "flagged": [9, 7]}
    assert len(set(random)) == 2 and set(random) < set(range(10))


@pytest.fixture(scope="module")
def finished(tiny_run):
    """The folder of a run that has just ended, "run & <b>"; read only."""
    return tiny_run[0]


def test_a_training_ends_with_a_report_of_its_results(finished):
    text = (finished / page.NAME).read_text()
    results = json.loads((finished / "results.json").read_text())
    value = results["metrics"]["f1_foreground"]
    assert f"<b>{value['value']:.1f} %</b>" in text
    assert f"{value['low']:.1f} to {value['high']:.1f}; all ones {value['baselines']['all_ones']:.1f}" in text
    assert "run &amp; &lt;b&gt;" in text and "<b>:" not in text
    assert len(text) < 15e6 and "http:" not in text and "https:" not in text
    curves = json.loads((finished / "curves.json").read_text())
    assert np.sum(curves["confusion"]) == 12 and sum(curves["reliability"]["count"]) == 12
    at_half = int(np.argmin(np.abs(np.array(curves["thresholds"]["threshold"]) - 0.5)))
    assert curves["thresholds"]["f1_foreground"][at_half] == pytest.approx(value["value"], abs=2)


def test_the_gallery_holds_image_and_masks(finished):
    entries = json.loads((finished / "gallery/index.json").read_text())
    assert [entry["index"] for entry in entries] == list(range(12))  # fewer images than the groups would take
    text = (finished / page.NAME).read_text()
    for entry in entries:
        for ending in (".jpg", "_mask.png", "_true.png", "_outline.png", "_instances.png"):
            content = (finished / f"gallery/{entry['index']}{ending}").read_bytes()
            assert base64.b64encode(content).decode() in text
    with Image.open(finished / "gallery/0_true.png") as picture:
        assert picture.mode == "RGBA" and picture.size == (32, 32)
        assert set(np.unique(np.asarray(picture)[..., 3])) <= {0, 255}


def test_layers_of_a_mask():
    mask, true = np.zeros((8, 16), bool), np.zeros((16, 32), bool)
    mask[1:7, 0:6], mask[3:5, 12:14] = True, True
    true[2:14, 20:32] = True
    picture = layers.draw_outlines(mask, true)
    assert picture.shape == (8, 16, 4)
    inside = np.zeros((8, 16), bool)
    inside[3:5, 2:4] = True  # two pixels of outline on all sides, that of the image among them
    assert np.array_equal(np.all(picture == (255, 212, 0, 255), axis=-1), mask & ~inside)
    assert picture[2, 11].tolist() == [0, 213, 255, 255]
    mask[0:8, 8:10] = True
    colors, count = layers.draw_instances(mask)
    mask[3:5, 12:14] = False  # four pixels are no instance
    assert count == 2 and np.array_equal(colors[..., 3] == 255, mask)
    assert len(np.unique(colors[mask], axis=0)) == 2 and np.ptp(colors[1:7, 0:6], axis=(0, 1)).max() == 0
    assert layers.draw_instances(np.zeros((8, 16), bool))[1] == 0


def test_classes_are_shown_with_masks_as_well(finished):
    text, found = (finished / page.NAME).read_text(), json.loads((finished / "results.json").read_text())
    assert "No test image has a true mask" not in text and '<option value="truth">' in text
    entry = next(iter(found["classes"].values()))
    assert f"<td>{entry['num_train']}</td><td>{entry['num_images']}</td><td>{entry['error']:.1f}</td>" in text
    assert "Swap test</h2>" in text and "Flags</h2>" in text


def test_flags_are_counted_whatever_share_they_name():
    rows = [{"flags": ["the mask covers 99.9 % of the image"]}, {"flags": ["the mask covers 0.0 % of the image", "b"]}]
    counts = [("the mask covers … % of the image", 2), ("b", 1)]
    assert tables.count_flags([*rows, {"flags": []}]) == {"num_images": 3, "num_flagged": 2, "counts": counts}
    assert tables.count_flags([{}]) is None


def test_flags_are_measured():
    rows = [
        {"flags": f, "predicted": p, "label": 0} for f, p in ((["a"], 1), (["a", "b"], 0), ([], 1), ([], 0), ([], 0))
    ]
    metrics = flags.evaluator(threshold=0.5).metrics(rows)
    values = {name: metric.values(np.ones((1, 5)))[0] for name, metric in metrics.items()}
    expected = {"flagged_share": 40, "classification_error_flagged": 50, "classification_error_unflagged": 100 / 3}
    assert values == pytest.approx(expected)


def test_runs_are_compared(finished, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(finished, tmp_path / name)
    path = tmp_path / "two" / "results.json"
    results = json.loads(path.read_text())
    results["metrics"]["pxap"]["value"] += 2
    path.write_text(json.dumps(results))
    text = page.write([tmp_path / "one", tmp_path / "two"]).read_text()
    assert "two, classification_error: +0.0 points" in text
    assert "Comparison of 2 runs" in text and "two, f1_foreground: +0.0 points" in text
    first = results["metrics"]["pxap"]["value"] - 2
    assert f"<td>{first:.2f}</td><td>{first + 2:.2f}</td><td>{first + 1:.2f}</td><td>{2**0.5:.2f}</td>" in text
    assert "not of the same images" not in text
    results["test"]["num_images_with_mask"] = 7
    path.write_text(json.dumps(results))
    text = page.write([tmp_path / "one", tmp_path / "two"]).read_text()
    assert "Metrics of masks are not of the same images: 12 with a true mask in one, 7 with a true mask in two." in text
    rows = (tmp_path / "two" / "predictions.jsonl").read_text().splitlines()
    (tmp_path / "two" / "predictions.jsonl").write_text("\n".join(rows[1:]))
    assert "different images" in page.write([tmp_path / "one", tmp_path / "two"]).read_text()


def test_a_gallery_of_an_earlier_version_is_left_out(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run/gallery/index.json"
    entries = json.loads(path.read_text())
    path.write_text(json.dumps([{name: entry[name] for name in entry if name != "flags"} for entry in entries]))
    (tmp_path / "run/gallery/0_outline.png").unlink()
    assert 'class="gallery"' not in page.write([tmp_path / "run"]).read_text()


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(page.ReportError, match=f"{tmp_path} has no results.json with metrics"):
        page.write([tmp_path])


@pytest.mark.slow
def test_the_page_sorts_and_filters_in_a_browser(finished, tmp_path):
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--user-data-dir={tmp_path}"]
    command = [browser.find(), *options]
    shutil.copy(finished / page.NAME, tmp_path / "page.html")
    done = subprocess.run([*command, f"file://{tmp_path}/page.html"], capture_output=True, text=True, timeout=120)
    shots = re.findall(r'<div class="shot"[^>]*data-score="([\d.]+)"([^>]*)>', done.stdout)
    visible = [float(score) for score, rest in shots if "hidden" not in rest]
    assert f"{len(visible)} of {len(shots)} images" in done.stdout and visible == sorted(visible) and len(shots) == 12
    assert done.stdout.count('class="over truth" alt="true mask"') == 12
    for layer in ("truth", "outline", "instances"):
        assert len(re.findall(rf'class="over {layer}"[^>]*hidden', done.stdout)) == 12
