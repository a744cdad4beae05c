"""Polygons that other programs accept, from outlines: simplified as far as they stay valid and keep their area.

Valid is meant as in OGC Simple Features: rings are closed and neither cross nor touch themselves, holes are inside
their outer ring, and two rings share at most single points.
"""

import math

import numpy as np
import shapely

from minmax_jax.prediction.outputs import outlines

AREA_TOLERANCE = 0.05  # maximum difference between the areas of a polygon and of its pixels, as a share
_HALVINGS = 4  # of the tolerance, before an outline is left as it is


def create(
    part: outlines.Part,
    *,
    scale: tuple[float, float] = (1.0, 1.0),
    origin: tuple[float, float] = (0.0, 0.0),
    limit: tuple[float, float] = (math.inf, math.inf),
    tolerance: float = 0.0,
) -> list[np.ndarray]:
    """A valid polygon around a part of a mask.

    Args:
        part: the outline, in pixels of the mask.
        scale: pixels of the image in one of the mask, (across, down).
        origin: of the mask in the image, (x, y).
        limit: maximum coordinates, (x, y): those of the image.
        tolerance: in pixels of the image, how far an outline may move where points are dropped (Douglas and Peucker).
            Where the polygon would not be valid, or its area would differ by more than 5 % from that of the pixels, the
            tolerance is halved; after four times, the outline is exact.

    Returns:
        The outer ring, counter-clockwise by the sign of its area, and the holes, clockwise: [n, 2] (x, y), the last
        point equal to the first. Coordinates are rounded to hundredths, or more decimals if pixels are that small.
    """
    decimals = _decimals(min(scale))
    # Edges are on a grid whose lines stay apart where they are rounded: an exact outline stays valid.
    rings = [
        np.round(np.minimum(ring * scale + origin, limit), decimals) + 0.0  # no -0.0
        for ring in (part.shell, *part.holes)
    ]
    exact = shapely.Polygon(rings[0], rings[1:])
    # A rectangle would lose half of its area with any corner.
    steps = [tolerance / 2**count for count in range(_HALVINGS + 1)] if tolerance > 0 and len(part.shell) > 5 else []
    simplified = (exact.simplify(step, preserve_topology=True) for step in steps)
    polygon = next((polygon for polygon in simplified if _is_faithful(polygon, exact)), exact)
    oriented = shapely.geometry.polygon.orient(polygon)
    return [shapely.get_coordinates(ring) for ring in (oriented.exterior, *oriented.interiors)]


def _decimals(scale: float) -> int:
    return 2 + max(0, math.ceil(-math.log10(scale)))


def _is_faithful(polygon: shapely.Polygon, exact: shapely.Polygon) -> bool:
    return (
        polygon.geom_type == "Polygon"
        and len(polygon.interiors) == len(exact.interiors)
        and abs(polygon.area - exact.area) <= AREA_TOLERANCE * exact.area
        and polygon.is_valid
    )
