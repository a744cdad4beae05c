"""Answers of the page: their numbers and pictures, which files are read, and limits."""

import functools
import io
import json
import zlib

import jax
import numpy as np
from PIL import Image
import pytest

from minmax_jax.base.errors import OptionError, UserError
from minmax_jax.data import preprocessing
from minmax_jax.evaluation.image_predictions import NotFiniteError
from minmax_jax.minmax import inference
from minmax_jax.runs import predictor as predictor_lib
from minmax_jax.serve import answers
from minmax_jax.training.views import Views
from tests import saved_models, served


def test_an_answer_has_class_mask_share_and_instances():
    answer = served.answer(served.png(served.image()))
    assert (answer["height"], answer["width"], answer["threshold"]) == (40, 64, 0.5)
    assert answer["class"] == "plain" and answer["probability"] == pytest.approx(0.9)
    assert answer["probabilities"] == pytest.approx({"plain": 0.9, "red": 0.1})
    assert answer["foreground_share"] == pytest.approx((16 * 20 + 2 * 5 * 6 + 4) / (40 * 64))
    assert answer["num_instances"] == 2  # four pixels are too few for one
    assert answer["foreground_entropy"] == answer["background_entropy"] == 0.1
    np.testing.assert_array_equal(served.pixels(answer["mask"]), served.image()[..., 1])
    np.testing.assert_array_equal(served.pixels(answer["image"]), served.image())
    assert json.loads(json.dumps(answer)) == answer


@pytest.mark.parametrize(("width", "is_large"), [(256, False), (257, True)])
def test_an_image_of_more_than_sixteen_training_crops_has_a_flag(width, is_large):
    flags = served.answer(served.png(np.zeros((256, width, 3), np.uint8)))["flags"]
    assert any("much larger than those of the training" in flag for flag in flags) == is_large


def test_an_image_is_seen_at_the_magnification_of_the_training():
    predictor = served.GreenMask()
    predictor.card["microns_per_pixel"] = 0.5
    options = dict(resolution_unit=3, x_resolution=10000.0, y_resolution=10000.0)  # a centimetre is 10000 pixels
    content = _file(Image.fromarray(served.image()), "TIFF", **options)
    prepared = answers.prepare(predictor, content, limits=answers.Limits())
    assert prepared.microns == pytest.approx(1) and prepared.preprocessed.shape == (80, 128, 3)
    assert served.answer(content, predictor)["microns_per_pixel"] == pytest.approx(1)
    assert served.answer(served.png(served.image()), predictor)["microns_per_pixel"] is None
    options["y_resolution"] = 5000.0
    answer = served.answer(_file(Image.fromarray(served.image()), "TIFF", **options), predictor)
    assert answer["microns_per_pixel"] is None and "the pixels are not square (1 x 2 microns)" in answer["flags"]


def test_a_level_is_at_least_half_where_the_mask_is():
    predictor = served.GreenMask()
    predictor.finish_mask = lambda mask, prepared_size, size: (
        np.full(size, 0.5, np.float32) - np.eye(*size, dtype=np.float32) / 512
    )
    levels = served.pixels(served.answer(served.png(served.image()), predictor)["mask"])
    np.testing.assert_array_equal(levels >= 127.5, ~np.eye(40, 64, dtype=bool))


def test_flags_of_the_image_and_of_the_model():
    low, of_model = served.answer(served.png(served.image()), model_flags=[served.FLAG])["flags"]
    assert "background entropy is low" in low and of_model == served.FLAG  # 0.1 is below half of log 2


def test_the_classifier_saw_the_image_through_the_mask_and_through_the_rest():
    image = served.image()
    image[4:20, 4:24, 0] = 255
    seen = served.answer(served.png(image))["seen"]
    foreground, background = (served.pixels(seen[side]) for side in ("foreground", "background"))
    assert foreground.shape == background.shape == (20, 32, 3)  # at half the size
    # 127.5 + 0.6 (x - 127.5) for x = 255, 153, 0, and the same with 0.4; elsewhere the mask is 0.
    np.testing.assert_array_equal(foreground[6, 6], [204, 143, 51])
    np.testing.assert_array_equal(background[6, 6], [178, 138, 76])
    np.testing.assert_array_equal(foreground[18, 2], [128, 128, 128])
    np.testing.assert_array_equal(background[18, 2], [0, 0, 0])


def test_the_classifier_of_a_run_with_a_second_stage_saw_the_first_stage_s_mask():
    predictor = served.GreenMask()
    predictor.predict_with_first_masks = lambda images: (predictor.predict(images), np.zeros((1, 64, 64, 1)))
    answer = served.answer(served.png(served.image()), predictor)
    assert (served.pixels(answer["seen"]["foreground"]) == 128).all() and answer["num_instances"] == 2


