"""Stains of H&E images, against an image that is made of known vectors and concentrations."""

from minmax_jax.configs import synthetic
import numpy as np
import pytest

from minmax_jax.data import dataset, pipeline, stains, transforms
from minmax_jax.data.preprocessing import Preprocessing
from minmax_jax.runs.building import data_splits
from minmax_jax.runs.building import options as options_lib
from tests import splits

# Of length 1; neither is the reference's.
VECTORS = np.array([[0.64, 0.60, 0.48], [0.28, 0.80, 0.5306599]])


def _concentrations(share=0.5):
    """[40, 50, 2]; a tenth of the pixels of either stain alone, the last eight rows of none.

    Of the tissue, `share` is haematoxylin, and every density is from 0.2 to 1.3.
    """
    rng = np.random.default_rng(0)
    amounts = rng.uniform(0.8, 1.6, (40, 50, 1)) * np.array([share, 1 - share])
    amounts[:4] = rng.uniform(0.8, 1.6, (4, 50, 1)) * [1, 0]
    amounts[4:8] = rng.uniform(0.8, 1.6, (4, 50, 1)) * [0, 1]
    amounts[32:] = 0
    return amounts


def _image(amounts, vectors=VECTORS):
    return np.clip(np.round(256 * np.exp(-(amounts @ vectors)) - 1), 0, 255).astype(np.uint8)


def _assert_close(image, other, *, levels):
    assert image.dtype == other.dtype == np.uint8
    assert np.abs(image.astype(int) - other).max() <= levels


def test_optical_densities_are_logarithms():
    image = np.array([[[255, 127, 63], [31, 15, 0]]], np.uint8)
    np.testing.assert_allclose(stains.optical_density(image)[0] / np.log(2), [[0, 1, 2], [3, 4, 8]], atol=1e-12)


def test_optical_density_can_be_inverted():
    image = np.arange(255 + 3, dtype=int).clip(0, 255).astype(np.uint8).reshape(2, 43, 3)
    np.testing.assert_array_equal(stains.from_optical_density(stains.optical_density(image)), image)


def test_what_no_image_can_show_is_clipped():
    np.testing.assert_array_equal(stains.from_optical_density(np.array([-1.0, 0.0, 9.0])), [255, 255, 0])


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_stains_are_found(share):
    """Vectors within 0.3 degrees, haematoxylin first, and concentrations within 2 %: pixels are rounded."""
    amounts = _concentrations(share)
    found = stains.find_stains(_image(amounts))
    cosines = np.sum(found.vectors * VECTORS, axis=1)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1)
    assert np.all(np.degrees(np.arccos(np.minimum(cosines, 1))) < 0.3)
    np.testing.assert_allclose(
        found.max_concentrations, np.percentile(amounts[:32].reshape(-1, 2), 99, axis=0), rtol=0.02
    )


def test_background_has_no_part_in_it():
    image = _image(_concentrations())
    pale = np.random.default_rng(1).integers(225, 256, (200, 50, 3), np.uint8)  # densities up to ln(256 / 226) = 0.125
    found, other = stains.find_stains(image), stains.find_stains(np.concatenate([image, pale]))
    np.testing.assert_allclose(other.vectors, found.vectors)
    np.testing.assert_allclose(other.max_concentrations, found.max_concentrations)


def test_concentrations_come_closest():
    """What is orthogonal to both stains changes nothing."""
    amounts = _concentrations()
    across = np.cross(*VECTORS)
    np.testing.assert_allclose(stains.concentrations(amounts @ VECTORS + 0.3 * across, VECTORS), amounts, atol=1e-7)


def test_normalisation_gives_the_stains_of_the_reference():
    amounts = _concentrations()
    maximum = np.percentile(amounts[:32].reshape(-1, 2), 99, axis=0)
    reference = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
    expected = _image(amounts * (np.array([1.9705, 1.0308]) / maximum), reference)
    normalized = stains.normalize_stains(_image(amounts))
    _assert_close(normalized, expected, levels=3)
    np.testing.assert_array_equal(normalized[32:], 255)


def test_normalisation_to_the_own_stains_is_the_identity():
    """Within one level: rounding has moved pixels out of the stains' plane."""
    image = _image(_concentrations())
    _assert_close(stains.normalize_stains(image, stains.find_stains(image)), image, levels=1)


def test_normalisation_forgets_how_an_image_was_stained():
    """Either image is within three levels of what it should be, as above."""
    amounts = _concentrations()
    others = _image(amounts * [0.8, 1.3], np.array([[0.6, 0.64, 0.48], [0.36, 0.8, 0.48]]))
    _assert_close(stains.normalize_stains(others), stains.normalize_stains(_image(amounts)), levels=6)


def _few_stained_pixels():
    image = np.full((40, 50, 3), 255, np.uint8)
    image[0, :19] = _image(_concentrations())[2:21, 0]  # of 2000
    return image


