"""The saved model: the same answers as the run's own evaluation, without checkpoints and without data."""

import hashlib
import json
import shutil

from minmax_jax.configs import synthetic
import numpy as np
import pytest
import safetensors

import minmax_jax as mm
from minmax_jax.base.errors import UserError
from minmax_jax.data import padding
from minmax_jax.ops import resize
from minmax_jax.runs import inference_options, training
from minmax_jax.runs.building import data_splits
from minmax_jax.runs.building import options as options_lib
from minmax_jax.runs.folder import model_card
from tests import programs, saved_models

# Odd sizes below 64 need padding, a scale below 1 changes the resolution.
_CHANGES = {
    "data.synthetic.image_size": 70,
    "data.scale": 0.6,
    "data.microns_per_pixel": 0.5,
    "evaluation.flips": True,
    "mask.sigma_growth": 0.1,
    "mask.sigma_limit": 0.8,
    "mask.range": "percentiles",
    "mask.gradient": "flow",
    "model.mask_head": True,
    "train.average_decay": 0.5,
    "train.epochs": 2,
}


@pytest.fixture(scope="module")
def finished(once, tmp_path_factory):
    """(workdir with nothing but the saved model, rows of the test split, images of the test split)."""
    config = synthetic.get_config()
    config.update_from_flattened_dict(programs.TINY | _CHANGES)
    folder, _ = once("predictor", lambda folder: training.train_and_evaluate(config, folder))
    moved = tmp_path_factory.mktemp("moved")
    for name in ("model_card.json", "model.safetensors"):
        shutil.copy(folder / name, moved / name)
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    config.data.scale = 1.0
    test = data_splits.create_splits(options_lib.read(config).data)["test"]
    return moved, rows, test


def test_it_predicts_what_the_run_tested(finished):
    folder, rows, test = finished
    predictor = mm.load(folder)
    prediction = predictor(np.stack([test.read_image(index) for index in range(len(test))]))
    assert predictor.class_names == test.class_names
    assert prediction.masks.shape == (12, 70, 70, 1) and prediction.masks.dtype == np.float32
    for index, row in enumerate(rows):
        assert row["name"] == test.names[index] and row["label"] == test.labels[index]
        assert row["predicted"] == np.argmax(prediction.probabilities[index])
        np.testing.assert_allclose(row["probabilities"], prediction.probabilities[index], atol=1e-5)
        np.testing.assert_allclose(row["foreground_entropy"], prediction.scores["foreground_entropy"][index], atol=1e-5)
        predicted, true = prediction.masks[index, ..., 0] >= 0.5, test.read_mask(index)
        # Rounding may move single pixels across the threshold.
        dice = 2 * (predicted & true).sum() / (predicted.sum() + true.sum())
        assert row["f1_foreground"] == pytest.approx(dice, abs=0.01)


