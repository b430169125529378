"""An expression of find(1) -> what a view is asked, and what is left to the caller.

A view knows files and answers predicates; running commands, deleting and printing is
the caller's. So a program has a condition under which a file matters at all (some
action may be reached), the tests whose outcome the actions depend on, answered with
each row, and the steps: the tree with tests by number, which the caller follows.
Where one action is reached under a condition that files alone decide, no step is left:
each row that comes is acted on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from gfs.errors import UsageError
from gfs.findtree import (
    NODES_MAX,
    Action,
    Always,
    And,
    Each,
    Expression,
    Not,
    Or,
    Predicate,
    Prune,
    Quit,
)

TESTS_MAX = 200
YES, NO = Always(True), Always(False)
_ACTS = (Action, Prune, Quit)


class Test(Struct, frozen=True):
    """Outcome of test `number` of a row."""

    number: int


@dataclass(frozen=True)
class Program:
    """What to ask and what to do.

    Attributes:
      where: rows that matter; no others need to come.
      prune: directories below which nothing is looked at, as far as the view can tell.
      tests: what each row is to tell besides.
      steps: And, Or, Not, Each of `Test`, `Action`, `Prune` (left to the caller), `Quit`.
      in_order: a directory must come before (`depth_first`: after) what it holds.
    """

    where: Predicate
    prune: Predicate | None
    tests: list[Predicate]
    steps: Any
    in_order: bool

    @property
    def only_prints(self) -> Action | None:
        """The one action, if it is -print or -print0 of each row that comes."""
        steps = self.steps
        plain = isinstance(steps, Action) and steps.name in ("print", "print0")
        return steps if plain and not self.tests else None


def compiled(expression: Expression) -> Program:
    """The program of an expression.

    Raises: UsageError: it is too long.
    """
    tree = expression.tree
    if expression.depth_first:
        tree = _replaced(tree, lambda leaf: YES if isinstance(leaf, Prune) else leaf)
    reached = list(_reached(tree, YES))
    prunes = [one for one in reached if isinstance(one.leaf, Prune)]
    prune: Predicate | None = None
    if prunes and all(one.exact for one in prunes):
        prune = _any([one.condition for one in prunes])
        tree = _replaced(tree, lambda leaf: YES if isinstance(leaf, Prune) else leaf)
        reached = [one for one in reached if not isinstance(one.leaf, Prune)]
    where = _any([one.condition for one in reached])
    in_order = expression.depth_first or any(isinstance(one.leaf, Prune) for one in reached)
    if prune is not None and _size(prune, {}) > NODES_MAX:
        raise UsageError("find: the expression is too long")
    if _size(where, {}) > NODES_MAX:
        where = YES  # the steps find out
    elif len(reached) == 1 and reached[0].exact and isinstance(reached[0].leaf, Action):
        return Program(where, prune, [], reached[0].leaf, in_order)
    tests: list[Predicate] = []
    steps = _numbered(tree, tests)
    if len(tests) > TESTS_MAX or _size(And(tests), {}) > NODES_MAX:
        raise UsageError("find: the expression is too long")
    return Program(where, prune, tests, steps, in_order)


class Ended(Exception):
    """-quit was reached."""


def follow(
    steps: Any, outcomes: Sequence[object], act: Callable[[Action], bool], prune: Callable[[], None]
) -> bool:
    """Follow the steps for one row; `outcomes` are those of its tests.

    Raises: Ended: nothing more is to be done, for any row.
    """

    def value(node: Any) -> bool:
        match node:
            case Test(number):
                return bool(outcomes[number])
            case Always(truth):
                return truth
            case Action():
                return act(node)
            case And(parts):
                return all(value(part) for part in parts)
            case Or(parts):
                return any(value(part) for part in parts)
            case Not(part):
                return not value(part)
            case Each(parts):
                return [value(part) for part in parts][-1]
            case Prune():
                prune()
                return True
            case Quit():
                raise Ended
        raise AssertionError(node)

    return value(steps)


@dataclass
class Pruned:
    """Directories below which nothing is shown; paths are relative to a start point."""

    below: set[tuple[int, str]] = field(default_factory=set)

    def add(self, start: int, path: str) -> None:
        """Hide what lies below `path`, "" being the start point itself."""
        self.below.add((start, path))

    def hides(self, start: int, path: str) -> bool:
        """Whether a directory above `path` was added."""
        if not self.below or not path:
            return False
        at = path.rfind("/")
        while at > 0:
            if (start, path[:at]) in self.below:
                return True
            at = path.rfind("/", 0, at)
        return (start, "") in self.below


def relative(path: str, shown: str) -> str:
    """`path` of a row, as it is shown, from its start point that is shown as `shown`."""
    return path[len(shown.removesuffix("/")) + 1 :]


# --- where the leaves are reached ------------------------------------------------------


@dataclass(frozen=True)
class _Reached:
    leaf: Any
    condition: Predicate
    exact: bool  # the condition is the whole truth; else it lets more through


def _reached(node: Any, given: Predicate, exact: bool = True) -> Iterator[_Reached]:
    """Every action, prune and quit below `node`, which is reached where `given` holds."""
    match node:
        case Action() | Prune() | Quit():
            yield _Reached(node, given, exact)
        case Not(part):
            yield from _reached(part, given, exact)
        case And(parts) | Or(parts) | Each(parts):
            for part in parts:
                yield from _reached(part, given, exact)
                true, false = _outcomes(part)
                match node:
                    case And():
                        given = _both(given, true)
                    case Or():
                        given = _both(given, false)
                    case _:
                        given = _both(given, _either(true, false))
                exact = exact and _certain(part)


def _outcomes(node: Any) -> tuple[Predicate, Predicate]:
    """Where `node` may come out true, and where false."""
    match node:
        case Quit():
            return NO, NO
        case Prune():
            return YES, NO
        case Action():
            return YES, (NO if _always_true(node) else YES)
        case Not(part):
            true, false = _outcomes(part)
            return false, true
        case And(parts) | Or(parts) | Each(parts) if not _pure(node):
            return _outcomes_of_many(node, parts)
    return node, _negated(node)


def _outcomes_of_many(node: Any, parts: list[Any]) -> tuple[Predicate, Predicate]:
    going: Predicate = YES  # where the next part is reached
    stopped: Predicate = NO  # where an earlier one decided
    true: Predicate = NO
    false: Predicate = NO
    for part in parts:
        true, false = (_both(going, one) for one in _outcomes(part))
        match node:
            case And():
                going, stopped = true, _either(stopped, false)
            case Or():
                going, stopped = false, _either(stopped, true)
            case _:
                going = _either(true, false)
    if isinstance(node, And):
        return going, stopped
    return (stopped, going) if isinstance(node, Or) else (true, false)


def _always_true(action: Action) -> bool:
    return action.name in ("print", "print0", "printf", "ls") or action.words[-1:] == ["+"]


def _certain(node: Any) -> bool:
    """Whether files alone decide how `node` comes out."""
    match node:
        case Quit():
            return True  # what follows is not reached, so nothing depends on it
        case Action():
            return _always_true(node)
        case And(parts) | Or(parts) | Each(parts):
            return all(map(_certain, parts))
        case Not(part):
            return _certain(part)
    return True


def _pure(node: Any) -> bool:
    match node:
        case And(parts) | Or(parts):
            return all(map(_pure, parts))
        case Not(part):
            return _pure(part)
    return not isinstance(node, (*_ACTS, Each))


# --- trees -------------------------------------------------------------------------------


def _numbered(node: Any, tests: list[Predicate]) -> Any:
    """The tree with every predicate that is as large as can be replaced by its number."""
    if isinstance(node, (Always, *_ACTS)):
        return node
    if _pure(node):
        if node not in tests:
            tests.append(node)
        return Test(tests.index(node))
    if isinstance(node, Not):
        return Not(_numbered(node.part, tests))
    return type(node)([_numbered(part, tests) for part in node.parts])


def _replaced(node: Any, change: Callable[[Any], Any]) -> Any:
    match node:
        case And(parts) | Or(parts) | Each(parts):
            return type(node)([_replaced(part, change) for part in parts])
        case Not(part):
            return Not(_replaced(part, change))
    return change(node)


def _size(node: Any, known: dict[int, int]) -> int:
    """Nodes of the tree as text, where what is shared stands as often as it is used."""
    found = known.get(id(node))
    if found is None:
        match node:
            case And(parts) | Or(parts) | Each(parts):
                found = 1 + sum(_size(part, known) for part in parts)
            case Not(part):
                found = 1 + _size(part, known)
            case _:
                found = 1
        known[id(node)] = found
    return found


def _both(one: Predicate, other: Predicate) -> Predicate:
    if NO in (one, other):
        return NO
    if one == YES or other == YES:
        return other if one == YES else one
    left = one.parts if isinstance(one, And) else [one]
    return And([*left, *(other.parts if isinstance(other, And) else [other])])


def _either(one: Predicate, other: Predicate) -> Predicate:
    if YES in (one, other):
        return YES
    if NO in (one, other):
        return other if one == NO else one
    return Or([one, other])


def _any(conditions: list[Predicate]) -> Predicate:
    found: Predicate = NO
    for condition in conditions:
        found = _either(found, condition)
    return found


def _negated(node: Predicate) -> Predicate:
    if isinstance(node, Always):
        return NO if node.value else YES
    return node.part if isinstance(node, Not) else Not(node)
