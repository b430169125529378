"""The rules of the house, as pure functions from source trees to complaints.

Each rule takes a `Tree` and yields one readable line per breach, so that the
rules themselves can be tried on small made-up trees. A rule reads every import,
also those within functions and under TYPE_CHECKING: a cycle hidden from the
runtime still binds two modules together.
"""

from __future__ import annotations

import ast
import graphlib
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

PROGRAMS = ("master", "chunkd", "mount", "projections")
SHARED = "gfs"
HOUSE = (*PROGRAMS, SHARED)  # what the rules on size and docstrings are for
PACKAGES = (*HOUSE, "bench", "tests")

FILE_LINES_MAX = 450  # aim at 100-300
FUNCTION_LINES_MAX = 60  # without its docstring; aim at 6-30
UNDOCUMENTED_LINES_MAX = 5  # a class or function up to here may be its own explanation

BANNED_NAMES = {"utils", "util", "helpers", "helper", "misc", "common"}

# What a core, and what it imports from `gfs`, may have besides the standard library.
PURE_PACKAGES = {"msgspec", "sortedcontainers", "crc32c"}
# Standard modules with a clock, randomness, files, sockets, threads or logs.
IMPURE = {
    "asyncio", "concurrent", "ctypes", "fcntl", "glob", "http", "importlib", "io", "logging",
    "mmap", "multiprocessing", "os", "pathlib", "queue", "random", "sched", "secrets", "select",
    "selectors", "shutil", "signal", "socket", "socketserver", "sqlite3", "ssl", "subprocess",
    "tempfile", "threading", "time", "urllib", "uuid", "warnings",
}  # fmt: skip
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "breakpoint"}


@dataclass(frozen=True)
class Import:
    """One imported name: `module` is its longest prefix that is a module."""

    module: str
    name: str | None  # what was taken from the module, if anything
    line: int
    typing_only: bool


@dataclass
class Module:
    """One source file."""

    name: str
    path: str
    source: str
    is_package: bool
    tree: ast.Module = field(init=False)

    def __post_init__(self) -> None:
        self.tree = ast.parse(self.source, self.path)

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]

    @property
    def is_core(self) -> bool:
        return self.top in PROGRAMS and self.name.split(".")[1:2] == ["core"]

    @property
    def package(self) -> str:
        return self.name if self.is_package else self.name.rpartition(".")[0]

    def at(self, line: int) -> str:
        return f"{self.path}:{line}"


@dataclass
class Tree:
    """All modules by name, and the modules that pyproject.toml starts."""

    modules: dict[str, Module]
    entry_points: set[str] = field(default_factory=set)

    @cached_property
    def imports(self) -> dict[str, list[Import]]:
        return {name: list(self._imports(module)) for name, module in self.modules.items()}

    def _imports(self, module: Module) -> Iterator[Import]:
        typing_lines = _typing_only_lines(module.tree)
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(alias.name, None, node.lineno, node.lineno in typing_lines)
            elif isinstance(node, ast.ImportFrom):
                base = _absolute(module, node)
                for alias in node.names:
                    full = f"{base}.{alias.name}"
                    is_module = full in self.modules
                    yield Import(
                        full if is_module else base,
                        None if is_module else alias.name,
                        node.lineno,
                        node.lineno in typing_lines,
                    )


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    parts = module.package.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def _typing_only_lines(tree: ast.Module) -> set[int]:
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            last = node.body[-1]
            lines.update(range(node.lineno, (last.end_lineno or last.lineno) + 1))
    return lines


def load(root: Path) -> Tree:
    """Read every package below `root`."""
    modules = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            relative = path.relative_to(root)
            parts = list(relative.with_suffix("").parts)
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            modules[name] = Module(name, str(relative), path.read_text(), is_package)
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    groups = [project.get("scripts", {}), *project.get("entry-points", {}).values()]
    started = {target.partition(":")[0] for group in groups for target in group.values()}
    return Tree(modules, started)


