"""`/search`: what fits is what a look at every name finds, whatever index answers; pages add up."""

from __future__ import annotations

import fnmatch
import random
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import apsw
import pytest
from starlette.requests import Request

from bench.namespace_model import NamespaceModel
from gfs.changes import text_of
from gfs.errors import InvalidArgument, NotFound, UsageError
from gfs.items import Inode
from projections import find_run
from projections.name_search import page_of, search_of
from projections.search_view import SearchView
from projections.storage import SqliteStore
from tests.unit.projections.views import apply_split, config, history

BUILD = 7
Fits = Callable[[str, Inode], bool]


@dataclass
class Filled:
    model: NamespaceModel
    connection: apsw.Connection

    def page(self, query: str) -> tuple[list[tuple[str, int]], str]:
        request = Request({"type": "http", "query_string": query.encode(), "headers": []})
        rows, more = page_of(self.connection, search_of(request), BUILD)
        return [(row[0].rpartition("/")[2], row[1]) for row in rows], more

    def wanted(self, fits: Fits) -> list[tuple[str, int]]:
        """Name and inode of every name that fits, trash included."""
        return [
            (text_of(name), dirent.ino)
            for (_, name), dirent in self.model.dirents.items()
            if fits(text_of(name), self.model.inodes[dirent.ino])
        ]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    directory = tmp_path_factory.mktemp("names")
    model, records = history(11, 900)
    view = SearchView(config(directory))
    store = view.open_store(directory / "search.db", None)
    assert isinstance(store, SqliteStore)
    apply_split(view, store, records, random.Random(1))
    find_run.register(store.connection)
    yield Filled(model, store.connection)
    store.close()


CASES: dict[str, Fits] = {
    "q=report": lambda name, _: "report" in name.lower(),
    "q=AL": lambda name, _: "al" in name.lower(),
    "q=*a*.log&glob=1": lambda name, _: fnmatch.fnmatchcase(name, "*a*.log"),
    "q=*ALPHA*&glob=1&fold=1": lambda name, _: "alpha" in name.lower(),
    "q=[!a-m]*&glob=1": lambda name, _: not "a" <= name[0] <= "m",
    f"regex={quote('(alpha|beta).*[0-9]')}": lambda name, _: bool(
        re.search("(alpha|beta).*[0-9]", name)
    ),
    f"regex={quote('ta.*[.]txt$')}": lambda name, _: bool(re.search("ta.*[.]txt$", name)),
    "ext=LOG": lambda name, _: name.lower().endswith(".log") and len(name) > 4,
    "kind=d": lambda _, inode: inode.is_directory,
    "kind=f,l&q=a": lambda name, inode: not inode.is_directory and "a" in name.lower(),
    "uid=1000&q=gamma": lambda name, inode: inode.uid == 1000 and "gamma" in name,
    "perm=-600": lambda _, inode: stat.S_IMODE(inode.mode) & 0o600 == 0o600,
    "size_min=1&size_max=5000": lambda _, inode: 1 <= inode.size <= 5000,
    "size_max=0&ext=txt": lambda name, inode: inode.size == 0 and name.endswith(".txt"),
    "links=2&kind=f": lambda _, inode: inode.nlink == 2 and inode.is_file,
    "target=*": lambda _, inode: stat.S_ISLNK(inode.mode),
}


@pytest.mark.parametrize("query", CASES)
def test_what_fits_is_found_page_by_page(filled: Filled, query: str) -> None:
    wanted = sorted(filled.wanted(CASES[query]))
    found: list[tuple[str, int]] = []
    after = ""
    for _ in range(len(wanted) + 1):
        rows, after = filled.page(f"{query}&trash=1&limit=7{after and '&after=' + after}")
        assert len(rows) <= 7
        found += rows
        if not after:
            break
    assert sorted(found) == wanted


def test_texts_that_the_index_of_names_might_stumble_over(tmp_path: Path) -> None:
    """Quotes, operators of its language, more trigrams than it is asked for; links as well."""
    model = NamespaceModel()
    names = [
        b'say "hi" OR (not)',
        b"a AND b NEAR c*",
        b"-x ^y :z",
        b"q" * 90 + b"-%d" % 1,
        b"%_%_%",
    ]
    records = [model.format()]
    for name in names:
        records.append(model.create(1, name))
        records.append(model.link(model.dirents[1, name].ino, 1, b"~" + name))
    view = SearchView(config(tmp_path))
    store = view.open_store(tmp_path / "search.db", None)
    assert isinstance(store, SqliteStore)
    apply_split(view, store, records, random.Random(1))
    find_run.register(store.connection)
    filled = Filled(model, store.connection)
    for name in names:
        rows, _ = filled.page(f"q={quote(name.decode())}")
        assert sorted(found for found, _ in rows) == [name.decode(), "~" + name.decode()]
    store.close()


def test_attributes_are_found_by_name_and_value(filled: Filled) -> None:
    for ino, inode in filled.model.inodes.items():
        for name, value in inode.attributes.items():
            pair = quote(f"{text_of(name)}={text_of(value)}")
            links = len(filled.model.links[ino])
            rows, _ = filled.page(f"xattr={pair}&ino={ino}&trash=1")
            assert [row[1] for row in rows] == [ino] * links
            everyone, _ = filled.page(f"xattr={pair}&trash=1&limit=10000")
            assert set(rows) <= set(everyone)


def test_times_are_after_one_moment_and_up_to_another(filled: Filled) -> None:
    moments = sorted(inode.mtime_ns for inode in filled.model.inodes.values())
    low, high = moments[len(moments) // 3], moments[len(moments) // 2]
    rows, _ = filled.page(f"mtime_after={low}&mtime_before={high}&trash=1&limit=10000")
    assert sorted(rows) == sorted(filled.wanted(lambda _, inode: low < inode.mtime_ns <= high))


@pytest.mark.parametrize(
    "query", ["", "limit=3", "q=", "q=a&kind=x", "q=a&perm=9", "q=a&after=1", "q=a&after=6-1",
              "q=a&glob=2", "regex=(", "q=a&size_min=-1", "q=a&path=/nowhere/", "q=a&path=x"],
)  # fmt: skip
def test_a_mistake_is_named(filled: Filled, query: str) -> None:
    with pytest.raises((InvalidArgument, UsageError, NotFound)) as told:
        filled.page(query)
    assert str(told.value)
