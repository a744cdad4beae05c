"""What the decoder of the second stage learns from, and that it learns."""

import itertools
import re
import tracemalloc

import jax
import numpy as np
import pytest

from minmax_jax.base.errors import OptionError
from minmax_jax.data import padding
from minmax_jax.method import Prediction
from minmax_jax.models import decoder as decoder_lib
from minmax_jax.refinement import cache, calibration, decoder_training
from minmax_jax.refinement.options import RefineOptions
from tests import splits


def _predict_alike(images):
    """A first stage whose mask is the red channel."""
    images = np.asarray(images)
    return Prediction(np.full((len(images), 2), 0.5), images[..., :1].astype(np.float32) / 255, {})


def _stages_alike(images):
    return {2: images[:, ::2, ::2], 4: images[:, ::4, ::4, :2].astype(np.float32), 8: images[:, ::8, ::8, :1] / 2}


_SIZES = [(32, 32), (41, 64), (32, 31), (64, 64), (33, 40), (32, 32)]


def _collect(sizes=_SIZES, seed=0, predict_fn=_predict_alike, **options):
    split = splits.make_split(sizes, read_mask=splits.refuse)
    options = RefineOptions(**options)
    groups = cache.collect(
        lambda images: predict_fn(images).masks, _stages_alike, split, options=options, batch_size=2, seed=seed
    )
    return split, groups


def test_the_cache_groups_images_by_their_padded_shape():
    """Six images, three of which are padded; a batch that is not full adds no image; no true mask is read."""
    split, groups = _collect()
    expected = {(32, 32): [0, 2, 5], (64, 64): [1, 3, 4]}
    assert {group.images.shape[1:3] for group in groups} == set(expected)
    for group in groups:
        images = np.stack([padding.pad(split.read_image(index)) for index in expected[group.images.shape[1:3]]])
        np.testing.assert_array_equal(group.images, images)
        assert set(group.stages) == {4, 8} and group.stages[4].dtype == np.float16
        np.testing.assert_array_equal(group.stages[4], images[:, ::4, ::4, :2])
        np.testing.assert_array_equal(group.stages[8], images[:, ::8, ::8, :1] / 2)


