"""GeoJSON that QuPath opens by drag and drop: a feature per polygon, written one after another.

Coordinates are pixels of full resolution, the origin at the top left corner of the image; of a slide with bounds, which
QuPath crops, that is the corner of the bounds.
"""

from collections.abc import Iterable
from typing import IO, Any

import numpy as np

from minmax_jax import strict_json
from minmax_jax.prediction import outlines

_DECIMALS = 2
_COLOR = [255, 212, 0]  # RGB of the classification in QuPath


def feature(
    polygon: outlines.Polygon, *, classification: str, measurements: dict[str, float], name: str = ""
) -> dict[str, Any]:
    """A polygon as a GeoJSON feature, as QuPath reads annotations.

    Args:
        polygon: outer ring and holes.
        classification: name of its class.
        measurements: numbers by name.
        name: of the annotation.
    """
    properties = {
        "objectType": "annotation",
        "classification": {"name": classification, "color": _COLOR},
        "measurements": {key: round(float(value), 6) for key, value in measurements.items()},
    }
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [_ring(ring, is_hole=k > 0) for k, ring in enumerate(polygon)]},
        "properties": properties | ({"name": name} if name else {}),
    }


def write(file: IO[str], features: Iterable[dict[str, Any]]) -> int:
    """Writes a FeatureCollection, a line each, and returns the number of features; none is kept in memory."""
    file.write('{"type": "FeatureCollection", "features": [')
    count = 0
    for item in features:
        file.write((",\n" if count else "\n") + strict_json.dumps(item, separators=(",", ":")))
        count += 1
    file.write("\n]}\n")
    return count


def _ring(ring: np.ndarray, *, is_hole: bool) -> list[list[float]]:
    """Outer rings counterclockwise by the sign of the area, holes clockwise (RFC 7946)."""
    if (outlines.ring_area(ring) < 0) != is_hole:
        ring = ring[::-1]
    return np.round(ring, _DECIMALS).tolist()
