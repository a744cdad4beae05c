"""Heat maps of other systems, from files: the numbers of plain loops, and clear errors."""

import dataclasses
import json

import numpy as np
from PIL import Image
import pytest

from minmax_jax.data import load
from minmax_jax.data.importing import records
from minmax_jax.runs import heat_maps
from tests import own_layout, programs, splits


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Folder of the prepared data, the test split, and a heat map of each of its images, by name."""
    folder = tmp_path_factory.mktemp("data")
    raw = own_layout.read_folders(own_layout.write(folder / "source"))
    records.prepare("pets", lambda scratch: raw, str(folder))
    split = load.load(str(folder), "pets")["test"]
    rng = np.random.default_rng(0)
    maps = [np.clip(split.read_mask(i) * 0.4 + rng.uniform(0, 0.6, own_layout.SIZE), 0, 1) for i in range(len(split))]
    return folder, split, dict(zip(split.names, maps))


def _write(folder, maps, ending=".npy", *, flat=False):
    for name, values in maps.items():
        path = folder / (name.replace("/", "_") if flat else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path = path.with_suffix(ending)
        if ending == ".png":
            Image.fromarray(np.round(values * 255).astype(np.uint8)).save(path)
        else:
            {".npy": np.save, ".npz": np.savez}[ending](path, values.astype(np.float32))


@pytest.mark.parametrize("ending", heat_maps.ENDINGS)
def test_they_are_scored_as_masks(prepared, tmp_path, ending):
    folder, split, maps = prepared
    _write(tmp_path, maps, ending)
    found = heat_maps.evaluate_folder(tmp_path, "pets", "test", data_dir=str(folder))
    dice = []
    for index, name in enumerate(split.names):
        p, t = maps[name] >= 0.5, split.read_mask(index)
        dice.append(100 * 2 * (p & t).sum() / (p.sum() + t.sum()))
    # Of PNG files, values near the threshold are rounded.
    assert found["test"]["f1_foreground"] == pytest.approx(np.mean(dice), abs=1 if ending == ".png" else 1e-4)
    assert found["test"]["num_images"] == 4 and "classification_error" not in found["test"]
    assert found["metrics"]["f1_foreground"]["baselines"]["all_ones"] == pytest.approx(100 * 2 * 0.25 / 1.25)
    assert found["metrics"]["pxap"]["low"] <= found["metrics"]["pxap"]["value"] <= found["metrics"]["pxap"]["high"]
    assert "max_box_acc" in found["metrics"] and "top1_localization" not in found["metrics"]


def test_a_map_of_another_size_is_resized(prepared, tmp_path):
    folder, split, maps = prepared
    _write(tmp_path, dict.fromkeys(maps, np.tile(np.linspace(1, 0, 12), (10, 1))))
    found = heat_maps.evaluate_folder(tmp_path, "pets", "test", data_dir=str(folder))
    line = np.interp((np.arange(48) + 0.5) / 4 - 0.5, np.arange(12), np.linspace(1, 0, 12))
    predicted, true = np.tile(line, (40, 1)) >= 0.5, split.read_mask(0)
    expected = 200 * (predicted & true).sum() / (predicted.sum() + true.sum())
    assert found["test"]["f1_foreground"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 4), 3.0), "has values from 3 to 3; scale all heat maps to"),
        (np.full((4, 4), np.nan), "has values from nan to nan; scale"),
        (np.zeros((4, 4, 3)), r"holds float64\[4, 4, 3\]; a heat map is"),
        (np.array([["a"]]), "a heat map is"),
    ],
)
def test_values_that_are_no_heat_map_are_named(tmp_path, values, message):
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(heat_maps.HeatMapError, match=f"x.npy.*{message}"):
        heat_maps.read(tmp_path / "x.npy")


def test_pictures_are_grey(tmp_path):
    values = np.array([[0, 13107], [52428, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    np.testing.assert_allclose(heat_maps.read(tmp_path / "deep.png"), [[0, 0.2], [0.8, 1]], rtol=1e-6)
    for mode in ("RGB", "P"):
        Image.new(mode, (4, 4)).save(tmp_path / "x.png")
        with pytest.raises(heat_maps.HeatMapError, match=f"x.png cannot be read: it has colours .mode {mode}"):
            heat_maps.read(tmp_path / "x.png")


def test_damaged_files_are_named(tmp_path):
    for ending in heat_maps.ENDINGS:
        path = tmp_path / f"x{ending}"
        path.write_bytes(b"nothing of the kind")
        with pytest.raises(heat_maps.HeatMapError, match=f"x{ending} cannot be read"):
            heat_maps.read(path)
    np.savez(tmp_path / "two.npz", np.zeros((2, 2)), np.zeros((2, 2)))
    with pytest.raises(heat_maps.HeatMapError, match="two.npz cannot be read: it holds 2 arrays"):
        heat_maps.read(tmp_path / "two.npz")


def test_missing_maps_are_counted(prepared, tmp_path):
    folder, split, maps = prepared
    with pytest.raises(heat_maps.HeatMapError, match="is not a folder"):
        heat_maps.evaluate_folder(tmp_path / "none", "pets", "test", data_dir=str(folder))
    _write(tmp_path, dict(list(maps.items())[:3]))
    last = split.names[3]
    with pytest.raises(heat_maps.HeatMapError, match=f"1 of 4 images have no heat map; the first: '{last}'"):
        heat_maps.evaluate_folder(tmp_path, "pets", "test", data_dir=str(folder))


def test_a_map_is_of_one_image(tmp_path):
    """A flat folder in which the map of one image replaced that of another of its name."""
    split = dataclasses.replace(splits.make_split([(40, 48)] * 3), names=("a/1.jpg", "b/1.jpg", "b/2.jpg"))
    for name in ("1", "2"):
        np.save(tmp_path / f"{name}.npy", np.zeros((40, 48)))
    with pytest.raises(heat_maps.HeatMapError, match="2 of 3 images have no heat map; the first: 'a/1.jpg'"):
        heat_maps._find(tmp_path, split)
    for name in ("a/1", "b/1"):
        (tmp_path / name).parent.mkdir()
        np.save(tmp_path / f"{name}.npy", np.zeros((40, 48)))
    assert heat_maps._find(tmp_path, split) == [tmp_path / f"{name}.npy" for name in ("a/1", "b/1", "2")]


@pytest.mark.slow
def test_from_the_command_line(prepared, tmp_path):
    folder, _, maps = prepared
    _write(tmp_path, maps)
    flags = (f"--predictions={tmp_path}", "--dataset=pets")
    done = programs.run("evaluate", *flags, f"--data_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["pxap"]["value"] > 50
    done = programs.run("evaluate", *flags, f"--data_dir={folder}", "--crf")
    assert done.returncode == 1 and "--crf has no effect with --predictions" in done.stderr
    done = programs.run("evaluate", *flags)
    assert done.returncode == 1 and "--predictions needs --dataset and --data_dir" in done.stderr
    done = programs.run("evaluate")
    assert done.returncode == 1 and "workdir" in done.stderr and "predictions" in done.stderr