# Who may import whom.


def programs_meet_in_gfs(tree: Tree) -> Iterator[str]:
    """Programs never import one another; `gfs` imports no program; nothing ships tests."""
    for name, module in tree.modules.items():
        for imported in tree.imports[name]:
            target = imported.module.partition(".")[0]
            if target == module.top:
                continue
            where = module.at(imported.line)
            if target in PROGRAMS and module.top in PROGRAMS:
                yield f"{where}: program {module.top} imports program {target}; they meet in gfs"
            elif target in PROGRAMS and module.top == SHARED:
                yield f"{where}: gfs imports program {target}; start it with -m instead"
            elif target == "tests":
                yield f"{where}: {name} imports tests"
            elif target == "bench" and module.top in HOUSE:
                yield f"{where}: {name} imports bench"


def fuse_stays_in_the_mount(tree: Tree) -> Iterator[str]:
    """Only the mount's shell, and tests, know pyfuse3."""
    for name, module in tree.modules.items():
        if module.top == "tests" or (module.top == "mount" and not module.is_core):
            continue
        for imported in tree.imports[name]:
            if imported.module.partition(".")[0] == "pyfuse3":
                yield f"{module.at(imported.line)}: pyfuse3 outside the mount's shell"


def no_import_cycle(tree: Tree) -> Iterator[str]:
    """The module graph is acyclic, counting imports for types."""
    sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
    for name in tree.modules:
        targets = {imported.module for imported in tree.imports[name]}
        sorter.add(name, *(targets & tree.modules.keys() - {name}))
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        yield "import cycle: " + " <- ".join(error.args[1])


def no_dead_module(tree: Tree) -> Iterator[str]:
    """Every module is imported, started or named by another; a test alone is no reason to be."""
    used: set[str] = set(tree.entry_points)
    for name, module in tree.modules.items():
        for target in _mentions(tree, module):
            if target != name and (module.top != "tests" or target.startswith("tests.")):
                used.add(target)
    for name, module in tree.modules.items():
        last = name.rpartition(".")[2]
        started = last == "__main__" or _has_main_guard(module)
        is_test = module.top == "tests" and (last.startswith("test_") or last == "conftest")
        if not (module.is_package or started or is_test or name in used):
            yield f"{module.path}: nothing but tests, or nothing at all, imports {name}"


def _mentions(tree: Tree, module: Module) -> Iterator[str]:
    """Modules that `module` imports, or names in a string ("-m master", "gfs.cli.x:run")."""
    for imported in tree.imports[module.name]:
        yield imported.module
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            target = node.value.partition(":")[0]
            if target in tree.modules:
                yield target


def _has_main_guard(module: Module) -> bool:
    return any(
        isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        for node in module.tree.body
    )


# What a core may know.


def cores_are_pure(tree: Tree) -> Iterator[str]:
    """A core, and what it imports from `gfs`, has no I/O, clock, randomness, log or await."""
    todo = [name for name, module in tree.modules.items() if module.is_core]
    seen = set(todo)
    while todo:
        module = tree.modules[todo.pop()]
        yield from _impure_syntax(module)
        for imported in tree.imports[module.name]:
            if complaint := _impure_import(tree, module, imported):
                yield f"{module.at(imported.line)}: {complaint}"
            elif imported.module in tree.modules and imported.module not in seen:
                seen.add(imported.module)
                todo.append(imported.module)


def _impure_import(tree: Tree, module: Module, imported: Import) -> str | None:
    target = imported.module
    top = target.partition(".")[0]
    pure = "a core" if module.is_core else f"{module.name}, which a core imports,"
    if target == "random" and imported.name == "Random" and imported.typing_only:
        return None  # a seeded one is handed in; its type has to be named
    if top == SHARED or top in PURE_PACKAGES:
        return None
    if target in tree.modules:
        own = f"{module.top}.core"
        inside = target == own or target.startswith(own + ".")
        return None if inside else f"{pure} may not import {target}"
    if top in IMPURE:
        return f"{pure} may not import {target} (clock, randomness, I/O, threads or log)"
    if top in sys.stdlib_module_names:
        return None
    return f"{pure} may not import {target}: standard library, gfs, {', '.join(PURE_PACKAGES)} only"


