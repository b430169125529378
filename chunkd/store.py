"""All replicas on this server's disks: found at the start, placed, opened, deleted.

Joins the machine's replicas (what may be done with them) with their files (where
the bytes are). New replicas go to the directory with most room; one that is nearly
full, is drained or has failed takes none, but goes on serving. Two replicas of one chunk in two
directories (one had failed, and came back, or was being drained) are compared at the start:
the better stays.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from chunkd.core.machine import Machine
from chunkd.core.replica import Replica, ReplicaState
from chunkd.directory import DataDirectory
from chunkd.files import REPLICA_ENDINGS, CopyFile, OpenFiles, SealedFiles, read_meta, remove
from chunkd.formats import SideHeader
from chunkd.sidelog import NeverDurable
from chunkd.sums import BlockSums
from gfs.errors import Corrupt, GfsError, NoSpace, NoSuchReplica, NotFound, StorageFailed
from gfs.messages import ReplicaReport

log = logging.getLogger(__name__)

SEALED_OPEN_MAX = 512  # descriptors kept of sealed replicas
ROOM_SHARE_MIN = 50  # a chunk needs room for itself, on a small disk for one 50th of it


class Store:
    """See the module's text. Methods that may take long say so: run them in a thread."""

    def __init__(
        self, directories: Sequence[DataDirectory], machine: Machine, absent: Sequence[str] = ()
    ) -> None:
        self.directories = list(directories)
        self.absent = list(absent)  # directories that could not be opened, with the reason
        self.machine = machine
        self.places: dict[int, DataDirectory] = {}
        self.open: dict[int, OpenFiles] = {}
        self.checksums: dict[int, int] = {}  # of sealed replicas, over their block checksums
        self.bad: set[int] = set()  # replicas with a checksum that did not hold
        self._arriving: dict[int, DataDirectory] = {}  # copies under way
        self._sealed: OrderedDict[int, SealedFiles] = OrderedDict()
        self.on_failure: Callable[[DataDirectory], None] = lambda _: None

    # --- start

    def load(self) -> None:
        """Find every replica; recover the open ones. May take long.

        Raises:
          NewerFormat, WrongCluster: a file that is not ours to touch.
        """
        for directory in self.directories:
            try:
                for handle, endings in directory.contents().items():
                    self._load_one(directory, handle, endings)
            except StorageFailed as error:
                self.note_failure(directory, error)

    def _load_one(self, directory: DataDirectory, handle: int, endings: set[str]) -> None:
        """One found in a directory; there may be another of it in one before."""
        other, elsewhere = self.machine.replicas.get(handle), self.places.get(handle)
        if other is None or elsewhere is None:
            self._load(directory, handle, endings)
            return
        self.forget(handle)
        self._load(directory, handle, endings)
        found = self.machine.replicas.get(handle)
        worse = directory
        if found is not None:
            here, there = (_rank(found), directory.takes_new), (_rank(other), elsewhere.takes_new)
            worse = elsewhere if here > there else directory
        log.warning("replica.twice handle=%016x quarantined in=%s", handle, worse.path)
        self.forget(handle)
        worse.quarantine(handle, {"data", "side", "meta", "bad"})
        best = directory if worse is elsewhere else elsewhere
        self._load(best, handle, best.endings(handle))

    def _load(self, directory: DataDirectory, handle: int, endings: set[str]) -> None:
        for unfinished in endings & {"copy", "meta.new"}:
            directory.disk.unlink(directory.file(handle, unfinished))
        kept = endings & {"data", "side", "meta", "bad"}
        try:
            if "data" in kept and kept & {"meta", "bad"}:
                self._load_sealed(directory, handle, kept)
            elif kept >= {"data", "side"}:
                self._load_open(directory, handle)
            elif kept:
                raise NeverDurable(f"only {', '.join(sorted(kept))}")
        except NeverDurable as error:
            log.info("replica.incomplete handle=%016x quarantined: %s", handle, error)
            directory.quarantine(handle, kept)
        except Corrupt as error:
            log.error("replica.damaged handle=%016x quarantined: %s", handle, error)
            directory.quarantine(handle, kept)

    def _load_sealed(self, directory: DataDirectory, handle: int, endings: set[str]) -> None:
        if "side" in endings:  # the crash came just before it was to go
            directory.disk.unlink(directory.file(handle, "side"))
        meta = read_meta(directory, handle, "meta" if "meta" in endings else "bad")
        data = directory.disk.open(directory.file(handle, "data"))
        try:
            if data.size() < meta.length:
                raise Corrupt(f"{data.size()} bytes, {meta.length} expected")
        finally:
            data.close()
        sums = BlockSums.from_bytes(meta.sums, meta.length)
        replica = Replica(
            handle, meta.version, tail=False, chunk_bytes=meta.length, end=meta.length,
            state=ReplicaState.SEALED,
        )  # fmt: skip
        if "meta" not in endings:
            replica.bad = True
            self.bad.add(handle)
        self._admit(replica, directory)
        self.checksums[handle] = sums.checksum

    def _load_open(self, directory: DataDirectory, handle: int) -> None:
        files, slot, writers = OpenFiles.recover(directory, handle)
        header = files.side.header
        replica = Replica(
            handle, slot.version, tail=header.tail, chunk_bytes=header.chunk_bytes,
            end=files.sums.end, state=ReplicaState.FENCED if slot.fenced else ReplicaState.OPEN,
        )  # fmt: skip
        replica.recovered = True
        replica.writers = writers
        # In the boot that wrote them, entries only cease to hold because something rotted.
        replica.bad = files.side.lost_something and header.boot == self.machine.boot
        self._admit(replica, directory)
        self.open[handle] = files

    def _admit(self, replica: Replica, directory: DataDirectory) -> None:
        self.machine.replicas[replica.handle] = replica
        self.places[replica.handle] = directory

    # --- room

    def room(self) -> tuple[int, int]:
        """Bytes that new chunks may take on all working disks, and the size of all."""
        free = total = 0
        seen: set[tuple[int, int]] = set()
        for directory in sorted(self.directories, key=lambda one: not one.takes_new):
            try:
                here = directory.room()
            except GfsError as error:
                self.note_failure(directory, error)
                continue
            if here not in seen:  # two directories on one disk share its room
                seen.add(here)
                total += here[1]
                free += here[0] if directory.takes_new else 0
        return free, total

    def failing(self) -> list[str]:
        """Directories that are out, with the reason."""
        return self.absent + [
            f"{directory.path}: {directory.health.reason}"
            for directory in self.directories
            if directory.health.is_out
        ]

    def only_slow(self) -> DataDirectory | None:
        """A directory to wait for, if none works and one is only slow."""
        if any(directory.takes_new for directory in self.directories):
            return None
        slow = (one for one in self.directories if one.health.is_slow and not one.health.is_out)
        return next(slow, None)

    def in_directory(self, directory: DataDirectory) -> list[Replica]:
        """Its replicas, working or not."""
        replicas = self.machine.replicas
        return [replicas[h] for h, place in self.places.items() if place is directory]

    def _place(self, length: int) -> DataDirectory:
        best, most = None, -1
        for directory in self.directories:
            if not directory.takes_new:
                continue
            try:
                free, total = directory.room()
            except GfsError as error:
                self.note_failure(directory, error)
                continue
            if free >= min(length, total // ROOM_SHARE_MIN) and free > most:
                best, most = directory, free
        if best is None:
            if all(directory.health.is_out for directory in self.directories):
                raise StorageFailed("; ".join(self.failing()))
            raise NoSpace("no data directory has room for a new chunk")
        return best

    # --- open replicas

    def create(self, handle: int, version: int, *, tail: bool, chunk_bytes: int) -> Replica:
        """An empty open replica.

        Raises:
          NoSpace: every directory is nearly full.
          StorageFailed: the disk refused; the directory takes no more new ones.
        """
        directory = self._place(chunk_bytes)
        header = SideHeader(
            directory.identity.cluster, handle, version, tail, chunk_bytes, self.machine.boot
        )
        try:
            files = OpenFiles.create(directory, header)
        except GfsError as error:
            self.note_failure(directory, error)
            raise
        replica = Replica(handle, version, tail=tail, chunk_bytes=chunk_bytes)
        self._admit(replica, directory)
        self.open[handle] = files
        return replica

    def note_failure(self, directory: DataDirectory, error: GfsError) -> None:
        """A disk refused what it has room for: nothing new goes there; the master hears of it."""
        if isinstance(error, NoSpace | Corrupt):
            return
        if directory.health.failed(str(error)):
            log.error("disk.failed directory=%s: %s", directory.path, error)
            self.on_failure(directory)

    def note_unreadable(self, replica: Replica, error: GfsError) -> None:
        """The disk does not give a replica's bytes; several such fail the directory."""
        directory = self.places.get(replica.handle)
        if directory is None:
            return
        if directory.health.unreadable(replica.handle, str(error)):
            log.error("disk.failed directory=%s: %s", directory.path, directory.health.failure)
            self.on_failure(directory)

    def sealed_now(self, replica: Replica, version: int, sums: BlockSums) -> None:
        """`OpenFiles.condense` or a copy is done: count the replica as sealed."""
        files = self.open.pop(replica.handle, None)
        if files is not None:
            files.retire()
        cached = self._sealed.pop(replica.handle, None)
        if cached is not None:
            cached.retire()
        replica.seal(version, sums.end)
        replica.bad = False
        self.bad.discard(replica.handle)
        self.checksums[replica.handle] = sums.checksum

    # --- reading

    def files(self, replica: Replica) -> OpenFiles | SealedFiles | None:
        """What to read the replica from, if it is open here; `hold` it while a thread reads."""
        handle = replica.handle
        found = self.open.get(handle)
        if found is not None:
            return found
        sealed = self._sealed.get(handle)
        if sealed is not None:
            self._sealed.move_to_end(handle)
        return sealed

    def open_sealed(self, directory: DataDirectory, handle: int) -> SealedFiles:
        """Open a sealed replica's files; `keep` them then. May take long.

        Raises:
          Corrupt: its checksums cannot be read.
          NoSuchReplica: deleted meanwhile.
        """
        try:
            return SealedFiles.open(directory, handle)
        except NotFound as error:
            raise NoSuchReplica(str(error)) from None

    def keep(self, replica: Replica, sealed: SealedFiles) -> OpenFiles | SealedFiles:
        """Remember opened files; returns those to use, which somebody may have opened before.

        Raises:
          NoSuchReplica: deleted or replaced meanwhile.
        """
        handle = replica.handle
        if self.machine.replicas.get(handle) is not replica:
            sealed.close()
            raise NoSuchReplica(f"no replica of chunk {handle:016x} here any more")
        known = self.files(replica)
        if known is not None:
            sealed.close()
            return known
        self._sealed[handle] = sealed
        if len(self._sealed) > SEALED_OPEN_MAX:
            _, oldest = self._sealed.popitem(last=False)
            oldest.retire()
        return sealed

    def mark_bad(self, replica: Replica) -> bool:
        """A block of it cannot be had; those that hold are still served. False: known."""
        if replica.handle in self.bad:
            return False
        replica.bad = True
        self.bad.add(replica.handle)
        log.error("replica.corrupt handle=%016x version=%d", replica.handle, replica.version)
        return True

    def remember_bad(self, replica: Replica) -> None:
        """Make `mark_bad` of a sealed replica outlast a restart. May take long."""
        directory = self.places.get(replica.handle)
        known = self.machine.replicas.get(replica.handle)
        if directory is None or known is not replica or not replica.bad:
            return  # deleted, or replaced by a good one
        meta, bad = (directory.file(replica.handle, ending) for ending in ("meta", "bad"))
        if directory.disk.exists(meta):
            directory.disk.rename(meta, bad)
            directory.disk.sync_directory(bad.parent)

    # --- leaving and coming

    def forget(self, handle: int) -> DataDirectory | None:
        """Serve the replica no more; the files are still there."""
        self.machine.lose(handle)
        self.checksums.pop(handle, None)
        self.bad.discard(handle)
        for held in (self.open.pop(handle, None), self._sealed.pop(handle, None)):
            if held is not None:
                held.retire()
        return self.places.pop(handle, None)

    def begin_copy(self, handle: int, length: int) -> CopyFile:
        """Where the old replica is if that may take it, else elsewhere. Raises `NoSpace`."""
        directory = self.places.get(handle)
        if directory is None or not directory.takes_new:
            directory = self._place(length)
        copy = CopyFile(directory, handle)
        self._arriving[handle] = directory
        return copy

    def abandon_copy(self, copy: CopyFile) -> None:
        """It has come to nothing."""
        del self._arriving[copy.handle]
        copy.abandon()

    def arriving_at(self, directory: DataDirectory) -> int:
        """How many copies are under way to it."""
        return sum(place is directory for place in self._arriving.values())

    def finish_copy(self, copy: CopyFile, version: int, sums: BlockSums) -> None:
        """A finished copy is a sealed replica. Older files of it elsewhere are the caller's."""
        del self._arriving[copy.handle]
        replica = self.machine.replicas.get(copy.handle)
        if replica is not None and self.places[copy.handle] is not copy.directory:
            self.forget(copy.handle)  # that directory is out, or is being drained
            replica = None
        if replica is None:
            replica = Replica(copy.handle, version, tail=False, chunk_bytes=sums.end)
            self._admit(replica, copy.directory)
        self.sealed_now(replica, version, sums)

    def reports(self) -> Iterator[ReplicaReport]:
        """The block report (GFS §2.6.2); a directory that hangs has nothing to offer."""
        for replica in list(self.machine.replicas.values()):
            place = self.places.get(replica.handle)
            if place is not None and not place.health.is_hung:
                yield self.report(replica)

    def report(self, replica: Replica) -> ReplicaReport:
        """One replica as the master is to hear of it."""
        directory = self.places[replica.handle]
        drain = directory.drain
        return ReplicaReport(
            replica.handle, replica.version, replica.state is ReplicaState.SEALED, replica.end,
            self.checksums.get(replica.handle, 0), replica.recovered,
            sound=not (replica.bad or directory.health.is_out),
            outgoing=drain is not None and drain.is_outgoing(replica),
        )  # fmt: skip

    def close(self) -> None:
        """Close everything; makes nothing durable."""
        for files in self.open.values():
            files.close()
        for sealed in self._sealed.values():
            sealed.close()
        for directory in self.directories:
            directory.close()


def _rank(replica: Replica) -> tuple[int, bool, bool, int]:
    """Of two replicas of one chunk the higher is to be kept."""
    sealed = replica.state is ReplicaState.SEALED
    return replica.version, sealed, not replica.bad, replica.end


def delete(directory: DataDirectory, handle: int, *, bad: bool) -> None:
    """Remove a forgotten replica's files; a bad one's are kept aside. May take long."""
    if bad:
        directory.quarantine(handle, REPLICA_ENDINGS)
    else:
        remove(directory, handle)
