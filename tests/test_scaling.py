"""The arithmetic of the scaling table."""

import numpy as np
import pytest

from benchmarks import scaling


def test_counts_of_resnet18():
    """Norms: 3 in the stem, 16 in the blocks, 4 in their shortcuts."""
    trunk = scaling.count("resnet18")
    assert trunk.norms == 23
    assert trunk.norm_reductions(0) == 23 * 2 * 3 and trunk.norm_reductions(4) == 23 * 2 * 6
    # A class more is a map for each of five modalities: 512 weights and a bias, in both heads.
    assert np.diff(trunk.parameters).tolist() == [3 * 2 * 5 * 513, 195 * 2 * 5 * 513]
    assert trunk.step_bytes() == 4 * (trunk.parameters[0] + 3 * trunk.statistics + 11)
    assert trunk.step_flops(4) - trunk.step_flops(0) == pytest.approx(3 * 8 * 3 * trunk.flops.localizer)
    # The stem alone: 27, 9 x 64 and 9 x 64 products a value, 64, 64 and 128 channels of 240 x 240.
    assert trunk.flops.localizer > 2 * (27 * 64 + 576 * 64 + 576 * 128) * 240**2


def test_time_of_an_all_reduce():
    """Twice the bytes, less each device's own part, over the links."""
    assert scaling.V5E.all_reduce(200e9) == pytest.approx(2 * 255 / 256)
    assert scaling.H100.all_reduce(8e9) == pytest.approx(2 * 8 * 7 / 8 / 450 + 2 * 7 / 8 / 50)
