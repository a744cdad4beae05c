import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minmax_jax import evaluation, masks
from minmax_jax.data import canvases, pipeline
from minmax_jax.evaluation import diagnosis
from minmax_jax.evaluation.metrics import dice
from minmax_jax.method import Prediction
from minmax_jax.minmax import inference
from minmax_jax.minmax import method as minmax_method
from minmax_jax.minmax.objective import Objective
from minmax_jax.models import decoder as decoder_lib
from minmax_jax.models import efficientnet_lite, heads, minmax_net, resnet
from minmax_jax.ops import canvas, resize
from minmax_jax.refinement import cache, decoder_training, edges, refined_inference
from minmax_jax.refinement.options import RefineOptions
from minmax_jax.runs import faithfulness_test, training
from minmax_jax.runs.building import data_splits
from minmax_jax.training import optimizers
from minmax_jax.training.views import Views
from tests import networks, programs, splits

_SIZES = [(96, 64), (64, 160), (128, 128), (32, 32)]
_SHAPE = (128, 192)


def _place(images, shape=_SHAPE, beyond=0):
    placed = np.full((len(images), *shape, *images[0].shape[2:]), beyond, images[0].dtype)
    for one, image in zip(placed, images):
        one[: image.shape[0], : image.shape[1]] = image
    return placed


def _draw(sizes=_SIZES, channels=3, dtype=np.uint8):
    rng = np.random.default_rng(0)
    if dtype == np.uint8:
        return [rng.integers(0, 256, (*size, channels), np.uint8) for size in sizes]
    return [rng.normal(size=(*size, channels)).astype(dtype) for size in sizes]


def _cut(maps, sizes=_SIZES):
    return [np.asarray(one)[:height, :width] for one, (height, width) in zip(maps, sizes)]


def test_what_is_beyond_an_image_is_cleared_repeated_and_not_counted():
    image = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    maps, sizes = _place([image], (3, 5), beyond=9), jnp.array([[2, 3]])
    assert canvas.inside(sizes, (3, 5))[0, :, :, 0].astype(int).tolist() == [[1, 1, 1, 0, 0]] * 2 + [[0] * 5]
    assert canvas.clear(maps, sizes)[0, :, :, 0].tolist() == [[0, 1, 2, 0, 0], [3, 4, 5, 0, 0], [0] * 5]
    assert canvas.extend(maps, sizes)[0, :, :, 0].tolist() == [[0, 1, 2, 2, 2], [3, 4, 5, 5, 5], [3, 4, 5, 5, 5]]
    assert [float(value[0, 0, 0, 0]) for value in canvas.extremes(maps, sizes)] == [0, 5]
    assert canvas.mean(maps, sizes).tolist() == [2.5]
    assert canvas.quantiles(maps, (0.0, 0.25, 0.5, 1.0), sizes).ravel().tolist() == [0, 1.25, 2.5, 5]
    flipped = canvas.flip(maps, (1, 2), sizes)
    assert flipped[0, :2, :3, 0].tolist() == [[5, 4, 3], [2, 1, 0]]
    np.testing.assert_array_equal(canvas.flip(flipped, (1, 2), sizes), maps)


def test_sides_are_rounded_as_python_rounds_them():
    def round_side(side):
        return round(1.1 * side / 32) * 32

    # 1.1 * 160 / 32 is 5.5 in double precision, and rounded to an even number; in single precision it is more.
    found = canvas.look_up(jnp.array([[160, 32]]), round_side, (160, 64))
    assert found.tolist() == [[round_side(160), round_side(32)]]
    assert canvas.look_up(None, round_side, (160, 64)) is None


@pytest.mark.parametrize("alignment", masks.ALIGNMENTS)
def test_each_image_is_resized_by_itself(alignment):
    maps, sizes, new_sizes = _draw([(6, 4), (3, 5)], 2, np.float32), [(6, 4), (3, 5)], [(12, 8), (6, 10)]
    arguments = (12, 10), jnp.array(sizes), jnp.array(new_sizes)
    found = canvas.resize_to(_place(maps, (6, 5), beyond=7), *arguments, alignment=alignment)
    for one, alone, size in zip(found, maps, new_sizes):
        expected = resize.resize_bilinear(alone[None], size, alignment=alignment)[0]
        np.testing.assert_allclose(one[: size[0], : size[1]], expected, atol=2e-6)
        assert not np.any(one[size[0] :]) and not np.any(one[:, size[1] :])


