"""What every conversation shares: the handshake and the parts of messages."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from gfs.identities import NOBODY, Range
from gfs.items import Extent, Inode

REVISION = 1

Number = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
"""What a table takes as a key; a frame with another is refused where it is decoded."""


class Message(Struct, array_like=True, tag=True, gc=False):
    """Base of all messages; the tag is the class's name."""


class Challenge(Message):
    """Server's first frame."""

    revision: int
    cluster: str
    nonce: bytes


class Hello(Message):
    """Client's first frame; `proof` = HMAC-SHA256(key, b"client" + nonce + own nonce).

    An empty proof is accepted on a Unix socket alone, where the kernel tells
    the peer's uid and gid: the caller is then bound to these.
    """

    revision: int
    cluster: str  # "" = whichever this is (command line)
    proof: bytes
    nonce: bytes
    role: str  # "client", "chunkd", "shadow"


class Welcome(Message):
    """`proof` = HMAC-SHA256(key, b"server" + both nonces): the server has the key too.

    `leads` is False of a shadow master: it answers reads, and may be behind.
    """

    proof: bytes
    epoch: int
    leads: bool = True


class Ping(Message):
    """Nothing; says that the sender's loop turns. Sent each 300 ms of silence."""


class Ok(Message):
    """An empty answer."""


class Actor(Message):
    """On whose behalf: checked by the master on every request.

    `groups` None = the caller did not look them up; a refusal that groups might
    turn is then answered by `GroupsNeeded`, and the caller asks again with them.
    """

    uid: int
    gid: int
    pid: int = 0
    groups: tuple[int, ...] | None = None


class Access(Message):
    """What a session may do: as its client asks for, or as the master's exports say.

    `subtree`: path of the directory that is its root. `map_uid`, `map_gid`: as of
    `gfs.identities`. `squash`: "" nobody, "root" who would be root, "all" everybody acts
    as `anon_uid` and `anon_gid`, after the maps.
    """

    read_only: bool = False
    subtree: bytes = b"/"
    map_uid: list[Range] = field(default_factory=list)
    map_gid: list[Range] = field(default_factory=list)
    squash: str = ""
    anon_uid: int = NOBODY
    anon_gid: int = NOBODY


class Entry(Message):
    """An inode's attributes as of `position`. `ino` 0: there is no such name.

    `cacheable` False: another session writes it or it has an open tail, so the
    kernel must not keep size and times (timeout 0).
    """

    position: int
    ino: int
    inode: Inode | None
    cacheable: bool = True


class ListedName(Message):
    """A name of a listing; `inode` is there when `plus` was asked."""

    name: bytes
    ino: int
    kind: int
    inode: Inode | None = None
    cacheable: bool = True


class ChainMember(Message):
    """Where a chunk server listens."""

    server: int
    address: str  # host:port
    unix: str = ""  # path of its Unix socket, usable when `host_id` is this host's
    host_id: str = ""  # /etc/machine-id-like identity of the host + network namespace
    rack: str = ""


class Lease(Message):
    """The right to append to an open chunk through its chain (first = primary)."""

    handle: int
    version: int
    epoch: int
    chunk_bytes: int
    members: list[ChainMember]
    length: int = 0  # where the chunk stands (re-leased tails)


class Located(Message):
    """A chunk and who can serve it, best first."""

    handle: int
    version: int
    sealed: bool
    length: int  # final when sealed, else what is known to be acknowledged (0 = ask)
    members: list[ChainMember]


class LaidOut(Message):
    """An extent of a file."""

    file_offset: int
    extent: Extent
