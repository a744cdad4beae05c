"""Regions of a mask, their outlines as polygons, GeoJSON and run lengths."""

import gzip
import json

import numpy as np
from pycocotools import mask as coco_mask
import pytest
from scipy import ndimage
import shapely

from minmax_jax.prediction.outputs import coco, geojson, outlines, polygons, region_files, regions


def _disc(size, center, radius):
    y, x = np.indices(size)
    return np.hypot(y - center[0], x - center[1]) <= radius


def test_regions_by_hand():
    mask = np.zeros((6, 8), np.float32)
    mask[1:3, 1:4] = [[0.6, 0.8, 1.0], [0.6, 0.8, 1.0]]
    mask[3, 4] = 0.5  # touches at a corner
    mask[5, 7] = 0.9
    labels, found = regions.find(mask, threshold=0.5)
    assert [region.area for region in found] == [7, 1]
    assert found[0].box == (1, 1, 4, 5) and found[0].mean_value == pytest.approx((0.6 + 0.8 + 1.0) * 2 / 7 + 0.5 / 7)
    assert found[0].centroid == pytest.approx(
        (np.mean([1] * 3 + [2] * 3 + [3]) + 0.5, np.mean([1, 2, 3] * 2 + [4]) + 0.5)
    )
    assert found[1].box == (5, 7, 6, 8) and labels[5, 7] == 2 and labels[0, 0] == 0
    labels, found = regions.find(mask, threshold=0.5, min_area=2)
    assert len(found) == 1 and labels.max() == 1 and labels[5, 7] == 0
    assert regions.find(np.zeros((3, 3)), threshold=0.5)[1] == []


def _outline(mask, **options):
    """The only polygon of a mask, as shapely sees it."""
    (part,) = outlines.find([mask])
    rings = polygons.create(part, **options)
    return shapely.Polygon(rings[0], rings[1:])


def test_outlines_by_hand():
    mask = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 1]], bool)
    (part,) = outlines.find([mask])
    assert part.area == 9
    assert set(map(tuple, part.shell.tolist())) == {(0, 0), (3, 0), (3, 2), (4, 2), (4, 3), (0, 3)}
    (hole,) = part.holes
    assert set(map(tuple, hole.tolist())) == {(1, 1), (2, 1), (2, 2), (1, 2)}
    assert outlines.area(part.shell) == 10 and outlines.area(hole) == -1
    assert outlines.find([np.zeros((3, 4), bool)]) == outlines.find([]) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (10, 20), (300, 2)])
@pytest.mark.parametrize("tolerance", [0, 0.5, 1, 1e4])
def test_a_full_mask_is_the_whole_image(size, tolerance):
    polygon = _outline(np.ones(size, bool), tolerance=tolerance)
    assert polygon.equals(shapely.box(0, 0, size[1], size[0]))
    # A mask of another size than the image: 7 rows and 3 columns of the image for one of the mask, more or less.
    scaled = _outline(np.ones(size, bool), tolerance=tolerance, scale=(10 / 3, 22 / 3))
    assert scaled.bounds == pytest.approx((0, 0, size[1] * 10 / 3, size[0] * 22 / 3), abs=0.005)


def test_pixels_that_touch_at_a_corner_are_parts_of_their_own():
    assert [part.area for part in outlines.find([np.eye(3, dtype=bool)])] == [1, 1, 1]
    # Around two holes that touch each other, and the border, at corners.
    mask = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]], bool)
    (part,) = outlines.find([mask])
    assert part.area == 13 and len(part.holes) == 2
    assert shapely.Polygon(part.shell, part.holes).is_valid


def test_an_island_in_a_hole_is_a_part_of_its_own():
    mask = np.ones((9, 9), bool)
    mask[1:8, 1:8] = False
    mask[3:6, 3:6] = True
    mask[4, 4] = False
    assert sorted((part.area, len(part.holes)) for part in outlines.find([mask])) == [(8, 1), (32, 1)]


def test_simplified_outlines_stay_near():
    disc = _disc((200, 200), (100, 100), 80)
    full, fewer = _outline(disc), _outline(disc, tolerance=1)
    assert len(fewer.exterior.coords) < len(full.exterior.coords) / 5
    assert full.area == disc.sum() and fewer.area == pytest.approx(full.area, rel=0.01)
    assert shapely.hausdorff_distance(full, fewer) <= 1
    # Points are in pixels whose corner is (0, 0): the middle of the disc is at (100.5, 100.5).
    assert fewer.centroid.coords[0] == pytest.approx((100.5, 100.5), abs=0.1)