def test_canvases_are_those_that_need_the_least_additional_area():
    sizes = [(250, 320)] * 5 + [(256, 340), (340, 256), (352, 250), (100, 100), (512, 512)]
    found = canvases.choose(np.array(sizes), max_added_area=0)
    assert len(found) == 4 and canvases.choose(np.array(sizes[:7])) is None
    best = min(
        _area(np.array(shapes), np.array(sizes))
        for shapes in _partitions_of_four(np.unique(-(-np.array(sizes) // 32) * 32, axis=0))
    )
    assert _area(found, np.array(sizes)) == best
    of_images = canvases.assign(np.array([*sizes, (900, 10)]), found)
    assert (of_images >= np.array([*sizes, (900, 10)])).all()
    assert of_images[-1].tolist() == [928, 32]  # no canvas has room: its padded size


def test_there_are_fewer_canvases_where_that_costs_little():
    sizes = np.array([(256, width) for width in range(320, 512, 32)] + [(320, 256)] * 2)
    assert canvases.choose(sizes, max_added_area=0.0).shape == (4, 2)
    found = canvases.choose(sizes, max_added_area=0.25)
    # Landscapes need 256 * (320 + ... + 480) pixels; all on canvases of 480, 80 more each on average: a fifth.
    assert found.tolist() == [[320, 256], [256, 480]]


def test_thousands_of_shapes_are_joined_within_a_second():
    sizes = np.random.default_rng(0).integers(100, 4000, (3000, 2))
    found = canvases.choose(sizes)
    assert len(found) <= 4 and (canvases.assign(sizes, found) >= sizes).all()
    assert {tuple(shape) for shape in canvases.assign(sizes, found)} <= {tuple(shape) for shape in found}


def _area(shapes, sizes):
    return np.prod(canvases.assign(sizes, shapes[np.argsort(np.prod(shapes, axis=1))]), axis=1).sum()


def _partitions_of_four(shapes):
    """The canvases of each way to share shapes among four groups."""
    for code in range(4 ** len(shapes)):
        groups = np.array([code // 4**place % 4 for place in range(len(shapes))])
        yield [shapes[groups == group].max(axis=0) for group in range(4) if (groups == group).any()]


@pytest.mark.parametrize(
    "head",
    [
        functools.partial(heads.WildcatHead, k_max=0.3),
        functools.partial(heads.WildcatHead, k_max=0.3, k_min=3, alpha=0.6),
        heads.MeanHead,
        heads.MaxHead,
        heads.LogSumExpHead,
        heads.AttentionHead,
    ],
)
def test_heads_see_nothing_beyond_an_image(head):
    features = _draw([(3, 5), (6, 4)], 8, np.float32)
    head = head(num_classes=3)
    variables = head.init(jax.random.key(0), features[0][None])
    logits, maps = head.apply(variables, _place(features, (6, 6), beyond=50), None, jnp.array([(3, 5), (6, 4)]))
    for row, alone in enumerate(features):
        expected_logits, expected_maps = head.apply(variables, alone[None])
        np.testing.assert_allclose(logits[row], expected_logits[0], rtol=1e-5, atol=1e-6)
        inside = maps[row, : alone.shape[0], : alone.shape[1]]
        np.testing.assert_allclose(inside, expected_maps[0], rtol=1e-5, atol=1e-6)


_TRUNKS = {
    "basic": functools.partial(resnet.ResNet, stage_sizes=(1, 3), stage_strides=(1, 2), width=8),
    "bottleneck": functools.partial(
        resnet.ResNet, stage_sizes=(1, 1), stage_strides=(2, 2), width=4, block=resnet.BottleneckBlock, stem="plain"
    ),
    "lite": functools.partial(efficientnet_lite.EfficientNetLite, efficientnet_lite.LITE0[:4], output_stride=8),
}


_HEADS = ("localizer_head", "classifier_head")


@pytest.fixture(scope="module", params=_TRUNKS)
def method_and_variables(request):
    """A method with a decoder, with all that its masks can depend on."""
    model = minmax_net.create_model(
        _TRUNKS[request.param](),
        num_classes=3,
        classifier_scale=0.75,
        head=functools.partial(heads.WildcatHead, k_max=0.3),
    )
    alignment = "corners" if request.param == "bottleneck" else "features"
    options = masks.MaskOptions(range="percentiles" if alignment == "corners" else "extremes", alignment=alignment)
    method = minmax_method.create_method(
        model,
        optimizers.create_optimizer("sgd", 0.1),
        Objective(mask=options, background_classes=(2,) if request.param == "basic" else ()),
        views=Views(flip_horizontal=True, flip_vertical=True, scales=(1.0, 1.5)),
    )
    state = method.init(jax.random.key(0), (64, 64))
    # The probabilities of fresh networks are all alike.
    factor = 1e4 if request.param == "lite" else 10
    heads_ = {name: jax.tree.map(lambda array: factor * array, state.params[name]) for name in _HEADS}
    variables = {"params": state.params | heads_, "batch_stats": state.batch_stats, "step": 3}
    decoder, image = decoder_lib.Decoder(), np.zeros((1, 64, 64, 3), np.float32)
    stages = decoder_lib.select_stages(method.stages(variables, image))
    return method, variables | {"decoder": decoder.init(jax.random.key(1), stages, image)["params"]}


@pytest.mark.parametrize("is_refined", [False, True])
def test_the_answer_for_an_image_does_not_depend_on_its_canvas(method_and_variables, is_refined):
    method, variables = method_and_variables
    assert method.reads_canvases
    predict = method.predict
    if is_refined:
        predict = functools.partial(
            refined_inference.predict,
            first_stage=method.predict,
            stages=method.stages,
            decoder=decoder_lib.Decoder(),
            views=Views(flip_horizontal=True),
        )
    images = _draw()
    predict = jax.jit(predict)
    # Beyond the images, a canvas may hold anything.
    found = predict(variables, canvas.Canvas(_place(images, beyond=200), np.array(_SIZES, np.int32)))
    for row, image in enumerate(images):
        alone = predict(variables, image[None])
        np.testing.assert_allclose(_cut(found.masks)[row], alone.masks[0], atol=3e-5)
        np.testing.assert_allclose(found.probabilities[row], alone.probabilities[0], atol=1e-5)
        for name, values in alone.scores.items():
            np.testing.assert_allclose(found.scores[name][row], values[0], rtol=1e-4, atol=2e-5, err_msg=name)
    assert not np.asarray(found.masks)[0, 96:].any() and np.ptp(np.asarray(found.masks)) > 0.2
    assert np.ptp(np.asarray(found.probabilities), axis=0).max() > 1e-4


def test_a_users_trunk_is_given_no_canvas():
    assert not minmax_net.create_model(networks.TinyTrunk(), num_classes=2).reads_canvases


def test_changes_beyond_an_image_are_no_edges():
    masks_alone, colors = _draw([(9, 7)], 1, np.float32), _draw([(9, 7)], 3, np.float32)
    options = {"bandwidth": 0.02, "reach": 4}
    alone = edges.edge_loss(masks_alone[0][None, ..., 0], 0.1 * colors[0][None], **options)
    placed = _place(masks_alone, (16, 16), beyond=5)[..., 0], 0.1 * _place(colors, (16, 16), beyond=3)
    found = edges.edge_loss(*placed, **options, sizes=jnp.array([[9, 7]]))
    np.testing.assert_allclose(found, alone, rtol=1e-6)


def _split():
    return splits.make_split([(40, 50), (64, 64), (64, 40), (33, 96), (65, 32), (64, 34), (96, 96), (30, 30)])


def test_batches_of_canvases_hold_each_image_once_as_padding_makes_it():
    split = _split()
    shapes = canvases.choose(split.sizes, max_count=2)
    alone = {
        int(index): batch.images[row]
        for batch in pipeline.evaluation_batches(split, batch_size=3)
        for row, index in enumerate(batch.indices)
    }
    batches, seen = list(pipeline.evaluation_batches(split, batch_size=3, shapes=shapes)), []
    for batch in batches:
        assert batch.images.shape[0] == len(batch.sizes) == 3
        for row, index in enumerate(batch.indices):
            seen.append(int(index))
            height, width = batch.sizes[row]
            np.testing.assert_array_equal(batch.images[row, :height, :width], alone[int(index)])
            assert not batch.images[row, height:].any() and not batch.images[row, :, width:].any()
    assert sorted(seen) == list(range(8))
    assert len({batch.images.shape for batch in batches}) <= 2


def _small_method():
    model = minmax_net.create_model(_TRUNKS["basic"](), num_classes=4, head=heads.WildcatHead)
    objective = Objective(mask=masks.MaskOptions(alignment="features"))
    method = minmax_method.create_method(model, optimizers.create_optimizer("sgd", 0.1), objective)
    state = method.init(jax.random.key(0), (64, 64))
    return method, {"params": state.params, "batch_stats": state.batch_stats, "step": 0}


def test_an_evaluation_on_canvases_has_the_rows_of_one_without_from_fewer_programs():
    method, variables = _small_method()
    split, traced = _split(), []

    @jax.jit
    def predict(images):
        traced.append(jax.tree.leaves(images)[0].shape)
        return method.predict(variables, images)

    shapes = canvases.choose(split.sizes, max_count=2)
    metrics = [dice.evaluator()]
    on_canvases = evaluation.evaluate(predict, split, metrics, batch_size=2, shapes=shapes)
    assert len(traced) == len(shapes) == 2
    alone = evaluation.evaluate(predict, split, metrics, batch_size=2)
    assert len(traced) == 2 + 5
    for one, other in zip(on_canvases, alone):
        assert one["name"] == other["name"]
        np.testing.assert_allclose(one["probabilities"], other["probabilities"], atol=1e-6)
        assert one["f1_foreground"] == pytest.approx(other["f1_foreground"], abs=1e-4)
        np.testing.assert_allclose(one["background_entropy"], other["background_entropy"], atol=1e-6)


def test_the_swap_test_moves_masks_within_their_images():
    split = splits.make_split([(32, 64), (64, 32), (64, 64), (96, 32), (32, 96), (32, 32)])
    seen = []

    def predict(images):
        pixels, _ = canvas.split(images)
        rows = np.arange(pixels.shape[1])[None, :, None, None] < 16
        masks_ = np.broadcast_to(rows, (*pixels.shape[:3], 1)).astype(np.float32)
        return Prediction(np.tile([0.5, 0.5], (len(masks_), 1)), masks_, {})

    def classify(images, masks_):
        seen.append((images, masks_))
        return np.tile([0.5, 0.5], (len(masks_), 1))

    shapes = canvases.choose(split.sizes, max_count=2)
    diagnosis.score(predict, classify, split, batch_size=2, shapes=shapes)
    for images, masks_ in seen:
        inside = np.asarray(canvas.inside(jnp.asarray(images.sizes), masks_.shape[1:3]))
        assert not masks_[~inside].any()
    own, _, moved = (masks_ for _, masks_ in seen[:3])
    height = int(seen[0][0].sizes[0][0])
    np.testing.assert_array_equal(moved[0, :height], np.roll(own[0, :height], height // 2, axis=0))


def test_a_second_stage_learns_the_same_from_canvases():
    method, variables = _small_method()
    split = _split()
    options = RefineOptions(enabled=True, num_steps=3, edge_weight=1.0)
    arguments = (
        lambda images: method.predict(variables, images).masks,
        lambda images: method.stages(variables, images),
        split,
    )
    collect = functools.partial(cache.collect, *arguments, options=options, batch_size=2, seed=0)
    shapes = canvases.choose(split.sizes, max_count=2)
    placed, alone = collect(shapes=shapes), collect()
    assert sum(len(group.images) for group in placed) == sum(len(group.images) for group in alone) == 8
    assert len(placed) <= 2 and len(alone) == 5
    decoder = decoder_lib.Decoder()
    params = decoder_training._init(decoder, alone[0], seed=0)
    losses = {}
    for name, groups in (("placed", placed), ("alone", alone)):
        for group in groups:
            for row in range(len(group.images)):
                # One image, with its most probable seeds; the key is the image itself.
                sizes = None if group.sizes is None else group.sizes[row : row + 1]
                height, width = group.images.shape[1:3] if sizes is None else sizes[0]
                images = canvas.normalize(canvas.join(jnp.asarray(group.images[row : row + 1]), sizes))
                stages = {stride: jnp.asarray(array[row : row + 1]) for stride, array in group.stages.items()}
                logits = np.asarray(decoder.apply({"params": params}, stages, images))[0, : height // 2, : width // 2]
                weights = np.diff(group.foreground[row].reshape(1, -1), prepend=0).reshape(
                    group.images.shape[1] // 2, group.images.shape[2] // 2
                )[: height // 2, : width // 2]
                key = group.images[row, :height, :width].tobytes()
                losses.setdefault(key, {})[name] = logits[..., 0], weights
    assert len(losses) == 8
    for found in losses.values():
        for one, other in zip(found["placed"], found["alone"]):
            np.testing.assert_allclose(one, other, atol=2e-3)  # features are kept in half precision
    trained, weight = decoder_training.train(placed, decoder=decoder, options=options, seed=0)
    assert np.isfinite(jax.tree.leaves(trained)[0]).all() and weight <= 1.0


@pytest.mark.slow
def test_nothing_of_a_run_sees_more_shapes_than_canvases(tmp_path, monkeypatch):
    """Validation, test, pictures, gallery and faithfulness of a whole training on images of eight padded sizes."""
    sizes = [(32, 32 * number) for number in range(1, 9)]
    one = splits.make_split(sizes, num_classes=2)
    monkeypatch.setattr(
        data_splits, "create_splits", lambda options: dict.fromkeys(("train", "validation", "test"), one)
    )
    traced = []
    predict = inference.predict

    def tracing(variables, images, **options):
        traced.append(canvas.split(images)[0].shape[1:3])
        return predict(variables, images, **options)

    monkeypatch.setattr(inference, "predict", tracing)
    training.train_and_evaluate(programs.config(erasing__num_erasures=0, train__epochs=1), tmp_path)
    faithfulness_test.test_workdir(tmp_path, "test", num_images=8, num_steps=1)
    shapes = canvases.choose(one.sizes)
    assert len(set(traced)) == len(shapes) <= canvases.MAX_CANVASES
