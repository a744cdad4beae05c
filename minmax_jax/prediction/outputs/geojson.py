"""GeoJSON that QuPath opens by drag and drop: a feature per polygon, written one after another.

Coordinates are pixels of full resolution, the origin at the top left corner of the image; of a slide with bounds, which
QuPath crops, that is the corner of the bounds.
"""

from collections.abc import Iterable, Sequence
import gzip
import io
import itertools
import pathlib
from typing import IO, Any, NamedTuple

import numpy as np

from minmax_jax.base import strict_json

ANNOTATION, DETECTION = "annotation", "detection"  # types of objects in QuPath
MAX_ANNOTATIONS = 5000  # QuPath becomes slow with more annotations, not with more detections
_COLOR = [255, 212, 0]  # RGB of the classification in QuPath


class Feature(NamedTuple):
    """A polygon and what is known of it.

    Attributes:
        rings: the outer ring, counter-clockwise by the sign of its area, and the holes, clockwise (RFC 7946); [n, 2]
            (x, y), the last point equal to the first.
        classification: name of its class.
        measurements: numbers by name.
    """

    rings: Sequence[np.ndarray]
    classification: str
    measurements: dict[str, float]


def write(path: pathlib.Path, features: Iterable[Feature], *, object_type: str | None = None) -> tuple[int, str]:
    """Writes a FeatureCollection, a line for each feature; no more than the first 5,000 are in memory.

    Args:
        path: of the file; compressed by gzip if it ends with ".gz".
        features: of an image.
        object_type: of all features, as QuPath calls it; None: "annotation", or "detection" if there are more than
            5,000 of them.

    Returns:
        The number of features, and their type.
    """
    features = iter(features)
    head = list(itertools.islice(features, MAX_ANNOTATIONS + 1)) if object_type is None else []
    object_type = object_type or (DETECTION if len(head) > MAX_ANNOTATIONS else ANNOTATION)
    count = 0
    with path.open("wb") as binary, _text(binary, path) as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for count, feature in enumerate(itertools.chain(head, features), 1):
            described = strict_json.dumps(_describe(feature, object_type), separators=(",", ":"))
            file.write((",\n" if count > 1 else "\n") + described)
        file.write("\n]}\n")
    return count, object_type


def _text(binary: IO[bytes], path: pathlib.Path) -> IO[str]:
    # Without the time in the header: the same polygons are the same file.
    content = gzip.GzipFile("", "wb", fileobj=binary, mtime=0) if path.suffix == ".gz" else binary
    return io.TextIOWrapper(content, encoding="utf-8", newline="\n")


def _describe(feature: Feature, object_type: str) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring.tolist() for ring in feature.rings]},
        "properties": {
            "objectType": object_type,
            "classification": {"name": feature.classification, "color": _COLOR},
            "measurements": {name: round(float(value), 6) for name, value in feature.measurements.items()},
        },
    }
