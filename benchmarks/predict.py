"""Time of `minmax-jax predict` on a folder of photographs of one size, and of plain programs that do the like.

    python -m benchmarks.predict --workdir=RUN [--torch_python=PYTHON] [--onnx=FILE] [--json=FILE] FOLDER

The whole commands are run in alternation: on the folder, and on one photograph of it, which is the start. With
--torch_python, an interpreter that has PyTorch, `benchmarks.plain_predict` is run as well; with --onnx, a file of
`minmax-jax export`, the same program in onnxruntime. Compiled programs are kept; a first call of
each, which is not measured, fills the cache.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from absl import app, flags

from benchmarks import figures

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a finished run.", required=True)
_TORCH = flags.DEFINE_string("torch_python", "", "Interpreter that has PyTorch; without, it is left out.")
_ONNX = flags.DEFINE_string("onnx", "", "File of `minmax-jax export`; without, onnxruntime is left out.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images that are predicted together.")
_REPETITIONS = flags.DEFINE_integer("repetitions", 3, "Runs of each program.")


def _commands() -> dict[str, list[str]]:
    """The programs by name, without folder and output."""
    size = f"--batch_size={_BATCH_SIZE.value}"
    ours = [sys.executable, "-m", "experiments.predict", f"--workdir={_WORKDIR.value}", size]
    plain = ["-m", "benchmarks.plain_predict", size]
    commands = {"predict": ours, "predict, no flips": [*ours, "--noflips"]}
    if _TORCH.value:
        commands["PyTorch, LayerCAM"] = [_TORCH.value, *plain]
    if _ONNX.value:
        commands["onnxruntime"] = [sys.executable, *plain, f"--onnx={_ONNX.value}"]
    return commands


def _measure(command: list[str], folder: pathlib.Path, scratch: pathlib.Path) -> tuple[float, float]:
    """Seconds of a whole command, and those of its processors."""
    output = scratch / "output"
    shutil.rmtree(output, ignore_errors=True)
    before, start = os.times(), time.perf_counter()
    done = subprocess.run([*command, f"--output={output}", str(folder)], capture_output=True, text=True)
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return wall, sum(after[2:4]) - sum(before[2:4])


def main(argv: list[str]) -> None:
    folder = pathlib.Path(argv[1])
    files = sorted(path for path in folder.iterdir() if path.is_file())
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        (scratch / "one").mkdir()
        shutil.copy(files[0], scratch / "one")
        commands, seconds = _commands(), {}
        for command in commands.values():
            _measure(command, scratch / "one", scratch)
        for _ in range(_REPETITIONS.value):
            for program, command in commands.items():
                for what, given in (("start", scratch / "one"), ("all", folder)):
                    seconds.setdefault(program, {}).setdefault(what, []).append(_measure(command, given, scratch))
    measured = {}
    for program, runs in seconds.items():
        for clock, unit in enumerate(("wall", "processor")):
            start, whole = ([run[clock] for run in runs[what]] for what in ("start", "all"))
            each = [(b - a) / max(1, len(files) - 1) for a, b in zip(start, whole)]
            found = {"start": figures.summarize(start), "an image": figures.summarize(each)}
            measured.setdefault(program, {})[unit] = found
            medians = [found[what]["median"] for what in ("start", "an image")]
            print("{:20} {:9} {:7.2f} s start {:8.4f} s an image".format(program, unit, *medians))
    figures.write(measured)


if __name__ == "__main__":
    app.run(main)
