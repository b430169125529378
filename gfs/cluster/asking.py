"""One question to the master, for commands that need no session."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any, TypeVar

import trio

from gfs.config import ClientConfig
from gfs.errors import RemoteProtocolError, Unreachable
from gfs.handshake import load_key
from gfs.masters import Caller, dial_leader, places
from gfs.messages import ClusterStatus, Message, Status

_M = TypeVar("_M", bound=Message)
ANSWER_S = 10.0


def key_of(config: ClientConfig) -> bytes | None:
    """The cluster's key, if this user may read it; the Unix socket does without."""
    if config.key_file and os.access(config.key_file, os.R_OK):
        return load_key(Path(config.key_file))
    return None


def usable_unix(path: str) -> str:
    """`path` if a socket of this name exists here, else "" (TCP is used)."""
    return path if path and os.path.exists(path) else ""


def ask(config: ClientConfig, message: Message, kind: type[_M], timeout_s: float = ANSWER_S) -> _M:
    """The master's answer.

    Raises:
      GfsError: no answer, or a refusal.
    """
    return trio.run(functools.partial(_ask, config, message, kind, timeout_s))


async def _ask(config: ClientConfig, message: Message, kind: type[_M], timeout_s: float) -> _M:
    caller = Caller(key_of(config), config.cluster_id, "client", timeout_s=min(timeout_s, 5.0))
    known = places(config.master, config.master_unix)
    connection = await dial_leader(known, caller, shadow=config.read_from_shadow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run, lambda *_: None)
        try:
            answer = await connection.call(message, timeout_s=timeout_s)
        finally:
            connection.close()
            nursery.cancel_scope.cancel()
    if not isinstance(answer, kind):
        raise RemoteProtocolError(f"{kind.__name__} expected, {type(answer).__name__} came")
    return answer


def cluster_status(config: ClientConfig) -> dict[str, Any]:
    """What the master says about the cluster.

    Raises:
      GfsError: as `ask`.
    """
    status = ask(config, ClusterStatus(), Status)
    found = json.loads(status.json)
    if not isinstance(found, dict):
        raise Unreachable("the master's status is no JSON object")
    return found
