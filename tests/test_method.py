"""The contract of a method: another one, without localizer and entropies, runs through the whole program."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
from minmax_jax.configs import synthetic
import numpy as np
import optax
from PIL import Image
import pytest
import yaml

import minmax_jax as mm
from minmax_jax import losses, masks
from minmax_jax.base.errors import ConfigError
from minmax_jax.export import model_files, zoo
from minmax_jax.method import Method, Prediction, Score
from minmax_jax.ops import intensity
from minmax_jax.prediction import folder as prediction_folder
from minmax_jax.prediction import inputs, options
from minmax_jax.runs import finished_runs, training
from minmax_jax.runs.building import data_splits, methods
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


_SCORES = {
    "peak": Score(title="peak of the maps", description="Maximum value.", high=-1e9, flag="the {region} has a peak"),
    "map_entropy": Score(title="entropy of a corner", description="Of a corner.", kind="entropy", unit="nats"),
    "corner_class": Score(title="corner", kind="class", flag="the corner is of another class"),
}


@dataclasses.dataclass(frozen=True)
class _Options:
    """The steepness of the masks, which a saved model's card holds."""

    mask: masks.MaskOptions


def _create(options, setup):
    assert setup.num_classes == 4
    net, tx, omega = _Net(), optax.sgd(0.1), options.mask.omega

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
        metrics = {"loss": loss, "classification_error": error, "map_norm": optax.tree.norm(gradients)}
        return state, metrics | {"mean_loss": loss}

    def predict(variables, images):
        logits, maps = net.apply({"params": variables["params"]}, images)
        foreground = masks.foreground_masks(logits, maps, images.shape[1:3], options=masks.MaskOptions(omega=omega))
        scores = {
            "peak": jnp.max(maps, axis=(1, 2, 3)),
            "map_entropy": losses.conditional_entropy(maps[:, 0, 0]),
            "corner_class": jnp.argmax(maps[:, 0, 0], axis=-1),
            "not_declared": jnp.ones_like(maps[:, 0, 0, 0]),
        }
        return Prediction(jax.nn.softmax(logits), foreground, scores)

    return Method(
        init, train_step, predict, log_terms=("mean_loss", "map_norm"), scores=_SCORES, title="means of maps (2026)"
    )


ENTRY = methods.Entry(_Options, _create)


@pytest.fixture
def mean_maps(monkeypatch):
    """The table of methods, with this one."""
    monkeypatch.setitem(methods.METHODS, "mean_maps", ENTRY)


def _config(**changes):
    config = synthetic.get_config()
    config.update_from_flattened_dict(programs.TINY | {"method": "mean_maps", "mask.omega": 5.0} | changes)
    return config


def test_another_method_trains_validates_is_tested_and_predicts(mean_maps, tmp_path, caplog):
    config = _config(**{"train.epochs": 2})
    with caplog.at_level("INFO"):
        results = training.train_and_evaluate(config, tmp_path)
    _check_records(tmp_path, caplog.text, results)
    assert "localizer_classification_error" not in results["test"] and 0 <= results["test"]["f1_background"] <= 100
    (row, *_) = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    named = {"name", "label", "predicted", "probabilities", "peak", "map_entropy", "corner_class", "not_declared"}
    assert named | {"f1_foreground"} <= set(row) and "the found region has a peak" in row["flags"]
    assert ("the corner is of another class" in row["flags"]) == (row["corner_class"] != row["predicted"])
    _check_predictions(tmp_path, config, json.loads((tmp_path / "results.json").read_text()))


