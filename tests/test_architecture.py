"""The repository keeps the rules of tests/architecture.py, and each rule bites.

The second half tries the rules on made-up trees: a rule that cannot fail keeps nothing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import architecture
from tests.architecture import RULES, Module, Tree

ROOT = Path(__file__).parent.parent
Rule = Callable[[Tree], Iterator[str]]


@pytest.fixture(scope="module")
def repository() -> Tree:
    return architecture.load(ROOT)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_repository_keeps_rule(repository: Tree, rule: Rule) -> None:
    if breaches := sorted(rule(repository)):
        pytest.fail("\n".join([rule.__doc__ or rule.__name__, *breaches]), pytrace=False)


def tree(**sources: str) -> Tree:
    """A tree from `package__module="source"`; packages on the way are made."""
    modules = {}
    for key, source in sources.items():
        name = key.replace("__", ".")
        parents = name.split(".")[:-1]
        for end in range(1, len(parents) + 1):
            package = ".".join(parents[:end])
            modules[package] = Module(package, f"{package}/__init__.py", "", is_package=True)
        modules[name] = Module(name, name.replace(".", "/") + ".py", source, is_package=False)
    return Tree(modules)


MANY_LINES = "'''doc'''\n" + "x = 1\n" * architecture.FILE_LINES_MAX
LONG_FUNCTION = "def f():\n" + "    x = 1\n" * architecture.FUNCTION_LINES_MAX
SIX_LINES = "def f():\n" + "    x = 1\n" * architecture.UNDOCUMENTED_LINES_MAX
PORT = "'''doc'''\nclass Port(Protocol):\n    '''doc'''\n    def f(self):\n        '''doc'''\n"
SIX_LINES_INSIDE = textwrap.indent(SIX_LINES, "    ")
MAIN_GUARD = "if __name__ == '__main__': ..."

BREACHES: list[tuple[Rule, dict[str, str], str]] = [
    (
        architecture.programs_meet_in_gfs,
        {"master__log": "from chunkd.store import Store", "chunkd__store": ""},
        "program master imports program chunkd",
    ),
    (
        architecture.programs_meet_in_gfs,
        {"gfs__cli": "def f():\n    import master.log", "master__log": ""},
        "gfs imports program master",
    ),
    (
        architecture.programs_meet_in_gfs,
        {"master__log": "from tests import sim", "tests__sim": ""},
        "imports tests",
    ),
    (
        architecture.fuse_stays_in_the_mount,
        {"mount__core__inodes": "import pyfuse3"},
        "pyfuse3 outside",
    ),
    (
        architecture.no_import_cycle,
        {
            "gfs__a": "if TYPE_CHECKING:\n    from gfs.b import B",
            "gfs__b": "def f():\n    from . import a",
        },
        "import cycle",
    ),
    (
        architecture.no_dead_module,
        {"gfs__a": "", "tests__test_a": "import gfs.a"},
        "imports gfs.a",
    ),
    (architecture.cores_are_pure, {"master__core__a": "async def f(): ..."}, "never awaits"),
    (architecture.cores_are_pure, {"master__core__a": "import time"}, "may not import time"),
    (
        architecture.cores_are_pure,
        {"master__core__a": "from random import Random"},
        "may not import random",
    ),
    (architecture.cores_are_pure, {"master__core__a": "open('x')"}, "does not call open"),
    (
        architecture.cores_are_pure,
        {"master__core__a": "from ..log import Log", "master__log": ""},
        "may not import master.log",
    ),
    (
        architecture.cores_are_pure,
        {"master__core__a": "import gfs.b", "gfs__b": "import gfs.c", "gfs__c": "import socket"},
        "gfs.c, which a core imports, may not import socket",
    ),
    (architecture.cores_are_pure, {"chunkd__core__a": "import httpx"}, "may not import httpx"),
    (architecture.names_say_what_is_inside, {"gfs__utils": ""}, "says nothing"),
    (architecture.sizes_are_bounded, {"gfs__a": MANY_LINES}, "451 lines"),
    (architecture.sizes_are_bounded, {"gfs__a": LONG_FUNCTION}, "61 lines"),
    (architecture.docstrings_are_there, {"bench__a": "x = 1"}, "no module docstring"),
    (architecture.docstrings_are_there, {"gfs__a": f"'''doc'''\n{SIX_LINES}"}, "docstring: f"),
    (
        architecture.docstrings_are_there,
        {"gfs__a": "'''doc'''\nclass A(Struct):\n" + 5 * "    x: int\n"},
        "docstring: class A",
    ),
]


@pytest.mark.parametrize(("rule", "sources", "complaint"), BREACHES)
def test_rule_sees_breach(rule: Rule, sources: dict[str, str], complaint: str) -> None:
    breaches = list(rule(tree(**sources)))
    assert len(breaches) == 1
    assert complaint in breaches[0]


ALLOWED: list[tuple[Rule, dict[str, str]]] = [
    (architecture.programs_meet_in_gfs, {"master__log": "import gfs.ids", "gfs__ids": ""}),
    (architecture.fuse_stays_in_the_mount, {"mount__handlers": "import pyfuse3"}),
    (
        architecture.no_import_cycle,
        {"gfs__client__a": "from gfs.client import b", "gfs__client__b": "import gfs.ids"},
    ),
    (
        architecture.no_dead_module,
        {"gfs__a": f"['-m', 'master.b']\n{MAIN_GUARD}", "master__b": ""},
    ),
    (
        architecture.cores_are_pure,
        {
            "master__core__a": "import msgspec\nfrom . import b\nimport heapq",
            "master__core__b": "if TYPE_CHECKING:\n    from random import Random",
        },
    ),
    (
        architecture.docstrings_are_there,
        {"mount__a": "'''doc'''\nclass A(Operations):\n    '''doc'''\n" + SIX_LINES_INSIDE},
    ),
    (
        architecture.docstrings_are_there,
        {
            "gfs__a": PORT,
            "gfs__b": "'''doc'''\nimport gfs.a\nclass B:\n    '''doc'''\n" + SIX_LINES_INSIDE,
        },
    ),
]


@pytest.mark.parametrize(("rule", "sources"), ALLOWED)
def test_rule_lets_pass(rule: Rule, sources: dict[str, str]) -> None:
    assert list(rule(tree(**sources))) == []
