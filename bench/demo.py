"""`make demo`: start a cluster, do real work on it, ask it questions, stop it.

Everything is done by ordinary programs on the mounted directories (cp, diff, tee, find,
du) and by the command `gfs`, each as a process with a time limit, so that the demo
ends whatever happens: on failure and on Ctrl-C it is unmounted and stopped as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click

MIB = 1024 * 1024
REPLICAS = 3
SLACK_BYTES = 1024 * MIB  # log, state, small files, and what the disk keeps for itself
WRITERS, LINES = 4, 2_000
TEE_LINES = 500
STEP_S = 300.0
LOG_LINES = 12


class DemoFailed(Exception):
    """Something is not as promised; the text says what."""


class Demo:
    """One run in one directory."""

    def __init__(self, directory: Path, mib: int) -> None:
        self.directory = directory
        self.mib = mib
        self.first, self.second = directory / "mnt1", directory / "mnt2"
        self.failures = 0

    def run(self) -> None:
        """All steps in order.

        Raises:
          DemoFailed: a step failed.
        """
        steps: list[tuple[str, Callable[[], str]]] = [
            ("a master, three chunk servers, two views, two mounts", self.start),
            ("a source tree copied in with cp -r, compared with diff -r", self.source_tree),
            (f"{WRITERS} writers append to one file through two mounts", self.appenders),
            ("tee -a fed line by line, read on the other mount", self.tee),
            (f"{self.mib} MiB written and read back", self.big_file),
            ("find: the view against find(1) on the mount", self.find),
            ("search: names by substring", self.search),
            ("du: the view against the mount", self.du),
            ("sql: bytes per extension, against the mount", self.sql),
        ]
        for number, (title, step) in enumerate(steps, 1):
            say(f"\n[{number}/{len(steps)}] {title}")
            began = time.monotonic()
            for line in step().splitlines():
                say(f"      {line}")
            say(f"      ok, {time.monotonic() - began:.1f} s")

    # --- work on the mounts

    def start(self) -> str:
        return self.gfs("cluster", "up", "--chunkservers", "3", "--mounts", "2").answer

    def source_tree(self) -> str:
        tree = self.directory.with_name("tree")
        ignore = shutil.ignore_patterns("site-packages", "__pycache__", "test", "*.so", "*.a")
        shutil.copytree(sysconfig.get_path("stdlib"), tree, ignore=ignore, symlinks=True)
        files = sum(len(names) for _, _, names in os.walk(tree))
        began = time.monotonic()
        command("cp", "-r", tree, self.first / "tree")
        copied_s = time.monotonic() - began
        command("diff", "-r", "--no-dereference", tree, self.second / "tree")
        return f"{files} files copied in {copied_s:.1f} s ({files / copied_s:.0f}/s); no difference"

    def appenders(self) -> str:
        places = [self.first / "log", self.second / "log"]
        began = time.monotonic()
        running = [
            step_process("append", places[writer % 2], writer, LINES) for writer in range(WRITERS)
        ]
        for process in running:
            finish(process, "a writer")
        took_s = time.monotonic() - began
        lines = Counter(self.read(self.first / "log").splitlines())
        wanted = Counter(line_of(writer, at) for writer in range(WRITERS) for at in range(LINES))
        if lines != wanted:
            lost, foreign = wanted - lines, lines - wanted
            raise DemoFailed(f"{lost.total()} lines lost, {foreign.total()} doubled or torn")
        total = WRITERS * LINES
        return f"{total} lines, every one there once and whole; {total / took_s:.0f} lines/s"

    def tee(self) -> str:
        target = self.first / "tee"
        expected = "".join(f"line {number}\n" for number in range(TEE_LINES)).encode()
        with subprocess.Popen(["tee", "-a", target], stdin=-1, stdout=-3, bufsize=0) as process:
            assert process.stdin is not None
            for line in expected.splitlines(keepends=True):
                process.stdin.write(line)
            process.stdin.close()
            process.stdin = None  # communicate() would close it again
            finish(process, "tee")
        if self.read(self.second / "tee") != expected:
            raise DemoFailed("the other mount shows something else than tee was given")
        return f"{TEE_LINES} lines, equal on the other mount"

    def big_file(self) -> str:
        written = json.loads(step("write", self.first / "big", self.mib))
        read = json.loads(step("read", self.second / "big"))
        if written["sum"] != read["sum"]:
            raise DemoFailed(f"written {written['sum']}, read {read['sum']}")
        return (
            f"written to the return of fsync: {self.mib / written['seconds']:.0f} MiB/s\n"
            f"read on the other mount: {self.mib / read['seconds']:.0f} MiB/s\n"
            f"checksum equal: {written['sum'][:16]}..."
        )

    # --- questions to the views

    def find(self) -> str:
        words = ["-name", "*.py", "-size", "+20k"]
        view = self.gfs("find", str(self.first), *words, "--wait")
        mount = command("find", self.first, *words)
        ours, theirs = sorted(view.lines), sorted(mount.lines)
        if ours != theirs or not ours:
            raise DemoFailed(f"the view finds {len(ours)}, find(1) {len(theirs)}")
        return f"{len(ours)} files either way\n{view.remark}"

    def search(self) -> str:
        view = self.gfs("search", "parse", "--wait")
        mount = command("find", self.first, "-name", "*parse*")
        ours = {line.rpartition("/")[2] for line in view.lines}
        theirs = {line.rpartition("/")[2] for line in mount.lines}
        if ours != theirs or not ours:
            raise DemoFailed(f"the view finds {sorted(ours ^ theirs)} differently")
        return f'{len(view.lines)} names contain "parse"\n{view.remark}'

    def du(self) -> str:
        view = self.gfs("du", "/", "--wait", "--json")
        answer = json.loads(view.answer)
        sizes = command("find", self.first, "!", "-type", "d", "-printf", "%s\\n")
        total = sum(map(int, sizes.lines))
        if (answer["bytes"], answer["files"]) != (total, len(sizes.lines)):
            raise DemoFailed(
                f"the view says {answer['bytes']} bytes in {answer['files']} files, the mount "
                f"{total} in {len(sizes.lines)}"
            )
        return (
            f"{total} bytes in {answer['files']} files either way\n"
            f"as of position {answer['position']}, lag {answer['lag_ms']} ms"
        )

    def sql(self) -> str:
        question = (
            "SELECT extension, count(*) AS files, sum(size) AS bytes FROM files "
            "WHERE extension = 'py' GROUP BY extension"
        )
        view = self.gfs("sql", question, "--wait", "--json")
        answer = json.loads(view.answer)
        row = dict(zip(answer["columns"], answer["rows"][0], strict=True))
        sizes = command("find", self.first, "-type", "f", "-name", "*.py", "-printf", "%s\\n")
        mount = (len(sizes.lines), sum(map(int, sizes.lines)))
        if (row["files"], row["bytes"]) != mount:
            raise DemoFailed(f"the view says {row}, the mount {mount}")
        return (
            f".py: {row['files']} files, {row['bytes']} bytes either way\n"
            f"as of position {answer['position']}, lag {answer['lag_ms']} ms"
        )

    # --- the rest

    def read(self, path: Path) -> bytes:
        return command("cat", path).raw

    def gfs(self, *words: str) -> Done:
        return command(*gfs_command(), "--cluster", self.directory, *words)

    def stop(self) -> None:
        """Unmount and stop; the data go."""
        if (self.directory / "cluster.toml").exists():
            words = ["cluster", "down", "--dir", str(self.directory), "--purge"]
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    [*gfs_command(), *words], stdin=-3, stdout=-3, timeout=90, check=False
                )

    def show_logs(self) -> None:
        """The end of each log that has something to say."""
        for log in sorted((self.directory / "log").glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()
            if any(word in line for line in lines for word in ("WARNING", "ERROR", "Traceback")):
                say(f"\n--- the end of {log.name}")
                for line in lines[-LOG_LINES:]:
                    say(line)


# --- processes -----------------------------------------------------------------------


class Done:
    """What a process that ended well has printed."""

    def __init__(self, raw: bytes, errors: bytes) -> None:
        self.raw = raw
        self.answer = raw.decode(errors="surrogateescape").strip()
        self.lines = self.answer.splitlines()
        self.remark = errors.decode(errors="replace").strip()


def command(*words: str | Path) -> Done:
    """Run a program with a time limit.

    Raises:
      DemoFailed: it failed or took too long.
    """
    process = subprocess.Popen(
        [str(word) for word in words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    answer, errors = finish(process, " ".join(map(str, words[-6:])))
    return Done(answer, errors)


def finish(process: subprocess.Popen[bytes], what: str) -> tuple[bytes, bytes]:
    """Wait for a process; it is killed when it takes too long or we are interrupted."""
    try:
        answer, errors = process.communicate(timeout=STEP_S)
    except subprocess.TimeoutExpired:
        raise DemoFailed(f"{what}: not done within {STEP_S:.0f} s") from None
    finally:
        process.kill()
    if process.returncode:
        text = (errors or b"").decode(errors="replace").strip() or (answer or b"").decode()[:500]
        raise DemoFailed(f"{what}: exit code {process.returncode}\n{text}")
    return answer or b"", errors or b""


def gfs_command() -> list[str]:
    """The command `gfs` of this very installation."""
    beside = Path(sys.executable).with_name("gfs")
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "gfs.cli.main"]


def step_process(name: str, *words: object) -> subprocess.Popen[bytes]:
    """A part of the work as a process of its own: a mount is driven from outside."""
    parts = [sys.executable, "-m", "bench.demo", f"--step={name}", *map(str, words)]
    return subprocess.Popen(parts, stdin=-3, stdout=-1, stderr=-1)


def step(name: str, *words: object) -> str:
    """Run a part to its end; what it printed."""
    return finish(step_process(name, *words), name)[0].decode()


# --- the parts that run as processes of their own ------------------------------------


def line_of(writer: int, number: int) -> bytes:
    """A line that nobody else writes."""
    return f"writer {writer} line {number:06d} {'x' * (number % 80)}".encode()


def append_lines(path: str, writer: str, count: str) -> None:
    """Each line in one write(2), as the shell's ``printf >>`` does."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for number in range(int(count)):
        os.write(descriptor, line_of(int(writer), number) + b"\n")
    os.close(descriptor)


