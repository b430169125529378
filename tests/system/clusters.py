"""Clusters of real processes for tests, driven by the command `gfs` alone."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import leftovers

COMMAND_S = 60.0
ROOT = Path(__file__).parents[2]
GFS: list[str | Path] = [sys.executable, "-P", "-m", "gfs.cli.main"]
ASKING = Path(__file__).with_name("asking.py")
_FORKING = threading.Lock()


NOBODY = 65534


def as_user(uid: int, gid: int) -> list[str]:
    """Words that run a command as that user, without any privilege."""
    return [
        "setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--inh-caps=-all",
        "--ambient-caps=-all", "--",
    ]  # fmt: skip


def packages() -> dict[str, str]:
    """Variables with which an interpreter of another prefix finds what this one has."""
    paths = [str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]
    return {"PYTHONPATH": os.pathsep.join(paths), "HOME": "/"}


@contextmanager
def passable_directory() -> Iterator[Path]:
    """A directory on the way to which nobody is stopped; removed at the end.

    Not below pytest's own: each run of pytest, also one that begins meanwhile, shuts those.
    """
    path = Path(tempfile.mkdtemp(prefix="gfs-user-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
    path.chmod(0o711)
    yield path
    assert not leftovers.mounts(path)
    shutil.rmtree(path)


@functools.cache
def python_for_others() -> str | None:
    """An interpreter that any user can start, and start again from itself.

    This one may lie in a home that is shut to others; Debian's of the same version will do.
    """
    again = (
        "import subprocess, sys, gfs, msgspec, apsw; "
        "sys.exit(subprocess.call([sys.executable, '-c', 'import pyfuse3']))"
    )
    for python in (sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"):
        words = [*as_user(NOBODY, NOBODY), python, "-c", again]
        if (
            shutil.which(python)
            and subprocess.run(
                words, capture_output=True, cwd="/", env=os.environ | packages(), check=False
            ).returncode
            == 0
        ):
            return python
    return None


def nobody_missing() -> str | None:
    """Why nothing can be run here as another user, or None."""
    if os.geteuid() != 0:
        return "only root can act as another user"
    if shutil.which("setpriv") is None:
        return "setpriv is not installed (package util-linux)"
    return None if python_for_others() else f"no other user can run {sys.executable}"


def forked_gfs() -> list[str | Path]:
    """Words that start `gfs` as GFS do, but from a process that has it loaded."""
    with _FORKING:
        return [sys.executable, "-I", "-S", ASKING, _serve_forked()]


@functools.cache
def _serve_forked() -> str:
    name = f"gfs-commands-{os.getpid()}"
    server = subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.system.forking", name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    atexit.register(server.communicate)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    return name


class CommandRefused(AssertionError):
    """A command of `gfs` ended with another exit code than was expected."""


class LocalCluster:
    """`gfs cluster up --dir` in a directory of its own."""

    def __init__(self, directory: Path, prefix: Sequence[str] = ()) -> None:
        self.directory = directory
        self.prefix = list(prefix)  # words before `gfs`: another user, another namespace
        self.environment: dict[str, str] = {}
        self.first = directory / "mnt1"
        self.second = directory / "mnt2"

    def command(self, named: bool = True) -> list[str | Path]:
        """The words that start `gfs`."""
        cluster: list[str | Path] = ["--cluster", self.directory] if named else []
        return [*self.prefix, *GFS, *cluster]

    def variables(self) -> dict[str, str]:
        """The environment of a command."""
        inherited = {name: value for name, value in os.environ.items() if name != "GFS_CLUSTER"}
        return inherited | {"PYTHONPATH": str(ROOT), **self.environment}

    def gfs(
        self,
        *words: str | bytes | Path,
        code: int = 0,
        given: bytes | None = None,
        cwd: Path | None = None,
        named: bool = True,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command; `named` False leaves it to the command to find the cluster."""
        start = self.command(named)
        if start[: len(GFS)] == GFS and words[:1] != ("cluster",):  # which starts daemons
            start[: len(GFS)] = forked_gfs()
        done = subprocess.run(
            [*start, *words],
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            timeout=COMMAND_S,
            cwd=cwd or "/",
            env=self.variables(),
            check=False,
        )
        if done.returncode != code:
            raise CommandRefused(
                f"gfs {words}: exit code {done.returncode}, not {code}\n"
                f"{done.stdout.decode(errors='replace')[-2000:]}\n"
                f"{done.stderr.decode(errors='replace')[-4000:]}"
            )
        return done

    def out(self, *words: str | bytes | Path, **how: Any) -> bytes:
        """Standard output of a command."""
        return self.gfs(*words, **how).stdout

    def json(self, *words: str | bytes | Path, **how: Any) -> Any:
        """Standard output of a command as JSON."""
        return json.loads(self.out(*words, **how))

    def up(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[bytes]:
        return self.gfs("cluster", "up", "--dir", self.directory, *words, code=code, named=False)

    def down(self, *words: str) -> None:
        self.gfs("cluster", "down", "--dir", self.directory, *words, named=False)

    def end(self) -> None:
        """Stop and remove whatever is there; for the end of a test."""
        if (self.directory / "cluster.toml").exists():
            self.down("--purge")

    def pids(self) -> dict[str, int]:
        """Name -> pid, as DIR/pids says."""
        lines = (self.directory / "pids").read_text().splitlines()
        return {name: int(pid) for pid, name in (line.split() for line in lines)}

    def log(self, name: str) -> str:
        return (self.directory / "log" / f"{name}.log").read_text(errors="replace")


class UsersCluster(LocalCluster):
    """The same by commands of another user, run by an interpreter he can reach."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, as_user(NOBODY, NOBODY))
        self.python = python_for_others() or sys.executable

    def command(self, named: bool = True) -> list[str | Path]:
        words = super().command(named)
        return [self.python if word == sys.executable else word for word in words]

    def variables(self) -> dict[str, str]:
        return super().variables() | packages() | self.environment

    def take_key(self) -> None:
        """Have a copy of the cluster's key that this user may read, beside the cluster."""
        key = self.directory.with_name("key-of-another")
        shutil.copyfile(self.directory / "key", key)
        key.chmod(0o600)
        os.chown(key, NOBODY, NOBODY)
        self.environment["GFS_CLUSTER_KEY_FILE"] = str(key)
