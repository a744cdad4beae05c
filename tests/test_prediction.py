"""Prediction of files: which, what is written, and that a killed prediction goes on."""

import csv
import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys

from absl import flags
from minmax_jax.experiments import program
import numpy as np
from PIL import Image
from pycocotools.coco import COCO
import pytest
import shapely

from minmax_jax.base import lock
from minmax_jax.base.errors import OptionError, UserError
from minmax_jax.evaluation import ImagePrediction, trust
from minmax_jax.minmax import method as minmax
from minmax_jax.prediction import batches, folder, inputs, options
from minmax_jax.prediction.outputs import image_outputs, overlays
from tests import programs
from tests.predictors import BrightPixels, stopped_after


def _disc(size, center, radius):
    y, x = np.indices(size)
    return np.hypot(y - center[0], x - center[1]) <= radius


# Which files.


def _touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_files_folders_globs_and_lists(tmp_path):
    _touch(tmp_path, "a.jpg", "more/b.PNG", "more/deep/c.tif", "more/notes.txt", "more/.hidden/d.jpg", "x1.dat")
    more = [(f"{tmp_path}/more/b.PNG", "b"), (f"{tmp_path}/more/deep/c.tif", "c")]
    found = inputs.find([f"{tmp_path}/a.jpg", f"{tmp_path}/more", f"{tmp_path}/a.jpg"])
    assert [(str(item.path), item.stem) for item in found] == [(f"{tmp_path}/a.jpg", "a"), *more]
    # A file that is named is an image, whatever its ending.
    assert [item.stem for item in inputs.find([f"{tmp_path}/x*"])] == ["x1"]
    assert inputs.find(["-"], [f"{tmp_path}/more\n", "\n", f"{tmp_path}/a.jpg\n"]) == [*found[1:], found[0]]


def test_names_of_outputs_differ(tmp_path):
    _touch(tmp_path, "a/1.jpg", "b/1.jpg", "b/1.png", "2.jpg", "A/2.JPG")
    found = inputs.find([str(tmp_path)])
    stems = [item.stem for item in found]
    assert len({stem.lower() for stem in stems}) == 5
    assert dict(zip((str(item.path.relative_to(tmp_path)) for item in found), stems))["a/1.jpg"] == "a__1_jpg"
    # The same name in two folders that were given one by one.
    both = inputs.find([str(tmp_path / "a"), str(tmp_path / "b" / "1.jpg")])
    assert len({item.stem for item in both}) == 2


@pytest.mark.parametrize(
    ("patterns", "message"),
    [(["none.jpg"], "'none.jpg' is not a file, a folder"), (["empty"], "'empty' names no image"), (["-"], "names no")],
)
def test_names_that_are_none(tmp_path, monkeypatch, patterns, message):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=message):
        inputs.find(patterns)


# Flags.


def _image_prediction(mask, *, probabilities=(0.9, 0.1), **scores):
    return ImagePrediction(0, np.array(probabilities), np.asarray(mask, np.float32), scores)


def test_flags_say_why():
    mask = _disc((40, 40), (20, 20), 10).astype(float)
    find = functools.partial(trust.find_flags, threshold=0.5, scores=minmax.SCORES)
    good = dict(foreground_entropy=0.1, background_entropy=0.65, localizer_class=0)
    assert find(_image_prediction(mask, **good)) == []
    for change, word in (
        (dict(foreground_entropy=0.5), "foreground entropy is high"),
        (dict(background_entropy=0.2), "background entropy is low"),
        (dict(localizer_class=1), "different classes"),
        (dict(view_disagreement=0.2), "mirror images"),
    ):
        (flag,) = find(_image_prediction(mask, **good | change))
        assert word in flag
    assert "nearly constant" in find(_image_prediction(np.full((40, 40), 0.6)))[0]
    # Calibration stretched it.
    assert "nearly constant" in find(_image_prediction(mask, **good, mask_spread=0.05))[0]
    assert find(_image_prediction(mask, **good, mask_spread=0.8)) == []
    assert "covers 100.0 %" in find(_image_prediction(0.55 + 0.4 * mask))[0]
    assert trust.find_model_flags({}) == trust.find_model_flags({"diagnosis": {"has_evidence": True}}) == []
    assert "no evidence" in trust.find_model_flags({"diagnosis": {"has_evidence": False}})[0]