def test_the_card_describes_the_model(finished):
    card = json.loads((finished[0] / "model_card.json").read_text())
    assert card["method"] == "minmax" and card["class_names"] == list(mm.load(finished[0]).class_names)
    assert card["preprocessing"] == {"stain_normalization": "none", "scale": 0.6, "min_side": 0, "max_side": 0}
    assert card["model"]["trunk"] == "resnet18" and card["model"]["resnet"]["width"] == 4
    # Four steps: the last belongs to the second epoch, after one growth of the threshold.
    assert card["mask"]["sigma"] == pytest.approx(0.5 + 0.1 * ((card["step"] - 1) // 2))
    assert card["mask"]["range"] == "percentiles"
    assert card["flips"] == {"horizontal": True, "vertical": True}
    assert card["trained_on"]["dataset"] == "synthetic" and card["trained_on"]["num_images"] == 16
    assert card["training_flips"] == {"horizontal": True, "vertical": True}
    assert card["microns_per_pixel"] == 0.5
    assert {"minmax_jax", "jax"} <= set(card["versions"]) and len(card["state_digest"]) == 64


def test_a_card_that_is_older_than_some_of_its_fields():
    card = model_card.complete({"flips": {}, "model": {"trunk": "resnet18"}})
    assert card["model"] == {"trunk": "resnet18", "mask_head": False}
    chosen = inference_options.choose(card | {"flips": {"horizontal": False, "vertical": False}}, flips=True)
    assert chosen["flips"] == {"horizontal": True, "vertical": False}
    assert chosen["scales"] == [1.0] and chosen["refine"] == {"enabled": False}


def test_a_decoder_of_another_width_is_refused_and_fields_of_its_training_are_not(tmp_path):
    saved_models.write(tmp_path, refine__enabled=True)
    path = tmp_path / "model_card.json"
    card = json.loads(path.read_text())
    older = {"width": 32, "batch_size": 4, "learning_rate": 0.1, "num_seeds": 5}
    path.write_text(json.dumps(card | {"refine": card["refine"] | older}))
    assert mm.load(tmp_path).card["refine"]["width"] == 32
    path.write_text(json.dumps(card | {"refine": card["refine"] | {"width": 16}}))
    with pytest.raises(model_card.ModelCardError, match=r"refine.width=16, and decoders of this version have 32 chan"):
        mm.load(tmp_path)
    path.write_text(json.dumps(card | {"refine": card["refine"] | {"width": 16, "enabled": False}}))
    mm.load(tmp_path)  # the decoder is not used


def test_a_second_stage_is_its_decoder_and_how_its_masks_are_scaled(tmp_path):
    found = set()
    for calibration, value in (("percentiles", 0.0), ("percentiles", 1.0), ("none", 0.0), ("none", 0.0)):
        card = {"state_digest": "0", "refine": {"enabled": True, "calibration": calibration}}
        model_card.save(tmp_path, card, {"decoder": {"kernel": np.full(3, value)}})
        found.add(json.loads((tmp_path / "model_card.json").read_text())["second_stage_digest"])
    assert len(found) == 3 and "" not in found


def test_a_second_stage_that_scales_masks_in_a_deleted_way_is_refused(tmp_path):
    saved_models.write(tmp_path, refine__enabled=True)
    path = tmp_path / model_card.CARD
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"refine": card["refine"] | {"calibration": "otsu"}}))
    with pytest.raises(UserError, match=f"{path}: refine.calibration='otsu' must be one of .*again .minmax-jax refine"):
        mm.load(tmp_path)


def test_other_choices_than_those_of_the_run(finished):
    """Flips and scales are means over views that are made here."""
    folder, _, test = finished
    image = test.read_image(0)
    plain = mm.load(folder, flips=False)
    views = [image, image[:, ::-1], image[::-1], image[::-1, ::-1]]
    masks = [plain(view[None]).masks[0, ..., 0] for view in views]
    masks = [masks[0], masks[1][:, ::-1], masks[2][::-1], masks[3][::-1, ::-1]]
    flipped = mm.load(folder, flips=True)(image[None])
    np.testing.assert_allclose(flipped.masks[0, ..., 0], np.mean(masks, axis=0), atol=1e-4)
    assert "view_disagreement" in flipped.scores and "view_disagreement" not in plain(image[None]).scores
    # 70 pixels are 42 at this scale, padded to 64: twice as many are 128.
    prepared = plain.preprocessing(image)
    padded = padding.pad(prepared)
    larger = np.array(resize.resize_bilinear(padded.astype(np.float32)[None], (128, 128)))
    of_larger = np.asarray(plain.predict(larger / 127.5 - 1).masks)
    expected = plain.finish_mask(
        np.asarray(resize.resize_bilinear(of_larger, (64, 64)))[0, ..., 0], prepared.shape[:2], (70, 70)
    )
    both = mm.load(folder, flips=False, scales=(2.0,))(image[None])
    np.testing.assert_allclose(both.masks[0, ..., 0], expected, atol=1e-4)


def test_a_model_that_was_tested_with_a_crf_is_loaded_without_it(tmp_path, caplog):
    """A card of an earlier version; one that had it switched off says nothing."""
    saved_models.write(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    expected = mm.load(tmp_path)(image).masks
    card = json.loads((tmp_path / model_card.CARD).read_text())
    for is_enabled in (False, True):
        (tmp_path / model_card.CARD).write_text(json.dumps(card | {"crf": {"enabled": is_enabled, "color_sigma": 3.0}}))
        np.testing.assert_array_equal(mm.load(tmp_path)(image).masks, expected)
        assert ("was tested with masks that a CRF refined" in caplog.text) is is_enabled
    assert "minmax-jax evaluate --crf" in caplog.text


def test_what_the_model_cannot_do_is_refused(finished):
    with pytest.raises(UserError, match="refine=True needs a second stage"):
        mm.load(finished[0], refine=True)
    with pytest.raises(UserError, match=r"scales=\(9,\)"):
        mm.load(finished[0], scales=(9,))


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((1, 64, 64, 3), np.float32),
        np.zeros((1, 64, 64, 1), np.uint8),
        np.zeros((0, 64, 64, 3), np.uint8),
        np.zeros((1, 20, 20, 3), np.uint8),
    ],
)
def test_images_that_do_not_fit_are_refused(finished, images):
    with pytest.raises(UserError):
        mm.load(finished[0])(images)


