"""Client -> chunk server -> next in chain: appends, syncs and reads of chunks."""

from __future__ import annotations

from gfs.messages.base import ChainMember, Message


class Join(Message):
    """First message about an open chunk on a connection: take part in its chain -> `Joined`.

    Creates the replica when it does not exist. `chain` = the members after
    this one. Appends may follow at once; they are refused if the join was.
    Answered when the whole rest of the chain has joined.
    """

    handle: int
    version: int
    epoch: int
    tail: bool
    chunk_bytes: int
    chain: list[ChainMember]


class Joined(Message):
    """`boots` of the members from this one on, in chain order; `end` of this replica."""

    boots: list[str]
    end: int


class Append(Message):
    """Payload goes at `offset` of an open private chunk, which is its end -> `Appended`.

    `checksum` = CRC32C of the payload. Answered when this member and all after
    it have written it (not synced).
    """

    handle: int
    version: int
    offset: int
    checksum: int
    writer: int = 0  # tail chunks: forwarded from the primary
    sequence: int = 0


class Appended(Message):
    """End of the chunk that all members of the chain have."""

    end: int


class RecordAppend(Message):
    """Records of one writer, back to back in the payload, to the primary -> `RecordsAppended`.

    `first` .. `first + count - 1` are their sequences; they land together or not
    at all. `checksum` = CRC32C of the payload. With `sync`, answered after
    fdatasync at every member.
    """

    handle: int
    version: int
    writer: int
    first: int
    count: int
    checksum: int
    sync: bool = False


class RecordsAppended(Message):
    """Chunk offset at which the records begin (-1: they had landed before) and the end."""

    offset: int
    end: int


class Sync(Message):
    """fdatasync of what was appended to the chunk so far, at every member -> `Appended`."""

    handle: int
    version: int


class Read(Message):
    """Bytes [offset, offset + length) of a replica -> `ReadData` with them as payload.

    Short at the replica's end. Verified against the block checksums.
    """

    handle: int
    version: int  # at least this
    offset: int
    length: int


class ReadData(Message):
    """`checksum` = CRC32C of the payload."""

    checksum: int


class PassReplica(Message):
    """Same host: hand over a read-only descriptor of a sealed replica -> `ReplicaPassed`."""

    handle: int
    version: int


class ReplicaPassed(Message):
    """With one descriptor; payload = u32 CRC32C of each 64 KiB block."""

    length: int


class TailEnds(Message):
    """Asked of the primary: how long are these tails now -> `TailEndsAre`, in order."""

    handles: list[int]


END_UNKNOWN = -1  # not primary of it, or no more
END_NOT_BEGUN = -2  # no replica here, nor ever was: no record of it can have been acknowledged


class TailEndsAre(Message):
    """Lengths acknowledged by all members, or why unknown (`END_`), and last append, ns."""

    ends: list[int]
    mtimes_ns: list[int]


class ReportBad(Message):
    """A client read bytes from this replica that fail their checksum -> `Ok`; server checks."""

    handle: int
    version: int