def write_big(path: str, mib: str) -> None:
    """Blocks that differ, written to the return of fsync; prints time and checksum."""
    noise = os.urandom(MIB)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    began = time.monotonic()
    for block in blocks(noise, int(mib)):
        os.write(descriptor, block)
    os.fsync(descriptor)
    os.close(descriptor)
    seconds = time.monotonic() - began
    digest = hashlib.sha256()
    for block in blocks(noise, int(mib)):
        digest.update(block)
    print(json.dumps({"seconds": seconds, "sum": digest.hexdigest()}))


def blocks(noise: bytes, count: int) -> Iterator[bytearray]:
    """`count` blocks of a mebibyte, each with its number in front."""
    block = bytearray(noise)
    for number in range(count):
        block[:8] = number.to_bytes(8, "big")
        yield block


def read_big(path: str) -> None:
    """Read once for the time, then again for the checksum."""
    buffer = bytearray(MIB)
    with open(path, "rb", buffering=0) as file:
        began = time.monotonic()
        while file.readinto(buffer):
            pass
        seconds = time.monotonic() - began
        file.seek(0)
        digest = hashlib.sha256()
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    print(json.dumps({"seconds": seconds, "sum": digest.hexdigest()}))


STEPS: dict[str, Callable[..., None]] = {
    "append": append_lines,
    "write": write_big,
    "read": read_big,
}


