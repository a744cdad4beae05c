"""The variant `:parity` computes what the published implementation does, by recorded numbers.

Two kinds of records: the project's own, of a second implementation in double precision (benchmarks/record_parity.py
describes the files), and, where the team's ../shared is, those of the published implementation in single precision.
How close it comes, and why single-precision gradients cannot come closer: docs/parity.md, whose figures
`python -m pytest -rP tests/test_parity.py` prints.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
from minmax_jax.configs import common, variants
import numpy as np
import optax
import pytest

import minmax_jax as mm
from minmax_jax import interop, losses, masks
from minmax_jax.minmax import erasing
from minmax_jax.models import trunks
from minmax_jax.ops import resize
from minmax_jax.runs.building import creation
from minmax_jax.runs.building import options as options_lib
from minmax_jax.training import state as state_lib
from tests import recorded
from tests.conftest import SHARED

PUBLISHED = ("resnet18_no_erasing", "resnet18_erasing4")
OWN = ("small_no_erasing", "small_erasing4")
# Of full-size arrays our own files hold every third row and column.
PIXELS = (slice(None), slice(None, None, 3), slice(None, None, 3))
FULL_SIZE = ("mask_image_normalised", "mask_batch_normalised", "train_foreground_mask", "train_erased_images_last")


@dataclasses.dataclass(frozen=True)
class Case:
    """One recorded case, and the library set up alike."""

    recorded: dict[str, np.ndarray]
    options: dict
    model: mm.MinMaxNet
    objective: mm.Objective
    tx: optax.GradientTransformation
    state: mm.TrainState
    batch: dict[str, jax.Array]

    def deviations(self, found) -> dict[str, float]:
        """Maximum differences from the records, relative to the recorded range (of a scalar: its size)."""
        own = self.options["name"] in OWN
        deviations = {}
        for name, value in found.items():
            value = np.asarray(value, np.float64)
            value = value[PIXELS] if own and name.endswith(FULL_SIZE) else value
            expected = np.asarray(self.recorded[name], np.float64)
            assert value.shape == expected.shape, name
            deviations[name] = np.abs(value - expected).max() / (np.ptp(expected) or np.abs(expected).max())
        return deviations

    def apply(self, *inputs, method):
        """Applies a method of the model with running statistics."""
        stats = self.state.batch_stats["shared"]
        return self.model.apply({"params": self.state.params, "batch_stats": stats}, *inputs, method=method)


def _create_case(numbers, options, images, tensors, dtype) -> Case:
    config = variants.apply(common.get_config(), "parity", {})
    config.data.dataset = "synthetic"  # any
    config.model.update(trunk=options["model"], k_max=options["kmax"])
    config.model.resnet.width = options.get("width", 64)
    config.model.resnet.stage_strides = tuple(options.get("stage_strides", (1, 2, 2, 2)))
    config.erasing.update(num_erasures=options["erase"], start_epoch=0)
    config.learning_rate.peak = options["lr"]
    run = options_lib.read(config)
    model = creation.create_model(run.model, num_classes=options["num_classes"])
    heads = {name: getattr(model, name).clone(dtype=dtype) for name in ("localizer_head", "classifier_head")}
    model = model.clone(trunk=model.trunk.clone(dtype=dtype), **heads)
    tx = run.optimizer.create(run.learning_rate.create(epochs=config.train.epochs, steps_per_epoch=1))
    state = state_lib.create_train_state(
        jax.random.key(0), model=model, tx=tx, image_size=(64, 64), shared_statistics=True
    )
    found = interop.from_published(tensors, state.variables)
    assert (found.sigma, found.omega) == (options["sigma"], options["w"])
    objective = run.method_options
    assert objective.erasing.decay == options["sigma_erase"]
    variables = jax.tree.map(lambda array: jnp.asarray(array, dtype), found.variables)
    images = jnp.asarray(images, dtype) / 127.5 - 1
    return Case(
        recorded=numbers,
        options=options,
        model=model,
        objective=objective,
        tx=tx,
        state=state.replace(**variables, opt_state=tx.init(variables["params"])),
        batch={"images": images, "labels": jnp.asarray(numbers["labels"], jnp.int32)},
    )


def _read(path):
    """What was recorded, the options, and the layout of the state dict."""
    with np.load(path) as file:
        numbers = dict(file)
    return numbers, json.loads(str(numbers["case"])), json.loads(str(numbers["state_dict_spec"]))


def _published_case(folder, name) -> Case:
    spec = importlib.util.spec_from_file_location("weights", folder / "weights.py")
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    numbers, options, layout = _read(folder / f"{name}.npz")
    tensors = weights.build_state_dict(layout, options["salt"], sigma=options["sigma"], w=options["w"])
    return _create_case(numbers, options, numbers["images_uint8_nhwc"], tensors, jnp.float32)


def _own_case(name, dtype) -> Case:
    numbers, options, layout = _read(pathlib.Path(recorded.__file__).with_name(f"{name}.npz"))
    tensors = recorded.draw_state_dict(layout, options["salt"], sigma=options["sigma"], omega=options["w"])
    images = recorded.draw_images(options["salt"], options["batch"], options["size"])
    return _create_case(numbers, options, images, tensors, dtype)


@pytest.fixture(scope="module", params=PUBLISHED)
def published_case(request):
    return _published_case(SHARED / "parity", request.param)


def _classify(net, images, mask):
    """The classifier's scores and class maps; the library returns the scores only."""
    seen = resize.resize_bilinear(images * mask, tuple(int(net.classifier_scale * side) for side in images.shape[1:3]))
    features = trunks.last_features(net.classifier.trunk(seen, train=False))
    return net.classify(images, mask), net.classifier.head(features)[1]


