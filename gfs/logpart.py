"""Records of the operation log as they travel to a shadow: packed, and unpacked to the last byte.

    record  epoch u64 | length u32 | payload

A part is whole or it is refused: nothing of a part that was cut, or falsified, is used.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from gfs.errors import RemoteProtocolError

_HEAD = struct.Struct("<QI")


class PackedRecord(NamedTuple):
    """A record on its way; its position follows from its place."""

    epoch: int
    payload: bytes


def pack(records: Iterable[tuple[int, bytes]]) -> bytes:
    """(epoch, payload) each, one behind the other."""
    return b"".join(
        part for epoch, payload in records for part in (_HEAD.pack(epoch, len(payload)), payload)
    )


def unpack(content: bytes) -> list[PackedRecord]:
    """What was packed.

    Raises:
      RemoteProtocolError: it ends in the middle of a record.
    """
    found: list[PackedRecord] = []
    at = 0
    while at < len(content):
        if at + _HEAD.size > len(content):
            raise RemoteProtocolError("a part of the log ends within a record")
        epoch, length = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        if at + length > len(content):
            raise RemoteProtocolError("a part of the log ends within a record")
        found.append(PackedRecord(epoch, content[at : at + length]))
        at += length
    return found
