"""Shadow master -> master: the log followed; operator -> shadow -> chunk servers: promotion.

Source: GFS §5.1.3 (shadow masters), §2.6.3 (the log on more than one machine).
"""

from __future__ import annotations

from gfs.messages.base import Message


class FollowLog(Message):
    """What comes behind `position`, which is durable here -> `LogPart` or `LogReset`.

    Answered when there is more, or after a second with nothing. `epoch` is that of the record
    at `position` (0 before the first); `offset` the bytes of a long record had already.
    """

    shadow: int  # 62 random bits, those of its data directory
    address: str  # where it listens
    position: int
    epoch: int
    offset: int = 0


class LogPart(Message):
    """Records behind `after`, packed as `gfs.logpart` says; CRC32C of the payload.

    `committed`: where the master's log ends now. `more`: the one record goes on.
    """

    after: int
    committed: int
    checksum: int
    more: bool = False


class LogReset(Message):
    """What the shadow has is no prefix of this log, or too old: begin anew.

    From the checkpoint of that name and size, or from nothing when the name is empty.
    """

    checkpoint: str
    length: int


class ReadCheckpoint(Message):
    """Bytes of a checkpoint from `offset` -> `CheckpointPart`; not-found when it is gone."""

    name: str
    offset: int


class CheckpointPart(Message):
    """CRC32C of the payload, up to a mebibyte; the name tells that of the whole."""

    checksum: int


class StepDown(Message):
    """A shadow is about to take over: decide nothing any more -> `SteppedDown`."""


class SteppedDown(Message):
    """The log ends here for good."""

    epoch: int
    position: int


class Promote(Message):
    """Take over from the master -> `Promoted`; up to `lose` positions may be missing."""

    lose: int = 0


class Promoted(Message):
    """The new epoch, and the position at which it goes on."""

    epoch: int
    position: int


class Promise(Message):
    """Refuse every epoch below `epoch` from now on, for ever -> `Promised`.

    `epoch` 0 only asks. `candidate` is the shadow or master that would begin the epoch:
    the same number is promised to one of them.
    """

    epoch: int
    candidate: int


class Promised(Message):
    """`epoch`: highest promised or obeyed; the newest committed position heard of a master."""

    epoch: int
    heard_epoch: int
    heard: int


class ForgetShadow(Message):
    """It will not come back: the master need not expect to be superseded by it -> `Ok`."""

    shadow: int
