"""GeoJSON as QuPath writes it: one file an image, coordinates in pixels of full resolution."""

import collections
from collections.abc import Iterator
import pathlib
from typing import Any

import numpy as np

from minmax_jax.data import dataset
from minmax_jax.data.importing import regions

UNCLASSIFIED = "unclassified"
# Objects of QuPath that divide an image and show nothing.
_NOT_DRAWN = ("tile", "tma_core", "tmacore", "root")
_GEOMETRIES = ("Polygon", "MultiPolygon", "GeometryCollection", "Point", "MultiPoint", "LineString", "MultiLineString")


def is_geojson(content: Any) -> bool:
    """Whether JSON is a FeatureCollection, a feature, a list of features, or a geometry."""
    if isinstance(content, list):
        return bool(content) and all(isinstance(row, dict) and row.get("type") == "Feature" for row in content)
    return isinstance(content, dict) and content.get("type") in ("FeatureCollection", "Feature", *_GEOMETRIES)


def parse(content: Any, path: pathlib.Path) -> regions.Drawing:
    """The polygons of the features, a region each.

    Raises:
        DataError: for a feature that cannot be read, or for coordinates of a map.
    """
    if isinstance(content, dict) and content.get("crs"):
        raise dataset.DataError(
            f"{path} is GeoJSON of a map (it has a crs, {str(content['crs'])[:80]}). Pixels of the image are needed, as"
            " QuPath exports them."
        )
    found, skipped = [], collections.Counter()
    features = _features(content)
    if not isinstance(features, list):
        raise dataset.DataError(f"{path}: features is not a list. Export it anew.")
    for number, feature in enumerate(features, 1):
        try:
            properties = feature.get("properties") or {}
            kind = str(properties.get("objectType") or properties.get("object_type") or "").lower()
            polygons = [] if kind in _NOT_DRAWN else list(_polygons(feature.get("geometry"), skipped))
            region = regions.from_polygons(_category(properties), polygons)
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise dataset.DataError(f"{path}: feature {number} cannot be read ({error}). Export it anew.") from error
        if kind in _NOT_DRAWN:
            skipped[kind] += 1
        elif region is not None:
            found.append(region)
        elif polygons:
            skipped["Polygon without area"] += 1
    return regions.Drawing(tuple(found), skipped=skipped)


def _features(content: Any) -> Any:
    if isinstance(content, list):
        return content
    if content["type"] == "FeatureCollection":
        return content.get("features") or []
    return [content if content["type"] == "Feature" else {"geometry": content}]


def _category(properties: dict[str, Any]) -> str:
    classification = properties.get("classification") or {}
    name = classification if isinstance(classification, str) else classification.get("name")
    return str(name or UNCLASSIFIED)


def _polygons(geometry: Any, skipped: collections.Counter) -> Iterator[list[np.ndarray]]:
    """Yields the rings of each polygon; counts what has no area."""
    kind = geometry["type"] if geometry else "feature without geometry"
    if kind == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from _polygons(part, skipped)
    elif kind in ("Polygon", "MultiPolygon"):
        for rings in [geometry["coordinates"]] if kind == "Polygon" else geometry["coordinates"]:
            # A third coordinate is the height.
            yield [np.array([point[:2] for point in ring], np.float64).reshape(-1, 2) for ring in rings]
    elif geometry and kind not in _GEOMETRIES:
        raise ValueError(f"its geometry has the type {kind!r}")
    else:
        skipped[kind] += 1
