"""What gradient accumulation saves: the memory of a compiled training step.

    python -m benchmarks.memory

Prints a table of docs/scale.md: ResNet-18, 8 images of 320 x 320, two classes, as compiled for the devices at hand.
"""

import functools

import jax
import jax.numpy as jnp

import minmax_jax as mm
from minmax_jax.models import resnet

IMAGES, SIDE = 8, 320
ACCUMULATION = (1, 2, 4)


def compiled_bytes(num_erasures: int, accumulation: int) -> int:
    """Of all that a step keeps besides its arguments and results."""
    model = mm.create_model(resnet.resnet18(), num_classes=2)
    tx = mm.create_optimizer("sgd", 1e-3)
    state = mm.create_train_state(jax.random.key(0), model=model, tx=tx, image_size=(SIDE, SIDE))
    objective = mm.Objective(num_erasures=num_erasures)
    step = functools.partial(mm.train_step, model=model, tx=tx, objective=objective, accumulation=accumulation)
    batch = {
        "images": jax.ShapeDtypeStruct((IMAGES, SIDE, SIDE, 3), jnp.uint8),
        "labels": jax.ShapeDtypeStruct((IMAGES,), jnp.int32),
    }
    compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def main() -> None:
    print("| R | " + " | ".join(f"accumulation {count}, MiB" for count in ACCUMULATION) + " |")
    print("|---" * (1 + len(ACCUMULATION)) + "|")
    for num_erasures in (0, 4):
        row = [compiled_bytes(num_erasures, count) / 2**20 for count in ACCUMULATION]
        print(f"| {num_erasures} | " + " | ".join(f"{size:.0f}" for size in row) + " |", flush=True)


if __name__ == "__main__":
    main()
