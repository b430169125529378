"""What stands in a chunk server's small files, and how damage and strangers are told.

Every one of them is a *sealed block*: magic, format number, length and CRC32C
of a MessagePack body. A newer format number is refused, whatever the body; an
older one would be upgraded here, where it is read (there is none yet). The side
log's header and fence are blocks of at most one sector, so that a power loss
leaves the old or the new one.

Source: GFS §5.2. Departs: checksums lie in files of their own.
"""

from __future__ import annotations

import struct
from typing import TypeVar

import msgspec
from msgspec import Struct, field

from gfs.checksum import crc32c
from gfs.errors import Corrupt, NewerFormat, WrongCluster

FORMAT = 1
SECTOR_BYTES = 512
_HEAD = struct.Struct("<8sIII")
_BODY_BYTES_MAX = 1 << 26
_ENCODER = msgspec.msgpack.Encoder()
_Body = TypeVar("_Body", bound=Struct)

IDENTITY = b"gfs-dir\n"
SIDE = b"gfs-side"
FENCE = b"gfs-fnce"
SEALED = b"gfs-seal"
OBEYED = b"gfs-obey"
SCRUB = b"gfs-scrb"


class Identity(Struct, array_like=True):
    """Whose data directory this is."""

    cluster: str
    server: int
    index: int  # position among the server's directories, for people


class SideHeader(Struct, array_like=True):
    """What a side log belongs to; written once."""

    cluster: str
    handle: int
    version: int
    tail: bool
    chunk_bytes: int
    boot: str  # of the machine when the file was made


class FenceSlot(Struct, array_like=True):
    """Version of an open replica; two slots take turns, the higher `turn` counts."""

    turn: int
    version: int
    fenced: bool


class SealedMeta(Struct, array_like=True):
    """A sealed replica: u32 CRC32C of each 64 KiB block in `sums`."""

    cluster: str
    handle: int
    version: int
    length: int
    sums: bytes
    writers: dict[int, int] = field(default_factory=dict)


class Obeyed(Struct, array_like=True):
    """Highest master epoch obeyed or promised, and newest committed position heard.

    `heard_epoch`: of the master that told the position; `candidate`: whom the epoch was promised.
    """

    epoch: int
    committed: int
    heard_epoch: int = 0
    candidate: int = 0


def seal_block(magic: bytes, body: Struct) -> bytes:
    """Bytes of a block."""
    content = _ENCODER.encode(body)
    checksum = crc32c(content, crc32c(magic))
    return _HEAD.pack(magic, FORMAT, len(content), checksum) + content


def open_block(magic: bytes, raw: bytes, kind: type[_Body], where: object) -> _Body:
    """The body of a block.

    Raises:
      NewerFormat: written by a newer release.
      Corrupt: not such a block, or damaged.
    """
    if len(raw) < _HEAD.size or raw[:8] != magic:
        raise Corrupt(f"{where}: no {magic.decode().strip()} block")
    _, number, length, checksum = _HEAD.unpack_from(raw)
    if number > FORMAT:
        raise NewerFormat(f"{where} has format {number}, this release knows {FORMAT}")
    content = raw[_HEAD.size : _HEAD.size + length]
    if length > _BODY_BYTES_MAX or len(content) < length:
        raise Corrupt(f"{where}: block is cut short")
    if crc32c(content, crc32c(magic)) != checksum:
        raise Corrupt(f"{where}: block fails its checksum")
    try:
        return msgspec.msgpack.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"{where}: {error}") from None


def refuse_stranger(cluster: str, found: str, where: object) -> None:
    """Raises `WrongCluster` unless both are the same cluster."""
    if cluster != found:
        raise WrongCluster(f"{where} belongs to cluster {found}, not {cluster}")
