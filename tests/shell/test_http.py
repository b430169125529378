"""The HTTP side of a daemon: who gets in, what errors look like, and how it stops."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from gfs import errors
from gfs.bearer import authorization
from gfs.http import BODY_BYTES_MAX, JsonResponse, application
from gfs.serving import serve_http

KEY = b"k" * 64
Expect = Callable[..., Any]


async def _refused(request: Request) -> Response:
    code = request.path_params["code"]
    raise errors.BY_CODE[code]("the reason")


async def _usage(request: Request) -> Response:
    raise errors.UsageError("say it differently")


async def _bug(request: Request) -> Response:
    raise RuntimeError("secret detail")


async def _length(request: Request) -> Response:
    return JsonResponse({"bytes": len(await request.body())})


class _Blocks:
    """For ever a block, without a generator that would be left half done."""

    def __aiter__(self) -> _Blocks:
        return self

    async def __anext__(self) -> bytes:
        return bytes(1_000_000)


async def _endless(request: Request) -> Response:
    return StreamingResponse(_Blocks())


ROUTES = [
    Route("/refused/{code}", _refused),
    Route("/usage", _usage),
    Route("/bug", _bug),
    Route("/length", _length, methods=["POST"]),
    Route("/endless", _endless),
]


class Daemon:
    """A served application, with and without the key."""

    def __init__(self, address: str, unix: str, stop: trio.Event) -> None:
        self.address = address
        self.unix = unix
        self.stop = stop
        self.health: dict[str, object] = {"ok": True}

    def client(self, *, key: bytes | None = KEY, unix: bool = False) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"http://{self.address}",
            transport=httpx.AsyncHTTPTransport(uds=self.unix if unix else None, verify=False),
            headers=authorization(key) if key else {},
            trust_env=False,
            timeout=60,
        )


@pytest.fixture
async def daemon(nursery: trio.Nursery, tmp_path: Path) -> Daemon:
    stop = trio.Event()
    unix = str(tmp_path / "s")
    found = Daemon("", unix, stop)
    app = application(
        daemon="test",
        key=KEY,
        health=lambda: found.health,
        statistics=lambda: {"records_total": 3, "log": {"bytes": 2.5}, "name": "x"},
        routes=ROUTES,
    )
    found.address = await nursery.start(
        functools.partial(serve_http, app, "127.0.0.1:0", unix, stop=stop)
    )
    return found


async def test_without_the_key_only_health_answers(daemon: Daemon) -> None:
    for key in (None, b"x" * 64):
        async with daemon.client(key=key) as client:
            assert (await client.get("/health")).status_code == 200
            for path in ("/statistics", "/metrics", "/nowhere", "/bug"):
                answer = await client.get(path)
                assert (answer.status_code, answer.json()["error"]) == (401, "bad-key")


async def test_the_owner_needs_no_key_on_the_unix_socket(daemon: Daemon) -> None:
    async with daemon.client(key=None, unix=True) as client:
        assert (await client.get("/statistics")).json()["records_total"] == 3


async def test_health_that_is_not_well_is_503(daemon: Daemon) -> None:
    daemon.health = {"ok": False, "why": "the disk"}
    async with daemon.client() as client:
        answer = await client.get("/health")
        assert (answer.status_code, answer.json()["why"]) == (503, "the disk")


async def test_statistics_become_metrics(daemon: Daemon) -> None:
    async with daemon.client() as client:
        text = (await client.get("/metrics")).text
    assert "# TYPE gfs_test_records_total counter\ngfs_test_records_total 3.0" in text
    assert "# TYPE gfs_test_log_bytes gauge\ngfs_test_log_bytes 2.5" in text
    assert "name" not in text


@pytest.mark.parametrize(
    ("code", "status"),
    [("not-found", 404), ("permission-denied", 403), ("invalid-argument", 400),
     ("not-ready", 503), ("timed-out", 504), ("no-space", 507), ("already-exists", 409),
     ("corrupt", 500)],
)  # fmt: skip
async def test_errors_are_json_with_a_fitting_status(
    daemon: Daemon, code: str, status: int
) -> None:
    async with daemon.client() as client:
        answer = await client.get(f"/refused/{code}")
    assert answer.status_code == status
    assert answer.json() == {"error": code, "message": "the reason"}


async def test_mistakes_of_the_caller_are_400_and_unknown_paths_404(daemon: Daemon) -> None:
    async with daemon.client() as client:
        usage = await client.get("/usage")
        assert (usage.status_code, usage.json()["message"]) == (400, "say it differently")
        assert (await client.get("/nowhere")).json()["error"] == "http"
        assert (await client.get("/length")).status_code == 405


async def test_a_bug_is_logged_not_told_and_the_daemon_goes_on(
    daemon: Daemon, expect_log: Expect
) -> None:
    expect_log(r"http\.failed path=/bug")
    async with daemon.client() as client:
        answer = await client.get("/bug")
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert (await client.get("/health")).status_code == 200


async def test_a_request_too_large_is_refused_unread(daemon: Daemon) -> None:
    async with daemon.client() as client:
        fits = await client.post("/length", content=bytes(BODY_BYTES_MAX))
        assert fits.json() == {"bytes": BODY_BYTES_MAX}
        answer = await client.post("/length", content=bytes(BODY_BYTES_MAX + 1))
        assert (answer.status_code, answer.json()["error"]) == (413, "too-large")


async def test_garbage_harms_nobody(daemon: Daemon) -> None:
    host, _, port = daemon.address.rpartition(":")
    for garbage in (b"\0" * 1000, b"GET\r\n\r\n", os.urandom(4096), b"PRI * HTTP/2.0\r\n\r\nx"):
        stream = await trio.open_tcp_stream(host, int(port))
        async with stream:
            await stream.send_all(garbage)
            await stream.send_eof()
            with trio.move_on_after(2):
                while await stream.receive_some(4096):
                    pass
    async with daemon.client() as client:
        assert (await client.get("/health")).status_code == 200


@pytest.mark.slow
async def test_a_stop_does_not_wait_for_a_peer_that_never_reads(daemon: Daemon) -> None:
    host, _, port = daemon.address.rpartition(":")
    token = authorization(KEY)["Authorization"]
    stream = await trio.open_tcp_stream(host, int(port))
    async with stream:
        await stream.send_all(
            f"GET /endless HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode()
        )
        await stream.receive_some(100)
        daemon.stop.set()
        with trio.fail_after(6):
            while os.path.exists(daemon.unix):  # noqa: ASYNC110
                await trio.sleep(0.05)


async def test_a_port_in_use_is_a_usage_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        app = application(daemon="x", key=KEY, health=dict, statistics=dict)
        with pytest.raises(errors.UsageError, match="in use"):
            await serve_http(app, address)
