"""All handlers of the mount in one class, as pyfuse3 wants them.

By kind they live in mount.names, mount.inode_calls, mount.files and mount.listing;
mount.answering is what they share.
"""

from __future__ import annotations

from collections.abc import Callable

from mount.answering import Tables
from mount.files import FileCalls
from mount.inode_calls import InodeCalls
from mount.listing import DirectoryCalls
from mount.names import NameCalls


class Handlers(NameCalls, InodeCalls, FileCalls, DirectoryCalls):
    """The filesystem as the kernel sees it. `on_init` is called when it has said hello."""

    supports_dot_lookup = True
    enable_writeback_cache = False  # with it the kernel's own idea of the size wins
    enable_acl = False

    def __init__(self, tables: Tables, on_init: Callable[[], None]) -> None:
        super().__init__(tables)
        self._on_init = on_init

    def init(self) -> None:
        self._on_init()
