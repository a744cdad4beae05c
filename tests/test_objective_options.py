"""Optional terms of the objective in a step: values, what each of them trains, and which statistics they leave."""

import functools

import chex
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import minmax_jax as mm
from minmax_jax.minmax import method as minmax
from minmax_jax.minmax import passes, random_masks
from minmax_jax.training import batch_stats as stats_lib
from tests import networks

_WEIGHTS = dict(background_weight=0.3, whole_weight=0.5, random_weight=0.2, area_weight=0.7)
_ALL = dict(gradient="flow", background="ratio", background_gradient="mask", **_WEIGHTS)


def _in_double_precision(state, batch, tx):
    params = jax.tree.map(jnp.float64, state.params)
    images = batch["images"].astype(jnp.float64) / 127.5 - 1.0
    return state.replace(params=params, opt_state=tx.init(params)), batch | {"images": images}


def _terms(model, state, batch, params, background_params):
    """Means of the terms of `_ALL`, written down from the networks; the background is classified by its own."""
    images, labels = batch["images"], batch["labels"]

    def run(params, method, *inputs):
        variables = {"params": params, "batch_stats": state.batch_stats[stats_lib.WHOLE]}
        return model.apply(variables, *inputs, train=True, method=method, mutable="batch_stats")[0]

    def cross_entropy(logits):
        return -jax.nn.log_softmax(logits)[jnp.arange(8), labels].mean()

    logits, class_maps = run(params, "localize", images)
    masks = mm.masks.foreground_masks(logits, class_maps, (32, 32), options=mm.masks.MaskOptions(gradient="flow"))
    of_step = jax.random.fold_in(state.rng, state.step)
    keys = [jax.random.fold_in(jax.random.fold_in(of_step, i), passes._RANDOM_MASKS_DRAW) for i in range(8)]
    drawn = random_masks.random_masks(jnp.stack(keys), (32, 32), dtype=images.dtype)
    background = run(background_params, "classify", images, 1 - masks)
    whole = run(params, "classify", images, jnp.ones_like(masks))
    constant = run(background_params, "classify", images, jnp.ones_like(masks))
    background, constant = (jax.nn.relu(scores[jnp.arange(8), labels]) for scores in (background, constant))
    return {
        "localizer": cross_entropy(logits),
        "foreground": cross_entropy(run(params, "classify", images, masks)),
        "background": jnp.minimum(background / (constant + 1e-8), 1).mean(),
        "whole": cross_entropy(whole),
        "random": cross_entropy(run(params, "classify", images, drawn)),
        "area": jnp.abs(masks.mean() - 0.25) + (masks * (1 - masks)).mean(),
    }


def test_values_and_gradient_are_those_of_the_formulas(batch):
    """Against finite differences, with a shared trunk: L- moves the masks, while its classifier stays as it is."""
    model, tx = networks.tiny_model(dtype=jnp.float64), optax.sgd(1.0)
    with jax.enable_x64(True):
        state, step = networks.start(model, networks.objective(**_ALL), tx=tx)
        state, batch = _in_double_precision(state.replace(step=jnp.int32(3)), batch, tx)
        after, metrics = jax.jit(step)(state, batch)
        gradients = jax.tree.map(jnp.subtract, state.params, after.params)
        terms = jax.jit(lambda params: _terms(model, state, batch, params, state.params))
        for name, value in terms(state.params).items():
            assert value > 0
            np.testing.assert_allclose(metrics[f"{name}_loss"], value, rtol=1e-5)

        def total(params):
            found = terms(params)
            weights = {name.removesuffix("_weight"): weight for name, weight in _WEIGHTS.items()}
            return sum(weights.get(name, 1.0) * value for name, value in found.items())

        np.testing.assert_allclose(metrics["loss"], total(state.params), rtol=1e-5)
        rng = np.random.default_rng(1)
        direction = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), state.params)
        ahead, behind = (
            total(jax.tree.map(lambda p, d: p + move * d, state.params, direction)) for move in (1e-6, -1e-6)
        )
        np.testing.assert_allclose(optax.tree.vdot(gradients, direction), (ahead - behind) / 2e-6, rtol=1e-5)


@functools.cache
def _separate(**options):
    """(gradients, state after) of a step with separate trunks."""
    model = networks.tiny_model(classifier_trunk=networks.TinyTrunk())
    rng = np.random.default_rng(0)
    batch = {"images": jnp.asarray(rng.integers(0, 256, (8, 32, 32, 3), np.uint8)), "labels": jnp.arange(8) % 3}
    state, step = networks.start(model, networks.objective(gradient="flow", **options), tx=optax.sgd(1.0))
    after, _ = jax.jit(step)(state, batch)
    return jax.tree.map(jnp.subtract, state.params, after.params), after


