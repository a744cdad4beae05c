"""What the speed figures and the recorded numbers come from."""

# Compiler option: on a CPU XLA would merge what `model.remat` computes again with what was computed before.
KEEP_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander"}
