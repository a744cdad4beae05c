"""The server of the page: what it answers, what it refuses, and that one image follows another."""

import contextlib
import http.client
import json
import re
import socket
import sys
import threading

import numpy as np
import pytest

from minmax_jax.base.errors import OptionError, UserError
from minmax_jax.serve import application, guard, server
from tests import served


@pytest.fixture(scope="module")
def port():
    with served.serve(served.GreenMask(), max_megabytes=0.05, max_megapixels=0.01) as port:
        yield port


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript"), ("/mask.js", "text/javascript")],
)
def test_the_page_asks_for_nothing_from_elsewhere(port, path, kind):
    status, headers, content = served.ask(port, path=path)
    assert status == 200 and headers["content-type"].startswith(kind)
    assert b"http:" not in content and b"https:" not in content and b"style=" not in content
    # Relative to the page, which a proxy may show below another path.
    assert not re.search(rb"(?:fetch\(|from |href=|src=|action=)[\"']/", content)


@pytest.mark.parametrize("path", ["/", "/run", "/nothing"])
def test_every_answer_has_the_policy_and_none_is_shared_or_kept(port, path):
    headers = served.ask(port, path=path)[1]
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["form-action"] == "'self'"
    assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] == "nosniff"
    assert not any(name.startswith("access-control") for name in headers)


def test_other_names_of_the_host_are_refused(port):
    """Any port of this machine is one that a tunnel may have; a name that begins like it is another machine's."""
    for host in (f"127.0.0.1:{port}", f"LOCALHOST:{port}", "localhost:9000", "127.0.0.1", f"[::1]:{port}"):
        assert served.ask(port, path="/run", Host=host)[0] == 200
    for host in (f"evil.example:{port}", f"127.0.0.1.evil.example:{port}", "localhost.evil.example", "localhost:", ""):
        status, headers, content = served.ask(port, path="/run", Host=host)
        assert status == 403 and b"run 1" not in content and "content-security-policy" in headers
        assert f"refused under the name '{host}'" in content.decode() and b"start it with public_url" in content


def test_other_pages_are_refused(port):
    content = served.png(served.image())
    for origin in (f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
        assert served.ask(port, "POST", "/predict", content, Origin=origin)[0] == 200
    others = ("http://evil.example", "null", f"https://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}", "")
    for origin in others:
        assert served.ask(port, "POST", "/predict", content, Origin=origin)[0] == 403


def test_a_tunnel_from_another_port(port):
    """A browser at the other end of `ssh -L 9000:localhost:8000` names its own port; another page there is foreign."""
    content = served.png(served.image())
    for origin, status in (
        ("http://localhost:9000", 200),
        ("http://localhost:9001", 403),
        ("http://evil.example", 403),
    ):
        assert served.ask(port, "POST", "/predict", content, Host="localhost:9000", Origin=origin)[0] == status


@pytest.mark.parametrize("path", ["/user/me/proxy/8000", ""])  # of proxies that keep the path, and that remove it
def test_a_proxy_with_another_name(path):
    name = "Hub.example.org"
    with served.serve(served.GreenMask(), public_url=f"https://{name}/user/me/proxy/8000/") as port:
        for host in (name, f"{name}:443", f"127.0.0.1:{port}"):  # as it came, or as the proxy asks
            assert served.ask(port, path=f"{path}/run", Host=host)[0] == 200
            origin = f"https://{name.lower()}"
            content = served.png(served.image())
            assert served.ask(port, "POST", f"{path}/predict", content, Host=host, Origin=origin)[0] == 200
            for other in (f"http://{name.lower()}", "https://evil.example", "null"):
                assert served.ask(port, "POST", f"{path}/predict", content, Host=host, Origin=other)[0] == 403
        for host in ("evil.example", f"{name}:444", f"a.{name}"):
            assert served.ask(port, path=f"{path}/run", Host=host)[0] == 403
        assert served.ask(port, path="/user/me/proxy/80001/run", Host=name)[0] == 404
        status, headers, _ = served.ask(port, path="/user/me/proxy/8000", Host=name)
        assert status == 307 and headers["location"] == "/user/me/proxy/8000/"


def test_a_proxy_whose_path_is_encoded():
    """JupyterHub has a user's mail address in the path."""
    path = "/user/me%40example.org/proxy/8000"
    with served.serve(served.GreenMask(), public_url=f"https://hub.example.org{path}/") as port:
        assert served.ask(port, path=f"{path}/run", Host="hub.example.org")[0] == 200
        status, headers, _ = served.ask(port, path=path, Host="hub.example.org")
        assert status == 307 and headers["location"] in (f"{path}/", "/user/me@example.org/proxy/8000/")


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("https://a.example", "https://a.example", ""),
        ("https://A.example:443/", "https://a.example", ""),
        ("http://a.example:8080/x/y/", "http://a.example:8080", "/x/y"),
        ("http://[::1]:80", "http://[::1]", ""),
        ("https://a.example/user/me%40b.org/%C3%BC/", "https://a.example", "/user/me@b.org/ü"),  # as a request has it
    ],
)
def test_public_addresses(url, origin, path):
    assert guard.parse_url(url) == guard.PublicUrl(origin, path)