def _impure_syntax(module: Module) -> Iterator[str]:
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncWith, ast.AsyncFor)
    for node in ast.walk(module.tree):
        if isinstance(node, waiting):
            yield f"{module.at(node.lineno)}: a core never awaits"
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in IMPURE_CALLS:
            yield f"{module.at(node.lineno)}: a core does not call {ast.unparse(node.func)}()"


# Names, sizes, docstrings.


def names_say_what_is_inside(tree: Tree) -> Iterator[str]:
    """No junk drawers."""
    for name, module in tree.modules.items():
        if name.rpartition(".")[2] in BANNED_NAMES:
            yield f"{module.path}: a module's name says what is in it; this one says nothing"


def sizes_are_bounded(tree: Tree) -> Iterator[str]:
    """Files and functions can be read in one go."""
    for module in tree.modules.values():
        if module.top not in HOUSE:
            continue
        lines = len(module.source.splitlines())
        if lines > FILE_LINES_MAX:
            yield f"{module.path}: {lines} lines, at most {FILE_LINES_MAX}"
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = _code_lines(node)
                if length > FUNCTION_LINES_MAX:
                    where = module.at(node.lineno)
                    yield f"{where}: {node.name} has {length} lines, at most {FUNCTION_LINES_MAX}"


def _code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    """Lines of a function or class without decorators and docstring."""
    length = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node, clean=False) is not None:
        first = node.body[0]
        length -= (first.end_lineno or first.lineno) - first.lineno + 1
    return length


def docstrings_are_there(tree: Tree) -> Iterator[str]:
    """Modules have one; in the programs and `gfs` public classes and functions too."""
    for module in tree.modules.values():
        if module.tree.body and ast.get_docstring(module.tree) is None:
            yield f"{module.path}: no module docstring (what does it decide?)"
        if module.top in HOUSE:
            for where, what in _undocumented(module.tree.body, _described_by_ports(tree, module)):
                yield f"{module.at(where)}: no docstring: {what}"


def _described_by_ports(tree: Tree, module: Module) -> set[str]:
    """Methods that a protocol here, or in a module imported here, documents for its adapters."""
    near = {imported.module for imported in tree.imports[module.name]} & tree.modules.keys()
    ports = [
        node
        for name in {*near, module.name}
        for node in tree.modules[name].tree.body
        if isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases)
    ]
    methods = (node for port in ports for node in port.body if isinstance(node, ast.FunctionDef))
    return {method.name for method in methods if ast.get_docstring(method)}


def _undocumented(
    body: list[ast.stmt], ports: set[str], *, inside_class: bool = False
) -> Iterator[tuple[int, str]]:
    for node in body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("_") or (inside_class and node.name in ports):
            continue
        if _code_lines(node) > UNDOCUMENTED_LINES_MAX and ast.get_docstring(node) is None:
            kind = "class " if isinstance(node, ast.ClassDef) else ""
            yield node.lineno, f"{kind}{node.name}"
        if isinstance(node, ast.ClassDef) and not _implements_another(node):
            yield from _undocumented(node.body, ports, inside_class=True)


def _implements_another(node: ast.ClassDef) -> bool:
    """Methods of a class with a base may be described there (data shapes and ports apart)."""
    own_kind = re.compile(r"(Struct|Protocol|ABC|NamedTuple|Generic|Exception)\b")
    return any(not own_kind.search(ast.unparse(base)) for base in node.bases)


RULES = (
    programs_meet_in_gfs,
    fuse_stays_in_the_mount,
    no_import_cycle,
    no_dead_module,
    cores_are_pure,
    names_say_what_is_inside,
    sizes_are_bounded,
    docstrings_are_there,
)
