"""What reading costs at the master: nothing by itself, and one request for many files."""

from __future__ import annotations

from functools import partial

import pytest

from gfs import messages as m
from gfs.errors import ReadOnly
from gfs.messages import Message
from mount import accessing
from tests.shell.test_mount_requests import CTX, READ_ONLY, Kernel, NamingMaster, kernel

Answer = Message | tuple[Message, bytes]


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[m.NoteAccess]:
    """What the made-up master is told."""
    found: list[m.NoteAccess] = []
    plain = NamingMaster.answer

    def answer(self: NamingMaster, message: Message, payload: memoryview | None) -> Answer:
        if isinstance(message, m.NoteAccess):
            found.append(message)
            if len(found) > 1:
                raise ReadOnly("of a shadow")
            return m.Entries(self.position, [])
        return plain(self, message, payload)

    monkeypatch.setattr(NamingMaster, "answer", answer)
    return found


async def read(k: Kernel, ino: int) -> None:
    info = await k.call.open(ino, READ_ONLY, CTX)
    for _ in range(10):
        assert bytes(await k.call.read(info.fh, 0, 100)) == b"content"
    await k.call.release(info.fh)


async def test_what_was_read_is_told_at_once_for_all_and_refusals_are_nobodys_business(
    noted: list[m.NoteAccess],
) -> None:
    async with kernel() as k:
        directory = await k.make_directory()
        inos = [await k.write_file(directory, b"%d" % number, b"content") for number in range(5)]
        k.master.asked()
        for ino in inos:
            await read(k, ino)
        assert set(k.master.asked()) == {m.Open}
        assert noted == []
        await accessing.tell(k.tables)
        assert [[one.ino for one in ask.times] for ask in noted] == [inos]
        assert not k.tables.accesses.waiting
        k.tables.accesses.mode = "strictatime"
        k.tables.client.callbacks.on_barrier = partial(accessing.tell, k.tables)
        await read(k, inos[0])
        await k.tables.client.recall([])
        assert len(noted) == 2
        assert not k.tables.accesses.waiting
