"""Headless Chromium for tests, by its DevTools protocol over two pipes: JSON messages that end with NUL."""

from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import time
from typing import Any

import pytest

_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
]
# Chromium reads from descriptor 3 and writes to 4.
_LAUNCH = "import os, sys; [os.dup2(int(sys.argv[i]), 2 + i) for i in (1, 2)]; os.execv(sys.argv[3], sys.argv[3:])"
_SECONDS = 60  # for an answer, or for a condition to become true


class Page:
    """A page of the browser.

    Attributes:
        events: messages of the browser that answer nothing.
    """

    def __init__(self, reading: int, writing: int):
        self.events: list[dict[str, Any]] = []
        self._reading, self._writing, self._buffer, self._last = reading, writing, b"", 0
        self._session: dict[str, str] = {}
        target = self.call("Target.createTarget", url="about:blank")
        self._session = {
            "sessionId": self.call("Target.attachToTarget", flatten=True, targetId=target["targetId"])["sessionId"]
        }
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters, **self._session}
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._reading], [], [], _SECONDS)[0], "Chromium does not answer."
            content = os.read(self._reading, 1 << 20)
            assert content, "Chromium has ended."
            self._buffer += content
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """The value of an expression, once that is true."""
        end = time.monotonic() + _SECONDS
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, (
                f"{expression} did not become true: {self.evaluate('document.body.innerText')}"
            )
            time.sleep(0.05)
        return value

    def go_to(self, url: str) -> None:
        """Opens an address."""
        self.call("Page.navigate", url=url)
        self.wait_for(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url)})")

    def choose_file(self, selector: str, path: pathlib.Path) -> None:
        """Chooses a file in an input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def drop_file(self, selector: str, path: pathlib.Path) -> None:
        """Drops a file on the middle of an element."""
        x, y = self.evaluate(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def press(self, key: str, times: int = 1) -> None:
        """Presses a key of the keyboard."""
        codes = {"Tab": 9, "Enter": 13, "Space": 32, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}
        text = {"Enter": "\r", "Space": " "}.get(key)
        for _ in range(times):
            for kind in ("keyDown", "keyUp"):
                self.call(
                    "Input.dispatchKeyEvent",
                    type=kind,
                    code=key,
                    key=" " if key == "Space" else key,
                    windowsVirtualKeyCode=codes[key],
                    **({"text": text} if text and kind == "keyDown" else {}),
                )

    def show_as(self, *, width: int, height: int = 900, scheme: str = "light") -> None:
        """Size of the window, in CSS pixels, and the scheme of colours."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if width < 600 else 1,
            mobile=width < 600,
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])


def find() -> str:
    """The program; the test is skipped where there is none."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("There is no Chromium here: the page was not opened.")
    return program


@contextlib.contextmanager
def open_page(folder: pathlib.Path) -> Iterator[Page]:
    """A page of a new browser; the test is skipped where there is none.

    Args:
        folder: an empty one, for the browser's own files.
    """
    program = find()
    (to_read, writing), (reading, to_write) = os.pipe(), os.pipe()
    command = [sys.executable, "-c", _LAUNCH, str(to_read), str(to_write), program, *_FLAGS]
    process = subprocess.Popen(
        [*command, f"--user-data-dir={folder}"], pass_fds=(to_read, to_write), stderr=subprocess.DEVNULL
    )
    os.close(to_read)
    os.close(to_write)
    try:
        page = Page(reading, writing)
        yield page
        page.call("Browser.close") if process.poll() is None else None
    finally:
        os.close(reading)
        os.close(writing)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
