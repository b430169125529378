"""What the simulated programs have been told, and what may therefore be read.

Three claims are kept here as they are made, and checked whenever somebody reads:

- *Appends*: of each handle's records the first k are in the file, once, whole and in
  order; k is at least what was acknowledged when the read began.
- *Private files*: every byte is the last acknowledged one or one written since.
- *Calls*: each has a begin, an end and an outcome, for the checks after the run.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

from tests.sim.kernel import SimulationError

HEAD = struct.Struct("<2sIIHI")  # magic, handle, sequence, bytes that follow, their CRC
MAGIC = b"rA"


@dataclass
class Call:
    """One call of a client.

    Attributes:
      low: highest position that anybody had been told of when it began.
      outcome: None (unknown: its process died), a position, or the class of the error.
      high: position committed when it ended.
    """

    kind: str
    client: str
    begin: float
    low: int
    details: tuple[object, ...] = ()
    end: float = -1.0
    high: int = 0
    outcome: int | str | None = None
    found: object = None


@dataclass
class AppendHandle:
    """One open handle that appends. `sent`: records a call was made for."""

    number: int
    sent: int = 0
    closed: int = 0  # acknowledged by close: at all members
    synced: int = 0  # acknowledged by fsync, or O_SYNC: on all their disks
    closed_at: float = 0.0

    def record(self, length: int) -> bytes:
        """The next record's bytes."""
        self.sent += 1
        return record_of(self.number, self.sent, length)


