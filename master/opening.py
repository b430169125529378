"""A master's data directory taken hold of: lock, cluster, log and state; and who it has been.

node    62 random bits that name this directory among masters and shadows
led     the last epoch that was begun here; absent: a shadow that was never promoted
"""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path

from gfs.disk import Disk, make_directory
from gfs.errors import Corrupt, UsageError
from gfs.sections import MasterConfig
from master.core.exports import Exports
from master.core.shadows import registered
from master.export_file import rules_of
from master.identity import ID_NAME, cluster_of
from master.ledger import Ledger

log = logging.getLogger(__name__)

_NODE_BITS = 62


class Opened:
    """See the module's text. `ledger` is replaced when a shadow begins anew.

    Raises:
      UsageError: a new shadow is not told its cluster; the file of exports is none.
      GfsError: in use, damaged, another cluster's, or of a newer release.
    """

    def __init__(self, config: MasterConfig, disk: Disk) -> None:
        self.config = config
        self.disk = disk
        self.exports = Exports(rules_of(config.exports_file))
        self.directory = Path(config.data_dir)
        make_directory(disk, self.directory)
        self._lock = disk.lock(self.directory / "lock")
        if config.follow and not config.cluster_id and not disk.exists(self.directory / ID_NAME):
            raise UsageError("a new shadow needs the cluster's id: --cluster-id ID")
        self.cluster = cluster_of(self.directory, disk, config.cluster_id)
        self.node = self._number("node") or self._write("node", secrets.randbits(_NODE_BITS) | 1)
        self.ledger = self.open_ledger()

    def open_ledger(self) -> Ledger:
        """Log and state, with no epoch begun."""
        return Ledger(
            self.directory,
            self.disk,
            self.cluster,
            segment_bytes=self.config.log_segment_bytes,
            uid=os.getuid(),
            gid=os.getgid(),
            following=True,
        )

    @property
    def led_epoch(self) -> int:
        """The last epoch begun here; 0 = none."""
        return self._number("led")

    def lead(self, epoch: int, *, loses: bool = False) -> None:
        """Begin an epoch; nobody else may."""
        self._write("led", epoch)
        self.ledger.begin_epoch(epoch, loses=loses)

    def read_exports(self) -> None:
        """Judge sessions by the file of exports as it is now; one that is none changes nothing."""
        try:
            rules = rules_of(self.config.exports_file)
        except UsageError as error:
            log.error("exports.kept %s", error)
            return
        log.info("exports.read rules=%d", len(rules))
        self.exports.replace(rules)

    def close(self) -> None:
        """Let go of the directory; the ledger is closed by whoever uses it."""
        self._lock.close()

    def follow(self) -> None:
        """What was begun here is over: another directory leads."""
        if self.led_epoch:
            self._write("led", 0)

    def could_be_superseded(self) -> bool:
        """Is there anybody who may have been promoted meanwhile?"""
        return bool(registered(self.ledger.state))

    def _number(self, name: str) -> int:
        path = self.directory / name
        if not self.disk.exists(path):
            return 0
        file = self.disk.open(path)
        try:
            return int(file.pread(64, 0))
        except ValueError:
            raise Corrupt(f"{path} holds no number") from None
        finally:
            file.close()

    def _write(self, name: str, number: int) -> int:
        self.disk.replace_file(self.directory / name, b"%d\n" % number)
        return number
