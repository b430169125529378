"""Which file a path means, what commands refuse, and how output keeps odd names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gfs.cli.finding import Place, fences_of, lock_variables, reach
from gfs.cli.main import COMMANDS, gfs, run
from gfs.cli.output import size_text
from gfs.cli.programs import with_cluster
from gfs.cluster.layout import Layout
from gfs.config import ClientConfig
from gfs.errors import UsageError


def place(here: bytes = b"/") -> Place:
    return Place("/c", ClientConfig(), (b"/c/mnt1", b"/c/mnt2"), here)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("/", b"/"),
        ("/a/b", b"/a/b"),
        ("/c/mnt1", b"/"),
        ("/c/mnt1/a", b"/a"),
        ("/c/mnt2/a/../b", b"/a/../b"),
        ("/c/mnt10/a", b"/c/mnt10/a"),
        ("a", b"/a"),
        (b"\xff", b"/\xff"),
    ],
)
def test_a_path_below_a_mountpoint_means_the_file_there(given: str | bytes, meant: bytes) -> None:
    assert place().path(given) == meant


def test_a_mount_of_a_subtree_shows_what_lies_there() -> None:
    mnt, sub = b"/mnt", b"/srv/sub"
    here = Place("c", ClientConfig(), (sub, mnt), subtrees={sub: b"/a/b", mnt: b"/"})
    assert here.path(b"/srv/sub/x") == b"/a/b/x"
    assert here.path(b"/srv/sub") == b"/a/b"
    assert here.path(b"/mnt") == b"/"
    assert here.on_host(b"/a/b/x") == b"/srv/sub/x"
    assert here.on_host(b"/a/bc") == b"/mnt/a/bc"
    only = Place("c", ClientConfig(), (sub,), subtrees={sub: b"/a/b"})
    assert only.on_host(b"/a") is None


def test_a_relative_path_starts_where_one_stands() -> None:
    assert place(b"/dir").path("x") == b"/dir/x"
    assert place(b"/dir").path("../x") == b"/dir/../x"
    assert place(b"/dir").path("/x") == b"/x"


def test_a_surrogate_of_the_command_line_is_its_byte() -> None:
    assert place().path(os.fsdecode(b"/caf\xe9")) == b"/caf\xe9"


def test_without_a_cluster_the_message_says_how_to_name_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("GFS_CLUSTER", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="GFS_CLUSTER"):
        reach(None)
    with pytest.raises(UsageError, match="no cluster in"):
        reach(str(tmp_path))
    with pytest.raises(UsageError, match="HOST:PORT"):
        reach("ftp://x")


def test_a_cluster_is_found_by_option_then_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        layout = Layout(tmp_path / name)
        facts = layout.create()
        facts.addresses["master"] = f"127.0.0.1:{len(name)}"
        layout.save(facts)
    monkeypatch.setenv("GFS_CLUSTER", str(tmp_path / "two"))
    assert reach(str(tmp_path / "one")).name == str(tmp_path / "one")
    assert reach(None).name == str(tmp_path / "two")
    assert reach("gfs://h:1").config.master == "h:1"


def test_usage_errors_are_one_line_and_exit_code_2(capfd: pytest.CaptureFixture[str]) -> None:
    for argv in (["nonsense"], ["ls", "--nonsense"], ["put"], ["cluster", "up", "--goal", "0"]):
        assert run(argv) == 2
        captured = capfd.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("gfs: ")
        assert captured.err.count("\n") == 1


def test_a_cluster_that_does_not_answer_is_one_line_and_exit_code_1(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(tmp_path / "c")
    facts = layout.create()
    facts.addresses = {"master": "127.0.0.1:1"}
    layout.save(facts)
    assert run(["--cluster", str(layout.directory), "fsck"]) == 1
    captured = capfd.readouterr()
    assert captured.err.startswith("gfs: 127.0.0.1:1")
    assert captured.err.count("\n") == 1


def test_every_command_of_the_help_exists(capfd: pytest.CaptureFixture[str]) -> None:
    import click

    for group in COMMANDS.values():
        for name, _, about in group:
            command = gfs.get_command(click.Context(gfs), name)
            assert command is not None
            assert command.name == name
            assert about
    assert run(["--help"]) == 0
    text = capfd.readouterr().out
    assert all(heading + ":" in text for heading in COMMANDS)


def test_the_version_is_told_by_option_and_command(capfd: pytest.CaptureFixture[str]) -> None:
    told = []
    for words in (["--version"], ["version"]):
        assert run(words) == 0
        told.append(capfd.readouterr().out.splitlines()[0])
    assert told[0] == told[1]
    assert told[0].startswith("gfs ")


def test_config_show_says_where_values_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gfs.toml"
    path.write_text("[master]\ncache_lease_s = 30\n")
    monkeypatch.setenv("GFS_MASTER_GOAL", "2")
    assert run(["config", "show", "--section", "master", "--config", str(path), "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)["master"]
    assert shown["goal"] == {"value": 2, "origin": "$GFS_MASTER_GOAL"}
    assert shown["cache_lease_s"] == {"value": 30.0, "origin": f"{path} [master] cache_lease_s"}
    assert shown["write_min"] == {"value": 2, "origin": "default"}
    assert "cluster_id" not in shown


def test_a_daemon_takes_the_file_of_a_local_cluster(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.save(layout.create())
    toml = f"--config={layout.toml}"
    assert with_cluster(["--cluster", str(tmp_path), "/mnt"], None) == [toml, "/mnt"]
    assert with_cluster([f"--cluster={tmp_path}"], None) == [toml]
    assert with_cluster(["/mnt"], str(tmp_path)) == [toml, "/mnt"]
    assert with_cluster(["/mnt"], None) == ["/mnt"]
    with pytest.raises(UsageError):
        with_cluster(["--cluster"], None)


def test_sizes_are_shown_in_the_unit_that_fits() -> None:
    assert [size_text(n) for n in (0, 1023, 1536, 3 << 30)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "3.0 GiB",
    ]


def test_a_command_under_a_lock_depends_on_it_in_its_own_cluster_alone() -> None:
    variables = lock_variables("abc", 7, 9)
    assert variables["GFS_LOCK_FENCE"] == "9"
    assert fences_of(variables, "abc") == [(7, 9)]
    assert fences_of(variables, "def") == []
    assert fences_of({}, "abc") == []
    with pytest.raises(UsageError):
        fences_of({"GFS_LOCK_ID": "abc:7"}, "abc")
