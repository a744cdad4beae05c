"""Annotations of other programs become masks and boxes: values by hand, from pycocotools and from shapely."""

import base64
import gzip
import json
import re
import shutil
import warnings

import numpy as np
from PIL import ExifTags, Image
from pycocotools import mask as coco_mask
import pytest
import shapely

from minmax_jax.base.errors import UserError
from minmax_jax.data import dataset, image_files, load
from minmax_jax.data.importing import (
    annotations,
    csv_files,
    image_folder,
    mask_rules,
    raw_dataset,
    records,
    region_masks,
    regions,
    run_lengths,
    tiles,
)
from tests import encoded, own_layout, programs, tiled_tiff

SIZE = (40, 48)
# Names of the first images of two classes; the first is annotated.
FIRST, SECOND = "cat/0.png", "cat/1.png"
# (x, y) of a rectangle with a hole; by hand, its rows and columns.
OUTER, HOLE = [[4, 2], [20, 2], [20, 12], [4, 12]], [[8, 4], [12, 4], [12, 8], [8, 8]]


def _expected(*windows, hole=None):
    mask = np.zeros(SIZE, bool)
    for window in windows:
        mask[window] = True
    if hole:
        mask[hole] = False
    return mask


RECTANGLE = np.s_[2:12, 4:20]
WITH_HOLE = _expected(RECTANGLE, hole=np.s_[4:8, 8:12])


@pytest.fixture
def images(tmp_path):
    """DIR/CLASS/I.png, four of each of two classes."""
    for seed, name in enumerate(f"{name}/{index}.png" for name in ("cat", "dog") for index in range(4)):
        own_layout.put(name, encoded.encode(own_layout.pixels(seed)))(tmp_path / "images")
    return tmp_path / "images"


def _put(root, name, content):
    content = content if isinstance(content, (str, bytes)) else json.dumps(content)
    own_layout.put(name, content.encode() if isinstance(content, str) else content)(root)
    return root


def _read(images, folder, *, instances=False, **options):
    raw = image_folder.read_raw(
        str(images),
        mask_rule=mask_rules.parse(">0", instances=instances),
        left_out=annotations.among(str(images), str(folder)),
    )
    return annotations.attach(raw, str(folder), **options)


def _record(raw, name=FIRST):
    item = next(item for item in raw if item.name == name)
    return raw_dataset.read_record(item, raw)


def _mask(raw, name=FIRST):
    content = _record(raw, name)["mask"]
    return np.asarray(image_files.open_picture(content, "mask")) if content else None


def _pixel_boxes(raw, name=FIRST):
    return (_record(raw, name)["boxes"] * np.array(SIZE * 2)).round(4).tolist()


def _flat(points):
    return [coordinate for point in points for coordinate in point]


def _coco(rows, *, images=(FIRST,), categories=("cell", "stroma"), **size):
    size = {"height": SIZE[0], "width": SIZE[1]} | size
    return {
        "images": [{"id": number, "file_name": name, **size} for number, name in enumerate(images, 1)],
        "annotations": [{"id": number, "image_id": 1, "category_id": 1} | row for number, row in enumerate(rows, 1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(categories, 1)],
    }


def _feature(geometry, name="Tumor", **properties):
    classification = {"classification": {"name": name, "color": [200, 0, 0]}} if name else {}
    return {
        "type": "Feature",
        "geometry": geometry,
        "properties": {"objectType": "annotation"} | classification | properties,
    }


def _polygon(*rings):
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]] for ring in rings]}


def _labelme(*shapes, size=SIZE, **fields):
    shapes = [{"label": "cell", "shape_type": kind, "points": points, **more} for kind, points, more in shapes]
    return {
        "version": "5.5",
        "shapes": shapes,
        "imagePath": "0.png",
        "imageHeight": size[0],
        "imageWidth": size[1],
    } | fields


def _voc(*boxes, name="cat/0.png", size=SIZE):
    rows = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax>"
        f"<ymax>{box[3]}</ymax></bndbox></object>"
        for label, box in boxes
    )
    size = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    return f"<annotation><folder>x</folder><filename>{name}</filename>{size}{rows}</annotation>"


def _compressed(mask):
    runs = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": runs["size"], "counts": runs["counts"].decode()}


def _uncompressed(mask):
    values = mask.T.ravel()
    changes = np.flatnonzero(np.diff(values.astype(int), prepend=0))
    return {"size": list(mask.shape), "counts": np.diff(changes, prepend=0, append=values.size).tolist()}


@pytest.mark.parametrize("encode", [_compressed, _uncompressed])
@pytest.mark.parametrize("crowd", [0, 1])
def test_run_lengths_of_coco(tmp_path, images, encode, crowd):
    row = {"segmentation": encode(WITH_HOLE), "iscrowd": crowd, "bbox": [4, 2, 16, 10]}
    raw = _read(images, _put(tmp_path, "a.json", _coco([row])) / "a.json")
    np.testing.assert_array_equal(_mask(raw), WITH_HOLE)
    assert _pixel_boxes(raw) == ([] if crowd else [[2, 4, 12, 20]])


