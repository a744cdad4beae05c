"""What makes a training step carry out all its erasures, so that steps can be compared, and tells that it did."""

import jax

import minmax_jax as mm

# Erasing goes on while the class is right; with this head start the first class is always found.
BIAS = 50.0
# Compiler option: on a CPU XLA would merge what `model.remat` computes again with what was computed before.
KEEP_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander"}


def create_state(model: mm.MinMaxNet, tx, **options) -> mm.TrainState:
    """A state whose localizer finds class 0 in any image; options as of `create_train_state`."""
    state = mm.create_train_state(jax.random.key(0), model=model, tx=tx, **options)
    head = state.params["localizer_head"]["modality_maps"]
    head["bias"] = head["bias"].at[: model.localizer_head.modalities].set(BIAS)
    return state


def check_passes(num_passes: int, num_erasures: int) -> None:
    """Compares the passes of a step with those wanted.

    Raises:
        RuntimeError: if erasing ended early.
    """
    if num_passes != max(1, num_erasures):
        raise RuntimeError(f"{num_passes} passes instead of {num_erasures}: the class was not found.")
