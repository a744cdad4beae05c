"""What a command will take, in words: minutes from the measured seconds of its parts, and memory."""

from collections.abc import Sequence
import math
import os
import resource
import sys
from typing import NamedTuple

import jax
import numpy as np

from minmax_jax.data import canvases, padding
from minmax_jax.distributed import devices
from minmax_jax.runs import timing
from minmax_jax.runs.measured_work import Duration

_MAX_LISTED = 6  # shapes


class Part(NamedTuple):
    """A part of a command.

    Attributes:
        name: what is done.
        seconds: all of them, without those of tracing and compiling.
        basis: what the seconds are derived from.
    """

    name: str
    seconds: float
    basis: str


class Load(NamedTuple):
    """The batches that some images make.

    Attributes:
        typical: [N'] indices of the images of the most frequent shape.
        num_batches: of that shape, that take the time of all batches: larger shapes count by their area.
        num_shapes: that are compiled.
    """

    typical: np.ndarray
    num_batches: float
    num_shapes: int


def find_load(sizes: np.ndarray, shapes: np.ndarray | None, *, batch_size: int) -> Load:
    """The batches of images that are predicted.

    Args:
        sizes: [N, 2] heights and widths of images, N at least 1.
        shapes: of canvases, as of `canvases.choose`.
        batch_size: B; a batch that is not full takes as long as a full one.

    Example:
        Five images of 64x64 make three batches of two; one of 64x128 makes a batch of twice the area:

        >>> import numpy as np
        >>> from minmax_jax.runs import estimate
        >>> load = estimate.find_load(np.array([[64, 64]] * 5 + [[64, 128]]), None, batch_size=2)
        >>> print(load.num_batches, load.num_shapes, load.typical)
        5.0 2 [0 1 2 3 4]
    """
    of_images = canvases.assign(sizes, shapes)
    found, members, counts = np.unique(of_images, axis=0, return_inverse=True, return_counts=True)
    typical = int(np.argmax(counts))
    areas = found.prod(axis=1) / found[typical].prod()
    num_batches = float(np.sum(np.ceil(counts / batch_size) * areas))
    return Load(np.flatnonzero(members.ravel() == typical), num_batches, len(found))


def compiling(durations: Sequence[tuple[Duration, int]]) -> tuple[Part, float]:
    """Tracing and compiling that the command has to do, and the seconds of compiling that the cache now saves it.

    Args:
        durations: of each work, with the number of shapes that it is compiled for; one of them was measured, and is
            traced again but not compiled.
    """
    again = sum(duration.first * num_shapes - duration.kept for duration, num_shapes in durations)
    kept = sum(duration.kept for duration, _ in durations)
    more = sum(num_shapes - 1 for _, num_shapes in durations)
    basis = "measured" + (f"; {more} programs of further shapes as those of the first" if more else "")
    return Part("tracing and compiling", again, basis), kept


def describe_parts(parts: Sequence[Part], *, kept: float, left_out: str) -> str:
    """Lines with the expected minutes, and what they consist of.

    Args:
        parts: of the command.
        kept: seconds of compiling that the cache saves.
        left_out: what the parts do not contain.

    Example:
        >>> from minmax_jax.runs import estimate
        >>> parts = [estimate.Part("100 steps", 90.0, "0.9 s each"), estimate.Part("test", 30.0, "measured")]
        >>> print(estimate.describe_parts(parts, kept=0.0, left_out="pictures"))
        Expected: about 2.0 minutes, without pictures. By part:
           1:30  100 steps (0.9 s each)
           0:30  test (measured)
    """
    total = sum(part.seconds for part in parts)
    lines = [f"Expected: {_format_minutes(total)}, without {left_out}. By part:"]
    lines += [f"{timing.format_seconds(part.seconds):>7}  {part.name} ({part.basis})" for part in parts]
    if kept >= 1:
        lines.append(
            f"Compiling took this dry run {kept:.0f} s, and is not repeated: the programs are kept in"
            f" {jax.config.jax_compilation_cache_dir}."
        )
    return "\n".join(lines)


def _format_minutes(seconds: float) -> str:
    if seconds < 60:
        return f"about {math.ceil(seconds)} seconds"
    minutes = seconds / 60
    return f"about {minutes:.1f} minutes" if minutes < 10 else f"about {minutes:.0f} minutes"


def describe_shapes(sizes: np.ndarray, shapes: np.ndarray | None) -> str:
    """The shapes that networks are compiled for, in words.

    Args:
        sizes: [N, 2] heights and widths of images.
        shapes: of canvases, as of `canvases.choose`.

    Example:
        >>> import numpy as np
        >>> from minmax_jax.runs import estimate
        >>> estimate.describe_shapes(np.array([[41, 60], [64, 64], [96, 64]]), None)
        '2 padded sizes: 64x64, 96x64'
    """
    padded = np.unique(padding.padded_sizes(sizes), axis=0)
    found = padded if shapes is None else shapes
    listed = ", ".join(f"{height}x{width}" for height, width in found[:_MAX_LISTED].tolist())
    listed += f" and {len(found) - _MAX_LISTED} more" if len(found) > _MAX_LISTED else ""
    if shapes is not None:
        return f"{_count(len(found), 'canvas', 'canvases')} for {len(padded)} padded sizes: {listed}"
    return f"{_count(len(found), 'padded size', 'padded sizes')}: {listed}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def describe_range(sizes: np.ndarray) -> str:
    """The smallest and the largest of [N, 2] sizes, by area, such as "96x64 to 500x375 pixels"."""
    ordered = sizes[np.argsort(np.prod(sizes, axis=1), kind="stable")]
    ends = ["x".join(map(str, size)) for size in (ordered[0].tolist(), ordered[-1].tolist())]
    return " to ".join(dict.fromkeys(ends)) + " pixels"


def describe_others() -> list[str]:
    """A line where other programs compute on this machine; called before any own work."""
    load, num_cores = os.getloadavg()[0], os.cpu_count() or 1
    if load <= num_cores / 2:
        return []
    cores = _count(num_cores, "core", "cores")
    return [f"Others: programs compute on this machine (load {load:.1f} on {cores}); without them it takes less time."]


def describe_memory(planned: dict[str, int]) -> str:
    """The most that this process has used so far, and what the command itself keeps in addition.

    Args:
        planned: bytes by what they are for.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    parts = [f"{_gib(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)} at most so far"]
    if on_device := devices.peak_memory():
        used, available = on_device
        parts.append(f"{_gib(used)} of a device's {_gib(available)}")
    parts += [f"up to {_gib(count)} more for {what}" for what, count in planned.items() if count >= 2**20]
    return ", ".join(parts)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 / 10 else f"{count / 2**20:.0f} MiB"
