"""Chunks of a raw dataset: images that one process reads in a row, and the files that keep what it has read.

Of each chunk there are two files: the serialized records, one after another, and then, as JSON, what was found. The
second one has its name only when both are complete. It says what the chunk was made of: a later process takes it only
if flags and image files are still the same.
"""

from collections.abc import Callable, Iterator, Mapping
import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import threading
from typing import Any

from minmax_jax.base import progress, strict_json
from minmax_jax.data import raw_files
from minmax_jax.data.importing import image_facts, raw_dataset

_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Neighbouring images of a split.

    Attributes:
        number: of the chunk, from 0 in the order of the splits.
        split: of the images.
        items: the images.
    """

    number: int
    split: str
    items: tuple[raw_dataset.Item, ...]


def divide(raw: raw_dataset.RawDataset) -> list[Chunk]:
    """All chunks of a dataset, in the order of its splits and their images."""
    parts = [
        (split, tuple(items[start : start + raw.images_per_chunk]))
        for split, items in raw.splits.items()
        for start in range(0, len(items), raw.images_per_chunk)
    ]
    return [Chunk(number, split, items) for number, (split, items) in enumerate(parts)]


@dataclasses.dataclass(frozen=True)
class Folder:
    """The files of all chunks.

    Attributes:
        path: of the folder.
        raw: the dataset.
        job: what determines the records and is not in the dataset's items, such as flags.
    """

    path: pathlib.Path
    raw: raw_dataset.RawDataset
    job: str = ""

    def make(
        self, chunk: Chunk, serialize: Callable[[Mapping[str, Any]], bytes], is_stopped: Callable[[], bool]
    ) -> None:
        """Reads the images of a chunk and writes its files.

        Args:
            chunk: to be made.
            serialize: of `record_files.create_serializer`.
            is_stopped: is asked before each record; if it is so, the chunk is left unfinished.
        """
        key, facts = self._key(chunk), []  # before the files are read: they may change
        unfinished = self._records(chunk).with_suffix(f".{os.getpid()}.new")
        with unfinished.open("wb") as file:

            def write(record: Mapping[str, Any]) -> int:
                if is_stopped():
                    raise concurrent.futures.CancelledError
                return file.write(serialize(record))

            for item in chunk.items:
                start = file.tell()
                facts.append(image_facts.read(item, self.raw, write))
                if not facts[-1].records:  # a tile after others was damaged
                    file.seek(start)
                    file.truncate()
        unfinished.replace(self._records(chunk))
        content = {"key": key, "images": [found.to_json() for found in facts]}
        unfinished.write_text(strict_json.dumps(content))
        unfinished.replace(self._facts(chunk))

    def is_made(self, chunk: Chunk) -> bool:
        """Whether the files of a chunk are there and are those that `make` would write."""
        try:
            content = json.loads(self._facts(chunk).read_text())
            if content["key"] != self._key(chunk):
                return False
            num_bytes = sum(record.num_bytes for found in _parse(content) for record in found.records)
            return num_bytes == self._records(chunk).stat().st_size
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def read_facts(self, chunk: Chunk) -> list[image_facts.ImageFacts]:
        """What was found in the images of a chunk that is made."""
        return _parse(json.loads(self._facts(chunk).read_text()))

    def read_records(self, chunk: Chunk) -> Iterator[tuple[raw_dataset.Item, image_facts.RecordFacts, bytes]]:
        """Yields the serialized records of a chunk that is made, and what each one is of."""
        with self._records(chunk).open("rb") as file:
            for item, found in zip(chunk.items, self.read_facts(chunk), strict=True):
                for record in found.records:
                    yield item, record, file.read(record.num_bytes)

    def remove(self, chunk: Chunk) -> None:
        """Deletes the files of a chunk; a kill in between leaves none that counts."""
        self._facts(chunk).unlink()
        self._records(chunk).unlink()

    def _facts(self, chunk: Chunk) -> pathlib.Path:
        return self.path / f"{chunk.number:06d}.json"

    def _records(self, chunk: Chunk) -> pathlib.Path:
        return self.path / f"{chunk.number:06d}.records"

    def _key(self, chunk: Chunk) -> str:
        described = (
            (_FORMAT, self.job, chunk.split, self.raw.class_names, self.raw.background_classes, self.raw.reading),
            [_describe(item) for item in chunk.items],
        )
        return hashlib.blake2b(repr(described).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _parse(content: Mapping[str, Any]) -> list[image_facts.ImageFacts]:
    return [image_facts.from_json(values) for values in content["images"]]


def _describe(item: raw_dataset.Item) -> tuple[Any, ...]:
    """An image by its list and by the size and modification time of its files; their content is not read."""
    files = (item.image, item.mask, item.annotation and item.annotation.path)
    return item.name, item.class_name, item.boxes, item.patient, [_describe_file(path) for path in files]


def _describe_file(path: raw_files.Path | None) -> tuple[Any, ...]:
    # A file in an archive is as old as that.
    real = path if isinstance(path, pathlib.Path) else getattr(getattr(path, "root", None), "filename", None)
    try:
        status = os.stat(real) if real else None
    except OSError:
        status = None  # missing: the images that need it are refused
    return str(path), (status.st_size, status.st_mtime_ns) if status else ()


def make_all(folder: Folder, chunks: list[Chunk], serialize, *, num_threads: int = 1) -> None:
    """Makes those chunks that are not made yet, with progress.

    Args:
        folder: of their files.
        chunks: to be made.
        serialize: of `record_files.create_serializer`.
        num_threads: that read at the same time.
    """
    stopped = threading.Event()

    def make(chunk: Chunk) -> int:
        if not stopped.is_set() and not folder.is_made(chunk):
            folder.make(chunk, serialize, stopped.is_set)
        return len(chunk.items)

    num_images = sum(len(chunk.items) for chunk in chunks)
    with (
        progress.meter("Reading images", total=num_images, unit="image") as update,
        concurrent.futures.ThreadPoolExecutor(num_threads, thread_name_prefix="read") as pool,
    ):
        futures = [pool.submit(make, chunk) for chunk in chunks]
        try:
            for future in futures:
                update(future.result())
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
