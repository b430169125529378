"""Who asks by HTTP: somebody with the cluster's key, or a user of this host."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass


def token(key: bytes) -> str:
    """Bearer token of the cluster: knowing it does not give the key away."""
    return hmac.digest(key, b"http", hashlib.sha256).hex()


def authorization(key: bytes) -> dict[str, str]:
    """The header of a client's requests."""
    return {"Authorization": f"Bearer {token(key)}"}


def is_tls(url: str) -> bool:
    """Whether certificates are to be verified at this URL; to load them takes 0.15 s."""
    return url.startswith("https:")


@dataclass(frozen=True)
class Peer:
    """Who is at the other end of a Unix socket, as the kernel says."""

    pid: int
    uid: int
    gid: int
