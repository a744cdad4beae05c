"""Image files of many kinds to 8 bits, by a choice of channels and intensities; what is not read is counted."""

import io
import struct
import zlib

import numpy as np
from PIL import Image
import pytest
import tifffile

from minmax_jax.base.errors import OptionError, UserError
from minmax_jax.data import image_files, image_reading, lossy_reading, readings, tiff_pages
from tests import own_layout, tiled_tiff

# A ramp of 100 x 101 values, so that percentiles 1 and 99 of its columns are columns 1 and 99.
RAMP = np.broadcast_to(np.arange(101), (100, 101))
STRETCHED = np.round(np.clip((np.arange(101) - 1) * 255 / 98, 0, 255)).astype(np.uint8)
TWELVE = np.random.default_rng(0).integers(0, 4096, (40, 36, 3)).astype(np.uint16)
FIVE = np.random.default_rng(1).integers(0, 256, (5, 40, 36), np.uint8)
PERCENTILES = readings.Reading("percentiles")


def _tiff(values, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def _deep_png(values):
    """A PNG of 16 bits a channel, [H, W, C]."""
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(own_layout.chunk(*part) for part in parts)


def _picture(values, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind, **options)
    return buffer.getvalue()


def _ppm(values):
    return b"P6\n%d %d\n65535\n" % values.shape[1::-1] + values.astype(">u2").tobytes()


@pytest.mark.parametrize(
    "content",
    [
        _picture(RAMP.astype(np.uint8), "PNG"),
        _picture((RAMP * 40).astype(np.uint16), "PNG"),
        _picture((RAMP * 40).astype(np.uint16), "TIFF", compression="tiff_lzw"),
        _tiff((RAMP * 40).astype(np.uint16), tile=(16, 16)),
        _tiff((RAMP * 100_000).astype(np.int32)),
        _tiff((RAMP * 10_000_000).astype(np.uint32)),
        _tiff((RAMP - 50).astype(np.int16)),
        _tiff((RAMP / 100 - 3).astype(np.float32)),
        _tiff((RAMP * 1e300).astype(np.float64), compression="zlib"),
        _tiff((RAMP / 8).astype(np.float16)),
    ],
    ids=lambda content: "file",
)
def test_percentiles_1_and_99_become_0_and_255(content):
    pixels = image_reading.read(content, "x", PERCENTILES).pixels
    np.testing.assert_array_equal(pixels, np.broadcast_to(STRETCHED[:, None], (100, 101, 3)))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "planar TIFF", "PPM"])
def test_percentiles_of_colours_keep_all_of_16_bits(kind):
    content = {
        "PNG": lambda: _deep_png(TWELVE),
        "TIFF": lambda: _tiff(TWELVE, photometric="rgb", compression="zlib", predictor=True),
        "planar TIFF": lambda: _tiff(TWELVE.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
        "PPM": lambda: _ppm(TWELVE),
    }[kind]()
    low, high = np.percentile(TWELVE, (1, 99), axis=(0, 1))
    expected = np.round(np.clip((TWELVE - low) * 255 / (high - low), 0, 255))
    read = image_reading.read(content, "x", PERCENTILES)
    np.testing.assert_allclose(read.pixels, expected, atol=1)  # of float32
    assert len(np.unique(read.pixels)) > 200 and not read.lossy
    # What is kept shows the same pixels to the training.
    np.testing.assert_array_equal(image_files.read_rgb(read.encoded, "x"), read.pixels)


def test_lzw_is_decoded_by_pillow_with_all_of_its_bits():
    values = TWELVE[..., 0]
    read = image_reading.read(_picture(values, "TIFF", compression="tiff_lzw"), "x", readings.Reading(channels=(0,)))
    np.testing.assert_array_equal(read.pixels[..., 0], values >> 8)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.full((40, 40), 700, np.uint16), 0),
        (np.full((40, 40), 0.5, np.float32), 0),
        (np.full((40, 40), np.nan, np.float32), 0),
    ],
)
def test_constant_images_do_not_divide_by_zero(values, expected):
    assert (image_reading.read(_tiff(values), "x", PERCENTILES).pixels == expected).all()


