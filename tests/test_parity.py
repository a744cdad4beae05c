"""The recorded numbers of the published implementation: what it computes, this library computes, under `:parity`.

How close it comes, and why gradients of a single-precision run cannot come closer: docs/parity.md.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import minmax_jax as mm
from configs import common, variants
from minmax_jax import erasing, factory, interop, losses, masks, train_state

CASES = ("resnet18_no_erasing", "resnet18_erasing4")


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

    def evaluate(self, images, method, *inputs):
        """Applies one of the model's methods with running statistics."""
        stats = self.state.batch_stats["shared"]
        return self.model.apply({"params": self.state.params, "batch_stats": stats}, images, *inputs, method=method)


def _create_case(recorded, options, tensors, dtype) -> Case:
    config = variants.apply(common.get_config(), "parity", {})
    config.model.update(trunk=options["model"], width=options.get("width", 64), k_max=options["kmax"])
    config.erasing.update(num_erasures=options["erase"], start_epoch=0, decay=options["sigma_erase"])
    config.learning_rate.peak = options["lr"]
    model = factory.create_model(config, num_classes=options["num_classes"])
    model = model.clone(trunk=model.trunk.clone(dtype=dtype))
    tx = factory.create_optimizer(config, steps_per_epoch=1)
    state = train_state.create_train_state(
        jax.random.key(0), model=model, tx=tx, image_size=(64, 64), shared_statistics=True
    )
    found = interop.from_published(tensors, state.variables)
    assert (found.sigma, found.omega) == (options["sigma"], options["w"])
    variables = jax.tree.map(lambda array: array.astype(dtype), found.variables)
    images = jnp.asarray(recorded["images_uint8_nhwc"], dtype) / 127.5 - 1
    return Case(
        recorded=recorded,
        options=options,
        model=model,
        objective=factory.create_objective(config, steps_per_epoch=1),
        tx=tx,
        state=state.replace(**variables, opt_state=tx.init(variables["params"])),
        batch={"images": images, "labels": jnp.asarray(recorded["labels"], jnp.int32)},
    )


@functools.cache
def _shared_case(folder, name) -> Case:
    spec = importlib.util.spec_from_file_location("weights", folder / "weights.py")
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    with np.load(folder / f"{name}.npz") as file:
        recorded = dict(file)
    options = json.loads(str(recorded["case"]))
    layout = json.loads(str(recorded["state_dict_spec"]))
    tensors = weights.build_state_dict(layout, options["salt"], sigma=options["sigma"], w=options["w"])
    return _create_case(recorded, options, tensors, jnp.float32)


@pytest.fixture(scope="module", params=CASES)
def shared_case(request):
    from tests.conftest import SHARED

    return _shared_case(SHARED / "parity", request.param)


def _deviation(actual, expected) -> float:
    """Greatest difference, relative to the range of what is expected (of a scalar: its size)."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    return np.abs(actual - expected).max() / (np.ptp(expected) or np.abs(expected).max())


def _check_evaluation(case: Case, tolerance: float) -> None:
    images, labels, recorded = case.batch["images"], case.batch["labels"], case.recorded
    logits, class_maps = jax.jit(functools.partial(case.evaluate, method="localize"))(images)
    found = {"localizer_logits": logits, "class_maps": class_maps}
    found["loss_localizer"] = losses.cross_entropy(logits, labels).mean()
    for normalization in ("image", "batch"):
        mask = masks.foreground_masks(logits, class_maps, images.shape[1:3], normalization=normalization)
        found[f"mask_{normalization}_normalised"] = mask[..., 0]
    classify = jax.jit(lambda mask: case.evaluate(images, "classify", mask))
    found["foreground_logits"], found["background_logits"] = classify(mask), classify(1 - mask)
    found["loss_foreground"] = losses.cross_entropy(found["foreground_logits"], labels).mean()
    found["loss_background"] = losses.uniform_cross_entropy(found["background_logits"]).mean()
    deviations = {name: _deviation(value, recorded[f"eval_{name}"]) for name, value in found.items()}
    print("evaluation:", {name: f"{value:.1e}" for name, value in deviations.items()})
    assert max(deviations.values()) < tolerance, deviations


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


def _summary(array) -> np.ndarray:
    array = np.asarray(array, np.float64)
    return np.array([array.sum(), np.abs(array).sum(), np.linalg.norm(array)])


def _by_name(case: Case, params, statistics) -> dict:
    """Parameters and statistics under their published names."""
    return interop.to_published({"params": params, "batch_stats": {"shared": statistics}})


def _norm_deviations(tensors, names, recorded) -> dict[str, float]:
    """Relative deviation of the L2 norms."""
    return {
        str(name): abs(np.linalg.norm(np.asarray(tensors[str(name)], np.float64)) / row[2] - 1)
        for name, row in zip(names, recorded)
    }


def _check_training(case: Case, monkeypatch, *, forward, gradients, updates, step_losses) -> None:
    recorded, num_erasures = case.recorded, case.options["erase"]
    step = functools.partial(mm.train_step, model=case.model, tx=case.tx, objective=case.objective)
    with _watched_erasing(monkeypatch) as seen:
        state, metrics = jax.jit(step)(case.state, case.batch)
        jax.block_until_ready(metrics)
    assert metrics["num_passes"] == recorded["train_num_localizer_passes"] == len(seen["logits"])
    if num_erasures:
        scores = np.stack([seen["logits"][r] for r in range(num_erasures)])
        found = {
            "train_localizer_logits_per_erasure": scores,
            "train_foreground_mask": seen["masks"][..., 0],
            "train_erased_images_last": seen["images"],
        }
        deviations = {name: _deviation(value, recorded[name]) for name, value in found.items()}
        print("erasing:", deviations)
        assert max(deviations.values()) < forward, deviations

    trace = optax.tree.get(state.opt_state, "trace")
    raw = jax.tree.map(lambda trace, param: trace - 1e-5 * param, trace, case.state.params)
    tensors = _by_name(case, raw, case.state.batch_stats["shared"])
    worst = _norm_deviations(tensors, recorded["param_names"], recorded["grad1_summary"])
    print("gradients:", max(worst.values()), np.median(list(worst.values())))
    assert max(worst.values()) < gradients, worst
    tensors = _by_name(case, state.params, state.batch_stats["shared"])
    for kind, names in (("param", "param_names"), ("bn", "bn_names")):
        worst = _norm_deviations(tensors, recorded[names], recorded[f"after1_{kind}_summary"])
        print(kind, max(worst.values()))
        assert max(worst.values()) < updates, worst

    plain = jax.jit(step)
    for index, tolerance in enumerate(step_losses):
        if index:
            state, metrics = plain(state, case.batch)
        found = {
            "loss_pos": metrics["foreground_loss"],
            "loss_neg": metrics["background_loss"],
            "loss_class_seg": metrics["localizer_loss"] / (num_erasures + 1),
        }
        found["total_loss"] = sum(found.values())
        for name, value in found.items():
            assert value == pytest.approx(recorded[f"train_{name}"][index], rel=tolerance), (index, name)
        assert metrics["classification_error"] == pytest.approx(recorded["train_errors"][index], abs=1e-3)


@pytest.mark.shared
def test_evaluation_of_the_published_implementation(shared_case):
    _check_evaluation(shared_case, 1e-4)


@pytest.mark.shared
@pytest.mark.slow
def test_training_step_of_the_published_implementation(shared_case, monkeypatch):
    _check_training(shared_case, monkeypatch, forward=1e-3, gradients=2e-2, updates=1e-3, step_losses=[1e-4])
