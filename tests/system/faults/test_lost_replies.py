"""The reply of every mutating call lost, and the master killed before the retry.

The mount talks to the master through a proxy. Once the reply of a mutation is lost
the master is killed and started; the mount sends the mutation again, and the caller
must get the first outcome: O_EXCL succeeds, unlink does not say ENOENT, a line stands
once. Each call is made by a process of its own, see writer.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gfs import messages as m
from gfs.messages import Message, Mutate
from tests.system.faults.processes import SHORT_LEASES, FaultyCluster
from tests.system.proxy import FrameProxy

pytestmark = [pytest.mark.mount, pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(120)]

CONFIG = SHORT_LEASES + "trash_min_age_s = 0.0\n"
CALL_S = 60.0


@pytest.fixture(scope="module")
def proxy(cluster: FaultyCluster) -> Iterator[FrameProxy]:
    """Between the first mount and the master."""
    runtime = Path(cluster.layout.load().runtime_dir)
    with FrameProxy(runtime / "proxy.sock", str(runtime / "master.sock")) as found:
        cluster.replaced["mount1"] = [f"--master-unix={found.path}", "--master="]
        cluster.terminate("mount1")
        cluster.start("mount1")
        cluster.wait_ready("mount1")
        yield found
        cluster.kill("mount1")


class Call:
    """Python run in a process of its own, with `d` the directory and `os` at hand."""

    def __init__(self, code: str, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"import os, sys\nd = sys.argv[1]\n{code}", directory],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def end(self) -> None:
        """It ended, without an error."""
        _, errors = self._process.communicate(timeout=CALL_S)
        assert self._process.returncode == 0, errors.decode()


def mutation(kind: type[Message]) -> object:
    return lambda message: isinstance(message, Mutate) and type(message.operation) is kind


def once(
    cluster: FaultyCluster, proxy: FrameProxy, kind: type[Message], code: str, here: Path
) -> None:
    """Make the call; its reply is lost, the master killed and started, the call ends well."""
    proxy.lose(mutation(kind))  # type: ignore[arg-type]
    call = Call(code, here)
    assert proxy.lost.wait(CALL_S), f"no {kind.__name__} was sent"
    cluster.kill("master")
    proxy.cut()
    cluster.start("master")
    call.end()


APPEND = 'f = os.open(d + "/log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n'

CALLS: list[tuple[str, type[Message], str, str, str]] = [
    # name, operation whose reply is lost, before, the call, what must hold then
    ("create", m.Create, "", 'os.open(d + "/f", os.O_CREAT | os.O_EXCL)', 'os.listdir(d) == ["f"]'),
    ("mkdir", m.MakeNode, "", 'os.mkdir(d + "/x")', "os.stat(d).st_nlink == 3"),
    ("mknod", m.MakeNode, "", 'os.mkfifo(d + "/x")', 'os.listdir(d) == ["x"]'),
    ("symlink", m.MakeSymlink, "", 'os.symlink("t", d + "/x")', 'os.readlink(d + "/x") == "t"'),
    (
        "link", m.MakeLink, 'open(d + "/f", "w").close()', 'os.link(d + "/f", d + "/x")',
        'os.stat(d + "/x").st_nlink == 2',
    ),
    (
        "unlink", m.Unlink, 'open(d + "/f", "w").close()', 'os.unlink(d + "/f")',
        "os.listdir(d) == []",
    ),
    ("rmdir", m.RemoveDirectory, 'os.mkdir(d + "/x")', 'os.rmdir(d + "/x")', "os.listdir(d) == []"),
    (
        "rename", m.Rename, 'open(d + "/f", "w").close()', 'os.rename(d + "/f", d + "/x")',
        'os.listdir(d) == ["x"]',
    ),
    (
        "rename-over", m.Rename, 'open(d + "/f", "w").write("f"); open(d + "/x", "w").close()',
        'os.rename(d + "/f", d + "/x")', 'open(d + "/x").read() == "f"',
    ),
    (
        "chmod", m.SetAttributes, 'open(d + "/f", "w").close()', 'os.chmod(d + "/f", 0o600)',
        'os.stat(d + "/f").st_mode & 0o777 == 0o600',
    ),
    (
        "truncate", m.SetAttributes, 'open(d + "/f", "w").write("content")',
        'os.truncate(d + "/f", 3)', 'open(d + "/f").read() == "con"',
    ),
    (
        "setxattr", m.SetXattr, 'open(d + "/f", "w").close()',
        'os.setxattr(d + "/f", "user.a", b"1", os.XATTR_CREATE)',
        'os.getxattr(d + "/f", "user.a") == b"1"',
    ),
    (
        "removexattr", m.RemoveXattr,
        'open(d + "/f", "w").close(); os.setxattr(d + "/f", "user.a", b"1")',
        'os.removexattr(d + "/f", "user.a")', 'os.listxattr(d + "/f") == []',
    ),
    (
        "commit", m.Commit, "",
        'f = os.open(d + "/f", os.O_CREAT | os.O_WRONLY); os.write(f, b"x" * 9999); os.fsync(f)',
        'open(d + "/f").read() == "x" * 9999',
    ),
    (
        "open-tail", m.OpenTail, "", APPEND + 'os.write(f, b"line\\n"); os.close(f)',
        'open(d + "/log").read() == "line\\n"',
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "before", "code", "holds"), [c[1:] for c in CALLS],
                         ids=[c[0] for c in CALLS])  # fmt: skip
def test_call_whose_reply_was_lost_has_its_first_outcome(
    cluster: FaultyCluster,
    proxy: FrameProxy,
    here: Path,
    there: Path,
    kind: type[Message],
    before: str,
    code: str,
    holds: str,
) -> None:
    if before:
        Call(before, here).end()
    once(cluster, proxy, kind, code, here)
    for directory in (here, there):
        Call(f"assert {holds}, os.listdir(d)", directory).end()


def test_allocation_whose_reply_was_lost_leaks_no_chunk(
    cluster: FaultyCluster, proxy: FrameProxy, here: Path, there: Path
) -> None:
    """A fresh mount has no chunk yet, so its first write allocates."""
    cluster.kill("mount1")
    cluster.start("mount1")
    cluster.wait_ready("mount1")
    code = 'f = os.open(d + "/f", os.O_CREAT | os.O_WRONLY); os.write(f, b"x" * 99); os.fsync(f)'
    once(cluster, proxy, m.Allocate, code, here)
    assert (there / "f").read_bytes() == b"x" * 99


@pytest.mark.parametrize("kind", [m.SealChunk, m.ResolveTail])
def test_seal_whose_reply_was_lost_loses_no_byte(
    cluster: FaultyCluster, proxy: FrameProxy, here: Path, there: Path, kind: type[Message]
) -> None:
    """A chunk server dies under a writer, and the reply to the seal that follows is lost."""
    streaming = 'f = os.open(d + "/f", os.O_CREAT | os.O_WRONLY)\n'
    append = 'f = os.open(d + "/f", os.O_CREAT | os.O_WRONLY | os.O_APPEND)\n'
    body = """
