"""Bytes of chunks, verified: from a descriptor of a local replica or from its servers.

A sealed replica on this host is read through a descriptor that its server
passed once (short-circuit read, as in HDFS), with the block checksums that
came along; the read and the check run inline, since a thread hop costs more
than both. Everything else is asked of a server. A replica that fails or lies is
reported and the next one asked; when all have failed the master is asked again.

Source: GFS §2.4, §5.2.
"""

from __future__ import annotations

import array
import logging
import os
from collections import OrderedDict
from collections.abc import Callable

import trio

from gfs.checksum import Buffer, crc32c
from gfs.client.layouts import LayoutCache
from gfs.client.locating import locate
from gfs.client.metadata import MasterLink
from gfs.client.peers import ChunkServers
from gfs.errors import Corrupt, GfsError, NoReplica, NoSuchReplica, RemoteProtocolError
from gfs.ids import BLOCK_BYTES
from gfs.messages import (
    ChainMember,
    Located,
    Message,
    PassReplica,
    Read,
    ReadData,
    ReplicaPassed,
    ReportBad,
)

log = logging.getLogger(__name__)

DESCRIPTORS_MAX = 256
UNPASSABLE_MAX = 1024
READ_S = 5.0  # a server that lives but has not answered a read; then the next replica
GIVE_UP_S = 60.0
RECHECK_S = 2.0  # an open chunk on this host may be sealed by then, and passed
PAUSE_S, PAUSE_MAX_S = 0.05, 1.0