def _random_mask(rng):
    """A mask of one of many kinds, some of which outlines get wrong easily."""
    size = rng.integers(1, 33, 2)
    mask, (y, x) = np.zeros(size, bool), np.indices(size)
    kind = rng.choice(
        ["noise", "blobs", "squares", "diagonals", "rings", "nested", "full", "pixel", "lines", "holes", "border"]
    )
    if kind == "noise":
        mask = rng.uniform(size=size) < rng.uniform()
    elif kind == "blobs":
        smooth = ndimage.gaussian_filter(rng.uniform(size=size), rng.uniform(0.5, 4))
        mask = smooth >= np.quantile(smooth, rng.uniform())
    elif kind == "squares":
        mask = (x // rng.integers(1, 4) + y // rng.integers(1, 4)) % 2 == 0
    elif kind == "diagonals":
        mask = ((x + y) % rng.integers(2, 7) == 0) | ((x - y) % rng.integers(2, 7) == 0)
    elif kind in ("rings", "nested"):
        far = np.hypot(y - size[0] / 2, x - size[1] / 2) if kind == "rings" else np.maximum(abs(y - 9), abs(x - 9))
        mask = far.astype(int) % rng.integers(2, 5) == 0
    elif kind == "full":
        mask[:] = True
    elif kind == "pixel":
        mask[rng.integers(size[0]), rng.integers(size[1])] = True
    elif kind == "lines":
        mask[rng.integers(size[0], size=3)] = True
        mask[:, rng.integers(size[1], size=3)] = True
    elif kind == "holes":
        mask = rng.uniform(size=size) > 0.1
    else:
        mask = np.minimum(np.minimum(y, size[0] - 1 - y), np.minimum(x, size[1] - 1 - x)) < rng.integers(1, 4)
    return mask ^ (rng.uniform(size=size) < rng.choice([0, 0, 0.05]))


def _check_polygons(seed, count):
    """Shapely is the oracle: rings are simple, polygons valid, and parts and areas those of the pixels."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        mask, band = _random_mask(rng), rng.integers(1, 34)
        tolerance = rng.choice([0, 0.3, 0.5, 1, 1.5, 3, 20, 1000])
        down, across = rng.choice([1, 1, 0.37, 10 / 3, 7.77], 2)
        parts = outlines.find([mask[top : top + band] for top in range(0, len(mask), band)])
        labels, number = ndimage.label(mask)  # connected by edges
        assert sorted(part.area for part in parts) == sorted(np.bincount(labels.ravel())[1:]), number
        for part in parts:
            outer, *holes = rings = polygons.create(part, scale=(across, down), tolerance=tolerance)
            polygon = shapely.Polygon(outer, holes)
            assert polygon.is_valid, shapely.is_valid_reason(polygon)
            assert all(shapely.LinearRing(ring).is_simple for ring in rings)
            assert all(len(np.unique(ring[:-1], axis=0)) == len(ring) - 1 for ring in rings)  # no point twice
            assert all((ring[0] == ring[-1]).all() and (ring == ring.round(3)).all() for ring in rings)
            assert [shapely.is_ccw(shapely.LinearRing(ring)) for ring in rings] == [True] + [False] * len(holes)
            pixels, rounding = part.area * down * across, 0.005 * polygon.length
            assert abs(polygon.area - pixels) <= (polygons.AREA_TOLERANCE if tolerance else 0) * pixels + rounding


def test_polygons_of_random_masks_are_valid():
    _check_polygons(seed=0, count=300)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_polygons_of_thousands_of_random_masks_are_valid(seed):
    _check_polygons(seed, count=1000)


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 1000.0])
def test_the_parts_of_a_mask_cover_its_pixels(tolerance):
    """And nearly no others, at any tolerance; the same ones where outlines are exact."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).uniform(size=(80, 90)), 4)
    mask = smooth >= np.median(smooth)
    found = [polygons.create(part, tolerance=tolerance) for part in outlines.find([mask])]
    y, x = np.indices(mask.shape) + 0.5
    inside = sum(shapely.contains_xy(shapely.Polygon(rings[0], rings[1:]), x, y).astype(int) for rings in found)
    if tolerance == 0:
        np.testing.assert_array_equal(inside, mask)
    else:
        assert np.mean(inside != mask) < 0.05


def test_outlines_with_too_many_corners_are_not_kept():
    mask = np.random.default_rng(0).uniform(size=(40, 40)) < 0.5
    assert outlines.find([mask[:20], mask[20:]], max_corners=100) is None
    assert outlines.find([mask], max_corners=10_000) is not None


@pytest.mark.parametrize(("share", "minimum"), [(0.7, 0.5), (0.05, 0.0)])
def test_regions_with_too_many_corners_are_reduced(monkeypatch, share, minimum):
    """Thick ones to the squares that they fill at least by half, thin ones to those that they touch."""
    monkeypatch.setattr(region_files, "_MAX_CORNERS", 200)
    labels = 3 * (np.random.default_rng(0).uniform(size=(50, 61)) < share).astype(int)
    region = regions.Region((0, 0, 50, 61), np.sum(labels > 0), 1.0, (25.0, 30.0))
    parts, factor = region_files._outline(labels, 3, region)
    padded = np.pad(labels == 3, [(0, -50 % factor), (0, -61 % factor)])
    shares = padded.reshape(len(padded) // factor, factor, -1, factor).mean(axis=(1, 3))
    assert factor > 1 and sum(part.area for part in parts) == np.sum((shares >= minimum) & (shares > 0)) > 0


def _decode(segmentation):
    return coco_mask.decode(segmentation).astype(bool)


def test_run_lengths_by_hand():
    labels = np.array([[2, 1], [1, 1], [2, 2]])
    assert coco.compress([1, 1, 1, 2, 1], (3, 2)) == coco_mask.encode(np.asfortranarray(labels == 1))["counts"].decode()
    found = coco.encode(labels, 1, (0, 0, 2, 2))
    assert found["area"] == 3 and found["bbox"] == [0, 0, 2, 2]
    assert found["segmentation"]["size"] == [3, 2] and isinstance(found["segmentation"]["counts"], str)
    np.testing.assert_array_equal(_decode(found["segmentation"]), labels == 1)
    # Images that pycocotools cannot count have the lengths themselves.
    assert coco.compress([5, 2**32 - 5], (1 << 16, 1 << 16)) == [5, 2**32 - 5]


def test_run_lengths_are_those_of_pycocotools():
    rng = np.random.default_rng(0)
    for size in ((30, 20), (1, 40), (25, 1)):
        labels, found = regions.find(rng.uniform(size=size), threshold=0.6)
        for number, region in enumerate(found, 1):
            encoded, expected = (
                coco.encode(labels, number, region.box),
                coco_mask.encode(np.asfortranarray(labels == number)),
            )
            assert encoded["segmentation"]["counts"] == expected["counts"].decode("ascii")
            assert encoded["area"] == coco_mask.area(expected) == region.area
            assert encoded["bbox"] == coco_mask.toBbox(expected).tolist()
        assert len(found) > 3


def _feature(area=15.0):
    outer = np.array([[0, 0], [4, 0], [4, 4], [0, 4], [0, 0.0]])
    hole = np.array([[1, 1], [1, 2], [2, 2], [2, 1], [1, 1.0]])
    return geojson.Feature([outer, hole], "daisy", {"Area px": area})


def test_geojson_as_qupath_reads_it(tmp_path):
    assert geojson.write(tmp_path / "a.geojson", [_feature(), _feature(0.123456789)]) == (2, "annotation")
    first, second = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert first["geometry"]["type"] == "Polygon"
    assert [shapely.LinearRing(ring).is_ccw for ring in first["geometry"]["coordinates"]] == [True, False]
    assert shapely.geometry.shape(first["geometry"]).area == 15
    assert (
        first["properties"]["objectType"] == "annotation" and first["properties"]["classification"]["name"] == "daisy"
    )
    assert second["properties"]["measurements"] == {"Area px": 0.123457}
    assert geojson.write(tmp_path / "b.geojson", []) == (0, "annotation")
    assert json.loads((tmp_path / "b.geojson").read_text()) == {"type": "FeatureCollection", "features": []}


def test_compressed_geojson_is_the_same(tmp_path):
    for name in ("a.geojson", "a.geojson.gz", "again.geojson.gz"):
        geojson.write(tmp_path / name, [_feature()])
    assert gzip.decompress((tmp_path / "a.geojson.gz").read_bytes()) == (tmp_path / "a.geojson").read_bytes()
    assert (tmp_path / "again.geojson.gz").read_bytes() == (tmp_path / "a.geojson.gz").read_bytes()


@pytest.mark.parametrize(
    ("count", "asked", "expected"),
    [(3, None, "annotation"), (4, None, "detection"), (4, "annotation", "annotation"), (1, "detection", "detection")],
)
def test_many_objects_are_detections(tmp_path, monkeypatch, count, asked, expected):
    monkeypatch.setattr(geojson, "MAX_ANNOTATIONS", 3)
    assert geojson.write(tmp_path / "a.geojson", [_feature()] * count, object_type=asked) == (count, expected)
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert [feature["properties"]["objectType"] for feature in features] == [expected] * count
