"""Decides which images of a raw dataset are used, once all were read; others are refused or left out."""

from collections.abc import Callable, Iterable, Iterator, Mapping
import dataclasses
import logging

from minmax_jax.data import dataset, lossy_reading
from minmax_jax.data.importing import image_facts, problems, raw_dataset

logger = logging.getLogger(__name__)
# Of an image that is in two splits, the first of these keeps it: what tests or validates must not train.
_PRECEDENCE = ("test", "validation", "train")
_MAX_NAMED = 5
_REMEDIES = {
    "dark": "Add --intensity=percentiles.",
    "channels": "--channels=0,1,2, or one or two others, chooses those that are read.",
    "frames": "If pages of a TIFF are channels, --channels chooses among them.",
}


def check(
    raw: raw_dataset.RawDataset,
    read_facts: Callable[[str], Iterable[image_facts.ImageFacts]],
    *,
    skip_bad: bool = False,
) -> raw_dataset.RawDataset:
    """Decides which images can be used, by what was found when they were read.

    Args:
        raw: the dataset.
        read_facts: name of a split -> facts of its images, in their order.
        skip_bad: whether images that cannot be used are left out and listed, instead of refused.

    Returns:
        The dataset that can be prepared; `bad` lists what was left out.

    Raises:
        DataError: listing every image that cannot be used; if they are left out, where a split has no image left, or a
            class no training image.
    """
    sorted_items = _Filter(raw)
    for split in sorted(raw.splits, key=_PRECEDENCE.index):
        for item, facts in zip(raw.splits[split], read_facts(split), strict=True):
            sorted_items.put(item, split, facts)
    bad = [
        problem
        for split in reversed(_PRECEDENCE)
        for problem in (*raw.bad, *sorted_items.bad)
        if problem.split == split
    ]
    if sorted_items.copies:
        logger.warning(
            "%d images of these official splits are in two of them and are kept: %s%s.",
            len(sorted_items.copies),
            "; ".join(sorted_items.copies[:_MAX_NAMED]),
            " and others" if len(sorted_items.copies) > _MAX_NAMED else "",
        )
    for line in lossy_reading.summarize(sorted_items.lossy, remedies=_REMEDIES):
        logger.warning("%s", line)
    if not bad:
        return raw
    if not skip_bad:
        raise dataset.DataError(f"{problems.listing(bad)}\nNothing was prepared. skip_bad leaves these images out.")
    _refuse_gaps(raw, sorted_items.good, bad)
    logger.warning("Left out %s. %s", problems.summary(bad), problems.listing(bad))
    return dataclasses.replace(raw, splits={split: sorted_items.good[split] for split in raw.splits}, bad=tuple(bad))


class _Filter:
    """Separates items into good and bad; remembers all seen so far to detect copies."""

    def __init__(self, raw: raw_dataset.RawDataset):
        self._found, self._places, self._names = raw, {}, set()
        self.good = {split: [] for split in raw.splits}
        self.bad: list[problems.Problem] = []
        self.copies: list[str] = []
        self.lossy: list[Mapping[str, int]] = []

    def put(self, item: raw_dataset.Item, split: str, facts: image_facts.ImageFacts) -> None:
        reason = next(self._reasons(item, split, facts), "")
        if reason:
            self.bad.append(problems.Problem(split, item.name, reason))
        else:
            self.good[split].append(item)

    def _reasons(self, item: raw_dataset.Item, split: str, facts: image_facts.ImageFacts) -> Iterator[str]:
        """Yields what is wrong with an item."""
        path = problems.printable(item.image)
        if not problems.is_utf8(item.name):
            yield f"{path} has a name that is not UTF-8. Rename it."
        if item.class_name not in self._found.class_names:
            yield f"{path}: the class {item.class_name!r} has no training image. Add some, or correct the class."
        if item.name in self._names:
            yield f"{path} would be the second image named {item.name!r}. Rename it."
        self._names.add(item.name)
        if facts.reason:
            yield facts.reason
        self.lossy.append(facts.lossy)
        first_split, first = self._places.setdefault(facts.digest, (split, item))
        if first_split == split:
            if first.class_name != item.class_name and not self._found.official:
                other = f"{problems.printable(first.image)} of the class {first.class_name!r}"
                yield f"{path} of the class {item.class_name!r} is the same image as {other}. Delete one."
            return
        if self._found.official:
            self.copies.append(f"{item.name!r} ({split}) is {first.name!r} ({first_split})")
        else:
            copy = f"{problems.printable(first.image)} of the {first_split} split"
            yield f"{path} is the same image as {copy}. Delete one."


def _refuse_gaps(
    raw: raw_dataset.RawDataset, good: dict[str, list[raw_dataset.Item]], bad: list[problems.Problem]
) -> None:
    for split, items in good.items():
        if not items:
            raise dataset.DataError(f"No image of the {split} split can be used. {problems.listing(bad)}")
    listed = {problem.class_name for problem in raw.bad if problem.split == "train" and problem.class_name}
    trained, left = ({item.class_name for item in items} for items in (raw.splits["train"], good["train"]))
    if lost := (trained | listed) - left:
        raise dataset.DataError(f"No training image of the class {min(lost)!r} can be used. {problems.listing(bad)}")
