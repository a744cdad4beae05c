"""What is found while an image is read: all that the check of a dataset and its summary need to know of it."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import hashlib
from typing import Any, NamedTuple

from minmax_jax.data import dataset
from minmax_jax.data.importing import problems, raw_dataset


class RecordFacts(NamedTuple):
    """One record of an image: the image itself, or a tile.

    Attributes:
        num_bytes: of the record as it is written.
        name: of the record.
        label: number of its class.
        height: of the image, pixels.
        width: of the image, pixels.
        patient: whom it is of, or "".
        foreground: share of its mask's pixels; None without a mask.
        num_objects: that are numbered in its mask.
        num_boxes: around its objects.
    """

    num_bytes: int
    name: str
    label: int
    height: int
    width: int
    patient: str
    foreground: float | None
    num_objects: int
    num_boxes: int


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """One image.

    Attributes:
        reason: why its files cannot be used, or "".
        digest: of the encoded image, or of all its tiles; "" if it was not read.
        lossy: what the file holds that is not read, see `lossy_reading`.
        records: that it becomes.
    """

    reason: str = ""
    digest: str = ""
    lossy: Mapping[str, int] = dataclasses.field(default_factory=dict)
    records: tuple[RecordFacts, ...] = ()

    def to_json(self) -> list[Any]:
        """As JSON values."""
        return [self.reason, self.digest, dict(self.lossy), self.records]


def from_json(values: list[Any]) -> ImageFacts:
    """What `to_json` gave."""
    reason, digest, lossy, records = values
    return ImageFacts(reason, digest, lossy, tuple(RecordFacts(*record) for record in records))


class _Refused(Exception):
    """The message says why an image cannot be used."""


def read(
    item: raw_dataset.Item, raw: raw_dataset.RawDataset, write: Callable[[dict[str, Any]], int] = lambda record: 0
) -> ImageFacts:
    """Reads the files of an image; if its list alone says that it cannot be used, nothing is read.

    Args:
        item: the image.
        raw: the dataset of the image.
        write: called with each record; returns the number of bytes that it wrote. If an image turns out to be of no
            use, records of it may have been written.
    """
    if not problems.is_utf8(item.name) or item.class_name not in raw.class_names:
        return ImageFacts()
    digest, lossy, records = hashlib.blake2b(digest_size=16), {}, []
    try:
        for record in _read_records(item, raw):
            digest.update(record["image"])
            lossy = record["lossy"]
            records.append(_describe(record, raw.class_names.index(item.class_name), write(record)))
    except _Refused as error:
        return ImageFacts(str(error))
    return ImageFacts("", digest.hexdigest(), lossy, tuple(records))


def _read_records(item: raw_dataset.Item, raw: raw_dataset.RawDataset) -> Iterator[dict[str, Any]]:
    """As `raw.read_records`; errors of the image's files are `_Refused`, those of who takes the records are not."""
    try:
        for record in raw.read_records(item, raw):
            if item.class_name in raw.background_classes:
                _refuse_region(item, record)
            yield record
    except (dataset.DataError, OSError) as error:
        raise _Refused(problems.printable(error)) from error


def _describe(record: Mapping[str, Any], label: int, num_bytes: int) -> RecordFacts:
    height, width = record["size"].tolist()
    return RecordFacts(
        num_bytes,
        record["name"],
        label,
        height,
        width,
        record.get("patient", ""),
        record["foreground"],
        record["num_objects"],
        len(record["boxes"]),
    )


def _refuse_region(item: raw_dataset.Item, record: Mapping[str, Any]) -> None:
    """Raises DataError for a foreground, or a box, in an image of a class that was declared to have none."""
    advice = f"background_classes declares that the class {item.class_name!r} has no region. Correct the class, or"
    if record["foreground"]:
        raise dataset.DataError(f"{item.mask} has a foreground, and {advice} remove the mask.")
    if len(record["boxes"]):
        raise dataset.DataError(f"{item.image} has a box, and {advice} remove the box.")
