"""Records as array_record files in a folder that TFDS reads."""

from collections.abc import Callable, Iterable, Mapping
import pathlib
from typing import Any

import numpy as np

from minmax_jax.data import load, metadata
from minmax_jax.data.importing import raw_dataset

_RECORDS_PER_FILE = 1000
_MODULE = "minmax_jax.data.importing.records"  # what TFDS calls the module of the dataset


def features(class_names: tuple[str, ...]):
    """What a record holds. TFDS decodes the image; mask and objects are files, empty where there is none."""
    import tensorflow_datasets as tfds  # Here, because it takes seconds to import.

    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            # TFDS's Image cannot be empty, nor has it 16 bits without OpenCV.
            "mask": tfds.features.Text(doc="PNG of the foreground, bool, or uint8 with 2 where ignored; b'' without."),
            "instances": tfds.features.Text(doc="PNG of the number of each pixel's object, 0 of none; b'' without."),
            "boxes": tfds.features.Tensor(
                shape=(None, 4), dtype=np.float32, doc="(top, left, bottom, right), shares of height and width."
            ),
            "label": tfds.features.ClassLabel(names=list(class_names)),
            "name": tfds.features.Text(),
            "size": tfds.features.Tensor(shape=(2,), dtype=np.int32),
            "patient": tfds.features.Text(),
        }
    )


def create_serializer(class_names: tuple[str, ...]) -> Callable[[Mapping[str, Any]], bytes]:
    """A function that serializes a record; it gives the same bytes in each process.

    Args:
        class_names: of all classes, in the order of their labels.
    """
    from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

    names, labels = list(features(class_names)), {name: label for label, name in enumerate(class_names)}

    def to_feature(value: str | bytes | int | np.ndarray) -> tf_feature_pb2.Feature:
        if isinstance(value, str | bytes):
            content = value.encode() if isinstance(value, str) else value
            return tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=[content]))
        values = np.ravel(value).tolist()
        if np.asarray(value).dtype.kind == "f":
            return tf_feature_pb2.Feature(float_list=tf_feature_pb2.FloatList(value=values))
        return tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=values))

    def serialize(record: Mapping[str, Any]) -> bytes:
        values = {**record, "label": labels[record["label"]]}
        content = tf_feature_pb2.Features(feature={name: to_feature(values[name]) for name in names})
        # Otherwise their order is that of a hash, which each process begins with another seed.
        return tf_example_pb2.Example(features=content).SerializeToString(deterministic=True)

    return serialize


def write(
    name: str, raw: raw_dataset.RawDataset, folder: pathlib.Path, contents: Mapping[str, Iterable[bytes]]
) -> None:
    """Writes a dataset; TFDS's own writer would hold whole splits, or serialize each record again.

    Args:
        name: of the dataset.
        raw: that the records were made of.
        folder: to be created.
        contents: the serialized records of each split, which are taken one by one, split after split.
    """
    import tensorflow_datasets as tfds

    folder.mkdir(parents=True)
    identity = tfds.core.DatasetIdentity(name, tfds.core.Version(load.VERSION), str(folder), module_name=_MODULE)
    known = metadata.Metadata(raw.microns_per_pixel, raw.background_classes, raw.reading).to_json()
    info = tfds.core.DatasetInfo(
        builder=identity,
        features=features(raw.class_names),
        description=raw.description,
        homepage=raw.homepage,
        metadata=tfds.core.MetadataDict(known) if known else None,
    )
    info.set_file_format("array_record")
    splits = [_write_split(name, split, folder, records) for split, records in contents.items()]
    info.set_splits(tfds.core.splits.SplitDict(splits))
    info.write_to_directory(folder)


def _write_split(name: str, split: str, folder: pathlib.Path, records: Iterable[bytes]):
    """Writes the files of a split; returns TFDS's description of it."""
    from array_record.python import array_record_module
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=folder,
        dataset_name=name,
        split=split,
        filetype_suffix="array_record",
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}",
    )
    lengths, num_bytes, writer = [], 0, None
    for record in records:
        if writer is None:
            path = template.sharded_filepath(shard_index=len(lengths), num_shards=None)
            writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
            lengths.append(0)
        writer.write(record)
        lengths[-1] += 1
        num_bytes += len(record)
        if lengths[-1] == _RECORDS_PER_FILE:
            writer.close()
            writer = None
    if writer is not None:
        writer.close()
    return tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=num_bytes, filename_template=template)