def test_the_cache_holds_no_second_copy():
    """Of 64 images at once: a batch of two and its temporary arrays take less than a fifth of that."""
    sizes = [(256, 256)] * 64
    _collect(sizes[:2])  # JAX traces and compiles here, which takes memory that is no copy of the images.
    split = splits.make_split(sizes)
    tracemalloc.start()
    groups = cache.collect(
        lambda images: _predict_alike(images).masks,
        _stages_alike,
        split,
        options=RefineOptions(),
        batch_size=2,
        seed=0,
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * sum(array.nbytes for array in jax.tree.leaves(groups))


def test_seeds_lie_in_the_image_not_in_its_padding(monkeypatch):
    """41x64 in 64x64: 11 rows before, 12 after. Of the halved rows 6 to 25 begin inside."""
    monkeypatch.setattr(cache, "_BACKGROUND_SHARE", 0.25)  # several values of this image are equal to the median
    split, groups = _collect([(41, 64)])
    (group,) = groups
    rows = slice(6, 26)
    red = padding.pad(split.read_image(0))[..., 0].astype(np.float64) / 255
    half = red.reshape(32, 2, 32, 2).mean((1, 3))
    shares = [np.diff(np.float64(c[0]), prepend=0).reshape(32, 32) for c in (group.foreground, group.background)]
    foreground, background = np.zeros((2, 32, 32))
    foreground[rows] = (half[rows] - half[rows].min()) ** 2
    background[rows] = half[rows] <= np.quantile(half[rows].astype(np.float32), 0.25)
    for found, expected in zip(shares, (foreground, background)):
        np.testing.assert_allclose(found, expected / expected.sum(), atol=2e-6)


def test_the_cache_keeps_as_many_images_as_fit():
    """An image of 32x32 pixels takes 3 KiB, its features 2 * (8 * 8 * 2 + 4 * 4) bytes, its seeds 2 * 4 * 16 * 16."""
    needed = 3 * 32 * 32 + 2 * (8 * 8 * 2 + 4 * 4) + 2 * 4 * 16 * 16
    sizes = [(32, 32)] * 5
    chosen = []
    for gib, count in ((5 * needed, 5), (5 * needed - 1, 4), (2.5 * needed, 2), (2, 1)):
        split, (group,) = _collect(sizes, seed=3, cache_gib=gib / 2**30)
        assert len(group.images) == count
        if gib >= needed:
            assert sum(array.nbytes for array in jax.tree.leaves(group)) == count * needed
        chosen.append([i for i in range(5) if (group.images == split.read_image(i)).all((1, 2, 3)).any()])
    assert all(set(fewer) < set(more) for more, fewer in itertools.pairwise(chosen))
    # A random choice, in the order of the split; another seed chooses others.
    others = [_collect(sizes, seed=seed, cache_gib=2.5 * needed / 2**30)[1][0].images for seed in range(6)]
    assert len({images.tobytes() for images in others}) > 1


def _discs(count=16, size=32):
    """Reddish discs on green, both noisy, and first-stage masks that are blurred, too small, and shifted."""
    rng, (y, x) = np.random.default_rng(0), np.indices((size, size))
    images, true, masks = [], [], []
    for _ in range(count):
        radius, (cy, cx) = rng.uniform(7, 10), rng.uniform(12, 20, 2)
        disc = (y - cy) ** 2 + (x - cx) ** 2 < radius**2
        colors = np.array([[190, 90, 110], [90, 150, 100]]) + rng.normal(0, 10, (2, 3))
        images.append(np.where(disc[..., None], colors[0], colors[1]) + rng.normal(0, 8, (size, size, 3)))
        away = np.hypot(y - cy - 2, x - cx + 2)
        masks.append(1 / (1 + np.exp((away - 0.6 * radius) / 1.5)))
        true.append(disc)
    return np.clip(images, 0, 255).astype(np.uint8), np.array(true), np.array(masks, np.float32)[..., None]


def _train(groups, **options):
    options = RefineOptions(**dict(num_steps=120, cache_gib=1.0) | options)
    decoder = decoder_lib.Decoder(width=8)
    params, weight = decoder_training.train(groups, decoder=decoder, options=options, seed=0)
    assert weight <= options.edge_weight
    return decoder, params


def _collect_discs():
    images, true, masks = _discs()
    split = splits.make_split([image.shape[:2] for image in images], read_mask=splits.refuse)
    split.read_image.arrays[:] = list(images)
    of_image = {image.tobytes(): mask for image, mask in zip(images, masks)}

    def predict(batch):
        found = np.stack([of_image[image.tobytes()] for image in np.asarray(batch)])
        return Prediction(np.full((len(found), 2), 0.5), found, {})

    groups = cache.collect(
        lambda images: predict(images).masks,
        _stages_alike,
        split,
        options=RefineOptions(),
        batch_size=4,
        seed=0,
    )
    return images, true, masks, groups


def _mean_iou(masks, true):
    found = np.asarray(masks)[..., 0] >= 0.5
    return np.mean([(a & b).sum() / (a | b).sum() for a, b in zip(found, true)])


@pytest.fixture(scope="module")
def discs():
    return _collect_discs()


def test_a_decoder_learns_outlines_that_the_first_stage_does_not_know(discs):
    images, true, masks, groups = discs
    decoder, params = _train(groups)
    stages = decoder_lib.select_stages(_stages_alike(images))
    logits = jax.jit(decoder.apply)({"params": params}, stages, images / np.float32(127.5) - 1)
    found = np.asarray(decoder_lib.enlarge(jax.nn.sigmoid(logits)))
    found = np.stack([calibration.between_percentiles(mask[..., 0]) for mask in found])[..., None]
    assert _mean_iou(masks, true) < 0.4
    assert _mean_iou(found, true) > 0.85


def test_too_great_a_weight_of_the_pairwise_term_is_halved(discs, caplog):
    with caplog.at_level("INFO"):
        _, params = _train(discs[3], num_steps=60, edge_weight=1e3)
    weights = [float(weight.rstrip(".")) for weight in re.findall(r"edge_weight=(\S+)", caplog.text)]
    losses = [float(loss) for loss in re.findall(r"seed_loss (0\.\d+)", caplog.text)]
    assert weights == [1e3 / 2**k for k in range(1, len(weights) + 1)] and len(weights) >= 1
    assert all(loss > 0.62 for loss in losses[:-1]) and losses[-1] <= 0.62
    # The parameters are those of a training that started with the last weight, which comes with them.
    options = RefineOptions(num_steps=60, edge_weight=weights[-1])
    decoder = decoder_lib.Decoder(width=8)
    expected, weight = decoder_training.train(discs[3], decoder=decoder, options=options, seed=0)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert weight == weights[-1]


def test_a_loss_that_is_no_number_ends_the_training(discs, caplog, monkeypatch):
    """Whatever the weight: a NaN must neither pass for a low loss nor be kept as a decoder."""
    monkeypatch.setattr(decoder_training, "_LEARNING_RATE", 1e30)
    with pytest.raises(OptionError, match=r"edge_weight=0.5: the second stage diverged \(.*nan.*set enabled=F"):
        _train(discs[3], num_steps=4, edge_weight=2.0)
    assert "It diverged: it is trained again" in caplog.text and "edge_weight=0.5" in caplog.text


def test_a_decoder_depends_on_the_seed_alone(discs):
    groups = discs[3]
    first, second = (_train(groups, num_steps=3)[1] for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    options = RefineOptions(num_steps=3)
    other, _ = decoder_training.train(groups, decoder=decoder_lib.Decoder(width=8), options=options, seed=1)
    assert any(jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).any(), first, other)))


@pytest.mark.slow
def test_images_of_several_shapes_train_together(caplog):
    """Two images of one shape and one of another, fewer than a batch."""
    _, groups = _collect([(32, 64), (32, 32), (32, 64)])
    with caplog.at_level("INFO"):
        _, params = _train(groups, num_steps=6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    assert "last step: edge_loss" in caplog.text and "seed_loss" in caplog.text
