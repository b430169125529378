"""Events of the history: folded, they are the namespace; told, they are what was done."""

from __future__ import annotations

import stat
from typing import Any

import pytest
from msgspec.structs import replace

from bench.namespace_model import NamespaceModel
from gfs.changes import Line, text_of
from gfs.ids import TRASH_INO
from gfs.items import Dirent
from gfs.records import Copy, DirentChange, InodeChange, Record, RecordActor
from projections.core import happenings
from projections.core.facts import facts_of
from projections.core.happenings import Happening, Told
from projections.core.recording import Recorded
from tests.unit.projections.views import history, lines_of


def told(*records: Record) -> list[Happening]:
    found = Recorded()
    found.add(lines_of(records))
    return found.told.events


@pytest.mark.parametrize("seed", range(4))
def test_what_is_told_in_one_pass_is_what_each_tells_for_itself(seed: int) -> None:
    _, records = history(seed, 400)
    model = NamespaceModel()
    records += [model.format(), model.mkdir(1, b"d"), model.create(1, b"f")]
    file, directory = (model.dirents[1, name].ino for name in (b"f", b"d"))
    records += [
        model.commit(file, 100),
        model.commit(file, 7),
        model.set(file, size=9, uid=5),
        model.set(file, size=8, mode=stat.S_IFREG | 0o600),
        model.set(directory, size=4096),
        model.create(directory, b"g"),
    ]
    lines = lines_of(records)
    found, told = Recorded(), Told()
    found.add(lines)
    told.add(lines)
    assert found.told == told
    assert found.facts == facts_of(lines)


def moves() -> dict[str, list[Line]]:
    """Records of a move by what is odd about them, with the parents' inodes as of a master."""
    model = NamespaceModel()
    model.format()
    model.mkdir(1, b"a")
    model.mkdir(1, b"b")
    model.create(1, b"f")
    (a, b, f) = (model.dirents[1, name].ino for name in (b"a", b"b", b"f"))
    trash, images = int(TRASH_INO), model.inodes
    link, folder = Dirent(f, stat.S_IFREG), Dirent(b, stat.S_IFDIR)

    def record(ino: int, dirent: Dirent, here: int, there: int, **other: Any) -> list[Line]:
        old = images[ino]
        changes: list[Any] = [
            DirentChange((here, b"x"), dirent, None),
            InodeChange((ino,), old, replace(old, ctime_ns=7, **other)),
            DirentChange((there, b"y"), None, dirent),
        ]
        for parent in {here, there} - {trash}:
            old = images[parent]
            changes.append(InodeChange((parent,), old, replace(old, mtime_ns=9, ctime_ns=9)))
        return lines_of([Record(1, 1, 5, "rename", RecordActor(3, 3), changes)])

    return {
        "within": record(f, link, a, a),
        "across": record(f, link, a, b),
        "trashed": record(f, link, a, trash),
        "undeleted": record(f, link, trash, a),
        "directory": record(b, folder, 1, a),
        "touched": record(f, link, a, b, mtime_ns=8),
        "grown": record(f, link, a, b, size=8),
        "written": record(f, link, a, b, data_version=8),
        "given": record(f, link, a, b, uid=8),
        "marked": record(f, link, a, b, attributes={b"user.x": b"1"}),
        "into itself": record(b, folder, 1, b),
    }


@pytest.mark.parametrize(("odd", "lines"), moves().items())
def test_a_move_told_in_one_pass_is_what_each_tells_for_itself(odd: str, lines: list[Line]) -> None:
    found, told = Recorded(), Told()
    found.add(lines)
    told.add(lines)
    assert found.told == told
    assert found.facts == facts_of(lines)
    assert found.told.events


def test_a_plain_move_needs_no_second_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {"within": "renamed", "across": "renamed", "directory": "renamed"}
    expected |= {"trashed": "trashed", "undeleted": "undeleted"}
    records = moves()
    monkeypatch.setattr(happenings, "_of_record", None)
    for odd, event in expected.items():
        found = Recorded()
        found.add(records[odd])
        assert [one.event for one in found.told.events] == [event]


@pytest.mark.parametrize("seed", range(6))
def test_events_folded_are_the_names_and_sizes_that_the_model_has(seed: int) -> None:
    """Nothing that changes a name or a size is left out, doubled or told of another inode."""
    model, records = history(seed, 600)
    names: dict[int, set[tuple[int, str]]] = {}
    sizes: dict[int, int] = {}
    owners: dict[int, int] = {}
    for one in told(*records):
        here = names.setdefault(one.ino, set())
        if one.from_parent:
            here.remove((one.from_parent, one.from_name))
        if one.parent:
            assert (one.parent, one.name) not in here
            here.add((one.parent, one.name))
        assert sizes.get(one.ino, 0) in (one.size_before, one.size)
        sizes[one.ino], owners[one.ino] = one.size, one.owner
        if one.event == happenings.REMOVED:
            assert not here
            del sizes[one.ino]
    wanted = {(key[0], text_of(key[1]), dirent.ino) for key, dirent in model.dirents.items()}
    assert {(*place, ino) for ino, places in names.items() for place in places} == wanted
    assert sizes == {ino: model.inodes[ino].size for ino in sizes}
    assert set(sizes) == set(model.inodes)
    assert all(model.inodes[ino].uid == owners[ino] for ino in sizes)


