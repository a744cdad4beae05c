"""What a step computes and exchanges, and the efficiency to expect of many devices: on paper, not measured.

    python -m benchmarks.scaling [--json=FILE]

Prints the tables of docs/scale.md, which tells the model and its assumptions. Needs no accelerator: operations are
counted on the programs before they are compiled, parameters on their shapes.
"""

from collections.abc import Callable
import dataclasses

import jax
import jax.numpy as jnp
from minmax_jax.experiments import program

from benchmarks import figures
from benchmarks import flops as flops_lib
import minmax_jax as mm
from minmax_jax.models import resnet

NUM_CLASSES = (2, 5, 200)
IMAGES, SIDE = 8, 480  # of each device
NUM_ERASURES = (0, 4)
NUM_METRICS, NUM_STREAMS, FLOAT = 11, 3, 4  # FLOAT in bytes
UTILISATION = 0.3  # assumed share of the peak that the networks reach
LINK_SHARE = 0.7  # assumed share of a link's bandwidth that an all-reduce reaches


@dataclasses.dataclass(frozen=True)
class Machine:
    """Devices and their links.

    Attributes:
        name: of the whole.
        peak: FLOP/s of a device in the precision that float32 networks run in by default.
        all_reduce: bytes -> seconds, were the links used to the full.
        latency: seconds of an all-reduce of next to nothing; assumed.
    """

    name: str
    peak: float
    all_reduce: Callable[[float], float]
    latency: float


# bfloat16 products; 4 links a chip of 50 GB/s each way, all used by rings over both axes of the 16 x 16 torus. Latency:
# 1 microsecond a hop, 8 hops to the farthest along each axis, there and back.
V5E = Machine("v5e-256", 197e12, lambda size: 2 * size * 255 / 256 / 200e9, 32e-6)
# TF32 products, dense; NVLink 450 GB/s each way within a node, then an eighth of the bytes a device over its 50 GB/s.
H100 = Machine("8 x 8 H100", 495e12, lambda size: 2 * size * 7 / 8 / 450e9 + 2 * (size / 8) * 7 / 8 / 50e9, 40e-6)


@dataclasses.dataclass(frozen=True)
class Trunk:
    """What is counted of both networks on a trunk.

    Attributes:
        parameters: number for each of `NUM_CLASSES`.
        statistics: floats of one stream's running statistics.
        norms: layers of batch norm.
        flops: of one image.
    """

    parameters: tuple[int, ...]
    statistics: int
    norms: int
    flops: flops_lib.Flops

    def step_flops(self, num_erasures: int) -> float:
        """Of one device."""
        return IMAGES * self.flops.step(num_erasures)

    def step_bytes(self) -> int:
        """Of gradients (two classes), statistics and metrics, all float32."""
        return FLOAT * (self.parameters[0] + NUM_STREAMS * self.statistics + NUM_METRICS)

    def norm_bytes(self, num_erasures: int) -> int:
        """Of cross-replica batch norm: mean and mean square of each channel, and their gradients, in each pass."""
        return 2 * FLOAT * self.statistics * (max(1, num_erasures) + 2)

    def norm_reductions(self, num_erasures: int) -> int:
        """All-reduces of cross-replica batch norm: one a layer on the way forth, and one back, of each pass."""
        return 2 * self.norms * (max(1, num_erasures) + 2)


def count(name: str) -> Trunk:
    """Counts a trunk of `resnet.TRUNKS`."""
    images = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    masks = jax.ShapeDtypeStruct((1, SIDE, SIDE, 1), jnp.float32)
    models = [mm.create_model(resnet.TRUNKS[name](), num_classes=classes) for classes in NUM_CLASSES]
    shapes = [jax.eval_shape(model.init, jax.random.key(0), images, masks) for model in models]
    statistics = jax.tree.leaves(shapes[0]["batch_stats"])
    return Trunk(
        parameters=tuple(sum(leaf.size for leaf in jax.tree.leaves(shape["params"])) for shape in shapes),
        statistics=sum(leaf.size for leaf in statistics),
        norms=len(statistics) // 2,
        flops=flops_lib.count(models[0], SIDE, SIDE),
    )


def print_counts(trunks: dict[str, Trunk]) -> None:
    print(
        "| trunk | parameters, millions, 2 / 5 / 200 classes | MB a step | norm layers | MB of cross-replica norm,"
        " R = 0 / 4 | TFLOP a step, R = 0 / 4 |"
    )
    print("|---|---|---|---|---|---|")
    for name, trunk in trunks.items():
        parameters = " / ".join(f"{number / 1e6:.2f}" for number in trunk.parameters)
        norm = " / ".join(f"{trunk.norm_bytes(erasures) / 1e6:.2f}" for erasures in NUM_ERASURES)
        flops = " / ".join(f"{trunk.step_flops(erasures) / 1e12:.2f}" for erasures in NUM_ERASURES)
        print(f"| {name} | {parameters} | {trunk.step_bytes() / 1e6:.1f} | {trunk.norms} | {norm} | {flops} |")


def print_efficiency(trunks: dict[str, Trunk]) -> None:
    print("| machine | trunk | R | computing, ms | exchange, ms | efficiency, % | cross-replica norm | efficiency, % |")
    print("|---|---|---|---|---|---|---|---|")
    for machine in (V5E, H100):
        for name, trunk in trunks.items():
            for erasures in NUM_ERASURES:
                computing = trunk.step_flops(erasures) / (machine.peak * UTILISATION)
                exchange = machine.all_reduce(trunk.step_bytes()) / LINK_SHARE
                reductions = trunk.norm_reductions(erasures)
                norm = reductions * machine.latency
                shares = [100 * computing / (computing + lost) for lost in (exchange, exchange + norm)]
                print(
                    f"| {machine.name} | {name} | {erasures} | {1e3 * computing:.0f} | {1e3 * exchange:.1f} |"
                    f" {shares[0]:.0f} | {reductions} times, {1e3 * norm:.0f} ms | {shares[1]:.0f} |"
                )


def main() -> None:
    trunks = {name: count(name) for name in resnet.TRUNKS}
    print_counts(trunks)
    print()
    print_efficiency(trunks)
    figures.write({name: dataclasses.asdict(trunk) for name, trunk in trunks.items()})


if __name__ == "__main__":
    program.run(main)
