"""Selection, progress, results and the record of metrics."""

import json
import math

from minmax_jax.configs import synthetic
import numpy as np
import pytest

from minmax_jax.base.errors import OptionError
from minmax_jax.evaluation import selection
from minmax_jax.method import Method
from minmax_jax.minmax import method as minmax
from minmax_jax.report import metric_records
from minmax_jax.runs import timing
from minmax_jax.runs.building import options as options_lib
from minmax_jax.runs.building import run
from minmax_jax.runs.folder import metric_writers, results
from tests import splits


def _validation(error, balanced=0.0):
    return {"classification_error": error, "balanced_error": balanced}


@pytest.mark.parametrize(
    "rule, validation, expected",
    [
        ("classification_error", _validation(7, balanced=30), 7),
        ("last", _validation(50), 0),
        ("balanced_error", _validation(7, balanced=30), 30),
        # What is no number is the worst, in a run and as its checkpoint has it.
        ("localization", {"f1_foreground": 80.0, "f1_background": float("nan")}, math.inf),
        ("localization", {"f1_foreground": None, "f1_background": 60.0}, math.inf),
        ("classification_error", _validation(float("nan")), math.inf),
        ("balanced_error", _validation(5, balanced=None), math.inf),
    ],
)
def test_selection_scores(rule, validation, expected):
    assert selection.score(rule, validation) == expected


def test_one_rule_alone_sees_a_mask():
    """The summaries here hold no F1 at all."""
    for rule in selection.RULES[:-1]:
        selection.score(rule, _validation(1.0))
    assert selection.score("localization", {"f1_foreground": 60.0, "f1_background": 90.0}) == -75
    with pytest.raises(ValueError, match="'f1' must be one of"):
        selection.score("f1", _validation(1.0))


def test_seconds_are_written_as_a_clock():
    assert [timing.format_seconds(s) for s in (0.4, 59.6, 61, 3600, 7325)] == [
        "0:00",
        "1:00",
        "1:01",
        "1:00:00",
        "2:02:05",
    ]


def test_the_rate_leaves_out_pauses_and_the_time_left_counts_them(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(timing.time, "monotonic", lambda: now[0])
    timer = timing.StepTimer()
    now[0] += 50  # the first step compiles
    assert timer.restart() == 50
    assert timer.close_window() == 0
    for _ in range(4):
        now[0] += 0.5
        timer.count_step()
    with timer.pause():
        now[0] += 30
    assert timer.close_window() == pytest.approx(2.0)
    assert timer.seconds_left(10, 2) == pytest.approx(10 / 2 + 2 * 30)


def test_a_continued_record_forgets_what_lies_after_its_step(tmp_path):
    writer = metric_writers.MetricWriter(tmp_path, first_step=0)
    for step in (1, 2, 3):
        writer.write(step, "train", {"loss": 1.0 / step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "ki')  # killed while writing
    writer = metric_writers.MetricWriter(tmp_path, first_step=2)
    writer.write(3, "validation", {"classification_error": 7.0})
    assert metric_records.read(tmp_path / "metrics.jsonl") == [
        {"step": 1, "kind": "train", "loss": 1.0},
        {"step": 2, "kind": "train", "loss": 0.5},
        {"step": 3, "kind": "validation", "classification_error": 7.0},
    ]


def test_tensorboard_files(tmp_path):
    pytest.importorskip("tensorboardX")
    writer = metric_writers.MetricWriter(tmp_path, first_step=0, tensorboard=True)
    writer.write(1, "train", {"loss": 1.0, "baselines": {}})
    writer.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"train/loss" in events.read_bytes()


_METHOD = Method(None, None, None, log_terms=("size_loss",), scores=minmax.SCORES)
SUMMARY = {
    "num_images": 3,
    "num_images_with_mask": 2,
    "classification_error": 100 / 3,
    "localizer_classification_error": 0.0,
    "f1_foreground": 61.5,
    "f1_background": float("nan"),
    "foreground_entropy": 0.1,
    "background_entropy": 1.2,
    "baselines": {"all_ones": {"f1_foreground": 30.0, "f1_background": float("nan")}},
}


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"evaluation.selection": "last"}, True),
        ({"evaluation.selection": "localization"}, False),
        ({"refine.enabled": True}, True),
        ({"refine.enabled": True, "refine.prior": "glands"}, False),
        ({"refine.prior": "glands"}, True),  # a second stage that is off reads no prior
    ],
)
def test_results_say_whether_labels_were_all_that_was_used(changes, expected):
    config = synthetic.get_config()
    config.update_from_flattened_dict(changes)
    found = results.collect(
        "test",
        SUMMARY,
        options_lib.read(config),
        method=_METHOD,
        train_labels=np.array([0, 1]),
        step=7,
        state_digest="ab",
        wall_seconds=1.0,
    )
    assert found["label_only"] is expected


