"""Tells the master what was read, about once a second."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from gfs.errors import GfsError
from gfs.messages import Entries, NoteAccess

if TYPE_CHECKING:
    from mount.answering import Tables

log = logging.getLogger(__name__)

TELL_S = 1.0
BATCH = 256  # of one record: nobody waits long behind it


async def run(tables: Tables) -> None:
    """For ever."""
    while True:
        await trio.sleep(TELL_S)
        await tell(tables)


async def tell(tables: Tables) -> None:
    """All that is known now. A refusal is dropped: nobody who reads has asked for a change."""
    client, accesses = tables.client, tables.accesses
    while times := accesses.take(BATCH):
        try:
            found = await client.link.ask(NoteAccess(times, client.actor), Entries)
        except GfsError as error:
            log.debug("access.untold inodes=%d why=%s", len(times), error)
        else:
            for entry in found.entries:
                tables.cache.learn(entry)
        finally:
            accesses.told(times)
