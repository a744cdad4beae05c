"""Downloads from a server on this machine, which breaks off, lies, and knows no ranges."""

import hashlib
import http.server
import re
import tarfile
import threading

import pytest

from minmax_jax.data import dataset
from minmax_jax.data.importing import archives, download

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    """Does what the path's folder says: /breaks breaks off after 4000 bytes each time, /dies at once."""

    def do_GET(self):
        kind = self.path.split("/")[1]
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        self.server.requests.append((kind, start))
        content = {"other": CONTENT[::-1], "short": CONTENT[:-1]}.get(kind, self.server.content)
        if kind == "missing":
            self.send_error(404)
            return
        if kind != "noranges" and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        body = content if kind == "noranges" else content[start:]
        self.send_response(206 if start and kind != "noranges" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: {"breaks": 4000, "dies": 0}.get(kind)])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.requests, server.content = [], CONTENT
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _file(server, *kinds, **options):
    address = f"http://127.0.0.1:{server.server_address[1]}"
    return download.File(tuple(f"{address}/{kind}/data.tgz" for kind in kinds), **options)


CHECKED = {"size": len(CONTENT), "sha256": SHA256}


def _fetch(file, folder):
    download.fetch([file], folder, homepage="https://home.page")
    assert (folder / "data.tgz").read_bytes() == CONTENT
    assert [path.name for path in folder.iterdir()] == ["data.tgz"]


@pytest.mark.parametrize("options", [{}, {"size": len(CONTENT)}, CHECKED])
def test_a_file_is_downloaded_once(server, tmp_path, options):
    for _ in range(2):
        _fetch(_file(server, "whole", **options), tmp_path / "new")
    assert server.requests == [("whole", 0)]


@pytest.mark.parametrize("options", [{}, CHECKED])
@pytest.mark.parametrize("kind, starts", [("whole", [3000]), ("noranges", [3000]), ("breaks", [3000, 7000])])
def test_a_killed_download_is_continued(server, tmp_path, kind, starts, options):
    (tmp_path / "data.tgz.part").write_bytes(CONTENT[:3000])
    _fetch(_file(server, kind, **options), tmp_path)
    assert server.requests == [(kind, start) for start in starts]


def test_a_connection_that_breaks_again_and_again(server, tmp_path):
    _fetch(_file(server, "breaks"), tmp_path)
    assert server.requests == [("breaks", 0), ("breaks", 4000), ("breaks", 8000)]


@pytest.mark.parametrize("options, starts", [({}, [len(CONTENT)]), (CHECKED, [])])
def test_a_download_that_was_killed_before_it_got_its_name(server, tmp_path, options, starts):
    (tmp_path / "data.tgz.part").write_bytes(CONTENT)
    _fetch(_file(server, "whole", **options), tmp_path)
    assert server.requests == [("whole", start) for start in starts]


def test_what_is_longer_than_the_file_is_begun_anew(server, tmp_path):
    (tmp_path / "data.tgz.part").write_bytes(CONTENT + b"more")
    _fetch(_file(server, "whole"), tmp_path)
    assert server.requests == [("whole", len(CONTENT) + 4), ("whole", 0)]


@pytest.mark.parametrize("first", ["missing", "dies", "other", "short"])
def test_a_mirror_is_tried_where_the_official_place_fails(server, tmp_path, first):
    _fetch(_file(server, first, "whole", **CHECKED), tmp_path)
    assert server.requests[-1] == ("whole", 0)


def test_a_damaged_file_is_replaced(server, tmp_path):
    (tmp_path / "data.tgz").write_bytes(CONTENT[::-1])
    _fetch(_file(server, "whole", **CHECKED), tmp_path)


@pytest.mark.parametrize(
    "kind, message",
    [
        ("missing", r"/missing/data.tgz: HTTP Error 404"),
        ("dies", r"/dies/data.tgz: IncompleteRead"),
        ("other", rf"/other/data.tgz: its SHA-256 is [0-9a-f]{{64}} instead of {SHA256}"),
        ("short", rf"/short/data.tgz: it has {len(CONTENT) - 1} bytes instead of {len(CONTENT)}"),
    ],
)
def test_failures_name_the_page_and_every_file_that_is_needed(server, tmp_path, kind, message):
    wanted = _file(server, kind, **CHECKED)
    dead = download.File(("http://127.0.0.1:9/dead.tgz",))
    with pytest.raises(
        dataset.DataError, match=rf"(?s)by hand from\n  https://home.page\n.*data.tgz:.*{message}"
    ) as error:
        download.fetch([wanted, dead, _file(server, "whole")], tmp_path, homepage="https://home.page")
    assert "dead.tgz:\n    http://127.0.0.1:9/dead.tgz: " in str(error.value)
    assert not (tmp_path / "dead.tgz").exists()


def test_an_archive_whose_download_was_killed_becomes_a_part_of_a_release(server, tmp_path):
    (tmp_path / "jpg").mkdir()
    (tmp_path / "jpg" / "image_00001.jpg").write_bytes(CONTENT)
    with tarfile.open(tmp_path / "made.tgz", "w:gz") as tar:
        tar.add(tmp_path / "jpg", "jpg")
    server.content = (tmp_path / "made.tgz").read_bytes()
    folder = tmp_path / "downloads"
    folder.mkdir()
    (folder / "data.tgz.part").write_bytes(server.content[:100])
    download.fetch([_file(server, "whole")], folder, homepage="")
    part = archives.find([str(folder)], "jpg", archive="data.tgz", scratch=tmp_path / "scratch", homepage="")
    assert (part / "image_00001.jpg").read_bytes() == CONTENT
    assert server.requests == [("whole", 100)]


def test_a_full_disk_is_told_before_it_is_full(server, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match=r"has 0.0 GB left; data.tgz needs 0.0 GB more"):
        download.fetch([_file(server, "whole")], tmp_path, homepage="")
