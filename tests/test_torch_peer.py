"""The PyTorch peer against values by hand, against what was recorded from it, and against the published numbers."""

import importlib.util
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.witness

from benchmarks import record_parity, torch_net, torch_peer  # noqa: E402

IMAGES = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)


def _tiny_net(**options) -> torch_net.MinMaxNet:
    torch.manual_seed(0)
    return torch_net.MinMaxNet(3, stage_sizes=(1, 2), stage_strides=(1, 2), width=4, modalities=2, **options)


def _norm(name: str) -> list[str]:
    return [f"{name}.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]


@pytest.mark.parametrize("block, convolutions", [(torch_net.BasicBlock, 2), (torch_net.Bottleneck, 3)])
def test_names_in_the_published_order(block, convolutions):
    expected = ["sigma", "w"]
    for place in ("", "layer1.0.", "layer2.0.", "layer2.1."):
        for index in range(1, (convolutions if place else 3) + 1):
            expected += [f"{place}conv{index}.weight", *_norm(f"{place}bn{index}")]
        if place.endswith(".0."):
            expected += [f"{place}downsample.0.weight", *_norm(f"{place}downsample.1")]
    for head in ("headseg", "cl32"):
        expected += [f"{head}.to_modalities.weight", f"{head}.to_modalities.bias"]
    assert list(_tiny_net(block=block).state_dict()) == expected


def test_the_stride_lies_in_the_3x3_convolution():
    block = torch_net.Bottleneck(8, 4, 2)
    assert [conv.stride for conv in (block.conv1, block.conv2, block.conv3)] == [(1, 1), (2, 2), (1, 1)]


@pytest.mark.parametrize(
    "options, expected",
    [
        (dict(k_max=0.3, k_min=0.3, alpha=0.0), (9 + 7 + 6) / 3),
        (dict(k_max=0.25, k_min=0.0, alpha=0.5), (9 + 7) / 2),  # 2.5 is rounded to even
        (dict(k_max=1, k_min=2, alpha=0.5), (9 + 0.5 * (-3 - 1) / 2) / 2),
        (dict(k_max=0.01, k_min=0.0, alpha=0.0), 9),
        (dict(k_max=50, k_min=0.0, alpha=0.0), 3.3),
    ],
)
def test_pooling_by_hand(options, expected):
    values = torch.tensor([[[3.0, -3.0, 9.0, 1.0, 7.0, 6.0, -1.0, 4.0, 5.0, 2.0]]])
    head = torch_net.Head(4, 1, 1, dropout=0.0, **options)
    assert head.pool(values).item() == pytest.approx(expected)


def test_dropout_is_of_training_only():
    net = _tiny_net(dropout=0.5)
    assert not torch.equal(net.localize(IMAGES).logits, net.localize(IMAGES).logits)
    net.eval()
    assert torch.equal(net.localize(IMAGES).logits, net.localize(IMAGES).logits)


def test_it_stops_when_no_image_is_left():
    net = _tiny_net()
    labels = net.localize(IMAGES).logits.argmin(1)
    step = torch_peer.train_step(net, torch.optim.SGD(net.parameters(), 0.1), IMAGES, labels, num_erasures=3)
    assert step.num_passes == 1
    assert not step.masks.any()
    assert torch.equal(step.erased_images, IMAGES)


@pytest.mark.parametrize("case", record_parity.CASES, ids=lambda case: case["name"])
def test_the_recorded_files_are_what_the_recorder_writes(case):
    with np.load(record_parity.FOLDER / f"{case['name']}.npz") as file:
        stored = dict(file)
    found = record_parity.record(case)
    assert found.keys() == stored.keys()
    for name, value in found.items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(value, stored[name], rtol=1e-6, atol=1e-9, err_msg=name)
        else:
            np.testing.assert_array_equal(value, stored[name], err_msg=name)


# Maximum deviation from the published numbers, which are of single precision: relative to an array's range (of a
# scalar: its size), by the start of the name. One value on the other side of a kink (ReLU, maximum) moves a
# gradient by a percent; two steps later nothing is left to compare.
TOLERANCES = {
    "eval_": 1e-5,
    "train_foreground_mask": 1e-4,
    "train_localizer_logits_per_erasure": 1e-4,
    "train_erased_images_last": 1e-3,  # recorded in half precision
    "train_num_localizer_passes": 0,
    "train_errors": 1e-6,
}
# Of (sum, absolute sum, L2 norm), relative to the absolute sum for the first.
SUMMARY_TOLERANCES = {"grad1_summary": 2e-2, "after1_param_summary": 2e-3, "after1_bn_summary": 5e-6}
LOSS_TOLERANCES = np.array([1e-3, 0.3])  # of the first steps, in nats


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18_no_erasing", "resnet18_erasing4"])
def test_published_numbers(name, shared):
    spec = importlib.util.spec_from_file_location("weights", shared / "parity" / "weights.py")
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    with np.load(shared / "parity" / f"{name}.npz") as file:
        published = dict(file)
    case = record_parity.PUBLISHED | json.loads(str(published.pop("case")))
    layout = json.loads(str(published.pop("state_dict_spec")))
    assert record_parity.layout(record_parity.create_net(case)) == [[name, shape] for name, shape, _ in layout]
    tensors = weights.build_state_dict(layout, case["salt"], sigma=case["sigma"], w=case["w"])
    images, labels = published.pop("images_uint8_nhwc"), published.pop("labels")
    found = record_parity.compute(case, tensors, images, labels, torch.float64)
    for key, expected in published.items():
        assert found[key].shape == expected.shape, key
        if key.endswith("_names"):
            np.testing.assert_array_equal(found[key], expected)
        elif key in SUMMARY_TOLERANCES:
            deviations = np.abs(found[key] - expected) / expected[:, [1, 1, 2]]
            assert deviations.max() < SUMMARY_TOLERANCES[key], (key, deviations.max(axis=0))
        elif key.startswith(("train_loss", "train_total")):
            assert (np.abs(found[key] - expected)[:2] < LOSS_TOLERANCES).all(), (key, found[key] - expected)
        else:
            tolerance = next(value for start, value in TOLERANCES.items() if key.startswith(start))
            deviation = np.abs(found[key] - expected).max() / (np.ptp(expected) or np.abs(expected).max())
            assert deviation <= tolerance, (key, deviation)