def test_a_loaded_run_with_a_second_stage_tells_the_first_stage_s_masks(tmp_path):
    saved_models.write(tmp_path, refine__enabled=True)
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    refined, first_masks = predictor_lib.load(tmp_path).predict_with_first_masks(images)
    of_first, of_itself = predictor_lib.load(tmp_path, refine=False).predict_with_first_masks(images)
    np.testing.assert_allclose(first_masks, of_first.masks, atol=1e-5)
    np.testing.assert_array_equal(of_first.masks, of_itself)
    np.testing.assert_allclose(refined.probabilities, of_first.probabilities, atol=1e-5)
    assert np.abs(refined.masks - first_masks).max() > 0.01


@pytest.mark.parametrize("refine", [True, False])
def test_the_first_stage_computes_its_masks_once(tmp_path, monkeypatch, refine):
    """XLA does not notice that two loops over mirror images are equal."""
    calls, predict = [], inference.predict

    def counting(*arguments, **options):
        calls.append(options["views"])
        return predict(*arguments, **options)

    monkeypatch.setattr(inference, "predict", counting)
    saved_models.write(tmp_path, refine__enabled=True, evaluation__flips=True)
    predictor = predictor_lib.load(tmp_path, refine=refine)
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    found, first_masks = predictor.predict_with_first_masks(images)
    assert calls == [Views(flip_horizontal=True, flip_vertical=True)]
    expected = predictor.predict(images)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), found, expected)
    assert (np.abs(found.masks - first_masks).max() > 0.01) == refine


def test_a_method_without_a_classifier_of_masked_images_shows_none():
    answer = served.answer(served.png(served.image()), served.GreenMask(scores=()))
    assert answer["seen"] == {} and "foreground_entropy" not in answer


def test_large_pictures_are_shrunk_and_masks_are_not():
    answer = served.answer(served.png(np.zeros((40, 4096, 3), np.uint8)))
    assert served.pixels(answer["image"]).shape == (20, 2048, 3) and served.pixels(answer["mask"]).shape == (40, 4096)
    assert served.pixels(answer["seen"]["foreground"]).shape == (5, 512, 3)


@pytest.mark.parametrize("what", ["probabilities", "masks"])
def test_numbers_that_are_not_finite_are_refused(what):
    predictor = served.GreenMask()
    predictor.predict = lambda images: (
        served.GreenMask().predict(images).replace(**{what: np.full((1, 64, 64, 1), np.nan)})
    )
    with pytest.raises(NotFiniteError, match="not finite"):
        served.answer(served.png(served.image()), predictor)


# Files.


def _file(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return served.png(np.rot90(served.image()), exif=exif.tobytes())


@pytest.mark.parametrize(
    ("content", "tolerance"),
    [
        (_turned(), 0),
        (
            _file(
                Image.fromarray(served.image()), "GIF", save_all=True, append_images=[Image.new("RGB", (64, 40), "red")]
            ),
            0,
        ),
        (_file(Image.fromarray(served.image()).convert("CMYK"), "TIFF"), 2),
        (_file(Image.fromarray(served.image()), "WEBP", lossless=True), 0),
    ],
    ids=["turned", "animated", "cmyk", "webp"],
)
def test_files_are_read_as_one_sees_them(content, tolerance):
    image = answers.prepare(served.GreenMask(), content, limits=answers.Limits()).image
    np.testing.assert_allclose(image.astype(int), served.image(), atol=tolerance)


def test_sixteen_bits_become_eight():
    values = np.arange(40 * 64, dtype=np.uint16).reshape(40, 64) * 20
    image = answers.prepare(served.GreenMask(), served.png(values), limits=answers.Limits()).image
    np.testing.assert_array_equal(image, np.repeat((values // 256)[..., None], 3, axis=-1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"no image", "cannot be read as an image"),
        (served.png(served.image())[:100], "cannot be read as an image"),
        (_file(Image.new("RGB", (64, 64)), "EPS"), "is EPS"),
        (served.png(np.zeros((10, 40, 3), np.uint8)), "10x40 pixels.*at least 32"),
    ],
    ids=["empty", "text", "cut", "eps", "small"],
)
def test_files_that_cannot_be_used_are_refused(content, message):
    with pytest.raises(UserError, match=message) as caught:
        answers.prepare(served.GreenMask(), content, limits=answers.Limits())
    assert not isinstance(caught.value, answers.TooLargeError)


def _bomb(side):
    """A PNG of a few bytes that declares side x side pixels."""
    content = bytearray(served.png(np.zeros((1, 1, 3), np.uint8)))
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "limits", "message"),
    [
        (served.png(served.image()), {"max_megapixels": 0.01}, None),
        (
            served.png(np.zeros((50, 201, 3), np.uint8)),
            {"max_megapixels": 0.01},
            "201 x 50 pixels. At most 0.01 megapixels",
        ),
        (b"0" * 10001, {"max_megabytes": 0.01}, "more than 0.01 MB"),
        (_bomb(100_000), {}, "too many pixels"),  # refused by Pillow
        (_bomb(11_000), {}, "too many pixels"),  # a warning of Pillow's, which is an error here
        (_bomb(9_000), {}, "9000 x 9000 pixels"),
        (served.png(np.zeros((1, 16385, 3), np.uint8)), {}, "16385 x 1 pixels"),
    ],
)
def test_limits(content, limits, message):
    limits = answers.Limits(**limits)
    if message is None:
        assert answers.prepare(served.GreenMask(), content, limits=limits).image.shape == (40, 64, 3)
        return
    with pytest.raises(answers.TooLargeError, match=message):
        answers.prepare(served.GreenMask(), content, limits=limits)


