"""Classes without a region: their terms in training, their empty masks, and what counts them, by hand."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import minmax_jax as mm
from minmax_jax import losses, masks
from minmax_jax.base.errors import OptionError
from minmax_jax.baselines import localizer_alone
from minmax_jax.data import dataset
from minmax_jax.distributed import devices as devices_lib
from minmax_jax.distributed import engines
from minmax_jax.evaluation import ImagePrediction, Truth, evaluators, metric_table, trust
from minmax_jax.evaluation.baselines import BASELINES
from minmax_jax.evaluation.metrics import boxes, dice, false_foreground, overlap, pixel_curve
from minmax_jax.evaluation.metrics import scores as scores_lib
from minmax_jax.method import Prediction
from minmax_jax.minmax import inference
from minmax_jax.minmax import method as minmax
from minmax_jax.minmax import objective as objective_lib
from minmax_jax.refinement import cache
from minmax_jax.refinement.options import RefineOptions
from minmax_jax.training import batch_stats as stats_lib
from tests import networks, splits

NORMAL = 1  # of three classes


def _cross_entropy(logits, labels):
    logits = np.asarray(logits, np.float64)
    return np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(labels)), labels]


def _softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


# Declarations.


def test_names_are_checked_and_kept_in_the_order_of_the_classes():
    assert dataset.check_background(("normal", "empty"), ("cat", "empty", "normal")) == ("empty", "normal")
    with pytest.raises(OptionError, match="background_classes=norml: 'norml' is no class. The classes are cat, normal"):
        dataset.check_background(("norml",), ("cat", "normal"))
    with pytest.raises(OptionError, match="background_classes=b,a are all classes"):
        dataset.check_background(("b", "a"), ("a", "b"))


def test_a_split_knows_them_through_its_changes():
    split = dataclasses.replace(splits.make_split([(32, 32)] * 6, num_classes=3), background_classes=("b",))
    assert split.background_labels == (1,)
    assert split.has_region.tolist() == [True, False, True, True, False, True]
    assert dataset.subset(split, [1, 2]).has_region.tolist() == [False, True]
    assert dataset.only_classes(split, ("c", "b")).background_labels == (1,)
    assert dataset.only_classes(split, ("a", "c")).background_classes == ()
    assert dataset.concatenate(split, split).background_labels == (1,)


# Masks.


def test_the_map_of_a_class_without_a_region_is_no_part_of_a_mask():
    rng = np.random.default_rng(0)
    logits, maps = rng.normal(size=(2, 3)), rng.normal(size=(2, 8, 8, 3))
    found = masks.foreground_masks(jnp.array(logits), jnp.array(maps), (8, 8), background_classes=(NORMAL,))
    weights = _softmax(logits[:, [0, 2]])
    x = np.einsum("bc,bhwc->bhw", weights, maps[..., [0, 2]])
    low, high = x.min((1, 2), keepdims=True), x.max((1, 2), keepdims=True)
    expected = 1 / (1 + np.exp(-8 * ((x - low) / (high - low) - 0.5)))
    np.testing.assert_allclose(found[..., 0], expected, atol=1e-4)


def test_with_one_class_with_a_region_the_mask_is_of_its_map():
    maps = np.random.default_rng(0).normal(size=(1, 8, 8, 2))
    expected = masks.foreground_masks(jnp.zeros((1, 1)), jnp.array(maps[..., 1:]), (8, 8))
    found = masks.foreground_masks(jnp.array([[9.0, -9.0]]), jnp.array(maps), (8, 8), background_classes=(0,))
    np.testing.assert_allclose(found, expected, atol=1e-6)


# Training.


def test_terms_of_an_image_without_a_region_are_zero():
    rng, labels = np.random.default_rng(0), np.array([0, NORMAL, 2, NORMAL])
    foreground, background, whole = (jnp.array(rng.normal(size=(4, 3))) for _ in range(3))
    shown = jnp.array(rng.uniform(size=(4, 8, 8, 1)))
    options = dict(gradient="flow", background_weight=0.3, size_weight=0.5, area_weight=0.7, whole_weight=0.2)
    objective = networks.objective(**options, background_classes=(NORMAL,))
    arguments = dict(step=0, view_logits={"whole": whole})
    found = objective_lib.classifier_terms(foreground, background, shown, labels, objective=objective, **arguments)
    has_region = np.array([1, 0, 1, 0])
    of_background = -np.log(_softmax(np.array(background))).mean(-1) * has_region
    areas = np.array(shown).mean((1, 2, 3))
    soft = np.array(shown * (1 - shown)).mean((1, 2, 3))
    of_area = (abs(areas[[0, 2]].mean() - 0.25) + soft) * has_region  # the mean of the masks that count
    np.testing.assert_allclose(found.foreground, _cross_entropy(foreground, labels), rtol=1e-5)
    np.testing.assert_allclose(found.background, of_background, rtol=1e-5)
    np.testing.assert_allclose(found.further["area"], of_area, rtol=1e-5)
    np.testing.assert_allclose(found.further["whole"], _cross_entropy(whole, labels), rtol=1e-5)
    assert found.size[1] == found.size[3] == 0 and found.size[0] != 0
    terms = found.foreground + 0.3 * of_background + 0.5 * found.size + 0.7 * of_area + 0.2 * found.further["whole"]
    np.testing.assert_allclose(found.total, terms, rtol=1e-5)


def test_the_area_of_a_batch_without_a_region_has_no_loss_and_no_gradient():
    def loss(shown):
        return jnp.sum(losses.area_loss(shown, 0.25, has_region=jnp.zeros(2, bool)))

    value, gradient = jax.value_and_grad(loss)(jnp.full((2, 4, 4, 1), 0.7))
    assert value == 0 and not gradient.any()


def _run(model, state, params, method, *inputs):
    variables = {"params": params, "batch_stats": state.batch_stats[stats_lib.WHOLE]}
    return model.apply(variables, *inputs, train=True, method=method, mutable="batch_stats")[0]


@pytest.mark.parametrize("num_erasures", [0, 3])
def test_a_batch_of_one_such_class_trains_both_networks_on_whole_images(batch, num_erasures):
    """One pass of the localizer, the classifier with a mask of ones, and the gradient of these two alone."""
    batch = batch | {"labels": jnp.full(8, NORMAL)}
    objective = networks.objective(
        num_erasures=num_erasures, background_weight=0.3, background_classes=(NORMAL,), loss_weight="one"
    )
    model = networks.tiny_model()
    state, step = networks.start(model, objective, tx=optax.sgd(1.0))
    after, metrics = jax.jit(step)(state, batch)
    images = batch["images"] / 127.5 - 1.0

    def loss(params):
        logits, _ = _run(model, state, params, "localize", images)
        seen = _run(model, state, params, "classify", images, jnp.ones((8, 32, 32, 1)))
        return jnp.mean(
            optax.softmax_cross_entropy_with_integer_labels(
                jnp.stack([logits, seen]), NORMAL * jnp.ones((2, 8), int)
            ).sum(0)
        )

    value, gradients = jax.value_and_grad(loss)(state.params)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    found = jax.tree.map(lambda before, later: before - later, state.params, after.params)
    chex.assert_trees_all_close(found, gradients, rtol=1e-3, atol=1e-5)
    assert metrics["num_passes"] == 1
    for name in ("background_loss", "background_entropy", "foreground_share", "size_loss"):
        assert metrics[name] == 0, name  # of no image


def test_what_tells_of_regions_is_the_mean_over_images_that_have_one(batch):
    objective = networks.objective(background_classes=(NORMAL,), background_weight=0.3)
    model = networks.tiny_model()
    state, step = networks.start(model, objective)
    _, metrics = jax.jit(step)(state, batch)
    images, labels = batch["images"] / 127.5 - 1.0, np.array(batch["labels"])
    has_region = labels != NORMAL
    logits, maps = _run(model, state, state.params, "localize", images)
    found = masks.foreground_masks(logits, maps, (32, 32), background_classes=(NORMAL,))
    shown = np.where(has_region[:, None, None, None], found, 1)
    foreground = _run(model, state, state.params, "classify", images, shown)
    background = _run(model, state, state.params, "classify", images, 1 - found)
    of_background = -np.log(_softmax(np.array(background))).mean(-1)
    per_image = _cross_entropy(logits, labels) + _cross_entropy(foreground, labels) + 0.3 * of_background * has_region
    np.testing.assert_allclose(metrics["loss"], per_image.mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["background_loss"], of_background[has_region].mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["foreground_share"], np.array(found)[has_region].mean(), rtol=1e-4)
    error = 100 * (np.array(foreground).argmax(-1) != labels).mean()
    np.testing.assert_allclose(metrics["classification_error"], error, rtol=1e-6)


def test_nothing_is_erased_from_such_an_image():
    """A localizer that is right and sure of every image: only the other image is erased, and loses again."""
    seen = []

    def localizer_pass(params, images, batch_stats, num_passes):
        seen.append(np.array(images))
        logits = params * jnp.array([[4.0, 0, 0], [0, 4.0, 0]])
        return mm.erasing.LocalizerPass(logits, jnp.full((2, 2, 2, 1), 0.5), batch_stats)

    state = mm.erasing.start(jnp.ones((2, 2, 2, 3)), None)
    has_region, losses_of_passes = jnp.array([True, False]), []
    for _ in range(3):
        loss, state = mm.erasing.one_pass(
            localizer_pass, jnp.array([0, 1]), 3, 10.0, "one", None, 1.0, state, has_region=has_region
        )
        losses_of_passes.append(float(loss))
    once = float(_cross_entropy([[4.0, 0, 0]], [0])[0])
    np.testing.assert_allclose(losses_of_passes, [once, once / 2, once / 2], rtol=1e-5)
    np.testing.assert_allclose(state.losses, [3 * once, once], rtol=1e-5)
    assert all((images[1] == 1).all() for images in seen) and seen[1][0].max() < 0.6
    assert bool(state.first_correct[1])


_CASES = [
    pytest.param({"num_erasures": 2, "loss_weight": "trust"}, marks=pytest.mark.slow),
    {"num_erasures": 2, "gradient": "flow", "area_weight": 0.5, "size_weight": 0.2, "whole_weight": 0.1},
]


@pytest.mark.parametrize("case", _CASES)
def test_four_devices_do_what_one_does(case):
    """Two of the four devices see no image with a region."""
    objective = networks.objective(**case, background_weight=0.3, background_classes=(NORMAL,))
    labels = np.array([0, 2, NORMAL, NORMAL, NORMAL, 2, NORMAL, NORMAL])
    with jax.enable_x64(True):
        batch = {"images": np.random.default_rng(0).uniform(-1, 1, (8, 32, 32, 3)), "labels": labels}
        found = []
        for axis in (None, devices_lib.AXIS):
            model, tx = networks.tiny_model(norm_axis=axis, dtype=jnp.float64), optax.sgd(0.05)
            start = mm.create_train_state(
                jax.random.key(0), model=networks.tiny_model(dtype=jnp.float64), tx=tx, image_size=(32, 32)
            )
            variables = jax.tree.map(jnp.float64, start.variables)
            state = start.replace(**variables, opt_state=tx.init(variables["params"]))
            step = functools.partial(mm.train_step, model=model, tx=tx, objective=objective)
            if axis is None:
                step = jax.jit(step)
            else:
                state, step = devices_lib.replicate(state), engines.ENGINES["pmap"].parallelize_train_step(step)
            for _ in range(2):
                state, metrics = step(state, batch)
            found.append(jax.tree.map(np.asarray, (metrics, state.params)))
    chex.assert_trees_all_close(found[1][0], found[0][0], rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(found[1][1], found[0][1], rtol=1e-9, atol=1e-9)


# Inference.


class _Fixed:
    """Networks whose scores and maps are given; the classifier's depend on whether it sees the whole image."""

    def __init__(self, localizer, through_mask, through_ones):
        self.scores = {"localize": localizer, "masked": through_mask, "whole": through_ones}
        self.maps = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)

    def apply(self, variables, images, *inputs, method):
        if method == "localize":
            return self._scores("localize", images), jnp.repeat(jnp.array(self.maps), len(images), 0)
        is_whole = jnp.all(inputs[0] == 1, axis=(1, 2, 3))[:, None]
        return jnp.where(is_whole, self._scores("whole", images), self._scores("masked", images))

    def _scores(self, name, images):
        return jnp.repeat(jnp.array([self.scores[name]]), len(images), 0)

    def mask(self, weights):
        x = self.maps[0] @ np.array(weights, np.float32)
        return 1 / (1 + np.exp(-8 * ((x - x.min()) / (x.max() - x.min()) - 0.5)))


