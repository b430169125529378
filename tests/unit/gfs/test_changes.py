"""Records become events: names survive, kinds are right, nothing invisible shows."""

from __future__ import annotations

import gc
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfs import changes
from gfs.errors import InvalidArgument
from gfs.items import Chunk, ChunkKind, ChunkState, Dirent, Inode
from gfs.records import AnyChange, ChunkChange, DirentChange, InodeChange, Record, RecordActor

FILE = 0o100644


def inode(**values: object) -> Inode:
    base = Inode(FILE, 1000, 1000, 1, 0, 1, 1, 1)
    return msgspec.structs.replace(base, **values)


def record(*changed: AnyChange, position: int = 5) -> Record:
    return Record(position, 1, 99, "create", RecordActor(7, 8, 9, "h", "/m"), list(changed), 3)


NAMES = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text(alphabet="a\0\U0010fdff\U0010fe00\U0010fe41\U0010feff\U0010ff00é").map(str.encode),
)


@given(NAMES)
def test_any_name_survives_text_and_json(name: bytes) -> None:
    text = changes.text_of(name)
    assert "\0" not in text
    assert changes.bytes_of(text) == name
    assert changes.bytes_of(json.loads(msgspec.json.encode(text))) == name


@given(st.text(alphabet=st.characters(max_codepoint=0x10FDFF, exclude_categories=["Cs"])))
def test_utf8_names_are_themselves(text: str) -> None:
    if "\0" not in text:
        assert changes.text_of(text.encode()) == text


@given(NAMES, NAMES)
def test_two_names_never_share_a_text(first: bytes, second: bytes) -> None:
    assert (first == second) == (changes.text_of(first) == changes.text_of(second))


def test_lone_surrogate_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        changes.bytes_of("\udc80")


def test_create_is_two_inserts_and_a_modify() -> None:
    events = changes.events_of(
        record(
            InodeChange((9,), None, inode()),
            DirentChange((1, b"a\xff"), None, Dirent(9, 0o100000)),
            InodeChange((1,), inode(mtime_ns=1), inode(mtime_ns=2, ctime_ns=2, version=2)),
        )
    )
    last = changes.chain(events, "1-4.0")
    lines = changes.decode_lines(changes.encode(events))
    assert [line.kind for line in lines] == ["insert", "insert", "modify"]
    assert [line.cursor for line in lines] == ["1-5.0", "1-5.1", "1-5.2"]
    assert [line.previous for line in lines] == ["1-4.0", "1-5.0", "1-5.1"]
    assert [line.more for line in lines] == [True, True, False]
    assert last == "1-5.2"
    assert lines[1].keys == changes.Keys(parent=1, name="a\U0010feff")
    assert lines[1].new is not None
    assert lines[1].new.ino == 9
    assert lines[2].old is not None
    assert lines[2].old.mtime_ns == 1
    assert lines[0].actor == changes.Actor(7, 8, 9, "h", "/m")
    assert lines[0].session == 3


def test_images_carry_every_attribute_of_an_inode() -> None:
    full = inode(target=b"/x\xfe", attributes={b"user.k": b"\0\xff"}, stored=5, tail=4, rdev=1)
    (line,) = changes.encode(changes.events_of(record(InodeChange((9,), None, full)))).splitlines()
    new = json.loads(line)["new"]
    assert changes.bytes_of(new["target"]) == b"/x\xfe"
    assert {changes.bytes_of(value) for value in new["attributes"].values()} == {b"\0\xff"}
    assert new.keys() <= set(Inode.__struct_fields__)
    assert set(changes.Image.__struct_fields__) >= set(Inode.__struct_fields__) - {"tail_offset"}


def test_change_that_changes_nothing_is_no_event() -> None:
    same = InodeChange((9,), inode(), inode(version=2))
    assert changes.events_of(record(same)) == []
    touched = InodeChange((9,), inode(), inode(version=2, atime_ns=5))
    assert len(changes.events_of(record(touched))) == 1


def test_chunks_show_only_when_asked_for() -> None:
    chunk = ChunkChange((4,), None, Chunk(1, ChunkKind.TAIL, ChunkState.OPEN, 3))
    assert changes.events_of(record(chunk)) == []
    (event,) = changes.events_of(record(chunk), tables={"chunks"})
    assert json.loads(changes.encode([event]))["keys"] == {"handle": 4}


def test_the_version_of_a_chunk_is_a_change_like_any_other() -> None:
    """It says who may write it (GFS 4.5), and does not count changes of the item."""
    old = Chunk(1, ChunkKind.TAIL, ChunkState.OPEN, 3)
    raised = ChunkChange((4,), old, msgspec.structs.replace(old, version=2))
    (event,) = changes.events_of(record(raised), tables={"chunks"})
    assert event.kind == "modify"
    assert changes.events_of(record(ChunkChange((4,), old, old)), tables={"chunks"}) == []


def test_index_counts_all_changes_and_resumes_within_a_record() -> None:
    chunk = ChunkChange((4,), None, Chunk(1, ChunkKind.TAIL, ChunkState.OPEN, 3))
    whole = record(
        chunk, InodeChange((9,), None, inode()), DirentChange((1, b"a"), None, Dirent(9, 0))
    )
    assert [event.cursor for event in changes.events_of(whole)] == ["1-5.1", "1-5.2"]
    assert [event.cursor for event in changes.events_of(whole, after=1)] == ["1-5.2"]


@pytest.mark.parametrize("text", ["", "1", "1-", "a-1", "1-2.", "1-2.3.4", "-1-2", "1-2 ", "1-٣"])
def test_text_that_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        changes.parse_cursor(text)


@given(
    st.integers(0, 2**62),
    st.integers(0, 2**62),
    st.integers(0, 10**8) | st.just(changes.WHOLE_RECORD),
)
def test_cursor_survives_text(epoch: int, position: int, index: int) -> None:
    cursor = changes.Cursor(epoch, position, index)
    assert changes.parse_cursor(str(cursor)) == cursor


def test_the_collector_has_nothing_to_look_through_in_lines_of_the_stream() -> None:
    changed = InodeChange((9,), inode(), inode(size=5, attributes={b"user.a": b"1"}))
    events = changes.events_of(record(changed))
    (line,) = changes.decode_lines(changes.encode(events))
    for one in (*events, line, line.keys, line.old, line.new, line.actor):
        assert not gc.is_tracked(one)


def test_an_actor_with_other_numbers_at_home_shows_both() -> None:
    made = DirentChange((1, b"n"), None, Dirent(5, FILE))
    squashed = msgspec.structs.replace(
        record(made), actor=RecordActor(65534, 7, 1, "h", "/m", 0, 8)
    )
    for one, said in ((record(made), (-1, -1)), (squashed, (0, 8))):
        (line,) = changes.decode_lines(changes.encode(changes.events_of(one)))
        assert line.actor is not None
        assert (line.actor.said_uid, line.actor.said_gid) == said
    shown = json.loads(changes.encode(changes.events_of(record(made))))["actor"]
    assert shown == {"uid": 7, "gid": 8, "pid": 9, "host": "h", "mount": "/m"}
