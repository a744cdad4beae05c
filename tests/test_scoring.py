"""One pass over a split gives what separate passes give, and programs compute what is asked for and no more."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minmax_jax import evaluation
from minmax_jax.data import dataset, pipeline
from minmax_jax.evaluation import baselines, diagnosis, evaluators, image_predictions
from minmax_jax.evaluation.metrics import boxes
from minmax_jax.method import masks_alone
from minmax_jax.ops import resize
from minmax_jax.refinement import calibration
from minmax_jax.runs import final_test, scoring, second_stage
from minmax_jax.runs.building import creation
from minmax_jax.runs.building import run as run_lib
from minmax_jax.training import state as state_lib
from tests import programs, splits

_SIZES = ((32, 32),) * 3 + ((32, 64),) * 4 + ((40, 32),)


@pytest.fixture(scope="module")
def run_and_decoder():
    """An untrained run with flips and a second stage, and the random parameters of its decoder."""
    found = run_lib.build_run(programs.config(evaluation__flips=True))
    decoder = creation.create_decoder(found.options.model.trunk)
    variables = state_lib.inference_variables(found.state)
    images = np.zeros((1, 32, 32, 3), np.uint8)
    of_trunk = jax.jit(found.method.stages)(variables, images)
    parameters = decoder.init(jax.random.key(1), of_trunk, images.astype(np.float32))["params"]
    return second_stage.refine(found, second_stage.SecondStage(parameters, 1.0)), parameters


@pytest.fixture(scope="module")
def run(run_and_decoder):
    """The run."""
    return run_and_decoder[0]


def _split():
    split = splits.make_split(_SIZES, num_classes=4)
    reads = collections.Counter()

    def read_image(index):
        reads[int(index)] += 1
        return split.read_image(int(index))

    return dataclasses.replace(split, read_image=read_image), reads


def _assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, dict):
            _assert_same(found[name], value)
        elif name != "flags" and not isinstance(value, (str, type(None))):
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
        else:
            assert found[name] == value, name


def test_one_pass_gives_the_rows_of_separate_passes(run_and_decoder):
    """Of the decoder's masks, of the first stage's, and of the swap test; each image is read and predicted once."""
    (run, parameters), (split, reads) = run_and_decoder, _split()
    variables = state_lib.inference_variables(run.state)
    seen = []

    def predict_stages(variables, images):
        seen.append(len(images))
        return run.predict_stages(variables, images)

    counted = dataclasses.replace(run, predict_stages=predict_stages, predict=None)
    rows, first_rows, swaps = scoring.score(counted, split, run.state, with_first_stage=True)
    assert reads == dict.fromkeys(range(len(_SIZES)), 1) and seen == [4, 4, 4]

    refined = creation.create_refined_predict(run.options, run.method)
    apart = jax.jit(lambda images: refined({"decoder": parameters} | variables, images))
    first = jax.jit(lambda images: run.method.predict(variables, images))
    calibrate = calibration.CALIBRATIONS[run.options.refine.calibration]
    options = {"batch_size": 4, "refine_fn": lambda mask, image: calibrate(mask)}
    expected = evaluation.evaluate(apart, split, run.test_evaluators, baselines=baselines.BASELINES, **options)
    for row, other in zip(rows, expected, strict=True):
        _assert_same(row, other)
    for row, other in zip(first_rows, evaluation.evaluate(first, split, run.evaluators, batch_size=4), strict=True):
        _assert_same(row, other)
    assert rows[0]["histogram"].sum() == 32 * 32 and rows[0]["mask_spread"] > 0 and "mask_spread" not in first_rows[0]

    def classify(images, masks):
        read = jnp.concatenate([images / np.float32(127.5) - 1, masks.astype(np.float32)], axis=-1)
        return run.method.classify(variables, read)

    for row, other in zip(swaps, diagnosis.score(apart, jax.jit(classify), split, **options), strict=True):
        _assert_same(row, other)


def test_a_run_without_a_second_stage_has_no_rows_of_a_first(run):
    plain = run_lib.build_run(programs.config())
    rows, first_rows, swaps = scoring.score(plain, _split()[0], plain.state, with_first_stage=False)
    assert len(rows) == len(swaps) == len(_SIZES) and first_rows == []


def test_masks_alone_leave_out_the_classifier(run):
    """Same masks; of 2 views, the operations of a localizer and no others."""
    variables = state_lib.inference_variables(run.state)
    images = splits.make_split(((32, 32),)).read_image(0)[None]
    whole, alone = run.method.predict, masks_alone(run.method.predict)
    np.testing.assert_array_equal(jax.jit(whole)(variables, images).masks, jax.jit(alone)(variables, images))
    assert _flops(alone, variables, images) < 0.6 * _flops(whole, variables, images)


def test_masks_alone_keep_the_classifier_that_decides_on_them():
    """With a class without a region, the classifier says where the mask is empty."""
    config = programs.config(data__background_classes=("dots",))
    found = run_lib.build_run(config)
    variables = state_lib.inference_variables(found.state)
    images = splits.make_split(((32, 32),)).read_image(0)[None]
    whole, alone = found.method.predict, masks_alone(found.method.predict)
    np.testing.assert_array_equal(jax.jit(whole)(variables, images).masks, jax.jit(alone)(variables, images))
    assert _flops(alone, variables, images) > 0.6 * _flops(whole, variables, images)


def _flops(function, variables, images):
    return jax.jit(function).lower(variables, images).compile().cost_analysis()["flops"]


def test_validations_see_each_image_once_and_tests_average():
    plain, averaged = (run_lib.build_run(programs.config(evaluation__flips=flips)) for flips in (False, True))
    split = plain.splits["validation"]
    rows, _ = final_test.evaluate_split(averaged, split, plain.state)
    assert rows == final_test.evaluate_split(plain, split, plain.state)[0] and "view_disagreement" not in rows[0]
    assert plain.predict_once is plain.predict
    tested, _, _ = scoring.score(averaged, split, plain.state, with_first_stage=False)
    assert tested[0]["view_disagreement"] > 0 and tested[0]["probabilities"] != rows[0]["probabilities"]


# What metrics share.


@pytest.mark.parametrize("size", [(9, 31), (5, 7), (20, 4), (12, 12), (1, 1)])
def test_masks_are_resized_as_by_products_of_matrices(size):
    mask = np.random.default_rng(0).random((12, 9)).astype(np.float32)
    rows, columns = (
        resize.interpolation_matrix(*sides, alignment="patches") for sides in zip(mask.shape, size, strict=True)
    )
    np.testing.assert_allclose(resize.resize_mask(mask, size), rows @ mask @ columns.T, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(resize.resize_mask(np.ones((12, 9)), size), 1)


def test_a_mask_is_resized_once_for_all_metrics_and_anew_for_a_baseline(monkeypatch):
    calls, resize_mask = [], image_predictions.resize_mask

    def counted(mask, size):
        calls.append(size)
        return resize_mask(mask, size)

    monkeypatch.setattr(image_predictions, "resize_mask", counted)
    plain = run_lib.build_run(programs.config())
    truth = evaluation.Truth(label=0, mask=np.eye(24, dtype=bool), boxes=np.zeros((0, 4)))
    prediction = evaluation.ImagePrediction(0, np.array([0.5, 0.5]), np.eye(16, dtype=np.float32), scores={})
    for evaluator in plain.test_evaluators[1:8]:
        evaluator.score(prediction, truth)
    assert sorted(calls) == [(24, 24), (boxes.SIDE, boxes.SIDE)]
    other = dataclasses.replace(prediction, mask=np.zeros((16, 16), np.float32))
    assert other.mask_at((24, 24)).max() == 0 and prediction.mask_at((24, 24)).max() == 1


def test_metrics_share_a_function_of_the_same_weights():
    calls = []

    def total(weights):
        calls.append(weights)
        return weights.sum(axis=1)

    function, first, second = evaluators.shared(total), np.ones((1, 3)), 2 * np.ones((1, 3))
    assert [function(weights).item() for weights in (first, first, second, first)] == [3, 3, 6, 3]
    assert [weights is first for weights in calls] == [True, False, True]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_first_image_of_a_batch_of_its_own_reads_the_mask_of_one_that_follows(batch_size):
    """Batches of (32, 32) and of (32, 64): the first holds one image."""
    seen = []

    def classify(images, masks):
        seen.append((images[0, 0, 0, 0], masks[0, 0, 0, 0]))
        return np.full((len(images), 2), 0.5)

    swap = diagnosis.SwapTest(classify, batch_size=batch_size)
    for number, width in enumerate((32, 64, 64)):
        batch = pipeline.EvaluationBatch(np.full((1, 32, width, 3), number, np.uint8), indices=np.array([number]))
        swap.add(batch, 0, np.full((32, width, 1), number / 4), label=0)
    assert len(swap.finish()) == 3
    others = seen[1 :: len(diagnosis.KINDS)]
    assert others == ([(0, 0.25), (1, 0), (2, 0.25)] if batch_size == 1 else [(0, 0.5), (1, 0)])


def test_the_swap_test_takes_images_with_a_region_evenly_spaced():
    split = dataclasses.replace(
        splits.make_split(((32, 32),) * 6, num_classes=3), class_names=("a", "b", "none"), background_classes=("none",)
    )
    assert scoring._choose_swapped(split) == {0, 1, 3, 4}
    many = dataset.subset(split, np.arange(1200) % 6)
    chosen = scoring._choose_swapped(many)
    assert len(chosen) == 256 and {0, 1198} <= chosen and not any(index % 3 == 2 for index in chosen)
