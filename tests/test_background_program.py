"""Classes without a region in whole programs: preparing, training, predicting, exporting, and the pages."""

import csv
import dataclasses
import json
import logging
import shutil
import zlib

import jax
from minmax_jax.configs import synthetic as synthetic_config
import numpy as np
import onnxruntime
from PIL import Image
import pytest

import minmax_jax as mm
from minmax_jax.base.errors import UserError
from minmax_jax.data import load, synthetic
from minmax_jax.data.importing import records, summary
from minmax_jax.export import model_files, verification
from minmax_jax.prediction import folder as folder_lib
from minmax_jax.prediction import inputs
from minmax_jax.refinement import calibration
from minmax_jax.report import page as page_lib
from minmax_jax.runs import faithfulness_test, final_test, finished_runs, heat_maps, scoring, training
from minmax_jax.runs.building import data_splits
from minmax_jax.runs.building import options as options_lib
from minmax_jax.runs.folder import results
from tests import encoded, own_layout, programs, saved_models, served
from tests.predictors import BrightPixels

# Built-in images.


def test_built_in_images_can_have_a_class_without_objects():
    config = synthetic.SyntheticConfig(num_classes=2, empty_class=True)
    split = synthetic.load("test", 6, config=config)
    assert split.class_names == ("horizontal_stripes", "vertical_stripes", "empty")
    assert split.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert [bool(split.read_mask(index).any()) for index in range(6)] == [True, True, False] * 2
    assert np.ptp(split.read_image(2)) > 50  # background and plain blobs


@pytest.mark.parametrize(
    "names, message",
    [
        (("empti",), "config.data.background_classes=empti: 'empti' is no class. The classes are horizontal_stripes,"),
        ((*tuple(synthetic.TEXTURES)[:4], "empty"), "config.data.background_classes=.* are all classes"),
    ],
)
def test_names_of_a_configuration_are_checked(names, message):
    config = _config(names)
    with pytest.raises(UserError, match=message):
        data_splits.create_splits(options_lib.read(config).data)


def test_a_foreground_in_a_class_that_a_configuration_declares_is_warned_of(caplog):
    data_splits.create_splits(options_lib.read(_config(("empty",))).data)
    assert not caplog.records
    data_splits.create_splits(options_lib.read(_config(("checkerboard", "empty"))).data)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2  # of the 8 validation and the 12 test images; training reads no mask
    assert "background_classes: 2 of 3 validation images of checkerboard, empty, such as " in messages[0]
    assert "2 of 4 test images of checkerboard, empty, such as test_000002, have a foreground" in messages[1]


def _config(names=("empty",), **changes):
    config = synthetic_config.get_config()
    config.update_from_flattened_dict(programs.TINY | changes)
    config.data.synthetic.empty_class, config.data.background_classes = True, names
    return config


# A run.


@pytest.fixture(scope="module")
def finished(once, tmp_path_factory):
    """A training of one epoch with a second stage; a copy of its folder, and its results."""
    changes = {"train.epochs": 1, "refine.enabled": True, "refine.num_steps": 3, "refine.scales": (1.0,)}
    changes |= {"erasing.num_erasures": 2, "erasing.start_epoch": 0}
    folder, found = once("background", lambda folder: training.train_and_evaluate(_config(**changes), folder))
    return shutil.copytree(folder, tmp_path_factory.mktemp("background") / "run"), found


def test_a_run_counts_such_images_by_their_own_rule(finished):
    folder, found = finished
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    normal = [row for row in rows if row["label"] == 4]
    assert len(rows) == 12 and len(normal) == 2
    assert found["test"]["num_images_without_region"] == 2 and found["test"]["num_images_with_mask"] == 10
    expected = 100 * np.mean([row["false_foreground_share"] for row in normal])
    assert found["test"]["false_foreground_share"] == pytest.approx(expected)
    table = found["metrics"]["false_foreground_share"]
    assert table["value"] == pytest.approx(expected) and table["baselines"]["all_ones"] == 100
    assert all(row["f1_foreground"] is None and row["box_iou"] is None for row in normal)
    for row in rows:
        if row["predicted"] == 4:
            assert row["background_entropy"] is None
            assert row["f1_foreground"] in (None, 0) and row["false_foreground_share"] in (None, 0)
    validations = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert validations[-1]["num_images_without_region"] == 1 and "false_foreground_share" in validations[-1]
    assert "2 images without a region, left out of F1" in results.describe(found)


def test_its_report_says_which_images_count_where(finished):
    page = (finished[0] / "report.html").read_text()
    assert "10 with a true mask, 2 of classes without a region" in page and "False foreground" in page


