"""The page computes images of all sizes on at most four canvases, and compiles these before the first image comes."""

import dataclasses
import json
import threading
import time
import types

import jax
import numpy as np
import pytest

from minmax_jax.data import padding, preprocessing
from minmax_jax.ops import canvas
from minmax_jax.runs import predictor as predictor_lib
from minmax_jax.serve import answers, shapes
from tests import saved_models, served


def _choose(max_pixels=1 << 20, crop_size=64, **options):
    prepare = preprocessing.Preprocessing(**options)
    run = types.SimpleNamespace(reads_canvases=True, preprocessing=prepare, card={"crop_size": [crop_size] * 2})
    return shapes.choose(run, max_pixels).tolist()


@pytest.mark.parametrize("max_pixels", [1 << 20, 0])
def test_canvases_have_room_for_images_of_any_size(max_pixels):
    """4 by 3, 1182 x 887 have 2^20 pixels, and 3 by 2, 1254 x 836."""
    assert _choose(max_pixels) == [[64, 64], [640, 640], [896, 1280], [1280, 896]]
    assert _choose(max_pixels, min_side=65) == [[640, 640], [896, 1280], [1280, 896]]
    assert _choose(max_pixels, crop_size=800) == [[640, 640], [896, 1280], [1280, 896]]


def test_canvases_have_room_for_images_whose_shorter_side_is_limited():
    """Up to one by two, and up to one by four, or as many pixels as the largest canvases of other runs have."""
    assert _choose(max_side=250) == [[256, 512], [512, 256], [256, 1024], [1024, 256]]
    assert _choose(max_side=608) == [[608, 960], [960, 608], [608, 1888], [1888, 608]]  # 896 x 1280 / 608 = 1886


def test_a_method_that_reads_no_canvases_has_none():
    assert shapes.choose(served.GreenMask(), 1 << 20) is None


@pytest.mark.parametrize(
    ("size", "without", "computed"),
    [
        ((3000, 4000), (218, 291), (218, 291)),  # 219 x 292 are 64,000 pixels; a pixel less for rounding
        ((1800, 3500), (180, 350), (163, 317)),  # 320 / 3500 of them
        ((3500, 1800), (350, 180), (317, 163)),
        ((1500, 6000), (125, 500), (125, 500)),  # would lose more than a quarter of its sides
        ((100, 600), (100, 600), (100, 600)),  # not shrunk
    ],
)
def test_an_image_that_is_shrunk_anyway_is_shrunk_to_fit(size, without, computed):
    """Canvases for 64,000 pixels have sides of 224 and 320."""
    content, chosen = served.png(np.zeros((*size, 3), np.uint8)), np.array(_choose(64_000))
    for choices, expected in ((None, without), (chosen, computed)):
        limits = answers.Limits(max_pixels=64_000)
        prepared = answers.prepare(served.GreenMask(), content, limits=limits, shapes=choices)
        assert prepared.preprocessed.shape[:2] == expected
    assert (list(prepared.shape) in chosen.tolist()) == (max(computed) <= 320)


@pytest.fixture
def model(tmp_path):
    """A loaded model of random weights, for images of any size."""
    saved_models.write(tmp_path, refine__enabled=True)
    return dataclasses.replace(predictor_lib.load(tmp_path), preprocessing=preprocessing.Preprocessing())