def test_few_bright_pixels_are_scaled_by_minimum_and_maximum():
    values = np.zeros((40, 40), np.uint16)
    values[3, 4], values[5, 6] = 1000, 500
    pixels = image_reading.read(_tiff(values), "x", PERCENTILES).pixels[..., 0]
    assert (pixels[3, 4], pixels[5, 6], pixels[0, 0]) == (255, 128, 0)


def test_numbers_that_are_not_finite_do_not_count():
    values = RAMP.astype(np.float32).copy()
    values[0, :3] = np.nan, np.inf, -np.inf
    pixels = image_reading.read(_tiff(values), "x", PERCENTILES).pixels[..., 0]
    assert pixels[0, :3].tolist() == [0, 255, 0]
    np.testing.assert_allclose(pixels[1], STRETCHED, atol=1)


@pytest.mark.parametrize(
    "content",
    [
        _tiff(FIVE.transpose(1, 2, 0), photometric="minisblack", planarconfig="contig"),
        _tiff(FIVE, photometric="minisblack", planarconfig="separate"),
        _tiff(FIVE, ome=True, photometric="minisblack", metadata={"axes": "CYX"}),
        _tiff(FIVE, ome=True, photometric="minisblack", metadata={"axes": "CYX"}, tile=(16, 16), compression="zlib"),
        _tiff(FIVE, imagej=True, photometric="minisblack", metadata={"axes": "CYX"}),
        _tiff(FIVE, photometric="minisblack", metadata=None),  # pages that nothing describes
        _tiff(np.stack([FIVE, 255 - FIVE]), ome=True, photometric="minisblack", metadata={"axes": "ZCYX"}),
        _tiff(np.stack([FIVE, 255 - FIVE], 1), ome=True, photometric="minisblack", metadata={"axes": "CTYX"}),
        _tiff(np.stack([FIVE, 255 - FIVE]), imagej=True, photometric="minisblack", metadata={"axes": "ZCYX"}),
    ],
    ids=["interleaved", "planar", "OME", "OME, tiled", "ImageJ", "pages", "OME, depth", "OME, time", "ImageJ, depth"],
)
@pytest.mark.parametrize("channels", [(4, 0, 2), (3, 1), (2,)])
def test_channels_of_every_layout(content, channels):
    pixels = image_reading.read(content, "x", readings.Reading(channels=channels)).pixels
    expected = np.zeros((40, 36, 3), np.uint8)
    for place in range(3):
        if len(channels) == 1:
            expected[..., place] = FIVE[channels[0]]
        elif place < len(channels):
            expected[..., place] = FIVE[channels[place]]
    np.testing.assert_array_equal(pixels, expected)


def test_channels_of_pictures():
    colors = own_layout.pixels(0)
    for kind in ("PNG", "BMP", "TIFF"):
        read = image_reading.read(_picture(colors, kind), "x", readings.Reading(channels=(2, 1, 0)))
        np.testing.assert_array_equal(read.pixels, colors[..., ::-1])
        np.testing.assert_array_equal(image_files.read_rgb(read.encoded, "x"), read.pixels)
    turned = _picture(colors, "TIFF", exif=_exif(6))
    read = image_reading.read(turned, "x", readings.Reading(channels=(1,)))
    np.testing.assert_array_equal(read.pixels[..., 0], np.rot90(colors[..., 1], -1))
    assert read.orientation == 6 and read.stored_size == (48, 40)


def _exif(tag):
    exif = Image.Exif()
    exif[274] = tag
    return exif


