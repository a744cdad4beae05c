"""EXIF orientations: 1 is upright, 2 to 8 are turned or mirrored."""

from PIL import ExifTags, Image

_TURNS = dict(
    enumerate(
        (
            Image.Transpose.FLIP_LEFT_RIGHT,
            Image.Transpose.ROTATE_180,
            Image.Transpose.FLIP_TOP_BOTTOM,
            Image.Transpose.TRANSPOSE,
            Image.Transpose.ROTATE_270,
            Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_90,
        ),
        2,
    )
)


def tag_of(picture: Image.Image) -> int:
    """The EXIF orientation tag, 1 to 8."""
    tag = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return tag if tag in range(1, 9) else 1


def upright(picture: Image.Image, tag: int) -> Image.Image:
    """Turned by a tag; ImageOps.exif_transpose would write the EXIF data anew, and fail on what it cannot write."""
    return picture.transpose(_TURNS[tag]) if tag in _TURNS else picture


def as_stored(picture: Image.Image, tag: int) -> Image.Image:
    """The opposite of `upright`."""
    return upright(picture, {6: 8, 8: 6}.get(tag, tag))
