"""`find` over the view gives what find(1) gives on the same tree.

A real directory is made at random, its inodes become a snapshot in the view, and
random expressions are asked of both.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import msgspec
import pytest

from gfs import findexpr, findprogram
from gfs.errors import UsageError
from gfs.findprogram import compiled
from gfs.findtests import Host
from gfs.findtree import Action, And, Name, Not, check
from projections.find_queries import FindRequest
from projections.patterns import fnmatch, glob_of, regex, required
from tests.unit.projections.find_twin import Twin, make_twin

PATTERNS = (
    "*.log", "*", "?", "[!a-m]*", "[[]x]", "a\\*b", "*[0-9]*", "report-*", ".*", "*[[:digit:]].txt",
    "*.LOG", "[", "ä*", "*ï*", "\\-*", "*report*", "x", "*]", "[^x]*", "%*", "*\\\\*", "[]x]*",
    "a[",
)  # fmt: skip
REGEXES = (
    r".*/x", r".*\.log", r".*/[a-z]*\.LOG", r".*/report-[0-9]+\.txt", r".*\(log\|txt\)", r".*x?",
    r".*\(.\)b", r".*/a.b", r"^.*e$", r"x", r".*/\(a b\|\[x]\)", r".*/[^/]*", r".*ä.*", r".*/x.*g",
    r".*/[]x]", r".*/.\+", r".*\w", r".*/[[:digit:]]*", r".*a{1}.*", r".*\{.*", r"+.*", r".*|.*",
    r".*/new.line", r".*(log)", r".*\.+", r".*/[a\*]*b", r".*/back\\slash", r".**",
    r"a^b.*",
)  # fmt: skip
EXTENDED = (
    r".*/x", r".*\.(log|LOG)", r".*/report-[0-9]{1,2}\.txt", r".*/report-[0-9]{2}\.txt",
    r".*/(a|x).*",
    r".*[[:digit:]].*", r".*/[^/]{1,3}", r".*(l+)(o?)g", r"^.*$", r".*/new.line",
    r".*/[[:upper:]].*",
    r".*/a\*b", r".*\)", r".*/x|.*/a b", r".*()", r".*[.]txt", r".*/(.).*", r".*[[:alpha:]-]x",
)  # fmt: skip
BASIC = (
    r".*/x", r".*/report-[0-9]\{2\}.txt", r".*\(log\|txt\)", r".*/a+b", r".*lo\+g", r".*x\?", r"*x",
    r".*/\(*x\)", r".*[[:digit:]].*", r".*a{1}",
)  # fmt: skip
FORMATS = (
    r"%p|%P|%f|%h|%H\n", r"%s %10s|%-10s|%.2s|%010s\n", r"%m %#m %6m|%-6m|%06m|%#07m|%.5m %P\0",
    r"%d %3d|%03d|%+d|% d|%-3d|%P\n", r"%M %y %n %i %U %G\n", r"%b %k %S %s %P\n",
    r"%l|%-20l|%.3l|%P\n",
    r"%t %P\n", r"%a %P\n", r"%c %P\n", r"%T@ %A@ %C@ %P\n",
    r"%TY-%Tm-%Td %TH:%TM:%TS %TT %TX %T+ %P\n",
    r"%Ta %TA %Tb %TB %Th %Tc %Tx %TD %TF %Tj %Tk %Tl %TI %Tp %Tr %TR %Ty %TU %TW %Tw %TZ %Ts %P\n",
    r"%%\a\b\f\n\r\t\v\\\101\0%P", r"\1012%P\60", "plain %P %% \\n", r"ab%Pc\cd",
    r"%20f|%-20P|%.3P|%5h\n", r"%y%Y %-3Y|%5Y|%.0Y %P\n", r"%D %9D|%-9D|%.2D %P\n",
)  # fmt: skip


@pytest.fixture(scope="module", params=range(2))
def twin(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Twin]:
    found = make_twin(tmp_path_factory.mktemp("find"), request.param)
    yield found
    found.store.close()


def some_file(rng: random.Random, root: Path) -> str:
    """A path of the tree, no pipe."""
    paths = [root]
    for directory, directories, files in os.walk(root):
        paths += [Path(directory) / name for name in sorted((*directories, *files))]
    return str(rng.choice([path for path in paths if not path.is_fifo()]))  # find opens some


def random_test(rng: random.Random, root: Path) -> list[str]:
    sign = rng.choice(("", "+", "-"))
    size = rng.choice(("0", "1", "2", "1k", "1M", "2M", "1025c", "256w", "1G", "9b"))
    choices: list[list[str]] = [
        ["-name", rng.choice(PATTERNS)],
        ["-iname", rng.choice(PATTERNS)],
        ["-path", "*" + rng.choice(PATTERNS)],
        ["-path", str(root) + "/" + rng.choice(PATTERNS)],
        ["-ipath", "*" + rng.choice(PATTERNS)],
        ["-wholename", "*/" + rng.choice(PATTERNS)],
        ["-regex", rng.choice(REGEXES)],
        ["-iregex", rng.choice(REGEXES)],
        ["-lname", rng.choice(("*", "t*", "*ä*", "../*", "/etc/pass wd", "*[!t]"))],
        ["-ilname", rng.choice(("T*", "*LOG"))],
        ["-type", rng.choice(("f", "d", "l", "p", "f,d", "s", "l,p"))],
        ["-size", sign + size],
        [rng.choice(("-mtime", "-atime", "-ctime")), sign + rng.choice("0123")],
        [rng.choice(("-mmin", "-amin", "-cmin")), sign + rng.choice(("1", "2", "50", "1500"))],
        ["-perm", rng.choice(("644", "-600", "/111", "4755", "-4000", "/7000", "-u=rw", "u=rwx",
                              "-u+rX", "u=rw,go=u", "/u+s,g-w", "a+rwx,o-w", "-ug=x", "-000",
                              "/000", "u=X", "+r-w"))],
        ["-uid", sign + rng.choice("012")],
        ["-gid", sign + rng.choice("012")],
        ["-user", rng.choice("012")],
        ["-group", rng.choice("01")],
        ["-links", sign + rng.choice("123")],
        ["-inum", sign + str(os.lstat(some_file(rng, root)).st_ino)],
        ["-samefile", some_file(rng, root)],
        ["-empty"],
        [rng.choice(("-newer", "-anewer", "-cnewer", "-neweram", "-newermc", "-newerca")),
         some_file(rng, root)],
        ["-newermt", "@" + str(int(time.time()) - 85000)],
        ["-maxdepth", rng.choice("0123")],
        ["-mindepth", rng.choice("0123")],
        ["-true"],
        ["-false"],
        ["-depth"],
        ["-prune"],
    ]  # fmt: skip
    return rng.choice(choices)


def random_expression(rng: random.Random, root: Path, depth: int = 0) -> list[str]:
    roll = rng.random()
    if depth > 2 or roll < 0.4:
        return random_test(rng, root)
    first = random_expression(rng, root, depth + 1)
    if roll < 0.55:
        return ["!", "(", *first, ")"]
    second = random_expression(rng, root, depth + 1)
    if roll < 0.8:
        return ["(", *first, ")", *rng.choice(([], ["-a"])), "(", *second, ")"]
    return ["(", *first, "-o", *second, ")"]


def in_the_view(words: list[str], root: Path) -> list[str]:
    """-newer and -samefile name a path of the filesystem; in the view the root is /."""
    return [
        (word.removeprefix(str(root)) or "/")
        if at and words[at - 1].startswith(("-newer", "-anewer", "-cnewer", "-samefile"))
        and not word.startswith("@")
        else word
        for at, word in enumerate(words)
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(120))
def test_random_expression_finds_what_find_finds(twin: Twin, seed: int) -> None:
    rng = random.Random(seed)
    words = random_expression(rng, twin.root)
    assert twin.ours(in_the_view(words, twin.root)) == twin.real(words), words


def random_actions(rng: random.Random, root: Path, depth: int = 0) -> list[str]:
    """Tests and actions in any place, of which one is a command whose outcome counts."""
    roll = rng.random()
    if depth > 3 or roll < 0.25:
        return random_test(rng, root)
    if roll < 0.5:
        return rng.choice(
            (["-print0"], ["-printf", "1 %p\\0"], ["-printf", "2 %s\\0"], ["-prune"],
             ["-exec", "test", "-d", "{}", ";"])
        )  # fmt: skip
    first = random_actions(rng, root, depth + 1)
    if roll < 0.6:
        return ["!", "(", *first, ")"]
    second = random_actions(rng, root, depth + 1)
    between = rng.choice(("-a", "-a", "-o", ","))
    if between == "," and not {"-print0", "-printf", "-exec"} & {*first}:
        between = "-o"  # find 4.9 swaps the sides of a comma where neither acts
    return ["(", *first, between, *second, ")"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_actions_are_reached_as_in_find(twin: Twin, seed: int) -> None:
    rng = random.Random(1000 + seed)
    words = [*random_actions(rng, twin.root), "-printf", "end %p\\0"]
    ours = twin.printed(in_the_view(words, twin.root)).split(b"\0")
    assert sorted(ours) == sorted(twin.find(words).split(b"\0")), words


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("test", ["-name", "-iname"])
def test_patterns_match_as_fnmatch(twin: Twin, pattern: str, test: str) -> None:
    assert twin.ours([test, pattern]) == twin.real([test, pattern])


@pytest.mark.parametrize(
    ("syntax", "expression"),
    [("", one) for one in REGEXES]
    + [("findutils-default", one) for one in REGEXES]
    + [("posix-extended", one) for one in EXTENDED]
    + [("posix-basic", one) for one in BASIC],
)
def test_regular_expressions_match_as_in_find(twin: Twin, syntax: str, expression: str) -> None:
    words = ["-regextype", syntax] if syntax else []
    for test in ("-regex", "-iregex"):
        both = [*words, test, expression]
        assert twin.ours(both) == twin.real(both)


@pytest.mark.parametrize("text", FORMATS)
def test_printf_prints_the_bytes_that_find_prints(twin: Twin, text: str) -> None:
    ends = text[-2:] if text.endswith((r"\0", r"\n")) else ""
    words = ["-maxdepth", "2"] if ends else ["-maxdepth", "0"]
    words += ["!", "-path", str(twin.root)] if "%i" in text or "%t" in text else []
    ours, theirs = (run([*words, "-printf", text]) for run in (twin.printed, twin.find))
    end = b"\0" if ends == r"\0" else b"\n"
    assert sorted(ours.split(end)) == sorted(theirs.split(end))


def test_ls_prints_the_lines_that_find_prints(twin: Twin) -> None:
    names = ["-type", "f", "-links", "1", "-ls"]
    wide = sorted(line.split()[0] for line in twin.find(names).splitlines())
    ours = twin.printed(names).splitlines()
    assert sorted(line.split()[0] for line in ours) == wide
    for line in ours:
        ino = int(line.split()[0])
        assert line.split() == numbers_for_names(twin.find(["-inum", str(ino), "-ls"])).split()


def test_ls_shows_the_numbers_of_devices_in_the_columns_of_find(twin: Twin) -> None:
    for name in ("null", "disk"):
        words = ["-name", name, "(", "-type", "c", "-o", "-type", "b", ")", "-ls"]
        theirs = twin.find(words).replace(b"root    ", b"0       ")
        assert twin.printed(words) == theirs


def numbers_for_names(line: bytes) -> bytes:
    """The twin knows nobody's name."""
    fields = line.split()
    names = {b"root": b"0", b"daemon": b"1", b"bin": b"2"}
    for at in (4, 5):
        fields[at] = names.get(fields[at], fields[at])
    return b" ".join(fields)


