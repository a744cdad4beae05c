"""The size of a pixel in OME-TIFF, TIFF of ImageJ, slides and other TIFF; what is ignored, and why."""

import io
import json
import logging
import pathlib
import sys
import time

import numpy as np
from PIL import Image, TiffImagePlugin
import pytest
import tifffile

from minmax_jax.data import length_units, ome_xml, pixel_size
from minmax_jax.prediction import folder, inputs
from tests import scn_slide
from tests.predictors import BrightPixels

_PIXELS = np.zeros((70, 80, 3), np.uint8)
_INCH, _CENTIMETRE, _NONE = 2, 3, 1


def _write(path, description="", *, x=None, y=None, unit=None):
    """A TIFF with these tags and no others, as Pillow writes it."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    if description:
        tags[270] = description.encode()
    if x:
        tags[282], tags[283] = TiffImagePlugin.IFDRational(x), TiffImagePlugin.IFDRational(y or x)
    if unit:
        tags[296] = unit
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_PIXELS).save(path, "TIFF", tiffinfo=tags)
    return path


def _ome(*pixels, head='<?xml version="1.0" encoding="UTF-8"?>'):
    """OME-XML whose images have these attributes of Pixels and these children."""
    images = "".join(f'<Image ID="Image:{k}"><Pixels {part}</Pixels></Image>' for k, part in enumerate(pixels))
    return f'{head}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{images}</OME>'


# By hand: OME schema 2016-06, UnitsLength; an inch is 25400 microns, a point 1/72 of it, a line 1/12, a thou 1/1000.
@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        ("0.5", "\u00b5m", 0.5),
        ("0.5", "\u03bcm", 0.5),
        ("0.5", None, 0.5),
        ("250", "nm", 0.25),
        ("2500", "\u00c5", 0.25),
        ("250000", "pm", 0.25),
        ("5E-4", "mm", 0.5),
        ("5e-5", "cm", 0.5),
        ("5e-6", "dm", 0.5),
        ("5e-7", "m", 0.5),
        ("5e-10", "km", 0.5),
        ("0.00002", "in", 0.508),
        ("1e-6", "ft", 0.3048),
        ("1e-6", "yd", 0.9144),
        ("0.001", "pt", 25.4 / 72),
        ("0.0002", "li", 5.08 / 12),
        ("0.02", "thou", 0.508),
        ("4", "nm", 0.004),  # electrons
        ("1", "pixel", None),
        ("1", "reference frame", None),
        ("1", "furlong", None),
        ("0", "\u00b5m", None),
        ("-1", "\u00b5m", None),
        ("nan", "\u00b5m", None),
        ("half", "\u00b5m", None),
    ],
)
def test_units_of_ome(tmp_path, value, unit, expected):
    units = f'PhysicalSizeXUnit="{unit}" PhysicalSizeYUnit="{unit}"' if unit else ""
    path = _write(tmp_path / "a.ome.tif", _ome(f'PhysicalSizeX="{value}" PhysicalSizeY="{value}" {units}>'))
    assert pixel_size.read(path).microns == (expected and pytest.approx(expected, rel=1e-9))


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        *(
            (unit, 1)
            for unit in ("micron", "microns", "um", "\u00b5m", "\u03bcm", "\\u00B5m", "\\\\u00b5m", "\u00c2\u00b5m")
        ),
        *((unit, 1) for unit in ("micrometer", "Micrometres", " um\r")),
        *((unit, 1e-3) for unit in ("nm", "nanometers")),
        *((unit, 1e3) for unit in ("mm", "millimeter")),
        *((unit, 1e4) for unit in ("cm", "centimetre")),
        *((unit, 25400) for unit in ("inch", "inches", "in")),
        *((unit, None) for unit in ("pixel", "pixels", "", "sec", "frame")),
    ],
)
def test_units_as_people_write_them(unit, expected):
    assert length_units.in_microns(unit) == (expected and pytest.approx(expected))


@pytest.mark.parametrize(
    ("lines", "x", "y", "tiff_unit", "expected"),
    [
        ("unit=micron", 2, 2, _NONE, 0.5),
        ("images=1\nunit=\\u00B5m\nmin=0", 4, 4, _NONE, 0.25),
        ("unit=nm", 0.004, 0.004, _NONE, 0.25),
        ("unit=mm", 2000, 2000, _NONE, 0.5),
        ("unit=cm", 20000, 20000, _CENTIMETRE, 0.5),
        ("unit=inch", 50800, 50800, _INCH, 0.5),
        ("unit=micron\nyunit=nm", 2, 0.002, _NONE, 0.5),
        ("unit=pixel", 2, 2, _NONE, None),
        ("images=1", 2, 2, _NONE, None),
        ("unit=micron", None, None, None, None),
        ("images=1", 20000, 20000, _CENTIMETRE, 0.5),  # the tags alone say it
    ],
)
def test_tiff_of_imagej(tmp_path, lines, x, y, tiff_unit, expected):
    path = _write(tmp_path / "a.tif", f"ImageJ=1.54f\n{lines}\n", x=x, y=y, unit=tiff_unit)
    assert pixel_size.read(path).microns == (expected and pytest.approx(expected))


def test_what_tifffile_writes(tmp_path):
    """BigTIFF, byte orders, pyramids in SubIFDs, and ImageJ's description of another writer."""
    ome = {"PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "\u00b5m"}
    for name, options in {"a": {}, "big": {"bigtiff": True}, "motorola": {"byteorder": ">"}}.items():
        path = tmp_path / f"{name}.ome.tif"
        tifffile.imwrite(path, _PIXELS, photometric="rgb", metadata=ome, **options)
        assert pixel_size.read(path).microns == pytest.approx(0.25), name
        with path.open("rb") as file:
            assert pixel_size.read(io.BytesIO(file.read())).microns == pytest.approx(0.25), name
    with tifffile.TiffWriter(tmp_path / "pyramid.ome.tif", ome=True, bigtiff=True) as file:
        options = {"photometric": "rgb", "tile": (64, 64)}
        # Tags of no use, as libvips writes them: OME-XML counts.
        file.write(_PIXELS, subifds=1, metadata=ome, resolution=(10, 10), resolutionunit="CENTIMETER", **options)
        file.write(_PIXELS[::2, ::2], subfiletype=1, **options)
    assert pixel_size.read(tmp_path / "pyramid.ome.tif").microns == pytest.approx(0.25)
    tifffile.imwrite(
        tmp_path / "j.tif", _PIXELS, imagej=True, resolution=(2, 2), metadata={"unit": "um", "axes": "YXS"}
    )
    assert pixel_size.read(tmp_path / "j.tif").microns == pytest.approx(0.5)


def test_of_several_images_that_of_the_first_page(tmp_path):
    first, second = 'PhysicalSizeX="4" PhysicalSizeY="4">', 'PhysicalSizeX="0.5" PhysicalSizeY="0.5">'

    def read(*pixels, name="a.ome.tif"):
        return pixel_size.read(_write(tmp_path / name, _ome(*pixels))).microns

    assert read(first, second) == 4
    assert read(f'{first}<TiffData IFD="1"/>', f'{second}<TiffData IFD="0"/>') == 0.5
    files = [f'<TiffData IFD="0"><UUID FileName="{name}.ome.tif">urn:uuid:1</UUID></TiffData>' for name in "ab"]
    assert read(first + files[0], second + files[1], name="b.ome.tif") == 0.5
    assert read(first + files[0], second + files[1], name="renamed.ome.tif") == 4
    assert read(">", second) is None  # the label next to a slide says nothing of it


def test_one_side_counts_for_both_and_prefixes_are_no_matter():
    assert ome_xml.read_sides(_ome('PhysicalSizeX="0.5">')) == (0.5, 0.5, True)
    prefixed = _ome('PhysicalSizeX="2" PhysicalSizeXUnit="mm" PhysicalSizeY="3">').replace("<", "<o:")
    prefixed = prefixed.replace("<o:/", "</o:").replace("<o:?", "<?").replace("xmlns=", "xmlns:o=")
    assert ome_xml.read_sides(prefixed) == (2000, 3, False)


def test_entities_are_refused_and_what_is_no_ome_is_nothing():
    bomb = '<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a "0.5">' + "".join(
        f'<!ENTITY {chr(98 + k)} "{f"&{chr(97 + k)};" * 20}">' for k in range(9)
    )
    start = time.perf_counter()
    assert ome_xml.read_sides(_ome('PhysicalSizeX="&j;">', head=f"{bomb}]>")) is None
    assert time.perf_counter() - start < 1
    external = '<!DOCTYPE OME [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    assert ome_xml.read_sides(_ome('PhysicalSizeX="0.5">', head=external)) is None
    for text in ("", "no XML", "<scn/>", "<OME", "<OME></OME>", _ome(">")):
        assert ome_xml.read_sides(text) is None, text
    assert ome_xml.read_sides(_ome('PhysicalSizeX="0.5">')[:-10]) is None  # cut off before any page


def test_a_number_without_a_unit_is_per_inch(tmp_path):
    assert pixel_size.read(_write(tmp_path / "a.tif", x=50800)).microns == pytest.approx(0.5)  # TIFF 6.0
    assert pixel_size.read(_write(tmp_path / "b.tif", x=50800, unit=_NONE)) == pixel_size.UNKNOWN


def test_slides(tmp_path, monkeypatch):
    scn_slide.write(tmp_path / "a.scn", _PIXELS, place=(8, 16), size=(128, 192), microns=0.25)
    assert pixel_size.read(tmp_path / "a.scn").microns == pytest.approx(0.25)
    monkeypatch.setitem(sys.modules, "openslide", None)
    aperio = _write(tmp_path / "b.svs", "Aperio Image Library v11.2.1 \r\n80x70 |AppMag = 20|MPP = 0.4990|Left = 1")
    assert pixel_size.read(aperio).microns == pytest.approx(0.499)


@pytest.mark.parametrize(
    ("options", "sides", "reason"),
    [
        (
            {"x": 10, "unit": _CENTIMETRE},
            (1000, 1000),
            "1 pixel per millimetre is what libvips and other programs write",
        ),
        ({"x": 1, "unit": _CENTIMETRE}, (10000, 10000), "1 pixel per centimetre"),
        ({"x": 1}, (25400, 25400), "1 pixel per inch"),
        ({"x": 72, "unit": _INCH}, (352.8, 352.8), "72 dots an inch is a resolution of screens"),
        ({"x": 28.34, "unit": _CENTIMETRE}, (352.9, 352.9), "72 dots an inch"),
        ({"x": 300, "unit": _INCH}, (84.67, 84.67), "300 dots an inch"),
        ({"x": 300, "description": "ImageJ=1.54f\nunit=inch\n"}, (84.67, 84.67), "300 dots an inch"),
        ({"x": 7, "unit": _INCH}, (3629, 3629), "no microscope has pixels as large"),
        ({"x": 5e6, "unit": _CENTIMETRE}, (0.002, 0.002), "no microscope has pixels as small"),
        ({"x": 20000, "y": 10000, "unit": _CENTIMETRE}, (0.5, 1), "the pixels are not square"),
        ({"description": _ome('PhysicalSizeX="1" PhysicalSizeXUnit="mm">')}, (1000, 1000), "1 pixel per millimetre"),
        ({"description": _ome('PhysicalSizeX="0.5" PhysicalSizeY="2">')}, (0.5, 2), "the pixels are not square"),
    ],
)
def test_what_is_ignored_and_why(tmp_path, options, sides, reason):
    found = pixel_size.read(_write(tmp_path / "a.tif", **options))
    assert found.microns is None and found.sides == pytest.approx(sides, rel=1e-3)
    assert reason in found.ignored


def test_files_without_a_size(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    (tmp_path / "cut.tif").write_bytes(_write(tmp_path / "b.tif", x=50800).read_bytes()[:20])
    (tmp_path / "empty.tif").write_bytes(b"")
    for name in ("a.png", "cut.tif", "empty.tif", "missing.tif"):
        assert pixel_size.read(tmp_path / name) == pixel_size.UNKNOWN, name


def test_mutated_files_are_read_or_unknown(tmp_path, caplog):
    content = _write(tmp_path / "a.tif", _ome('PhysicalSizeX="0.5"><TiffData/>'), x=2, unit=_CENTIMETRE).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        mutated = bytearray(content)
        for place in rng.integers(0, len(mutated), 3):
            mutated[place] = rng.integers(0, 256)
        assert isinstance(pixel_size.read(io.BytesIO(bytes(mutated))), pixel_size.PixelSize)
    assert not [record for record in caplog.records if record.name.startswith("tifffile")]


def test_a_line_for_each_reason_however_many_files():
    sizes = [pixel_size.PixelSize(sides) for sides in ((1000, 1000), (84.667, 84.667), (0.5, 1.0))]
    ignored = [(f"{k}.tif", size.sides, size.ignored) for k in range(3000) for size in sizes]
    lines = pixel_size.describe_ignored(ignored, 10000)
    assert len(lines) == 3
    assert lines[0].startswith(
        "The pixel size of 3000 of 10000 images is ignored, such as 1000 microns in 0.tif: 1 pixel"
    )
    assert "0.5 x 1 microns in 0.tif: the pixels are not square. Give the right one by microns_per_pixel." in lines[2]


def test_prediction_says_and_records_what_is_ignored(tmp_path, caplog):
    for k in range(3):
        _write(tmp_path / f"in/vips{k}.tif", x=10, unit=_CENTIMETRE)
    _write(tmp_path / "in/wide.tif", x=20000, y=10000, unit=_CENTIMETRE)
    _write(tmp_path / "in/plain.tif")
    with caplog.at_level(logging.INFO, "minmax_jax"):
        _predict(tmp_path)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 3
    assert "3 of 5 images is ignored, such as 1000 microns in" in warnings[0] and "vips0.tif" in warnings[0]
    assert "1 of 5 images is ignored, 0.5 x 1 microns in" in warnings[1] and "not square" in warnings[1]
    assert "1 of 5 images do not say how many microns a pixel has: 0.25 is assumed" in warnings[2]
    rows = _rows(tmp_path / "out")
    assert rows["vips0"]["ignored_pixel_size"]["microns"] == pytest.approx([1000, 1000])
    assert rows["vips0"]["microns_per_pixel"] is None and rows["vips0"]["flags"] == rows["plain"]["flags"]
    assert rows["wide"]["flags"][1:] == ["the pixels are not square (0.5 x 1 microns)"]
    assert rows["plain"]["ignored_pixel_size"] is None and rows["plain"]["bounds"] is None
    caplog.clear()
    _predict(tmp_path, "other", microns_per_pixel=0.25)
    assert not caplog.records and _rows(tmp_path / "other")["wide"]["flags"] == rows["plain"]["flags"]


def _predict(tmp_path, output="out", **options):
    files = inputs.find([str(tmp_path / "in")])
    predictor = BrightPixels(microns_per_pixel=0.25)
    folder.predict(predictor, files, tmp_path / output, folder.Options(**options), model={}, results={})


def _rows(path: pathlib.Path):
    return {row["stem"]: row for row in map(json.loads, (path / "predictions.jsonl").read_text().splitlines())}
