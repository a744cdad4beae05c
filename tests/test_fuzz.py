"""A bounded share of what `python -m tests.fuzz` and `tests.fuzz_kernels` try."""

import pytest

from tests import fuzz, fuzz_kernels

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of decoders, about what they then refuse
]


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    return fuzz.create_targets(tmp_path_factory.mktemp("targets"))


def test_intact_files_are_read(targets, tmp_path):
    for name, target in targets.items():
        for number, seed in enumerate(target.seeds):
            folder = tmp_path / name / str(number)
            folder.mkdir(parents=True)
            target.read(seed, folder)


def test_mutated_files_are_read_or_refused(targets, tmp_path):
    for name, target in targets.items():
        count = 30 if name == ".mat" else 150  # a process each
        outcomes, faults = fuzz.run(target, count, seed=0, last=tmp_path / "last")
        assert not faults, (name, faults)
        assert outcomes["refused"] > count // 3, (name, outcomes)


def test_kernels_stay_within_their_buffers():
    if not fuzz_kernels.find_sanitizer():
        pytest.skip("the compiler has no address sanitizer")
    done = fuzz_kernels.start(24, seed=0)
    assert done.returncode == 0, done.stderr[:4000]
    assert all(f"'{name}'" in done.stdout for name in ("conv", "depthwise", "max_pool"))
