"""The contract of a method: another one, without localizer and entropies, runs through the whole program."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
from minmax_jax.configs import synthetic
import optax

from minmax_jax import losses, masks
from minmax_jax.method import Method, Prediction
from minmax_jax.runs import build_model, training
from minmax_jax.state import TrainState
from tests import programs


class _Net(nn.Module):
    """Class activation maps in their simplest form: two convolutions, scores by the mean of the maps."""

    @nn.compact
    def __call__(self, images):
        features = nn.relu(nn.Conv(8, (5, 5), strides=(4, 4), name="features")(images / 127.5 - 1))
        maps = nn.Dense(4, name="maps")(features)
        return jnp.mean(maps, axis=(1, 2)), maps


def _create_method(config, *, num_classes, steps_per_epoch):
    del config, steps_per_epoch
    assert num_classes == 4
    net, tx = _Net(), optax.sgd(0.1)

    def init(rng, image_size):
        params = net.init(rng, jnp.zeros((1, *image_size, 3)))["params"]
        return TrainState(jnp.int32(0), params, {}, tx.init(params), rng)

    def train_step(state, batch, *, axis_name):
        def loss_fn(params):
            logits, _ = net.apply({"params": params}, batch["images"])
            error = 100 * jnp.mean(jnp.argmax(logits, axis=-1) != batch["labels"])
            return jnp.mean(losses.cross_entropy(logits, batch["labels"])), error

        (loss, error), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        gradients, loss, error = jax.lax.pmean((gradients, loss, error), axis_name)
        updates, opt_state = tx.update(gradients, state.opt_state)
        state = state.replace(
            step=state.step + 1, params=optax.apply_updates(state.params, updates), opt_state=opt_state
        )
        return state, {"loss": loss, "classification_error": error, "map_norm": optax.tree.norm(gradients)}

    def predict(variables, images):
        logits, maps = net.apply({"params": variables["params"]}, images)
        foreground = masks.foreground_masks(logits, maps, images.shape[1:3])
        return Prediction(jax.nn.softmax(logits), foreground, {"peak": jnp.max(maps, axis=(1, 2, 3))})

    return Method(init, train_step, predict, log_terms=("map_norm",))


def test_another_method_trains_validates_and_is_tested(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(build_model, "create_method", _create_method)
    config = synthetic.get_config()
    config.update_from_flattened_dict(programs.TINY | {"train.epochs": 2, "evaluation.selection": "joint_error"})
    with caplog.at_level("INFO"):
        results = training.train_and_evaluate(config, tmp_path)
    assert "map_norm" in caplog.text and "localizer" not in caplog.text
    assert "localizer_classification_error" not in results["test"] and 0 <= results["test"]["f1_background"] <= 100
    (row, *_) = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert {"name", "label", "predicted", "probabilities", "peak", "f1_foreground"} <= set(row)
    assert (tmp_path / "pictures" / "curves.png").stat().st_size > 10_000
