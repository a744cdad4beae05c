"""What lies next to a file: a card in words, and the description for the model zoo."""

import hashlib
import json
import re
import shutil

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
import yaml

from minmax_jax.base.errors import OptionError
from minmax_jax.export import model_card_text, model_files, networks
from minmax_jax.method import Method
from minmax_jax.minmax import method as minmax
from tests import saved_models

SIZE = (64, 45)


def _results(card):
    def metric(value, low=None, high=None, *, unit="%", threshold=None, **baselines):
        row = dict(value=value, low=low, high=high, unit=unit, threshold=threshold)
        return row | ({"baselines": baselines} if baselines else {})

    swaps = {kind: {"probability": 0.25} for kind in ("other", "moved", "random")}
    return {
        "state_digest": card["state_digest"],
        "selection": "classification_error",
        "label_only": True,
        "test": {"num_images": 40},
        "metrics": {
            "classification_error": metric(12.5, 7.5, 20.0),
            "f1_foreground": metric(61.25, 55.0, 66.5, threshold="fixed", all_ones=28.6),
            "background_entropy": metric(1.0123, 0.9, 1.1, unit="nats"),
            "pxap": metric(None),
        },
        "diagnosis": {"own": {"probability": 0.5}, **swaps, "has_evidence": False},
    }


_METHOD = Method(None, None, None, scores=minmax.SCORES)