def _check_records(folder, log, results):
    """Log lines, `metrics.jsonl`, `results.json` and the page show what this method declares, and nothing of others."""
    page = (folder / "report.html").read_text()
    for text in (log, page, json.dumps(results)):
        assert "localizer" not in text and "foreground entropy" not in text.lower()
    assert "(mean " in log and ", map_norm " in log
    for title in ("peak of the maps ", "entropy of a corner ", "(corner "):
        assert log.count(title) >= 2, title  # of validations, and of the test
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all({"mean_loss", "map_norm"} <= set(record) for record in records if record["kind"] == "train")
    declared = {"peak", "map_entropy", "corner_classification_error"}
    assert all(declared <= set(record) for record in records if record["kind"] == "validation")
    assert declared | {"map_entropy_share"} <= set(results["metrics"]) and declared <= set(results["test"])
    assert "not_declared" not in results["metrics"]
    assert results["log_terms"] == ["mean_loss", "map_norm"] and list(results["scores"]) == list(_SCORES)
    for part in (
        "Peak of the maps",
        "Entropy of a corner",
        "Entropies, validation",
        "Loss and its terms, training",
        ">map_norm<",
    ):
        assert part in page, part
    assert page.count(">corner<") >= 1 and "Scores of the method, validation" in page


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
    (row,) = [json.loads(line) for line in (folder / "out/predictions.jsonl").read_text().splitlines()]
    assert row["peak"] == pytest.approx(float(found.scores["peak"][0]), rel=1e-4) and "corner_class" not in row
    assert "the found region has a peak" in row["flags"]
    answer = served.answer((folder / "image.png").read_bytes(), model)
    assert answer["peak"] == pytest.approx(row["peak"]) and answer["seen"] == {}
    assert list(answer["probabilities"].values()) == pytest.approx(found.probabilities[0].tolist(), abs=1e-4)
    for format in ("onnx", "stablehlo"):
        pytest.importorskip({"onnx": "onnxruntime", "stablehlo": "flatbuffers"}[format])
        (folder / format).mkdir()
        file = folder / format / f"model.{format}"
        written = model_files.write(folder, file, format=format, size=images.shape[1:3])
        assert max(written["differences"].values()) < 1e-4
        assert set(written["differences"]) == {"probabilities", "masks", "peak", "map_entropy"}
        card = (folder / format / "MODEL_CARD.md").read_text()
        assert "Trained by means of maps (2026)" in card and "| `peak` [B] | Maximum value. |" in card
        described = {path.name for path in file.parent.iterdir()} - {file.name, "MODEL_CARD.md"}
        assert "zoo" not in written and not described  # it names no publication, which the zoo's format needs
        assert "| peak of the maps |" in card and "| corner, classification error |" in card


@pytest.mark.parametrize(
    ("method", "cite"),
    [
        ("minmax", ("Weakly Supervised Localization using Min-Max Entropy", "https://arxiv.org/abs/1907.12934")),
        (
            "wildcat",
            ("WILDCAT: Weakly Supervised Learning", "https://openaccess.thecvf.com/content_cvpr_2017/html/Durand"),
        ),
        ("cam", ("Learning Deep Features for Discriminative", "https://arxiv.org/abs/1512.04150")),
    ],
)
def test_a_description_for_the_zoo_cites_the_publication_of_its_method(tmp_path, method, cite):
    pytest.importorskip("onnxruntime")
    saved_models.write(tmp_path / "run", method=method)
    (tmp_path / "out").mkdir()
    written = model_files.write(tmp_path / "run", tmp_path / "out/model.onnx", format="onnx", size=(32, 32))
    described = yaml.safe_load((tmp_path / "out" / written["zoo"]).read_text())
    (found,) = described["cite"]
    assert found.keys() == {"text", "url"}
    assert found["text"].startswith(cite[0]) and found["url"].startswith(cite[1])


def test_what_has_no_description_for_the_zoo_says_why(tmp_path):
    assert "format needs a publication to cite, and the method names none" in zoo.explain_absence(tmp_path)
    (tmp_path / "rdf.yaml").touch()
    assert "rdf.yaml stays that of the first file of the folder" in zoo.explain_absence(tmp_path)


def test_a_model_of_a_method_that_is_not_there_is_refused_by_its_name(tmp_path):
    saved_models.write(tmp_path)
    card = json.loads((tmp_path / "model_card.json").read_text())
    (tmp_path / "model_card.json").write_text(json.dumps(card | {"method": "mean_maps"}))
    with pytest.raises(model_card.ModelCardError, match="method 'mean_maps', .* has minmax, wildcat, cam"):
        mm.load(tmp_path)
    with pytest.raises(ConfigError, match="config.method='mean_maps' must be one of .*'minmax', 'wildcat', 'cam'"):
        options_lib.read(_config(), num_devices=4, num_local_devices=4)
