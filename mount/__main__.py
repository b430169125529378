"""`gfs mount`: connect, mount, serve until unmounted or told to stop, leave nothing behind.

Ends with 0 after an unmount or SIGTERM, with 2 and one line when it cannot start.
Stopping: what the kernel and this process hold back is written first (bounded), then
the place is unmounted; what is still open there gets errors.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pyfuse3
import trio

from gfs import logs, mounts, readiness
from gfs.access import wish_of
from gfs.client.client import Client, open_client
from gfs.client.settings import Callbacks, ClientSettings, groups_of_process
from gfs.config import load
from gfs.errors import GfsError, UsageError
from gfs.handshake import load_key
from gfs.messages import Access, DropInterest, Entry
from gfs.running import first_of, prepare_process
from gfs.sections import MountConfig
from gfs.serving import common_application, serve_http
from gfs.squashing import Layers
from mount import accessing, mountpoint, words
from mount.answering import Tables
from mount.guard import end_guard, guard_reads
from mount.handlers import Handlers
from mount.invalidation import Invalidation, fuse_descriptor
from mount.tracing import Tracing

log = logging.getLogger(__name__)

CONNECT_S = 30.0  # for the first answer of the master
TASKS_MAX = 256  # requests worked on at once; the rest wait in the kernel
SHED_S = 1.0
GROUPS_S = 1.0  # how long a process's groups are believed
UNMOUNT_S = 5.0  # a busy or slow kernel is not waited for longer
FLUSH_S = 12.0
LAST_CALLS_S = 3.0


class Mount:
    """One mount process: what its tasks share."""

    def __init__(
        self, config: MountConfig, place: str, key: bytes | None, kernel: frozenset[str]
    ) -> None:
        self.config = config
        self._kernel = kernel
        self._wish = wish_of(config)
        self.place = place
        self.key = key
        self.tables = Tables()
        self.tables.accesses.mode = config.atime
        self.invalidation = Invalidation(self.tables)
        self.greeted = trio.Event()
        self.notes: list[str] = []
        self._groups: dict[int, tuple[float, tuple[int, ...]]] = {}

    async def serve(self) -> None:
        """Until unmounted or stopped by a signal.

        Raises:
          GfsError: the master cannot be reached or refuses us.
          UsageError: the place cannot be mounted on.
        """
        async with open_client(self._settings(), callbacks=self._callbacks()) as client:
            self.tables.client = client
            limits = client.link.limits
            self.tables.users = Layers(limits)
            self.tables.is_subtree = any(access.subtree != b"/" for access in limits)
            self._mount(limits)
            if self.config.new_session:
                os.setsid()
            try:
                await self._run(client)
            finally:
                self._unmounted()
            with trio.move_on_after(LAST_CALLS_S):
                await accessing.tell(self.tables)

    def _settings(self) -> ClientSettings:
        config = self.config
        return ClientSettings(
            master=config.master,
            master_unix=config.master_unix,
            key=self.key,
            cluster=config.cluster_id,
            mount=config.name or self.place,
            write_back_bytes=config.write_back_bytes,
            flush_after_s=config.flush_after_s,
            connect_timeout_s=CONNECT_S,
            wish=self._wish,
        )

    def _callbacks(self) -> Callbacks:
        return Callbacks(
            on_invalidate=self.invalidation.invalidate,
            directories=self.tables.cache.directories,
            groups_of=self._groups_of,
            on_doubt=self.invalidation.doubt,
            on_known=self.invalidation.settle,
            on_barrier=functools.partial(accessing.tell, self.tables),
            on_entry=self._committed,
            known=self.tables.known,
            leads_to=self.tables.cache.lookup,
            on_session_lost=self._session_lost,
            on_new_epoch=self.invalidation.drop_everything,
            on_resumed=self.invalidation.drop_everything,
        )

    def _groups_of(self, pid: int) -> tuple[int, ...]:
        now = trio.current_time()
        known = self._groups.get(pid)
        if known is None or now - known[0] > GROUPS_S:
            if len(self._groups) > 1000:
                self._groups.clear()
            known = self._groups[pid] = now, groups_of_process(pid)
        return known[1]

    def _committed(self, entry: Entry) -> None:
        """Own content was committed: the change time is the master's now, not ours."""
        self.tables.cache.learn(entry)
        self.invalidation.forget_attributes(entry.ino)

    def _session_lost(self) -> None:
        log.error("session.lost what was not committed is lost, caches are dropped")
        self.invalidation.drop_everything()

    def _mount(self, limits: Sequence[Access]) -> None:
        options, self.notes = mountpoint.options(self.config, limits, self._kernel)
        try:
            handlers = Handlers(self.tables, self.greeted.set, self._statistics)
            pyfuse3.init(handlers, self.place, options)
        except RuntimeError as error:
            raise UsageError(f"cannot mount at {self.place}: {error}") from None
        guard_reads(fuse_descriptor())
        self.tables.names_recallable = self.invalidation.probe()

    def _unmounted(self) -> None:
        self.invalidation.end()
        pyfuse3.close(unmount=True)
        end_guard()
        place = os.fsencode(self.place)
        if mounts.mount_at(place) is not None:  # the connection was aborted from outside
            mounts.detach(place)

    async def _run(self, client: Client) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.invalidation.run)
            nursery.start_soon(self._shed)
            nursery.start_soon(accessing.run, self.tables)
            nursery.start_soon(self._watch_signals, client, nursery)
            nursery.start_soon(self._announce, client, nursery)
            self._watchable(nursery)
            await pyfuse3.main(max_tasks=TASKS_MAX)
            log.info("mount.ended %s %s", self.place, self._statistics())
            nursery.cancel_scope.cancel()

    def _watchable(self, nursery: trio.Nursery) -> None:
        mounted = mounts.mount_at(os.fsencode(self.place))
        if mounted is not None:
            tracing = Tracing(self.tables, self._statistics)
            nursery.start_soon(tracing.run, mounted.device)

    async def _announce(self, client: Client, nursery: trio.Nursery) -> None:
        await self.greeted.wait()
        # Not before: the kernel's first question to us ends in the default read-ahead.
        self.notes += mountpoint.tune(self.place, self.config.read_ahead_kib)
        http = ""
        if self.config.http:
            app = common_application(
                daemon="mount", key=self.key, health=self._health, statistics=self._statistics
            )
            serving = functools.partial(serve_http, app, self.config.http, self.config.http_unix)
            http = str(await nursery.start(serving))
        epoch = client.link.epoch
        readiness.announce(self.config.ready_file, http=http, epoch=epoch, notes=self.notes)
        log.info("mount.ready %s session=%d", self.place, client.link.session)
        for note in self.notes:
            log.info("mount.note %s", note)

    def _health(self) -> dict[str, object]:
        return {"ok": self.tables.lease_left() > 0, "mountpoint": self.place}

    def _statistics(self) -> dict[str, object]:
        tables = self.tables
        return {
            "lease_left_s": tables.lease_left(),
            "master_requests_total": tables.client.link.requests_total,
            "directories": len(tables.cache.directories()),
            "inodes": len(tables.inodes),
            "files": len(tables.files),
            "entries_invalidated_total": self.invalidation.entries_total,
            "epochs_total": self.invalidation.epochs_total,
            "blocked_total": self.invalidation.blocked_total,
            "unforeseen_total": tables.unforeseen,
        }

    async def _shed(self) -> None:
        """Keep the caches to their bounds."""
        tables = self.tables
        while True:
            await trio.sleep(SHED_S)
            dropped = tables.cache.shed(
                now=trio.current_time(), lease_until=tables.client.link.lease.until
            )
            if dropped:
                try:
                    await tables.client.link.read(DropInterest(dropped))
                except GfsError as error:
                    log.info("interest.kept %s", error)

    # --- the end

    async def _watch_signals(self, client: Client, nursery: trio.Nursery) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                log.info("mount.stopping %s signal=%d", self.place, number)
                nursery.start_soon(self._stop, client, nursery)
                break
            async for _ in signals:  # told twice: at once
                nursery.cancel_scope.cancel()

    async def _stop(self, client: Client, nursery: trio.Nursery) -> None:
        """Unmount while we still serve, so that the kernel can write back what is mapped."""
        if await self._unmount(lazy=False):
            # The loop ends by itself and this task with it, unless a mount namespace of somebody's
            # (a container's, a service's) has a copy of the mount.
            await trio.sleep(UNMOUNT_S)
        with trio.move_on_after(FLUSH_S) as flushing:
            try:
                await client.flush_all(durable=True)
            except GfsError as error:
                log.error("flush.failed %s", error)
        if flushing.cancelled_caught:
            log.error("flush.timeout not everything was written within %.0f s", FLUSH_S)
        log.warning("mount.busy %s is in use; detached all the same", self.place)
        await self._unmount(lazy=True)
        pyfuse3.terminate()
        await trio.sleep(LAST_CALLS_S)
        nursery.cancel_scope.cancel()

    async def _unmount(self, *, lazy: bool) -> bool:
        if shutil.which("fusermount3"):
            words = ["fusermount3", "-u", "-q", *(["-z"] if lazy else []), self.place]
        else:
            words = ["umount", *(["-l"] if lazy else []), self.place]
        with trio.move_on_after(UNMOUNT_S):
            done = await trio.run_process(words, check=False, capture_stderr=True)
            return done.returncode == 0
        return False


def is_news(record: logging.LogRecord) -> bool:
    """All but an answer that the kernel takes no more: who asked was interrupted, or unmounted."""
    gone = os.strerror(errno.ENOENT)
    return not ("fuse_reply_" in str(record.msg) and record.getMessage().endswith(gone))


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    log_file = ""
    try:
        config, _ = load("mount", sys.argv[1:] if argv is None else argv)
        config, kernel = words.applied(config)
        place = mountpoint.prepare(config.mountpoint)
        key = load_key(Path(config.key_file)) if config.key_file else None
        logs.set_up(config.log_level, config.log_file)
        logging.getLogger("pyfuse3").addFilter(is_news)
        log_file = config.log_file
        prepare_process()
        trio.run(Mount(config, place, key, kernel).serve)
    except (UsageError, GfsError, OSError, BaseExceptionGroup) as error:
        reason = first_of(error)
        if not isinstance(reason, UsageError | GfsError | OSError):
            raise
        if log_file:  # else the line would come twice
            log.error("mount.failed %s", reason)
        print(f"gfs mount: {reason}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
