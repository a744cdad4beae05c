"""How long one training step takes, or the localization of images, against a peer.

    python -m benchmarks.train_step --peer=torch --trunk=resnet18 --size=128 --num_erasures=4 [--json=FILE]
    python -m benchmarks.train_step --peer=torch --what=localize --trunk=resnet18 --size=522,775 --batch_size=1

The peer is plain PyTorch (`torch`; needs the extra `[torch]`), the same with its networks compiled (`torch_compile`),
this library's step with its loop unrolled (`unrolled`), or with residual blocks computed again (`remat`, as by
`model.remat`). Both sides have the same weights, images and labels, and carry out all erasures. They take turns in one
process; the ratio is that of neighbouring turns, median and range. Operations are counted by the definition of the
layers. docs/steps.md has the figures.
"""

from collections.abc import Callable
import functools
import time
from unittest import mock

from absl import flags
import jax
import jax.numpy as jnp
from minmax_jax.experiments import program
import numpy as np

from benchmarks import all_erasures
from benchmarks import figures as figures_lib
from benchmarks import flops as flops_lib
import minmax_jax as mm
from minmax_jax.minmax import erasing
from minmax_jax.models import efficientnet_lite, resnet

_PEER = flags.DEFINE_enum("peer", "torch", ["torch", "torch_compile", "unrolled", "remat"], "What to compare with.")
_WHAT = flags.DEFINE_enum("what", "train", ["train", "localize"], "A training step, or inference.")
_TRUNKS = resnet.TRUNKS | efficientnet_lite.TRUNKS
_TRUNK = flags.DEFINE_enum("trunk", "resnet18", list(_TRUNKS), "Trunk; residual ones have the deep stem.")
_SIZE = flags.DEFINE_list("size", ["128"], "Pixels: the side of a square, or height,width.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images.", 1)
_NUM_ERASURES = flags.DEFINE_integer("num_erasures", 4, "R.", 0)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of this library's computation.")
_REPETITIONS = flags.DEFINE_integer("repetitions", 5, "Turns of each side.", 1)
_NUM_CLASSES, _LEARNING_RATE = 5, 1e-4


def main() -> None:
    program.start(keeps_compiled=False)
    sides = _create_sides()
    first = {name: _time(run) for name, run in sides.items()}
    for run in sides.values():
        run()
    times = {name: [] for name in sides}
    for _ in range(_REPETITIONS.value):
        for name, run in sides.items():
            times[name].append(_time(run))
    ours, theirs = times.values()
    flops = _count_flops()
    figures = {name: flag.value for name, flag in _options().items()}
    for name in sides:
        seconds = figures_lib.summarize(times[name])
        figures[name] = {
            "seconds": seconds,
            "first_call_seconds": round(first[name], 2),
            "images_per_second": round(_BATCH_SIZE.value / seconds["median"], 2),
            "tflop_per_second": round(flops / seconds["median"] / 1e12, 3),
        }
    figures["ratio"] = figures_lib.summarize(np.divide(ours, theirs))
    for name, value in figures.items():
        print(f"{name:<14}{value}")
    figures_lib.write(figures)


def _options() -> dict[str, flags.FlagHolder]:
    shared = {"what": _WHAT, "trunk": _TRUNK, "size": _SIZE, "batch_size": _BATCH_SIZE, "dtype": _DTYPE}
    return shared | ({"num_erasures": _NUM_ERASURES} if _WHAT.value == "train" else {})


