"""CPython's own tests of what touches files, in a directory of the target.

Debian's Python and its test suite: the module runs in the directory, TMPDIR lies there too.
"""

from __future__ import annotations

from pathlib import Path

from bench.posix.program import Program

PYTHON = Path("/usr/bin/python3")
MODULES = {
    "test_os": "",
    "test_posix": "",
    "test_shutil": "",
    "test_tempfile": "",
    "test_pathlib": "",
    "test_io": "",
    "test_fileio": "",
    "test_file": "",
    "test_mmap": "-u largefile",
    "test_largefile": "-u largefile",
    "test_zipfile": "",
    "test_tarfile": "",
    "test_glob": "",
    "test_genericpath": "",
    "test_posixpath": "",
    "test_dbm": "",
    "test_dbm_dumb": "",
    "test_dbm_gnu": "",
    "test_dbm_ndbm": "",
    "test_shelve": "",
    "test_mailbox": "",
    "test_fcntl": "",
    "test_stat": "",
    "test_filecmp": "",
    "test_fileinput": "",
    "test_gzip": "",
    "test_import": "",
    "test_zipimport": "",
    "test_unicode_file": "",
}
LIMIT_S = 240.0
NOTHING_RAN = (4,)  # exit code of `python -m test`
NO_SUCH_TEST = 77
FAILED = r"^(?:FAIL|ERROR): (\S+)"


def _packages() -> tuple[str, ...]:
    """Debian's test suite is of one version of Python, and named after it."""
    version = PYTHON.resolve().name  # python3.11
    return (f"lib{version}-testsuite", "python3-gdbm", "python3-distutils")


def _test(name: str, options: str, python: str, packages: tuple[str, ...]) -> Program:
    words = " ".join(filter(None, (options, name)))
    return Program(
        name,
        "CPython's tests",
        f"`python3 -m test {words}`",
        f'{python} -c "import test.{name}" || exit {NO_SUCH_TEST}\n'
        f'{python} -m test -v --tempdir "$HERE" {words}',
        packages=packages,
        limit_s=LIMIT_S,
        failed_parts=FAILED,
        skipped_by=(*NOTHING_RAN, NO_SUCH_TEST),
    )


PROGRAMS = (
    *(_test(name, options, str(PYTHON), _packages()) for name, options in MODULES.items()),
    _test("test_sqlite3", "", '"$PYTHON"', ()),  # not in Debian's suite
)