def _check(title: str, deviations: dict[str, float], tolerance: float) -> None:
    worst = max(deviations, key=deviations.get)
    print(f"{title}: worst {deviations[worst]:.1e} ({worst}), median {np.median(list(deviations.values())):.1e}")
    assert deviations[worst] < tolerance, deviations


def _check_evaluation(case: Case, tolerance: float) -> None:
    images, labels = case.batch["images"], case.batch["labels"]
    logits, class_maps = jax.jit(functools.partial(case.apply, method="localize"))(images)
    found = {"localizer_logits": logits, "class_maps": class_maps}
    found["loss_localizer"] = losses.cross_entropy(logits, labels).mean()
    for normalization in ("image", "batch"):
        mask = masks.foreground_masks(
            logits, class_maps, images.shape[1:3], options=masks.MaskOptions(normalization=normalization)
        )
        found[f"mask_{normalization}_normalised"] = mask[..., 0]
    classify = jax.jit(functools.partial(case.apply, method=_classify))
    found["foreground_logits"], found["foreground_maps"] = classify(images, mask)
    found["background_logits"], _ = classify(images, 1 - mask)
    found["loss_foreground"] = losses.cross_entropy(found["foreground_logits"], labels).mean()
    found["loss_background"] = losses.uniform_cross_entropy(found["background_logits"]).mean()
    _check("evaluation", case.deviations({f"eval_{name}": value for name, value in found.items()}), tolerance)


@contextlib.contextmanager
def _watched_erasing(monkeypatch):
    """What the erasing loop of a step does: its result, and the scores of every pass."""
    seen = {"logits": {}}
    erase = erasing.erase

    def watched(pass_fn, *args, **kwargs):
        def watched_pass(params, images, batch_stats, num_passes):
            result = pass_fn(params, images, batch_stats, num_passes)
            jax.debug.callback(lambda r, logits: seen["logits"].update({int(r): logits}), num_passes, result.logits)
            return result

        erased, gradients = erase(watched_pass, *args, **kwargs)
        jax.debug.callback(lambda *values: seen.update(zip(("masks", "images"), values)), erased.masks, erased.images)
        return erased, gradients

    with monkeypatch.context() as patch:
        patch.setattr(erasing, "erase", watched)
        yield seen
    jax.effects_barrier()


def _by_name(params, statistics) -> dict:
    """Parameters and statistics under their published names."""
    return interop.to_published({"params": params, "batch_stats": {"shared": statistics}})


