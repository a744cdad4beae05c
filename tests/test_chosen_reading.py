"""Channels and intensities that a dataset is prepared with: stored, in the model card, and the same in prediction."""

import dataclasses
import json

import numpy as np
import pytest
import tifffile

from minmax_jax.base.errors import UserError
from minmax_jax.data import dataset, load, preprocessing, readings, slides
from minmax_jax.data.importing import image_folder, mask_rules, records, tiles
from minmax_jax.prediction import folder, inputs
from minmax_jax.runs import predictor as predictor_lib
from minmax_jax.runs.folder import digests
from minmax_jax.serve import answers
from tests import encoded, own_layout, programs, saved_models, served, tiled_tiff
from tests.predictors import BrightPixels

CHOSEN = readings.Reading("percentiles", (2, 0))


def _five(seed, size=(40, 48)):
    """[5, H, W] uint16 of 12 bits."""
    return np.random.default_rng(seed).integers(0, 4096, (5, *size)).astype(np.uint16)


def _write_five(path, seed, size=(40, 48)):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, _five(seed, size), ome=True, photometric="minisblack", metadata={"axes": "CYX"})
    return path


def _expected(values):
    """Channels 2 and 0 as red and green, percentiles 1 and 99 as 0 and 255."""
    shown = np.zeros((*values.shape[1:], 3), np.uint8)
    for place, channel in enumerate((2, 0)):
        low, high = np.percentile(values[channel], (1, 99))
        shown[..., place] = np.round(np.clip((values[channel] - low) * 255 / (high - low), 0, 255))
    return shown


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(("cat", "dog")):
        for index in range(5):
            _write_five(tmp_path / f"images/{name}/{index}.tif", 10 * number + index)
    return tmp_path


def _read(root, reading=CHOSEN):
    raw = image_folder.read_raw(str(root / "images"), mask_rule=mask_rules.above(0))
    return dataclasses.replace(raw, reading=reading)


def test_prepared_data_know_how_they_were_read(root):
    records.prepare("cells", lambda scratch: _read(root), root / "out")
    parts = load.load(str(root / "out"), "cells")
    for part in parts.values():
        assert part.reading == CHOSEN
        for index, name in enumerate(part.names):
            seed = 10 * name.startswith("dog") + int(name[4])
            np.testing.assert_allclose(part.read_image(index), _expected(_five(seed)), atol=1)
    whole = dataset.concatenate(parts["train"], parts["test"])
    prepared = dataset.preprocess(dataset.only_classes(whole, ("dog", "cat")), preprocessing.Preprocessing())
    assert prepared.reading == CHOSEN
    # A run goes on with the same reading only; the digest of data that are read as stored is that of earlier versions.
    digest = digests.split_digest(whole)
    assert digest != digests.split_digest(dataclasses.replace(whole, reading=readings.AS_STORED))
    path = root / "out/cells" / load.VERSION / "metadata.json"
    assert json.loads(path.read_text()) == {"reading": {"intensity": "percentiles", "channels": [2, 0]}}
    path.write_text('{"reading": {"intensity": "percentiles"}}')
    with pytest.raises(UserError, match="cells/2.0.0 is damaged .metadata.json: 'channels'"):
        load.load(str(root / "out"), "cells")


def test_a_preparation_counts_what_is_not_read(root, caplog):
    own_layout.put("images/cat/9.png", encoded.encode(own_layout.pixels(0)))(root)
    own_layout.check(_read(root, readings.AS_STORED))
    assert "10 of 11 images use at most 4095 of 65535 values" in caplog.text
    assert "they become dark. Add --intensity=percentiles." in caplog.text
    assert "10 of 11 images have several channels, up to 5" in caplog.text and "--channels=0,1,2" in caplog.text
    caplog.clear()
    with pytest.raises(UserError, match=r"cat/9.png has 3 channels, 0 to 2, and channels=4,0 are read"):
        own_layout.check(_read(root, readings.Reading(channels=(4, 0))))


def test_tiles_are_scaled_by_the_percentiles_of_their_image(root):
    path = _write_five(root / "large.tif", 3, (64, 96))
    image = slides.open_image(path, CHOSEN)
    expected = _expected(_five(3, (64, 96)))
    np.testing.assert_allclose(image.read((0, 0, 64, 96), (64, 96)), expected, atol=1)
    np.testing.assert_allclose(image.read((16, 32, 48, 64), (32, 32)), expected[16:48, 32:64], atol=1)
    raw = _read(root)
    item = dataclasses.replace(next(iter(raw)), image=path)
    first, *_ = tiles.read_records(item, raw, tiling=tiles.Tiling(32, min_tissue=0))
    assert first["lossy"] == {}


def test_channels_and_percentiles_of_a_slide(tmp_path):
    pytest.importorskip("openslide")
    pixels = (np.random.default_rng(0).integers(50, 101, (128, 192, 3))).astype(np.uint8)
    (tmp_path / "slide.tif").write_bytes(tiled_tiff.encode(pixels))
    image = slides.open_image(tmp_path / "slide.tif", readings.Reading("percentiles", (2,)))
    low, high = np.percentile(pixels[..., 2], (1, 99))
    expected = np.round(np.clip((pixels[..., 2] - low) * 255.0 / (high - low), 0, 255))
    window = image.read((0, 64, 64, 128), (64, 64))
    np.testing.assert_allclose(window, expected[:64, 64:128, None].repeat(3, -1), atol=1)
    with pytest.raises(UserError, match="slide.tif has 3 channels, 0 to 2, and channels=3 are read"):
        slides.open_image(tmp_path / "slide.tif", readings.Reading(channels=(3,)))


