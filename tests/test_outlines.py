"""Regions of a mask, their outlines as polygons, GeoJSON and run lengths."""

import numpy as np
import pytest

from minmax_jax.prediction import coco, geojson, outlines, regions


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
    assert found[0].box == (1, 1, 4, 5) and found[0].score == pytest.approx((0.6 + 0.8 + 1.0) * 2 / 7 + 0.5 / 7)
    assert found[0].centroid == pytest.approx(
        (np.mean([1] * 3 + [2] * 3 + [3]) + 0.5, np.mean([1, 2, 3] * 2 + [4]) + 0.5)
    )
    assert found[1].box == (5, 7, 6, 8) and labels[5, 7] == 2 and labels[0, 0] == 0
    labels, found = regions.find(mask, threshold=0.5, least_area=2)
    assert len(found) == 1 and labels.max() == 1 and labels[5, 7] == 0
    assert regions.find(np.zeros((3, 3)), threshold=0.5)[1] == []


def test_outlines_have_the_area_of_the_mask_and_its_holes():
    disc = _disc((80, 90), (40, 45), 25) & ~_disc((80, 90), (40, 45), 10)
    (polygon,) = outlines.find(disc.astype(float), threshold=0.5)
    assert len(polygon) == 2
    assert outlines.polygon_area(polygon) == pytest.approx(disc.sum(), rel=0.02)
    for ring in polygon:
        np.testing.assert_array_equal(ring[0], ring[-1])
    # Points are in pixels whose corner is (0, 0): the middle of the disc is at (45.5, 40.5).
    assert (polygon[0].min(0) + polygon[0].max(0)) / 2 == pytest.approx([45.5, 40.5], abs=0.01)


def test_outlines_end_at_the_border_of_the_image():
    (polygon,) = outlines.find(np.ones((10, 20)), threshold=0.5)
    assert polygon[0].min(0).tolist() == [0, 0] and polygon[0].max(0).tolist() == [20, 10]
    assert outlines.polygon_area(polygon) == pytest.approx(200, rel=0.01)
    half = np.zeros((10, 20))
    half[:, :5] = 1
    (polygon,) = outlines.find(half, threshold=0.5)
    assert polygon[0].max(0) == pytest.approx([5, 10])
    assert list(outlines.find(np.zeros((10, 20)), threshold=0.5)) == []


def test_simplified_outlines_stay_near():
    disc = _disc((200, 200), (100, 100), 80).astype(float)
    (full,), (fewer,) = (list(outlines.find(disc, threshold=0.5, tolerance=tolerance)) for tolerance in (0, 1))
    assert len(fewer[0]) < len(full[0]) / 4
    assert outlines.polygon_area(fewer) == pytest.approx(outlines.polygon_area(full), rel=0.01)
    radius = np.hypot(*(fewer[0] - 100.5).T)
    assert np.abs(radius - 80).max() < 1.6


def test_small_polygons_and_holes_are_left_out():
    mask = _disc((60, 60), (30, 30), 20).astype(float)
    mask[30, 30] = 0
    mask[2, 2] = 1
    (polygon,) = outlines.find(mask, threshold=0.5, least_area=5)
    assert len(polygon) == 1


def test_the_outline_of_a_region_of_the_least_area_is_kept():
    """Between pixels, four by four pixels have an outline around 15 of them; several regions have their largest."""
    mask = np.zeros((20, 20))
    mask[2:6, 2:6] = 1
    (polygon,) = outlines.find(mask, threshold=0.5, least_area=16)
    assert outlines.polygon_area(polygon) == pytest.approx(15.5)
    mask[10, 10] = 1
    assert len(list(outlines.find(mask, threshold=0.5, least_area=16))) == 1


def test_run_lengths_by_hand():
    labels = np.array([[2, 1], [1, 1], [2, 2]])
    assert coco.encode(labels, 1, (0, 0, 2, 2)) == {"size": [3, 2], "counts": [1, 1, 1, 2, 1]}
    assert coco.encode(labels, 2, (0, 0, 3, 2))["counts"] == [0, 1, 1, 1, 2, 1]
    assert coco.encode(np.ones((2, 2), int), 1, (0, 0, 2, 2))["counts"] == [0, 4]


def test_run_lengths_give_the_region_back():
    rng = np.random.default_rng(0)
    labels, found = regions.find(rng.uniform(size=(30, 20)), threshold=0.7)
    for number, region in enumerate(found, 1):
        counts = coco.encode(labels, number, region.box)["counts"]
        flat = np.repeat(np.arange(len(counts)) % 2, counts)
        np.testing.assert_array_equal(flat.reshape(20, 30).T == 1, labels == number)
    assert len(found) > 5


def test_rings_turn_as_geojson_wants():
    outer = np.array([[0, 0], [0, 4], [4, 4], [4, 0], [0, 0.0]])
    hole = np.array([[1, 1], [1, 2], [2, 2], [2, 1], [1, 1.0]])
    for rings in ([outer, hole], [outer[::-1], hole[::-1]]):
        item = geojson.feature(rings, classification="daisy", measurements={"Area px": 15})
        areas = [outlines.ring_area(np.array(ring)) for ring in item["geometry"]["coordinates"]]
        assert areas == [16, -1]
    assert item["properties"]["classification"]["name"] == "daisy"
    assert item["properties"]["measurements"] == {"Area px": 15}