def _time(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _size() -> tuple[int, int]:
    """Height and width of the images."""
    height, width = map(int, 2 * _SIZE.value if len(_SIZE.value) == 1 else _SIZE.value)
    return height, width


def _count_flops() -> float:
    """Of one turn."""
    counted = flops_lib.count(_create_model(), *_size())
    one_image = counted.inference() if _WHAT.value == "localize" else counted.step(_NUM_ERASURES.value)
    return _BATCH_SIZE.value * one_image


def _create_sides() -> dict[str, Callable[[], None]]:
    """What to time, by name, this library's first."""
    images = np.random.default_rng(0).integers(0, 256, (_BATCH_SIZE.value, *_size(), 3), np.uint8)
    model = _create_model()
    tx = mm.create_optimizer("sgd", _LEARNING_RATE, weight_decay=1e-5)
    state = all_erasures.create_state(model, tx, image_size=(64, 64), shared_statistics=True)
    if _WHAT.value == "localize":
        run = _create_localization(model, images)
        sides = {"minmax_jax": functools.partial(run, state)}
    else:
        sides = {"minmax_jax": _create_step(model, tx, state, images)}
    if _PEER.value.startswith("torch"):
        sides[_PEER.value] = _create_torch_side(model, state, images)
    elif _PEER.value == "remat":
        options = all_erasures.KEEP_BARRIERS if jax.default_backend() == "cpu" else None
        sides["remat"] = _create_step(_create_model(remat=True), tx, state, images, compiler_options=options)
    else:
        # The first call traces the step: in it the loop must be replaced.
        replaced = mock.patch.object(erasing.lax, "while_loop", _unrolled)
        sides["unrolled"] = replaced(_create_step(model, tx, state, images))
    return sides


def _create_model(remat: bool = False):
    dtype = jnp.dtype(_DTYPE.value)
    head = functools.partial(mm.heads.WildcatHead, dtype=dtype)
    return mm.create_model(_TRUNKS[_TRUNK.value](dtype=dtype, remat=remat), num_classes=_NUM_CLASSES, head=head)


def _create_localization(model, images):
    localize = jax.jit(functools.partial(mm.localize, model=model))
    padded = [(0, 0), *((0, -size % 32) for size in images.shape[1:3]), (0, 0)]
    images = np.pad(images, padded, mode="reflect")
    return lambda state: jax.block_until_ready(localize(state.params, state.batch_stats, images))


def _create_step(model, tx, state, images, **options):
    objective = mm.Objective(
        mask=mm.masks.MaskOptions(normalization="batch"),
        erasing=mm.erasing.ErasingOptions(num_erasures=_NUM_ERASURES.value, start_epoch=0),
    )
    step = jax.jit(
        functools.partial(mm.train_step, model=model, tx=tx, objective=objective), donate_argnums=0, **options
    )
    state = jax.tree.map(jnp.copy, state)
    batch = {"images": images, "labels": np.zeros(len(images), np.int32)}

    def run():
        nonlocal state
        state, metrics = jax.block_until_ready(step(state, batch))
        all_erasures.check_passes(int(metrics["num_passes"]), _NUM_ERASURES.value)

    return run


def _unrolled(unfinished, body, carry):
    del unfinished
    for _ in range(max(1, _NUM_ERASURES.value)):
        carry = body(carry)
    return carry


def _create_torch_side(model, state, images):
    import torch

    from benchmarks import torch_net, torch_peer, torch_twin

    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = torch_twin.create(model, state.variables)
    net.to(device)
    if _PEER.value == "torch_compile":
        net.localize, net.classify = torch.compile(net.localize), torch.compile(net.classify)
    given = torch_net.from_uint8(images).to(device)
    labels = torch.zeros(len(images), dtype=torch.long, device=device)
    optimizer = torch.optim.SGD(net.parameters(), _LEARNING_RATE, momentum=0.9, weight_decay=1e-5, nesterov=True)

    def train():
        step = torch_peer.train_step(net.train(), optimizer, given, labels, num_erasures=_NUM_ERASURES.value)
        all_erasures.check_passes(step.num_passes, _NUM_ERASURES.value)
        if device == "cuda":
            torch.cuda.synchronize()

    @torch.no_grad()
    def localize():
        found = net.eval().localize(given, "image")
        net.classify(given * found.masks)
        net.classify(given * (1 - found.masks))

    return train if _WHAT.value == "train" else localize


if __name__ == "__main__":
    program.run(main)
