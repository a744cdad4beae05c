"""Prepared records are read by TensorFlow Datasets alone, without TensorFlow and without this library."""

import io
import subprocess
import sys
import textwrap

import numpy as np
from PIL import ExifTags, Image
import pytest
import tensorflow_datasets as tfds

from minmax_jax.data import load
from minmax_jax.data.importing import csv_files, mask_rules, record_files, records
from tests import encoded, own_layout, programs

SIZE = own_layout.SIZE


def _exif(tag):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = tag
    return exif


def _palette():
    return np.asarray(Image.fromarray(own_layout.pixels(1)).quantize(16).convert("RGB"))


def _encode_palette():
    buffer = io.BytesIO()
    Image.fromarray(own_layout.pixels(1)).quantize(16).save(buffer, "PNG")
    return buffer.getvalue()


def _cmyk():
    buffer = io.BytesIO()
    Image.fromarray(own_layout.pixels(2)).convert("CMYK").save(buffer, "JPEG")
    return buffer.getvalue()


def _keyed(value):
    """Rows of one colour above noise that does not have it."""
    pixels = own_layout.pixels(12) | 8
    pixels[:10] = value
    return pixels


GREY = own_layout.pixels(3)[..., 0]
# Name, content, and what one sees where that is known without a decoder.
IMAGES = {
    "rgb.png": (encoded.encode(own_layout.pixels(0)), own_layout.pixels(0)),
    "palette.png": (_encode_palette(), _palette()),
    "cmyk.jpg": (_cmyk(), None),
    "grey.png": (encoded.encode(GREY), np.repeat(GREY[..., None], 3, axis=-1)),
    "sixteen.png": (encoded.encode(GREY.astype(np.uint16) * 256), np.repeat(GREY[..., None], 3, axis=-1)),
    "bits.png": (encoded.encode(GREY > 127), np.repeat(np.uint8(GREY > 127)[..., None] * 255, 3, axis=-1)),
    "transparent.png": (
        encoded.encode(np.dstack([own_layout.pixels(4), np.zeros(SIZE, np.uint8)])),
        np.full((*SIZE, 3), 255, np.uint8),
    ),
    "key.png": (encoded.encode(_keyed(7), transparency=(7, 7, 7)), _keyed(255)),
    "grey.jpg": (encoded.encode(GREY, "JPEG"), None),
    "colour.jpg": (encoded.encode(own_layout.pixels(5), "JPEG"), None),
    "turned.png": (encoded.encode(own_layout.pixels(6), exif=_exif(6)), np.rot90(own_layout.pixels(6), -1)),
    "turned.jpg": (encoded.encode(own_layout.pixels(7), "JPEG", exif=_exif(3)), None),
    "a.webp": (encoded.encode(own_layout.pixels(8), "WEBP", lossless=True), own_layout.pixels(8)),
    "a.gif": (
        encoded.encode(own_layout.pixels(9)[..., 0], "GIF"),
        np.repeat(own_layout.pixels(9)[..., :1], 3, axis=-1),
    ),
    "a.bmp": (encoded.encode(own_layout.pixels(10), "BMP"), own_layout.pixels(10)),
    "a.tif": (encoded.encode(own_layout.pixels(11), "TIFF"), own_layout.pixels(11)),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The images in alternate classes; three have masks, of which one has ignored pixels, with numbered objects."""
    root = tmp_path_factory.mktemp("tfds")
    for name, (content, _) in IMAGES.items():
        own_layout.put(f"images/{name}", content)(root)
    objects = np.zeros(SIZE, np.uint8)
    objects[:9, :9], objects[20:, 20:] = 3, 5
    ignored = np.where(np.arange(SIZE[1]) > 40, 255, objects).astype(np.uint8)
    for name, mask in (("rgb", objects), ("grey", ignored), ("bits", objects * 0)):
        own_layout.put(f"images/{name}_mask.png", encoded.encode(mask))(root)
    masks = {f"{name}.png": f"{name}_mask.png" for name in ("rgb", "grey", "bits")}
    rows = [f"{name},{masks.get(name, '')},{'ab'[k % 2]}\n" for k, name in enumerate(IMAGES)]
    own_layout.put("lists/train.csv", "".join(rows[:12]).encode())(root)
    own_layout.put("lists/test.csv", "".join(rows[12:]).encode())(root)
    rule = mask_rules.parse(">0", ignore="255", instances=True)
    records.prepare(
        "own", lambda _: csv_files.read_raw(str(root / "images"), str(root / "lists"), mask_rule=rule), root / "out"
    )
    return root / "out", {"rgb.png": objects, "grey.png": ignored, "bits.png": objects * 0}


def _records(folder):
    builder = tfds.builder_from_directory(str(folder))
    return {
        record["name"].decode(): record for split in builder.info.splits for record in builder.as_data_source(split)
    }


def test_images_are_arrays_and_masks_files(prepared):
    out, masks = prepared
    read = _records(out / "own" / load.VERSION)
    assert read.keys() == IMAGES.keys()
    ours = {
        name: split.read_image(index)
        for split in load.read_splits(out, "own").values()
        for index, name in enumerate(split.names)
    }
    for name, record in read.items():
        assert record["image"].dtype == np.uint8 and record["image"].shape == (*record["size"], 3)
        np.testing.assert_array_equal(record["image"], ours[name])
        if IMAGES[name][1] is not None:
            np.testing.assert_array_equal(record["image"], IMAGES[name][1])
        if name not in masks:
            assert record["mask"] == record["instances"] == b""
            continue
        mask = np.asarray(Image.open(io.BytesIO(record["mask"])))
        np.testing.assert_array_equal(mask == 1, (masks[name] > 0) & (masks[name] < 255))
        np.testing.assert_array_equal(mask == 2, masks[name] == 255)
        objects = np.asarray(Image.open(io.BytesIO(record["instances"])))
        np.testing.assert_array_equal(objects > 0, mask == 1)
        assert objects.max() == (2 if masks[name].any() else 0)


def test_the_lines_of_the_page(prepared):
    """In a process that knows neither this library nor TensorFlow."""
    out, _ = prepared
    text = (programs.ROOT / "docs" / "image_files.md").read_text()
    lines = text.partition("```python\n")[2].partition("```")[0]
    assert "as_data_source" in lines
    check = (
        "import sys; assert not {'tensorflow', 'minmax_jax'} & sys.modules.keys(); print(image.shape, sorted(record))"
    )
    script = textwrap.dedent(lines).replace("OUT/pets", f"{out}/own") + check
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("['boxes', 'image', 'instances', 'label', 'mask', 'name', 'patient', 'size']")


def test_records_of_an_earlier_version_are_still_read(tmp_path, monkeypatch):
    """It gave masks the type of images."""

    def features(class_names):
        return tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                "instances": tfds.features.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format="png"),
                "boxes": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
                "label": tfds.features.ClassLabel(names=list(class_names)),
                "name": tfds.features.Text(),
                "size": tfds.features.Tensor(shape=(2,), dtype=np.int32),
                "patient": tfds.features.Text(),
            }
        )

    monkeypatch.setattr(record_files, "features", features)
    root = own_layout.write(tmp_path)
    own_layout.remove("masks/train/cat/0.png")(root)
    records.prepare("own", lambda _: own_layout.read_folders(root), tmp_path / "out")
    records.check(str(tmp_path / "out"), "own")
    train = load.read_splits(tmp_path / "out", "own")["train"]
    first = train.names.index("train/cat/0.png")
    assert train.read_mask(first) is None and train.read_instances(first) is None
    np.testing.assert_array_equal(train.read_mask(1 - first), own_layout.mask())
