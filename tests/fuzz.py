"""Mutated files against all readers: each is read, or refused by an error of the library.

    python -m tests.fuzz --count=2000 --seed=1 [--target=images]

The input under way is kept in FOLDER/last, so that one that ends the process can be looked at. test_fuzz.py runs a few.
"""

import argparse
import collections
from collections.abc import Callable
import contextlib
import dataclasses
import io
import json
import pathlib
import shutil
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile

import jax.numpy as jnp
from minmax_jax.configs import common, synthetic
import numpy as np
from PIL import Image
from safetensors import numpy as safetensors_numpy
import scipy.io
import tifffile

from minmax_jax import interop
from minmax_jax.base.errors import UserError
from minmax_jax.data import image_files, image_reading, load, raw_files, readings, splits
from minmax_jax.data.importing import archives, csv_files, glas, mask_rules, oxford_flowers, raw_dataset, records
from minmax_jax.runs.building import fields
from minmax_jax.runs.building import options as options_lib
from minmax_jax.runs.folder import checkpoints, model_card, workdir
from minmax_jax.training import state as state_lib
from tests import encoded, own_layout, torch_layout
from tests import splits as made_splits

_NUMBERS = (b"0", b"-1", b"65536", b"4294967295", b"1e999", b"nan", b"", b'"', b",", b"\n", b"\0", b"\xff", b"{", b"[")


@dataclasses.dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        seeds: intact files.
        read: (content, empty folder) -> anything; raises a UserError for what cannot be used.
    """

    seeds: list[bytes]
    read: Callable[[bytes, pathlib.Path], object]


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """One to four changes: bytes, bits, numbers, parts that are cut, doubled, moved or put in."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        start, length = (int(rng.integers(0, len(data) + 1)), int(rng.integers(1, 1 + max(1, len(data) // 4))))
        match rng.integers(0, 8):
            case 0 if data:
                data[start % len(data)] = rng.integers(0, 256)
            case 1 if data:
                data[start % len(data)] ^= 1 << rng.integers(0, 8)
            case 2:
                del data[start:]
            case 3:
                del data[start : start + length]
            case 4:
                data[start:start] = data[start : start + length]
            case 5:
                other = int(rng.integers(0, len(data) + 1))
                data[start : start + length] = data[other : other + length]
            case 6:
                data[start : start + 4] = rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80]).astype("<u4").tobytes()
            case _:
                data[start:start] = _NUMBERS[rng.integers(0, len(_NUMBERS))]
    return bytes(data)