_STATS = {name: {} for name in (stats_lib.WHOLE, stats_lib.FOREGROUND, stats_lib.BACKGROUND)}
_OBJECT, _NORMAL, _OTHER = (3.0, 0.0, 0.0), (0.0, 3.0, 0.0), (0.0, 0.0, 3.0)


def _localize(*scores, **options):
    model = _Fixed(*scores)
    objective = mm.Objective(background_classes=(NORMAL,))
    found = mm.localize({}, _STATS, jnp.zeros((2, 8, 8, 3)), model=model, objective=objective, **options)
    return model, found


def test_where_both_networks_name_such_a_class_the_mask_is_empty():
    _, found = _localize(_NORMAL, _OBJECT, _NORMAL)  # through a mask, the classifier would say otherwise
    assert found.classes.tolist() == found.localizer_classes.tolist() == [NORMAL, NORMAL]
    assert found.masks.shape == (2, 8, 8, 1) and not found.masks.any()


def test_where_the_localizer_alone_names_one_the_mask_is_that_of_the_delivered_class():
    model, found = _localize(_NORMAL, _OBJECT, _OTHER)
    assert found.classes.tolist() == [2, 2] and found.localizer_classes.tolist() == [NORMAL, NORMAL]
    p = _softmax(np.array([0.0, 3.0]))  # the classifier's, of the two classes with a region
    np.testing.assert_allclose(found.masks[0, ..., 0], model.mask([p[0], 0, p[1]]), atol=1e-5)