def _summary_deviations(tensors, names, summaries) -> dict[str, float]:
    """Maximum relative deviation of each tensor's sum (relative to the absolute sum), absolute sum and L2 norm."""
    deviations = {}
    for name, expected in zip(map(str, names), summaries):
        array = np.asarray(tensors[name], np.float64)
        found = np.array([array.sum(), np.abs(array).sum(), np.linalg.norm(array)])
        deviations[name] = np.max(np.abs(found - expected) / expected[[1, 1, 2]])
    return deviations


def _check_training(case: Case, monkeypatch, *, forward, gradients, updates, step_losses) -> None:
    numbers, num_erasures = case.recorded, case.options["erase"]
    step = jax.jit(functools.partial(mm.train_step, model=case.model, tx=case.tx, objective=case.objective))
    with _watched_erasing(monkeypatch) as seen:
        state, metrics = step(case.state, case.batch)
        jax.block_until_ready(metrics)
    assert metrics["num_passes"] == numbers["train_num_localizer_passes"] == len(seen["logits"])
    if num_erasures:
        scores = np.stack([seen["logits"][r] for r in range(len(seen["logits"]))])
        found = {
            "train_localizer_logits_per_erasure": scores,
            "train_foreground_mask": seen["masks"][..., 0],
            "train_erased_images_last": seen["images"],
        }
        _check("erasing", case.deviations(found), forward)

    trace = optax.tree.get(state.opt_state, "trace")
    raw = jax.tree.map(lambda trace, param: trace - 1e-5 * param, trace, case.state.params)
    tensors = _by_name(raw, case.state.batch_stats["shared"])
    _check("gradients", _summary_deviations(tensors, numbers["param_names"], numbers["grad1_summary"]), gradients)
    tensors = _by_name(state.params, state.batch_stats["shared"])
    for kind, names in (("param", "param_names"), ("bn", "bn_names")):
        _check(
            f"after step 1, {kind}",
            _summary_deviations(tensors, numbers[names], numbers[f"after1_{kind}_summary"]),
            updates,
        )

    for index, tolerance in enumerate(step_losses):
        if index:
            state, metrics = step(state, case.batch)
        found = {
            "loss_pos": metrics["foreground_loss"],
            "loss_neg": metrics["background_loss"],
            "loss_class_seg": metrics["localizer_loss"] / (num_erasures + 1),
        }
        found["total_loss"] = sum(found.values())
        recorded_losses = {name: numbers[f"train_{name}"][index] for name in found}
        deviations = {name: abs(float(value) / recorded_losses[name] - 1) for name, value in found.items()}
        _check(f"losses of step {index + 1}", deviations, tolerance)
        assert metrics["classification_error"] == pytest.approx(numbers["train_errors"][index], abs=1e-3)


@pytest.mark.shared
def test_evaluation_of_the_published_implementation(published_case):
    _check_evaluation(published_case, 1e-4)


@pytest.mark.shared
@pytest.mark.slow
def test_training_of_the_published_implementation(published_case, monkeypatch):
    # Erased images are recorded in half precision; of L2 norms alone the updates stay within 1e-3.
    _check_training(published_case, monkeypatch, forward=1e-3, gradients=2e-2, updates=2e-3, step_losses=[1e-4])


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_recorded_evaluation(name):
    with jax.enable_x64(True):
        _check_evaluation(_own_case(name, jnp.float64), 1e-7)
    _check_evaluation(_own_case(name, jnp.float32), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_recorded_training(name, monkeypatch):
    with jax.enable_x64(True):
        _check_training(
            _own_case(name, jnp.float64),
            monkeypatch,
            forward=1e-7,
            gradients=1e-6,
            updates=1e-7,
            step_losses=[1e-6] * 3,
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_recorded_training_in_single_precision(name, monkeypatch):
    # In the third step it is chance which kinks rounding passes (docs/parity.md): 5e-6 to 1.5e-2 were seen.
    _check_training(
        _own_case(name, jnp.float32),
        monkeypatch,
        forward=1e-4,
        gradients=2e-2,
        updates=1e-3,
        step_losses=[1e-4, 1e-2, 5e-2],
    )