def record_of(handle: int, sequence: int, length: int) -> bytes:
    """Bytes of a record, all of them told by its numbers."""
    content = (b"%d.%d;" % (handle, sequence) * (length // 4 + 1))[:length]
    return HEAD.pack(MAGIC, handle, sequence, length, zlib.crc32(content)) + content


@dataclass
class AppendFile:
    """A file that everybody appends to."""

    path: bytes
    handles: dict[int, AppendHandle] = field(default_factory=dict)

    def promised(self, *, closed_counts: bool) -> dict[int, int]:
        """Handle -> how many records must be found by a read that begins now."""
        return {
            handle.number: max(handle.synced, handle.closed) if closed_counts else handle.synced
            for handle in self.handles.values()
        }

    def check(self, content: bytes, promised: dict[int, int], who: str) -> int:
        """Raise unless `content` is what the file may hold; returns the records in it."""
        found: dict[int, int] = {}
        at = records = 0
        while at < len(content):
            where = f"{who}: {self.path.decode()} at {at} of {len(content)}"
            if len(content) - at < HEAD.size:
                raise SimulationError(f"{where}: a torn record")
            magic, number, sequence, length, checksum = HEAD.unpack_from(content, at)
            body = content[at + HEAD.size : at + HEAD.size + length]
            if magic != MAGIC or len(body) != length or zlib.crc32(body) != checksum:
                raise SimulationError(f"{where}: no whole record begins here")
            handle = self.handles.get(number)
            if handle is None or sequence > handle.sent:
                raise SimulationError(f"{where}: record {number}.{sequence} was never written")
            if sequence != found.get(number, 0) + 1:
                raise SimulationError(
                    f"{where}: record {number}.{sequence} comes after {found.get(number, 0)}"
                )
            found[number] = sequence
            at += HEAD.size + length
            records += 1
        for number, least in promised.items():
            if found.get(number, 0) < least:
                raise SimulationError(
                    f"{who}: {self.path.decode()}: of handle {number} {found.get(number, 0)}"
                    f" records are there, {least} were acknowledged"
                )
        return records


@dataclass
class Change:
    """A write, or (content None) a truncation to `offset`."""

    offset: int
    content: bytes | None

    def apply(self, to: bytearray) -> None:
        """As POSIX says."""
        if self.content is None:
            if self.offset < len(to):
                del to[self.offset :]
            else:
                to.extend(bytes(self.offset - len(to)))
            return
        if self.offset > len(to):
            to.extend(bytes(self.offset - len(to)))
        to[self.offset : self.offset + len(self.content)] = self.content


@dataclass
class PrivateFile:
    """A file that one program writes; others may read.

    Attributes:
      changes: all calls made, in order.
      certain: how many of them fsync has acknowledged.
      visible: how many of them close has acknowledged: the next open elsewhere sees them.
      frozen: an error was told, or the writer died: nothing more is written.
    """

    path: bytes
    writer: str
    changes: list[Change] = field(default_factory=list)
    certain: int = 0
    visible: int = 0
    frozen: bool = False
    _base: bytearray = field(default_factory=bytearray)
    _based: int = 0

    def content(self, count: int) -> bytes:
        """The file after the first `count` changes, which only grows from call to call."""
        if count < self._based:
            self._base, self._based = bytearray(), 0
        for change in self.changes[self._based : count]:
            change.apply(self._base)
        self._based = count
        return bytes(self._base)

    def check(self, found: bytes, least: int, who: str) -> None:
        """Raise unless `found` holds the first `least` changes, any later ones over them."""
        base = bytearray()
        for change in self.changes[:least]:
            change.apply(base)
        later = self.changes[least:]
        if found == base or self._is_as_of(found, bytearray(base), later):
            return
        sizes = self._sizes(len(base), later)
        where = f"{who}: {self.path.decode()} ({least} of {len(self.changes)} changes certain)"
        if not sizes[0] <= len(found) <= sizes[1]:
            raise SimulationError(f"{where}: {len(found)} bytes, expected {sizes}")
        for at, byte in enumerate(found):
            if at < len(base) and byte == base[at]:
                continue
            if not self._allowed(at, byte, len(base), later):
                raise SimulationError(f"{where}: byte {at} is {byte}, which it never was")

    def _is_as_of(self, found: bytes, content: bytearray, later: list[Change]) -> bool:
        """Is it what there was after some of the later changes? Nearly always, and soon seen."""
        for change in later:
            change.apply(content)
            if found == content:
                return True
        return False

    def _sizes(self, size: int, later: list[Change]) -> tuple[int, int]:
        least = most = size
        for change in later:
            if change.content is None:
                least, most = min(least, change.offset), max(most, change.offset)
            else:
                most = max(most, change.offset + len(change.content))
        return least, most

    def _allowed(self, at: int, byte: int, certain: int, later: list[Change]) -> bool:
        if byte == 0 and (at >= certain or any(change.content is None for change in later)):
            return True
        for change in later:
            content = change.content or b""
            if content[max(0, at - change.offset) :][:1] == bytes([byte]) and at >= change.offset:
                return True
        return False


@dataclass
class ClonedFile:
    """A clone of a file, which nobody writes to, and all snapshots of it.

    Attributes:
      least: what of the source had been acknowledged when the clone was asked for.
      content: as it was found first; it never changes.
    """

    name: bytes
    source: AppendFile | PrivateFile
    least: dict[int, int] | int
    content: bytes | None = None

    def check(self, found: bytes, who: str) -> None:
        """Raise unless `found` is what the clone holds."""
        if self.content is None:
            where = f"{who}, {self.name.decode()}"
            if isinstance(self.source, AppendFile):
                assert isinstance(self.least, dict)
                self.source.check(found, self.least, where)
            else:
                assert isinstance(self.least, int)
                self.source.check(found, self.least, where)
            self.content = found
        elif found != self.content:
            raise SimulationError(f"{who}: clone {self.name.decode()} has changed")


@dataclass
class Acts:
    """The highest numbers that have acted under one lock, by all and by exclusive holders."""

    highest: int = 0
    exclusive: int = 0
    total: int = 0

    def act(self, fence: int, shared: bool, where: str) -> None:
        """Raise unless this holder may."""
        later = self.exclusive if shared else self.highest
        if fence < later:
            raise SimulationError(f"{where}: acts by lock {fence:x}, after {later:x} has")
        self.highest = max(self.highest, fence)
        if not shared:
            self.exclusive = fence
        self.total += 1


class Oracle:
    """Everything that was asked and told.

    Attributes:
      cache_hits: lookups that asked nobody. local_opens: opens that did not.
      told: highest position in any answer so far.
      power_losses: of chunk servers, by time.
      copies: paths at which a clone, or a snapshot, was made or brought back.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.told = self.cache_hits = self.local_opens = 0
        self.appends: dict[bytes, AppendFile] = {}
        self.privates: dict[bytes, PrivateFile] = {}
        self.power_losses: list[float] = []
        self.copies: list[bytes] = []
        self.clones: dict[bytes, ClonedFile] = {}
        self._acts: dict[bytes, Acts] = {}
        self.handles = self.snapshots = 0
        self.operations: dict[str, int] = {}
        self.errors: dict[str, int] = {}

    def append_file(self, path: bytes) -> AppendFile:
        """The file of that path."""
        return self.appends.setdefault(path, AppendFile(path))

    def open_append(self, path: bytes) -> AppendHandle:
        """A new handle on it."""
        self.handles += 1
        handle = AppendHandle(self.handles)
        self.append_file(path).handles[handle.number] = handle
        return handle

    def cloned(self, source: AppendFile | PrivateFile) -> ClonedFile:
        """A clone that is asked for now, under a new name."""
        least: dict[int, int] | int
        if isinstance(source, AppendFile):
            least = source.promised(closed_counts=self.closed_counts())
        else:
            least = source.certain
        clone = ClonedFile(b"c%d" % (len(self.clones) + 1), source, least)
        self.clones[clone.name] = clone
        return clone

    def clone_called(self, name: bytes) -> ClonedFile | None:
        """What is found under a name; a suffix says where it came back from."""
        return self.clones.get(name.partition(b".")[0])

    def acts(self, path: bytes) -> Acts:
        """What was done under the lock of a file."""
        return self._acts.setdefault(path, Acts())

    def closed_counts(self) -> bool:
        """What only close has acknowledged lies on no disk yet: many losses may take it."""
        return len(self.power_losses) <= 1

    def ended(self, call: Call) -> None:
        """Count it."""
        self.operations[call.kind] = self.operations.get(call.kind, 0) + 1
        if isinstance(call.outcome, str):
            self.errors[call.outcome] = self.errors.get(call.outcome, 0) + 1
        elif isinstance(call.outcome, int):
            self.told = max(self.told, call.outcome)
