"""Names as text: bytes are what names are, and text is what JSON and SQL hold.

`text_of` maps every byte string to text without loss: UTF-8 is itself, any other byte b
is the character U+10FE00 + b. `bytes_of` is its inverse.
"""

from __future__ import annotations

import re

from gfs.errors import InvalidArgument

_ESCAPE = 0x10FE00  # in a private plane; U+10FE00 + b stands for the byte b
_ESCAPED = re.compile("[\U0010fe00-\U0010feff]")
_OWN_RANGE = re.compile(b"\xf4\x8f[\xb8-\xbb][\x80-\xbf]|\0")


def text_of(name: bytes) -> str:
    """Text that `bytes_of` turns into exactly these bytes; valid Unicode without NUL.

    Bytes that are no UTF-8, NUL, and UTF-8 of the escapes themselves are escaped
    byte by byte; everything else is itself.
    """
    if name.isascii() and b"\0" not in name:
        return name.decode("ascii")
    if b"\xf4\x8f" not in name and b"\0" not in name:
        try:
            return name.decode()
        except UnicodeDecodeError:
            pass
    parts, at = [], 0
    for own in _OWN_RANGE.finditer(name):
        parts += [_escape_invalid(name[at : own.start()]), _escaped(own[0])]
        at = own.end()
    return "".join((*parts, _escape_invalid(name[at:])))


def _escape_invalid(part: bytes) -> str:
    text = part.decode("utf-8", "surrogateescape")
    return "".join(
        chr(_ESCAPE - 0xDC00 + ord(letter)) if "\udc80" <= letter <= "\udcff" else letter
        for letter in text
    )


def _escaped(part: bytes) -> str:
    return "".join(chr(_ESCAPE + byte) for byte in part)


def bytes_of(text: str) -> bytes:
    """The bytes for which `text_of` stands; any text has some.

    Raises: InvalidArgument: lone surrogates.
    """
    if text.isascii():
        return text.encode("ascii")
    parts, at = [], 0
    try:
        for escape in _ESCAPED.finditer(text):
            parts += [text[at : escape.start()].encode(), bytes((ord(escape[0]) - _ESCAPE,))]
            at = escape.end()
        return b"".join((*parts, text[at:].encode()))
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"text is not Unicode: {error.reason}") from None
