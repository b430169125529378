"""What a client is told when it starts, and what it calls back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gfs.ids import MIB
from gfs.messages import Access, Entry, Invalidate

ABSENT, UNKNOWN = 0, -1  # instead of the inode that a name leads to

GroupsOf = Callable[[int], tuple[int, ...]]


def groups_of_process(pid: int) -> tuple[int, ...]:
    """Supplementary groups of a process of this host; none if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ()
    for line in status.splitlines():
        if line.startswith("Groups:"):
            return tuple(int(group) for group in line.split()[1:])
    return ()


async def _ignore(_: Invalidate) -> None:
    return None


async def _nothing() -> None:
    return None


def _message(_: Invalidate) -> None:
    return None


def _none() -> Sequence[int]:
    return ()


def _entry(_: Entry) -> None:
    return None


def _not_known(_: int) -> Entry | None:
    return None


def _leads_anywhere(_parent: int, _name: bytes) -> int:
    return UNKNOWN


def _lost() -> None:
    return None


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Where the cluster is and how much may wait in this process.

    `connect_timeout_s` bounds the first connection only; None tries for ever.
    `master` and `master_unix` may name several, with commas (gfs.masters). `shadow`: a
    shadow master will do; what it answers may be old, and changes are refused.
    `wish`: the session is to do no more than this, of whatever the master grants.
    `key` None is right on the master's Unix socket alone: the caller is then
    the user the kernel says it is.
    """

    master: str = ""  # host:port
    master_unix: str = ""  # tried first when given
    key: bytes | None = None
    cluster: str = ""  # "" = whichever answers
    mount: str = ""  # mountpoint, for the records' actor
    write_back_bytes: int = 64 * MIB  # dirty + uncommitted bytes of all files
    flush_after_s: float = 1.0  # bytes wait at most about this long
    connect_timeout_s: float | None = None
    request_timeout_s: float = 60.0  # a read
    mutation_timeout_s: float = 80.0  # below the mount's handler limit of 90 s
    shadow: bool = False
    wish: Access | None = None


@dataclass(slots=True)
class Callbacks:
    """What the owner of a client wants to hear; all have a harmless default.

    Attributes:
      on_invalidate: drop these from all caches; acknowledged when what it returns is awaited.
        Called before any later answer is heard of: what it does at once, it does before that.
        The client has dropped its own layouts before.
      directories: inodes of the directories cached (declared at reconnection).
      groups_of: supplementary groups of a process id.
      on_doubt: an own mutation ran out of time and may still land: nothing that the message
        names may be trusted until `on_known` is called with the same names (the client has
        then called `on_invalidate`, if it has landed).
      on_barrier: have logged whatever was shown to anybody and is not in the log yet.
      on_entry: fresh attributes of a file came with a commit.
      on_resumed: the machine has slept and the lease is void: as at a new epoch.
      on_new_epoch: another master answers: nothing cached may be trusted any more;
      known: attributes of a file with a name, if they may be trusted for as long as the lease
        is: what has been read is then kept open, and opened again without the master.
      leads_to: inode of a name in a directory, as far as it is known; `ABSENT`, `UNKNOWN`.
      on_session_lost: the master ended the session and a new one is opened;
        nothing cached may be trusted.
    """

    on_invalidate: Callable[[Invalidate], Awaitable[None]] = _ignore
    directories: Callable[[], Sequence[int]] = _none
    groups_of: GroupsOf = groups_of_process
    on_doubt: Callable[[Invalidate], None] = _message
    on_known: Callable[[Invalidate], None] = _message
    on_barrier: Callable[[], Awaitable[None]] = _nothing
    on_entry: Callable[[Entry], None] = _entry
    known: Callable[[int], Entry | None] = _not_known
    leads_to: Callable[[int, bytes], int] = _leads_anywhere
    on_session_lost: Callable[[], None] = _lost
    on_new_epoch: Callable[[], None] = _lost
    on_resumed: Callable[[], None] = _lost
