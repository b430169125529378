"""What starts often loads little: the libraries of HTTP come when somebody asks."""

from __future__ import annotations

import ssl
import subprocess
import sys

import pytest

from gfs.cluster.report import view_client
from gfs.config import ClientConfig
from projections.stream_source import StreamSource

SERVER = {"hypercorn", "starlette", "prometheus_client"}
CLIENT = {"httpx", "httpcore"}


def loaded_by(*modules: str) -> set[str]:
    """Everything that a process has loaded after it has imported these."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    words = [sys.executable, "-c", code]
    return set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.slow
def test_a_daemon_starts_without_a_web_server() -> None:
    loaded = loaded_by("chunkd.__main__", "master.leading", "master.shadow", "master.stream")
    assert not loaded & (SERVER | CLIENT)


@pytest.mark.slow
def test_a_mount_starts_without_a_web_server() -> None:
    pytest.importorskip("pyfuse3")
    assert not loaded_by("mount.__main__") & (SERVER | CLIENT)


@pytest.mark.slow
def test_commands_about_files_and_clusters_start_without_a_web_client() -> None:
    loaded = loaded_by("gfs.cli.main", "gfs.cli.files", "gfs.cli.names", "gfs.cli.cluster")
    assert not loaded & (SERVER | CLIENT)


async def test_certificates_are_loaded_where_they_are_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded: list[str] = []

    def load(context: ssl.SSLContext, *_: object, **__: object) -> None:
        loaded.append(url)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", load)
    for url in ("http://127.0.0.1:1", "https://views.example"):
        view_client(ClientConfig(search=url), "search", 1.0).close()
        await StreamSource(url, "", None)._client().aclose()
    assert loaded == ["https://views.example"] * 2
