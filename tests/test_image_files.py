"""Files of every kind to pixels, by their content."""

import io

import numpy as np
from PIL import ExifTags, Image
import pytest

from minmax_jax.base.errors import UserError
from minmax_jax.data import image_files, image_reading

GREY = np.arange(6 * 4, dtype=np.uint8).reshape(6, 4) * 10
COLORS = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)


def _encode(pixels, kind="PNG", *, tag=None, **options):
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    if tag:
        options["exif"] = Image.Exif()
        options["exif"][ExifTags.Base.Orientation] = tag
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _palette():
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), mode="P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    return picture


@pytest.mark.parametrize(
    "content, expected",
    [
        (_encode(COLORS), COLORS),
        (_encode(COLORS, "BMP"), COLORS),
        (_encode(COLORS, "TIFF"), COLORS),
        (_encode(COLORS, "WEBP", lossless=True), COLORS),
        (_encode(GREY), np.stack([GREY] * 3, axis=-1)),
        (_encode(GREY > 100), np.stack([(GREY > 100) * 255] * 3, axis=-1)),
        (_encode(_palette()), [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 255, 0]]]),
        (_encode(_palette(), "GIF"), [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 255, 0]]]),
        # Sixteen bits: the upper eight.
        (_encode(np.array([[0, 255, 256, 65535]], np.uint16)), [[[0] * 3, [0] * 3, [1] * 3, [255] * 3]]),
        (_encode(np.array([[0, 511]], np.uint16), "TIFF"), [[[0] * 3, [1] * 3]]),
        (b"P5\n2 1\n65535\n\x80\x00\xff\xff", [[[128] * 3, [255] * 3]]),
        # On white: opaque, half transparent, transparent.
        (
            _encode(np.array([[[10, 20, 30, 255], [0, 100, 255, 128], [9, 9, 9, 0]]], np.uint8)),
            [[[10, 20, 30], [127, 177, 255], [255, 255, 255]]],
        ),
        (_encode(_palette(), transparency=0), [[[255, 255, 255], [0, 255, 0]], [[0, 0, 255], [0, 255, 0]]]),
        (_encode(Image.fromarray(COLORS).convert("CMYK"), "TIFF"), COLORS),
    ],
    ids=lambda value: type(value).__name__,
)
def test_pixels(content, expected):
    pixels = image_files.read_rgb(content, "x.jpg")
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


# What each EXIF tag says of the stored pixels, in NumPy.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("tag", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])  # Pillow turns TIFF files itself
def test_exif_turns_image_mask_and_boxes_alike(tag, kind):
    expected = UPRIGHT[tag](COLORS)
    content = _encode(COLORS, kind, tag=tag)
    np.testing.assert_array_equal(image_files.read_rgb(content, "x.png"), expected)
    image = image_files.open_picture(content, "x.png")
    assert image_files.orientation(image) == tag

    stored = np.zeros((6, 4), bool)
    stored[1:3, 0:3] = True
    mask = image_files.open_picture(_encode(stored), "mask.png")
    turned = np.asarray(image_files.upright_mask(mask, tag=tag, size=image.size))
    np.testing.assert_array_equal(turned, UPRIGHT[tag](stored))

    boxes = np.array([[1 / 6, 0, 3 / 6, 3 / 4]])
    ((top, left, bottom, right),) = image_files.turn_boxes(boxes, tag) * np.tile(turned.shape, 2)
    rows, columns = np.flatnonzero(turned.any(axis=1)), np.flatnonzero(turned.any(axis=0))
    np.testing.assert_allclose(
        [top, left, bottom, right], [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], atol=1e-9
    )


def test_a_mask_that_was_drawn_on_the_upright_image_stays():
    image = image_files.open_picture(_encode(COLORS, tag=6), "x.png")
    drawn = image_files.open_picture(_encode(np.arange(24).reshape(4, 6) > 3), "mask.png")
    upright = image_files.upright_mask(drawn, tag=6, size=image.size)
    np.testing.assert_array_equal(upright, np.arange(24).reshape(4, 6) > 3)


def test_a_mask_goes_by_its_own_tag():
    image = image_files.open_picture(_encode(COLORS, tag=6), "x.png")
    mask = image_files.open_picture(_encode(GREY, tag=8), "mask.png")
    np.testing.assert_array_equal(image_files.upright_mask(mask, tag=6, size=image.size), np.rot90(GREY))


@pytest.mark.parametrize(
    "picture, expected",
    [
        (_palette(), [[0, 1], [2, 1]]),
        (Image.fromarray(np.array([[0, 300]], np.uint16)), [[0, 300]]),
        (Image.fromarray(np.array([[[7, 0], [8, 255]]], np.uint8), mode="LA"), [[7, 8]]),
        (Image.fromarray(np.array([[[1, 2, 3, 0]]], np.uint8)), [[[1, 2, 3]]]),
        (Image.fromarray(np.array([[True, False]])), [[True, False]]),
    ],
)
def test_values_of_masks(picture, expected):
    np.testing.assert_array_equal(image_files.read_values(picture), expected)


def test_compact_files_stay_and_bulky_ones_become_png():
    for kind in ("PNG", "JPEG", "WEBP"):
        content = _encode(COLORS, kind)
        assert image_reading.read(content, "x").encoded == content
    for kind in ("BMP", "TIFF", "PPM", "GIF"):
        content = _encode(COLORS, kind)
        again = image_reading.read(content, "x").encoded
        np.testing.assert_array_equal(image_files.read_rgb(again, "x"), COLORS)
        assert Image.open(io.BytesIO(again)).format == "PNG"


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "x.jpg cannot be read as an image"),
        (b"no image", "x.jpg cannot be read as an image"),
        (_encode(COLORS)[:-30], "x.jpg cannot be read as an image"),
        (_encode(np.ones((2, 2), np.float32), "TIFF"), "floating-point pixels"),
        (_encode(np.array([[0, 70000]], np.int32), "TIFF"), "more than 16 bits"),
        (_encode(np.array([[0, -1]], np.int32), "TIFF"), "more than 16 bits"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_read(content, message):
    with pytest.raises(UserError, match=message):
        image_files.read_rgb(content, "x.jpg")