@pytest.mark.parametrize(
    "image",
    [
        np.full((40, 50, 3), 255, np.uint8),
        np.zeros((40, 50, 3), np.uint8),
        np.full((40, 50, 3), (200, 120, 180), np.uint8),
        _few_stained_pixels(),
        _image(_concentrations() * [1, 0]),
    ],
    ids=["white", "black", "one colour", "few pixels", "one stain"],
)
def test_without_two_stains_an_image_stays(image):
    assert stains.find_stains(image) is None
    np.testing.assert_array_equal(stains.normalize_stains(image), image)
    np.testing.assert_array_equal(stains.augment_stains(image, np.random.default_rng(0), 0.5), image)


def test_augmentation_scales_and_shifts_each_concentration():
    amounts = _concentrations()
    image, lines = _image(amounts), []
    for seed in range(40):
        augmented = stains.augment_stains(image, np.random.default_rng(seed), 0.2)
        # Where no channel is clipped; the density by its definition, concentrations by NumPy.
        density = -np.log((augmented[:32].reshape(-1, 3) + 1.0) / 256)
        kept = (augmented[:32].reshape(-1, 3) < 255).all(axis=1)
        found = np.linalg.lstsq(VECTORS.T, density[kept].T)[0]
        for stain in range(2):
            (slope, shift), residual, *_ = np.polyfit(amounts[:32, :, stain].ravel()[kept], found[stain], 1, full=True)
            assert residual[0] / kept.sum() < 0.03**2
            lines.append((slope - 1, shift))
    lines = np.array(lines).reshape(40, 2, 2)
    assert np.abs(lines).max() < 0.22
    assert np.all(lines.min(axis=0) < -0.15) and np.all(lines.max(axis=0) > 0.15)
    correlations = np.corrcoef(lines.reshape(40, 4).T) - np.eye(4)
    assert np.abs(correlations).max() < 0.5  # each is drawn by itself


def test_augmentation_of_strength_0_is_the_identity_whatever_the_colours():
    image = np.random.default_rng(2).integers(0, 256, (40, 50, 3), np.uint8)
    assert stains.find_stains(image) is not None
    np.testing.assert_array_equal(stains.augment_stains(image, np.random.default_rng(0), 0.0), image)


def test_the_generator_decides_the_augmentation():
    image = _image(_concentrations())
    first, again, other = (stains.augment_stains(image, np.random.default_rng(seed), 0.2) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("shape, dtype", [((4, 4, 3), np.float32), ((4, 4), np.uint8), ((4, 4, 4), np.uint8)])
def test_other_images_are_refused(shape, dtype):
    with pytest.raises(ValueError, match=r"The image is \[4, 4.*it must be \[H, W, 3\] uint8"):
        stains.optical_density(np.zeros(shape, dtype))


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_impossible_strengths_are_refused(strength):
    with pytest.raises(ValueError, match=f"strength={strength} must be from 0 to 1"):
        stains.augment_stains(_image(_concentrations()), np.random.default_rng(0), strength)


def test_batches_do_not_depend_on_workers():
    split = dataset.cache_images(dataset.preprocess(splits.make_split([(40, 48)] * 6), Preprocessing("macenko")))
    augmentation = transforms.Augmentation((32, 32), stain_augmentation=0.2, contrast=0.2)

    def draw(**options):
        batches = pipeline.train_batches(split, batch_size=2, seed=1, augmentation=augmentation, **options)
        return np.stack([next(batches)["images"] for _ in range(4)])

    images = draw()
    np.testing.assert_array_equal(draw(num_workers=1), images)
    np.testing.assert_array_equal(draw(num_threads=1), images)


def test_configured_normalisation_is_that_of_all_splits_before_they_are_resized():
    config = synthetic.get_config()
    config.update_from_flattened_dict({f"data.num_{name}": 4 for name in ("train", "validation", "test")})
    plain = data_splits.create_splits(options_lib.read(config).data)
    config.data.stain_normalization, config.data.scale, config.data.cache_gib = "macenko", 0.5, 1.0
    for name, split in data_splits.create_splits(options_lib.read(config).data).items():
        expected = dataset.preprocess(plain[name], Preprocessing("macenko", 0.5))
        np.testing.assert_array_equal(split.read_image(0), expected.read_image(0))
        unchanged = dataset.preprocess(plain[name], Preprocessing(scale=0.5))
        assert not np.array_equal(split.read_image(0), unchanged.read_image(0))


def test_configured_augmentation_is_that_of_training_batches():
    config = synthetic.get_config()
    config.data.num_train = config.batch_size
    batches = []
    for strength in (0.0, 0.3):
        config.data.stain_augmentation = strength
        split = data_splits.create_splits(options_lib.read(config).data)["train"]
        batches.append(next(data_splits.create_train_batches(options_lib.read(config), split)))
    np.testing.assert_array_equal(batches[0]["labels"], batches[1]["labels"])
    assert not np.array_equal(batches[0]["images"], batches[1]["images"])