def test_where_the_classifier_alone_names_one_the_mask_is_empty():
    _, found = _localize(_OBJECT, _NORMAL, _OBJECT)
    assert found.classes.tolist() == [NORMAL, NORMAL] and not found.masks.any()


def test_with_several_views_the_mean_decides(batch):
    """By the mean probabilities: not where a view alone names a class without a region."""
    model = networks.tiny_model()
    state, _ = networks.start(model, networks.objective())
    options = dict(model=model, flip_horizontal=True, scales=(1.0, 2.0))
    plain = mm.localize(state.params, state.batch_stats, batch["images"], **options)
    assert plain.masks.min() > 0
    background = int(np.bincount(plain.classes).argmax())
    objective = mm.Objective(background_classes=(background,))
    found = mm.localize(state.params, state.batch_stats, batch["images"], **options, objective=objective)
    is_empty = np.array(found.masks).max((1, 2, 3)) == 0
    np.testing.assert_array_equal(is_empty, np.array(found.probabilities).argmax(-1) == background)


def test_a_localizer_alone_has_an_empty_mask_for_its_own_class(batch):
    model = networks.tiny_model()
    state, _ = networks.start(model, networks.objective())
    variables = {"params": state.params, "batch_stats": state.batch_stats, "step": state.step}
    plain = localizer_alone.predict(variables, batch["images"], model=model, objective=networks.objective())
    background = int(np.array(plain.probabilities)[0].argmax())
    objective = networks.objective(background_classes=(background,))
    found = localizer_alone.predict(variables, batch["images"], model=model, objective=objective)
    is_empty = np.array(found.masks).max((1, 2, 3)) == 0
    np.testing.assert_array_equal(is_empty, np.array(found.probabilities).argmax(-1) == background)
    assert is_empty[0]


