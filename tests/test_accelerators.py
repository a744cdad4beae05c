"""How the benchmark of compilers reads a compiled program; the compilers themselves are not here."""

from absl.testing import flagsaver
import pytest

from benchmarks import accelerators

PROGRAM = """
  %conv.1 = f32[8,4,4,16]{3,2,1,0:T(8,128)} convolution(%a, %b), window={size=3x3 pad=1_1x1_1}
  %cudnn-conv.2 = (bf16[8,4,4,16]{3,2,1,0}, u8[0]{0}) custom-call(%a), custom_call_target="__cudnn$convForward"
  %other = (f32[4]{0}, u8[0]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm"
  %all-reduce.1 = (f32[1000,500]{1,0}, bf16[500000]{0}, pred[]) all-reduce(%a, %b, %c), replica_groups={{0,1}}
  %start = f32[250000]{0} all-reduce-start(%d), replica_groups={{0,1}}
  %done = f32[250000]{0} all-reduce-done(%start)
  ROOT %t.1 = f32[1024,1024]{1,0} transpose(%x), dimensions={1,0}
  %t.2 = f32[1024,1023]{1,0} transpose(%x), dimensions={1,0}
"""


def test_what_a_program_convolves_exchanges_and_transposes():
    assert accelerators.read_program(PROGRAM) == {
        "convolutions": {"f32": 1, "bf16": 1},
        "all_reduces": 2,
        "exchanged_mb": 4.0,  # 2 + 1 and 1, and a byte
        "large_transposes": {"f32[1024,1024]": 1},
    }


@pytest.mark.parametrize("chip, extra", [("v5e", "tpu"), ("h100", "cuda")])
def test_a_compiler_that_is_not_there_is_told(chip, extra, monkeypatch):
    monkeypatch.setattr(accelerators.importlib.metadata, "distributions", lambda: [])
    with flagsaver.as_parsed(chip=chip), pytest.raises(ModuleNotFoundError, match=rf"--chip={chip}.*\[{extra}\]"):
        accelerators._find_devices()
