"""The PyTorch evaluation against values by hand, and this library's against it."""

import functools

import jax
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.witness

from benchmarks import torch_evaluation, torch_net, torch_twin  # noqa: E402
import minmax_jax as mm  # noqa: E402
from minmax_jax import evaluation  # noqa: E402
from minmax_jax.evaluation.metrics import classification, dice, scores  # noqa: E402
from minmax_jax.minmax import inference  # noqa: E402
from minmax_jax.minmax.method import SCORES  # noqa: E402
from minmax_jax.training import state as state_lib  # noqa: E402
from tests import networks, splits  # noqa: E402

SHAPE = dict(stage_sizes=(1, 1), stage_strides=(1, 2), width=4)


def _both_models() -> tuple[mm.MinMaxNet, mm.TrainState, torch_net.MinMaxNet]:
    model = mm.create_model(mm.ResNet(**SHAPE), num_classes=2, head=networks.wildcat(modalities=2, k_max=0.3))
    tx = mm.create_optimizer("sgd", 1e-3)
    state = mm.create_train_state(jax.random.key(0), model=model, tx=tx, image_size=(64, 64), shared_statistics=True)
    net = torch_twin.create(model, state.variables)
    return model, state, net


def test_both_evaluations_give_the_same_numbers():
    """Images with and without a margin, a batch that is not full, and a true mask of another size."""
    sizes = [(40, 50), (64, 64), (40, 51)]
    split = splits.make_split(sizes, mask_sizes=[(40, 50), (80, 70), (40, 51)])
    model, state, net = _both_models()

    objective = networks.objective()
    predict = functools.partial(
        inference.predict, state_lib.inference_variables(state), model=model, objective=objective
    )
    evaluators = (classification.evaluator(SCORES), dice.evaluator(), scores.evaluator(SCORES))
    rows = evaluation.evaluate(jax.jit(predict), split, evaluators, batch_size=2)
    ours = evaluation.summarize(rows, evaluators)
    theirs = torch_evaluation.evaluate(net, split)
    torch_evaluation.check_agreement(ours, theirs)
    assert 0 < theirs["f1_foreground"] < 100
    with pytest.raises(RuntimeError, match="f1_background is"):
        torch_evaluation.check_agreement(ours | {"f1_background": ours["f1_background"] + 1}, theirs)


def test_the_dice_by_hand():
    mask = torch.tensor([[[[0.9, 0.2], [0.6, 0.1]]]])
    true = torch.tensor([[True, True], [False, False]])
    found = torch_evaluation._compare(mask, true, 0.5)
    assert found["f1_foreground"] == pytest.approx(50) and found["f1_background"] == pytest.approx(50)
    assert found["all_ones_f1_foreground"] == pytest.approx(200 / 3) and found["all_ones_f1_background"] == 0
