"""Names and numbers of `.gfs`."""

from __future__ import annotations

import pytest

from gfs.ids import EPOCHS_MAX, HIDDEN_INO, ROOT_INO, draw
from gfs.messages import SnapshotEntry, TrashEntry
from mount.core.hidden import (
    hidden,
    is_hidden,
    is_link,
    lines,
    link_to,
    numbered,
    real,
    snapshot_names,
    trash_names,
)

AT = 1_780_000_000 * 10**9  # 2026-05-28 20:26:40 UTC


def entry(ino: int, path: bytes, deleted_ns: int = AT) -> TrashEntry:
    return TrashEntry(ino, path, deleted_ns, 0, 1, 0o100000)


def test_no_inode_has_a_number_of_ours() -> None:
    last = draw(EPOCHS_MAX - 1, (1 << 40) - 1)
    assert last < HIDDEN_INO
    assert not is_hidden(last)
    assert is_hidden(hidden(last))
    assert real(hidden(last)) == real(link_to(last)) == last
    assert is_hidden(link_to(last))
    assert (is_link(link_to(last)), is_link(hidden(last))) == (True, False)
    assert not is_hidden(ROOT_INO)
    with pytest.raises(OverflowError):
        draw(EPOCHS_MAX, 1)


def test_a_name_says_what_it_was_called_and_when_it_went() -> None:
    found = trash_names([entry(7, b"/a/report.txt"), entry(9, b"?/\xff", AT + 999_999_999)])
    names = {name: one.ino for name, one in found.items()}
    assert names == {
        b"report.txt.2026-05-28T202640Z": 7,
        b"\xff.2026-05-28T202640Z": 9,
    }


def test_those_that_would_have_one_name_all_have_their_numbers() -> None:
    both = [entry(0x7F, b"/a/f"), entry(0x80, b"/b/f")]
    later = entry(0x81, b"/f", AT + 10**9)
    found = trash_names([*both, later])
    assert {name: one.ino for name, one in found.items()} == {
        b"f.2026-05-28T202640Z~7f": 0x7F,
        b"f.2026-05-28T202640Z~80": 0x80,
        b"f.2026-05-28T202641Z": 0x81,
    }
    assert {numbered(one) for one in both} < set(found)


def test_long_names_are_cut_and_stay_different() -> None:
    found = trash_names(entry(ino, b"/" + b"x" * 254 + b"%d" % ino) for ino in (1, 2))
    assert len(found) == 2
    assert max(map(len, found)) == 255


def test_a_line_for_each_fact() -> None:
    assert lines({"a": 1, "b": {"c": 0.5, "d": {"e": "x"}}}) == "a 1\nb.c 0.500\nb.d.e x\n"


def test_snapshots_have_their_last_names() -> None:
    paths = (b"/a/monday", b"/monday", b"/tuesday")
    found = snapshot_names(SnapshotEntry(7 + at, path, 0, 0) for at, path in enumerate(paths))
    assert {name: one.path for name, one in found.items()} == {
        b"monday~7": b"/a/monday",
        b"monday~8": b"/monday",
        b"tuesday": b"/tuesday",
    }