for number in range(400):
    os.write(f, b"%06d" % number + b"x" * 20_000)
    if number % 20 == 0:
        os.fsync(f)
    if number == 50:
        open(d + "/go", "w").close()
os.close(f)
"""
    proxy.lose(mutation(kind))  # type: ignore[arg-type]
    call = Call((streaming if kind is m.SealChunk else append) + body, here)
    cluster.wait("the writer is not under way", (there / "go").exists)
    cluster.kill("chunkd2")
    assert proxy.lost.wait(CALL_S)
    cluster.kill("master")
    proxy.cut()
    cluster.start("master", "chunkd2")
    call.end()
    expected = b"".join(b"%06d" % number + b"x" * 20_000 for number in range(400))
    assert (there / "f").read_bytes() == expected
    assert (here / "f").read_bytes() == expected


def test_connection_cut_again_and_again_is_only_slow(
    cluster: FaultyCluster, proxy: FrameProxy, here: Path, there: Path
) -> None:
    call = Call(
        """
for number in range(100):
    name = d + "/%03d" % number
    with open(name, "xb", buffering=0) as f:
        f.write(b"x" * number)
    os.rename(name, name + ".done")
    with open(d + "/log", "ab", buffering=0) as f:
        f.write(b"%03d\\n" % number)
""",
        here,
    )
    cuts = 0
    while call._process.poll() is None:
        seen = proxy.forwarded
        cluster.wait(
            "nothing moves",
            lambda seen=seen: proxy.forwarded > seen + 60 or call._process.poll() is not None,  # type: ignore[misc]
        )
        proxy.cut()
        cuts += 1
    call.end()
    print(f"cut {cuts} times")
    assert cuts > 3
    names = sorted(os.listdir(there))
    assert names == [*(f"{number:03d}.done" for number in range(100)), "log"]
    assert (there / "log").read_bytes() == b"".join(b"%03d\n" % n for n in range(100))
    for number in range(100):
        assert os.stat(there / f"{number:03d}.done").st_size == number