def _image_seeds() -> list[bytes]:
    pixels = own_layout.pixels(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = (("PNG", {}), ("JPEG", {"exif": exif}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("GIF", {}))
    kinds += (("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PPM", {}), ("TGA", {}))
    seeds = [encoded.encode(pixels, kind, **options) for kind, options in kinds]
    seeds += [encoded.encode(pixels[..., 0]), encoded.encode(pixels[..., 0].astype(np.uint16) * 257)]
    return [*seeds, encoded.encode(np.dstack([pixels, pixels[..., 0]]), "PNG"), *_tiff_seeds(pixels)]


def _tiff_seeds(pixels: np.ndarray) -> list[bytes]:
    """Kinds that tifffile reads."""
    deep, seeds = pixels.astype(np.uint16) * 16, []
    for values, options in (
        (deep, {"photometric": "rgb", "compression": "zlib"}),
        (deep.transpose(2, 0, 1), {"photometric": "minisblack", "metadata": {"axes": "CYX"}, "ome": True}),
        (deep.transpose(2, 0, 1), {"imagej": True, "metadata": {"axes": "CYX"}}),
        (np.float32(pixels) / 255, {"photometric": "rgb", "planarconfig": "contig"}),
    ):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, values, **options)
        seeds.append(buffer.getvalue())
    return seeds


def _read_image(content: bytes, folder: pathlib.Path) -> None:
    del folder
    for reading in (readings.Reading("percentiles"), readings.Reading(channels=(1,)), readings.AS_STORED):
        try:
            image = image_reading.read(content, "image", reading)
        except UserError as error:
            # Floating point has no range but its percentiles; not all files have a second channel.
            if reading.is_default and "floating-point" not in str(error):
                raise
            continue
        # What is kept must read as the same in training.
        np.testing.assert_array_equal(image_files.read_rgb(image.encoded, "kept"), image.pixels)


def _mask_seeds() -> list[bytes]:
    mask = np.uint8(own_layout.mask()) * 255
    palette = Image.fromarray(mask).convert("P")
    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    return [encoded.encode(mask), encoded.encode(mask > 0), encoded.encode(mask, "TIFF"), buffer.getvalue()]


def _read_mask(content: bytes, folder: pathlib.Path) -> None:
    (folder / "image.png").write_bytes(encoded.encode(own_layout.pixels(0)))
    (folder / "mask").write_bytes(content)
    item = raw_dataset.Item("image", "cat", folder / "image.png", folder / "mask")
    options = ("alpha", {}), ("1", {"ignore": "255"}), (">0", {}), (">0", {"instances": True})
    rules = [mask_rules.parse(rule, **others) for rule, others in options]
    first, *others = [raw_dataset.RawDataset(("cat",), {"train": [item]}, rule, "") for rule in rules]
    with contextlib.suppress(UserError):  # few masks have an alpha channel
        raw_dataset.read_record(item, first)
    for raw in others:
        raw_dataset.read_record(item, raw)


_ROWS = b"cat/0.png,masks/0.png,cat\ncat/1.png,,cat\ndog/0.png,,dog\n"
_HEADED = b"image,class,left,top,right,bottom\ncat/0.png,cat,1,2,30,31\ncat/0.png,cat,3,2,30,31\ndog/0.png,dog,,,,\n"


def _read_csv(content: bytes, folder: pathlib.Path) -> None:
    (folder / "train.csv").write_bytes(content)
    (folder / "test.csv").write_bytes(_ROWS.replace(b"0.png", b"9.png").replace(b"1.png", b"8.png"))
    csv_files.read_raw(str(folder), str(folder), mask_rule=mask_rules.above(0))


def _read_folds(content: bytes, folder: pathlib.Path) -> None:
    (folder / "train_fold_0.csv").write_bytes(content)
    for name, rows in (("valid", b"x/image_2.png,,a\n"), ("test", b"x/image_3.png,,b\n")):
        (folder / f"{name}_fold_0.csv").write_bytes(rows)
    splits.read_folds(str(folder), made_splits.make_split([(32, 32)] * 4))


def _read_grades(content: bytes, folder: pathlib.Path) -> None:
    (folder / "Grade.csv").write_bytes(content)
    glas.read_grades(folder)


def _mat_seeds() -> list[bytes]:
    seeds = []
    for options in ({}, {"do_compression": True}, {"format": "4"}):
        buffer = io.BytesIO()
        scipy.io.savemat(buffer, {"labels": np.array([[1, 2, 2, 1, 3]], np.uint8)}, **options)
        seeds.append(buffer.getvalue())
    return seeds


def _read_mat(content: bytes, folder: pathlib.Path) -> None:
    for name in ("jpg", "segmim"):
        (folder / name).mkdir()
    (folder / "imagelabels.mat").write_bytes(content)
    ids = {"trnid": [[1, 2]], "valid": [[3]], "tstid": [[4, 5]]}
    scipy.io.savemat(folder / "setid.mat", ids)
    oxford_flowers.read_raw([str(folder)], folder / "scratch")


_GRADES = ("name,patient ID, grade (GlaS)\n" + "".join(f"train_{n},1, benign\n" for n in range(1, 6))).encode()


def _archive_seeds() -> list[bytes]:
    buffers = [io.BytesIO() for _ in range(6)]
    files = {"cat/0.png": encoded.encode(own_layout.pixels(0)), "cat/a.txt": b"text " * 50, "Grade.csv": _GRADES}
    for buffer, method in zip(buffers, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(buffer, "w", method) as file:
            for name, content in files.items():
                file.writestr(name, content)
    for buffer, mode in zip(buffers[2:], ("w", "w:gz", "w:bz2", "w:xz")):
        with tarfile.open(fileobj=buffer, mode=mode) as file:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
    return [buffer.getvalue() for buffer in buffers]


def _read_archive(content: bytes, folder: pathlib.Path) -> None:
    (folder / "archive").write_bytes(content)
    archives.unpack(folder / "archive", folder / "unpacked" / "here")
    # Nothing may be written elsewhere.
    assert {path.name for path in folder.iterdir()} == {"archive", "unpacked"}
    assert [path.name for path in (folder / "unpacked").iterdir()] == ["here"]


def _read_zipped_glas(content: bytes, folder: pathlib.Path) -> None:
    (folder / "glas.zip").write_bytes(content)
    source = glas.open_source(str(folder / "glas.zip"))
    for path in source.iterdir():
        if path.is_file():
            raw_files.read_file(path)
    glas.read_grades(source)


_TENSORS = {"module.conv1.weight": np.ones((2, 3), np.float32), "fc.bias": np.arange(3), "b": np.float16([1, 2])}


def _tensor_seeds(suffix: str) -> list[bytes]:
    if suffix == ".safetensors":
        return [safetensors_numpy.save(_TENSORS)]
    buffers = io.BytesIO(), io.BytesIO()
    if suffix == ".npz":
        np.savez(buffers[0], **_TENSORS)
        np.savez_compressed(buffers[1], **_TENSORS)
    else:
        content = {"state_dict": _TENSORS, "epoch": 3}
        return [torch_layout.write_old(content), torch_layout.write_zip(content)]
    return [buffer.getvalue() for buffer in buffers]


def _read_tensors(suffix: str) -> Target:
    def read(content: bytes, folder: pathlib.Path) -> None:
        (folder / f"tensors{suffix}").write_bytes(content)
        found = interop.read_tensors(folder / f"tensors{suffix}")
        assert all(isinstance(array, np.ndarray) and array.dtype.kind in "fiub" for array in found.values())

    return Target(_tensor_seeds(suffix), read)


def _pack(folder: pathlib.Path) -> bytes:
    """All files of a folder, one after the other, under a header with their names and sizes."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    header = json.dumps([[str(path.relative_to(folder)), path.stat().st_size] for path in paths]).encode()
    return header + b"\n\n" + b"".join(path.read_bytes() for path in paths)


def _read_packed(seed: bytes, read: Callable[[pathlib.Path], object]) -> Target:
    """A reader of a folder: changes hit the content of its files."""
    header, body = seed.split(b"\n\n", 1)

    def read_folder(content: bytes, folder: pathlib.Path) -> None:
        start = 0
        for name, size in json.loads(header):
            path = folder / "folder" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content[start : start + size])
            start += size
        read(folder / "folder")

    return Target([body], read_folder)


def _state() -> state_lib.TrainState:
    import jax

    return state_lib.TrainState(
        step=jnp.int32(1),
        params={"kernel": jnp.full((3, 2), 0.5)},
        batch_stats={"whole": {"mean": jnp.full(2, -1.0)}},
        opt_state=(),
        rng=jax.random.key(7),
    )


def _checkpoints(scratch: pathlib.Path) -> Target:
    saved = checkpoints.Checkpoints(scratch / "checkpoints")
    saved.save(_state(), checkpoints.RunRecord([{"step": 1}], 1, 0.5, 2.0))
    saved.wait()

    def read(folder: pathlib.Path) -> None:
        state, _ = checkpoints.Checkpoints(folder, read_only=True).restore_newest(_state())
        np.testing.assert_array_equal(state.params["kernel"], np.full((3, 2), 0.5))
        np.testing.assert_array_equal(state.batch_stats["whole"]["mean"], np.full(2, -1.0))

    return _read_packed(_pack(scratch / "checkpoints"), read)


def _prepared(scratch: pathlib.Path) -> Target:
    root = own_layout.write(scratch / "own")
    raw = own_layout.read_folders(root)
    raw = dataclasses.replace(raw, mask_rule=mask_rules.parse(">0", instances=True))
    records.prepare("pets", lambda folder: raw, scratch / "prepared")

    def read(folder: pathlib.Path) -> None:
        for split in load.read_splits(str(folder), "pets").values():
            for index in range(len(split)):
                split.read_image(index), split.read_mask(index), split.read_boxes(index), split.read_instances(index)

    return _read_packed(_pack(scratch / "prepared"), read)


def _read_config(content: bytes, folder: pathlib.Path) -> None:
    (folder / "config.json").write_bytes(content)
    config = workdir.read_config(folder)
    fields.check_fields(config, common.get_config())
    options_lib.read(config, num_devices=1, num_local_devices=1)


def _read_card(content: bytes, folder: pathlib.Path) -> None:
    (folder / model_card.CARD).write_bytes(content)
    (folder / model_card.MODEL).write_bytes(safetensors_numpy.save(_TENSORS))
    model_card.read(folder)


def create_targets(scratch: pathlib.Path) -> dict[str, Target]:
    """All readers, by name."""
    config = json.dumps(synthetic.get_config().to_dict(), indent=2).encode()
    card = {
        "format": 1,
        "class_names": ["cat", "dog"],
        "method": "minmax",
        "step": 3,
        "versions": {"minmax_jax": "1"},
        **{name: {} for name in ("flips", "mask", "model", "preprocessing")},
    }
    return {
        "images": Target(_image_seeds(), _read_image),
        "masks": Target(_mask_seeds(), _read_mask),
        "CSV lists": Target([_ROWS, _HEADED], _read_csv),
        "split files": Target([b"x/image_0.png,,a\nx/image_1.png,,b\n"], _read_folds),
        "Grade.csv": Target([_GRADES], _read_grades),
        ".mat": Target(_mat_seeds(), _read_mat),
        "archives": Target(_archive_seeds(), _read_archive),
        "ZIP of GlaS": Target(_archive_seeds()[:2], _read_zipped_glas),
        ".npz": _read_tensors(".npz"),
        ".safetensors": _read_tensors(".safetensors"),
        ".pth": _read_tensors(".pth"),
        "config.json": Target([config], _read_config),
        "model_card.json": Target([json.dumps(card, indent=2).encode()], _read_card),
        "checkpoints": _checkpoints(scratch),
        "records": _prepared(scratch),
    }


def run(target: Target, count: int, *, seed: int, last: pathlib.Path) -> tuple[collections.Counter, list[str]]:
    """Reads mutated files.

    Args:
        target: the reader.
        count: number of files.
        seed: of their changes.
        last: file that holds the input under way.

    Returns:
        How many were read and refused, and a traceback of each other kind of end.
    """
    rng = np.random.default_rng(seed)
    outcomes, faults = collections.Counter(), {}
    for number in range(count):
        content = mutate(target.seeds[number % len(target.seeds)], rng)
        last.write_bytes(content)
        folder = pathlib.Path(tempfile.mkdtemp(prefix="minmax_jax_fuzz"))
        started = time.monotonic()
        try:
            target.read(content, folder)
            outcomes["read"] += 1
        except UserError as error:
            outcomes["refused"] += 1
            if not str(error).strip():
                faults["an empty message"] = f"seed {seed}, number {number}"
        except Exception as error:
            outcomes["faults"] += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} in {pathlib.Path(where.filename).name}:{where.lineno}"
            faults.setdefault(kind, f"seed {seed}, number {number}\n{traceback.format_exc()}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if time.monotonic() - started > 10:
            faults.setdefault("slow", f"seed {seed}, number {number}: {time.monotonic() - started:.1f} s")
    return outcomes, list(faults.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="files for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", default="", help="one reader")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    any_fault = False
    with tempfile.TemporaryDirectory() as scratch:
        for name, target in create_targets(pathlib.Path(scratch)).items():
            if options.target not in ("", name):
                continue
            started = time.monotonic()
            last = pathlib.Path(tempfile.gettempdir(), "fuzz_last")
            outcomes, faults = run(target, options.count, seed=options.seed, last=last)
            print(f"{name:16} {dict(outcomes)}  {time.monotonic() - started:.1f} s", flush=True)
            for fault in faults:
                print(f"  {fault}", flush=True)
            any_fault |= bool(faults)
    return int(any_fault)


if __name__ == "__main__":
    sys.exit(main())
