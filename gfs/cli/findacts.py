"""What `gfs find` does with what was found: print, run commands, remove.

Paths of commands are shown as find shows them, where that means the file on a mount.
Removing goes through the client with the caller's own permissions, into the trash as
`gfs rm`. What fails for a path is said on a line of its own, and the command ends
with 1, as find(1) does.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from gfs.changes import bytes_of
from gfs.cli.output import complain, flush, out, out_name, shown
from gfs.errors import GfsError
from gfs.findformat import Format, Found, Listing, kind_of
from gfs.findtree import Action

COMMAND_BYTES = 128 * 1024  # of paths handed to one command, as find does
DIRECTORIES = 1000  # that -execdir ... + collects for at once


@dataclass
class _Batch:
    """Paths collected for one run of a command, all in one directory if that matters."""

    action: Action
    directory: bytes
    paths: list[bytes] = field(default_factory=list)
    size: int = 0


def led_to(path: bytes) -> str:
    """The letter of what a symbolic link of this host leads to, see `Shown`."""
    try:
        return kind_of(os.stat(path).st_mode)
    except OSError as error:
        absent = {errno.ENOENT: "N", errno.ENOTDIR: "N", errno.ELOOP: "L"}
        return absent.get(error.errno or 0, "?")


@dataclass
class Actions:
    """Carries out actions; `failed` once something could not be done.

    Attributes:
      formats: of every -printf, read.
      remove: takes a file away; raises GfsError.
    """

    listing: Listing
    formats: dict[str, Format]
    remove: Callable[[Found], None]
    failed: bool = False
    _batches: dict[tuple[int, bytes], _Batch] = field(default_factory=dict)

    def act(self, action: Action, found: Found) -> bool:
        """Do it to one file; whether find calls that true."""
        path = bytes_of(found.row.path)
        match action.name:
            case "print":
                out_name(path)
            case "print0":
                out(path, end=b"\0")
            case "printf":
                out(self.formats[action.words[0]].render(found), end=b"")
            case "ls":
                out(self.listing.line(found), end=b"")
            case "delete":
                return self._delete(found, path)
            case _:
                return self._execute(action, path)
        return True

    def finish(self) -> None:
        """Run the commands that paths were collected for."""
        for batch in self._batches.values():
            self._run_batch(batch)
        self._batches.clear()

    def _delete(self, found: Found, path: bytes) -> bool:
        if path.rstrip(b"/").rpartition(b"/")[2] == b"." and not found.below:
            return True  # find, too, leaves the directory it stands in
        try:
            self.remove(found)
        except GfsError as error:
            reason = str(error)
            if reason in ("", error.code):
                reason = os.strerror(error.errno)
            self._complain(f"cannot delete {shown(path)}: {reason}")
            return False
        return True

    # --- commands

    def _execute(self, action: Action, path: bytes) -> bool:
        directory = b""
        if action.name == "execdir":
            directory, path = _parted(path)
        words = [bytes_of(word) for word in action.words[:-1]]
        if action.words[-1] == "+":
            self._collect(action, directory, path)
            return True
        words = [word.replace(b"{}", path) for word in words]
        if action.name == "ok" and not _agreed(words, path):
            return False
        return self._run(words, directory) == 0

    def _collect(self, action: Action, directory: bytes, path: bytes) -> None:
        key = (id(action), directory)
        batch = self._batches.setdefault(key, _Batch(action, directory))
        batch.paths.append(path)
        batch.size += len(path) + 9  # its end and a pointer to it
        if batch.size > COMMAND_BYTES or len(self._batches) > DIRECTORIES:
            del self._batches[key]
            self._run_batch(batch)

    def _run_batch(self, batch: _Batch) -> None:
        words: list[bytes] = []
        for word in batch.action.words[:-1]:
            words += batch.paths if word == "{}" else [bytes_of(word)]
        if self._run(words, batch.directory) != 0:
            self.failed = True

    def _run(self, words: list[bytes], directory: bytes) -> int:
        sys.stdout.flush()  # what was printed before comes before
        try:
            return subprocess.run(words, cwd=directory or None, check=False).returncode
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            complain(f"find: {shown(words[0])}: {reason}")
            return -1

    def _complain(self, text: str) -> None:
        self.failed = True
        complain(f"find: {text}")


def _parted(path: bytes) -> tuple[bytes, bytes]:
    """The directory to run in, and the name in it."""
    directory, slash, name = path.rstrip(b"/").rpartition(b"/")
    return (directory or b"/" if slash else b""), b"./" + name


def _agreed(words: list[bytes], path: bytes) -> bool:
    flush()
    sys.stderr.write(f"< {shown(words[0])} ... {shown(path)} > ? ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower().startswith("y")