@pytest.mark.parametrize("kind", ["OME-TIFF", "16 bits"])
def test_a_tiled_tiff_that_openslide_would_cut_is_read_whole(tmp_path, kind):
    values = _five(0, (96, 128))
    options = {"tile": (32, 32), "compression": "zlib", "photometric": "minisblack"}
    if kind == "OME-TIFF":
        tifffile.imwrite(tmp_path / "a.tif", values, ome=True, metadata={"axes": "CYX"}, **options)
    else:
        tifffile.imwrite(tmp_path / "a.tif", values[0], **options)
    image = slides.open_image(tmp_path / "a.tif")
    assert image.lossy == {"dark": 4095} | ({"channels": 5} if kind == "OME-TIFF" else {})
    np.testing.assert_array_equal(image.read((0, 0, 96, 128), (96, 128))[..., 1], values[0] >> 8)


def test_a_prediction_reads_as_the_training_did(root):
    predictor = BrightPixels()
    predictor.card["reading"] = CHOSEN.to_json()
    own_layout.put("in/a.tif", (root / "images/cat/0.tif").read_bytes())(root)
    own_layout.put("in/grey.png", encoded.encode(own_layout.pixels(0)[..., 0]))(root)
    manifest = folder.predict(
        predictor, inputs.find([str(root / "in")]), root / "out", folder.Options(soft_masks=True), model={}, results={}
    )
    assert "grey.png has one channel, 0, and channels=2,0 are read" in manifest["skipped"][0]["reason"]
    # The mask of this predictor is green.
    np.testing.assert_allclose(np.load(root / "out/soft_masks/a.npy"), _expected(_five(0))[..., 1] / 255, atol=5e-3)


def test_serve_reads_as_the_training_did(root):
    content = (root / "images/cat/0.tif").read_bytes()
    predictor = served.GreenMask()
    predictor.card["reading"] = CHOSEN.to_json()
    prepared = answers.prepare(predictor, content, limits=answers.Limits())
    np.testing.assert_allclose(prepared.image, _expected(_five(0)), atol=1)
    assert prepared.flags == ()
    flags = answers.prepare(served.GreenMask(), content, limits=answers.Limits()).flags
    assert any("4095 of 65535" in flag for flag in flags) and any("has 5 channels" in flag for flag in flags)


def test_serve_names_what_it_does_not_read():
    five = np.zeros((40, 40, 5), np.uint8)
    for content, message in (
        (tiled_tiff.encode(five), "has 5 channels of 8 bits"),
        (tiled_tiff.encode(five[..., 0], compression=50002), "compression .JPEG XL. is not supported"),
        (b"\xff\x0a" + bytes(50), "The file is JPEG XL, which is not read here"),
    ):
        with pytest.raises(UserError, match=message):
            answers.prepare(served.GreenMask(), content, limits=answers.Limits())


def test_a_model_reads_files_by_its_card(root):
    saved_models.write(root / "run")
    path, card_path = root / "images/cat/0.tif", root / "run/model_card.json"
    card = json.loads(card_path.read_text())
    assert card["reading"] == readings.AS_STORED.to_json()
    np.testing.assert_array_equal(predictor_lib.load(root / "run").read(path)[..., 2], _five(0)[0] >> 8)
    del card["reading"]  # of an earlier version
    card_path.write_text(json.dumps(card))
    assert predictor_lib.load(root / "run").read(str(path)).shape == (40, 48, 3)
    card_path.write_text(json.dumps(card | {"reading": CHOSEN.to_json()}))
    model = predictor_lib.load(root / "run")
    np.testing.assert_allclose(model.read(path.read_bytes()), _expected(_five(0)), atol=1)
    with pytest.raises(UserError, match="The file has one channel, 0, and channels=2,0 are read"):
        model.read(encoded.encode(own_layout.pixels(0)[..., 0]))
    for wrong in ({"intensity": "all", "channels": []}, {"intensity": "full"}, 3):
        card_path.write_text(json.dumps(card | {"reading": wrong}))
        with pytest.raises(UserError, match="model_card.json: reading=.* is none. Get an intact copy"):
            predictor_lib.load(root / "run")


def _run(*command):
    done = programs.run(*command, ignore_warnings=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_from_channels_to_a_prediction(root):
    source = ("--dataset=image_folder", "--name=cells", f"--source={root / 'images'}", f"--data_dir={root / 'out'}")
    status, text = _run("prepare-data", *source, "--intensity=percentiles", "--channels=2,0")
    assert status == 0, text
    status, text = _run("prepare-data", *source, "--channels=1")
    assert status == 1 and "--intensity=full and channels='1'" in text and "with 'percentiles' and '2,0'" in text
    status, text = _run(
        "train",
        *("--config=configs/custom.py:cells,scratch", f"--config.data.dir={root / 'out'}"),
        *("--config.data.max_side=32", "--config.model.resnet.width=4", "--config.train.epochs=1"),
        *("--config.model.resnet.stage_sizes=(1,)", "--config.model.resnet.stage_strides=(1,)"),
        *("--config.batch_size=4", f"--workdir={root / 'run'}"),
    )
    assert status == 0, text
    assert json.loads((root / "run/model_card.json").read_text())["reading"] == CHOSEN.to_json()
    model = predictor_lib.load(root / "run")
    np.testing.assert_allclose(model.read(root / "images/cat/0.tif"), _expected(_five(0)), atol=1)
    status, text = _run("predict", f"--workdir={root / 'run'}", f"--output={root / 'masks'}", f"{root}/images/cat")
    assert status == 0 and "5 images predicted" in text and "dark" not in text