def test_order_is_parents_first_or_with_depth_last(twin: Twin) -> None:
    ordered = ["-name", "x", "-exec", "test", "-d", "{}", ";", "-prune", "-o", "-print0"]
    for words, step in ((ordered, 1), (["-depth", "-print0"], -1)):
        printed = twin.printed(words)
        paths = printed.split(b"\0")[:-1][::step]
        seen: set[bytes] = set()
        for path in paths:
            above = path.rpartition(b"/")[0]
            assert above in seen or above not in paths
            seen.add(path)


def test_the_last_part_of_a_comma_counts(twin: Twin) -> None:
    assert twin.ours(["-type", "f", ",", "-name", "x"]) == twin.real(["-name", "x"])
    assert twin.ours(["(", "-name", "x", ",", "-false", ")"]) == set()


def test_quit_ends_everything(twin: Twin) -> None:
    assert twin.printed(["-name", "*", "-print0", "-quit"]).count(b"\0") == 1
    assert twin.printed(["-quit"]) == b""
    some = twin.printed(["-type", "f", "-print0", ",", "-type", "d", "-quit"])
    assert some == b""  # the start point is a directory


def test_one_print_needs_no_steps_and_leaves_all_to_the_view() -> None:
    def program(words: str) -> findprogram.Program:
        return compiled(findexpr.parse(words.split(), Host(0)))

    told = program("/ -name a -o -name b -print0")
    assert told.only_prints == Action("print0")
    assert told.where == And([Not(Name("a")), Name("b")])
    told = program("/ -name a -prune -o -name b -print")
    assert (told.prune, told.where) == (Name("a"), And([Not(Name("a")), Name("b")]))
    assert told.only_prints == Action("print")
    told = program("/ -exec true ; -prune -o -name b -ls")
    assert told.prune is None
    assert told.in_order
    assert told.only_prints is None
    assert findexpr.parse(["-exec", "rm", "{}", "+"], Host(0)).paths == ["."]


