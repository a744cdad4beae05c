"""The training program on images and a trunk so small that a run takes seconds."""

import pathlib
import sys

from minmax_jax.report import metric_records

ROOT = pathlib.Path(__file__).resolve().parents[1]
# 32x32 images, a trunk of one block with 4 channels: seconds instead of minutes.
TINY = {
    "batch_size": 8,
    "data.num_train": 16,
    "data.num_validation": 8,
    "data.num_test": 12,
    "data.crop_size": 32,
    "data.synthetic.image_size": 32,
    "model.resnet.width": 4,
    "model.resnet.stage_sizes": (1,),
    "model.resnet.stage_strides": (1,),
    "train.epochs": 4,
    "train.log_every": 1,
    "erasing.start_epoch": 1,
    "learning_rate.warmup_share": 0.0,
    "evaluation.batch_size": 4,
    "evaluation.crf.bilateral_sigma": 3.0,
}


def command(workdir, *flags):
    """A run that, alone, ends after 8 steps."""
    options = [f"--config.{name}={value}" for name, value in TINY.items()]
    return [
        sys.executable,
        "-m",
        "experiments.train",
        "--config=configs/synthetic.py",
        f"--workdir={workdir}",
        *options,
        *flags,
    ]


def last_step(folder):
    """The last that is in the record of a run, or 0."""
    path = folder / "metrics.jsonl"
    records = metric_records.read(path) if path.exists() else []
    return records[-1]["step"] if records else 0
