"""All chunks of a raw dataset become a prepared one: records in order, their index, and what was left out."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from minmax_jax.base import progress
from minmax_jax.data import load, record_index
from minmax_jax.data.importing import checks, chunks, image_facts, problems, raw_dataset, record_files, summary


@dataclasses.dataclass
class _Written:
    """What was written of a split: for its index and for the summary of the dataset."""

    names: list[str] = dataclasses.field(default_factory=list)
    labels: list[int] = dataclasses.field(default_factory=list)
    sizes: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    patients: list[str] = dataclasses.field(default_factory=list)
    masks: list[summary.MaskFacts] = dataclasses.field(default_factory=list)

    def append(self, record: image_facts.RecordFacts) -> None:
        self.names.append(record.name)
        self.labels.append(record.label)
        self.sizes.append((record.height, record.width))
        self.patients.append(record.patient)
        self.masks.append(summary.MaskFacts(record.foreground, record.num_objects, record.num_boxes))

    def to_index(self) -> dict[str, list[Any]]:
        sizes = [list(size) for size in self.sizes]
        return {"names": self.names, "labels": self.labels, "sizes": sizes, "patients": self.patients}

    def masks_by_name(self) -> list[summary.MaskFacts]:
        """In the order of the names, as `load.read_splits` has the records."""
        return [self.masks[index] for index in np.argsort(self.names)]


def join(
    name: str,
    found: chunks.Folder,
    folder: pathlib.Path,
    *,
    skip_bad: bool = False,
) -> dict[str, list[summary.MaskFacts]]:
    """Checks the images of all chunks and writes the records of the good ones; deletes each chunk once it is written.

    Args:
        name: of the dataset.
        found: the files of the chunks, all made.
        folder: to be created.
        skip_bad: whether images that cannot be used are left out.

    Returns:
        What `summary.describe` needs to know of the masks of each split.

    Raises:
        DataError: as `checks.check`; then nothing was written.
    """
    of_split: dict[str, list[chunks.Chunk]] = {split: [] for split in found.raw.splits}
    for chunk in chunks.divide(found.raw):
        of_split[chunk.split].append(chunk)
    kept = checks.check(
        found.raw,
        lambda split: (facts for chunk in of_split[split] for facts in found.read_facts(chunk)),
        skip_bad=skip_bad,
    )
    written = {split: _Written() for split in of_split}
    contents = {
        split: _take(found, of_split[split], kept.splits[split], split, written[split].append) for split in of_split
    }
    record_files.write(name, kept, folder, contents)
    problems.write(kept.bad, folder)
    index = {
        split: {"class_names": list(kept.class_names), **written[split].to_index()}
        for split in load.SPLITS
        if split in written
    }
    record_index.write(folder, index)
    return {split: entries.masks_by_name() for split, entries in written.items()}


def _take(
    found: chunks.Folder,
    parts: Sequence[chunks.Chunk],
    good: Sequence[raw_dataset.Item],
    split: str,
    remember: Callable[[image_facts.RecordFacts], None],
) -> Iterator[bytes]:
    """Yields the records of the good images of a split, with progress."""
    is_good = set(map(id, good))
    with progress.meter(f"Writing {split}", total=sum(len(chunk.items) for chunk in parts), unit="image") as update:
        for chunk in parts:
            for item, record, content in found.read_records(chunk):
                if id(item) in is_good:
                    remember(record)
                    yield content
            found.remove(chunk)
            update(len(chunk.items))
