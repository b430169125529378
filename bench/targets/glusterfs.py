"""GlusterFS from Debian: one volume, replica 3, three bricks, two mounts.

Debian's defaults but for addresses and directories. One glusterd looks after
three brick processes, as it would on three machines with one brick each.
"""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

from bench.targets.commands import (
    alive,
    drop_caches,
    mount_device,
    signal_process,
    unmount,
    wait_until,
)
from bench.targets.namespace import Namespace
from bench.targets.packages import require, require_root, version_of
from bench.targets.target import NotApplicable, Target, TargetFailed

ADDRESS = "10.213.72.1"
BRICKS = 3
VOLUME = "bench"
VICTIM = 2  # the brick that is killed or stopped
CLIENTS = 3  # of each brick: two mounts and the self-heal daemon
READY_LIMIT_S = 60.0
PROGRAMS = {
    "glusterd": "glusterfs-server",
    "gluster": "glusterfs-server",
    "glusterfs": "glusterfs-client",
}
GLUSTERD = """volume management
    type mgmt/glusterd
    option working-directory {directory}/glusterd
    option run-directory {directory}/run
    option logging-directory {directory}/log
    option glusterd-sockfile {directory}/glusterd.socket
    option transport-type socket
    option transport.socket.keepalive-time 10
    option transport.socket.keepalive-interval 2
    option transport.socket.read-fail-log off
    option transport.socket.listen-port 24007
    option ping-timeout 0
    option event-threads 1
    option max-port 60999
end-volume
"""


class GlusterFS(Target):
    """Daemons in a network namespace, mounts visible to all."""

    name = "glusterfs"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._net = Namespace("gluster", [ADDRESS])

    def check(self) -> None:
        require_root()
        require(PROGRAMS)

    def version(self) -> str:
        return f"GlusterFS {version_of('glusterfs-server')}, replica 3"

    def mounts(self) -> list[Path]:
        return [self.directory / "mnt1", self.directory / "mnt2"]

    def start(self) -> None:
        bricks = [self.directory / f"brick{number}" for number in range(1, BRICKS + 1)]
        others = [self.directory / name for name in ("glusterd", "run", "log")]
        for directory in (*self.mounts(), *bricks, *others):
            directory.mkdir(parents=True)
        volfile = self.directory / "glusterd.vol"
        volfile.write_text(GLUSTERD.format(directory=self.directory))
        self._net.create()
        log = self.directory / "log" / "glusterd.log"
        pidfile = self.directory / "glusterd.pid"
        self._net.run("glusterd", "-f", volfile, "-p", pidfile, "-l", log)
        wait_until(self._answers, "glusterd answers", READY_LIMIT_S)
        places = [f"{ADDRESS}:{brick}" for brick in bricks]
        self._gluster("volume", "create", VOLUME, "replica", str(BRICKS), *places, "force")
        self._gluster("volume", "start", VOLUME)
        self._wait_bricks()
        self._mount_all()
        self._wait_bricks(CLIENTS)

    def remount(self) -> None:
        for point in self.mounts():
            unmount(point)
        wait_until(lambda: not self._pids_of("mnt"), "clients end", READY_LIMIT_S)
        self._mount_all()
        self._wait_bricks(CLIENTS)  # a mount connects to its bricks after it is there

    def drop_server_caches(self) -> None:
        drop_caches([self.directory])

    def pids(self) -> dict[str, int]:
        return {f"{line.split()[0]}-{pid}": pid for pid, line in self._net.pids().items()}

    def kill_server(self) -> None:
        signal_process(self._victim(), signal.SIGKILL)

    def stop_server(self) -> None:
        signal_process(self._victim(), signal.SIGSTOP)

    def restart_master(self) -> None:
        raise NotApplicable("no server has all names")

    def heal(self) -> None:
        for pid in self._net.pids():
            signal_process(pid, signal.SIGCONT)
        self._forget_dead_bricks()
        if len(self._pids_of("glusterfsd")) < BRICKS:
            self._gluster("volume", "start", VOLUME, "force")
        self._wait_bricks(CLIENTS)

    def stop(self) -> None:
        for pid in self._net.pids():
            signal_process(pid, signal.SIGCONT)
        for point in self.mounts():
            with contextlib.suppress(TargetFailed):
                unmount(point)
        self._net.delete()

    def _gluster(self, *words: str) -> str:
        socket = f"--glusterd-sock={self.directory / 'glusterd.socket'}"
        log = f"--log-file={self.directory / 'log' / 'cli.log'}"
        return self._net.run("gluster", "--mode=script", socket, log, *words, limit_s=120)

    def _forget_dead_bricks(self) -> None:
        """Remove pid files of killed bricks.

        glusterd takes a brick for running as long as its pid exists, and a
        killed one stays as a zombie until its parent, process 1, reaps it.
        """
        for file in (self.directory / "run" / "vols" / VOLUME).glob("*.pid"):
            with contextlib.suppress(OSError, ValueError):
                if not alive(int(file.read_text())):
                    file.unlink()

    def _answers(self) -> bool:
        try:
            self._gluster("pool", "list")
        except TargetFailed:
            return False
        return True

    def _wait_bricks(self, clients: int = 0) -> None:
        """Wait until every brick is online and has at least `clients` connections.

        A mount comes back to a restarted brick by itself, but seconds later.
        """

        def ready() -> bool:
            try:
                text = self._gluster("volume", "status", VOLUME, "clients")
            except TargetFailed:  # another transaction is in progress
                return False
            rows = (row.partition(":") for row in text.splitlines())
            counts = [int(value) for key, _, value in rows if key.startswith("Clients connected")]
            return len(counts) == BRICKS and min(counts) >= clients

        wait_until(ready, "three bricks online", READY_LIMIT_S)

    def _mount_all(self) -> None:
        for number, point in enumerate(self.mounts(), 1):
            log = self.directory / "log" / f"mnt{number}.log"
            server = (f"--volfile-server={ADDRESS}", f"--volfile-id={VOLUME}")
            self._net.run("glusterfs", "--process-name", "fuse", *server, "-l", log, point)
            wait_until(lambda point=point: mount_device(point) is not None, "mount", READY_LIMIT_S)  # type: ignore[misc]

    def _pids_of(self, part: str) -> list[int]:
        return [pid for pid, line in self._net.pids().items() if part in line]

    def _victim(self) -> int:
        bricks = self._pids_of(f"brick{VICTIM}")
        return next(pid for pid in self._pids_of("glusterfsd") if pid in bricks)