def test_run_lengths_are_those_of_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = rng.random((17, 23)) < rng.random()
        for encode in (_compressed, _uncompressed):
            np.testing.assert_array_equal(run_lengths.decode(*run_lengths.parse(encode(mask))), mask)
    # Large counts take several digits.
    mask = np.zeros((900, 700), bool)
    mask[5:800, 3:600] = True
    np.testing.assert_array_equal(run_lengths.decode(*run_lengths.parse(_compressed(mask))), mask)


def test_polygons_of_an_object_are_united_and_objects_too(tmp_path, images):
    two = {"segmentation": [_flat(OUTER), _flat([[30, 20], [40, 20], [40, 30], [30, 30]])]}
    other = {"segmentation": [_flat([[0, 35], [5, 35], [5, 40], [0, 40]])], "category_id": 2}
    raw = _read(images, _put(tmp_path, "a.json", _coco([two, other])) / "a.json")
    expected = _expected(RECTANGLE, np.s_[20:30, 30:40], np.s_[35:40, 0:5])
    np.testing.assert_array_equal(_mask(raw), expected)
    assert _pixel_boxes(raw) == [[2, 4, 30, 40], [35, 0, 40, 5]]
    assert _mask(raw, SECOND) is None
    # Only one category is foreground, by name or by id.
    for choice in ("stroma", "2"):
        raw = _read(images, tmp_path / "a.json", foreground=choice)
        np.testing.assert_array_equal(_mask(raw), _expected(np.s_[35:40, 0:5]))
        assert _pixel_boxes(raw) == [[35, 0, 40, 5]]
    raw = _read(images, tmp_path / "a.json", foreground="cell", ignore="stroma")
    assert set(np.unique(_mask(raw))) == {0, 1, dataset.IGNORED}
    np.testing.assert_array_equal(_mask(raw) == dataset.IGNORED, _expected(np.s_[35:40, 0:5]))


def test_polygons_are_those_of_shapely_and_of_pycocotools():
    """A pixel is in a polygon if its centre is, with holes, in every window; pycocotools rounds vertices to a fifth."""
    rng, shape, count = np.random.default_rng(1), (40, 48), 0
    columns, rows = np.meshgrid(np.arange(48) + 0.5, np.arange(40) + 0.5)
    for _ in range(300):
        angles, radii = np.sort(rng.uniform(0, 2 * np.pi, 9)), rng.uniform(4, 25, (9, 1))
        star = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii
        rings = [[24, 20] + star, [24, 20] + 0.4 * star]
        polygon = shapely.Polygon(rings[0], rings[1:])
        if not polygon.is_valid:
            continue
        count += 1
        drawing = regions.Drawing((regions.from_polygons("a", [rings]),))
        drawn = region_masks.draw(drawing, (0, 0, *shape), shape)
        np.testing.assert_array_equal(drawn, shapely.contains_xy(polygon, columns, rows))
        np.testing.assert_array_equal(region_masks.draw(drawing, (7, 9, 31, 40), (24, 31)), drawn[7:31, 9:40])
        coarse = region_masks.draw(drawing, (3, 2, 33, 47), (20, 30))
        np.testing.assert_array_equal(
            coarse,
            shapely.contains_xy(
                polygon, *np.meshgrid(2 + 1.5 * (np.arange(30) + 0.5), 3 + 1.5 * (np.arange(20) + 0.5))
            ),
        )
        shell = regions.Drawing((regions.from_polygons("a", [rings[:1]]),))
        drawn = region_masks.draw(shell, (0, 0, *shape), shape)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of pycocotools, with NumPy 2
            runs = coco_mask.merge(coco_mask.frPyObjects([rings[0].ravel().tolist()], *shape))
            differs = drawn != (coco_mask.decode(runs) > 0)
        border = shapely.Polygon(rings[0]).boundary
        assert (shapely.distance(border, shapely.points(columns[differs], rows[differs])) < 0.3).all()
    assert count > 150


def test_images_of_a_coco_file_without_annotations_are_empty_and_others_unknown(tmp_path, images, caplog):
    caplog.set_level("INFO")
    content = _coco([{"segmentation": [_flat(OUTER)]}], images=(FIRST, SECOND, "cat/9.png", "cat/8.png"))
    raw = _read(images, _put(tmp_path, "a.json", content) / "a.json")
    np.testing.assert_array_equal(_mask(raw), _expected(RECTANGLE))
    assert not _mask(raw, SECOND).any() and _mask(raw, "cat/2.png") is None
    assert "2 of 8 images have an annotation" in caplog.text
    assert "2 of 4 annotated images are not among the images: cat/9.png, cat/8.png" in caplog.text
    assert "Foreground: cell, stroma." in caplog.text


