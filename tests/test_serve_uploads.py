"""Uploads: files as they are and in forms, and those that stall, over real sockets."""

import contextlib
import html.parser
import json
import socket
import time

import numpy as np
import pytest

from minmax_jax.base.errors import UserError
from minmax_jax.serve import server, uploads
from tests import served

_NUM_STALLED = 30


def _connect(port, length, body=b""):
    """A connection that has sent a part of an upload."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = f"POST /predict HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def _read_to_end(connection):
    """What a server sends until it closes the connection."""
    content = b""
    while chunk := connection.recv(1 << 16):
        content += chunk
    return content


def test_stalled_uploads_keep_nobody_waiting():
    """More of them than images may wait; each has sent a byte of its file, or none."""
    content = served.png(served.image())
    with served.serve(served.GreenMask()) as port, contextlib.ExitStack() as stack:
        for number in range(_NUM_STALLED):
            stack.enter_context(_connect(port, 1000, content[: number % 2]))
        assert served.ask(port, "POST", "/predict", content)[0] == 200
        assert json.loads(served.ask(port, path="/activity")[2]) == {"activity": "idle", "waiting": 0}


def test_a_stalled_upload_is_ended_with_a_reason(monkeypatch):
    monkeypatch.setattr(uploads, "_SECONDS_WITHOUT_BYTES", 0.2)
    with served.serve(served.GreenMask()) as port, _connect(port, 1000, b"abc") as connection:
        answer = _read_to_end(connection)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"The upload stalled: nothing came for 0.2 seconds" in answer


def test_an_upload_of_single_bytes_is_ended_as_well(monkeypatch):
    monkeypatch.setattr(uploads, "_SECONDS_IN_ALL", 0.5)
    with served.serve(served.GreenMask()) as port, _connect(port, 10_000) as connection:
        start = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < start + 20:
                connection.sendall(b"0")
                time.sleep(0.02)
        assert time.monotonic() < start + 10
        assert served.ask(port, "POST", "/predict", served.png(served.image()))[0] == 200


@pytest.mark.parametrize("begun", [b"", b"POST /predict HTTP/1.1\r\nHost: local", b"GET /run HTTP/1.1\r\n"])
def test_a_connection_without_a_request_is_closed(monkeypatch, begun):
    monkeypatch.setattr(server, "_SECONDS_TO_ASK", 0.2)
    with served.serve(served.GreenMask()) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(begun)
            assert _read_to_end(connection) == b""
        if not begun:
            return
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:  # after a first request
            connection.sendall(f"GET /activity HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode() + begun[:20])
            assert b"idle" in _read_to_end(connection)


def test_a_slow_answer_is_waited_for(monkeypatch):
    """A connection whose request is complete is not closed, however long its answer takes."""
    monkeypatch.setattr(server, "_SECONDS_TO_ASK", 0.1)
    predictor = served.GreenMask()
    predict = predictor.predict
    predictor.predict = lambda images: (time.sleep(0.6), predict(images))[1]
    with served.serve(predictor) as port:
        assert served.ask(port, "POST", "/predict", served.png(served.image()))[0] == 200


def test_incomplete_uploads_take_a_bounded_amount_of_memory(monkeypatch):
    monkeypatch.setattr(uploads, "_MAX_AT_ONCE", 1)
    with served.serve(served.GreenMask(), max_megabytes=0.1) as port:
        with _connect(port, 150_000, bytes(140_000)):
            served.wait_until(lambda: served.ask(port, "POST", "/predict", bytes(99_000))[0] == 503)
            status, _, content = served.ask(port, "POST", "/predict", bytes(99_000))
            assert status == 503 and "Too many uploads are under way" in json.loads(content)["error"]
        served.wait_until(lambda: served.ask(port, "POST", "/predict", served.png(served.image()))[0] == 200)


def _form(*parts, boundary="xYz"):
    """A form of (head, content) parts, as RFC 7578 has it."""
    body = b"".join(f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + b"\r\n" for head, content in parts)
    return body + f"--{boundary}--\r\n".encode()


_FIELD = 'Content-Disposition: form-data; name="note"'
_FILE = 'Content-Disposition: form-data; name="image"; filename="a \\"b\\".png"\r\nContent-Type: image/png'


def test_forms():
    rng = np.random.default_rng(0)
    for content in (b"", b"\r\n", b"--xY", b"\r\n--x", rng.integers(0, 256, 5000, np.uint8).tobytes()):
        form = _form((_FIELD, b"text"), (_FILE, content), (_FILE, b"another"))
        assert uploads.extract("multipart/form-data; boundary=xYz", form) == content
        assert uploads.extract('Multipart/Form-Data; charset=utf-8; boundary="xYz"', b"before\r\n" + form) == content
        # Whatever else a body is called, it is the file; curl calls it a form of another kind.
        for kind in ("", "image/png", "application/x-www-form-urlencoded", "multipart/form-data"):
            assert uploads.extract(kind, content) == content


@pytest.mark.parametrize("body", [b"", _form((_FIELD, b"text")), b"no form at all"])
def test_a_form_without_a_file_is_named(body):
    with pytest.raises(UserError, match="The form has no file"):
        uploads.extract("multipart/form-data; boundary=xYz", body)


def test_a_form_is_answered_as_its_sender_reads():
    """JSON for curl; a page for browsers, whose names and errors are text, not markup."""
    predictor = served.GreenMask()
    predictor.class_names = ("<b>plain", "red")
    kind = {"Content-Type": "multipart/form-data; boundary=xYz"}
    form = _form((_FILE, served.png(served.image())))
    with served.serve(predictor) as port:
        status, _, content = served.ask(port, "POST", "/predict", form, **kind, Accept="*/*")
        assert status == 200 and json.loads(content)["class"] == "<b>plain"
        browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", **kind}
        status, headers, content = served.ask(port, "POST", "/predict", form, **browser)
        page = content.decode()
        assert status == 200 and headers["content-type"].startswith("text/html")
        assert "<td>&lt;b&gt;plain</td><td>0.900</td>" in page and "15.0 %, 2 instances" in page
        assert "background entropy is low" in page and page.count('src="data:image/png;base64,') == 2
        status, _, content = served.ask(port, "POST", "/predict", _form((_FILE, b"text")), **browser)
        assert status == 422 and b'role="alert">The file cannot be read as an image' in content
        status, _, content = served.ask(port, "POST", "/predict", _form((_FILE, b"")), **browser)
        assert status == 422 and b"The file is empty." in content


def test_the_size_of_a_file_in_a_form_is_that_of_the_file():
    with served.serve(served.GreenMask(), max_megabytes=0.01) as port:
        kind = {"Content-Type": "multipart/form-data; boundary=xYz"}
        for size, status in ((10_000, 422), (10_001, 413), (200_000, 413)):
            assert served.ask(port, "POST", "/predict", _form((_FILE, b"0" * size)), **kind)[0] == status


class _Names(html.parser.HTMLParser):
    """The fields of a page, the texts of the labels for them, and what is inside of labels."""

    def __init__(self):
        super().__init__()
        self.fields, self.labels, self.inside, self.form = {}, {}, [], {}
        self._label = None

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag in ("input", "select"):
            self.fields[attributes["id"]] = attributes
        if tag == "form":
            self.form = attributes
        if tag == "label":
            self._label = attributes.get("for", "")
        elif self._label is not None:
            self.inside.append(tag)
            if tag == "input":
                self._label = attributes["id"]

    def handle_data(self, data):
        if self._label is not None:
            self.labels[self._label] = self.labels.get(self._label, "") + data.strip()

    def handle_endtag(self, tag):
        self._label = None if tag == "label" else self._label


def test_fields_have_names_and_the_form_works_without_scripts():
    with served.serve(served.GreenMask()) as port:
        page = served.ask(port)[2].decode()
    found = _Names()
    found.feed(page)
    names = {"file": "Choose an image", "threshold": "Threshold", "opacity": "Opacity", "layer": "Tint"}
    assert found.labels == names | {"outline": "Outline"} and found.fields.keys() == found.labels.keys()
    assert "output" not in found.inside  # it would be what its label names
    assert found.form["method"] == "post" and found.form["enctype"] == "multipart/form-data"
    assert found.form["action"] == "predict" and found.fields["file"]["name"] == "image"
    # Relative: a proxy may show the page below another path.
    assert 'href="/' not in page and 'src="/' not in page and 'type="submit"' in page
