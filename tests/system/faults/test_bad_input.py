"""Strangers, mistakes and garbage at a running cluster: a clear word, and it serves on.

What one daemon alone does is tested with that daemon; here all ports of a whole
cluster suffer at once while it works, and every program is started wrongly.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gfs.cluster import plan
from gfs.cluster.plan import Spec
from tests.system.faults.processes import SHORT_LEASES, FaultyCluster
from tests.system.faults.works import Background, amount
from tests.system.faults.writer import ROOT

pytestmark = [pytest.mark.mount, pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(150)]

CONFIG = SHORT_LEASES
WISHES = {"projections": True}
START_S = 90.0
# A stranger at a port is worth a line, but never an ERROR or a traceback.
RANDOM = random.Random(9)
GARBAGE = [
    b"",
    b"\0",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /" + b"x" * 100_000,
    b"POST /sql HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999999\r\n\r\n",
    b"GET /health HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + b"\xff" * 50 + b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # TLS
    b"\xff" * 4096,
    bytes(4096),
    (10).to_bytes(4, "little") + (0).to_bytes(4, "little") + bytes(4) + b"\xc1" * 10,
    (2**31).to_bytes(4, "little") * 3,
    *(RANDOM.randbytes(RANDOM.randrange(1, 3000)) for _ in range(10)),
]


@pytest.fixture
def specs(cluster: FaultyCluster) -> dict[str, Spec]:
    cluster.up()
    return {spec.name: spec for spec in plan.specs(cluster.layout, cluster.layout.load())}


def ports(cluster: FaultyCluster) -> Iterator[tuple[str, int | str]]:
    """Every port and socket that anything of the cluster listens on."""
    facts = cluster.layout.load()
    for name, address in facts.addresses.items():
        yield name, int(address.rpartition(":")[2])
    for path in sorted(Path(facts.runtime_dir).glob("*.sock")):
        yield path.name, str(path)


def throw(where: int | str, content: bytes) -> None:
    """Send it, hear at most a little, hang up; a refusal of any kind is right."""
    family = socket.AF_INET if isinstance(where, int) else socket.AF_UNIX
    with socket.socket(family, socket.SOCK_STREAM) as sock, suppress(OSError):
        sock.settimeout(0.1)
        sock.connect(("127.0.0.1", where) if isinstance(where, int) else where)
        sock.sendall(content)
        with suppress(TimeoutError):
            while sock.recv(65536):
                pass


def test_garbage_on_every_port_harms_nobody(
    cluster: FaultyCluster, here: Path, there: Path
) -> None:
    before = {name: process.pid for name, process in cluster.alive().items()}
    done = False

    def work() -> None:
        number = 0
        while not done:
            (here / f"{number}").write_bytes(b"%d" % number)
            with open(here / "log", "ab", buffering=0) as log:
                log.write(b"%d\n" % number)
            number += 1
            assert (there / f"{number - 1}").read_bytes() == b"%d" % (number - 1)

    beside = Background(work)
    tried = list(ports(cluster))
    for name, where in tried:
        for content in GARBAGE[: amount(ci=12, full=len(GARBAGE))]:
            throw(where, content)
            assert beside.running, name
    done = True
    beside.join()
    print(f"{len(tried)} ports, {len(os.listdir(here)) - 1} files written meanwhile")
    assert {name: process.pid for name, process in cluster.alive().items()} == before
    lines = (there / "log").read_bytes().splitlines()
    assert lines == [b"%d" % number for number in range(len(lines))]
    assert cluster.registered() == 3


def test_open_connections_that_say_nothing_do_not_use_it_up(
    cluster: FaultyCluster, here: Path
) -> None:
    held: list[socket.socket] = []
    try:
        for _, where in ports(cluster):
            for _ in range(20):
                family = socket.AF_INET if isinstance(where, int) else socket.AF_UNIX
                sock = socket.socket(family, socket.SOCK_STREAM)
                held.append(sock)
                sock.connect(("127.0.0.1", where) if isinstance(where, int) else where)
        (here / "f").write_bytes(b"works")
        assert (here / "f").read_bytes() == b"works"
        assert cluster.registered() == 3
    finally:
        for sock in held:
            sock.close()


# --- programs started wrongly


def start(spec: Spec, **replaced: object) -> tuple[int, str]:
    """Run a program of the cluster with some flags replaced: its exit code and last word."""
    flags = {f"--{name.replace('_', '-')}": str(value) for name, value in replaced.items()}
    words = [word for word in spec.arguments if word.partition("=")[0] not in flags]
    words = [word for word in words if not word.startswith(("--log-file=", "--ready-file="))]
    given = [f"{name}={value}" for name, value in flags.items()]
    done = subprocess.run(
        [sys.executable, "-m", spec.program, *given, *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_S,
        cwd=ROOT, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line]
    complaints = [
        line for line in lines if line.startswith((f"gfs {spec.program}: ", f"{spec.program}: "))
    ]
    assert complaints, done.stderr
    return done.returncode, complaints[-1]


def fingerprint(directory: Path) -> dict[str, str]:
    """What is in a directory, byte by byte; locks apart, and SQLite, which moves its WAL."""
    return {
        str(path.relative_to(directory)): _sum_of(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "lock" and not path.name.startswith("state.db-")
    }


def _sum_of(path: Path) -> str:
    return "" if path.name == "state.db" else hashlib.sha256(path.read_bytes()).hexdigest()


FREE = {"address": "127.0.0.1:0", "http": "127.0.0.1:0", "unix": ""}


def test_second_daemon_on_a_directory_is_refused(specs: dict[str, Spec]) -> None:
    for name, more in (("master", {"stream_http": "127.0.0.1:0"}), ("chunkd1", {})):
        code, said = start(specs[name], **FREE, **more)
        assert (code, "in use" in said or "another" in said) == (2, True), said


def test_port_in_use_is_named(
    cluster: FaultyCluster, specs: dict[str, Spec], tmp_path: Path
) -> None:
    taken = cluster.layout.load().addresses
    code, said = start(specs["master"], data_dir=tmp_path / "m", unix="")
    assert (code, taken["master"] in said) == (2, True), said
    code, said = start(specs["chunkd1"], data_dirs=tmp_path / "c", unix="")
    assert (code, taken["chunkd1"] in said) == (2, True), said
    code, said = start(
        specs["master"], data_dir=tmp_path / "m", unix="", address="127.0.0.1:0", http_unix="",
        stream_unix="",
    )  # fmt: skip
    assert (code, taken["master_http"] in said) == (2, True), said


def test_wrong_key_is_refused_and_a_bad_key_file_named(
    specs: dict[str, Spec], tmp_path: Path
) -> None:
    wrong = tmp_path / "key"
    wrong.write_bytes(b"ab" * 32 + b"\n")
    wrong.chmod(0o600)
    point = tmp_path / "mnt"
    point.mkdir()
    mount = Spec("mount9", "mount", 2, [*specs["mount1"].arguments[:-1], str(point)])
    code, said = start(mount, key_file=wrong)
    assert (code, "key" in said) == (2, True), said
    wrong.chmod(0o644)
    for spec in (specs["master"], specs["chunkd1"], mount):
        code, said = start(spec, key_file=wrong)
        assert (code, "chmod 600" in said) == (2, True), said
        code, said = start(spec, key_file=tmp_path / "none")
        assert (code, "none" in said) == (2, True), said


def test_other_cluster_is_refused_and_nothing_deleted(
    cluster: FaultyCluster, specs: dict[str, Spec], tmp_path: Path
) -> None:
    point = tmp_path / "mnt"
    point.mkdir()
    mount = Spec("mount9", "mount", 2, [*specs["mount1"].arguments[:-1], str(point)])
    code, said = start(mount, cluster_id="stranger")
    assert (code, "cluster" in said) == (2, True), said
    for name in ("master", "chunkd1"):
        cluster.kill(name)
        directory = cluster.layout.data(name)
        before = fingerprint(directory)
        code, said = start(specs[name], cluster_id="stranger")
        assert (code, "cluster" in said) == (2, True), said
        assert fingerprint(directory) == before
        cluster.start(name)
    cluster.wait_ready()


def newer(path: Path, offset: int) -> None:
    """Raise the format number, a little-endian u32 at `offset`."""
    with open(path, "r+b") as file:
        file.seek(offset)
        number = int.from_bytes(file.read(4), "little")
        file.seek(offset)
        file.write((number + 1).to_bytes(4, "little"))


def test_newer_format_is_refused_and_kept(
    cluster: FaultyCluster, specs: dict[str, Spec], here: Path, tmp_path: Path
) -> None:
    """Copies of the directories are raised in format, so that the cluster goes on."""
    with open(here / "f", "wb", buffering=0) as file:
        file.write(os.urandom(100_000))
        os.fsync(file.fileno())
    with open(here / "log", "ab") as log:
        log.write(b"line\n")
    cluster.kill("mount1")  # its packed chunk is sealed: a .meta exists
    cluster.up()
    assert (here / "f").stat().st_size == 100_000
    cluster.wait("no chunk is sealed", lambda: bool(metas(cluster.layout.data("chunkd1"))))
    cluster.kill("master", "chunkd1")
    tries = [
        ("master", min((cluster.layout.data("master") / "log").glob("*.log")), 8),
        ("master", cluster.layout.data("master") / "state.db", None),
        ("chunkd1", metas(cluster.layout.data("chunkd1"))[0], 8),
        ("chunkd1", cluster.layout.data("chunkd1") / "identity", 8),
    ]
    for number, (name, path, offset) in enumerate(tries):
        source = cluster.layout.data(name)
        copy = tmp_path / f"{number}"
        shutil.copytree(source, copy)
        changed = copy / path.relative_to(source)
        if offset is None:
            import apsw

            connection = apsw.Connection(str(changed))
            connection.pragma("user_version", 99)
            connection.close()
        else:
            newer(changed, offset)
        before = fingerprint(copy)
        data = {"data_dir": copy} if name == "master" else {"data_dirs": copy}
        code, said = start(specs[name], **data)
        assert (code, "format" in said) == (2, True), said
        assert fingerprint(copy) == before
    cluster.start("master", "chunkd1")
    cluster.wait_ready()
    assert (here / "log").read_bytes() == b"line\n"


def metas(directory: Path) -> list[Path]:
    return sorted(directory.glob("chunks/*/*.meta"))


@pytest.mark.parametrize("flags", [
    {"goal": "many"}, {"goal": "0"}, {"chunk_bytes": "7"}, {"no_such_flag": "1"},
    {"address": "nonsense"},
])  # fmt: skip
def test_mistake_in_a_setting_is_named(
    specs: dict[str, Spec], tmp_path: Path, flags: dict[str, str]
) -> None:
    code, said = start(specs["master"], **{"data_dir": tmp_path / "m", **FREE, **flags})
    assert code == 2
    assert next(iter(flags)).replace("_", "-") in said.replace("_", "-") or "nonsense" in said