def test_its_model_is_loaded_with_them(finished):
    folder, _ = finished
    assert json.loads((folder / "model_card.json").read_text())["background_classes"] == ["empty"]
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    for refine in (True, False):
        predictor = mm.load(folder, refine=refine)
        assert predictor.background_classes == (4,)
        _assert_empty_where(predictor(images), 4)
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    split = data_splits.create_splits(options_lib.read(_config()).data)["test"]
    prediction = mm.load(folder)(np.stack([split.read_image(index) for index in range(12)]))
    assert prediction.probabilities.argmax(-1).tolist() == [row["predicted"] for row in rows]


def _assert_empty_where(prediction, background):
    is_empty = ~prediction.masks.any(axis=(1, 2, 3))
    np.testing.assert_array_equal(is_empty, prediction.probabilities.argmax(-1) == background)


def test_faithfulness_leaves_them_out(finished, monkeypatch):
    """Of the 7 validation images with a region 4 are taken, and one of these has an empty mask."""
    folder, _ = finished
    split = data_splits.create_splits(options_lib.read(_config()).data)["validation"]
    assert split.labels.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    seen, score = [], faithfulness_test.faithfulness.score

    def remembered(probabilities, image, mask, **options):
        seen.append(image)
        return score(probabilities, image, mask, **options)

    monkeypatch.setattr(faithfulness_test.faithfulness, "score", remembered)
    masks = [np.zeros((32, 32), np.float32)] + [np.tile(np.linspace(0, 1, 32, dtype=np.float32), (32, 1))] * 3
    monkeypatch.setattr(faithfulness_test, "_predict_masks", lambda run, variables, images: masks[-len(images) :])
    found = faithfulness_test.test_workdir(folder, "validation", num_images=4, num_steps=1)
    assert (found["num_images"], found["num_left_out"]) == (3, 1)
    np.testing.assert_array_equal(seen, [split.read_image(index) for index in (2, 5, 7)])
    masks[1:] = masks[:1] * 3
    with pytest.raises(UserError, match="'validation': no image of a class with a region has a mask to test"):
        faithfulness_test.test_workdir(folder, "validation", num_images=4, num_steps=1)


def test_an_empty_mask_of_randomized_weights_is_no_correlation_of_0(finished, monkeypatch):
    """Of 3 images the randomized head leaves one mask, which runs the other way; the whole randomized model none."""
    folder, _ = finished
    rising, empty = np.tile(np.linspace(0, 1, 32, dtype=np.float32), (32, 1)), np.zeros((32, 32), np.float32)
    answers = iter([[rising] * 3, [empty, 1 - rising, empty], [empty] * 3])
    monkeypatch.setattr(faithfulness_test, "_predict_masks", lambda run, variables, images: next(answers))
    found = faithfulness_test.test_workdir(folder, "validation", num_images=3, num_steps=1)
    assert found["num_images"] == 3 and found["num_left_out"] == 0
    assert found["randomized"] == {
        "decoder": {"rank_correlation": pytest.approx(-1), "standard_error": None, "num_left_out": 2},
        "all": {"rank_correlation": None, "standard_error": None, "num_left_out": 3},
    }
    text = page_lib.write([folder]).read_text()
    assert "decoder -1.00 (2 empty masks left out), all - (3 empty masks left out)." in text


def test_the_swap_test_counts_what_it_leaves_out(finished):
    """Of 12 images 2 are of the class without a region; of the others, two are predicted to be."""
    folder, _ = finished
    model = finished_runs.open_model(folder, finished_runs.read_config(folder), "test")
    split, seen = model.run.splits["test"], []
    assert split.labels.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    predicted = np.array([4, 0, 0, 4, 4, 0, 0, 0, 0, 0, 0, 0])

    def predict(variables, images):
        batch = [next(i for i in range(12) if np.array_equal(split.read_image(i), image)) for image in images]
        found = model.run.predict(variables, images)
        return found.replace(probabilities=np.eye(5)[predicted[batch]])

    def classify(variables, read):
        seen.append(len(read))
        return np.full((len(read), 5), 0.2)

    run = dataclasses.replace(model.run, predict=predict, classify=classify)
    rows, _, swaps = scoring.score(run, split, model.state, with_first_stage=False)
    assert [row["predicted"] for row in rows] == predicted.tolist() and seen == [4] * 8
    assert [row["own"]["correct"] for row in swaps] == [label == 0 for label in (1, 2, 0, 1, 2, 3, 0, 1)]
    found = final_test._diagnose(split, rows, swaps)
    assert (found["num_images"], found["num_left_out"]) == (8, 4)
    assert final_test._diagnose(split, rows, []) is None


