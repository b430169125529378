"""What chunk servers have put aside is deleted once it is certain that nobody needs it.

A server puts a replica aside when it cannot trust it: a block is bad, half of its files is
missing, a better one was found. It may still be the last that is left of somebody's bytes,
and the server cannot know. So the master asks now and then, and has it deleted when the chunk
has been at its goal for a day, or when this history of the log has deleted the chunk
(strays.py). Everything else stays.
"""

from __future__ import annotations

from collections.abc import Callable

from gfs import messages as m
from gfs.items import CHUNKS, Chunk, ChunkState
from master.core.engine import Answer, Engine

ASK_S = 3600.0
KEEP_S = 86_400.0
BATCH = 1000


class Quarantine:
    """See the module's text. `is_garbage` is of Strays."""

    def __init__(self, engine: Engine, is_garbage: Callable[[int], bool]) -> None:
        self._engine = engine
        self._is_garbage = is_garbage
        self._ask_at_s = engine.now_s
        self._whole_since_s: dict[tuple[int, int], float] = {}  # (server, handle) of what may go
        self.deleted_total = 0

    def run(self) -> None:
        """A slow round; not in the first minute after a start."""
        if self._engine.now_s >= self._ask_at_s:
            self._ask_at_s = self._engine.now_s + ASK_S
            for server in self._engine.servers.live:
                self.ask(server, keep_s=KEEP_S)

    def ask(
        self, server: int, *, keep_s: float, told: Callable[[list[int]], None] = lambda _: None
    ) -> None:
        """Have deleted what nobody needs, and has not for `keep_s`; `told` gets the handles."""

        def answered(answer: Answer) -> None:
            if isinstance(answer, m.Quarantined):
                told(self._judge(server, answer.handles, keep_s))
            else:
                told([])

        self._engine.order_server(server, m.ListQuarantine(), answered)

    def _judge(self, server: int, handles: list[int], keep_s: float) -> list[int]:
        now_s = self._engine.now_s
        held = {(server, handle) for handle in handles}
        for key in [key for key in self._whole_since_s if key[0] == server and key not in held]:
            del self._whole_since_s[key]
        due = []
        for handle in handles:
            if not self.is_needless(handle):
                self._whole_since_s.pop((server, handle), None)
            elif now_s - self._whole_since_s.setdefault((server, handle), now_s) >= keep_s:
                due.append(handle)
        due = due[:BATCH]
        if due:
            self.deleted_total += len(due)
            order = m.EmptyQuarantine(due, self._engine.epoch)
            self._engine.order_server(server, order, _ignore)
        return due

    def is_needless(self, handle: int) -> bool:
        """Could nobody ever want to read this copy?"""
        chunk: Chunk | None = self._engine.tables.get(CHUNKS, (handle,))
        if chunk is None:
            return self._is_garbage(handle)
        whole = len(self._engine.servers.holders(handle)) >= chunk.goal
        return chunk.state is ChunkState.SEALED and whole


def _ignore(_: Answer) -> None:
    """What is still there is named when the server is asked again."""
