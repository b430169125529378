"""Frame headers: a message, whose request it is or answers, and errors as they travel."""

from __future__ import annotations

import typing

import msgspec

from gfs import messages
from gfs.errors import RemoteProtocolError
from gfs.messages import Message


class Failed(Message):
    """An error as it travels."""

    code: str
    text: str


_KNOWN = [
    kind
    for kind in vars(messages).values()
    if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
]
if typing.TYPE_CHECKING:
    AnyMessage = Message
else:
    AnyMessage = typing.Union[(*_KNOWN, Failed)]


class Envelope(msgspec.Struct, array_like=True, gc=False):
    """Frame header: id > 0 request, < 0 reply to it, 0 one way."""

    id: int
    body: AnyMessage


ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Envelope)


def decode(header: memoryview) -> Envelope:
    """The envelope in a frame's header.

    Raises:
      RemoteProtocolError: it is none, or of a message this program does not know.
    """
    try:
        return _DECODER.decode(header)
    except msgspec.MsgspecError as error:
        raise RemoteProtocolError(f"undecodable message: {error}") from None