def test_without_such_classes_nothing_is_computed_for_them(batch):
    """The programs of training and inference have not one operation more."""
    model = networks.tiny_model()
    state, step = networks.start(model, networks.objective(num_erasures=2))
    variables = {"params": state.params, "batch_stats": state.batch_stats, "step": state.step}
    predict = functools.partial(inference.predict, model=model)

    def operations(function, *arguments):
        return str(jax.make_jaxpr(function)(*arguments)).count("\n")

    counts = [
        (
            operations(functools.partial(step, objective=objective), state, batch),
            operations(functools.partial(predict, objective=objective), variables, batch["images"]),
        )
        for objective in (
            networks.objective(num_erasures=2),
            networks.objective(num_erasures=2, background_classes=(NORMAL,)),
        )
    ]
    assert counts[0][0] < counts[1][0] and counts[0][1] < counts[1][1]
    assert "region_share" not in jax.eval_shape(step, state, batch)[1]


# What counts such images.


def _predict(values, probabilities=(0.8, 0.2), **scores):
    return ImagePrediction(0, np.array(probabilities), np.array(values, np.float32), scores)


def test_their_false_foreground_is_the_share_of_their_pixels():
    evaluator = false_foreground.evaluator(threshold=0.5)
    truths = [
        Truth(1, None, np.zeros((0, 4)), has_region=False),
        Truth(1, None, np.zeros((0, 4)), has_region=False, ignored=np.array([[True, False], [False, False]])),
        Truth(0, np.ones((2, 2), bool), np.zeros((0, 4))),
    ]
    values = [[[0.5, 0.4], [0.9, 0.1]], [[0.9, 0.9], [0.1, 0.1]], [[0.9, 0.9], [0.9, 0.9]]]
    rows = [evaluator.score(_predict(of_image), truth) for of_image, truth in zip(values, truths)]
    shares = [row["false_foreground_share"] for row in rows]
    assert shares == [pytest.approx(0.5), pytest.approx(1 / 3), None]
    expected = {"num_images_without_region": 2, "false_foreground_share": pytest.approx(100 * (1 / 2 + 1 / 3) / 2)}
    assert evaluator.summarize(rows) == expected
    assert evaluator.summarize(rows[2:]) == {} and evaluator.metrics(rows[2:]) == {}
    (metric,) = evaluator.metrics(rows).values()
    assert (metric.unit, metric.threshold) == ("%", "fixed")
    np.testing.assert_allclose(metric.values(np.array([[0, 2, 5], [0, 0, 1]])), [100 / 3, np.nan])
    with pytest.raises(OptionError, match="threshold=1"):
        false_foreground.evaluator(threshold=1.0)


