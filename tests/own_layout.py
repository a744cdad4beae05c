"""A small dataset of one's own, and ways to spoil a file of it."""

from collections.abc import Callable
import io
import os
import pathlib
import struct
import zipfile
import zlib

import numpy as np

from minmax_jax.data.importing import (
    checks,
    csv_files,
    image_facts,
    image_folder,
    mask_rules,
    raw_dataset,
    tiles,
)
from tests import encoded

SIZE = (40, 48)
CLASSES = ("cat", "dog")
SPLITS = {"train": 3, "valid": 1, "test": 2}
# The image that is spoilt.
BAD = "train/cat/1.png"
# A change of the folder that `write` wrote.
Spoil = Callable[[pathlib.Path], object]


def pixels(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def mask(size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.broadcast_to(np.arange(size[1]) < 12, size)


def write(root: pathlib.Path) -> pathlib.Path:
    """images/SPLIT/CLASS/I.png, masks laid out alike, and lists/train.csv, valid.csv and test.csv that name them."""
    seed = 0
    for split, count in SPLITS.items():
        rows = []
        for class_name in CLASSES:
            for index in range(count):
                seed += 1
                path = f"{split}/{class_name}/{index}.png"
                put(f"images/{path}", encoded.encode(pixels(seed)))(root)
                put(f"masks/{path}", encoded.encode(mask()))(root)
                rows.append(f"images/{path},masks/{path},{class_name}\n")
        put(f"lists/{split}.csv", "".join(rows).encode())(root)
    return root


def read_folders(root: pathlib.Path) -> raw_dataset.RawDataset:
    return image_folder.read_raw(str(root / "images"), masks=str(root / "masks"), mask_rule=mask_rules.above(0))


def read_lists(root: pathlib.Path) -> raw_dataset.RawDataset:
    return csv_files.read_raw(str(root), str(root / "lists"), mask_rule=mask_rules.above(0))


def read_tiles(root: pathlib.Path) -> raw_dataset.RawDataset:
    """Four tiles an image, noise being coloured."""
    return tiles.cut(read_folders(root), tiles.Tiling(32))


def check(raw: raw_dataset.RawDataset, **options) -> raw_dataset.RawDataset:
    """Reads all images and checks them; writes nothing."""
    return checks.check(raw, lambda split: [image_facts.read(item, raw) for item in raw.splits[split]], **options)


def put(path: str | bytes, content: bytes) -> Spoil:
    """Writes a file."""

    def spoil(root):
        place = os.path.join(os.fsencode(root), os.fsencode(path))
        os.makedirs(os.path.dirname(place), exist_ok=True)
        pathlib.Path(os.fsdecode(place)).write_bytes(content)

    return spoil


def edit(path: str, old: str, new: str) -> Spoil:
    """Replaces text that stands in a file."""

    def spoil(root):
        text = (root / path).read_text()
        assert old in text
        (root / path).write_text(text.replace(old, new, 1), encoding="utf-8")

    return spoil


def remove(path: str) -> Spoil:
    return lambda root: (root / path).unlink()


def rename(old: str, new: str) -> Spoil:
    return lambda root: os.rename(root / old, os.path.join(os.fsencode(root), os.fsencode(new)))


def copy(old: str, new: str) -> Spoil:
    return lambda root: put(new, (root / old).read_bytes())(root)


def link(path: str, target: str) -> Spoil:
    def spoil(root):
        (root / path).unlink(missing_ok=True)
        (root / path).symlink_to(target)

    return spoil


def both(*spoils: Spoil) -> Spoil:
    return lambda root: [spoil(root) for spoil in spoils]


def chunk(kind: bytes, data: bytes, *, checksum: int | None = None) -> bytes:
    """A part of a PNG file."""
    found = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", found)


def png(width: int, height: int, *, data: bytes = b"\0", **options) -> bytes:
    """A PNG file that says it has these sides."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header, **options)
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def half(kind: str, **options) -> bytes:
    content = encoded.encode(pixels(50), kind, **options)
    return content[: len(content) // 2]


def damaged(kind: str, place: int, *, value: int = 0xFF, count: int = 8) -> bytes:
    content = bytearray(encoded.encode(pixels(50), kind))
    content[place : place + count] = bytes([value]) * count
    return bytes(content)


def zip_file() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("1.png", encoded.encode(pixels(50)))
    return buffer.getvalue()
