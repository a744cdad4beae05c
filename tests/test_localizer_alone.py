"""The localizer alone: what it trains, what it answers, and whole runs of its two methods."""

import functools

import jax
import jax.numpy as jnp
from minmax_jax.configs import synthetic
import numpy as np
import optax
import pytest

import minmax_jax as mm
from minmax_jax import losses
from minmax_jax.base.errors import ConfigError
from minmax_jax.baselines import localizer_alone
from minmax_jax.runs import training
from minmax_jax.runs.building import creation
from minmax_jax.runs.building import options as options_lib
from minmax_jax.training import batch_stats as stats_lib
from tests import networks, programs


def _start():
    model = mm.create_model(
        mm.ResNet(stage_sizes=(1,), stage_strides=(1,), width=4), num_classes=3, head=networks.wildcat(k_max=0.5)
    )
    tx = optax.sgd(0.1)
    state, _ = networks.start(model, mm.Objective(), tx=tx)
    return model, tx, state


def test_a_step_follows_the_gradient_of_the_cross_entropy(batch):
    model, tx, state = _start()
    step = jax.jit(functools.partial(localizer_alone.train_step, model=model, tx=tx))
    after, metrics = step(state, batch)
    images = batch["images"] / 127.5 - 1

    def loss_fn(params):
        variables = {"params": params, "batch_stats": stats_lib.read(state.batch_stats, stats_lib.WHOLE)}
        (logits, _), _ = model.apply(variables, images, train=True, method="localize", mutable="batch_stats")
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(8), batch["labels"]])

    loss, gradients = jax.value_and_grad(loss_fn)(state.params)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    expected = jax.tree.map(lambda param, gradient: param - 0.1 * gradient, state.params, gradients)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), after.params, expected)
    # The classifier and its statistics are as they were.
    jax.tree.map(np.testing.assert_array_equal, after.params["classifier_head"], state.params["classifier_head"])
    for stream in (stats_lib.FOREGROUND, stats_lib.BACKGROUND):
        before, now = (stats_lib.read(s.batch_stats, stream) for s in (state, after))
        jax.tree.map(np.testing.assert_array_equal, now, before)


def test_predictions_are_those_of_the_localizer(batch):
    model, _, state = _start()
    variables = state.variables | {"step": state.step}
    found = localizer_alone.predict(variables, batch["images"], model=model, objective=mm.Objective())
    localized = mm.localize(state.params, state.batch_stats, batch["images"], model=model)
    np.testing.assert_allclose(found.masks, localized.masks, rtol=1e-5)
    np.testing.assert_array_equal(found.probabilities.argmax(-1), localized.localizer_classes)
    np.testing.assert_allclose(found.probabilities.sum(-1), 1, rtol=1e-5)
    assert losses.conditional_entropy(jnp.log(found.probabilities)).shape == (8,) and found.scores == {}


def test_cam_pools_by_the_mean_of_its_map(batch):
    config = synthetic.get_config()
    model = creation.create_model(options_lib.read(config).model, mm.heads.MeanHead, num_classes=3)
    head = model.localizer_head
    features = jax.random.normal(jax.random.key(0), (2, 4, 5, 6))
    (logits, maps), variables = head.init_with_output(jax.random.key(1), features)
    assert variables["params"]["modality_maps"]["kernel"].shape == (6, 3)
    np.testing.assert_allclose(logits, maps.mean((1, 2)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("method", "num_maps"), [("cam", 3), ("wildcat", 3 * 2)])
@pytest.mark.parametrize("is_set", [True, False])
def test_a_method_takes_from_the_run_what_methods_share(batch, method, num_maps, is_set):
    config = programs.config(method=method, model__modalities=2, evaluation__flips=is_set)
    config.train.average_decay, config.model.shared_statistics = 0.25 * is_set, is_set
    found = creation.create_method(options_lib.read(config), num_classes=3, steps_per_epoch=1)
    before = found.init(jax.random.key(0), (32, 32))
    assert stats_lib.is_shared(before.batch_stats) == is_set and (before.average is not None) == is_set
    for name in ("localizer_head", "classifier_head"):
        assert before.params[name]["modality_maps"]["kernel"].shape[-1] == num_maps
    variables = before.variables | {"step": before.step}
    scores = jax.eval_shape(found.predict, variables, batch["images"]).scores
    assert ("view_disagreement" in scores) == is_set
    if is_set:
        step = jax.jit(functools.partial(found.train_step, axis_name=None))
        after = step(before, batch)[0]
        for _ in range(3):  # the share of a state, max(1 - decay, 9 / (9 + step)), is 1 - decay only then
            before, after = after, step(after, batch)[0]
        biases = [x["localizer_head"]["modality_maps"]["bias"] for x in (before.average["params"], after.params)]
        expected = 0.25 * biases[0] + 0.75 * biases[1]
        np.testing.assert_allclose(
            after.average["params"]["localizer_head"]["modality_maps"]["bias"], expected, rtol=1e-4
        )


def test_accumulation_is_refused():
    config = synthetic.get_config()
    config.method, config.train.accumulation = "wildcat", 2
    with pytest.raises(ConfigError, match="config.train.accumulation=2 is not for method=wildcat; set it to 1"):
        options_lib.read(config)


@pytest.mark.parametrize("method", ["wildcat", "cam"])
def test_a_run_from_training_to_the_loaded_model(tmp_path, method):
    config = synthetic.get_config()
    config.update_from_flattened_dict(programs.TINY | {"train.epochs": 2, "method": method, "evaluation.flips": True})
    results = training.train_and_evaluate(config, tmp_path)
    assert "localizer_classification_error" not in results["test"] and 0 <= results["test"]["f1_background"] <= 100
    prediction = mm.load(tmp_path)(np.zeros((1, 32, 32, 3), np.uint8))
    assert prediction.masks.shape == (1, 32, 32, 1) and prediction.probabilities.shape == (1, 4)
