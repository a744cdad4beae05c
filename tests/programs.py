"""The training program on images and a trunk so small that a run takes seconds."""

import contextlib
import io
import itertools
import pathlib
import subprocess
import sys
import traceback
import warnings

from absl import flags
import jax
from jax.experimental.compilation_cache import compilation_cache
from minmax_jax.configs import synthetic
from minmax_jax.experiments import cli
import ml_collections
import pytest

from minmax_jax.minmax import inference
from minmax_jax.minmax import method as minmax
from minmax_jax.report import metric_records
from minmax_jax.runs import training

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
    return [sys.executable, "-m", "experiments.train", *_train_flags(workdir), *flags]


def train(workdir, *flags):
    """The same in this process; see `run`."""
    return run("train", *_train_flags(workdir), *flags)


def _train_flags(workdir):
    return [
        "--config=configs/synthetic.py",
        f"--workdir={workdir}",
        *(f"--config.{name}={value}" for name, value in TINY.items()),
    ]


def config(**changes) -> ml_collections.ConfigDict:
    """The tiny configuration, with changes such as train__epochs=2."""
    found = synthetic.get_config()
    found.update_from_flattened_dict(TINY | {name.replace("__", "."): value for name, value in changes.items()})
    return found


def train_tiny(folder):
    """(results, traces) of a training of the tiny configuration."""
    with counting_traces() as traces:
        return training.train_and_evaluate(config(), folder), traces


@contextlib.contextmanager
def counting_traces():
    """A list of what is traced: the name of the function, and the shape of its images."""
    traces = []

    def counting(name, function, images):
        def traced(*arguments, **options):
            traces.append((name, images(*arguments).shape))
            return function(*arguments, **options)

        return traced

    train_step, predict = minmax.train_step, inference.predict
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minmax, "train_step", counting("train", train_step, lambda state, batch: batch["images"]))
        patch.setattr(inference, "predict", counting("predict", predict, lambda variables, images: images))
        yield traces


def run(command, *arguments, ignore_warnings=False):
    """Runs a program in this process, as the console command does: a start of Python takes seconds.

    Returns a `subprocess.CompletedProcess` with the status and what was printed. Warnings are errors unless ignored.
    """
    out, err, status = io.StringIO(), io.StringIO(), 0
    with own_flags(), pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"the load_module\(\) method", DeprecationWarning)  # of ml_collections
        if ignore_warnings:
            warnings.simplefilter("ignore")
        patch.chdir(ROOT)
        patch.setattr(sys, "argv", ["minmax-jax", command, *map(str, arguments)])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as ended:
                status = ended.code or 0
            except Exception:
                status = traceback.format_exc()
    if isinstance(status, str):
        err.write(f"{status}\n")  # as Python prints it
        status = 1
    return subprocess.CompletedProcess([command, *arguments], status, out.getvalue(), err.getvalue())


# What programs set for their own process.
_CACHE_OPTIONS = (
    "jax_enable_compilation_cache",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
)


@contextlib.contextmanager
def own_flags():
    """No flags but those that programs share: modules that other tests have imported define flags of the same names.

    What programs set for JAX's compilation cache is taken back: their folder and threshold would be those of all later
    tests.
    """
    cached = {name: getattr(jax.config, name) for name in _CACHE_OPTIONS}
    others = {
        module: list(found)
        for module, found in flags.FLAGS.flags_by_module_dict().items()
        if module.startswith(("benchmarks.", "minmax_jax.experiments.")) and not module.endswith(".program")
    }
    for flag in itertools.chain.from_iterable(others.values()):
        delattr(flags.FLAGS, flag.name)
    try:
        yield
    finally:
        for module, found in others.items():
            for flag in found:
                flags.DEFINE_flag(flag, module_name=module)
        for name, value in cached.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def last_step(folder):
    """The last that is in the record of a run, or 0."""
    path = folder / "metrics.jsonl"
    records = metric_records.read(path) if path.exists() else []
    return records[-1]["step"] if records else 0