@pytest.mark.parametrize(
    "words",
    ["-nosuch", "-name", "( -name a", "-name a )", "-type q", "-size 1x", "-mtime x", "-perm 8",
     "-user nobody-of-that-name", "-links", "-newermt yesterday", "-newerxy /", "-delete -prune",
     "-maxdepth -1", "!", "-size 99999999999999999999", "-exec rm", "-exec ;", "-exec {} +",
     "-regex \\(", "-regex [a", "-regex \\n", "-regextype perl", "-regex \\(a\\)\\1", "-perm u",
     "-perm u=q", "-regextype posix-extended -regex a{2,1}", "-regextype posix-extended -regex *a",
     "-printf", "-exec echo {} {} +", "a -name b c", "-fprint x", "-name a -o", ", -name a"],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_name(words: str) -> None:
    with pytest.raises(UsageError):
        findexpr.parse(words.split(), Host(0))


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(UsageError):
        findexpr.parse(["("] * 5000 + [")"] * 5000, Host(0))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"is":"sql"}', b'{"is":"type","kinds":"f)"}', b'{"is":"and"}',
                b'{"is":"number","attribute":"size; DROP","sign":"","n":1}',
                b'{"is":"nameless","attribute":"uid"}',
                b'{"is":"oneof","attribute":"x","values":[1]}',
                b'{"is":"name","pattern":"' + b"x" * 5000 + b'"}',
                b'{"is":"not","part":' * 300 + b'{"is":"empty"}' + b"}" * 300],
)  # fmt: skip
def test_predicate_from_outside_is_checked(content: bytes) -> None:
    with pytest.raises((UsageError, msgspec.MsgspecError)):
        asked = msgspec.json.decode(b'{"predicate":' + content + b"}", type=FindRequest)
        assert asked.predicate is not None
        check(asked.predicate)


