"""Where chunks are: from the cache, else from the master, which is remembered."""

from __future__ import annotations

from gfs.client.layouts import LayoutCache
from gfs.client.metadata import MasterLink
from gfs.messages import Locate, Located, Locations


async def locate(link: MasterLink, layouts: LayoutCache, handle: int) -> Located | None:
    """Where the chunk was when last heard of; None: the master knows no such chunk.

    Raises:
      GfsError: the master was asked and did not answer.
    """
    located = layouts.locate(handle)
    if located is None:
        await learn(link, layouts, [handle])
        located = layouts.locate(handle)
    return located


async def learn(link: MasterLink, layouts: LayoutCache, handles: list[int]) -> None:
    """Ask the master for all of these in one question."""
    layouts.learn((await link.ask(Locate(handles), Locations)).chunks)
