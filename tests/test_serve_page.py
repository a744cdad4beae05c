"""The page in a browser, and the program that serves it."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from tests import browser, programs, saved_models, served


def _text(page, name):
    return page.evaluate(f"document.getElementById('{name}').textContent")


def _wait_for_answer(page, start):
    page.wait_for(f"document.getElementById('status').textContent.startsWith('{start}')")


@pytest.mark.slow
def test_a_mask_is_looked_at_in_a_browser(tmp_path):
    image, red, text = tmp_path / "one.png", tmp_path / "red & <b>.png", tmp_path / "text.png"
    image.write_bytes(served.png(served.image()))
    red.write_bytes(served.png(np.full((40, 40, 3), 255, np.uint8)))
    text.write_bytes(b"text")
    num_pixels, faint, strong = 40 * 64, 16 * 20, 2 * 5 * 6 + 4
    with served.serve(served.GreenMask(), max_megabytes=0.05) as port, browser.open_page(tmp_path / "profile") as page:
        page.show_as(width=390, height=844)
        page.go_to(f"http://127.0.0.1:{port}/")
        page.wait_for("document.getElementById('limits').textContent.includes('0.05 MB')")
        assert _text(page, "name") == "run 1" and served.FLAG in _text(page, "model-flags")

        page.choose_file("#file", image)
        _wait_for_answer(page, "one.png: plain, probability 0.90; 15.0 % foreground; 2 reasons")
        assert _text(page, "pixels") == f"{faint + strong} of {num_pixels} pixels" and _text(page, "instances") == "2"
        assert "background entropy is low" in _text(page, "flags") and served.FLAG in _text(page, "flags")
        assert _text(page, "foreground-entropy") == "Entropy 0.10 of 0.69 nats: identifies a class"
        assert page.evaluate("document.getElementById('seen-foreground').naturalWidth") == 32
        assert page.evaluate("document.documentElement.scrollWidth") <= 390

        # By the keyboard: 0.50 to 0.61, above the faint region.
        page.evaluate("document.getElementById('threshold').focus()")
        page.press("ArrowRight", 10)
        page.wait_for("document.getElementById('threshold-value').textContent === '0.60'")
        assert _text(page, "pixels") == f"{faint + strong} of {num_pixels} pixels"
        page.press("ArrowRight")
        page.wait_for(f"document.getElementById('pixels').textContent === '{strong} of {num_pixels} pixels'")
        assert _text(page, "share") == "2.5 %" and _text(page, "instances") == "1"
        assert "2.5 % foreground, 1 instances" in page.evaluate("document.getElementById('canvas').ariaLabel")

        page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        page.evaluate("document.getElementById('download').click()")
        served.wait_until((tmp_path / "one_mask.png").exists)
        with Image.open(tmp_path / "one_mask.png") as picture:
            assert picture.mode == "L"
            np.testing.assert_array_equal(np.asarray(picture), 255 * (served.image()[..., 1] > 155).astype(np.uint8))

        page.evaluate("document.getElementById('reset').click()")
        page.wait_for("document.getElementById('threshold-value').textContent === '0.50'")

        page.drop_file("#drop", red)
        _wait_for_answer(page, "red & <b>.png: red, probability 0.90; 100.0 % foreground")
        assert page.evaluate("document.getElementById('canvas').width") > 300
        page.drop_file("#drop", text)
        page.wait_for("document.getElementById('error').textContent.includes('cannot be read as an image')")
        assert not page.evaluate("document.getElementById('result').checkVisibility()")
        text.write_bytes(b"0" * 50_001)
        page.drop_file("#drop", text)
        page.wait_for("document.getElementById('error').textContent.includes('at most 0.05 MB')")

        asked = {event["params"]["request"]["url"] for event in page.events if event["method"].endswith("WillBeSent")}
        assert all(url.startswith((f"http://127.0.0.1:{port}/", "data:", "blob:")) for url in asked)
        problems = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        assert not [event for event in page.events if event["method"] in problems]
        logged = [event["params"]["entry"] for event in page.events if event["method"] == "Log.entryAdded"]
        assert [entry["text"] for entry in logged if "422" not in entry["text"]] == []


@pytest.mark.slow
def test_colours_of_the_picture(tmp_path):
    """The foreground is tinted, its outline is yellow, the rest is the image."""
    (tmp_path / "one.png").write_bytes(served.png(served.image()))
    with served.serve(served.GreenMask()) as port, browser.open_page(tmp_path / "profile") as page:
        page.show_as(width=1280)
        page.go_to(f"http://localhost:{port}/")
        page.wait_for("document.getElementById('limits').textContent")
        page.choose_file("#file", tmp_path / "one.png")
        _wait_for_answer(page, "one.png")
        canvas = "document.getElementById('canvas')"
        scale = page.evaluate(f"{canvas}.width") / 64

        def pixel(x, y):
            place = f"{round(x * scale)}, {round(y * scale)}, 1, 1"
            return page.evaluate(f"[...{canvas}.getContext('2d').getImageData({place}).data]")[:3]

        # 0.75 (0, 153, 0) + 0.25 (255, 212, 0)
        np.testing.assert_allclose(pixel(14, 12), [63.75, 167.75, 0], atol=2)
        assert pixel(34, 20) == [0, 0, 0]
        row = page.evaluate(
            f"[...{canvas}.getContext('2d').getImageData(0, {round(12 * scale)}, {30 * scale}, 1).data]"
        )
        assert (np.array(row).reshape(-1, 4)[:, :3] == [255, 212, 0]).all(axis=1).sum() >= 4  # two crossings
        page.evaluate("document.getElementById('opacity').value = 0, document.getElementById('outline').click()")
        page.wait_for("document.getElementById('opacity-value').textContent === '0 %'")
        assert pixel(14, 12) == [0, 153, 0]


@pytest.mark.slow
def test_from_the_command_line(tmp_path):
    saved_models.write(tmp_path / "run")
    (tmp_path / "one.png").write_bytes(served.png(served.image()[:32, :32]))
    command = [sys.executable, "-m", "experiments.serve", f"--workdir={tmp_path}/run"]
    options = dict(cwd=programs.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    options["env"] = os.environ | {"PYTHONWARNINGS": "ignore"}
    # A shell that starts the tests in the background lets all of them ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with subprocess.Popen([*command, "--port=0"], **options) as process:
            port = int(re.search(r"http://127.0.0.1:(\d+)/", process.stdout.readline())[1])
            answered, _, content = served.ask(port, "POST", "/predict", (tmp_path / "one.png").read_bytes())
            answer = json.loads(content)
            assert answered == 200 and sum(answer["probabilities"].values()) == pytest.approx(1)
            assert served.pixels(answer["mask"]).shape == (32, 32) and set(answer["seen"]) == {
                "foreground",
                "background",
            }
            second = subprocess.run([*command, f"--port={port}"], **options)
            assert second.returncode == 1 and f"--port={port} is in use" in second.stderr
            process.send_signal(number)
            assert process.wait(30) == status
            assert "Traceback" not in process.stderr.read()
    done = programs.run("serve", command[-1], "--max_megabytes=0")
    assert done.returncode == 1 and "--max_megabytes=0" in done.stderr