def test_each_thing_done_is_told_once_and_by_its_name() -> None:
    model = NamespaceModel()
    records = [model.format(), model.mkdir(1, b"a"), model.create(1, b"f")]
    directory, file = (model.dirents[1, name].ino for name in (b"a", b"f"))
    records += [
        model.commit(file, 100),
        model.set(file, mode=stat.S_IFREG | 0o600),
        model.set(file, attributes={b"user.tag": b"x"}),
        model.set(file, atime_ns=5),
        model.link(file, directory, b"hard"),
        model.rename(1, b"f", directory, b"g"),
        model.unlink(directory, b"hard"),
        model.rename(directory, b"g", int(TRASH_INO), b"%016x" % file),
        model.rename(int(TRASH_INO), b"%016x" % file, directory, b"g"),
        model.unlink(directory, b"g"),
    ]
    events = [(one.event, one.size_before, one.size) for one in told(*records) if one.ino == file]
    assert events == [
        ("made", 0, 0), ("written", 0, 100), ("attributes", 100, 100), ("xattrs", 100, 100),
        ("linked", 100, 100), ("renamed", 100, 100), ("unlinked", 100, 100),
        ("trashed", 100, 100), ("undeleted", 100, 100), ("removed", 100, 0),
    ]  # fmt: skip
    assert [one.event for one in told(*records) if one.ino == directory] == ["made"]


def test_a_rename_onto_a_name_tells_of_both_inodes() -> None:
    model = NamespaceModel()
    records = [model.format(), model.create(1, b"new"), model.create(1, b"old")]
    new, old = (model.dirents[1, name].ino for name in (b"new", b"old"))
    events = told(*records, model.rename(1, b"new", 1, b"old"))[-2:]
    assert {(one.ino, one.event, one.from_name, one.name) for one in events} == {
        (old, "removed", "old", ""),
        (new, "renamed", "new", "old"),
    }


def test_an_exchange_renames_both() -> None:
    model = NamespaceModel()
    records = [model.format(), model.create(1, b"a"), model.mkdir(1, b"b")]
    events = told(*records, model.exchange((1, b"a"), (1, b"b")))[-2:]
    assert {(one.event, one.from_name, one.name) for one in events} == {
        ("renamed", "a", "b"),
        ("renamed", "b", "a"),
    }


def test_a_name_that_is_not_utf8_and_who_did_it_are_kept() -> None:
    model = NamespaceModel()
    one = told(model.format(), model.create(1, b"caf\xe9"))[-1]
    assert one.name == text_of(b"caf\xe9")
    who = one.occasion
    assert (who.uid, who.pid, who.host, who.mount) == (1000, 42, "host", "/mnt/gfs")
    assert one.kind == stat.S_IFREG


def test_a_snapshot_is_one_copy_and_one_event_of_its_root() -> None:
    model = NamespaceModel()
    records = [model.format(), model.mkdir(1, b"a"), model.create(1, b"f")]
    source = model.dirents[1, b"a"].ino
    root = 7 << 40
    record = model.set(1, mtime_ns=model.now_ns)
    record.changes.insert(0, DirentChange((1, b"copy"), None, Dirent(root, stat.S_IFDIR)))
    record.copy = Copy(source, 1, b"copy", root, root, 1, owners={1000: (1, 0)})
    found = Told()
    found.add(lines_of([*records, record]))
    assert [(one.source, one.inodes, one.name) for one in found.copies] == [(source, 1, "copy")]
    made = [one for one in found.events if one.ino == found.copies[0].root]
    assert [(one.event, one.name) for one in made] == [("copied", "copy")]
    assert f'"source":{source}' in made[0].detail


def test_changes_of_one_inode_in_one_record_are_one_event() -> None:
    model = NamespaceModel()
    first = model.format()
    record: Any = model.create(1, b"f")
    ino = model.dirents[1, b"f"].ino
    later = model.commit(ino, 10)
    record.changes += later.changes
    assert [(one.event, one.size) for one in told(first, record)][-1:] == [("made", 10)]
    assert Dirent(ino, stat.S_IFREG) == model.dirents[1, b"f"]