def _write(workdir, folder, format="onnx", **options):
    folder.mkdir(exist_ok=True)
    return model_files.write(workdir, folder / f"model.{format}", format=format, size=SIZE, **options)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(folder with an ONNX file of a run with odd names and with results, what was written, card of the run)."""
    folder = tmp_path_factory.mktemp("exported")
    run = folder / "my | <run>"
    saved_models.write(run)
    card = json.loads((run / "model_card.json").read_text()) | {"class_names": ["cat", "a|b", "<script>"]}
    (run / "model_card.json").write_text(json.dumps(card))
    (run / "results.json").write_text(json.dumps(_results(card)))
    return folder, _write(run, folder / "out", licence="CC-BY-4.0"), card


def test_what_is_next_to_an_onnx_file(exported):
    folder, written, card = exported
    tmp_path = folder / "out"
    model = onnx.load(written["file"])
    metadata = {item.key: item.value for item in model.metadata_props}
    assert json.loads(metadata["class_names"]) == card["class_names"]
    described = yaml.safe_load((tmp_path / "rdf.yaml").read_text())
    assert (
        described["type"] == "model"
        and described["name"] == "minmax_jax my _ _run_"
        and described["license"] == "CC-BY-4.0"
    )
    source = described["weights"]["onnx"]
    digest = hashlib.sha256((tmp_path / source["source"]).read_bytes()).hexdigest()
    assert source["sha256"] == digest == written["sha256"]
    assert source["opset_version"] == model.opset_import[0].version
    (given,) = described["inputs"]
    assert [axis["type"] for axis in given["axes"]] == ["batch", "space", "space", "channel"]
    assert [axis.get("size") for axis in given["axes"]] == [None, *SIZE, None]
    (step,) = given["preprocessing"]
    images = np.load(tmp_path / given["test_tensor"]["source"]) * step["kwargs"]["gain"] + step["kwargs"]["offset"]
    assert images.shape == (2, *SIZE, 3) and -1 <= images.min() < -0.9 and 0.9 < images.max() <= 1
    session = onnxruntime.InferenceSession(written["file"], providers=["CPUExecutionProvider"])
    results = session.run(None, {given["id"]: images.astype(np.float32)})
    assert [output["id"] for output in described["outputs"]] == list(networks.output_names(minmax.SCORES))
    for output, values in zip(described["outputs"], results, strict=True):
        path = tmp_path / output["test_tensor"]["source"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == output["test_tensor"]["sha256"]
        np.testing.assert_allclose(np.load(path), values, atol=1e-4)
        assert len(output["axes"]) == values.ndim
    assert described["outputs"][0]["axes"][1]["channel_names"] == card["class_names"]
    assert (tmp_path / described["documentation"]).exists()


def test_the_description_is_one_of_the_model_zoo(exported):
    spec = pytest.importorskip("bioimageio.spec", reason="bioimageio.spec is not installed")
    found = spec.load_description(exported[0] / "out/rdf.yaml")
    assert found.validation_summary.status in ("valid-format", "passed"), found.validation_summary


def test_the_card_says_what_the_model_is_worth(exported):
    folder, _, card = exported
    text = (folder / "out/MODEL_CARD.md").read_text()
    for part in (
        r"# my \| \<run\>: model card",
        r"| classes | cat, a\|b, \<script\> |",
        "no mask was used to train or to select it",
        "| trained on | synthetic: 12 images, 4 of each class |",
        "| licence of the weights | CC-BY-4.0 |",
        "40 test images. Intervals",
        "| classification error | 12.50 % | 7.50 to 20.00 |  |  |",
        "| F1+ (Dice of the foreground) | 61.25 % | 55.00 to 66.50 | fixed | 28.60 |",
        "| background entropy | 1.012 nats | 0.900 to 1.100 |  |  |",
        "**No**: other masks showed the class as well.",
        card["state_digest"],
        "| `model.onnx` | ONNX, opset 13 | [B, 64, 45, 3] |",
    ):
        assert part in text, part
    assert "PxAP" not in text


@pytest.mark.parametrize(
    ("changes", "results", "part"),
    [
        ({}, {}, "The results of the run were not at hand"),
        ({}, {"state_digest": "of another model"}, "The results of the run were not at hand"),
        ({}, {"selection": "localization", "label_only": False}, "selected by masks of validation images"),
        ({"refine": {"enabled": True, "prior": "glands", "calibration": "none"}}, {}, "from the prior 'glands'"),
        (
            {"refine": {"enabled": True, "prior": "", "calibration": "percentiles"}},
            {},
            "is its threshold (percentiles)",
        ),
        (
            {"flips": {"horizontal": True, "vertical": True}},
            {"test": {"num_images": 3}},
            "other test-time choices than the file (mirror images: none; sizes: 1; second stage: no",
        ),
        ({"microns_per_pixel": 0.465}, {}, "0.465 microns a pixel"),
        (
            {"reading": {"intensity": "percentiles", "channels": [2, 0]}},
            {},
            "Before that, channels 2, 0 of the file, counted from 0, were read and percentiles 1 and 99 of each",
        ),
        (
            {"preprocessing": {"stain_normalization": "macenko", "scale": 0.5, "min_side": 64, "max_side": 99}},
            {},
            "stain normalization macenko, resized to 0.5 of their size, enlarged where the smaller side has fewer than",
        ),
    ],
)
def test_the_card_in_other_cases(exported, changes, results, part):
    card = exported[2]
    found = _results(card) | results if results else {}
    chosen = card | changes
    tested = card if "flips" in changes else chosen
    text = model_card_text.describe("run", chosen, method=_METHOD, tested=tested, results=found, licence="")
    assert part in " ".join(text.split())
    assert "not stated: ask who trained them" in text


def test_a_second_file_of_a_model_joins_its_card(exported, tmp_path):
    folder = shutil.copytree(exported[0], tmp_path / "copy")
    card = folder / "out/MODEL_CARD.md"
    edited = card.read_text().replace("## Intended use\n", "## Intended use\n\nOur own words.\n")
    card.write_text(edited)
    _write(folder / "my | <run>", folder / "out", "stablehlo")
    text = card.read_text()
    assert text.startswith(edited) and len(text.splitlines()) == len(edited.splitlines()) + 1
    row = text.splitlines()[-1]
    oldest = {"0.10.2": "0.9.2"}.get(jax.__version__, jax.__version__)
    assert row.startswith(f"| `model.stablehlo` | StableHLO; read by jax {oldest} and newer (written by jax ")
    assert re.search(r"StableHLO 1\.\d+\.\d+, calling convention \d+\); JAX may refuse the file after 20", row)
    model_card_text.write(folder / "out", "not used", ("model.onnx", "written again"))
    assert card.read_text().splitlines()[-2:] == [text.splitlines()[-1], "| `model.onnx` | written again |"]


def test_a_file_for_any_size_is_described_as_one(exported, tmp_path):
    spec = pytest.importorskip("bioimageio.spec", reason="bioimageio.spec is not installed")
    model_files.write(exported[0] / "my | <run>", tmp_path / "any.onnx", format="onnx", size=None)
    described = yaml.safe_load((tmp_path / "rdf.yaml").read_text())
    assert [axis.get("size") for axis in described["inputs"][0]["axes"]] == [None, *[{"min": 32, "step": 1}] * 2, None]
    masks = next(output for output in described["outputs"] if output["id"] == "masks")
    sides = [{"tensor_id": "images", "axis_id": axis} for axis in "yx"]
    assert [axis.get("size") for axis in masks["axes"]] == [None, *sides, None]
    found = spec.load_description(tmp_path / "rdf.yaml")
    assert found.validation_summary.status in ("valid-format", "passed"), found.validation_summary


def test_a_second_size_joins_the_folder(exported, tmp_path):
    """The description for the zoo stays that of the first file."""
    folder = shutil.copytree(exported[0], tmp_path / "copy")
    before = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    output = folder / "out/second.onnx"
    written = model_files.write(folder / "my | <run>", output, format="onnx", size=(32, 45))
    assert "zoo" not in written and exported[1]["zoo"] == "rdf.yaml"
    after = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    card = after.pop("MODEL_CARD.md").decode().splitlines()
    assert after == {name: content for name, content in before.items() if name != "MODEL_CARD.md"} | {
        "second.onnx": output.read_bytes()
    }
    assert card[:-1] == before["MODEL_CARD.md"].decode().splitlines()
    assert card[-1].startswith("| `second.onnx` | ONNX, opset 13 | [B, 32, 45, 3] |")


def test_a_folder_with_files_of_another_model(exported, tmp_path):
    workdir = exported[0] / "my | <run>"
    (tmp_path / "MODEL_CARD.md").write_text("# another\n")
    with pytest.raises(OptionError, match=r"MODEL_CARD.md is that of another model"):
        _write(workdir, tmp_path)
    (tmp_path / "MODEL_CARD.md").write_text(f"# the same, with another second stage\n{exported[2]['state_digest']}\n")
    with pytest.raises(OptionError, match=r"MODEL_CARD.md is that of another model"):
        model_card_text.check(tmp_path, exported[2] | {"second_stage_digest": "0" * 64})
    (tmp_path / "MODEL_CARD.md").unlink()
    (tmp_path / "rdf.yaml").write_text("type: model\n")
    with pytest.raises(OptionError, match=r"which has rdf.yaml of another file"):
        _write(workdir, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["rdf.yaml"]