def test_a_class_that_is_renamed_in_one_place_of_the_card_is_named(tmp_path):
    saved_models.write(tmp_path / "run", background_classes=("dog",))
    path = tmp_path / "run/model_card.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"class_names": ["cat", "empty", "some bird"]}))
    with pytest.raises(
        UserError, match="model_card.json: background_classes names 'dog', which is none of class_names"
    ):
        mm.load(tmp_path / "run")


# Files of predictions.


class _RedIsNormal(BrightPixels):
    """The class red has no region."""

    background_classes = (1,)

    def predict(self, images):
        answer = super().predict(images)
        is_normal = answer.probabilities.argmax(-1) == 1
        return answer.replace(masks=np.where(is_normal[:, None, None, None], 0, answer.masks))


def _predict(tmp_path, predictor, **options):
    options = folder_lib.Options(**{"geojson": True, "coco": True, "soft_masks": True, "tolerance": 0.0} | options)
    found = folder_lib.predict(
        predictor, inputs.find([str(tmp_path / "in")]), tmp_path / "out", options, model={}, results={}
    )
    return found, [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]


def test_files_of_a_prediction_have_no_region(tmp_path):
    (tmp_path / "in").mkdir()
    image = np.zeros((40, 48, 3), np.uint8)
    image[8:30, 8:40, 1] = 230
    for name, red in (("object", 0), ("normal", 255)):
        image[..., 0] = red
        Image.fromarray(image).save(tmp_path / f"in/{name}.png")
    found, rows = _predict(tmp_path, _RedIsNormal())
    normal, shown = rows
    assert (normal["class"], shown["class"]) == ("red", "plain") and found["num_flagged"] == 0
    assert normal["foreground_share"] == normal["num_instances"] == 0 and normal["flags"] == []
    assert shown["foreground_share"] == pytest.approx(22 * 32 / (40 * 48))
    assert normal["background_entropy"] is None and shown["background_entropy"] == pytest.approx(0.6)
    with (tmp_path / "out/predictions.csv").open(newline="", encoding="utf-8-sig") as file:
        table = {row["stem"]: row for row in csv.DictReader(file)}
    assert table["normal"]["background_entropy"] == "" and float(table["normal"]["foreground_share"]) == 0
    features = {row["stem"]: json.loads((tmp_path / f"out/geojson/{row['stem']}.geojson").read_text()) for row in rows}
    assert features["normal"]["features"] == [] and len(features["object"]["features"]) == 1
    coco = json.loads((tmp_path / "out/coco.json").read_text())
    assert [len(coco[name]) for name in ("images", "annotations")] == [2, 1]
    assert coco["annotations"][0]["category_id"] == 1
    assert not np.load(tmp_path / "out/soft_masks/normal.npy").any()
    with Image.open(tmp_path / "out/overlays/normal.png") as overlay, Image.open(tmp_path / "in/normal.png") as given:
        np.testing.assert_array_equal(np.asarray(overlay), np.asarray(given))


@pytest.mark.parametrize("kind", [None, "percentiles", "none"])
def test_tiles_of_such_a_class_add_nothing_to_a_large_image(tmp_path, kind):
    """The left half is normal; masks of a second stage, which lie close together, are scaled by the right half."""
    (tmp_path / "in").mkdir()
    image = np.zeros((256, 512, 3), np.uint8)
    image[..., 1] = np.linspace(120, 135, 256)[:, None] if kind else 200
    image[:, :256, 0] = 255
    Image.fromarray(image).save(tmp_path / "in/a.png")
    predictor = _RedIsNormal(crop_size=(64, 64))
    predictor.calibrate_fn = kind and calibration.CALIBRATIONS[kind]
    _, (row,) = _predict(tmp_path, predictor, tile_size=64, tile_overlap=0.0)
    soft = np.load(tmp_path / "out/soft_masks/a.npy")
    assert row["class"] == "plain" and row["num_tiles"] == 32
    assert not soft[:, :256].any()
    right = image[:, 256:, 1].astype(np.float32) / 255
    expected = right if kind is None else calibration.CALIBRATIONS[kind](right)
    np.testing.assert_allclose(soft[:, 256:], expected, atol=0.02)


