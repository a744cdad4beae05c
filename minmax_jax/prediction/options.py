"""Options of a prediction."""

import dataclasses

from minmax_jax.base import options
from minmax_jax.data import preprocessing


@dataclasses.dataclass(frozen=True)
class Options:
    """What is written, how masks become regions, and what becomes of large images and of other magnifications.

    Attributes:
        threshold: a pixel is foreground where the soft mask is at least this.
        geojson: whether polygons are written for QuPath; "gz": compressed.
        geojson_type: what polygons are in QuPath, "annotation" or "detection"; None: annotations, or detections in
            images with more than 5,000.
        coco: whether regions are written as COCO annotations.
        soft_masks: whether soft masks are written as .npy, float16; "ome-tiff": as OME-TIFF of 8 bits.
        min_area: regions with fewer pixels are left out of counts, polygons and annotations; masks keep them.
        tolerance: in pixels, by how much polygons may be simplified; 0: they follow the pixels exactly.
        batch_size: images, or tiles, of one shape that are predicted together.
        tile_size: side of the tiles, in pixels of the file, in which larger images are predicted; 0: all images are
            predicted in one pass; None: images too large for one pass are, in tiles of the size of training crops.
        tile_overlap: minimum share of a tile that the next one shows as well.
        microns_per_pixel: of all images; 0: as their files say.
        rescale: whether images of another magnification are brought to that of the training.

    Raises:
        OptionError: for a number out of range.
    """

    threshold: float = 0.5
    geojson: bool | str = False
    geojson_type: str | None = None
    coco: bool = False
    soft_masks: bool | str = False
    min_area: int = 16
    tolerance: float = 1.0
    batch_size: int = 8
    tile_size: int | None = None
    tile_overlap: float = 0.25
    microns_per_pixel: float = 0.0
    rescale: bool = True

    def __post_init__(self):
        options.check_range("threshold", self.threshold, 1e-6, 1 - 1e-6)
        options.check_choice("geojson", self.geojson, (False, True, "gz"))
        options.check_choice("geojson_type", self.geojson_type, (None, "annotation", "detection"))
        options.check_choice("soft_masks", self.soft_masks, (False, True, "ome-tiff"))
        options.check_range("min_area", self.min_area, 1)
        options.check_range("tolerance", self.tolerance, 0, 1e6)
        options.check_range("batch_size", self.batch_size, 1)
        if self.tile_size:
            options.check_range("tile_size", self.tile_size, preprocessing.MIN_SIDE)
        options.check_range("tile_overlap", self.tile_overlap, 0, 0.75)
        options.check_range("microns_per_pixel", self.microns_per_pixel, 0, 1000)
