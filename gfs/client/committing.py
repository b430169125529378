"""Commits to the master: one batch in flight, the next carries what gathered meanwhile.

A batch holds, for each file, its placed pieces from the head of its write
order, so content never becomes visible before its chain acknowledged it, nor
out of order. Refusals are per file.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import trio

from gfs.client.dirty import DirtyFile, DirtyPiece, merged
from gfs.client.metadata import MasterLink
from gfs.errors import (
    DeadSession,
    GfsError,
    Misplaced,
    QuotaExceeded,
    Retry,
    TooLarge,
    TryAgain,
    from_wire,
)
from gfs.messages import Actor, Commit, Committed, Entry, FileCommit

log = logging.getLogger(__name__)

PIECES_MAX = 8192  # of one batch
RETRY_S = 0.1


class Owner(Protocol):
    """Who keeps the pieces (the write-back)."""

    def committed(
        self, file: DirtyFile, pieces: list[DirtyPiece], entry: Entry | None, *, whole: bool
    ) -> None:
        """Logged; `whole`: and nothing else of the file was in the commit."""

    def give_up(self, file: DirtyFile, pieces: list[DirtyPiece], error: GfsError) -> None:
        """Refused for good."""

    def write_elsewhere(self, pieces: list[DirtyPiece], error: GfsError) -> None:
        """Refused where they lie."""


_Batch = list[tuple[DirtyFile, list[DirtyPiece]]]
_Tried = tuple[DirtyFile, list[DirtyPiece], list[int]]  # attempts of each piece


class Committer:
    """Sends batches while `wanted` is set and something is ready.

    Attributes:
      ready_bytes, ready_files: placed and not in a batch yet.
    """

    def __init__(self, link: MasterLink, actor: Actor, owner: Owner) -> None:
        self.wanted = trio.Event()
        self.ready_bytes = 0
        self.commits_total = self.files_total = 0
        self._ready: dict[DirtyFile, None] = {}
        self._link = link
        self._actor = actor
        self._owner = owner

    @property
    def ready_files(self) -> int:
        return len(self._ready)

    def ready(self, file: DirtyFile, length: int) -> None:
        """A piece of `file` is wholly placed."""
        self._ready[file] = None
        self.ready_bytes += length

    async def run(self) -> None:
        """Commit for ever."""
        while True:
            await self.wanted.wait()
            self.wanted = trio.Event()
            batch = self._next_batch()
            if batch:
                await self._commit(batch)

    def _next_batch(self) -> _Batch:
        batch: _Batch = []
        count = 0
        while self._ready and count < PIECES_MAX:
            file = next(iter(self._ready))
            del self._ready[file]
            pieces = file.placed_head()
            if pieces:
                batch.append((file, pieces))
                count += len(pieces)
        if not self._ready:
            self.ready_bytes = 0
        else:
            self.wanted.set()
        return batch

    async def _commit(self, batch: _Batch) -> None:
        operation = Commit([_file_commit(file, pieces) for file, pieces in batch])
        attempts = [[piece.attempts for piece in pieces] for _, pieces in batch]
        try:
            done = await self._link.mutate(operation, self._actor)
        except DeadSession:
            await self._after_death(batch)
            return
        except TooLarge as error:
            tried = [(*one, tries) for one, tries in zip(batch, attempts, strict=True)]
            await self._commit_halves(tried, error)
            return
        except GfsError as error:
            for (file, pieces), tries in zip(batch, attempts, strict=True):
                self._refused(file, _same(pieces, tries), error)
            return
        self.commits_total += 1
        self.files_total += len(batch)
        answers = {answer.ino: answer for answer in done.committed}
        for (file, pieces), tries in zip(batch, attempts, strict=True):
            left = _same(pieces, tries)
            self._answered(file, left, answers.get(file.ino), whole=len(left) == len(pieces))

    async def _commit_halves(self, tried: list[_Tried], error: TooLarge) -> None:
        """The batch changes more than one record holds."""
        halves = _halves(tried)
        for half in halves:
            batch = [(file, _same(pieces, tries)) for file, pieces, tries in half]
            batch = [(file, pieces) for file, pieces in batch if pieces]
            if batch:
                await self._commit(batch)
        if not halves:
            file, pieces, tries = tried[0]
            self._refused(file, _same(pieces, tries), error)

    async def _after_death(self, batch: _Batch) -> None:
        """The pieces are being written again (`session_lost`), or nobody opens a new session."""
        await trio.sleep(RETRY_S)
        if self._link.dead is None:
            return
        for file, pieces in batch:
            self._owner.give_up(file, pieces, DeadSession("the session is dead"))

    def _answered(
        self, file: DirtyFile, pieces: list[DirtyPiece], answer: Committed | None, *, whole: bool
    ) -> None:
        if answer is None:
            self._refused(file, pieces, GfsError("the master did not answer for this file"))
        elif not answer.code:
            file.allow(answer.room)
            self._owner.committed(file, pieces, answer.entry, whole=whole)
        else:
            text = f"commit: {answer.code}"
            if answer.code == QuotaExceeded.code:
                file.allow(0)
                text = ""  # as the system says it
            self._refused(file, pieces, from_wire(answer.code, text))

    def _refused(self, file: DirtyFile, pieces: list[DirtyPiece], error: GfsError) -> None:
        """`Misplaced` speaks of the chunk (gone, sealed shorter, not ours), not of the file."""
        if not pieces:
            return
        misplaced = isinstance(error, Misplaced)
        if misplaced or (isinstance(error, TryAgain) and error.retry is not Retry.LATER):
            self._owner.write_elsewhere(pieces, error)
        else:
            self._owner.give_up(file, pieces, error)


def _same(pieces: list[DirtyPiece], attempts: Sequence[int]) -> list[DirtyPiece]:
    """Those that were not discarded or sent elsewhere since the batch left."""
    return [
        piece
        for piece, attempt in zip(pieces, attempts, strict=True)
        if piece.attempts == attempt and not piece.gone
    ]


def _file_commit(file: DirtyFile, pieces: list[DirtyPiece]) -> FileCommit:
    return FileCommit(
        ino=file.ino,
        ranges=merged(pieces),
        mtime_ns=max(piece.mtime_ns for piece in pieces),
        data_version_seen=file.data_version if file.conditional else -1,
        promised=pieces[0].serial <= file.promised,
    )


def _halves(tried: list[_Tried]) -> list[list[_Tried]]:
    """In two, in their order; nothing if it is a single piece."""
    if len(tried) > 1:
        middle = len(tried) // 2
        return [tried[:middle], tried[middle:]]
    file, pieces, tries = tried[0]
    middle = len(pieces) // 2
    if not middle:
        return []
    return [[(file, pieces[:middle], tries[:middle])], [(file, pieces[middle:], tries[middle:])]]
