"""No operation of the master is forgotten: code, list and documentation name the same."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from gfs.changes import DEFAULT_TABLES
from gfs.operations import OPERATIONS
from master.core import operations, relocating

ROOT = Path(__file__).parents[3]
NAMED = {"relocating.OPERATION": relocating.OPERATION}


def own_operations(tree: ast.AST) -> Iterator[str]:
    """First arguments of `engine.system` and `on_behalf`, also within `partial`."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        for at, word in enumerate([call.func, *call.args]):
            if isinstance(word, ast.Attribute) and word.attr in ("system", "on_behalf"):
                name = call.args[at]
                yield (
                    str(name.value) if isinstance(name, ast.Constant) else NAMED[ast.unparse(name)]
                )


def made_records(tree: ast.AST) -> Iterator[str]:
    """What stands for the operation where a record is made."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "Record":
            yield ast.unparse(call.args[3])


def test_the_list_names_every_operation_that_the_master_writes() -> None:
    trees = [ast.parse(path.read_text()) for path in sorted((ROOT / "master").rglob("*.py"))]
    made = {name for tree in trees for name in made_records(tree)}
    assert made == {"'start'", "operation", "operation_name(message.operation)"}
    own = {name for tree in trees for name in own_operations(tree)}
    asked = {
        operations.NAMES.get(kind, kind.__name__.lower())
        for kind in (*operations.PLAIN, *operations.WITH_CHUNKS)
    }
    assert own | asked | {"start"} == set(OPERATIONS)


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Operation -> its events in words, and the tables that are not shown unless asked for."""
    text = (ROOT / "docs" / "stream.md").read_text()
    table = text.partition("| operation | when |")[2].partition("\n\n")[0]
    found = {}
    for line in table.splitlines()[2:]:
        names, _, events, tables = (cell.strip() for cell in line.strip("|").split("|"))
        for name in re.findall(r"`([a-z-]+)`", names):
            assert name not in found, name
            found[name] = events, frozenset(re.findall(r"`([a-z-]+)`", tables))
    return found


def test_the_documentation_says_of_each_whether_and_how_it_appears() -> None:
    told = documented()
    assert set(told) == set(OPERATIONS)
    for name, (events, tables) in told.items():
        assert tables == OPERATIONS[name] - DEFAULT_TABLES, name
        touches = bool(OPERATIONS[name] & DEFAULT_TABLES)
        says_so = not events.startswith("none") or "insert" in events or "`version`" in events
        assert touches == says_so, name
        for table, word in (("dirents", "dirent"), ("inodes", "inode")):
            named = word in events or (word == "inode" and "parent" in events)
            assert named == (table in OPERATIONS[name]), (name, word)
