"""The local disk: what no distributed filesystem on top of it can be faster than."""

from __future__ import annotations

from pathlib import Path

from bench.targets.commands import drop_caches, filesystem_of
from bench.targets.target import NotApplicable, Target


class Local(Target):
    """A plain directory; its second mount is the same directory."""

    name = "local"

    def check(self) -> None:
        """A directory is always there."""

    def version(self) -> str:
        return f"plain directory on {filesystem_of(self.directory)}"

    def start(self) -> None:
        (self.directory / "files").mkdir(parents=True)

    def mounts(self) -> list[Path]:
        return [self.directory / "files"] * 2

    def remount(self) -> None:
        """Drop the kernel's caches: a freshly mounted disk starts with none."""
        self.drop_server_caches()

    def drop_server_caches(self) -> None:
        drop_caches([self.directory])

    def pids(self) -> dict[str, int]:
        return {}

    def kill_server(self) -> None:
        raise NotApplicable("no server")

    def stop_server(self) -> None:
        raise NotApplicable("no server")

    def restart_master(self) -> None:
        raise NotApplicable("no server")

    def heal(self) -> None:
        """Nothing can be broken."""

    def stop(self) -> None:
        """Nothing runs."""