def test_a_folder_without_a_usable_model_is_named(finished, tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}.*model_card.json"):
        mm.load(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    model = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(model[: len(model) // 2])
    with pytest.raises(UserError, match="copy"):
        mm.load(copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match="model.safetensors"):
        mm.load(copy)
    card = json.loads((copy / "model_card.json").read_text())
    (copy / "model.safetensors").write_bytes(model)
    (copy / "model_card.json").write_text(json.dumps(card | {"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        mm.load(copy)


def test_the_two_files_must_be_of_one_model(tmp_path, monkeypatch):
    """A training that was killed between them, or files that were copied from two runs."""
    for name, width in (("first", 8), ("second", 16)):
        saved_models.write(tmp_path / name, model__resnet__width=width)
    card = tmp_path / "first" / model_card.CARD
    content = (tmp_path / "first" / model_card.MODEL).read_bytes()
    assert json.loads(card.read_text())["model_sha256"] == hashlib.sha256(content).hexdigest()
    shutil.copy(tmp_path / "second" / model_card.MODEL, tmp_path / "first")
    monkeypatch.setattr(model_card, "_SECONDS_BETWEEN_ATTEMPTS", 0)
    message = r"first/model.safetensors is not the file that .*first/model_card.json describes: .* Copy both"
    with pytest.raises(UserError, match=message):
        model_card.read(tmp_path / "first")
    # Those of a version that did not note it are read.
    older = json.loads((tmp_path / "second" / model_card.CARD).read_text())
    del older["model_sha256"]
    card.write_text(json.dumps(older))
    found, variables = model_card.read(tmp_path / "first")
    assert found["model"]["resnet"]["width"] == 16 and variables["params"]


def test_files_that_are_replaced_while_they_are_read(tmp_path, monkeypatch):
    """A training that finishes at that moment: its card follows its model."""
    for name, width in (("first", 8), ("second", 16)):
        saved_models.write(tmp_path / name, model__resnet__width=width)
    shutil.copy(tmp_path / "second" / model_card.MODEL, tmp_path / "first")
    monkeypatch.setattr(
        model_card.time,
        "sleep",
        lambda _: shutil.copy(tmp_path / "second" / model_card.CARD, tmp_path / "first"),
    )
    assert model_card.read(tmp_path / "first")[0]["model"]["resnet"]["width"] == 16


def test_the_file_of_a_model_says_how_kernels_are_laid_out(tmp_path):
    """Also of arrays that are not stored in C order, which safetensors would scramble."""
    changes = dict(model__trunk="efficientnet_lite0", model__output_stride=16, model__resnet__stage_sizes=())
    saved_models.write(tmp_path, **changes)
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="numpy") as file:
        metadata = file.metadata()
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    assert metadata["convolution_kernels"] == "HWIO: height, width, input channels, output channels"
    assert shapes["params/trunk/stem_conv/kernel"] == [3, 3, 3, 32]
    assert metadata["depthwise_kernels"].endswith("height, width, 1, channels")
    assert shapes["params/trunk/block0/depthwise_conv/kernel"] == [3, 3, 1, 32]
    assert metadata["dense_kernels"] == "input features, output features" and metadata["order"].startswith("C:")
    assert metadata["minmax_jax"] == json.loads((tmp_path / "model_card.json").read_text())["versions"]["minmax_jax"]
    card, _ = model_card.read(tmp_path)
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    model_card.save(
        tmp_path, card, {"params": {"kernel": np.asfortranarray(kernel)}, "batch_stats": {"a": kernel[:, ::2]}}
    )
    _, found = model_card.read(tmp_path)
    np.testing.assert_array_equal(found["params"]["kernel"], kernel)
    np.testing.assert_array_equal(found["batch_stats"]["a"], kernel[:, ::2])
