"""The built-in images: the same everywhere, exact masks, and nothing but the texture identifies the class."""

import dataclasses
import hashlib
import math

from minmax_jax.configs import synthetic as synthetic_configs
import numpy as np
import pytest

from minmax_jax.data import synthetic

CONFIG = synthetic.SyntheticConfig()
HARD = synthetic.SyntheticConfig(**synthetic_configs.get_config("hard").data.synthetic)
PLAIN_DIGEST = "af642f23392ed6f14db99c0e5caf371cfe46e9e8cee0f775a26bd9d6c8e338af"  # as recorded before there were parts


def _images_and_masks(split, count, config=CONFIG):
    loaded = synthetic.load(split, count, config=config)
    return [(loaded.read_image(index), loaded.read_mask(index)) for index in range(count)]


@pytest.mark.parametrize(
    "config, digest",
    [
        (CONFIG, PLAIN_DIGEST),
        (dataclasses.replace(CONFIG, body_contrast=0.5), PLAIN_DIGEST),  # without a part there is no body
        (HARD, "185a4071612aeee47c26fb12c7db44a62a4fd443751b3a6b2d23e9f0c516d7e1"),
    ],
)
def test_images_are_the_same_on_every_machine(config, digest):
    sha = hashlib.sha256()
    for image, mask in _images_and_masks("train", 8, config):
        sha.update(image.tobytes())
        sha.update(mask.tobytes())
    assert sha.hexdigest() == digest


def test_splits_and_seeds_share_no_image():
    images = [image for split in synthetic.SPLITS for image, _ in _images_and_masks(split, 20)]
    images += [image for image, _ in _images_and_masks("train", 20, dataclasses.replace(CONFIG, seed=1))]
    assert len({image.tobytes() for image in images}) == 80


def test_shapes_types_and_labels():
    split = synthetic.load("test", 10, config=dataclasses.replace(CONFIG, image_size=48, num_classes=5))
    assert split.read_image(3).shape == (48, 48, 3) and split.read_image(3).dtype == np.uint8
    assert split.read_mask(3).shape == (48, 48) and split.read_mask(3).dtype == bool
    np.testing.assert_array_equal(split.labels, [0, 1, 2, 3, 4] * 2)
    np.testing.assert_array_equal(split.sizes, [[48, 48]] * 10)
    assert len(split.class_names) == 5


@pytest.mark.parametrize("config", [CONFIG, HARD])
def test_objects_are_numbered_in_the_order_of_their_drawing(config):
    """With one object less an image, the last number is missing and the others stay: nothing is drawn differently."""
    small = dataclasses.replace(config, object_radius=(0.08, 0.12))  # three fit into each image
    more, fewer = (
        synthetic.load("train", 20, config=dataclasses.replace(small, num_objects=(count, count))) for count in (3, 2)
    )
    for index in range(20):
        numbers = more.read_instances(index)
        assert numbers.dtype == np.int32 and set(np.unique(numbers)) == {0, 1, 2, 3}
        np.testing.assert_array_equal(numbers > 0, more.read_mask(index))
        np.testing.assert_array_equal(np.where(numbers == 3, 0, numbers), fewer.read_instances(index))
        of_regions = [{int(numbers[pixel]) for pixel in region} for region in _regions(numbers > 0)]
        assert sorted(of_regions, key=min) == [{1}, {2}, {3}]


def _regions(mask):
    """Connected regions, four neighbours, by flooding: lists of pixels."""
    mask, regions = mask.copy(), []
    while mask.any():
        stack, region = [tuple(np.argwhere(mask)[0])], []
        while stack:
            row, column = stack.pop()
            if 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1] and mask[row, column]:
                mask[row, column] = False
                region.append((row, column))
                stack += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
        regions.append(region)
    return regions


def test_one_to_three_objects_apart_from_each_other():
    counts = [len(_regions(mask)) for _, mask in _images_and_masks("train", 60)]
    assert set(counts) == {1, 2, 3}


