"""Write-behind: all uncommitted bytes of this process, from write(2) to the logged commit.

    write -> gathering piece -> frame (packed or alone) -> chunk writer -> commit -> forgotten

Small files share one packed open chunk; a file past 4 MiB of sequential
writing gets a chunk writer of its own, sealed when its last writer closes.
Writers wait once `limit_bytes` are dirty or uncommitted. Everything leaves
after `flush_after_s` at the latest, earlier when someone waits for it.

What cannot be written or committed is an error of its file: logged with the
path, and told once to each handle open for writing (`error_count`).

Source: GFS §3.1-3.2 (data flow). Departs: packing, batched commits, write-behind.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import trio

from gfs.client.chunks import ChunkWriter
from gfs.client.committing import Committer
from gfs.client.dirty import NO_LIMIT, DirtyFile, DirtyPiece, Pending, merged
from gfs.client.leasing import ChunkSource
from gfs.client.metadata import MasterLink
from gfs.client.packing import Packer, PieceFrame
from gfs.client.parts import Frame, Placed
from gfs.client.ranges import Buffer, Segment
from gfs.errors import GfsError, LockLost, QuotaExceeded
from gfs.ids import FRAME_BYTES, MIB, PACK_BYTES_MAX
from gfs.messages import Actor, Entry, LaidOut, PathIs, PathOf

log = logging.getLogger(__name__)

TICK_S = 0.2
COMMIT_BYTES = 16 * MIB  # so much placed makes a commit due
COMMIT_FILES = 256
ROOM_WIDE = 1 << 30  # with so much left of a quota, and known for so long,
ROOM_FRESH_S = 3.0  # others cannot take it before a commit that nobody waits for
ATTEMPTS_MAX = 5  # times the master may refuse where a piece lies

OnCommitted = Callable[[int, Entry, list[LaidOut] | None], None]


class WriteBack:
    """See the module's text. Everything but the waits is synchronous.

    Attributes:
      dirty_bytes: taken over from writers and not yet committed.
      on_committed: called with (inode, its entry as answered, the ranges committed, None if
        it is not certain which).
      on_idle: called when nothing of an inode waits any more and no handle writes it.
    """

    def __init__(
        self,
        link: MasterLink,
        source: ChunkSource,
        actor: Actor,
        *,
        limit_bytes: int,
        flush_after_s: float,
    ) -> None:
        self.dirty_bytes = 0
        self.limit_bytes = limit_bytes
        self.flush_after_s = flush_after_s
        self.on_committed: OnCommitted = _heard
        self.on_idle: Callable[[int], None] = _idle
        self._link = link
        self._source = source
        self._files: dict[int, DirtyFile] = {}
        self._gathering: dict[DirtyFile, float] = {}  # since when
        self._packer = Packer()
        self._packed = ChunkWriter(source, "packed")
        self._writers: dict[ChunkWriter, None] = {self._packed: None}
        self._finishing: dict[int, ChunkWriter] = {}
        self._committer = Committer(link, actor, self)
        self._flushing = 0
        self._room = trio.Event()

    # --- handles

    def attach(self, ino: int, data_version: int) -> DirtyFile:
        """A handle is open for writing; pair with `detach`."""
        file = self._files.get(ino)
        if file is None:
            file = self._files[ino] = DirtyFile(ino)
            file.unsynced = self._unsynced_before(ino)
        if not file.pieces:
            file.data_version = max(file.data_version, data_version)
        file.handles += 1
        return file

    def _unsynced_before(self, ino: int) -> dict[ChunkWriter, int]:
        """Writers that may hold bytes of `ino`, committed by handles closed since."""
        writers = [self._packed, *([self._finishing[ino]] if ino in self._finishing else [])]
        return {w: w.last_serial for w in writers if not w.is_durable(w.last_serial)}

    def detach(self, file: DirtyFile) -> None:
        """The handle is closed; what waits goes on its way."""
        file.handles -= 1
        if file.handles:
            return
        self._close_piece(file)
        if file.own is not None:
            self._finishing[file.ino] = file.own
            self._source.nursery.start_soon(self._finish, file.ino, file.own)
            file.own = None
            file.run_bytes = 0
        self._drop_if_idle(file)

    async def _finish(self, ino: int, writer: ChunkWriter) -> None:
        await writer.finish()
        self._writers.pop(writer, None)
        if self._finishing.get(ino) is writer:
            del self._finishing[ino]

    def _drop_if_idle(self, file: DirtyFile) -> None:
        if not file.handles and not file.pieces and self._files.get(file.ino) is file:
            del self._files[file.ino]
            self.on_idle(file.ino)

    def inodes(self) -> list[int]:
        """Inodes written by this process: open for writing, or not committed."""
        return list(self._files)

    # --- quotas

    def is_tight(self, file: DirtyFile, length: int) -> bool:
        """May so much more, with what waits here, be beyond the file's quotas?

        Then the writer waits for the commit, so that write(2) itself says so.
        """
        return file.room != NO_LIMIT and self.dirty_bytes + length > file.room

    def must_tell(self, file: DirtyFile) -> bool:
        """Might the quotas of the file refuse what its last handle leaves to be committed?"""
        if file.room == NO_LIMIT:
            return False
        return file.room < ROOM_WIDE or trio.current_time() - file.room_at > ROOM_FRESH_S

    # --- writing

    def write_nowait(self, file: DirtyFile, offset: int, data: Buffer) -> bool:
        """Take over `data` if that needs no wait."""
        length = len(data)
        if length > FRAME_BYTES or self.dirty_bytes + length > self.limit_bytes:
            return False
        self._take(file, offset, data)
        return True

    async def write(self, file: DirtyFile, offset: int, data: Buffer) -> None:
        """Take over `data`; waits only while too much is dirty."""
        if len(data) <= FRAME_BYTES:
            if not self.write_nowait(file, offset, data):
                await self._wait_for_room(len(data))
                self._take(file, offset, data)
            return
        view = memoryview(data)
        for start in range(0, len(data), FRAME_BYTES):
            await self.write(file, offset + start, view[start : start + FRAME_BYTES])

    async def _wait_for_room(self, length: int) -> None:
        self._flushing += 1
        try:
            while self.dirty_bytes and self.dirty_bytes + length > self.limit_bytes:
                for file in list(self._gathering):
                    self._close_piece(file)
                self._send_packed()
                self._committer.wanted.set()
                await self._room.wait()
        finally:
            self._flushing -= 1

    def _take(self, file: DirtyFile, offset: int, data: Buffer) -> None:
        length = len(data)
        piece = file.gathering
        run = file.sequential(offset, length)
        if piece is not None:
            if offset == piece.end and piece.length + length <= FRAME_BYTES:
                piece.grow(data)
                file.overlay.grown(piece, length)
                self.dirty_bytes += length
            elif piece.offset <= offset and offset + length <= piece.end:
                piece.patch(offset, data)
            else:
                self._close_piece(file)
                piece = None
        if piece is None:
            piece = file.new_piece(offset, data)
            self._gathering[file] = trio.current_time()
            self.dirty_bytes += length
        piece.mtime_ns = time.time_ns()
        if piece.length + length > FRAME_BYTES:  # the next like this one would not fit
            self._close_piece(file)
        if run > PACK_BYTES_MAX and file.own is None:
            file.own = ChunkWriter(self._source, f"inode {file.ino}")
            self._writers[file.own] = None

    def _close_piece(self, file: DirtyFile) -> None:
        """The gathering piece goes on its way."""
        piece, file.gathering = file.gathering, None
        if piece is None:
            return
        self._gathering.pop(file, None)
        self._submit(piece)

    def _submit(self, piece: DirtyPiece) -> None:
        piece.missing = piece.length
        own = piece.file.own
        if own is not None:
            self._send(own, [piece], divisible=True)
            return
        for pieces in self._packer.add(piece, trio.current_time()):
            self._send(self._packed, pieces, divisible=False)

    def _send_packed(self) -> None:
        pieces = self._packer.take()
        if pieces:
            self._send(self._packed, pieces, divisible=False)

    def _send(self, writer: ChunkWriter, pieces: list[DirtyPiece], *, divisible: bool) -> None:
        frame = PieceFrame(pieces, self._placed, self._failed, divisible=divisible)
        serial = writer.last_serial + 1
        for piece in pieces:
            piece.file.unsynced[writer] = serial
        writer.submit(frame)

    def _placed(self, frame: Frame, placed: Placed) -> None:
        assert isinstance(frame, PieceFrame)
        for piece in frame.lay(placed):
            self._committer.ready(piece.file, piece.length)
        due = self._committer.ready_bytes >= COMMIT_BYTES
        if due or self._flushing or self._committer.ready_files >= COMMIT_FILES:
            self._committer.wanted.set()

    def _failed(self, frame: Frame, error: GfsError) -> None:
        assert isinstance(frame, PieceFrame)
        for piece in frame.wanted():
            self.give_up(piece.file, [piece], error)

    # --- what the committer reports

    def committed(
        self, file: DirtyFile, pieces: list[DirtyPiece], entry: Entry | None, *, whole: bool
    ) -> None:
        """These pieces are in the operation log; `whole`: and nothing else was in the commit."""
        if entry is not None:
            if entry.inode is not None:
                file.data_version = entry.inode.data_version
                file.conditional = False
            self.on_committed(file.ino, entry, merged(pieces) if whole else None)
        self._settled(file, pieces)

    def give_up(self, file: DirtyFile, pieces: list[DirtyPiece], error: GfsError) -> None:
        """These pieces cannot be written or committed: an error of the file."""
        file.fail(error)
        lost = sum(piece.length for piece in pieces)
        self._source.nursery.start_soon(self._log_loss, file.ino, lost, error)
        self._settled(file, pieces)

    def write_elsewhere(self, pieces: list[DirtyPiece], error: GfsError) -> None:
        """The master refuses where these lie (sealed shorter, lease lost): write them again."""
        for piece in pieces:
            piece.attempts += 1
            piece.placements = []
            if piece.attempts > ATTEMPTS_MAX:
                self.give_up(piece.file, [piece], error)
            else:
                self._submit(piece)
        self._send_packed()

    def _settled(self, file: DirtyFile, pieces: list[DirtyPiece]) -> None:
        self.dirty_bytes -= file.settle([piece for piece in pieces if not piece.gone])
        self._drop_if_idle(file)
        self._room.set()
        self._room = trio.Event()

    async def _log_loss(self, ino: int, lost: int, error: GfsError) -> None:
        path = b"?"
        try:
            answer = await self._link.read(PathOf(ino), timeout_s=5.0)
            if isinstance(answer, PathIs):
                path = answer.path
        except GfsError:
            pass
        finally:  # said even if the client is closed meanwhile
            # Who reaches a quota is told, and may try again and again.
            level = logging.INFO if isinstance(error, QuotaExceeded) else logging.ERROR
            log.log(level, "write.lost path=%r ino=%d bytes=%d why=%s", path, ino, lost, error)

    # --- flushing

    async def flush(self, ino: int, *, durable: bool) -> None:
        """Commit what was written to `ino` so far; `durable`: and sync it at its chains.

        Returns also when bytes were lost: errors are the file's, see `error_count`.
        """
        file = self._files.get(ino)
        if file is None:
            if durable:
                await self._sync_forgotten(ino)
            return
        self._close_piece(file)
        if self._packer.pieces:
            self._send_packed()
        target = file.written
        self._flushing += 1
        try:
            while True:
                if file.settled < target:
                    self._committer.wanted.set()
                writers = list(file.unsynced.items()) if durable else []
                for writer, serial in writers:
                    await writer.sync(serial)
                while file.settled < target:
                    await file.changed.wait()
                if not durable or all(w.is_durable(s) for w, s in file.unsynced.items()):
                    return
        finally:
            self._flushing -= 1

    async def _sync_forgotten(self, ino: int) -> None:
        for writer, serial in self._unsynced_before(ino).items():
            await writer.sync(serial)

    async def flush_all(self, *, durable: bool) -> None:
        """`flush` of every file."""
        for file in list(self._gathering):
            self._close_piece(file)
        self._send_packed()
        self._committer.wanted.set()
        for ino in list(self._files):
            await self.flush(ino, durable=False)
        if durable:
            for writer in list(self._writers):
                await writer.sync(writer.last_serial)

    def start_flush(self, file: DirtyFile) -> None:
        """A handle was closed, and nobody waits: the gathering piece need not wait for more."""
        file.promised = file.written
        self._close_piece(file)

    # --- what others ask

    def overlay(self, ino: int, start: int, end: int) -> list[Segment]:
        """Uncommitted bytes visible in [start, end)."""
        file = self._files.get(ino)
        return file.overlay.read(start, end) if file is not None else []

    def pending(self, ino: int) -> Pending | None:
        """Uncommitted bytes of the file, None if there are none."""
        file = self._files.get(ino)
        if file is None or not file.pieces:
            return None
        # Of the last one written; there may be thousands.
        mtime_ns = next((piece.mtime_ns for piece in reversed(file.pieces) if piece.mtime_ns), 0)
        return Pending(file.overlay.end, mtime_ns, file.overlay)

    def keep_mtime(self, ino: int) -> None:
        """A utimens comes after these writes: their commits leave mtime alone."""
        file = self._files.get(ino)
        for piece in file.pieces if file is not None else ():
            piece.mtime_ns = 0
        if file is not None:
            self._close_piece(file)

    def discard(self, ino: int) -> None:
        """Nobody can read these bytes any more; drop them."""
        file = self._files.get(ino)
        if file is None:
            return
        file.gathering = None
        self._gathering.pop(file, None)
        self._settled(file, list(file.pieces))

    def session_lost(self, *, under_lock: bool = False) -> None:
        """All leases are void: every uncommitted byte is written again, commits conditional.

        What was written `under_lock` is given up: it must not come after the next holder's.
        """
        if under_lock:
            self._give_up_all(LockLost("the lock ended before this was committed"))
        for writer in self._writers:
            writer.session_lost()
        self._source.forget_spare()
        for file in self._files.values():
            file.conditional = file.data_version >= 0
            placed = [piece for piece in file.pieces if piece.placements and not piece.gone]
            self.write_elsewhere(placed, GfsError("the session that wrote this is dead"))

    def _give_up_all(self, error: GfsError) -> None:
        """All uncommitted bytes are lost, and each handle hears of it."""
        for file in list(self._files.values()):
            file.gathering = None
            self._gathering.pop(file, None)
            pieces = [piece for piece in file.pieces if not piece.gone]
            if pieces:
                self.give_up(file, pieces, error)

    async def run(self) -> None:
        """Time limits; commits. Never returns."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._committer.run)
            while True:
                await trio.sleep(TICK_S)
                self._tick(trio.current_time())

    def _tick(self, now: float) -> None:
        due = now - self.flush_after_s
        for file, since in list(self._gathering.items()):
            if since > due:
                break
            self._close_piece(file)
        if self._packer.pieces and self._packer.since <= now - self.flush_after_s / 2:
            self._send_packed()
        for writer in self._writers:
            writer.check(now)
        if self._committer.ready_files:
            self._committer.wanted.set()

    def statistics(self) -> dict[str, int]:
        """Figures for the daemon's statistics page."""
        return {
            "dirty_bytes": self.dirty_bytes,
            "dirty_files": len(self._files),
            "commits_total": self._committer.commits_total,
            "committed_files_total": self._committer.files_total,
        }


def _heard(_ino: int, _entry: Entry, _ranges: list[LaidOut] | None) -> None:
    return None


def _idle(_ino: int) -> None:
    return None