@pytest.mark.parametrize(
    "url", ["a.example", "ftp://a.example/", "https://", "https://a:b/", "https://u@a/", "https://a/?q", "https://[a/"]
)
def test_what_is_no_public_address_is_named(url):
    with pytest.raises(OptionError, match=f"public_url={re.escape(repr(url))} must be an address"):
        guard.parse_url(url)


def test_facts_about_the_run(port):
    facts = json.loads(served.ask(port, path="/run")[2])
    assert facts["name"] == "run 1" and facts["class_names"] == ["plain", "red"] and facts["step"] == 7
    assert facts["max_entropy"] == pytest.approx(np.log(2)) and facts["max_megabytes"] == 0.05
    assert len(facts["flags"]) == 1 and served.FLAG in facts["flags"][0] and facts["prior"] == ""


def test_a_prediction(port):
    status, _, content = served.ask(port, "POST", "/predict", served.png(served.image()))
    answer, expected = json.loads(content), served.answer(served.png(served.image()))
    assert status == 200 and served.FLAG in answer.pop("flags")[-1]
    assert {name: answer[name] for name in expected if name != "flags"} == {
        name: value for name, value in expected.items() if name != "flags"
    }
    assert answer["seconds"] >= 0


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"0" * 50_001, 413, "more than 0.05 MB"),
        (b"0" * 5_000_000, 413, "more than 0.05 MB"),
        (served.png(np.zeros((101, 101, 3), np.uint8)), 413, "101 x 101 pixels"),
        (b"text", 422, "cannot be read as an image"),
        (b"", 422, "is empty"),
    ],
)
def test_refusals_have_a_status_and_a_reason(port, body, status, message):
    answered, _, content = served.ask(port, "POST", "/predict", body)
    assert answered == status and message in json.loads(content)["error"]


def test_a_defect_is_told_and_the_server_goes_on(caplog):
    predictor = served.GreenMask()
    predict, predictor.predict = predictor.predict, lambda images: 1 / 0
    with served.serve(predictor) as port:
        status, _, content = served.ask(port, "POST", "/predict", served.png(served.image()))
        assert status == 500 and "ZeroDivisionError" in json.loads(content)["error"]
        assert "ZeroDivisionError" in caplog.text
        predictor.predict = predict
        assert served.ask(port, "POST", "/predict", served.png(served.image()))[0] == 200


class _Slow(served.GreenMask):
    """A prediction takes until it is released."""

    def __init__(self):
        super().__init__()
        self.released, self.running, self.maximum = threading.Event(), 0, 0

    def predict(self, images):
        self.running += 1
        self.maximum = max(self.maximum, self.running)
        assert self.released.wait(30)
        self.running -= 1
        return super().predict(images)


def _activity(port):
    return json.loads(served.ask(port, path="/activity")[2])


def test_one_prediction_at_a_time_while_the_server_answers():
    predictor, statuses = _Slow(), []
    with served.serve(predictor) as port:
        asking = [
            threading.Thread(
                target=lambda: statuses.append(served.ask(port, "POST", "/predict", served.png(served.image()))[0])
            )
            for _ in range(3)
        ]
        for thread in asking:
            thread.start()
        served.wait_until(lambda: _activity(port) == {"activity": "compiling", "waiting": 3})
        assert served.ask(port)[0] == 200
        predictor.released.set()
        for thread in asking:
            thread.join()
        assert statuses == [200, 200, 200] and predictor.maximum == 1
        assert _activity(port) == {"activity": "idle", "waiting": 0}


