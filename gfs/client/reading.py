"""Ranges of files: layout, holes, chunks, put together to one result.

A small layout comes with the answer to Open, so reading a small file asks the
master nothing more. Several ranges are fetched at once; one that fills the
request is handed on without a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import trio

from gfs.checksum import Buffer
from gfs.client.layouts import WINDOW_BYTES, FileLayout, LayoutCache, Span
from gfs.client.metadata import MasterLink
from gfs.client.peers import ChunkServers
from gfs.client.prefetch import Prefetcher
from gfs.client.replicas import Replicas
from gfs.errors import GfsError
from gfs.ids import MIB
from gfs.messages import Actor, Entry, GetLayout, LaidOut, Layout, Opened

PART_BYTES = MIB  # of one fetch


class TailRange(NamedTuple):
    """The file continues at `offset` with the open tail chunk `handle`."""

    handle: int
    offset: int


class Reader:
    """Reads committed content of files (and acknowledged content of tails)."""

    def __init__(
        self,
        nursery: trio.Nursery,
        link: MasterLink,
        servers: ChunkServers,
        is_ours: Callable[[int], bool],
    ) -> None:
        self.layouts = LayoutCache()
        self.replicas = Replicas(link, servers, self.layouts, is_ours)
        self._prefetcher = Prefetcher(nursery, self.replicas.read)
        self._link = link

    def seed(self, ino: int, opened: Opened, *, asked: int) -> None:
        """Keep what the answer to Open says about layout and locations; `asked` as in `keep`."""
        self.layouts.learn(opened.chunks)
        if opened.complete:
            inode = opened.entry.inode
            version = -1 if inode is None else inode.data_version
            layout = FileLayout(opened.extents, complete=True, version=version)
            self.layouts.keep(ino, layout, opened.entry.position, asked=asked)

    def seed_empty(self, ino: int, entry: Entry, *, asked: int) -> None:
        """A file just created has no extents."""
        version = -1 if entry.inode is None else entry.inode.data_version
        layout = FileLayout([], complete=True, version=version)
        self.layouts.keep(ino, layout, entry.position, asked=asked)

    def committed(self, ino: int, ranges: Sequence[LaidOut] | None, entry: Entry) -> None:
        """Content that this process committed; None: it is not certain which ranges."""
        version = -1 if entry.inode is None else entry.inode.data_version
        self.layouts.committed(ino, ranges, version, entry.position)

    def drop(self, ino: int, position: int) -> None:
        """The content of `ino` changed at `position`."""
        self.layouts.drop(ino, position)

    async def read(
        self,
        ino: int,
        offset: int,
        length: int,
        *,
        size: int,
        version: int,
        actor: Actor,
        tail: TailRange | None = None,
    ) -> Buffer:
        """[offset, offset + length) clipped to `size`; holes are zeros.

        Args:
          version: data_version of the attributes that tell the size.

        Raises:
          NoReplica: no replica of a chunk answered for a minute.
        """
        end = min(offset + length, size)
        if end <= offset:
            return b""
        spans = await self._spans(ino, offset, end, version, actor, tail)
        if len(spans) == 1 and spans[0].length == end - offset <= PART_BYTES:
            return await self._fetch(spans[0])
        return await self._put_together(spans, offset, end)

    async def _spans(
        self,
        ino: int,
        start: int,
        end: int,
        version: int,
        actor: Actor,
        tail: TailRange | None,
    ) -> list[Span]:
        tail_at = tail.offset if tail is not None else end
        spans: list[Span] = []
        if start < tail_at:
            layout = await self._layout(ino, start, min(end, tail_at), version, actor)
            spans = layout.spans(start, min(end, tail_at))
        if tail is not None and end > tail_at:
            first = max(start, tail_at)
            chunk_end = end - tail_at
            spans.append(Span(first, end - first, tail.handle, first - tail_at, chunk_end, True))
        return spans

    async def _layout(
        self, ino: int, start: int, end: int, version: int, actor: Actor
    ) -> FileLayout:
        layout = self.layouts.get(ino, version)
        if layout is not None and not layout.missing(start, end):
            return layout
        found = layout or FileLayout([], complete=False)
        while missing := found.missing(start, end):
            window = missing[0]
            question = GetLayout(ino, window * WINDOW_BYTES, WINDOW_BYTES, actor)
            asked = self.layouts.clears
            answer = await self._link.ask(question, Layout)
            self.layouts.learn(answer.chunks)
            kept = self.layouts.keep_window(ino, window, answer, asked=asked)
            if kept is not found and found.windows:
                kept = found  # invalidated meanwhile: one consistent answer for this read
                kept.add_window(window, answer.extents)
            found = kept
        return found

    async def _fetch(self, span: Span) -> Buffer:
        _, length, handle, chunk_offset, extent_end, tail = span
        content = self.replicas.read_nowait(handle, chunk_offset, length)
        if content is None and await self.replicas.pass_if_local(handle):
            content = self.replicas.read_nowait(handle, chunk_offset, length)
        if content is None:
            content = await self._prefetcher.read(
                handle, chunk_offset, length, extent_end, fill=not tail
            )
        return content

    async def _put_together(self, spans: list[Span], start: int, end: int) -> bytearray:
        result = bytearray(end - start)
        into = memoryview(result)
        remote: list[Span] = []
        for span in spans:
            for part in _parts(span):
                at = part.start - start
                content = self.replicas.read_nowait(part.handle, part.chunk_offset, part.length)
                if content is None:
                    remote.append(part)
                else:
                    into[at : at + part.length] = content

        await self._fetch_all(remote, into, start)
        return result

    async def _fetch_all(self, parts: list[Span], into: memoryview, start: int) -> None:
        errors: list[GfsError] = []

        async def fetch(part: Span) -> None:
            at = part.start - start
            try:
                into[at : at + part.length] = await self._fetch(part)
            except GfsError as error:
                errors.append(error)

        if len(parts) == 1:
            await fetch(parts[0])
        elif parts:
            async with trio.open_nursery() as nursery:
                for part in parts:
                    nursery.start_soon(fetch, part)
        if errors:
            raise errors[0]

    def close(self) -> None:
        """Let go of descriptors."""
        self.replicas.close()


def _parts(span: Span) -> list[Span]:
    if span.length <= PART_BYTES:
        return [span]
    start, length, handle, chunk_offset, extent_end, tail = span
    return [
        Span(start + at, min(PART_BYTES, length - at), handle, chunk_offset + at, extent_end, tail)
        for at in range(0, length, PART_BYTES)
    ]