@pytest.mark.parametrize(
    "options, localizer_learns, classifier_learns",
    [
        (dict(background_weight=2.0), True, True),
        (dict(background_weight=2.0, background_gradient="mask"), True, False),
        (dict(background_weight=0.0, whole_weight=1.0, random_weight=1.0), False, True),
        (dict(background_weight=0.0, area_weight=1.0), True, False),
    ],
)
def test_what_a_term_trains(options, localizer_learns, classifier_learns):
    """Compared with the objective without the term; what it does not train has the same gradient to the last bit."""
    (without, _), (gradients, _) = _separate(background_weight=0.0), _separate(**options)
    assert set(gradients) == {"trunk", "localizer_head", "classifier_trunk", "classifier_head"}
    for name in gradients:
        difference = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), without[name], gradients[name])
        learns = classifier_learns if name.startswith("classifier") else localizer_learns
        assert max(jax.tree.leaves(difference)) > 1e-4 if learns else not any(jax.tree.leaves(difference)), name


def test_further_views_leave_the_statistics_of_each_stream_alone():
    (_, plain), (_, viewed) = (
        _separate(background_weight=0.0, **views) for views in ({}, dict(whole_weight=1.0, random_weight=1.0))
    )
    chex.assert_trees_all_equal(viewed.batch_stats, plain.batch_stats)


def test_shared_statistics_count_further_views(batch):
    """One localizer pass and four of the classifier: of a start that no batch has, 0.9^5 is left."""
    objective = networks.objective(whole_weight=1.0, random_weight=1.0)
    state, step = networks.start(networks.tiny_model(), objective, shared_statistics=True)
    step, left = jax.jit(step), []
    for start in (0.0, 1000.0):
        state = state.replace(batch_stats=jax.tree.map(lambda x: jnp.full_like(x, start), state.batch_stats))
        left.append(step(state, batch)[0].batch_stats["shared"]["trunk"]["norm"]["mean"])
    np.testing.assert_allclose(left[1] - left[0], 1000 * 0.9**5, rtol=1e-4)


def test_terms_are_those_of_the_accumulated_masks(batch):
    state, step = networks.start(networks.tiny_model(), networks.objective(num_erasures=2, **_ALL))
    _, metrics = jax.jit(step)(state, batch)
    assert metrics["num_passes"] == 2
    # What is left is the mean of m (1 - m).
    assert 0 < metrics["area_loss"] - abs(metrics["foreground_share"] - 0.25) < 0.25
    terms = (f"{name}_weight" for name in ("background", "whole", "random", "area"))
    weighted = sum(_WEIGHTS[name] * metrics[f"{name.removesuffix('_weight')}_loss"] for name in terms)
    expected = metrics["localizer_loss"] + metrics["foreground_loss"] + weighted
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)


def test_metrics_and_log_name_the_terms_that_are_used():
    further = {"whole_loss", "random_loss", "area_loss"}
    for options, names in (({}, ()), (_ALL, ("whole_loss", "random_loss", "area_loss")), ({"background": "ratio"}, ())):
        method = minmax.create_method(networks.tiny_model(), optax.sgd(0.1), networks.objective(**options))
        assert method.log_terms == (*minmax.LOG_TERMS, *names)
        state = jax.eval_shape(lambda rng: method.init(rng, (32, 32)), jax.random.key(0))
        batch = {"images": jnp.zeros((2, 32, 32, 3), jnp.uint8), "labels": jnp.zeros(2, jnp.int32)}
        _, metrics = jax.eval_shape(method.train_step, state, batch)
        assert set(names) == set(metrics) & further


@pytest.mark.slow
def test_masks_grow_towards_the_area_that_is_asked_for(batch):
    """Two targets, the same start: the greater one leads to greater masks."""
    shares = []
    for target in (0.1, 0.8):
        objective = networks.objective(gradient="flow", area_weight=5.0, area_target=target)
        state, step = networks.start(networks.tiny_model(), objective, tx=optax.adam(0.02))
        _, metrics = jax.jit(lambda s: lax.scan(lambda s, _: step(s, batch), s, length=40))(state)
        shares.append(float(metrics["foreground_share"][-1]))
    assert shares[0] + 0.1 < shares[1]
