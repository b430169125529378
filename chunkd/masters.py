"""What this server knows of its masters, whichever of them told it; durable before it counts.

    obey(epoch)      a master in charge: from now on lower epochs are refused
    promise(...)     a candidate: lower epochs are refused though the new master may never come
    told(...)        how far a master's log is committed: what a candidate's log must have

Epochs only rise. What was told of a higher epoch replaces what was told of a lower one,
also when its position is lower: records may have been given up (`gfs master promote --lose`).
Source: GFS §5.1.3.
"""

from __future__ import annotations

import logging

import trio

from chunkd.core.machine import Machine
from chunkd.formats import Obeyed
from chunkd.obeyed import ObeyedFiles
from chunkd.workers import Workers
from gfs.errors import GfsError, StaleVersion
from gfs.messages import Promise, Promised

log = logging.getLogger(__name__)


class Masters:
    """See the module's text.

    Attributes:
      heard: (epoch, position) of the newest committed record we were told of.
    """

    def __init__(self, machine: Machine, obeyed: ObeyedFiles, workers: Workers) -> None:
        saved = obeyed.saved
        self.heard = saved.heard_epoch, saved.committed
        self._machine = machine
        self._obeyed = obeyed
        self._workers = workers  # one thread: saves must not overtake each other
        self._candidate = saved.candidate  # that the epoch was promised to
        self._save_wanted = trio.Event()

    @property
    def epoch(self) -> int:
        return self._machine.epoch

    async def obey(self, epoch: int, committed: int) -> None:
        """A master in charge has taken us in.

        Raises:
          StaleVersion: a newer one has been obeyed, or promised to be.
        """
        if epoch < self.epoch:
            log.warning("master.old epoch=%d obeyed=%d", epoch, self.epoch)
            raise StaleVersion(f"a master of epoch {self.epoch} has been obeyed")
        if epoch > self.epoch or (epoch, committed) > self.heard:
            self.heard = max(self.heard, (epoch, committed))
            await self._save(epoch, self._candidate if epoch == self.epoch else 0)

    async def promise(self, ask: Promise) -> Promised:
        """Refuse all below the epoch for ever; an epoch of 0 only asks.

        Raises:
          StaleVersion: as much or more is promised to another.
        """
        if ask.epoch:
            same = ask.epoch == self.epoch and ask.candidate == self._candidate
            if ask.epoch <= self.epoch and not same:
                raise StaleVersion(f"epoch {self.epoch} has been promised")
            await self._save(ask.epoch, ask.candidate)
            log.warning("master.promised epoch=%d candidate=%016x", ask.epoch, ask.candidate)
        return Promised(self.epoch, *self.heard)

    async def _save(self, epoch: int, candidate: int) -> None:
        """Made durable first, so that nobody counts on what a crash takes back."""
        heard_epoch, committed = self.heard
        wanted = Obeyed(epoch, committed, heard_epoch, candidate)
        await self._workers.run(lambda: self._obeyed.save(wanted))
        if epoch > self._machine.epoch:
            self._machine.epoch, self._candidate = epoch, candidate

    def told(self, epoch: int, committed: int) -> None:
        """The master in charge says how far its log is committed.

        Raises:
          StaleVersion: it is in charge no more.
        """
        if epoch < self.epoch:
            raise StaleVersion("an older master's heartbeat")
        if (epoch, committed) > self.heard:
            self.heard = epoch, committed
            self._save_wanted.set()

    async def keep(self) -> None:
        """Make what we are told durable as it rises, one save at a time. Never returns."""
        while True:
            await self._save_wanted.wait()
            self._save_wanted = trio.Event()
            try:
                await self._save(self.epoch, self._candidate)
            except GfsError as error:
                log.info("obeyed.not-saved %s", error)  # the disks say it louder