def test_too_many_waiting_images_are_refused(monkeypatch):
    monkeypatch.setattr(application, "_MAX_WAITING", 1)
    predictor = _Slow()
    with served.serve(predictor) as port:
        thread = threading.Thread(target=served.ask, args=(port, "POST", "/predict", served.png(served.image())))
        thread.start()
        served.wait_until(lambda: predictor.running)
        status, _, content = served.ask(port, "POST", "/predict", served.png(served.image()))
        assert status == 503 and "1 images are waiting" in json.loads(content)["error"]
        predictor.released.set()
        thread.join()


def test_an_image_that_was_given_up_is_not_predicted():
    predictor = _Slow()
    with served.serve(predictor) as port:
        thread = threading.Thread(target=served.ask, args=(port, "POST", "/predict", served.png(served.image())))
        thread.start()
        served.wait_until(lambda: predictor.running)
        content = served.png(served.image())
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: "
        for length, waiting in ((len(content), 2), (len(content) + 1, 1)):  # while it waits, and while it is sent
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(f"{head}{length}\r\n\r\n".encode() + content)
                served.wait_until(lambda: _activity(port)["waiting"] == waiting)
            served.wait_until(lambda: _activity(port)["waiting"] == 1)  # its place is free before its turn comes
        predictor.released.set()
        thread.join()
        served.wait_until(lambda: _activity(port)["waiting"] == 0)
        assert len(predictor.shapes) == 1


def test_two_browsers_get_their_own_answers():
    """At the same time, over connections that stay open, images of several sizes."""
    predictor, found = served.GreenMask(), {}

    def ask(browser):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with contextlib.closing(connection):
            for number in range(6):
                size = (40 + 32 * number, 40 + 64 * browser)
                connection.request("POST", "/predict", served.png(np.zeros((*size, 3), np.uint8)))
                answer = json.loads(connection.getresponse().read())
                found[browser, number] = (answer["height"], answer["width"]) == size

    with served.serve(predictor) as port:
        threads = [threading.Thread(target=ask, args=(browser,)) for browser in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 24 and all(found.values())


def test_the_first_prediction_goes_on_where_its_client_left():
    """Its turn ends with it, and the next image is predicted."""
    predictor = _Slow()
    with served.serve(predictor) as port:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            content = served.png(served.image())
            head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
            connection.sendall(head.encode() + content)
            served.wait_until(lambda: predictor.running)
        predictor.released.set()
        assert served.ask(port, "POST", "/predict", served.png(served.image()))[0] == 200
        assert _activity(port) == {"activity": "idle", "waiting": 0}


def test_compiled_sizes_are_bounded(monkeypatch):
    monkeypatch.setattr(application, "_MAX_COMPILED", 2)
    cleared = []
    monkeypatch.setattr(application.jax, "clear_caches", lambda: cleared.append(1))
    with served.serve(served.GreenMask()) as port:
        compiled = []
        for sizes in ((40, 64), (33, 60), (40, 70), (40, 100), (40, 64)):
            content = served.png(np.zeros((*sizes, 3), np.uint8))
            compiled.append(json.loads(served.ask(port, "POST", "/predict", content)[2])["compiled"])
            assert len(cleared) == (len(compiled) >= 4)
    assert compiled == [True, False, True, True, True]


def test_a_port_in_use_is_named():
    with contextlib.closing(server.listen(0)) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        port = listener.getsockname()[1]
        with pytest.raises(OptionError, match=f"port={port} is in use"):
            server.listen(port)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_number_that_is_no_port_is_named(port):
    with pytest.raises(OptionError, match=f"port={port} must be"):
        server.listen(port)


def test_a_port_that_is_not_allowed_is_named(monkeypatch):
    class Refusing(socket.socket):
        def bind(self, address):
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(server.socket, "socket", Refusing)
    with pytest.raises(OptionError, match=r"port=80 cannot be used \(Permission denied\)"):
        server.listen(80)


def test_missing_packages_are_named(monkeypatch):
    server.check_packages()
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None if name == "uvicorn" else name)
    with pytest.raises(UserError, match=r"needs uvicorn: pip install 'minmax_jax\[serve\]'"):
        server.check_packages()
