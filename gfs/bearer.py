"""The bearer token by which HTTP callers show that they have the cluster's key."""

from __future__ import annotations

import hashlib
import hmac


def token(key: bytes) -> str:
    """Bearer token of the cluster: knowing it does not give the key away."""
    return hmac.digest(key, b"http", hashlib.sha256).hex()


def authorization(key: bytes) -> dict[str, str]:
    """The header of a client's requests."""
    return {"Authorization": f"Bearer {token(key)}"}
