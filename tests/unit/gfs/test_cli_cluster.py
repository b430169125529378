"""A local cluster's directory: facts survive, sockets fit, pids are never mistaken."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gfs import readiness
from gfs.cluster import plan, processes
from gfs.cluster.layout import Facts, Layout, choose_address, is_free
from gfs.cluster.processes import Process, Registry, is_alive, start_time
from gfs.cluster.up import Wishes, client_config, prepare_mountpoint, up
from gfs.config import load
from gfs.errors import UsageError
from gfs.mounts import mount_of, mounted


def test_facts_survive_and_odd_paths_are_quoted(tmp_path: Path) -> None:
    layout = Layout(tmp_path / 'odd "name" with spaces \\ and ü')
    facts = layout.create()
    facts.addresses = {"master": "127.0.0.1:1234", "stream": "127.0.0.1:1235"}
    facts.mounts = 2
    layout.save(facts)
    assert layout.load() == facts
    config = client_config(layout)
    assert (config.master, config.cluster_dir) == ("127.0.0.1:1234", str(layout.directory))
    assert config.stream == "http://127.0.0.1:1235"


def test_the_key_is_for_its_owner_alone_and_is_kept(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "c")
    layout.create()
    key = layout.key.read_bytes()
    assert stat.S_IMODE(layout.key.stat().st_mode) == 0o600
    layout.create()
    assert layout.key.read_bytes() == key


def test_sockets_of_a_deep_directory_lie_in_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    shallow = Layout("/tmp")
    deep = Layout(tmp_path / ("d" * 60) / ("e" * 60))
    facts = deep.create()
    deep.ensure_runtime_dir(facts)
    try:
        assert len(os.fsencode(deep.socket(facts, "analytics"))) <= 107
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(deep.socket(facts, "analytics"))
        before = facts.runtime_dir
        deep.ensure_runtime_dir(facts)
        assert facts.runtime_dir == before
    finally:
        subprocess.run(["rm", "-r", facts.runtime_dir], check=True)
    deep.ensure_runtime_dir(facts)  # it has vanished: a new one
    assert facts.runtime_dir != before
    os.rmdir(facts.runtime_dir)
    assert shallow.socket(Facts(id="x", runtime_dir="/r"), "a") == "/r/a.sock"


def test_a_runtime_directory_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "c")
    facts = layout.create()
    target = tmp_path / "elsewhere"
    target.mkdir()
    facts.runtime_dir = str(tmp_path / "link")
    (tmp_path / "link").symlink_to(target)
    layout.ensure_runtime_dir(facts)
    assert facts.runtime_dir != str(tmp_path / "link")


@pytest.mark.parametrize("text", ["", "nonsense", "[local]\n", "[cluster]\nid = 3\n[local]\n"])
def test_a_damaged_cluster_file_is_a_usage_error(tmp_path: Path, text: str) -> None:
    layout = Layout(tmp_path)
    layout.toml.write_text(text)
    with pytest.raises(UsageError, match=r"cluster\.toml"):
        layout.load()


def test_taken_ports_are_seen_and_not_chosen() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        assert not is_free(address)
        assert choose_address([address]) != address


def test_ports_are_chosen_among_those_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GFS_PORTS", "19000-19099")
    among = [f"127.0.0.1:{port}" for port in range(19_000, 19_100)]
    assert choose_address([]) in among
    with pytest.raises(UsageError, match="no free port found from 19000 to 19099"):
        choose_address(among)


@pytest.mark.parametrize("given", ["", "1", "2-1", "0-9", "1-65536", "a-b", "-"])
def test_ports_that_are_none_are_a_usage_error(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("GFS_PORTS", given)
    with pytest.raises(UsageError, match=r"\$GFS_PORTS: .* is not FIRST-LAST"):
        choose_address([])


def test_a_reused_pid_is_not_ours() -> None:
    pid = os.getpid()
    started = start_time(pid)
    assert started is not None
    boot = processes.boot_id()
    assert is_alive(Process("me", pid, started, boot))
    assert not is_alive(Process("earlier", pid, started - 1, boot))
    assert not is_alive(Process("before the boot", pid, started, "another boot"))


def test_a_reused_pid_is_never_signalled() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        try:
            stranger = Process("x", child.pid, -5, processes.boot_id())
            assert processes.stop([stranger], term_s=0.1) == []
            assert child.poll() is None
        finally:
            child.kill()


def test_a_zombie_is_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert start_time(child.pid) is None


def test_a_zombie_with_a_thread_left_is_alive() -> None:
    """Its main thread has ended; what it has open and locked is still held."""
    code = (
        "import ctypes, sys, threading\n"
        "threading.Thread(target=sys.stdin.buffer.read).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as child:
        stat = Path("/proc", str(child.pid), "stat")
        while stat.read_bytes().rpartition(b")")[2].split()[0] != b"Z":
            time.sleep(0.01)
        assert start_time(child.pid) is not None
        assert child.stdin is not None
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert start_time(child.pid) is None


@pytest.mark.kill
def test_what_ignores_sigterm_is_killed_also_when_stopped(tmp_path: Path) -> None:
    code = "import signal; signal.signal(15, signal.SIG_IGN); print(1, flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGSTOP)
        started = start_time(child.pid)
        assert started is not None
        process = Process("stubborn", child.pid, started, processes.boot_id())
        assert processes.stop([process], term_s=0.2) == [process]
        assert child.wait(5) == -signal.SIGKILL


def test_the_registry_names_each_process_once(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    registry = Registry(layout)
    assert registry.all() == []
    started = start_time(os.getpid())
    assert started is not None
    me = Process("master", os.getpid(), started, processes.boot_id())
    registry.put(Process("chunkd1", 2**22 + 1, 1, processes.boot_id()))
    registry.put(me)
    registry.put(me)
    assert registry.all() == [me]
    assert layout.pids.read_text() == f"{os.getpid()} master\n"
    layout.processes.write_text("damaged")
    assert registry.all() == []


def test_flags_of_the_plan_are_flags_of_the_daemons(tmp_path: Path) -> None:
    """What `up` would start is understood by the configuration of each program."""
    layout = Layout(tmp_path)
    facts = layout.create()
    facts.runtime_dir = "/tmp/r"
    facts.addresses = dict.fromkeys(plan.port_names(facts), "127.0.0.1:1")
    names = []
    for spec in plan.specs(layout, facts):
        assert spec.program in ("master", "chunkd", "projections", "mount")
        config, origins = load(spec.program, spec.arguments)  # type: ignore[call-overload]
        assert config.cluster_id == facts.id
        assert origins["key_file"] == "--key-file"
        names.append(spec.name)
    assert names == [
        "master", "chunkd1", "chunkd2", "chunkd3",
        "projections-search", "projections-analytics", "mount1",
    ]  # fmt: skip


def test_a_mountpoint_that_is_in_use_is_refused(tmp_path: Path) -> None:
    point = tmp_path / "mnt1"
    prepare_mountpoint(point)
    (point / "file").touch()
    with pytest.raises(UsageError, match="not empty: file"):
        prepare_mountpoint(point)
    with pytest.raises(UsageError, match="as mountpoint"):
        prepare_mountpoint(point / "file")


def test_a_wrong_configuration_starts_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[chunkd]\nracks = 1\n")
    layout = Layout(tmp_path / "c")
    with pytest.raises(UsageError, match="racks"):
        up(layout, Wishes(config=bad), print)
    assert Registry(layout).all() == []


def test_a_cluster_needs_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot make a cluster"):
        up(Layout(tmp_path / "file"), Wishes(), print)


def test_nothing_of_ours_is_mounted_at_the_root() -> None:
    assert mount_of(b"/proc/self") is None
    assert all(one.cluster for one in mounted())


def test_a_ready_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "ready"
    assert readiness.read(path) is None
    path.write_text("{")
    assert readiness.read(path) is None
    readiness.announce(str(path), address="127.0.0.1:1", epoch=3)
    told = readiness.read(path)
    assert told is not None
    assert (told.pid, told.address, told.epoch) == (os.getpid(), "127.0.0.1:1", 3)
    readiness.announce("", address="nowhere")
