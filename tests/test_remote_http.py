"""Codes behind http:// URLs, of a server with ranges, of one without, and of one that lies."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch
from torch import Tensor

import gpuzip
from tests.test_file_blocks import ROWS_PER_BLOCK, D, N
from tests.test_remote import in_blocks, places, x  # noqa: F401

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*should have at least:UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # fsspec keeps its session
]


class Server(ThreadingHTTPServer):
    """Serves one file. `lie` changes (status, headers, body) of each GET."""

    daemon_threads = False  # so that server_close waits for what they count

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.sent, self.gets = data, 0, 0
        self.lie: Callable[[int, dict[str, str], bytes], tuple[int, dict[str, str], bytes]] | None = None
        self.told: int | None = len(data)
        self.url = f"http://127.0.0.1:{self.server_port}/x.ezip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.send_response(200 if self.path == "/x.ezip" else 404)
        if self.server.told is not None:
            self.send_header("Content-Length", str(self.server.told))
        self.end_headers()

    def do_GET(self) -> None:
        data, asked = self.server.data, self.headers.get("Range")
        status, headers = 200 if self.path == "/x.ezip" else 404, {}
        if asked is not None:
            first, last = (int(part) for part in asked.removeprefix("bytes=").split("-"))
            status, headers["Content-Range"] = 206, f"bytes {first}-{last}/{len(data)}"
            data = data[first : last + 1]
        if self.server.lie is not None:
            status, headers, data = self.server.lie(status, headers, data)
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.server.sent, self.server.gets = self.server.sent + len(data), self.server.gets + 1
        try:  # counted first: who has read all may look at once
            self.wfile.write(data)
        except OSError:
            self.server.sent -= len(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def codes(x: Tensor) -> gpuzip.Codes:  # noqa: F811
    return gpuzip.ScalarQuantizer(8).fit(x).encode(x)


@pytest.fixture
def server(codes: gpuzip.Codes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server(in_blocks(codes, monkeypatch))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_rows_are_read_by_ranges(server: Server, codes: gpuzip.Codes):
    at = places(server.data)
    remote = gpuzip.open(server.url)
    codes_bytes = at["codes"][1] - at["codes"][0]
    assert server.sent == len(server.data) - codes_bytes + 1  # one byte shows that ranges are served
    server.sent = server.gets = 0
    assert torch.equal(remote.rows([5, 7, N - 1]), codes.rows([5, 7, N - 1]))
    assert (server.sent, server.gets) == ((ROWS_PER_BLOCK + 3) * D, 2)
    found = remote.search(codes.rows([11]), 1)
    assert found[1].tolist() == [[11]]
    assert server.sent == codes_bytes
    assert torch.equal(remote.decode(), codes.decode()) and server.sent == codes_bytes
    assert torch.equal(gpuzip.load(server.url), codes.decode())
    server.sent = 0
    assert gpuzip.info(server.url).n == N and server.sent < 2000


def test_a_file_that_is_not_there_and_one_that_cannot_be_written(server: Server, codes: gpuzip.Codes):
    with pytest.raises(FileNotFoundError, match=r"there is no file http://127\.0\.0\.1:\d+/y\.ezip"):
        gpuzip.open(server.url.replace("x.ezip", "y.ezip"))
    with pytest.raises(gpuzip.GpuzipError, match="must be a URL to write to; http is only read"):
        codes.save(server.url)
    with pytest.raises(gpuzip.GpuzipError, match="http is only read"):
        gpuzip.save("no rows: refused before they are looked at", server.url)  # type: ignore[arg-type]


def without_ranges(data: bytes) -> Callable[..., tuple[int, dict[str, str], bytes]]:
    return lambda status, headers, body: (200, {}, data)


def test_a_server_without_ranges_is_refused_before_it_sends_the_file(codes: gpuzip.Codes):
    server = Server(bytes(64 << 20))  # more than the buffers of a connection hold
    server.lie = without_ranges(server.data)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with pytest.raises(OSError, match="must serve ranges of bytes; it sends whole files"):
            gpuzip.open(server.url)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert server.sent == 0


def test_a_server_that_stops_to_serve_ranges_is_refused(server: Server, codes: gpuzip.Codes):
    remote = gpuzip.open(server.url)
    server.lie = without_ranges(server.data)
    with pytest.raises(OSError, match="or its server does not serve ranges: open it again"):
        remote.rows([0])
    server.lie = None
    assert torch.equal(remote.rows([0]), codes.rows([0]))


LIES: dict[str, Callable[[int, dict, bytes], tuple[int, dict, bytes]]] = {
    "short": lambda status, headers, body: (status, headers, body[:-1]),
    "long": lambda status, headers, body: (status, headers, body + b"x"),
    "cut": lambda status, headers, body: (status, headers | {"Content-Length": str(len(body) + 1)}, body),
    "other bytes": lambda status, headers, body: (status, headers, bytes(len(body))),
    "another range": lambda status, headers, body: (status, headers, body[1:] + body[:1]),
    "416": lambda status, headers, body: (416, {}, b""),
    "500": lambda status, headers, body: (500, {}, b""),
    "403": lambda status, headers, body: (403, {}, b""),
    "a page": lambda status, headers, body: (200, {"Content-Type": "text/html"}, b"<html>" * 9),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_lies_gives_an_error_and_never_rows(server: Server, codes: gpuzip.Codes, lie: str):
    remote = gpuzip.open(server.url)
    server.lie = LIES[lie]
    reads: list[Callable[[], Any]] = [lambda: remote.rows([3]), remote.decode]
    for read in [*reads, lambda: gpuzip.open(server.url), lambda: gpuzip.load(server.url)]:
        with pytest.raises((gpuzip.FormatError, OSError), match=r"127\.0\.0\.1"):
            read()
    server.lie = None
    assert torch.equal(remote.decode(), codes.decode())


@pytest.mark.parametrize("change", [-1, 1, 1 << 40, -(1 << 10)])
def test_a_server_that_lies_about_the_length_is_refused(server: Server, change: int):
    server.told = len(server.data) + change
    with pytest.raises((gpuzip.FormatError, OSError), match=r"127\.0\.0\.1"):
        gpuzip.open(server.url)


def test_a_server_that_says_no_length_is_refused(server: Server):
    server.told = None

    def chunked(status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        return status, {"Content-Encoding": "gzip"}, body

    server.lie = chunked
    with pytest.raises(OSError, match="its server must say how long it is"):
        gpuzip.open(server.url)


@pytest.mark.full
def test_timeouts_pass(server: Server):
    import aiohttp
    import fsspec

    fsspec.config.conf["http"] = {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=5)}}
    ended = threading.Event()
    try:
        remote = gpuzip.open(server.url)

        def slow(status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
            ended.wait(600)
            return status, headers, body

        server.lie = slow
        with pytest.raises(TimeoutError):
            remote.rows([0])
    finally:
        ended.set()
        del fsspec.config.conf["http"]
