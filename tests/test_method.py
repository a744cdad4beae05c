"""The contract of a method: another one, without localizer and entropies, runs through the whole program."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
from minmax_jax.configs import synthetic
import numpy as np
import optax
from PIL import Image
import pytest

import minmax_jax as mm
from minmax_jax import losses, masks
from minmax_jax.base.errors import ConfigError
from minmax_jax.export import model_files
from minmax_jax.method import Method, Prediction
from minmax_jax.ops import intensity
from minmax_jax.prediction import folder as prediction_folder
from minmax_jax.prediction import inputs, options
from minmax_jax.runs import finished_runs, training
from minmax_jax.runs.building import data_splits
from minmax_jax.runs.building import options as options_lib
from minmax_jax.runs.folder import model_card
from minmax_jax.training.state import TrainState
from tests import programs, saved_models, served


class _Net(nn.Module):
    """Class activation maps in their simplest form: two convolutions, scores by the mean of the maps."""

    @nn.compact
    def __call__(self, images):
        features = nn.relu(nn.Conv(8, (5, 5), strides=(4, 4), name="features")(intensity.normalize(images)))
        maps = nn.Dense(4, name="maps")(features)
        return jnp.mean(maps, axis=(1, 2)), maps


def _create_method(config, *, num_classes, steps_per_epoch, background_classes=()):
    """Reads the steepness of its masks from the configuration, as a saved model's card holds it."""
    del steps_per_epoch
    assert num_classes == 4
    net, tx, omega = _Net(), optax.sgd(0.1), config.mask.omega

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
        foreground = masks.foreground_masks(logits, maps, images.shape[1:3], omega=omega)
        return Prediction(jax.nn.softmax(logits), foreground, {"peak": jnp.max(maps, axis=(1, 2, 3))})

    return Method(init, train_step, predict, log_terms=("map_norm",))


@pytest.fixture
def methods(monkeypatch):
    """The table of methods, with this one."""
    monkeypatch.setitem(methods.METHODS, "mean_maps", _create_method)


def _config(**changes):
    config = synthetic.get_config()
    config.update_from_flattened_dict(programs.TINY | {"method": "mean_maps", "mask.omega": 5.0} | changes)
    return config


def test_another_method_trains_validates_is_tested_and_predicts(methods, tmp_path, caplog):
    config = _config(**{"train.epochs": 2})
    with caplog.at_level("INFO"):
        results = training.train_and_evaluate(config, tmp_path)
    assert "map_norm" in caplog.text and "localizer" not in caplog.text
    assert "localizer_classification_error" not in results["test"] and 0 <= results["test"]["f1_background"] <= 100
    (row, *_) = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert {"name", "label", "predicted", "probabilities", "peak", "f1_foreground"} <= set(row)
    _check_predictions(tmp_path, config, json.loads((tmp_path / "results.json").read_text()))


def _check_predictions(folder, config, results):
    """`evaluate`, `mm.load`, a prediction of files, the answer of `serve`, and an exported file agree."""
    again = finished_runs.evaluate_workdir(folder, "test")
    assert again["test"]["classification_error"] == results["test"]["classification_error"]
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    split = data_splits.create_splits(options_lib.read(config).data)["test"]
    images = np.stack([split.read_image(index) for index in range(4)])
    model = mm.load(folder)
    found = model(images)
    np.testing.assert_allclose(found.probabilities, [row["probabilities"] for row in rows[:4]], atol=1e-5)
    Image.fromarray(images[0]).save(folder / "image.png")
    paths = inputs.find([str(folder / "image.png")], None, output=folder / "out")
    prediction_folder.predict(model, paths, folder / "out", options.Options(), model={}, results=results)
    with Image.open(folder / "out/masks/image.png") as mask:
        assert np.mean((np.asarray(mask) > 0) == (found.masks[0, ..., 0] >= 0.5)) > 0.999
    answer = served.answer((folder / "image.png").read_bytes(), model)
    assert list(answer["probabilities"].values()) == pytest.approx(found.probabilities[0].tolist(), abs=1e-4)
    for format in ("onnx", "stablehlo"):
        pytest.importorskip({"onnx": "onnxruntime", "stablehlo": "flatbuffers"}[format])
        (folder / format).mkdir()
        file = folder / format / f"model.{format}"
        written = model_files.write(folder, file, format=format, size=images.shape[1:3])
        assert max(written["differences"].values()) < 1e-4


def test_a_model_of_a_method_that_is_not_there_is_refused_by_its_name(tmp_path):
    saved_models.write(tmp_path)
    card = json.loads((tmp_path / "model_card.json").read_text())
    (tmp_path / "model_card.json").write_text(json.dumps(card | {"method": "mean_maps"}))
    with pytest.raises(model_card.ModelCardError, match="method 'mean_maps', .* has minmax, wildcat, cam"):
        mm.load(tmp_path)
    with pytest.raises(ConfigError, match="config.method='mean_maps' must be one of .*'minmax', 'wildcat', 'cam'"):
        options_lib.read(_config(), num_devices=4, num_local_devices=4)
