"""All handlers of the mount in one class, as pyfuse3 wants them.

By kind they live in mount.names, mount.inode_calls, mount.files and mount.listing;
mount.answering is what they share.
"""

from __future__ import annotations

from collections.abc import Callable

import pyfuse3

from gfs.ids import DOT_GFS
from mount.answering import Opened, Tables, answer, log
from mount.core.hidden import is_hidden
from mount.files import FileCalls
from mount.hidden import Hidden
from mount.inode_calls import InodeCalls
from mount.listing import DirectoryCalls
from mount.names import NameCalls


class Handlers(NameCalls, InodeCalls, FileCalls, DirectoryCalls):
    """The filesystem as the kernel sees it. `on_init` is called when it has said hello."""

    supports_dot_lookup = True
    enable_writeback_cache = False  # with it the kernel's own idea of the size wins
    enable_acl = False

    def __init__(
        self,
        tables: Tables,
        on_init: Callable[[], None],
        statistics: Callable[[], dict[str, object]] = dict,
    ) -> None:
        super().__init__(tables)
        self._on_init = on_init
        self._hidden = tables.hidden = Hidden(self, statistics)

    def opened(self, operation: str, handle: int) -> Opened | None:
        """Of `.gfs` too."""
        if is_hidden(handle):
            return self._hidden.opened(operation, handle)
        return super().opened(operation, handle)

    @answer(0, bounded=True)
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if name == DOT_GFS and parent_inode == pyfuse3.ROOT_INODE:
            return await self._dot_gfs(ctx)
        return await self.look_up(parent_inode, name, ctx)

    async def _dot_gfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Ours, unless the filesystem has a file or directory called so."""
        found = await self.own_dot_gfs(ctx)
        if found is None:
            return self._hidden.top()
        if not self.tables.is_subtree:
            log.warning("mount.taken /.gfs is no part of the filesystem: rename it to have ours")
        return found

    def init(self) -> None:
        self._on_init()
