"""Parts of the log on their way to a shadow: whole, or refused."""

from __future__ import annotations

import pytest

from gfs.errors import RemoteProtocolError
from gfs.logpart import pack, unpack

RECORDS = [(1, b"first"), (1, b""), (7, b"x" * 300)]


def test_what_was_packed_is_unpacked() -> None:
    assert unpack(pack(RECORDS)) == RECORDS
    assert unpack(b"") == []


def test_a_part_cut_at_any_byte_is_whole_records_or_refused() -> None:
    content = pack(RECORDS)
    ends = {len(pack(RECORDS[:count])): count for count in range(len(RECORDS) + 1)}
    for cut in range(len(content)):
        if cut in ends:
            assert unpack(content[:cut]) == RECORDS[: ends[cut]]
        else:
            with pytest.raises(RemoteProtocolError):
                unpack(content[:cut])
