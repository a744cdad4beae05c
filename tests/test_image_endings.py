"""Which files of a folder are images, for prediction and preparation alike; all others are counted."""

import ast
import json
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image, features
import pytest

from minmax_jax.base.errors import OptionError
from minmax_jax.data import dataset, image_endings
from minmax_jax.data.importing import image_folder, mask_rules
from minmax_jax.prediction import folder, inputs
from tests import encoded, own_layout
from tests.predictors import BrightPixels

LITTER = (".DS_Store", "._a.jpg", "Thumbs.db", "desktop.ini", "__MACOSX/._a.jpg", ".hidden/b.png")
IMAGE = encoded.encode(own_layout.pixels(0))


def _put(root: pathlib.Path, *names: str, content: bytes = b"x") -> None:
    for name in names:
        own_layout.put(name, content)(root)


def test_endings_are_those_that_pillow_and_openslide_read():
    found = image_endings.endings()
    assert {".jpg", ".jpe", ".jfif", ".jp2", ".j2k", ".png", ".apng", ".tif", ".tiff", ".bmp", ".gif"} <= found
    assert {".svs", ".ndpi", ".mrxs", ".dcm", ".webp", ".ppm", ".pgm", ".tga", ".btf", ".lsm", ".mpo"} <= found
    assert (".avif" in found) == features.check("avif")
    # Formats that Pillow writes only, recognises only, or reads by another program.
    assert not found & {".pdf", ".h5", ".hdf", ".mpg", ".eps", ".ps", ".grib", ".emf", ".txt", ".json", ""}


def test_a_format_that_this_build_of_pillow_lacks_has_no_endings(monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: name != "webp")
    image_endings.formats.cache_clear()
    image_endings.endings.cache_clear()
    try:
        assert ".webp" not in image_endings.endings() and ".jp2" in image_endings.endings()
    finally:
        monkeypatch.undo()
        image_endings.formats.cache_clear()
        image_endings.endings.cache_clear()


def test_common_formats_are_asked_first():
    """In another process. Otherwise Pillow asks others before JPEG, of which some, such as IM, must read the file."""
    program = (
        "from minmax_jax.data import image_endings; from PIL import Image; image_endings.formats(); print(Image.ID)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    order = ast.literal_eval(done.stdout)
    assert max(map(order.index, ("BMP", "GIF", "JPEG", "PNG", "PPM"))) < order.index("IM")


def test_pictures_of_phones_with_further_frames_are_images(tmp_path):
    pictures = [Image.fromarray(own_layout.pixels(seed)) for seed in range(2)]
    for name in ("a.mpo", "IMG_2"):
        pictures[0].save(tmp_path / name, "MPO", save_all=True, append_images=pictures[1:])
    found = inputs.find([str(tmp_path)])
    assert [item.path.name for item in found] == ["IMG_2", "a.mpo"] and not found.left_out


def test_what_a_folder_holds_besides_is_counted(tmp_path):
    _put(
        tmp_path, "a.JFIF", "b.jp2", "c.avif", "d.dcm", "sub/e.jpe", "x.txt", "sub/y.TXT", "z.photo", "LICENSE", *LITTER
    )
    _put(tmp_path, "IMG_1", content=IMAGE)  # without ending: by its content
    found = inputs.find([str(tmp_path), str(tmp_path / "z.photo")])
    assert [item.path.name for item in found] == ["IMG_1", "a.JFIF", "b.jp2", "c.avif", "d.dcm", "e.jpe", "z.photo"]
    assert found.left_out == {".txt": 2, "": 1}
    assert [item.path.name for item in inputs.find([f"{tmp_path}/*.txt"])] == ["x.txt"]
    assert "Thumbs.db" not in [item.path.name for item in inputs.find([f"{tmp_path}/*"])]
    # The output of the prediction is no input, nor left out.
    assert inputs.find([str(tmp_path)], output=tmp_path / "sub").left_out == {".photo": 1, "": 1, ".txt": 1}


def test_the_sentence():
    assert image_endings.describe({".txt": 2, ".photo": 1}) == (
        "3 files with other endings were left out: 2 .txt, 1 .photo"
    )
    assert image_endings.describe({"": 1}) == "1 file with another ending was left out: 1 without ending"
    many = image_endings.describe({f".{letter}": 1 for letter in "abcdefg"})
    assert many == "7 files with other endings were left out: 1 .a, 1 .b, 1 .c, 1 .d, 1 .e and others"


def test_a_folder_without_an_image_says_what_it_holds(tmp_path):
    _put(tmp_path, "a.txt", "b.txt")
    with pytest.raises(OptionError, match="names no image: 2 files with other endings were left out: 2 .txt"):
        inputs.find([str(tmp_path)])


def test_a_prediction_counts_them_in_log_and_manifest(tmp_path, caplog):
    own_layout.put("in/a.jfif", encoded.encode(own_layout.pixels(0), "JPEG"))(tmp_path)
    own_layout.put("in/dark.tif", encoded.encode(np.full((40, 40), 4000, np.uint16), "TIFF"))(tmp_path)
    _put(tmp_path, "in/notes.txt", "in/b.photo")
    found = inputs.find([str(tmp_path / "in")])
    options = folder.Options(batch_size=2)
    result = folder.predict(
        BrightPixels(), found, tmp_path / "out", options, model={}, results={}, left_out=found.left_out
    )
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest == result and manifest["left_out"] == {".photo": 1, ".txt": 1} and manifest["num_images"] == 2
    assert "2 files with other endings were left out: 1 .photo, 1 .txt." in caplog.text
    assert "1 of 2 images use at most 4095 of 65535 values" in caplog.text
    assert "--intensity=percentiles" in caplog.text
    rows = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    rows = {row["stem"]: row for row in rows}
    assert rows["dark"]["not_read"] == {"dark": 4095} and rows["a"]["not_read"] == {}
    assert "the image uses at most 4095 of 65535 values: it is dark" in rows["dark"]["flags"]
    assert not any("dark" in flag for flag in rows["a"]["flags"])


def test_own_images_are_found_by_the_same_list(tmp_path, caplog):
    for name in ("cat", "dog"):
        for number, ending in enumerate((".jfif", ".jp2", ".tif", "")):
            _put(tmp_path, f"{name}/{number}{ending}", content=IMAGE)
    _put(tmp_path, "cat/notes.txt", "dog/more.txt", "dog/a.photo", *(f"cat/{name}" for name in LITTER[:4]))
    raw = image_folder.read_raw(str(tmp_path), mask_rule=mask_rules.above(0))
    assert len(list(raw)) == 8
    assert "3 files with other endings were left out: 2 .txt, 1 .photo." in caplog.text
    _put(tmp_path, "bird/a.txt")
    with pytest.raises(dataset.DataError, match=r"bird holds no images \(1 file with another ending .* 1 .txt"):
        image_folder.read_raw(str(tmp_path), mask_rule=mask_rules.above(0))


def test_images_without_ending_are_those_of_formats_that_are_read(tmp_path):
    Image.fromarray(own_layout.pixels(0)).save(tmp_path / "a", "PNG")
    (tmp_path / "b").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    assert [image_endings.is_image(tmp_path / name) for name in ("a", "b", "c")] == [True, False, False]