def test_glob_agrees_with_the_regular_expression_on_random_patterns() -> None:
    rng = random.Random(1)
    connection = apsw.Connection(":memory:")
    compared = 0
    for _ in range(3000):
        pattern = "".join(rng.choice("ab*?[]!^-\\.") for _ in range(rng.randrange(1, 7)))
        glob = glob_of(pattern)
        if glob is None:
            continue
        text = "".join(rng.choice("ab[]!^-.\\") for _ in range(rng.randrange(5)))
        found = connection.execute("SELECT ? GLOB ?", (text, glob)).get
        if "-" not in pattern:
            assert found == fnmatch(pattern, text, 0), (pattern, glob, text)
            compared += 1
    assert compared > 500
    connection.close()


def test_what_a_regular_expression_requires_is_in_all_it_matches() -> None:
    rng = random.Random(2)
    used = 0
    for _ in range(20000):
        text = "".join(rng.choice("ab.*+?|()[]^$\\{1}") for _ in range(rng.randrange(1, 9)))
        try:
            matched = [name for name in SAMPLES if regex(text, name, 0, 0)]
        except UsageError:
            continue
        for piece in required(text):
            used += bool(piece and matched)
            assert all(piece in name for name in matched), (text, piece, matched)
    assert used > 500


SAMPLES = ["", "a", "b", "ab", "ba", "aab", "abb", "a.b", "a1b", "bab", "aabb", "(", "a{1}", "^a$"]