def test_a_large_image_that_is_mostly_of_such_a_class_has_no_region(tmp_path):
    """A quarter of the tiles has a mask below the threshold: what counts is the mean of all, which names the others."""
    (tmp_path / "in").mkdir()
    image = np.zeros((256, 256, 3), np.uint8)
    image[..., 0], image[:, :64, 0], image[:, :64, 1] = 255, 0, 100
    Image.fromarray(image).save(tmp_path / "in/a.png")
    _, (row,) = _predict(tmp_path, _RedIsNormal(crop_size=(64, 64)), tile_size=64, tile_overlap=0.0)
    assert row["num_tiles"] == 16 and row["class"] == "red"
    assert row["probability"] == pytest.approx((4 * 0.1 + 12 * 0.9) / 16)
    assert not np.load(tmp_path / "out/soft_masks/a.npy").any() and row["foreground_share"] == row["num_instances"] == 0
    assert row["background_entropy"] is None and row["flags"] == []


def test_tiles_of_other_classes_may_name_such_a_class_together(tmp_path):
    """Each tile shows all of itself, one half of them as one class and one half as another: the second is normal."""

    class Undecided(_RedIsNormal):
        class_names, background_classes = ("plain", "normal", "blue"), (1,)

        def predict(self, images):
            answer = super().predict(images)
            blue = images[:, 0, 0, 2] > 200
            of_tile = np.where(blue[:, None], [0.02, 0.48, 0.5], [0.5, 0.48, 0.02])
            return answer.replace(probabilities=of_tile, masks=np.ones_like(answer.masks))

    (tmp_path / "in").mkdir()
    image = np.zeros((256, 256, 3), np.uint8)
    image[:, :128, 2] = 255
    Image.fromarray(image).save(tmp_path / "in/a.png")
    _, (row,) = _predict(tmp_path, Undecided(crop_size=(64, 64)), tile_size=64, tile_overlap=0.0)
    assert row["class"] == "normal" and row["probability"] == pytest.approx(0.48)
    assert row["foreground_share"] == 0 and not np.load(tmp_path / "out/soft_masks/a.npy").any()


def test_a_large_image_of_such_a_class_alone_has_no_region(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.full((256, 512, 3), 255, np.uint8)).save(tmp_path / "in/a.png")
    predictor = _RedIsNormal(crop_size=(64, 64))
    predictor.calibrate_fn = calibration.CALIBRATIONS["percentiles"]
    _, (row,) = _predict(tmp_path, predictor, tile_size=64)
    assert row["class"] == "red" and row["foreground_share"] == 0 and row["flags"] == []


# Exported files.

_SIZE = (64, 64)


@pytest.fixture(scope="module")
def with_both(tmp_path_factory):
    """A saved model that calls some random images normal and others not; its folder, images of both, its answers."""
    folder = tmp_path_factory.mktemp("both")
    for name in saved_models.CLASS_NAMES:
        saved_models.write(folder / name, background_classes=(name,))
        predictor = mm.load(folder / name)
        images = verification.choose_images(predictor, _SIZE)
        expected = verification.predict(predictor, images)
        if not expected["masks"][0].any() and expected["masks"][1].any():
            label = saved_models.CLASS_NAMES.index(name)
            assert expected["probabilities"].argmax(-1)[0] == label != expected["probabilities"].argmax(-1)[1]
            return folder / name, images, expected
    raise AssertionError("no class has both kinds of masks")


def test_a_file_is_compared_on_an_empty_mask_as_well(with_both, tmp_path):
    folder, images, expected = with_both
    model_files.write(folder, tmp_path / "model.onnx", format="onnx", size=_SIZE)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    found = dict(zip(outputs, session.run(outputs, {"images": np.float32(images) / 127.5 - 1})))
    assert not found["masks"][0].any()
    np.testing.assert_allclose(found["masks"], expected["masks"], atol=1e-4)
    assert json.loads(session.get_modelmeta().custom_metadata_map["background_classes"]) == [folder.name]
    assert "without a region, mask empty" in (tmp_path / "MODEL_CARD.md").read_text()


def test_stablehlo_has_the_empty_mask_inside(with_both, tmp_path):
    pytest.importorskip("flatbuffers")
    folder, images, expected = with_both
    written = model_files.write(folder, tmp_path / "model.stablehlo", format="stablehlo", size=_SIZE)
    found = jax.export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes())).call(
        np.float32(images) / 127.5 - 1
    )
    assert not np.asarray(found["masks"])[0].any() and np.asarray(found["masks"])[1].any()
    for name in ("masks", "probabilities"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4)
    assert max(written["differences"].values()) < 1e-4
    assert "without a region, mask empty" in (tmp_path / "MODEL_CARD.md").read_text()


