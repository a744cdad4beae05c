"""A served predictor whose answers can be computed by hand, an image for it, and requests."""

import base64
import contextlib
import http.client
import io
import threading
import time

import numpy as np
from PIL import Image

from minmax_jax.data import preprocessing
from minmax_jax.method import Prediction
from minmax_jax.minmax import method as minmax
from minmax_jax.serve import answers, application, guard, server

FLAG = "masks of this model carry no evidence"


class GreenMask:
    """The green channel is the mask; the class is red where the middle of the image is; both entropies are 0.1."""

    class_names = ("plain", "red")
    reads_canvases = False
    preprocessing = preprocessing.Preprocessing()

    def __init__(self, scores=("foreground_entropy", "background_entropy")):
        self.background_classes = ()
        self.card = {"foreground_threshold": 0.5, "step": 7, "crop_size": [64, 64], "model": {"classifier_scale": 0.5}}
        self.shapes, self.scores = [], {name: minmax.SCORES[name] for name in scores}
        self.has_classifier = bool(scores)

    def predict(self, images):
        self.shapes.append(images.shape)
        red = (images[:, images.shape[1] // 2, images.shape[2] // 2, 0] > 200).astype(int)
        probabilities = np.eye(2)[red] * 0.8 + 0.1
        return Prediction(probabilities, images[..., 1:2] / 255.0, {name: np.array([0.1]) for name in self.scores})

    def predict_with_first_masks(self, images):
        prediction = self.predict(images)
        return prediction, prediction.masks

    def finish_mask(self, mask, prepared_size, size):
        height, width = size
        top, left = (mask.shape[0] - height) // 2, (mask.shape[1] - width) // 2
        return mask[top : top + height, left : left + width].astype(np.float32)


def image():
    """40 x 64 pixels: 16 x 20 of green 153, twice 5 x 6 of green 230 that touch at a corner, and 2 x 2 of green 255."""
    image = np.zeros((40, 64, 3), np.uint8)
    image[4:20, 4:24, 1] = 153  # 0.6 of 255
    image[26:31, 44:50, 1] = image[31:36, 50:56, 1] = 230  # about 0.9
    image[2:4, 60:62, 1] = 255
    return image


def png(image, **options):
    """The bytes of a file of pixels."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", **options)
    return buffer.getvalue()


def pixels(url):
    """The pixels of a PNG in a data URL."""
    kind, _, content = url.partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        return np.asarray(picture)


def answer(content, predictor=None, **options):
    """The answer for the bytes of a file, without a server."""
    predictor = predictor or GreenMask()
    prepared = answers.prepare(predictor, content, limits=answers.Limits())
    return answers.predict(predictor, prepared, **{"model_flags": ()} | options)


@contextlib.contextmanager
def serve(predictor, *, public_url="", **limits):
    """The port of a server in a thread."""
    listener = server.listen(0)
    port = listener.getsockname()[1]
    app = application.create(
        predictor,
        name="run 1",
        results={"diagnosis": {"has_evidence": False}},
        limits=answers.Limits(**limits),
        port=port,
        public_url=guard.parse_url(public_url),
    )
    running = server.create(app)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield port
    finally:
        running.should_exit = True
        thread.join()
        listener.close()


def ask(port, method="GET", path="/", body=None, **headers):
    """(status, headers, content) of a response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()


def wait_until(condition):
    """Returns once a condition is true, and fails if that takes long."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