def test_a_coco_file_of_boxes_gives_no_masks(tmp_path, images, caplog):
    caplog.set_level("INFO")
    content = _coco([{"bbox": [4, 2, 16, 10]}, {"bbox": [0, 0, 3.5, 4], "segmentation": []}], images=(FIRST, SECOND))
    raw = _read(images, _put(tmp_path, "a.json", content) / "a.json")
    assert _mask(raw) is None and _mask(raw, SECOND) is None
    assert _pixel_boxes(raw) == [[2, 4, 12, 20], [0, 0, 4, 3.5]] and _pixel_boxes(raw, SECOND) == []
    assert "has boxes and no segmentations" in caplog.text
    content = _coco([{"bbox": [4, 2, 16, 10]}, {"segmentation": [_flat(OUTER)]}])
    raw = _read(images, _put(tmp_path, "a.json", content) / "a.json")
    assert _mask(raw) is None and len(_pixel_boxes(raw)) == 2
    assert "1 of 2 annotations of" in caplog.text and "their images get boxes and no mask" in caplog.text


@pytest.mark.parametrize(
    "name", ["0.png", "images/cat/0.png", "/data/x/cat/0.png", "cat\\0.png", "C:\\my images\\cat\\0.png", "cat/0.jpg"]
)
def test_names_in_coco_files_agree_at_their_end(tmp_path, images, name):
    (images / "dog/0.png").rename(images / ("dog/00.png" if name == "0.png" else "dog/0.png"))
    raw = _read(images, _put(tmp_path, "a.json", _coco([{"segmentation": [_flat(OUTER)]}], images=(name,))) / "a.json")
    assert [item.name for item in raw if item.annotation] == [FIRST]


def test_splits_of_files_are_those_of_images(tmp_path):
    root = tmp_path / "images"
    for seed, name in enumerate(f"{split}/{name}/0.png" for split in ("train", "test") for name in ("cat", "dog")):
        own_layout.put(name, encoded.encode(own_layout.pixels(seed)))(root)
    (root / "test/dog/0.png").rename(root / "test/dog/1.png")
    (root / "train/dog/0.png").rename(root / "train/dog/1.png")
    for split, name in (("train", "0.png"), ("test", "0.png"), ("valid", "1.png")):
        content = _coco([{"segmentation": [_flat(OUTER)]}], images=(name,))
        _put(tmp_path, f"roboflow/{split}/_annotations.coco.json", content)
    raw = _read(root, tmp_path / "roboflow")
    # Of the file of the validation images, which are not there, none is taken for an image of another split.
    assert {item.name for item in raw if item.annotation} == {"train/cat/0.png", "test/cat/0.png"}
    for item in raw:
        if item.annotation:
            assert item.annotation.path.parent.name == item.name.split("/")[0]


def test_qupath(tmp_path, images, caplog):
    geometries = {
        "type": "MultiPolygon",
        "coordinates": [[[*OUTER, OUTER[0]], [*HOLE, HOLE[0]]], [[[30, 20], [40, 20], [40, 30], [30, 30], [30, 20]]]],
    }
    features = [
        _feature(geometries),
        _feature({"type": "Point", "coordinates": [5, 5]}),
        _feature({"type": "LineString", "coordinates": [[5, 5], [9, 9]]}, "Line"),
        _feature(_polygon([[0, 0], [48, 0], [48, 40], [0, 40]]), "Region*"),
        _feature(_polygon([[0, 0], [48, 0], [48, 40], [0, 40]]), objectType="tile"),
        _feature(_polygon([[44, 36], [48, 36], [48, 40], [44, 40]]), "Ignore*"),
        _feature(_polygon([[0, 36], [4, 36], [4, 40], [0, 40]]), None, objectType="detection"),
    ]
    expected = WITH_HOLE | _expected(np.s_[20:30, 30:40], np.s_[36:40, 0:4])
    ignored = _expected(np.s_[36:40, 44:48])
    for name, content in (
        ("cat/0.geojson", {"type": "FeatureCollection", "features": features}),
        ("cat/0.png.geojson", features),
        ("cat/0.geojson.gz", gzip.compress(json.dumps(features).encode())),
        ("cat/0.json", {"type": "FeatureCollection", "features": features}),
    ):
        folder = _put(tmp_path / name.replace("/", "_"), name, content)
        raw = _read(images, folder)
        np.testing.assert_array_equal(_mask(raw), np.where(ignored, 2, expected))
        assert "not read: 1 LineString, 1 Point, 1 tile" in caplog.text
        raw = _read(images, folder, foreground="unclassified", ignore="Tumor")
        np.testing.assert_array_equal(_mask(raw) == 1, _expected(np.s_[36:40, 0:4]))
    # A single feature, a geometry, and no feature: its image has no object.
    for content in (_feature(_polygon(OUTER, HOLE)), _polygon(OUTER, HOLE)):
        raw = _read(images, _put(tmp_path / "one", "cat/0.geojson", content))
        np.testing.assert_array_equal(_mask(raw), WITH_HOLE)
        assert _pixel_boxes(raw) == [[2, 4, 12, 20]]
    raw = _read(images, _put(tmp_path / "none", "cat/0.geojson", {"type": "FeatureCollection", "features": []}))
    assert not _mask(raw).any()


def test_what_this_library_writes_it_reads(tmp_path, images):
    """The GeoJSON of a prediction, by its own writer."""
    from minmax_jax.prediction.outputs import geojson

    rings = [np.array([*ring, ring[0]], float) for ring in (OUTER, HOLE)]
    feature = geojson.Feature(rings, "cat", {"score": 0.5})
    (tmp_path / "out/cat").mkdir(parents=True)
    geojson.write(tmp_path / "out/cat/0.geojson", [feature])
    np.testing.assert_array_equal(_mask(_read(images, tmp_path / "out")), WITH_HOLE)