def _split_with_normal():
    """Two classes, of which b has no region; masks that mark the left half are in all files, and must not count."""
    split = splits.make_split([(32, 32)] * 4)
    return dataclasses.replace(split, background_classes=("b",))


_MASK_EVALUATORS = (
    dice.evaluator(),
    overlap.evaluator(),
    pixel_curve.EVALUATOR,
    boxes.evaluator(),
    false_foreground.evaluator(),
)


def test_they_count_in_no_other_metric_of_masks():
    split, right = _split_with_normal(), np.broadcast_to(np.arange(32) >= 16, (32, 32))
    found = [split.read_mask(0), np.zeros((32, 32)), np.zeros((32, 32)), right]  # right, right, nothing, wrong
    predictions = [dataclasses.replace(_predict(values), index=index) for index, values in enumerate(found)]
    rows = evaluators.score(predictions, split, _MASK_EVALUATORS, baselines=BASELINES)
    summary = evaluators.summarize(rows, _MASK_EVALUATORS)
    assert (summary["num_images"], summary["num_images_with_mask"]) == (4, 2)
    assert summary["num_images_without_region"] == 2
    assert summary["f1_foreground"] == 50  # of an object that is called normal, 0
    assert summary["false_foreground_share"] == 25
    table = metric_table.describe(rows, split, _MASK_EVALUATORS)
    assert table["f1_foreground"]["value"] == 50 and table["iou_foreground"]["value"] == 50
    assert table["gt_known_localization"]["value"] == 50
    assert table["micro_f1_foreground"]["value"] == pytest.approx(100 * 2 / 3)
    false = table["false_foreground_share"]
    assert false["value"] == 25 and false["low"] == 0 and false["high"] == 50
    assert false["baselines"] == {"all_ones": 100, "center_box": pytest.approx(50, abs=4)}
    assert rows[1]["histogram"] is None and rows[3]["pixels"] is None and rows[3]["box_iou"] is None


def test_masks_of_such_images_alone_are_no_masks_to_compare_with():
    split = dataclasses.replace(
        _split_with_normal(), read_mask=lambda index: np.ones((2, 2), bool) if index % 2 else None
    )
    assert not dataset.any_mask(split) and dataset.any_mask(dataclasses.replace(split, background_classes=()))


