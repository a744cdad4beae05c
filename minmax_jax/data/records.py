"""Prepared datasets on disk: TFDS folders of array_record files with images, masks, labels and names."""

import dataclasses
import io
import logging
import pathlib
import shutil

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

from minmax_jax.data import dataset

logger = logging.getLogger(__name__)
_ENCODED = {"image": tfds.decode.SkipDecoding(), "mask": tfds.decode.SkipDecoding()}


class DataError(ValueError):
    """A file of a dataset that cannot be used; the message names it, and the mend."""


def features(class_names: tuple[str, ...]) -> tfds.features.FeaturesDict:
    """What a record holds."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=list(class_names)),
            "name": tfds.features.Text(),
            "size": tfds.features.Tensor(shape=(2,), dtype=np.int32),
        }
    )


def encode(name: str, label: str, image: np.ndarray, mask: np.ndarray) -> dict:
    """A record of an image [H, W, 3] uint8 and its mask [H, W] bool."""
    return {
        "image": _to_png(image),
        "mask": _to_png(mask.astype(np.uint8) * 255),
        "label": label,
        "name": name,
        "size": np.array(image.shape[:2], np.int32),
    }


def _to_png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def decode_file(content: bytes, name: str, *, mode: str | None = None) -> np.ndarray:
    """The pixels of an encoded image, converted to a Pillow mode if one is given.

    Raises:
        DataError: if the content is no image, or not a whole one.
    """
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return np.asarray(picture.convert(mode) if mode else picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name} cannot be read as an image ({error}). Replace it by an intact copy.") from error


def prepare(builder: tfds.core.GeneratorBasedBuilder) -> pathlib.Path:
    """Writes a dataset, or finds it written; leftovers of a run that was killed are removed first.

    TFDS writes to a folder named "incomplete" and renames it at the end, so what has the final name is whole.
    """
    folder = pathlib.Path(builder.data_path)
    for leftover in folder.parent.glob("incomplete.*"):
        logger.info("Removing %s, left by a run that did not end.", leftover)
        shutil.rmtree(leftover)
    if folder.exists():
        logger.info("%s is prepared already.", folder)
    builder.download_and_prepare()
    return folder


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads one feature of a record as pixels; picklable."""

    source: object
    feature: str
    mode: str

    def __call__(self, index: int) -> np.ndarray:
        record = self.source[index]
        name = f"The {self.feature} of {record['name'].decode()!r}"
        pixels = decode_file(record[self.feature], name, mode=self.mode)
        return pixels > 0 if self.feature == "mask" else pixels


def load(data_dir: str, name: str) -> dict[str, dataset.Split]:
    """The official splits of a prepared dataset, in the order of their names.

    Raises:
        DataError: if it was not prepared.
    """
    versions = sorted(pathlib.Path(data_dir).glob(f"{name}/[0-9]*/dataset_info.json")) if data_dir else []
    if not versions:
        raise DataError(
            f"config.data.dir={data_dir!r} holds no prepared {name!r} dataset. Prepare it with\n"
            f"  python -m experiments.prepare_data --dataset={name} --source=FOLDER_OR_ZIP --data_dir=DIR\n"
            "and set --config.data.dir=DIR."
        )
    builder = tfds.builder_from_directory(versions[-1].parent)
    return {split: _load_split(builder, split) for split in builder.info.splits}


def _load_split(builder: tfds.core.DatasetBuilder, split: str) -> dataset.Split:
    source = builder.as_data_source(split, decoders=_ENCODED)
    records = [{key: record[key] for key in ("name", "label", "size")} for record in source]
    names = [record["name"].decode() for record in records]
    in_order = np.argsort(names)
    everything = dataset.Split(
        names=tuple(names),
        labels=np.array([record["label"] for record in records], np.int32),
        class_names=tuple(builder.info.features["label"].names),
        sizes=np.array([record["size"] for record in records]),
        read_image=_Reader(source, "image", "RGB"),
        read_mask=_Reader(source, "mask", "L"),
    )
    return dataset.subset(everything, in_order)


def describe(data_dir: str, name: str) -> str:
    """A table of a prepared dataset: images, classes, sizes and foreground share of each split."""
    lines = [f"{'split':<8}{'images':>8}  {'sizes (pixels)':<22}{'foreground':>10}  classes"]
    for split_name, split in load(data_dir, name).items():
        least, greatest = split.sizes.min(axis=0), split.sizes.max(axis=0)
        share = np.mean([split.read_mask(index).mean() for index in range(len(split))])
        classes = ", ".join(
            f"{class_name} {np.sum(split.labels == label)}" for label, class_name in enumerate(split.class_names)
        )
        sizes = f"{least[0]}x{least[1]} to {greatest[0]}x{greatest[1]}"
        lines.append(f"{split_name:<8}{len(split):>8}  {sizes:<22}{100 * share:>9.1f}%  {classes}")
    return "\n".join(lines)