def test_labelme(tmp_path, images, caplog):
    part = base64.b64encode(encoded.encode(np.uint8(np.eye(3, dtype=bool)) * 255)).decode()
    content = _labelme(
        ("polygon", OUTER, {}),
        ("rectangle", [[40, 30], [30, 20]], {}),
        ("circle", [[10, 28], [10, 33]], {}),
        ("mask", [[44, 2], [46, 4]], {"mask": part}),
        ("point", [[1, 1]], {}),
        ("linestrip", [[1, 1], [5, 5], [9, 1]], {}),
    )
    raw = _read(images, _put(tmp_path / "a", "0.json", content | {"imagePath": "..\\images\\cat\\0.png"}))
    rows, columns = np.indices(SIZE) + 0.5
    distance = np.hypot(columns - 10, rows - 28)
    expected = _expected(RECTANGLE, np.s_[20:30, 30:40], ([2, 3, 4], [44, 45, 46])) | (distance < 5)
    drawn = _mask(raw)
    clear = abs(distance - 5) > 0.3
    np.testing.assert_array_equal(drawn[clear], expected[clear])
    assert "not read: 1 linestrip, 1 point" in caplog.text
    boxes = _pixel_boxes(raw)
    assert boxes[0] == [2, 4, 12, 20] and boxes[1] == [20, 30, 30, 40] and boxes[3] == [2, 44, 5, 47]


def test_annotations_next_to_images(images):
    for name in (FIRST, "dog/1.png"):
        _put(images, name.replace(".png", ".json"), _labelme(("polygon", OUTER, {}), imagePath=name[-5:]))
    _put(images, "annotations.json", _coco([{"segmentation": [_flat(OUTER)]}], images=("dog/3.png",)))
    raw = _read(images, images)
    assert len(list(raw)) == 8
    assert {item.name for item in raw if item.annotation} == {FIRST, "dog/1.png", "dog/3.png"}
    (images / "annotations").mkdir()
    for name in ("cat/0.json", "dog/1.json", "annotations.json"):
        (images / "annotations" / name).parent.mkdir(exist_ok=True)
        (images / name).rename(images / "annotations" / name)
    raw = _read(images, images / "annotations")
    assert len(list(raw)) == 8 and raw.class_names == ("cat", "dog")
    assert {item.name for item in raw if item.annotation} == {FIRST, "dog/1.png", "dog/3.png"}


def test_pascal_voc_counts_from_one_and_both_ends(tmp_path, images):
    folder = _put(tmp_path / "xml", "cat/0.xml", _voc(("cell", (5, 3, 20, 12)), ("other", (1, 1, 48, 40))))
    raw = _read(images, folder)
    assert _mask(raw) is None
    assert _pixel_boxes(raw) == [[2, 4, 12, 20], [0, 0, 40, 48]]
    assert _pixel_boxes(_read(images, folder, foreground="cell")) == [[2, 4, 12, 20]]


def test_objects_are_numbered(tmp_path, images):
    rows = [{"segmentation": [_flat(OUTER)]}, {"segmentation": [_flat([[12, 2], [30, 2], [30, 12], [12, 12]])]}]
    raw = _read(images, _put(tmp_path, "a.json", _coco(rows)) / "a.json", instances=True)
    expected = np.zeros(SIZE, int)
    expected[2:12, 4:20], expected[2:12, 12:30] = 1, 2
    np.testing.assert_array_equal(np.asarray(image_files.open_picture(_record(raw)["instances"], "")), expected)
    rows[0]["iscrowd"] = 1
    raw = _read(images, _put(tmp_path, "a.json", _coco(rows)) / "a.json", instances=True)
    with pytest.raises(UserError, match=r"a.json: .*0.png: it has a region of several objects \(iscrowd\)"):
        _record(raw)


def _turned(tag, size=SIZE):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = tag
    return encoded.encode(own_layout.pixels(99, size), "JPEG", exif=exif)


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("kind", ["stored", "upright", "unknown", "labelme"])
def test_orientations(tmp_path, images, tag, kind):
    """The size in the file shows in which frame it was drawn on; without one it is the frame of the stored image."""
    stored_mask = Image.fromarray(np.uint8(WITH_HOLE))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = tag
    (images / FIRST).unlink()
    own_layout.put("cat/0.jpg", _turned(tag))(images)
    upright = np.asarray(image_files.upright_mask(stored_mask, tag=tag, size=SIZE[::-1])).astype(bool)
    if kind in ("upright", "labelme"):
        shape = SIZE[::-1] if tag >= 5 else SIZE
        if kind == "upright" and tag < 5:
            return  # the same size as stored, which counts
        expected = np.zeros(shape, bool)
        expected[RECTANGLE] = True
        row = {"segmentation": [_flat(OUTER)]}
        content = _coco([row], height=shape[0], width=shape[1], images=("cat/0.jpg",))
        content = _labelme(("polygon", OUTER, {}), size=shape) if kind == "labelme" else content
    else:
        size = {} if kind == "stored" else {"height": None, "width": None}
        polygon_or_runs = [_flat(OUTER)] if kind == "unknown" else _compressed(WITH_HOLE)
        expected = upright
        if kind == "unknown":
            solid = Image.fromarray(np.uint8(_expected(RECTANGLE)))
            expected = np.asarray(image_files.upright_mask(solid, tag=tag, size=SIZE[::-1])).astype(bool)
        content = _coco([{"segmentation": polygon_or_runs}], images=("cat/0.jpg",), **size)
    name = "cat/0.json" if kind == "labelme" else "a.json"
    raw = _read(images, _put(tmp_path / "ann", name, content))
    np.testing.assert_array_equal(_mask(raw, "cat/0.jpg"), expected)
    rows, columns = np.nonzero(expected)
    box = _record(raw, "cat/0.jpg")["boxes"][0] * (expected.shape * 2)
    np.testing.assert_allclose(box, [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1], atol=1e-4)


