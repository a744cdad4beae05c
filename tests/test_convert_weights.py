"""The program that converts files of weights."""

import hashlib
import re
import subprocess
import sys

import numpy as np
import pytest
import safetensors
from safetensors import numpy as safetensors_numpy

from minmax_jax import interop
from tests import programs, torch_layout

TENSORS = {
    "module.conv.weight": np.arange(24, dtype=np.float16).reshape(2, 3, 2, 2).transpose(3, 1, 2, 0),
    "norm.num_batches_tracked": np.array(7),
    "fc.weight": np.zeros((0, 3), np.float32),
}


def _convert(source, target):
    return programs.run("convert-weights", f"--input={source}", f"--output={target}")


def test_a_process_of_its_own_converts_as_well(tmp_path):
    np.savez(tmp_path / "in.npz", a=np.ones(2, np.float32))
    flags = [f"--input={tmp_path}/in.npz", f"--output={tmp_path}/out.safetensors"]
    command = [sys.executable, "-m", "experiments.convert_weights", *flags]
    done = subprocess.run(command, cwd=programs.ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and done.stdout.startswith(f"{tmp_path}/out.safetensors: 1 tensors"), done.stderr
    np.testing.assert_array_equal(safetensors_numpy.load_file(tmp_path / "out.safetensors")["a"], [1, 1])
    done = subprocess.run(command, cwd=programs.ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1 and done.stderr.startswith("Error: --output=") and "Traceback" not in done.stderr


@pytest.mark.parametrize("suffix", [".pth", ".tar", ".npz"])
def test_all_tensors_are_written_and_described(tmp_path, suffix):
    source, target = tmp_path / f"weights{suffix}", tmp_path / "out.safetensors"
    if suffix == ".npz":
        np.savez(source, **TENSORS)
    else:
        write = torch_layout.write_old if suffix == ".tar" else torch_layout.write_zip
        source.write_bytes(write({"epoch": 3, "state_dict": TENSORS}))
    done = _convert(source, target)
    assert done.returncode == 0, done.stderr
    content = target.read_bytes()
    described = f"3 tensors, {len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}"
    assert done.stdout == f"{target}: {described}\n"
    found = safetensors_numpy.load_file(target)
    assert set(found) == {"conv.weight", "norm.num_batches_tracked", "fc.weight"}
    assert found["conv.weight"].dtype == np.float32 and found["fc.weight"].shape == (0, 3)
    np.testing.assert_array_equal(found["conv.weight"], TENSORS["module.conv.weight"])
    assert found["norm.num_batches_tracked"].dtype == np.int64
    assert found["norm.num_batches_tracked"] == 7
    assert found["norm.num_batches_tracked"].shape == ()
    assert sorted(tmp_path.iterdir()) == sorted([source, target])
    with safetensors.safe_open(target, framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["converted_by"].startswith("minmax_jax ") and metadata["order"].startswith("C:")
    if suffix == ".npz":
        assert metadata["layout"] == "that of the source, which does not say it"
    else:
        assert metadata["convolution_kernels"].startswith("OIHW") and metadata["dense_kernels"].startswith(
            "output feat"
        )


@pytest.mark.parametrize(
    "source, target, message",
    [
        ("good.npz", "taken.safetensors", "--output='.*taken.safetensors' exists already"),
        ("good.npz", "out.pth", "--output='.*out.pth' must end with .safetensors"),
        ("good.npz", "nowhere/out.safetensors", ".*out.safetensors.\\d+.new: No such file or directory"),
        ("absent.pth", "out.safetensors", "--input='.*absent.pth': There is no file"),
        ("resnet18-00000000.pth", "out.safetensors", "--input=.* has SHA-256 .* its name says 00000000"),
        ("words.npz", "out.safetensors", r"--input='.*words.npz': .*no number: names \(<U3\)"),
        ("https://host/x.pth", "out.safetensors", "--input='https://host/x.pth' is not on a file system"),
    ],
)
def test_what_cannot_be_converted_is_named_in_one_line(tmp_path, source, target, message):
    np.savez(tmp_path / "good.npz", a=np.ones(2))
    np.savez(tmp_path / "words.npz", names=np.array(["cat"]))
    (tmp_path / "taken.safetensors").write_bytes(b"kept")
    (tmp_path / "resnet18-00000000.pth").write_bytes(torch_layout.write_zip({"a": np.ones(2, np.float32)}))
    before = sorted(tmp_path.iterdir())
    done = _convert(source if ":" in source else tmp_path / source, tmp_path / target)
    assert done.returncode == 1 and done.stdout == "" and "Traceback" not in done.stderr
    assert re.match(f"Error: {message}", done.stderr), done.stderr
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "taken.safetensors").read_bytes() == b"kept"


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        interop.write_tensors(tmp_path / "out.safetensors", {"a": np.ones(2)})
    assert not list(tmp_path.iterdir())


def test_the_layout_that_a_file_says_is_kept(tmp_path):
    source, target = tmp_path / "model.safetensors", tmp_path / "out.safetensors"
    safetensors_numpy.save_file({"a": np.zeros(3, np.float32)}, source, metadata={"convolution_kernels": "HWIO"})
    done = _convert(source, target)
    assert done.returncode == 0, done.stderr
    with safetensors.safe_open(target, framework="numpy") as file:
        assert file.metadata()["convolution_kernels"] == "HWIO" and "layout" not in file.metadata()