def test_ten_sizes_share_four_programs_and_an_extreme_one_has_its_own(model):
    """The answers are those of each image alone."""
    sizes = [
        (40, 64),
        (64, 64),
        (33, 90),
        (90, 50),
        (96, 96),
        (100, 128),
        (128, 70),
        (150, 100),
        (100, 160),
        (120, 150),
    ]
    limits, rng = answers.Limits(max_pixels=128**2), np.random.default_rng(0)
    chosen, found = shapes.choose(model, limits.max_pixels), []
    assert chosen.tolist() == [[64, 64], [96, 96], [128, 160], [160, 128]]
    predict = model.predict_with_first_masks.func
    model.compile((64, 64))
    for number, size in enumerate([*sizes, (40, 320)]):
        content = served.png(rng.integers(0, 256, (*size, 3), np.uint8))
        prepared = answers.prepare(model, content, limits=limits, shapes=chosen)
        assert (prepared.shape == (64, 320)) == (number == 10)
        found.append((prepared, model.predict_with_first_masks(prepared.inputs)))
        assert predict._cache_size() <= 4 + number // 10
    assert predict._cache_size() == 5
    for prepared, (answer, first_masks) in found:
        padded = padding.pad(prepared.preprocessed)
        alone, alone_first = model.predict_with_first_masks(padded[None])
        height, width = padded.shape[:2]
        np.testing.assert_allclose(answer.probabilities, alone.probabilities, rtol=0, atol=1e-6)
        np.testing.assert_allclose(answer.masks[:, :height, :width], alone.masks, rtol=0, atol=1e-5)
        np.testing.assert_allclose(first_masks[:, :height, :width], alone_first, rtol=0, atol=1e-5)
        assert not np.asarray(answer.masks)[:, height:].any() and np.ptp(alone.masks) > 0.01


def test_a_canvas_that_was_compiled_ahead_is_not_compiled_again(model):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    )
    model.compile((64, 64))
    assert len(compiled) == 1
    image = np.zeros((1, 64, 64, 3), np.uint8)
    model.predict_with_first_masks(canvas.Canvas(image, np.array([[64, 64]], np.int32)))
    assert len(compiled) == 1
    model.predict_with_first_masks(image)
    assert len(compiled) == 2


class _OnCanvases(served.GreenMask):
    """Waits with each canvas until it is released, and notes its shape."""

    reads_canvases = True
    background_classes = ()

    def __init__(self):
        super().__init__()
        self.released, self.asked = threading.Semaphore(0), []

    def compile(self, shape):
        self.asked.append(shape)
        assert self.released.acquire(timeout=30)

    def predict(self, images):
        self.compile(images.pixels.shape[1:3])
        return super().predict(images.pixels)

    def finish_mask(self, mask, prepared_size, size):
        return padding.crop_back(mask, prepared_size).astype(np.float32)


def test_canvases_are_compiled_before_the_first_image_which_waits_for_one_at_most():
    predictor = _OnCanvases()
    with served.serve(predictor, max_pixels=64_000) as port:
        served.wait_until(lambda: predictor.asked == [(64, 64)])
        answered = []
        for number in range(2):
            content = served.png(np.zeros((150, 150 + number, 3), np.uint8))
            asking = threading.Thread(
                target=lambda: answered.append(json.loads(served.ask(port, "POST", "/predict", content)[2]))
            )
            asking.start()
            served.wait_until(lambda: json.loads(served.ask(port, path="/activity")[2])["waiting"] == 1)
            if number == 0:  # while the first canvas is compiled
                time.sleep(1)  # the request counts as waiting shortly before it is queued behind the canvas
                predictor.released.release(2)
                asking.join()
                served.wait_until(lambda: predictor.asked == [(64, 64), (160, 160), (224, 320)])
                predictor.released.release(2)
                served.wait_until(lambda: len(predictor.asked) == 4)
            else:
                predictor.released.release()
                asking.join()
        assert predictor.asked == [(64, 64), (160, 160), (224, 320), (320, 224), (160, 160)]
    assert [answer["compiled"] for answer in answered] == [True, False]


def test_a_canvas_that_cannot_be_computed_is_told_by_the_answer(monkeypatch):
    predictor = _OnCanvases()
    predictor.predict = predictor.compile = lambda images: 1 / 0
    with served.serve(predictor) as port:
        status, _, content = served.ask(port, "POST", "/predict", served.png(served.image()))
    assert status == 500 and "ZeroDivisionError" in json.loads(content)["error"]