def test_a_model_that_never_names_such_a_class_is_said_to_be_compared_without(tmp_path, caplog):
    class Never(BrightPixels):
        background_classes = (1,)

        def __call__(self, images):
            return self.predict(images * np.array([0, 1, 1], np.uint8))

    with caplog.at_level(logging.WARNING), pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification.dataclasses, "replace", lambda predictor, **changes: predictor)
        assert len(verification.choose_images(Never(), (32, 32))) == 4
    assert "names a class without a region for none" in caplog.text


# Pages and heat maps of others.


def test_the_page_says_that_there_is_no_region():
    predictor = served.GreenMask()
    assert served.answer(served.png(served.image()), predictor)["has_region"]
    predictor.background_classes = (0,)
    answer = served.answer(served.png(np.zeros((40, 64, 3), np.uint8)), predictor)
    assert not answer["has_region"] and answer["flags"] == [] and answer["foreground_share"] == 0
    assert answer["background_entropy"] is None and list(answer["seen"]) == ["foreground"]
    seen = served.pixels(answer["seen"]["foreground"])
    assert (seen == 0).all()  # the whole image, not what an empty mask shows, which is grey


# Preparing.


def _write_normal(root, mask=None):
    """Cats with masks, and normal images, with a mask file for one of them if it is given."""
    for split, count in (("train", 3), ("valid", 1), ("test", 2)):
        for number in range(count):
            for name in ("cat", "normal"):
                path = f"{split}/{name}/{number}.png"
                own_layout.put(f"images/{path}", encoded.encode(own_layout.pixels(zlib.crc32(path.encode()))))(root)
                if name == "cat":
                    own_layout.put(f"masks/{path}", encoded.encode(own_layout.mask()))(root)
    if mask is not None:
        own_layout.put("masks/test/normal/0.png", encoded.encode(mask))(root)
    return root


def _declared(root):
    return dataclasses.replace(own_layout.read_folders(root), background_classes=("normal",))


def test_they_are_kept_with_the_records_and_score_heat_maps(tmp_path):
    _write_normal(tmp_path / "source", np.zeros(own_layout.SIZE, bool))
    records.prepare("tissue", lambda scratch: _declared(tmp_path / "source"), tmp_path / "data")
    for _ in range(2):  # from the records, and from their index
        split = load.load(str(tmp_path / "data"), "tissue")["test"]
        assert split.background_classes == ("normal",) and split.background_labels == (1,)
    assert "Classes without a region: normal." in summary.describe(str(tmp_path / "data"), "tissue")
    for name in split.names:
        values = np.zeros(own_layout.SIZE, np.float32)
        values[:, :12] = 0.25 * ("normal" not in name) + 0.5
        values[:, 24:] = 0.1 + 0.5 * name.endswith("normal/0.png")
        path = (tmp_path / "maps" / name).with_suffix(".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values)
    found = heat_maps.evaluate_folder(tmp_path / "maps", "tissue", "test", data_dir=str(tmp_path / "data"))
    assert found["test"]["f1_foreground"] == 100 and found["test"]["num_images_with_mask"] == 2
    assert found["test"]["false_foreground_share"] == pytest.approx(100 * (36 / 48 + 12 / 48) / 2)
    assert found["metrics"]["false_foreground_share"]["value"] == pytest.approx(50)


def test_a_foreground_or_a_box_in_an_image_without_a_region_is_refused(tmp_path):
    mask = np.zeros(own_layout.SIZE, bool)
    mask[3, 4] = True
    _write_normal(tmp_path, mask)
    with pytest.raises(
        UserError, match=r"normal/0.png has a foreground, and background_classes declares that .*'normal'"
    ):
        own_layout.check(_declared(tmp_path))
    kept = own_layout.check(_declared(tmp_path), skip_bad=True)
    assert [problem.name for problem in kept.bad] == ["test/normal/0.png"]
    own_layout.check(own_layout.read_folders(tmp_path))  # not declared


def _prepare(tmp_path, *flags):
    places = (f"--source={tmp_path / 'images'}", f"--data_dir={tmp_path / 'out'}")
    return programs.run("prepare-data", "--dataset=image_folder", "--name=tissue", *places, *flags)


@pytest.mark.slow
def test_from_the_command_line(tmp_path):
    _write_normal(tmp_path)
    done = _prepare(tmp_path, "--background_classes=norml")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "--background_classes=norml: 'norml' is no class. The classes are cat, normal." in done.stderr
    done = _prepare(tmp_path, "--background_classes=normal")
    assert done.returncode == 0 and "Classes without a region: normal." in done.stdout, done.stderr
    done = _prepare(tmp_path, "--background_classes=cat")
    assert done.returncode == 1 and "'tissue' was prepared before with normal. Delete" in done.stderr