def test_the_background_entropy_of_such_a_prediction_does_not_count():
    evaluator = scores_lib.evaluator(minmax.SCORES, background_classes=(1,))
    rows = []
    for probabilities, value in (((0.8, 0.2), 0.6), ((0.1, 0.9), 0.1), ((0.7, 0.3), 0.4)):
        prediction = _predict([[0.0]], probabilities, foreground_entropy=0.2, background_entropy=value)
        rows.append({"probabilities": list(probabilities)} | prediction.scores)
        rows[-1] |= evaluator.score(prediction, Truth(0, None, np.zeros((0, 4))))
    assert [row["background_entropy"] for row in rows] == [0.6, None, 0.4]
    assert evaluator.summarize(rows) == {"foreground_entropy": pytest.approx(0.2), "background_entropy": 0.5}
    metrics = {name: metric.values(np.ones((1, 3)))[0] for name, metric in evaluator.metrics(rows).items()}
    assert metrics["background_entropy"] == pytest.approx(0.5)
    assert metrics["background_entropy_share"] == pytest.approx(100 * 0.5 / np.log(2))
    assert np.isnan(evaluator.summarize(rows[1:2])["background_entropy"])


def test_a_right_empty_mask_has_no_flag():
    empty = _predict(np.zeros((32, 32)), (0.1, 0.9), foreground_entropy=0.1, background_entropy=0.0)
    empty.scores["localizer_class"], empty.scores["view_disagreement"], empty.scores["mask_spread"] = 1, 0.3, 0.0
    find = functools.partial(trust.find_flags, threshold=0.5, scores=minmax.SCORES)
    assert find(empty, background_classes=(1,)) == []
    assert len(find(empty)) == 3
    empty.scores["localizer_class"], empty.scores["foreground_entropy"] = 0, 0.6
    found = find(empty, background_classes=(1,))
    assert found == [
        "the image does not identify the class (foreground entropy is high)",
        "localizer and classifier name different classes",
    ]


# The second stage.


def test_seeds_come_from_images_with_a_region_and_a_mask():
    split = dataclasses.replace(splits.make_split([(32, 32)] * 5 + [(32, 64)]), background_classes=("b",))
    seen = []

    def masks_fn(images):
        seen.extend(images[:, 0, 0, 0].tolist())
        found = np.zeros((*images.shape[:3], 1), np.float32)
        found[:, :, :8] = (images[:, :1, :1, :1] != split.read_image(2)[0, 0, 0]) * 0.9  # none of the third
        return found

    def stages_fn(images):
        return {4: np.zeros((len(images), images.shape[1] // 4, images.shape[2] // 4, 2), np.float32)}

    (group,) = cache.collect(masks_fn, stages_fn, split, options=RefineOptions(), batch_size=2, seed=0)
    assert set(seen) == {split.read_image(index)[0, 0, 0] for index in (0, 2, 4)}
    np.testing.assert_array_equal(group.images, [split.read_image(0), split.read_image(4)])
    assert len(group.foreground) == len(group.stages[4]) == 2
    with pytest.raises(OptionError, match="finds a region in no training image"):
        cache.collect(
            lambda images: np.zeros((*images.shape[:3], 1), np.float32),
            stages_fn,
            split,
            options=RefineOptions(),
            batch_size=2,
            seed=0,
        )


def test_an_objective_names_classes_by_their_numbers():
    with pytest.raises(OptionError, match="background_classes"):
        mm.Objective(background_classes=("normal",))
    assert mm.Objective().has_region(jnp.arange(3)) is None
    assert mm.Objective(background_classes=(0, 2)).has_region(jnp.arange(3)).tolist() == [False, True, False]


def test_predictions_of_a_method_are_those_of_localize(batch):
    model = networks.tiny_model()
    state, _ = networks.start(model, networks.objective())
    variables = {"params": state.params, "batch_stats": state.batch_stats, "step": state.step}
    objective = networks.objective(background_classes=(NORMAL,))
    found = inference.predict(variables, batch["images"], model=model, objective=objective)
    expected = mm.localize(state.params, state.batch_stats, batch["images"], model=model, objective=objective)
    assert isinstance(found, Prediction)
    chex.assert_trees_all_equal((found.probabilities, found.masks), (expected.probabilities, expected.masks))