class PassedReplica:
    """A descriptor of a sealed replica on this host, with its block checksums."""

    __slots__ = ("_sums", "fd", "length", "member")

    def __init__(self, fd: int, length: int, sums: Buffer, member: ChainMember) -> None:
        self.fd = fd
        self.length = length
        self.member = member
        self._sums = array.array("I")
        self._sums.frombytes(sums)
        if len(self._sums) * BLOCK_BYTES < length:
            raise RemoteProtocolError("a replica was passed without checksums of all blocks")

    def read(self, offset: int, length: int) -> Buffer | None:
        """Verified bytes, or None if the replica does not hold them as it should."""
        first = offset // BLOCK_BYTES
        start = first * BLOCK_BYTES
        end = min(-(-(offset + length) // BLOCK_BYTES) * BLOCK_BYTES, self.length)
        try:
            content = os.pread(self.fd, end - start, start)
        except OSError:
            return None
        if len(content) != end - start or offset + length > end:
            return None
        view = memoryview(content)
        sums = self._sums
        for at in range(0, len(content), BLOCK_BYTES):
            if crc32c(view[at : at + BLOCK_BYTES]) != sums[first]:
                return None
            first += 1
        if offset == start and length == len(content):
            return content
        return view[offset - start : offset - start + length]

    def close(self) -> None:
        os.close(self.fd)


class Replicas:
    """Reads of chunk ranges; see the module's text.

    Args:
      is_ours: whether this process has the chunk open, and so knows that it is not sealed.
    """

    def __init__(
        self,
        link: MasterLink,
        servers: ChunkServers,
        layouts: LayoutCache,
        is_ours: Callable[[int], bool],
    ) -> None:
        self._link = link
        self._is_ours = is_ours
        self._servers = servers
        self._layouts = layouts
        self._passed: OrderedDict[int, PassedReplica] = OrderedDict()
        self._passing: dict[int, trio.Event] = {}
        self._unpassable: dict[int, float] = {}  # until when not to ask again
        self.bytes_local = self.bytes_remote = 0

    # --- this host

    def read_nowait(self, handle: int, offset: int, length: int) -> Buffer | None:
        """Bytes through a passed descriptor, None when there is none (any more)."""
        passed = self._passed.get(handle)
        if passed is None:
            return None
        content = passed.read(offset, length)
        if content is None:
            log.warning("replica.bad handle=%016x server=%d", handle, passed.member.server)
            self._drop_passed(handle)
            self._report(passed.member, handle)
            return None
        self.bytes_local += length
        return content

    def _drop_passed(self, handle: int) -> None:
        passed = self._passed.pop(handle, None)
        if passed is not None:
            passed.close()
        self._not_for(handle, GIVE_UP_S)

    def _not_for(self, handle: int, seconds: float) -> None:
        """Read it from servers meanwhile. Of most chunks that is never asked again."""
        self._unpassable.pop(handle, None)
        self._unpassable[handle] = trio.current_time() + seconds
        while len(self._unpassable) > UNPASSABLE_MAX:
            del self._unpassable[next(iter(self._unpassable))]

    async def pass_if_local(self, handle: int) -> bool:
        """Try to have a descriptor of `handle`; False: ask servers."""
        if handle in self._passed:
            return True
        until = self._unpassable.get(handle)
        if until is not None:
            if trio.current_time() < until or self._is_ours(handle):
                return False
            del self._unpassable[handle]
            self._layouts.forget_chunk(handle)  # it may have been sealed since
        located = await locate(self._link, self._layouts, handle)
        if located is None or not located.sealed:
            self._not_for(handle, RECHECK_S)
            return False
        local = [member for member in located.members if self._servers.is_local(member)]
        if not local:
            return False
        passing = self._passing.get(handle)
        if passing is not None:
            await passing.wait()
            return handle in self._passed
        self._passing[handle] = done = trio.Event()
        try:
            await self._ask_to_pass(located, local[0])
        except GfsError as error:
            log.debug("replica.pass handle=%016x failed: %s", handle, error)
            self._not_for(handle, READ_S)
        finally:
            del self._passing[handle]
            done.set()
        return handle in self._passed

    async def _ask_to_pass(self, located: Located, member: ChainMember) -> None:
        connection = await self._servers.get(member)
        done = trio.Event()
        box: list[PassedReplica | GfsError] = []
        abandoned = False

        def on_reply(answer: Message | GfsError, payload: memoryview | None) -> None:
            # The descriptor must be taken here: they are matched to answers by order.
            descriptor = None
            if isinstance(answer, ReplicaPassed):
                descriptor = connection.take_descriptor()
            if isinstance(answer, GfsError):
                box.append(answer)
            elif descriptor is None or not isinstance(answer, ReplicaPassed):
                box.append(RemoteProtocolError("a replica was passed without a descriptor"))
            elif abandoned:
                os.close(descriptor)
            else:
                try:
                    box.append(PassedReplica(descriptor, answer.length, payload or b"", member))
                except GfsError as error:
                    os.close(descriptor)
                    box.append(error)
            done.set()

        connection.request(PassReplica(located.handle, located.version), on_reply)
        with trio.move_on_after(READ_S):
            await done.wait()
        abandoned = not box
        found = box[0] if box else NoReplica("no descriptor in time")
        if isinstance(found, GfsError):
            raise found
        self._passed[located.handle] = found
        while len(self._passed) > DESCRIPTORS_MAX:
            self._passed.popitem(last=False)[1].close()

    # --- any host

    async def read(self, handle: int, offset: int, length: int, least: int = -1) -> Buffer:
        """[offset, offset + length) of the chunk, from whichever replica serves it.

        All of it, or with `least` >= 0 at least so many bytes of it.

        Raises:
          NoReplica: none did for a minute.
        """
        deadline = trio.current_time() + GIVE_UP_S
        pause_s = PAUSE_S
        while True:
            error: GfsError = NoReplica(f"chunk {handle:016x}: no server has a replica")
            located = await locate(self._link, self._layouts, handle)
            for member in self._servers.order(located.members if located else ()):
                try:
                    return await self._read_from(member, located, offset, length, least)
                except GfsError as failed:
                    error = failed
                    self._failed(member, handle, failed)
            self._layouts.forget_chunk(handle)
            if trio.current_time() + pause_s > deadline:
                raise NoReplica(f"chunk {handle:016x}: {error}")
            await trio.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_MAX_S)

    async def _read_from(
        self, member: ChainMember, located: Located | None, offset: int, length: int, least: int
    ) -> Buffer:
        assert located is not None
        connection = await self._servers.get(member)
        question = Read(located.handle, located.version, offset, length)
        answer, payload = await connection.call_for_payload(question, timeout_s=READ_S)
        if not isinstance(answer, ReadData):
            raise RemoteProtocolError(f"ReadData expected, got {type(answer).__name__}")
        content: Buffer = payload if payload is not None else b""
        if crc32c(content) != answer.checksum:
            raise Corrupt(f"bytes of chunk {located.handle:016x} changed on the way")
        if len(content) != length and (least < 0 or not least <= len(content) < length):
            raise NoSuchReplica(f"server {member.server} has only {len(content)} of {length} bytes")
        self.bytes_remote += len(content)
        return content

    def _failed(self, member: ChainMember, handle: int, error: GfsError) -> None:
        log.info("replica.skip handle=%016x server=%d why=%s", handle, member.server, error)
        if isinstance(error, Corrupt):
            self._report(member, handle)
        else:
            self._servers.suspect(member.server, error)

    def _report(self, member: ChainMember, handle: int) -> None:
        connection = self._servers.get_nowait(member)
        located = self._layouts.locate(handle)
        if connection is not None and located is not None:
            connection.request(ReportBad(handle, located.version), _unheard)

    def close(self) -> None:
        """Close all descriptors."""
        for passed in self._passed.values():
            passed.close()
        self._passed.clear()


def _unheard(_answer: Message | GfsError, _payload: memoryview | None) -> None:
    return None
