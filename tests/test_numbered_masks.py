"""Masks of own images whose values number the objects."""

import dataclasses
import io

import numpy as np
from PIL import Image
import pytest

from minmax_jax.base.errors import OptionError
from minmax_jax.data import dataset, load
from minmax_jax.data.importing import image_folder, mask_rules, raw_dataset, records, tiles
from tests import encoded, own_layout, programs

RULE = mask_rules.parse(">0", instances=True)


def _write(root, mask):
    """Eight images of two classes with one mask."""
    for seed, class_name in enumerate(4 * ("cat", "dog")):
        own_layout.put(f"images/{class_name}/{seed}.png", encoded.encode(own_layout.pixels(seed)))(root)
        own_layout.put(f"masks/{class_name}/{seed}.png", mask)(root)


def _read(root, rule=RULE, **options):
    return image_folder.read_raw(str(root / "images"), masks=str(root / "masks"), mask_rule=rule, **options)


def _prepare(root, rule=RULE, **options):
    records.prepare("cells", lambda scratch: _read(root, rule, **options), root / "out")
    return load.read_splits(str(root / "out"), "cells")


def _numbered(dtype, step=1):
    """Numbers of three objects, step, 2 * step and 3 * step; the first two touch."""
    columns = np.arange(own_layout.SIZE[1])
    values = np.select([columns < 6, columns < 12, columns > 40], [1, 2, 3], 0) * step
    return np.broadcast_to(values, own_layout.SIZE).astype(dtype)


@pytest.mark.parametrize(
    "values, options",
    [
        (_numbered(np.uint8), {}),
        (_numbered(np.uint16, 20_000), {}),
        (_numbered(np.uint8), {"palette": [0, 0, 0, 9, 9, 9, 9, 9, 9, 0, 9, 0]}),
        (np.where(_numbered(np.uint8) == 0, 255, _numbered(np.uint8)).astype(np.uint8), {"ignore": "255"}),
    ],
)
def test_values_that_number_the_objects(tmp_path, values, options):
    ignore, picture = options.pop("ignore", ""), Image.fromarray(values)
    if options:
        picture = picture.convert("P")
        picture.putpalette(options["palette"])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    _write(tmp_path, buffer.getvalue())
    test = _prepare(tmp_path, mask_rules.parse(">0", ignore=ignore, instances=True))["test"]
    records.check(str(tmp_path / "out"), "cells")
    np.testing.assert_array_equal(test.read_instances(0), _numbered(np.int32))
    np.testing.assert_array_equal(test.read_mask(0), _numbered(np.int32) > 0)


def test_more_objects_than_8_bits_can_number(tmp_path):
    values = np.arange(40 * 48, dtype=np.uint16).reshape(own_layout.SIZE)
    _write(tmp_path, encoded.encode(values + 1000))
    np.testing.assert_array_equal(_prepare(tmp_path)["test"].read_instances(0), values + 1)


def test_images_without_a_mask_and_empty_masks_have_objects_or_none(tmp_path):
    _write(tmp_path, encoded.encode(np.zeros(own_layout.SIZE, np.uint8)))
    (tmp_path / "masks" / "cat" / "0.png").unlink()
    parts = _prepare(tmp_path).values()
    found = {name: part.read_instances(index) for part in parts for index, name in enumerate(part.names)}
    assert found.pop("cat/0.png") is None and not any(numbers.any() for numbers in found.values())


@pytest.mark.parametrize(
    "content, message",
    [
        (encoded.encode(np.stack([_numbered(np.uint8)] * 3, axis=-1)), "cat/0.png: it has colours; its objects"),
        (encoded.encode(_numbered(np.float32) / 2, "TIFF"), "cat/0.png: it has fractions; its objects"),
        (encoded.encode(_numbered(np.uint8), "JPEG"), "cat/0.png is a JPEG, whose values are blurred: save it as PNG"),
    ],
)
def test_masks_that_cannot_number_objects_are_refused(tmp_path, content, message):
    _write(tmp_path, content)
    with pytest.raises(dataset.DataError, match=message):
        _prepare(tmp_path, mask_rules.parse(">127" if "JPEG" in message else ">0", instances=True))


def test_more_objects_than_16_bits_can_number_are_refused():
    values = np.arange(1, 257 * 256 + 1, dtype=np.int32).reshape(257, 256)
    with pytest.raises(dataset.DataError, match="numbers 65792 objects; at most 65535"):
        RULE.number_objects(Image.fromarray(values))


def test_numbers_of_objects_need_values_and_whole_images():
    with pytest.raises(OptionError, match="instances needs the values of the masks, which foreground='alpha'"):
        mask_rules.parse("alpha", instances=True)
    raw = raw_dataset.RawDataset(("a",), {}, RULE, description="")
    with pytest.raises(OptionError, match="instances: the numbers of objects are not kept in tiles"):
        tiles.cut(raw, tiles.Tiling(64))


def test_records_whose_objects_are_not_the_foreground_are_damaged(tmp_path, monkeypatch):
    _write(tmp_path, encoded.encode(_numbered(np.uint8)))
    read = lambda index: 0 * _numbered(np.int32)
    parts = {name: dataclasses.replace(part, read_instances=read) for name, part in _prepare(tmp_path).items()}
    monkeypatch.setattr(load, "read_splits", lambda *arguments: parts)
    with pytest.raises(dataset.DataError, match="(?s)8 problems.*the objects are not the foreground of the mask"):
        records.check(str(tmp_path / "out"), "cells")


@pytest.mark.slow
def test_from_the_command_line(tmp_path):
    _write(tmp_path, encoded.encode(_numbered(np.uint8)))

    def run(*flags):
        return programs.run("prepare-data", f"--data_dir={tmp_path / 'out'}", *flags, ignore_warnings=True)

    own = ("--dataset=image_folder", "--name=cells", f"--source={tmp_path / 'images'}", f"--masks={tmp_path / 'masks'}")
    refused = run(*own, "--instances", "--tile_size=64")
    assert refused.returncode == 1 and "--instances: the numbers of objects are not kept in tiles" in refused.stderr
    refused = run("--dataset=glas", "--source=x", "--instances")
    assert refused.returncode == 1 and "--instances=True is for own images" in refused.stderr
    done = run(*own, "--instances")
    assert done.returncode == 0 and "Annotated instances: train 18, test 6." in done.stdout, done.stderr
    assert "more than two values" not in done.stderr
