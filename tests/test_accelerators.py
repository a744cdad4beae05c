"""How the benchmark of compilers reads a compiled program; the compilers themselves are not here."""

from absl.testing import flagsaver
import pytest

from benchmarks import accelerators, traffic

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


LOOP = """
HloModule step

%fused.1 (p.1: f32[1000,2]) -> f32[1000,2] {
  %p.1 = f32[1000,2]{1,0} parameter(0)
  ROOT %inner = f32[1000,2]{1,0} add(%p.1, %p.1)
}

%fused.2 (p.2: f32[1000,2]) -> f32[10,2] {
  %p.2 = f32[1000,2]{1,0} parameter(0)
  ROOT %cut = f32[10,2]{1,0} slice(%p.2), slice={[0:10], [0:2]}
}

%body.1 (arg: (f32[1000,2], pred[])) -> (f32[1000,2], pred[]) {
  %arg = (f32[1000,2]{1,0}, pred[]) parameter(0)
  %x = f32[1000,2]{1,0} get-tuple-element(%arg), index=0
  %conv.1 = (bf16[1000,1]{1,0:T(8,128)}, u8[0]{0}) custom-call(%x, /*index=1*/%x), target="__cudnn$convForward"
  ROOT %fusion.1 = f32[1000,2]{1,0} fusion(%x), kind=kLoop, calls=%fused.1
}

ENTRY %main (a: f32[1000,2], b: s32[]) -> f32[1000,2] {
  %a = f32[1000,2]{1,0} parameter(0)
  %negated = f32[1000,2]{1,0} negate(%a)
  %part = f32[10,2]{1,0} fusion(%a), kind=kLoop, calls=%fused.2
  %loop = (f32[1000,2]{1,0}, pred[]) while(%negated), condition=%unknown, body=%body.1
  ROOT %known = (f32[1000,2]{1,0}, pred[]) while(%negated), body=%body.1, config={"known_trip_count":{"n":"2"}}
}
"""


def test_what_a_program_moves():
    # 3 turns that are told and 2 that the program knows, of 2000 + 2 * 8000 bytes and of 8000 + 8000; before
    # them 16000, and a slice of 80 from 80.
    assert traffic.read(LOOP, passes=3) == {
        "kernels": {"convolutions": 5, "others": 7},
        "moved_gb": {"convolutions": 9e-5, "others": 9.6e-5},
    }


@pytest.mark.parametrize("chip, extra", [("v5e", "tpu"), ("h100", "cuda12")])
def test_a_compiler_that_is_not_there_is_told(chip, extra, monkeypatch):
    monkeypatch.setattr(accelerators.importlib.metadata, "distributions", lambda: [])
    with flagsaver.as_parsed(chip=chip), pytest.raises(ModuleNotFoundError, match=rf"--chip={chip}.*\[{extra}\]"):
        accelerators._find_devices()