def test_selection_by_masks_needs_masks():
    config = synthetic.get_config()
    config.evaluation.selection = "localization"
    run._check_selection(options_lib.read(config), splits.make_split([(32, 32), (32, 32)]))
    without = splits.make_split([(32, 32)], read_mask=lambda index: None)
    with pytest.raises(OptionError, match="config.evaluation.selection='localization' needs masks"):
        run._check_selection(options_lib.read(config), without)


@pytest.mark.parametrize(
    ("sizes", "scale", "changes"),
    [
        ((64, 64), 0.02, {"data.crop_size": 40}),  # of the crop, 0.8 pixels
        ((40, 64), 0.01, {"data.crop_size": 128}),  # of the padded image of 64 pixels, 0.64
        ((64, 64), 0.02, {"data.crop_size": 128, "evaluation.scales": (1.0, 0.5)}),  # of half of it, 0.64
    ],
)
def test_a_classifier_that_would_see_no_pixel_is_refused_before_training(sizes, scale, changes):
    config = synthetic.get_config()
    config.update_from_flattened_dict({"model.classifier_scale": scale, **changes})
    parts = dict.fromkeys(("train", "validation", "test"), splits.make_split([sizes]))
    with pytest.raises(OptionError, match=f"config.model.classifier_scale={scale} leaves no pixel of images of"):
        run._check_classifier(options_lib.read(config), parts)
    config.model.classifier_scale = 0.04
    run._check_classifier(options_lib.read(config), parts)


def test_results_hold_what_scripts_rely_on():
    config = synthetic.get_config()
    config.data.train_fraction = 0.5
    labels = np.array([0, 1, 1, 1, 0])
    found = results.collect(
        "test",
        SUMMARY,
        options_lib.read(config),
        method=_METHOD,
        train_labels=labels,
        step=7,
        state_digest="ab",
        wall_seconds=1.0,
    )
    found = json.loads(json.dumps(found, allow_nan=False))
    baselines = {"all_ones": {"f1_foreground": 30.0, "f1_background": None}}
    assert found["test"] == SUMMARY | {"f1_background": None, "baselines": baselines}
    assert found["trained_on"] == {
        "num_images": 5,
        "images_per_class": {"least": 2, "greatest": 3},
        "train_fraction": 0.5,
        "train_per_class": 0,
        "num_train": 512,
        "subset_seed": 0,
        "permute_labels": False,
    }
    assert found["selection"] == "classification_error" and found["label_only"]
    assert found["threshold"] == {"policy": "fixed", "value": 0.5}
    assert (found["seed"], found["step"], found["state_digest"]) == (0, 7, "ab")
    assert {"python", "versions", "platform", "device", "num_devices", "git_commit", "wall_seconds"} <= set(
        found["environment"]
    )
    assert found["log_terms"] == ["size_loss"] and found["method"] == "minmax"
    entropy = found["scores"]["foreground_entropy"]
    assert (entropy["title"], entropy["kind"], entropy["unit"]) == ("foreground entropy", "entropy", "nats")
    text = results.describe(found)
    assert "(localizer 0.00 %)" in text and "foreground entropy 0.100 nats   background entropy 1.200 nats" in text
    assert "test, 3 images (1 without a mask, left out of F1), model of step 7" in text
    assert "33.33 %" in text and "F1+ 61.50 %   F1- - %" in text and "all foreground: 30.00 %" in text
    assert "CRF" not in text and "step 7, masks refined by the CRF:" in results.describe(found | {"crf": {}})