def test_an_image_that_the_preprocessing_makes_too_large_is_refused():
    predictor = served.GreenMask()
    predictor.preprocessing = preprocessing.Preprocessing(min_side=200)
    with pytest.raises(answers.TooLargeError, match="320 x 200 pixels after the preprocessing"):
        answers.prepare(predictor, served.png(served.image()), limits=answers.Limits(max_megapixels=0.05))


@pytest.mark.parametrize(
    ("size", "options", "computed"),
    [
        # 200 sqrt(64,000 / 80,000) = 178.9, less a pixel for the rounding of the other side.
        ((200, 400), {}, (177, 354)),
        ((400, 400), {"min_side": 300}, (251, 251)),  # less than the run's own minimum side
        ((400, 400), {"scale": 0.5}, (200, 200)),  # small enough after the preprocessing
        ((40, 1590), {}, (40, 1590)),
        ((3000, 33), {}, (2909, 32)),  # no side below 32: more pixels than asked for
    ],
)
def test_images_are_computed_at_a_limited_size(size, options, computed):
    """And the mask has the size of the image: 0.5 everywhere, as its green channel."""
    predictor = served.GreenMask()
    predictor.preprocessing = preprocessing.Preprocessing(**options)
    predictor.finish_mask = lambda mask, prepared_size, size: np.full(size, mask.mean(), np.float32)
    limits = answers.Limits(max_pixels=64_000)
    prepared = answers.prepare(predictor, served.png(np.full((*size, 3), 100, np.uint8)), limits=limits)
    assert prepared.preprocessed.shape[:2] == computed
    answer = answers.predict(predictor, prepared, model_flags=())
    assert (answer["computed_height"], answer["computed_width"]) == computed
    assert (answer["height"], answer["width"]) == size == served.pixels(answer["mask"]).shape
    text = f"computed at {computed[1]} x {computed[0]} of {size[1]} x {size[0]} pixels"
    is_reduced = size not in ((400, 400), (40, 1590)) or "min_side" in options
    assert any(text in flag and "max_pixels=64000" in flag for flag in answer["flags"]) == is_reduced
    whole = answers.prepare(predictor, served.png(np.zeros((*size, 3), np.uint8)), limits=answers.Limits(max_pixels=0))
    assert whole.preprocessed.shape[:2] == tuple(predictor.preprocessing.sizes(np.array([size]))[0])


def test_a_photograph_is_computed_at_a_megapixel():
    """As it comes from a telephone: 12 megapixels, stored on its side."""
    limits = answers.Limits()
    prepared = answers.prepare(served.GreenMask(), served.png(np.zeros((4000, 3000, 3), np.uint8)), limits=limits)
    height, width = prepared.preprocessed.shape[:2]
    assert 0.99 * 2**20 < height * width <= 2**20 and height / width == pytest.approx(4 / 3, rel=1e-3)
    assert prepared.image.shape == (4000, 3000, 3)


def test_an_impossible_working_size_is_named():
    with pytest.raises(OptionError, match="max_pixels=100 must be from 16384"):
        answers.Limits(max_pixels=100)


@pytest.mark.parametrize("name", ["max_megabytes", "max_megapixels"])
def test_impossible_limits_are_named(name):
    with pytest.raises(OptionError, match=f"{name}="):
        answers.Limits(**{name: 0})