@pytest.mark.parametrize("encode", [tiled_tiff.encode, encoded.encode])
def test_tiles_of_polygons(tmp_path, encode):
    """A window is drawn and not the whole slide."""
    shape = (300, 260)
    outer, hole = np.array(OUTER) * 10, np.array(HOLE) * 10
    content = {"type": "FeatureCollection", "features": [_feature(_polygon(outer.tolist(), hole.tolist()))]}
    for index, name in enumerate(("a/0.tif", "a/1.tif", "a/2.tif", "b/0.tif", "b/1.tif", "b/2.tif")):
        own_layout.put(name, encode(own_layout.pixels(index, shape)))(tmp_path / "images")
    _put(tmp_path / "geojson", "a/0.geojson", content)
    raw = _read(tmp_path / "images", tmp_path / "geojson")
    expected = np.zeros(shape, bool)
    expected[20:120, 40:200] = True
    expected[40:80, 80:120] = False
    for scale, side in ((1.0, 64), (0.5, 50)):
        cut = tiles.cut(raw, tiles.Tiling(side, scale=scale, min_tissue=0))
        item = next(item for item in raw if item.annotation)
        step, count = round(1 / scale), 0
        for record in cut.read_records(item, cut):
            top, left = map(int, record["name"].rpartition("/")[2].split("_"))
            window = expected[top : top + side * step, left : left + side * step]
            # Edges are between the pixels of both scales, so that all of a coarse pixel is inside or none.
            window = window.reshape(side, step, side, step).all(axis=(1, 3))
            np.testing.assert_array_equal(np.asarray(image_files.open_picture(record["mask"], "")), window)
            assert len(record["boxes"]) <= bool(window.any())
            count += 1
        assert count == (25 if scale == 1 else 9)


def test_lists_with_annotations(tmp_path, images):
    rows = "".join(f"{name}/{index}.png,,{name}\n" for name in ("cat", "dog") for index in range(3))
    _put(tmp_path / "lists", "train.csv", rows)
    _put(tmp_path / "lists", "test.csv", "cat/3.png,,cat\ndog/3.png,,dog\n")
    raw = csv_files.read_raw(str(images), str(tmp_path / "lists"), mask_rule=mask_rules.above(0))
    _put(tmp_path, "a.json", _coco([{"segmentation": [_flat(OUTER)]}]))
    raw = annotations.attach(raw, str(tmp_path / "a.json"))
    np.testing.assert_array_equal(_mask(raw), _expected(RECTANGLE))
    _put(tmp_path / "lists", "test.csv", "cat/3.png,cat/3.png,cat\ndog/3.png,,dog\n")
    raw = csv_files.read_raw(str(images), str(tmp_path / "lists"), mask_rule=mask_rules.above(0))
    with pytest.raises(UserError, match=r"annotations=.*'cat/3.png' has a mask or a box already. Give one of them"):
        annotations.attach(raw, str(tmp_path / "a.json"))


def test_prepared_and_read_again(tmp_path, images):
    _put(tmp_path, "a.json", _coco([{"segmentation": [_flat(OUTER)]}]))
    records.prepare("own", lambda scratch: _read(images, tmp_path / "a.json"), tmp_path / "out")
    found = {
        name: (split.read_mask(index), split.read_boxes(index))
        for split in load.read_splits(tmp_path / "out", "own").values()
        for index, name in enumerate(split.names)
    }
    mask, boxes = found.pop(FIRST)
    np.testing.assert_array_equal(mask, _expected(RECTANGLE))
    np.testing.assert_allclose(boxes * np.array(SIZE * 2), [[2, 4, 12, 20]], atol=1e-4)
    assert all(mask is None and not len(boxes) for mask, boxes in found.values())


