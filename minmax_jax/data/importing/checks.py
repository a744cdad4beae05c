"""Reads a release once, before anything is written: what of it cannot be used is refused, or left out."""

from collections.abc import Iterator
import dataclasses
import hashlib
import logging

import tqdm

from minmax_jax.data import dataset
from minmax_jax.data.importing import problems, raw_dataset

logger = logging.getLogger(__name__)
# Of an image that is in two splits, the first of these keeps it: what tests or validates must not train.
_PRECEDENCE = ("test", "validation", "train")
_MOST_NAMED = 5


def check(found: raw_dataset.Release, *, skip_bad: bool = False) -> raw_dataset.Release:
    """Reads every file, with progress.

    Args:
        found: of which nothing was read yet.
        skip_bad: whether images that cannot be used are left out and listed, instead of refused.

    Returns:
        The release that can be prepared; its `bad` is what was left out.

    Raises:
        DataError: listing every image that cannot be used; if they are left out, where a split has no image left, or a
            class no training image.
    """
    sieve = _Sieve(found)
    for split in sorted(found.splits, key=_PRECEDENCE.index):
        for item in tqdm.tqdm(found.splits[split], desc=f"Checking {split}", unit="image"):
            sieve.put(item, split)
    bad = [fault for split in reversed(_PRECEDENCE) for fault in (*found.bad, *sieve.bad) if fault.split == split]
    if sieve.copies:
        logger.warning(
            "%d images of these official splits are in two of them, and stay: %s%s.",
            len(sieve.copies),
            "; ".join(sieve.copies[:_MOST_NAMED]),
            " and others" if len(sieve.copies) > _MOST_NAMED else "",
        )
    if not bad:
        return found
    if not skip_bad:
        raise dataset.DataError(f"{problems.listing(bad)}\nNothing was prepared. --skip_bad leaves these images out.")
    _refuse_gaps(found, sieve.good, bad)
    logger.warning("Left out %s. %s", problems.summary(bad), problems.listing(bad))
    return dataclasses.replace(found, splits={split: sieve.good[split] for split in found.splits}, bad=tuple(bad))


class _Sieve:
    """Parts items into good and bad, one after the other; remembers those that it saw, to know copies of them."""

    def __init__(self, found: raw_dataset.Release):
        self._found, self._places, self._names = found, {}, set()
        self.good = {split: [] for split in found.splits}
        self.bad: list[problems.Fault] = []
        self.copies: list[str] = []

    def put(self, item: raw_dataset.Item, split: str) -> None:
        reason = next(self._reasons(item, split), "")
        if reason:
            self.bad.append(problems.Fault(split, item.name, reason))
        else:
            self.good[split].append(item)

    def _reasons(self, item: raw_dataset.Item, split: str) -> Iterator[str]:
        """Yields what is wrong with an item; cheap tests come first."""
        path = problems.printable(item.image)
        if not problems.is_utf8(item.name):
            yield f"{path} has a name that is not UTF-8. Rename it."
        if item.class_name not in self._found.class_names:
            yield f"{path}: the class {item.class_name!r} has no training image. Add some, or mend the class."
        if item.name in self._names:
            yield f"{path} would be the second image named {item.name!r}. Rename it."
        self._names.add(item.name)
        try:
            digest = hashlib.blake2b(digest_size=16)
            for record in self._found.read_records(item, self._found):
                digest.update(record["image"])
        except (dataset.DataError, OSError) as error:
            yield problems.printable(error)
            return
        first_split, first = self._places.setdefault(digest.digest(), (split, item))
        if first_split == split:
            return
        if self._found.official:
            self.copies.append(f"{item.name!r} ({split}) is {first.name!r} ({first_split})")
        else:
            copy = f"{problems.printable(first.image)} of the {first_split} split"
            yield f"{path} is the same image as {copy}. Delete one."


def _refuse_gaps(
    found: raw_dataset.Release, good: dict[str, list[raw_dataset.Item]], bad: list[problems.Fault]
) -> None:
    for split, items in good.items():
        if not items:
            raise dataset.DataError(f"No image of the {split} split can be used. {problems.listing(bad)}")
    listed = {fault.class_name for fault in found.bad if fault.split == "train" and fault.class_name}
    trained, left = ({item.class_name for item in items} for items in (found.splits["train"], good["train"]))
    if lost := (trained | listed) - left:
        raise dataset.DataError(f"No training image of the class {min(lost)!r} can be used. {problems.listing(bad)}")