# --- the command ---------------------------------------------------------------------


def say(text: str) -> None:
    """A line for whoever watches."""
    print(text, flush=True)


def choose_directory(given: Path | None, mib: int) -> Path:
    """A fresh directory with room enough, on a real disk if there is a choice.

    Raises:
      click.UsageError: there is too little space.
    """
    needed = REPLICAS * mib * MIB + SLACK_BYTES
    bases = [given] if given else [Path("/var/tmp"), Path(tempfile.gettempdir())]
    for base in bases:
        if os.access(base, os.W_OK) and shutil.disk_usage(base).free >= needed:
            return Path(tempfile.mkdtemp(prefix="gfs-demo-", dir=base))
    raise click.UsageError(
        f"{needed / 1024 / MIB:.1f} GiB are needed in {' or '.join(map(str, bases))}: "
        "give --dir, or less with --mib"
    )


def perform(base: Path, mib: int) -> int:
    """Run the demo below `base`, which is removed; the exit code."""
    demo = Demo(base / "cluster", mib)
    try:
        demo.run()
    except (DemoFailed, OSError) as error:
        say(f"\nfailed: {error}")
        demo.show_logs()
        return 1
    except KeyboardInterrupt:
        say("\ninterrupted")
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end is not to be interrupted
        say("\nstopping")
        demo.stop()
        shutil.rmtree(base, ignore_errors=True)
    say(
        "\nall as promised. To go on:\n"
        "  make up                  a cluster of your own in ./.cluster, mounted at .cluster/mnt1\n"
        "  cd .cluster/mnt1         work there; `.venv/bin/gfs find . -mmin -5` asks the view\n"
        "  make status, make down   see how it is; stop it (the data stay)"
    )
    return 0


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--dir", "directory", type=click.Path(exists=True, path_type=Path), help="Where to.")
@click.option("--mib", default=1024, type=click.IntRange(1), help="Size of the big file. [1024]")
@click.option("--step", "name", type=click.Choice(list(STEPS)), hidden=True)
@click.argument("words", nargs=-1)
def main(directory: Path | None, mib: int, name: str | None, words: Sequence[Any]) -> None:
    """Start a cluster, do real work on it, show the result, stop it."""
    if name is not None:
        STEPS[name](*words)
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    base = choose_directory(directory, mib)
    sys.exit(perform(base, mib))


if __name__ == "__main__":
    main()
