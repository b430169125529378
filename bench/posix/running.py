"""Runs one program on one target, in processes of its own, and ends all that it leaves.

The runner never touches the target's directory itself: a call on a mount that hangs
would hang it too. Whatever a program starts carries a mark in its environment, by which
it is found afterwards, daemons included.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.posix.program import Outcome, Program, Verdict
from bench.targets.commands import alive, wait_at_most

ROOT = Path(__file__).resolve().parent.parent.parent
MARK = "GFS_PROGRAM"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
END_LIMIT_S = 10.0
LAST_LINES = 3  # of a failed program's output
REASON_LENGTH = 300
PRELUDE = """
set -eEuo pipefail
trap 'echo "failed: $BASH_COMMAND" >&2' ERR
not() { if "$@"; then echo "succeeded: $*"; return 1; fi; }
until_so() {
    for _ in $(seq 100); do if "$@"; then return; fi; sleep 0.1; done
    echo "never: $*"
    return 1
}
mkdir -p "$TMPDIR"
chmod 1777 "$TMPDIR"
cd "$HERE"
"""
REMOVE_LIMIT_S = 120.0


def run(program: Program, mounts: Sequence[Path], scratch: Path) -> Outcome:
    """Run it to its end, or to its limit.

    Args:
      program: to be run.
      mounts: the target's directory through its first and second mount.
      scratch: directory on the local disk, made if need be; NAME.log there keeps the output.
    """
    here = mounts[0] / program.name
    local = scratch / f"{program.name}.local"
    local.mkdir(parents=True, exist_ok=True)
    log = scratch / f"{program.name}.log"
    environment = {
        **_plain_environment(),
        "HERE": str(here),
        "THERE": str(mounts[1] / program.name),
        "LOCAL": str(local),
        "TMPDIR": str(here / "tmp"),
        MARK: f"{os.getpid()}-{program.name}",
    }
    start = time.monotonic()
    try:
        code = _ended(["bash", "-c", PRELUDE + program.script], environment, log, program.limit_s)
        seconds = time.monotonic() - start
    finally:
        _end_marked(environment[MARK])
    _ended(["rm", "-rf", str(here), str(local)], environment, Path(os.devnull), REMOVE_LIMIT_S)
    return judge(program, code, seconds, log.read_text(errors="replace"))


def answers(mounts: Sequence[Path]) -> bool:
    """Whether a file can be made, seen and removed through each mount in a few seconds."""
    script = 'for m; do touch "$m/.probe-$$" && stat "$m/.probe-$$" && rm "$m/.probe-$$"; done'
    words = ["bash", "-ec", script, "probe", *map(str, mounts)]
    return _ended(words, _plain_environment(), Path(os.devnull), END_LIMIT_S) == 0


def judge(program: Program, code: int | None, seconds: float, output: str) -> Outcome:
    """What a run of `program` means.

    Args:
      program: that was run.
      code: its exit code, None if it was ended at its limit.
      seconds: how long it took.
      output: what it printed.
    """
    if code == 0:
        said = program.skipped_words and re.search(program.skipped_words, output, re.MULTILINE)
        if said:
            return Outcome(Verdict.SKIPPED, seconds, said[0][:REASON_LENGTH])
        return Outcome(Verdict.PASSED, seconds)
    last = " / ".join(line.strip() for line in output.strip().splitlines()[-LAST_LINES:])
    if code in program.skipped_by:
        return Outcome(Verdict.SKIPPED, seconds, last[:REASON_LENGTH])
    found = re.findall(program.failed_parts, output, re.MULTILINE) if program.failed_parts else []
    parts = frozenset(found)
    if code is None:
        reason = f"not done after {program.limit_s:.0f} s: {last}"
    elif parts:
        reason = ", ".join(sorted(parts))
    else:
        reason = f"exit code {code}: {last}"
    return Outcome(Verdict.FAILED, seconds, reason[:REASON_LENGTH], parts)


def _plain_environment() -> dict[str, str]:
    """The same on every machine: a variable of the user's must not decide."""
    return {
        "PATH": PATH,
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
        "ROOT": str(ROOT),
        "PYTHON": sys.executable,
        "PYTHONDONTWRITEBYTECODE": "1",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_COUNT": "4",
        **_git("0", "user.name", "programs"),
        **_git("1", "user.email", "programs@localhost"),
        **_git("2", "safe.directory", "*"),
        **_git("3", "init.defaultBranch", "main"),
    }


def _git(number: str, key: str, value: str) -> dict[str, str]:
    return {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}


def _ended(
    argv: Sequence[str], environment: dict[str, str], log: Path, limit_s: float
) -> int | None:
    """Exit code of a program; None if it had to be ended."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    return wait_at_most(process, limit_s)


def _end_marked(mark: str) -> None:
    """End every process that a run has left behind; one that the kernel holds stays."""
    deadline = time.monotonic() + END_LIMIT_S
    while (left := _marked(mark)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _marked(mark: str) -> list[int]:
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{entry.name}/environ").read_bytes().split(b"\0")
                if wanted in words and alive(int(entry.name)):
                    found.append(int(entry.name))
    return found
