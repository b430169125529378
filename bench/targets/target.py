"""What every target can do: the one interface between workloads and filesystems."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from pathlib import Path


class TargetFailed(Exception):
    """The target did not do as it was told; the message says what and why."""


class Unavailable(Exception):
    """The target cannot run here; the message is what the user must do."""


class NotApplicable(Exception):
    """This target has no such thing (a plain directory has no server to kill)."""


class Target(ABC):
    """A filesystem under test that lives below one directory.

    `start` and `stop` bracket everything else; `stop` never raises, and
    leaves no mount, process or network namespace whatever came before.
    """

    name: str

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @abstractmethod
    def check(self) -> None:
        """Make sure that it can run here, installing packages where that is permitted.

        Raises:
          Unavailable: it cannot; the message names the command that would help.
        """

    @abstractmethod
    def version(self) -> str:
        """What is measured, for the record."""

    @abstractmethod
    def start(self) -> None:
        """Bring up all daemons and mount; returns when files can be written."""

    @abstractmethod
    def mounts(self) -> list[Path]:
        """Two directories that show the same files, on two mounts where there are mounts."""

    @abstractmethod
    def remount(self) -> None:
        """Replace both mounts by fresh ones; the servers keep running, their caches warm."""

    @abstractmethod
    def drop_server_caches(self) -> None:
        """Make the servers read from disk again."""

    @abstractmethod
    def pids(self) -> dict[str, int]:
        """Running daemons and mount processes by name."""

    @abstractmethod
    def kill_server(self) -> None:
        """SIGKILL one server that holds data."""

    @abstractmethod
    def stop_server(self) -> None:
        """SIGSTOP one server that holds data."""

    @abstractmethod
    def restart_master(self) -> None:
        """SIGKILL the one server that has the names, and start it; returns when it is started."""

    @abstractmethod
    def heal(self) -> None:
        """Continue what is stopped, start what is dead, return when all is up."""

    def fresh(self) -> None:
        """After `stop`, move to an empty directory, so that `start` begins from nothing."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory = self.directory.with_name(f"{self.directory.name}+")

    @abstractmethod
    def stop(self) -> None:
        """Unmount, end every process, keep nothing running."""