# File's name, its content, and the message.
KINDS = {
    "COCO results": ("a.json", [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}], "COCO results"),
    "COCO annotations alone": ("a.json", [{"image_id": 1, "category_id": 1}], "without its images and categories"),
    "COCO images alone": ("a.json", {"images": [], "categories": []}, "a COCO file without annotations"),
    "COCO captions": ("a.json", {"images": [], "annotations": [{"image_id": 1, "caption": "x"}]}, "COCO captions"),
    "COCO panoptic": ("a.json", {"images": [], "annotations": [{"image_id": 1, "segments_info": []}]}, "COCO panoptic"),
    "COCO of numbers": ("a.json", {"images": [], "annotations": [1]}, "JSON of an unknown kind"),
    "VIA": ("a.json", {"a.jpg9": {"filename": "a.jpg", "regions": []}}, "VGG Image Annotator. Export it as COCO"),
    "VIA project": ("a.json", {"_via_img_metadata": {}}, "project of the VGG Image Annotator. Export it as COCO"),
    "TopoJSON": ("a.json", {"type": "Topology", "objects": {}}, "TopoJSON of a map"),
    "Label Studio": ("a.json", [{"id": 1, "data": {}, "annotations": []}], "Label Studio. Export it as COCO"),
    "Create ML": ("a.json", [{"image": "a.jpg", "annotations": []}], "Create ML. Export it as COCO"),
    "Supervisely": ("a.json", {"size": {}, "objects": []}, "Supervisely. Export it as COCO"),
    "unknown": ("a.json", {"x": 1, "y": 2}, r"JSON of an unknown kind \(it has 'x', 'y'\)"),
    "unknown list": ("a.json", [1, 2], "JSON list of an unknown kind"),
    "lines": ("a.json", '{"a": 1}\n{"a": 2}\n', "has several JSON values"),
    "CVAT": ("a.xml", "<annotations><version>1.1</version><image/></annotations>", "XML of CVAT. Export it as COCO"),
    "ASAP": ("a.xml", "<ASAP_Annotations/>", "XML of ASAP. Import it into QuPath and export GeoJSON"),
    "ImageScope": ("a.xml", "<Annotations/>", "XML of ImageScope or HALO"),
    "old LabelMe": ("a.xml", "<annotation><object><polygon/></object></annotation>", "of the old LabelMe"),
    "unknown XML": ("a.xml", "<svg/>", "XML of an unknown kind .its root is 'svg'"),
    "YOLO": ("a.txt", "0 0.5 0.5 0.2 0.2\n", "text of YOLO. Export it as COCO"),
    "YOLO polygons": ("a.txt", "3 0.5 0.5 0.2 0.2 0.1 0.9\n", "text of YOLO"),
    "table": ("a.csv", "image,left\n", "a table. Boxes are given by the columns"),
    "text": ("a.txt", "hello\n", "no JSON and no XML"),
    "image": ("a.png", encoded.encode(own_layout.pixels(0)), "is no text; masks are given by masks"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("in_folder", [False, True])
def test_files_of_other_kinds_are_named_for_what_they_are(tmp_path, images, kind, in_folder):
    name, content, message = KINDS[kind]
    folder = _put(tmp_path / "other", name, content)
    expected = (
        rf"annotations=.*{re.escape(name)}.*({message}).*COCO JSON, GeoJSON of QuPath, labelme JSON and Pascal VOC"
    )
    with pytest.raises(UserError, match=expected):
        _read(images, folder if in_folder else folder / name)


# What becomes of the file of FIRST, and the message.
FAULTS = {
    "empty": ("cat/0.json", "", "0.json is empty"),
    "cut JSON": ("cat/0.json", '{"type": "FeatureCollection", "fea', "0.json is damaged"),
    "nested JSON": ("cat/0.json", "[" * 100_000, "0.json is damaged"),
    "cut XML": ("cat/0.xml", "<annotation><object>", "0.xml is damaged"),
    "cut gzip": ("cat/0.geojson.gz", gzip.compress(b'{"type": "FeatureCollection"}' * 9)[:-9], "is damaged"),
    "not a number": ("cat/0.json", _feature(_polygon([[0, 0], [9, float("nan")], [9, 9]])), "feature 1 .*finite"),
    "infinite": (
        "cat/0.json",
        '{"type": "Polygon", "coordinates": [[[0, 0], [1e999, 0], [9, 9]]]}',
        "feature 1 .*finite",
    ),
    "texts": ("cat/0.json", _feature({"type": "Polygon", "coordinates": "x"}), "feature 1 cannot be read"),
    "unknown geometry": ("cat/0.json", _feature({"type": "Circle"}), "feature 1 .* has the type 'Circle'"),
    "no geometry": ("cat/0.json", {"type": "FeatureCollection", "features": [3]}, "feature 1 cannot be read"),
    "features that are none": ("cat/0.json", {"type": "FeatureCollection", "features": 3}, "features is not a list"),
    "map": ("cat/0.json", {"type": "FeatureCollection", "crs": {"type": "name"}, "features": []}, "GeoJSON of a map"),
    "west": ("cat/0.json", _feature(_polygon([[-70.1, 4.2], [-69, 4.2], [-69, 5]])), "1 of 1 regions are not on it"),
    "degrees": ("cat/0.json", _feature(_polygon([[13.37, 52.51], [13.38, 52.51], [13.38, 52.52]])), "not on it"),
    "shares": (
        "cat/0.json",
        _feature(_polygon([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]])),
        "smaller than a pixel.*not degrees",
    ),
    "far away": ("cat/0.json", _feature(_polygon([[0, 0], [1e12, 0], [9, 9]])), "not on it.*must be pixels"),
    "size of labelme": (
        "cat/0.json",
        _labelme(("polygon", OUTER, {}), size=(80, 96)),
        r"\(40, 48\) .* and \(80, 96\) in",
    ),
    "shape of labelme": ("cat/0.json", _labelme(("polygon", "x", {})), "shape 1 cannot be read"),
    "circle without end": ("cat/0.json", _labelme(("circle", [[1, 1], [float("inf"), 1]], {})), "shape 1 .*finite"),
    "kind of labelme": ("cat/0.json", _labelme(("star", OUTER, {})), "shape 1 .* 'star'"),
    "mask of labelme": ("cat/0.json", _labelme(("mask", OUTER, {"mask": "eA=="})), "shape 1 .*no known format"),
    "size of VOC": ("cat/0.xml", _voc(("a", (1, 1, 9, 9)), size=(41, 48)), r"\(40, 48\) .* and \(41, 48\) in"),
    "box of VOC": ("cat/0.xml", _voc(("a", ("", 1, 9, 9))), "the box of object 1 cannot be read"),
    "size of COCO": (
        "a.json",
        _coco([{"segmentation": [_flat(OUTER)]}], height=400, width=480),
        r"and \(400, 480\) in",
    ),
    "runs of another size": (
        "a.json",
        _coco([{"segmentation": {"size": [4, 4], "counts": [16]}}]),
        r"run lengths of 'cat/0.png' are of \(4, 4\) pixels",
    ),
    "runs that do not add up": (
        "a.json",
        _coco([{"segmentation": {"size": [40, 48], "counts": [1, 2]}}]),
        "add up to 3 pixels",
    ),
    "negative runs": (
        "a.json",
        _coco([{"segmentation": {"size": [40, 48], "counts": [-1, 1921]}}]),
        "not whole numbers",
    ),
    "damaged runs": ("a.json", _coco([{"segmentation": {"size": [40, 48], "counts": "é"}}]), "annotation 1 .*damaged"),
    "cut runs": ("a.json", _coco([{"segmentation": {"size": [40, 48], "counts": "o"}}]), "annotation 1 .*cut off"),
    "runs without size": ("a.json", _coco([{"segmentation": {"counts": [1]}}]), "the size None, which is not"),
    "odd polygon": (
        "a.json",
        _coco([{"segmentation": [[1, 2, 3, 4, 5]]}]),
        "annotation 1 of 'cat/0.png' cannot be read",
    ),
    "nothing": ("a.json", _coco([{}]), "annotation 1 .* neither segmentation nor bbox"),
    "box of texts": ("a.json", _coco([{"bbox": ["a", 1, 2, 3]}]), "annotation 1 .*cannot be read"),
    "box without area": ("a.json", _coco([{"bbox": [4, 4, 0, 0]}]), "smaller than a pixel"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_of_its_image(tmp_path, images, fault):
    name, content, message = FAULTS[fault]
    folder = _put(tmp_path / "ann", name, content)
    _put(folder, "dog/2.json", _labelme(("polygon", OUTER, {}), imagePath="2.png"))
    raw = _read(images, folder)
    np.testing.assert_array_equal(_mask(raw, "dog/2.png"), _expected(RECTANGLE))
    with pytest.raises(dataset.DataError, match=f"(?s){message}") as raised:
        _record(raw)
    assert name in str(raised.value)


# Content of a.json, options and message.
WHOLE = {
    "no such category": (
        {},
        {"foreground": "cell,liver"},
        "foreground='cell,liver': 'liver' is no category.*cell, stroma",
    ),
    "no such category to ignore": ({}, {"ignore": "9"}, "ignore='9': '9' is no category"),
    "both": ({}, {"foreground": "cell", "ignore": "cell"}, "both name 'cell'"),
    "no image of them": (
        {"images": ("x.png", "y.png")},
        {},
        "no annotation of an image: it names 'x.png' and .* 'cat/0.png'",
    ),
    "two candidates": ({"images": ("0.png",)}, {}, "'0.png', which could be 'cat/0.png' or 'dog/0.png'"),
    "two annotations": ({"images": ("a/cat/0.png", "b/cat/0.png")}, {}, "both of the image 'cat/0.png'. Keep one"),
}


@pytest.mark.parametrize("case", WHOLE)
def test_what_is_wrong_with_the_whole_file(tmp_path, images, case):
    changes, options, message = WHOLE[case]
    folder = _put(tmp_path / "ann", "a.json", _coco([{"segmentation": [_flat(OUTER)]}], **changes))
    with pytest.raises(UserError, match=message):
        _read(images, folder, **options)


def test_rows_that_are_wrong(tmp_path, images):
    good = _coco([{"segmentation": [_flat(OUTER)]}])
    for changes, message in (
        ({"images": [{"id": 1}]}, "images must be a list of objects with id, file_name"),
        ({"images": good["images"] * 2}, "two images of one id"),
        ({"categories": []}, "category_id 1 is not in its categories"),
        ({"categories": {"1": "a"}}, "categories must be a list of objects with id"),
    ):
        with pytest.raises(UserError, match=f"a.json.* {message}|a.json has {message}"):
            _read(images, _put(tmp_path, "a.json", good | changes) / "a.json")


def test_annotations_of_images_that_the_file_does_not_list(tmp_path, images, caplog):
    rows = [{"segmentation": [_flat(OUTER)]}, {"segmentation": [_flat(OUTER)], "image_id": 7}]
    _read(images, _put(tmp_path, "a.json", _coco(rows)) / "a.json")
    assert "1 of 2 annotations of" in caplog.text and "are of images that it does not list" in caplog.text


def test_folders_without_annotations(tmp_path, images):
    with pytest.raises(UserError, match=r"annotations='.*nowhere' does not exist"):
        annotations.find_files(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no file that ends in .geojson.gz, .*\. COCO JSON, "):
        annotations.find_files(str(tmp_path / "empty"))


def test_a_category_may_have_a_comma(tmp_path, images):
    content = _coco([{"segmentation": [_flat(OUTER)]}], categories=("spruce, Norway", "oak"))
    raw = _read(images, _put(tmp_path, "a.json", content) / "a.json", foreground="spruce, Norway")
    np.testing.assert_array_equal(_mask(raw), _expected(RECTANGLE))


def test_masks_of_pascal_voc_are_palette_images(tmp_path, images):
    """SegmentationClass: the index is the class, 255 the border that is left out."""
    indices = np.zeros(SIZE, np.uint8)
    indices[RECTANGLE], indices[12, 4:20] = 15, 255
    picture = Image.fromarray(indices)
    picture.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    (tmp_path / "masks/cat").mkdir(parents=True)
    picture.save(tmp_path / "masks/cat/0.png")
    rule = mask_rules.parse(">0", ignore="255")
    raw = image_folder.read_raw(str(images), masks=str(tmp_path / "masks"), mask_rule=rule)
    expected = _expected(RECTANGLE).astype(int)
    expected[12, 4:20] = dataset.IGNORED
    np.testing.assert_array_equal(_mask(raw), expected)


@pytest.mark.slow
def test_the_program(tmp_path, images):
    """The command of docs/data.md, with files of each kind in one folder, and once more with tiles."""
    _put(tmp_path / "ann", "instances.json", _coco([{"segmentation": [_flat(OUTER)]}]))
    _put(tmp_path / "ann", "cat/1.png.geojson", _feature(_polygon(OUTER, HOLE)))
    _put(tmp_path / "ann", "cat/2.json", _labelme(("polygon", OUTER, {}), imagePath="2.png"))
    _put(tmp_path / "ann", "cat/3.xml", _voc(("cell", (5, 3, 20, 12))))
    flags = ("--dataset=image_folder", f"--source={images}", f"--annotations={tmp_path / 'ann'}")

    def run(name, *more, source=True):
        given = flags if source else flags[:1]
        given += (f"--name={name}", *more, f"--data_dir={tmp_path / 'out'}")
        return programs.run("prepare-data", *given, ignore_warnings=True)

    done = run("whole", "--foreground=cell,Tumor")
    assert done.returncode == 0, done.stderr
    assert "4 of 8 images have an annotation" in done.stderr and "Background: stroma" in done.stderr
    found = {
        name: (split.read_mask(index), len(split.read_boxes(index)))
        for split in load.read_splits(tmp_path / "out", "whole").values()
        for index, name in enumerate(split.names)
    }
    for name, expected in (("0", _expected(RECTANGLE)), ("1", WITH_HOLE), ("2", _expected(RECTANGLE)), ("3", None)):
        mask, num_boxes = found[f"cat/{name}.png"]
        assert num_boxes == 1 and (mask is None) == (expected is None)
        np.testing.assert_array_equal(mask, expected)
    done = run("tiles", "--tile_size=32", "--min_tissue=0", "--test_share=0.3")
    assert done.returncode == 0, done.stderr
    masks = {
        name: split.read_mask(index)
        for split in load.read_splits(tmp_path / "out", "tiles").values()
        for index, name in enumerate(split.names)
    }
    np.testing.assert_array_equal(masks["cat/1.png/8_16"], WITH_HOLE[8:40, 16:48])
    _put(images, "instances.json", _coco([{"segmentation": [_flat(OUTER)]}]))
    archive = shutil.make_archive(str(tmp_path / "packed"), "gztar", images)
    done = run("packed", f"--source={archive}", "--annotations=instances.json", source=False)
    assert done.returncode == 0 and "1 of 8 images have an annotation" in done.stderr, done.stderr
    done = run("packed_alone", f"--source={archive}", source=False)
    assert done.returncode == 1 and "instances.json is outside of the class folders" in done.stderr
    assert "of annotations, give it by --annotations." in done.stderr
    (images / "instances.json").unlink()
    done = run("bad", "--foreground=liver")
    assert done.returncode == 1 and "--foreground='liver': 'liver' is no category" in done.stderr
    done = run("bad", f"--masks={images}")
    assert done.returncode == 1 and "--annotations=" in done.stderr and "has a mask or a box already" in done.stderr