# The folder.


def _write_image(path, size, *, red=False):
    image = np.zeros((*size, 3), np.uint8)
    image[_disc(size, (size[0] // 2, size[1] // 3), 9)] = [0, 255, 0]
    image[size[0] // 2 - 2 : size[0] // 2 + 3, size[1] // 2 - 2 : size[1] // 2 + 3, 0] = 255 * red
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return image


def _read(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.fixture
def images(tmp_path):
    """Five images of two padded shapes, and a file that is none."""
    sizes = {"a": (50, 70), "b": (64, 96), "c": (40, 45), "d": (51, 69), "e": (64, 64)}
    written = {name: _write_image(tmp_path / f"in/{name}.png", size, red=name == "b") for name, size in sizes.items()}
    (tmp_path / "in/f.png").write_bytes(b"no image")
    return written


def _predict(tmp_path, predictor=None, **options):
    return folder.predict(
        predictor or BrightPixels(),
        inputs.find([str(tmp_path / "in")]),
        tmp_path / "out",
        folder.Options(**{"batch_size": 2, "tolerance": 0.0} | options),
        model={"state_digest": "1"},
        results={},
    )


def test_files_of_each_image_and_tables_of_all(tmp_path, images):
    manifest = _predict(tmp_path, geojson=True, coco=True, soft_masks=True)
    out = tmp_path / "out"
    assert json.loads((out / "manifest.json").read_text()) == manifest
    assert manifest["num_images"] == 5 and [pathlib.Path(item["path"]).name for item in manifest["skipped"]] == [
        "f.png"
    ]
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    with (out / "predictions.csv").open(newline="", encoding="utf-8-sig") as file:
        table = list(csv.DictReader(file))
    assert [row["stem"] for row in table] == list(images)
    assert {row["stem"]: row["class"] for row in rows} == {name: "red" if name == "b" else "plain" for name in images}
    described = json.loads((out / "coco.json").read_text())
    assert [image["height"] for image in described["images"]] == [image.shape[0] for image in images.values()]
    for number, (name, image) in enumerate(images.items(), 1):
        true = image[..., 1] > 127
        np.testing.assert_array_equal(_read(out / f"masks/{name}.png"), 255 * true.astype(np.uint8))
        np.testing.assert_array_equal(np.load(out / f"soft_masks/{name}.npy") > 0.5, true)
        assert _read(out / f"overlays/{name}.png").shape == image.shape
        (item,) = json.loads((out / f"geojson/{name}.geojson").read_text())["features"]
        assert shapely.geometry.shape(item["geometry"]).area == true.sum()  # tolerance 0
        assert item["properties"]["measurements"]["Area px"] == true.sum()
        assert item["properties"]["measurements"]["Mean score"] == pytest.approx(1)
        (of_image,) = [item for item in described["annotations"] if item["image_id"] == number]
        y, x = np.nonzero(true)
        assert of_image["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1] and of_image["area"] == true.sum()
        (row,) = [row for row in table if row["stem"] == name]
        assert float(row["foreground_share"]) == pytest.approx(true.mean()) and row["num_instances"] == "1"


def test_batches_have_one_padded_shape_and_one_number_of_images(tmp_path, images):
    predictor = BrightPixels()
    _predict(tmp_path, predictor)
    assert {shape[0] for shape in predictor.shapes} == {2}
    assert sorted(shape[1:3] for shape in predictor.shapes) == [(64, 64), (64, 96), (64, 96)]


def test_few_images_are_not_filled_up(tmp_path):
    _write_image(tmp_path / "in/a.png", (40, 40))
    predictor = BrightPixels()
    _predict(tmp_path, predictor, batch_size=8)
    assert predictor.shapes == [(1, 64, 64, 3)]


def test_a_killed_prediction_goes_on(tmp_path, images, monkeypatch):
    reference = _predict(tmp_path)
    (tmp_path / "out").rename(tmp_path / "reference")
    with stopped_after(monkeypatch, 3):
        _predict(tmp_path)
    out = tmp_path / "out"
    assert not (out / "manifest.json").exists()
    with (out / "predictions.jsonl").open("a") as file:
        file.write('{"path": "cut o')
    predictor = BrightPixels()
    assert _predict(tmp_path, predictor) == reference
    assert sum(shape[0] for shape in predictor.shapes) <= 4  # the two that were missing
    for name in ("predictions.csv", "masks/e.png"):
        assert (out / name).read_bytes() == (tmp_path / "reference" / name).read_bytes()
    predictor = BrightPixels()
    assert _predict(tmp_path, predictor) == reference and predictor.shapes == []


def test_other_options_need_another_folder(tmp_path, images):
    _predict(tmp_path)
    with pytest.raises(OptionError, match="holds predictions of another model, or made with other options"):
        _predict(tmp_path, threshold=0.6)


def test_files_that_changed_are_predicted_again(tmp_path, monkeypatch):
    """Another image in the place of one, and the same name in another folder."""
    for patient, red in (("p1", False), ("p2", True)):
        _write_image(tmp_path / patient / "in/a.png", (64, 64), red=red)
    classes = []
    for patient in ("p1", "p2", "p1"):
        monkeypatch.chdir(tmp_path / patient)
        found = inputs.find(["in"])
        folder.predict(BrightPixels(), found, tmp_path / "out", folder.Options(), model={}, results={})
        classes.append(json.loads((tmp_path / "out/predictions.jsonl").read_text())["class"])
    assert classes == ["plain", "red", "plain"]
    _write_image(tmp_path / "p1/in/a.png", (64, 64), red=True)
    folder.predict(BrightPixels(), found, tmp_path / "out", folder.Options(), model={}, results={})
    assert json.loads((tmp_path / "out/predictions.jsonl").read_text())["class"] == "red"


@pytest.mark.parametrize("kind", ["mask", "overlay", "soft_mask", "geojson", "coco"])
def test_an_image_with_a_missing_output_is_predicted_again(tmp_path, images, kind):
    wanted = {"geojson": True, "coco": True, "soft_masks": True}
    reference = _predict(tmp_path, **wanted)
    path = tmp_path / "out" / image_outputs.files("b", folder.Options(**wanted))[kind]
    content = path.read_bytes()
    path.unlink()
    predictor = BrightPixels()
    assert _predict(tmp_path, predictor, **wanted) == reference
    assert [shape[1:3] for shape in predictor.shapes] == [(64, 96)]
    assert path.read_bytes() == content


def test_a_kill_leaves_no_row_of_an_image_that_is_predicted_again(tmp_path, images, monkeypatch):
    _predict(tmp_path)
    (tmp_path / "out/masks/b.png").unlink()
    with stopped_after(monkeypatch, 0):
        _predict(tmp_path)
    rows = [json.loads(line)["stem"] for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    assert rows == ["a", "c", "d", "e"]


def test_a_second_prediction_into_a_folder_is_refused(tmp_path, images):
    (tmp_path / "out").mkdir()
    message = rf"^--output='{tmp_path}/out' is in use: process {os.getpid()} on .* predicts in it. Wait for it"
    with lock.hold(tmp_path / "out", work="predicts"), pytest.raises(lock.LockedError, match=message):
        _predict(tmp_path)
    assert _predict(tmp_path)["num_images"] == 5


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), r"out cannot be written \(No space left .* 0.0 MiB are needed\)"),
        (OSError(5, "Input/output error"), r"out cannot be written \(\[Errno 5\] Input/output error\)"),
    ],
)
def test_errors_of_writing_end_the_prediction(tmp_path, images, monkeypatch, error, message):
    def fail(*arguments, **named):
        raise error

    monkeypatch.setattr(image_outputs.png, "write", fail)
    with pytest.raises(UserError, match=message):
        _predict(tmp_path)
    assert not (tmp_path / "out/manifest.json").exists()


def test_an_output_that_cannot_be_opened_is_named(tmp_path, images):
    (tmp_path / "out/masks/a.png").mkdir(parents=True)
    (tmp_path / "out/options.json").write_text("{}")
    state = {"model": {"state_digest": "1"}, "options": dataclasses.asdict(folder.Options(batch_size=2, tolerance=0.0))}
    (tmp_path / "out/options.json").write_text(json.dumps(state))
    with pytest.raises(IsADirectoryError, match="masks/a.png"):
        _predict(tmp_path)


def test_the_path_of_the_model_may_change(tmp_path, images):
    found = inputs.find([str(tmp_path / "in/a.png")])
    for workdir in ("/one", "/copy"):
        predictor = BrightPixels()
        manifest = folder.predict(
            predictor, found, tmp_path / "out", folder.Options(), model={"d": "1"}, results={}, workdir=workdir
        )
        assert manifest["workdir"] == workdir
    assert predictor.shapes == []


# Tables and annotations.


def test_coco_names_files_below_the_folder_that_was_given(tmp_path, images):
    _write_image(tmp_path / "in/more/a.png", (40, 40))
    _predict(tmp_path, coco=True)
    described = json.loads((tmp_path / "out/coco.json").read_text())
    assert [image["file_name"] for image in described["images"]] == [f"{name}.png" for name in "abcde"] + ["more/a.png"]
    assert all((tmp_path / "in" / image["file_name"]).is_file() for image in described["images"])
    assert described["info"]["folder"] == str(tmp_path / "in") and described["licenses"] == []


def test_names_of_files_in_several_folders(tmp_path):
    _touch(tmp_path, "x/a/1.png", "x/b/2.png", "x/b/1.png", "x/c.png")
    below = functools.partial(os.path.join, tmp_path)
    both = inputs.find([below("x/a"), below("x/b/2.png")])
    assert inputs.name_files(both) == (["1.png", "2.png"], "")
    # One name of two files.
    both = inputs.find([below("x/a"), below("x/b")])
    assert inputs.name_files(both) == (["a/1.png", "b/1.png", "b/2.png"], below("x"))
    assert inputs.name_files(inputs.find([below("x")])) == (["a/1.png", "b/1.png", "b/2.png", "c.png"], below("x"))


def test_pycocotools_reads_annotations(tmp_path, images, capsys):
    _predict(tmp_path, coco=True)
    loaded = COCO(str(tmp_path / "out/coco.json"))
    loaded.info()
    capsys.readouterr()
    assert loaded.getCatIds() == [1, 2] and sorted(loaded.anns) == [1, 2, 3, 4, 5]
    for number, (name, image) in enumerate(images.items(), 1):
        (annotation,) = loaded.loadAnns(loaded.getAnnIds([number]))
        assert isinstance(annotation["segmentation"]["counts"], str)
        np.testing.assert_array_equal(loaded.annToMask(annotation), image[..., 1] > 127)
        assert loaded.loadCats(annotation["category_id"])[0]["name"] == ("red" if name == "b" else "plain")


def test_the_table_opens_in_excel(tmp_path):
    for name in ("Größe.png", "=cmd.png", "00123.png", "plain.png"):
        _write_image(tmp_path / "in" / name, (64, 64))
    _predict(tmp_path)
    content = (tmp_path / "out/predictions.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbfpath,stem,")
    table = list(csv.DictReader(content.decode("utf-8-sig").splitlines()))
    assert {row["stem"] for row in table} == {"Größe", "'=cmd", "'00123", "plain"}
    exact = [json.loads(line)["stem"] for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    assert set(exact) == {"Größe", "=cmd", "00123", "plain"}


# Folders.


@pytest.mark.parametrize("state", [None, "no JSON", "[]", '{"of": "another program"}'])
def test_a_folder_of_others_is_left_as_it_is(tmp_path, images, state):
    files = {"masks/a.png": "a true mask", "unfinished/notes.txt": "notes", "predictions.jsonl": "{}\n"}
    files |= {} if state is None else {"options.json": state}
    for name, text in files.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text(text)
    with pytest.raises(OptionError, match="is not empty, and holds no predictions. Choose another folder"):
        _predict(tmp_path)
    there = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {path.relative_to(tmp_path / "out").as_posix(): path.read_text() for path in there} == files


@pytest.mark.parametrize("name", ["options.json.4321.new", lock.NAME])
def test_what_a_call_leaves_that_is_killed_at_once_is_no_obstacle(tmp_path, images, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("")
    assert _predict(tmp_path)["num_images"] > 0


@pytest.mark.parametrize("name", ["options.json.new.txt", "my_options.json.1.new", "notes.new"])
def test_another_file_is_an_obstacle(tmp_path, images, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("")
    with pytest.raises(OptionError, match="is not empty, and holds no predictions. Choose another folder"):
        _predict(tmp_path)


def test_what_was_written_is_no_input(tmp_path, monkeypatch):
    _touch(tmp_path, "a.jpg", "out/masks/a.png", "out/overlays/a.png")
    monkeypatch.chdir(tmp_path)
    for pattern in (".", str(tmp_path), "**/*"):
        assert [item.stem for item in inputs.find([pattern], output=pathlib.Path("out"))] == ["a"]
    # Unless it is named.
    assert [item.stem for item in inputs.find(["out/masks/a.png"], output=pathlib.Path("out"))] == ["a"]


def test_names_that_file_systems_or_tables_do_not_take(tmp_path):
    names = [os.fsdecode(b"caf\xe9.png"), f"{'x' * 249}a.png", f"{'x' * 249}b.png"]
    for name in names:
        _write_image(tmp_path / "in" / name, (64, 64))
    manifest = _predict(tmp_path, geojson=True)
    assert manifest["num_images"] == 3 and manifest["skipped"] == []
    assert len(list((tmp_path / "out/geojson").iterdir())) == 3
    with (tmp_path / "out/predictions.csv").open(newline="", encoding="utf-8-sig") as file:
        assert r"caf\udce9" in {row["stem"] for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threshold", 0),
        ("min_area", 0),
        ("batch_size", 0),
        ("tolerance", -1),
        ("tolerance", float("nan")),
        ("geojson", "zip"),
        ("geojson_type", "cell"),
        ("soft_masks", "png"),
    ],
)
def test_impossible_options_are_named(field, value):
    with pytest.raises(OptionError, match=f"{field}="):
        folder.Options(**{field: value})


def test_a_flag_that_is_given_alone_or_with_a_value():
    values = flags.FlagValues()
    flags.DEFINE_flag(program.create_bool_or("geojson", "gz", "Polygons."), values)
    for argument, value in (
        ("--geojson", True),
        ("--nogeojson", False),
        ("--geojson=gz", "gz"),
        ("--geojson=0", False),
    ):
        values(["program", argument])
        assert values.geojson == value
    with pytest.raises(flags.IllegalFlagValueError, match="--geojson=zip: value must be true, false or gz"):
        values(["program", "--geojson=zip"])


def test_a_line_for_each_reason_to_skip_files(tmp_path, caplog):
    _touch(tmp_path / "in", *(f"{index}.jpg" for index in range(4)))
    (tmp_path / "in/4.jpg").write_bytes(b"abc")
    manifest = _predict(tmp_path)
    assert len(manifest["skipped"]) == 5
    said = [record.message for record in caplog.records if "kipped" in record.message]
    assert ["0.jpg cannot be read" in said[0], "4.jpg cannot be read" in said[1], len(said)] == [True, True, 3]
    assert (
        said[2]
        == f"3 more images were skipped for the same reasons: {tmp_path / 'out' / 'manifest.json'} will list all."
    )


def test_images_that_are_too_small_are_skipped(tmp_path):
    _write_image(tmp_path / "in/a.png", (64, 64))
    Image.new("RGB", (10, 10)).save(tmp_path / "in/b.png")
    (skipped,) = _predict(tmp_path)["skipped"]
    assert skipped["path"].endswith("b.png")
    # The log has nothing but the reason.
    assert skipped["reason"] == (
        f"{tmp_path}/in/b.png: images of 10x10 pixels become 10x10 at scale=1.0; each side needs at least 32."
    )


def test_an_unreadable_file_does_not_end_the_batches(tmp_path, images):
    found = inputs.find([str(tmp_path / "in")])
    answers = list(batches.predict(BrightPixels(), found, options.Options(batch_size=2), scratch=tmp_path / "scratch"))
    kinds = [type(answer).__name__ for answer in answers]
    assert sorted(kinds) == ["Predicted"] * 5 + ["Skipped"]


def test_photographs_of_all_sizes_share_four_shapes(tmp_path):
    sizes = [(40 + 30 * (number % 3), 64 + 32 * number) for number in range(9)]
    for number, size in enumerate(sizes):
        _write_image(tmp_path / f"in/{number}.png", size)
    predictor = BrightPixels()
    chosen = options.Options(batch_size=2)
    found = inputs.find([str(tmp_path / "in")])
    answers = list(batches.predict(predictor, found, chosen, scratch=tmp_path / "scratch"))
    assert len({shape[1:3] for shape in predictor.shapes}) <= 4
    predictor.reads_canvases = False
    alone = list(batches.predict(predictor, found, chosen, scratch=tmp_path / "scratch"))
    assert len({shape[1:3] for shape in predictor.shapes}) > 8
    masks = [{answer.source.input.stem: answer.mask for answer in both} for both in (answers, alone)]
    assert len(masks[0]) == 9 and {mask.shape for mask in masks[0].values()} == set(sizes)
    for stem, mask in masks[0].items():
        np.testing.assert_array_equal(mask, masks[1][stem])
    assert {a.prediction.predicted for a in answers} == {a.prediction.predicted for a in alone}


def test_what_is_resumed_is_computed_by_the_same_programs(tmp_path):
    for number in range(9):
        _write_image(tmp_path / f"in/{number}.png", (40 + 30 * (number % 3), 64 + 32 * number))
    found = inputs.find([str(tmp_path / "in")])
    whole, resumed = BrightPixels(), BrightPixels()
    arguments = {"options": options.Options(batch_size=2), "scratch": tmp_path / "scratch"}
    list(batches.predict(whole, found, **arguments))
    list(batches.predict(resumed, found[-1:], all_inputs=found, **arguments))
    assert len(resumed.shapes) == 1 and resumed.shapes[0] in whole.shapes and resumed.shapes[0][0] == 2


@pytest.mark.slow
def test_from_the_command_line(tiny_run, tmp_path, images):
    flags = (f"--workdir={tiny_run[0]}", f"--output={tmp_path}/out")
    command = [sys.executable, "-m", "experiments.predict", *flags]
    options = dict(cwd=programs.ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONWARNINGS": "ignore"})
    chosen = [
        "--geojson=gz",
        "--soft_masks=ome-tiff",
        "--geojson_type=detection",
        "--tile_size=48",
        "--flips",
        "--scales=1",
        "--microns_per_pixel=0.5",
        "-",
    ]
    done = subprocess.run([*command, *chosen], input=f"{tmp_path}/in\n", **options)
    assert done.returncode == 3, done.stderr
    assert "5 images predicted" in done.stdout and "1 skipped" in done.stdout and "f.png cannot be read" in done.stderr
    assert json.loads((tmp_path / "out/manifest.json").read_text())["num_images"] == 5
    assert len(list((tmp_path / "out/geojson").glob("*.geojson.gz"))) == 5
    assert len(list((tmp_path / "out/soft_masks").glob("*.ome.tif"))) == 5
    state = json.loads((tmp_path / "out/options.json").read_text())
    assert state["model"]["flips"] == {"horizontal": True, "vertical": True}
    assert state["options"]["tile_size"] == 48 and state["options"]["microns_per_pixel"] == 0.5
    rows = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    assert all((row["num_tiles"] > 1) == (row["width"] > 64) for row in rows)  # tiles need no padding
    done = programs.run("predict", *flags, "--refine", str(tmp_path / "in"))
    assert done.returncode == 1 and "--refine=True needs a second stage" in done.stderr
    done = programs.run("predict", *flags, "--geojson=zip", str(tmp_path / "in"))
    assert done.returncode == 1 and "--geojson=zip: value must be true, false or gz" in done.stderr
    for flag in ("--crf", "--nocrf"):
        done = programs.run("predict", *flags, flag, str(tmp_path / "in"))
        assert done.returncode == 1 and "evaluate --crf measures a run with one" in done.stderr
    done = programs.run("predict", *flags)
    assert done.returncode == 1 and "give at least one PATH" in done.stderr
    done = programs.run("predict", *flags, "none.jpg")
    assert done.returncode == 1 and "'none.jpg' is not a file" in done.stderr


def test_an_overlay_is_a_quarter_yellow_in_the_foreground_and_the_image_elsewhere():
    """All bytes of all channels, away from the outline, which is at most two pixels wide."""
    image = np.stack([np.tile(np.arange(256, dtype=np.uint8), (40, 1))] * 3, axis=-1)
    mask = np.zeros((40, 256), np.float32)
    mask[:20] = 0.5
    drawn = np.asarray(overlays.draw(image, mask, threshold=0.5, width=1))
    np.testing.assert_array_equal(drawn[24:], image[24:])
    expected = [[int(0.75 * value + 0.25 * color) for color in (255, 212, 0)] for value in range(4, 252)]
    np.testing.assert_array_equal(drawn[8, 4:252], expected)