def test_white_is_zero_and_bits_between_8_and_16():
    values = np.array([[0, 4095 * 16, 65535]], np.uint16).repeat(3, 0)
    read = image_reading.read(_tiff(values, photometric="miniswhite"), "x")
    np.testing.assert_array_equal(read.pixels[0, :, 0], [255, 0, 0])


def test_a_deep_png_is_blended_on_white():
    values = np.array([[[60000, 30000, 0, 65535], [9, 9, 9, 0], [0, 20000, 65535, 32768]]], np.uint16)
    read = image_reading.read(_deep_png(values), "x")
    np.testing.assert_array_equal(read.pixels, [[[234, 117, 0], [255, 255, 255], [127, 166, 255]]])
    stretched = image_reading.read(_deep_png(values.repeat(2, 0)), "x", PERCENTILES)
    assert (stretched.pixels[0, 1] == 255).all()


@pytest.mark.parametrize(
    ("content", "lossy"),
    [
        (_picture(TWELVE[..., 0], "TIFF"), {"dark": 4095}),
        (_picture(TWELVE[..., 0] * 4, "PNG"), {"dark": 16383}),
        (_picture(TWELVE[..., 0] * 16, "PNG"), {}),
        (_deep_png(TWELVE), {"dark": 4095}),
        (_tiff(TWELVE, photometric="rgb"), {"dark": 4095}),
        (_tiff(FIVE, photometric="minisblack", metadata={"axes": "CYX"}, ome=True), {"channels": 5}),
        (_tiff(np.stack([FIVE] * 2), imagej=True, metadata={"axes": "ZCYX"}), {"channels": 5, "frames": 2}),
        (_tiff(FIVE, photometric="minisblack", metadata=None), {"frames": 5}),
        (_tiff(np.dstack([*FIVE[:4]]), photometric="rgb", extrasamples=["unspecified"]), {"channels": 4}),
        (_tiff(np.dstack([*FIVE[:4]]), photometric="rgb", extrasamples=["unassalpha"]), {}),
        (_picture(FIVE[0], "GIF", save_all=True, append_images=[Image.fromarray(FIVE[1])]), {"frames": 2}),
        (_picture(FIVE[0], "PNG", save_all=True, append_images=[Image.fromarray(FIVE[1])]), {"frames": 2}),
        (_picture(own_layout.pixels(0), "MPO", save_all=True, append_images=[Image.fromarray(FIVE[1])]), {}),
        (_picture(own_layout.pixels(0), "JPEG"), {}),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else str(value),
)
def test_what_is_not_read_is_counted(content, lossy):
    assert image_reading.read(content, "x").lossy == lossy


def test_the_lines_of_what_is_not_read():
    found = [{"dark": 4095}, {}, {"dark": 16383, "frames": 3}, {"channels": 5}]
    lines = lossy_reading.summarize(found, remedies={"dark": "Add it."})
    assert lines[0].startswith("2 of 4 images use at most 16383 of 65535 values") and lines[0].endswith("Add it.")
    assert lines[1].startswith("1 of 4 images have several channels, up to 5")
    assert lines[2].startswith("1 of 4 images have further frames or pages") and len(lines) == 3
    assert lossy_reading.summarize([{}, {}], remedies={}) == []
    assert lossy_reading.flags(found[2]) == [
        "the image uses at most 16383 of 65535 values: it is dark",
        "the file has further frames or pages, of which only the first is read",
    ]


@pytest.mark.parametrize(
    ("content", "reading", "message"),
    [
        (
            _tiff(FIVE.transpose(1, 2, 0), photometric="minisblack", planarconfig="contig"),
            (),
            "a.tif has 5 channels of 8 bits: choose .* --channels=0,1,2, or save three of them as RGB",
        ),
        (_tiff(np.zeros((40, 40, 3), np.float32), photometric="rgb"), (), "floating-point pixels.*--intensity=percent"),
        (_tiff(np.full((40, 40), 70000, np.int32)), (), "a.tif has pixels of more than 16 bits"),
        (_tiff(np.full((40, 40), -1, np.int16)), (), "a.tif has negative values"),
        (_tiff(np.zeros((40, 40), np.complex64)), (), "a.tif has complex numbers"),
        (_tiff(TWELVE, photometric="cielab"), (), "a.tif has CIELAB colours of 16 bits.*save it as RGB"),
        (tiled_tiff.encode(FIVE[0], compression=50002), (), r"compression \(JPEG XL\) is not supported: save it with"),
        (tiled_tiff.encode(FIVE[0], compression=34712), (), r"compression \(JPEG 2000\) is not supported"),
        (
            tiled_tiff.encode(np.dstack([*FIVE]), compression=5),
            (0,),
            r"compression \(LZW\) of 8-bit pixels with 5",
        ),
        (_picture(FIVE[0], "PNG"), (0, 1), "a.tif has one channel, 0, and channels=0,1 are read"),
        (_picture(own_layout.pixels(0), "JPEG"), (3,), "a.tif has 3 channels, 0 to 2, and channels=3 are read"),
        (_tiff(FIVE, metadata=None, photometric="minisblack"), (5,), "a.tif has 5 channels, 0 to 4"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), (), "HEIC is not read: convert it"),
        (b"\xff\x0a" + bytes(99), (), "JPEG XL is not read"),
        (b"v/1\x01" + bytes(99), (), "EXR is not read"),
        (bytes(128) + b"DICM" + bytes(99), (), "DICOM other than a whole slide is not read"),
        (b"\xff\xd8\xff\xc1\0\x11\x0c" + bytes(99), (), "JPEG of 12 bits is not read"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), (), "HDF5 is not read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", (), "EPS is not read"),
        (_tiff(TWELVE, photometric="rgb")[:-3000], (), "Replace it by an intact copy"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else str(value),
)
def test_reasons_name_what_the_file_holds_and_how_to_save_it(content, reading, message):
    with pytest.raises(UserError, match=message) as error:
        image_reading.read(content, "a.tif", readings.Reading(channels=reading))
    assert "intact copy" in message or "intact copy" not in str(error.value)


def test_images_that_are_too_large(monkeypatch):
    content = _tiff(TWELVE, photometric="rgb")
    monkeypatch.setattr(tiff_pages, "_MAX_BYTES", 8639)  # of 40 * 36 * 3 * 2
    with pytest.raises(UserError, match="a.tif has 3 channels of 16 bits: more than 2 GiB. Save the channels one by"):
        image_reading.read(content, "a.tif")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    with pytest.raises(UserError, match="a.tif is too large to be read at once .1440 pixels"):
        image_reading.read(content, "a.tif")


def test_masks_name_their_reasons_as_well():
    for content, message in (
        (tiled_tiff.encode(FIVE[0], compression=50002), r"compression \(JPEG XL\) is not supported"),
        (tiled_tiff.encode(np.dstack([*FIVE])), "has 5 channels of 8 bits, which is not read here: save it as grey"),
        (_tiff(TWELVE[..., 0])[:-2000], "Replace it by an intact copy"),
    ):
        with pytest.raises(UserError, match=f"mask.tif .*{message}"):
            image_files.open_picture(content, "mask.tif")


@pytest.mark.parametrize("channels", ["a", "0,", "-1", "0,1,2,3", "0.5"])
def test_channels_that_cannot_be_chosen(channels):
    with pytest.raises(OptionError, match=f"channels={channels} must be one, two or three indices"):
        readings.parse("full", channels)


def test_a_reading_as_text_and_json():
    reading = readings.parse("percentiles", "0,2,1")
    assert reading == readings.Reading("percentiles", (0, 2, 1)) == readings.from_json(reading.to_json())
    assert readings.parse("full", "").is_default and readings.from_json(None).is_default
    with pytest.raises(OptionError, match="intensity='all' must be one of"):
        readings.parse("all", "")
