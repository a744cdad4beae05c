"""Masks of models with randomized weights, and the program that tests the masks of a run."""

import json
import shutil

import numpy as np
import pytest

from minmax_jax.base.errors import OptionError
from minmax_jax.evaluation import faithfulness, randomization
from minmax_jax.report import page
from minmax_jax.runs import faithfulness_test, finished_runs


def test_chosen_arrays_keep_their_numbers_in_another_order():
    variables = {"params": {"head": {"kernel": np.arange(12.0).reshape(3, 4)}, "trunk": np.arange(5)}, "step": 7}
    changed = randomization.randomize(variables, lambda path: path == "params/head/kernel")
    kernel = changed["params"]["head"]["kernel"]
    assert kernel.shape == (3, 4) and not np.array_equal(kernel, variables["params"]["head"]["kernel"])
    np.testing.assert_array_equal(np.sort(kernel.ravel()), np.arange(12))
    assert changed["params"]["trunk"] is variables["params"]["trunk"] and changed["step"] == 7
    assert not np.array_equal(kernel, randomization.randomize(variables, lambda _: True, seed=1)["params"]["head"])


def test_rank_correlation_by_hand():
    mask = np.array([[0.1, 0.2], [0.3, 0.4]])
    assert randomization.rank_correlation(mask, mask**3) == pytest.approx(1)  # the order counts alone
    assert randomization.rank_correlation(mask, -mask) == pytest.approx(-1)
    # Ranks 1 2 3 4 and 1 2 4 3: 1 - 6 sum d^2 / (n (n^2 - 1)) = 1 - 12 / 60.
    swapped = np.array([[0.1, 0.2], [0.4, 0.3]])
    assert randomization.rank_correlation(mask, swapped) == pytest.approx(0.8)
    assert randomization.rank_correlation(mask, np.ones((2, 2))) == 0
    found = randomization.summarize([mask, mask], [mask, swapped])
    assert found == {"rank_correlation": pytest.approx(0.9), "standard_error": pytest.approx(0.1)}
    assert randomization.summarize([mask], [swapped])["standard_error"] is None
    with pytest.raises(ValueError, match="longer|shorter"):
        randomization.summarize([mask], [])


@pytest.fixture(scope="module")
def finished(tiny_run, tmp_path_factory):
    """A copy of the folder of a run that has just ended."""
    return shutil.copytree(tiny_run[0], tmp_path_factory.mktemp("faithfulness") / "run")


def test_the_masks_of_a_run_are_tested(finished):
    content = faithfulness_test.test_workdir(finished, "test", num_images=3, num_steps=4)
    assert json.loads((finished / "faithfulness.json").read_text()) == json.loads(json.dumps(content))
    assert content["num_images"] == 3 and set(content["randomized"]) == {"head", "all"}  # it has no decoder
    assert all(abs(found["rank_correlation"]) < 0.999 for found in content["randomized"].values())
    assert {"insertion_mean", "deletion_blur", "average_drop", "increase", "pointing"} < set(content["faithfulness"])
    # The numbers are those of the run's own masks and probabilities.
    model = finished_runs.open_model(finished, finished_runs.read_config(finished), "test")
    split, variables = model.run.splits["test"], model.state.average | {"step": model.state.step}
    image = split.read_image(0)
    answer = model.run.predict(variables, np.stack([image] * 4))
    np.testing.assert_allclose(
        faithfulness_test._probabilities(model.run, variables, np.stack([image] * 5), 4),
        np.repeat(np.asarray(answer.probabilities)[:1], 5, axis=0),
        rtol=1e-5,
    )
    page.write([finished])
    text = (finished / page.NAME).read_text()
    assert f"{content['faithfulness']['insertion_mean']['mask']:.3f}" in text
    assert f"all {content['randomized']['all']['rank_correlation']:.2f}" in text


@pytest.mark.parametrize("options", [{"num_images": 0}, {"num_steps": 0}])
def test_numbers_out_of_range_are_refused(finished, options):
    with pytest.raises(OptionError, match=f"{next(iter(options))}=0"):
        faithfulness_test.test_workdir(finished, "test", **options)


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(OptionError, match="size of the image"):
        faithfulness.score(lambda images: images, np.zeros((4, 5, 3), np.uint8), np.zeros((4, 4)))
