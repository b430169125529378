"""Bytes <-> frames, without I/O.

A frame is a head of 12 bytes (header length, payload length, both u32, and a
CRC32C of these and the header), a MessagePack header and a raw payload. The
payload is never copied into the header and carries its own checksum where it
matters (chunk data). Everything that decides where a frame ends lives here.

Limits: a header above `HEADER_BYTES_MAX` or a payload above
`PAYLOAD_BYTES_MAX` is a protocol error, so that garbage on a port cannot make
a daemon allocate memory.
"""

from __future__ import annotations

import struct

from crc32c import crc32c

from gfs.errors import RemoteProtocolError

HEAD = struct.Struct("<III")
HEAD_BYTES = HEAD.size
HEADER_BYTES_MAX = 8 * 1024 * 1024  # a block report of a batch of replicas fits
PAYLOAD_BYTES_MAX = 8 * 1024 * 1024
_LENGTHS = struct.Struct("<II")


def encode(header: bytes, payload_bytes: int) -> bytes:
    """Head and header of a frame whose payload of `payload_bytes` follows raw."""
    lengths = _LENGTHS.pack(len(header), payload_bytes)
    return lengths + crc32c(header, crc32c(lengths)).to_bytes(4, "little") + header


class FrameParser:
    """Finds frames in a stream that is fed into `buffer`.

    Use: receive into `space()`, tell `received(n)`, then `next_header()` until
    it returns None. When a header announces a payload, take what is already
    buffered with `take_payload(into)`; the rest is the caller's to receive
    straight into place, which saves a copy of large payloads.
    """

    def __init__(self, buffer_bytes: int = 256 * 1024) -> None:
        self._buffer = bytearray(buffer_bytes)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0

    def space(self) -> memoryview:
        """Where to receive next; never empty."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == len(self._buffer):
            self._make_room()
        return self._view[self._end :]

    def _make_room(self) -> None:
        held = bytes(self._view[self._start : self._end])
        if len(held) * 2 > len(self._buffer):
            grown = bytearray(len(self._buffer) * 2)
            self._buffer, self._view = grown, memoryview(grown)
        self._view[: len(held)] = held
        self._start, self._end = 0, len(held)

    def received(self, count: int) -> None:
        self._end += count

    def next_header(self) -> tuple[memoryview, int] | None:
        """Header and payload length of the next frame, or None: feed me more.

        The view is valid until the next call of any method.

        Raises:
          RemoteProtocolError: the bytes are no frame.
        """
        available = self._end - self._start
        if available < HEAD_BYTES:
            return None
        header_bytes, payload_bytes, checksum = HEAD.unpack_from(self._buffer, self._start)
        if header_bytes > HEADER_BYTES_MAX or payload_bytes > PAYLOAD_BYTES_MAX:
            raise RemoteProtocolError(f"frame of {header_bytes}+{payload_bytes} bytes refused")
        if available < HEAD_BYTES + header_bytes:
            return None
        begin = self._start + HEAD_BYTES
        header = self._view[begin : begin + header_bytes]
        lengths = self._view[self._start : self._start + _LENGTHS.size]
        if crc32c(header, crc32c(lengths)) != checksum:
            raise RemoteProtocolError("frame header does not match its checksum")
        self._start = begin + header_bytes
        return header, payload_bytes

    def take_payload(self, into: memoryview) -> int:
        """Move buffered payload bytes into `into`; returns how many."""
        count = min(len(into), self._end - self._start)
        into[:count] = self._view[self._start : self._start + count]
        self._start += count
        return count