@pytest.mark.parametrize(
    "config, num_colors", [(CONFIG, 2), (HARD, 4), (dataclasses.replace(HARD, body_contrast=0), 3)]
)
def test_the_mask_is_exact(config, num_colors):
    """Part and body have two colours each: each pixel has one of them, and none of its neighbours outside has."""
    for image, mask in _images_and_masks("train", 20, config):
        for region in _regions(mask):
            colors = {tuple(image[pixel]) for pixel in region}
            assert len(colors) == num_colors
            around = {(row + i, column + j) for row, column in region for i in (-1, 0, 1) for j in (-1, 0, 1)}
            outside = [pixel for pixel in around - set(region) if 0 <= min(pixel) and max(pixel) < 64]
            assert not colors & {tuple(image[pixel]) for pixel in outside}


def _objects_with_parts(count):
    """Yields label, image, part [n, 2] and body [m, 2] of objects: a body of full contrast changes just the body."""
    clear = dataclasses.replace(HARD, body_contrast=1.0)
    pairs = zip(_images_and_masks("train", count, HARD), _images_and_masks("train", count, clear))
    for index, ((image, mask), (clear_image, clear_mask)) in enumerate(pairs):
        np.testing.assert_array_equal(mask, clear_mask)
        body = (image != clear_image).any(axis=-1)
        assert not body[~mask].any()
        for region in map(np.array, _regions(mask)):
            is_body = body[tuple(region.T)]
            yield index % HARD.num_classes, image.astype(int), region[~is_body], region[is_body]


def test_a_part_is_a_fifth_of_its_object_and_in_one_piece():
    for _, image, part, body in _objects_with_parts(40):
        assert len(part) == math.ceil(0.2 * (len(part) + len(body)))
        mask = np.zeros(image.shape[:2], bool)
        mask[tuple(part.T)] = True
        assert len(_regions(mask)) == 1


def test_parts_lie_anywhere_in_the_inner_half():
    """Distances of part and object's centres, in radii of an equal disc: as of random points of half a disc."""
    distances = []
    for _, _, part, body in _objects_with_parts(60):
        region = np.concatenate([part, body])
        distances.append(np.linalg.norm(part.mean(0) - region.mean(0)) / np.sqrt(len(region) / np.pi))
    assert np.mean(distances) == pytest.approx(1 / 3, abs=0.06) and max(distances) < 0.8


def test_the_body_is_fainter_than_any_part_around_the_same_colour():
    for _, image, part, body in _objects_with_parts(40):
        clear, faint = (np.unique(image[tuple(pixels.T)], axis=0) for pixels in (part, body))
        assert len(clear) == len(faint) == 2
        contrast, body_contrast = np.abs(clear[0] - clear[1]), np.abs(faint[0] - faint[1])
        assert 80 <= contrast.min() == contrast.max() <= 160
        np.testing.assert_array_equal(body_contrast, math.ceil(HARD.body_contrast * contrast[0]))
        assert np.abs(clear.sum(axis=0) - faint.sum(axis=0)).max() <= 1  # twice the mean, which is rounded


def _fitting_classes(image, pixels):
    """Numbers of the textures that, at some shift, separate the two colours of these pixels."""
    bright = image[tuple(pixels.T)][:, 0]
    bright, period = bright == bright.max(), HARD.texture_period
    fitting = set()
    for number, texture in enumerate(list(synthetic.TEXTURES.values())[: HARD.num_classes]):
        for i, j in np.ndindex(period, period):
            pattern = texture(pixels[:, 0] + i, pixels[:, 1] + j, period)
            if (pattern == bright).all() or (pattern != bright).all():
                fitting.add(number)
    return fitting


def test_part_and_body_both_tell_the_class():
    for label, image, part, body in _objects_with_parts(24):
        assert _fitting_classes(image, part) == _fitting_classes(image, body) == {label}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_all_ones_baseline_of_the_demo(split):
    """F1+ of everything marked is the mean of 2 p / (1 + p)."""
    config = synthetic_configs.get_config()
    options = synthetic.SyntheticConfig(**config.data.synthetic)
    shares = np.array([mask.mean() for _, mask in _images_and_masks(split, 256, options)])
    assert 25 <= 100 * np.mean(2 * shares / (1 + shares)) <= 35


