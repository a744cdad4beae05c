"""What image files hold that is not read, or hardly seen: counted and named, so that nothing is lost without a word.

For one image it is a dictionary of numbers:

- "dark": where 16 bits are read as the upper 8, the highest value that the image may have, if it is below a quarter of
  the range;
- "channels": the number of channels, if not all are read;
- "frames": the number of frames or pages, if there are several (0: unknown how many).
"""

from collections.abc import Mapping, Sequence

# 16 bits from a camera of 14 or fewer have values below it; their upper 8 bits are at most 63 of 255.
_DARK = 1 << 14


def find_dark(upper: int) -> dict[str, int]:
    """{"dark": value} for an image of 16 bits whose maximum upper 8 bits are `upper`, {} if it is bright enough."""
    maximum = (upper << 8) + 255
    return {"dark": maximum} if maximum < _DARK else {}


def flags(lossy: Mapping[str, int]) -> list[str]:
    """What that says against the mask of an image, in words."""
    texts = {
        "dark": "the image uses at most {} of 65535 values: it is dark",
        "channels": "the image has {} channels, of which only the first or the colours are read",
        "frames": "the file has further frames or pages, of which only the first is read",
    }
    return [text.format(lossy[kind]) for kind, text in texts.items() if kind in lossy]


def summarize(found: Sequence[Mapping[str, int]], *, remedies: Mapping[str, str]) -> list[str]:
    """A line for each kind, with the number of images.

    Args:
        found: of each image.
        remedies: what to do about "dark" and "channels", a sentence each.
    """
    lines = []
    for kind, text in (
        ("dark", "use at most {} of 65535 values (12 or 14 bits in 16): they become dark."),
        ("channels", "have several channels, up to {}, of which only the first or the colours are read."),
        ("frames", "have further frames or pages, which are not read: only the first is."),
    ):
        values = [lossy[kind] for lossy in found if kind in lossy]
        if values:
            line = f"{len(values)} of {len(found)} images {text.format(max(values))} {remedies.get(kind, '')}"
            lines.append(line.rstrip())
    return lines
