"""How a daemon says that it serves: a small JSON file, written whole or not at all.

Whoever started the daemon waits for the file to name the new pid; the addresses in it
are the bound ones, so port 0 is no riddle. A service manager is told by sd_notify(3).
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

import msgspec


class Ready(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a daemon tells once it serves; addresses are HOST:PORT, empty = none."""

    pid: int
    address: str = ""
    http: str = ""
    stream_http: str = ""
    epoch: int = 0
    server: int = 0  # id of a chunk server
    notes: list[str] = msgspec.field(default_factory=list)  # what is lost here, for people


def announce(
    path: str,
    *,
    address: str = "",
    http: str = "",
    stream_http: str = "",
    epoch: int = 0,
    server: int = 0,
    notes: list[str] | None = None,
) -> None:
    """Write the ready file, unless `path` is empty; tell a service manager that asks for it.

    Raises:
      OSError: the file cannot be written.
    """
    _notify()
    if not path:
        return
    ready = Ready(
        pid=os.getpid(),
        address=address,
        http=http,
        stream_http=stream_http,
        epoch=epoch,
        server=server,
        notes=notes or [],
    )
    fresh = Path(f"{path}.{os.getpid()}")
    fresh.write_bytes(msgspec.json.encode(ready) + b"\n")
    fresh.replace(path)


def _notify() -> None:
    """READY=1 to ``$NOTIFY_SOCKET`` (sd_notify(3)); one that listens no more is no failure."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, suppress(OSError):
        sock.sendto(b"READY=1", address)


def read(path: Path) -> Ready | None:
    """What stands in the ready file; None if there is none (or none of ours)."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Ready)
    except (OSError, msgspec.MsgspecError):
        return None