@pytest.mark.parametrize("config", [CONFIG, HARD])
def test_neither_colour_nor_place_tells_the_class(config):
    """Class means of the objects' colours and centres lie within three standard errors of the common mean."""
    split = synthetic.load("train", 400, config=config)
    measured = []
    for index in range(len(split)):
        image, mask = split.read_image(index), split.read_mask(index)
        measured.append([*image[mask].mean(axis=0), *np.argwhere(mask).mean(axis=0), mask.mean()])
    measured = np.array(measured)
    spread = measured.std(axis=0) / np.sqrt(100)
    for label in range(4):
        distance = np.abs(measured[split.labels == label].mean(axis=0) - measured.mean(axis=0)) / spread
        assert distance.max() < 3.5, distance


def test_textures_survive_flips():
    """A flipped texture is the same texture at another shift, so flips are safe to train with."""
    rows, columns = np.arange(24)[:, None], np.arange(24)[None, :]
    for name, texture in synthetic.TEXTURES.items():
        pattern = np.broadcast_to(texture(rows, columns, 6), (24, 24))
        shifted = [np.roll(np.roll(pattern, i, 0), j, 1) for i in range(12) for j in range(12)]
        for flipped in (pattern[::-1], pattern[:, ::-1]):
            assert any((flipped == other).all() for other in shifted), name


def test_background_is_noise_whose_power_falls_with_frequency():
    config = dataclasses.replace(CONFIG, num_distractors=(0, 0))
    power = 0
    for image, mask in _images_and_masks("train", 40, config):
        grey = image.mean(axis=-1)
        power = power + np.abs(np.fft.fft2(np.where(mask, grey[~mask].mean(), grey)))[0, 1:32] ** 2
    slope = np.polyfit(np.log(np.arange(1, 17)), np.log(power[:16]), 1)[0]
    assert slope < -1.5  # 1/f in amplitude is -2 in power


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(image_size=31), "image_size=31"),
        (dict(num_classes=1), "num_classes=1"),
        (dict(num_classes=99), "num_classes=99"),
        (dict(num_objects=(0, 2)), "num_objects"),
        (dict(num_objects=(1,)), r"num_objects=\(1,\) must be 2 whole numbers"),
        (dict(num_objects=(0.5, 2)), "num_objects=.* must be 2 whole numbers"),
        (dict(object_radius=(0.3, 0.2)), "object_radius=.* in this order"),
        (dict(object_radius=("a", "b")), "object_radius=.* must be 2 numbers from 0.0 to 0.4"),
        (dict(object_radius=(0.02, 0.2)), "object_radius=.* must be at least 2 pixels"),
        (dict(num_distractors=(2, 1)), "num_distractors"),
        (dict(texture_period=1), "texture_period=1"),
        (dict(texture_contrast=(0, 10)), "texture_contrast"),
        (dict(part_share=-0.1), "part_share=-0.1"),
        (dict(part_share=1.0), "part_share=1.0"),
        (dict(part_share=float("nan")), "part_share=nan"),
        (dict(body_contrast=-0.1), "body_contrast=-0.1"),
        (dict(body_contrast=1.1), "body_contrast=1.1"),
    ],
)
def test_impossible_images_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        synthetic.SyntheticConfig(**options)


def test_empty_and_unknown_splits_are_refused():
    with pytest.raises(ValueError, match="num_images=0"):
        synthetic.load("train", 0, config=CONFIG)
    with pytest.raises(ValueError, match="split='valid'"):
        synthetic.load("valid", 1, config=CONFIG)


def test_annotations_are_drawn_once_and_are_the_callers_own(monkeypatch):
    calls, render = [], synthetic.render
    monkeypatch.setattr(synthetic, "render", lambda index, **options: calls.append(index) or render(index, **options))
    split = synthetic.load("test", 8, config=synthetic.SyntheticConfig(seed=77))
    for _ in range(2):
        mask, numbers = split.read_mask(3), split.read_instances(3)
        np.testing.assert_array_equal(mask, render(3, split="test", config=synthetic.SyntheticConfig(seed=77))[1])
        assert numbers.max() >= 1 and numbers.dtype == np.int32
        mask[:], numbers[:] = False, 0
    assert calls == [3]
