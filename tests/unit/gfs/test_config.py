"""Settings: which source wins, where each value comes from, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from gfs.config import description, field_types, flag_of, load, load_section, variable_of
from gfs.errors import UsageError
from gfs.sections import SECTIONS, ChunkdConfig, MasterConfig


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gfs.toml"
    path.write_text(
        """
        [cluster]
        id = "c1"
        [master]
        goal = 2
        cache_lease_s = 30
        log_segment_bytes = "16MiB"
        [chunkd]
        data_dirs = ["/a", "/b"]
        """
    )
    return path


def master(
    file: Path | None = None, flags: dict[str, object] | None = None, **environment: str
) -> tuple[MasterConfig, dict[str, str]]:
    config, origins = load_section("master", file=file, flags=flags, environment=environment)
    assert isinstance(config, MasterConfig)
    return config, origins


def test_a_value_comes_from_the_highest_source_and_knows_it(file: Path) -> None:
    assert master()[0].goal == 3
    assert master()[1]["goal"] == "default"
    config, origins = master(file)
    assert (config.goal, origins["goal"]) == (2, f"{file} [master] goal")
    config, origins = master(file, GFS_MASTER_GOAL="4")
    assert (config.goal, origins["goal"]) == (4, "$GFS_MASTER_GOAL")
    config, origins = master(file, {"goal": "5"}, GFS_MASTER_GOAL="4")
    assert (config.goal, origins["goal"]) == (5, "--goal")


def test_the_section_cluster_is_part_of_every_daemon(file: Path) -> None:
    for section in SECTIONS:
        config, origins = load_section(section, file=file, environment={})
        assert config.cluster_id == "c1"
        assert origins["cluster_id"] == f"{file} [cluster] id"
    assert master(file, GFS_CLUSTER_ID="c2")[0].cluster_id == "c2"


def test_sizes_may_carry_a_unit(file: Path) -> None:
    assert master(file)[0].log_segment_bytes == 16 << 20
    assert master(GFS_MASTER_LOG_SEGMENT_BYTES="2g")[0].log_segment_bytes == 2 << 30
    assert master(flags={"chunk_bytes": "4194304"})[0].chunk_bytes == 4 << 20


def test_lists_come_from_file_variable_and_repeated_flags(file: Path) -> None:
    def dirs(**environment: str) -> list[str]:
        config, _ = load_section("chunkd", file=file, environment=environment)
        assert isinstance(config, ChunkdConfig)
        return config.data_dirs

    assert dirs() == ["/a", "/b"]
    assert dirs(GFS_CHUNKD_DATA_DIRS="/c:/d") == ["/c", "/d"]
    config, _ = load("chunkd", ["--data-dirs", "/e", "--data-dirs", "/f"])
    assert config.data_dirs == ["/e", "/f"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[master]\ngoals = 3", "goals"),
        ("[masterr]\ngoal = 3", "masterr"),
        ("[mount]\nnonsense = 1", "nonsense"),
        ("master = 3", "master"),
        ('[master]\ngoal = "three"', "goal"),
        ("[master]\ngoal = 0", "goal"),
        ("[master]\ngoal = 2.5", "goal"),
        ('[master]\nlog_segment_bytes = "16 miles"', "log_segment_bytes"),
        ('[master]\nlog_level = "loud"', "log_level"),
        ("[master\n", ""),
        ('[master]\nhttp = ["a"]', "http"),
    ],
)
def test_a_mistake_in_the_file_is_refused_by_file_and_key(
    tmp_path: Path, text: str, named: str
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as raised:
        master(path)
    assert str(path) in str(raised.value)
    assert named in str(raised.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GFS_MASTER_GOALS", "3"),
        ("GFS_MASTER_GOAL", "x"),
        ("GFS_CLUSTER_NAME", "x"),
        ("GFS_MOUNT_FOO", "1"),
    ],
)
def test_a_mistake_in_a_variable_is_refused_by_its_name(variable: str, value: str) -> None:
    with pytest.raises(UsageError, match=variable):
        master(None, None, **{variable: value})


def test_variables_of_no_section_are_nobodys_business() -> None:
    master(GFS_CLUSTER="/somewhere", GFS_TEST_RUN="1", GFS="x", GFSX_MASTER_GOAL="3")


@pytest.mark.parametrize(
    "argv", [["--goals", "3"], ["--goal"], ["--goal", "x"], ["--goal", "99"], ["word"]]
)
def test_a_mistake_in_a_flag_is_a_usage_error(argv: list[str]) -> None:
    with pytest.raises(UsageError):
        load("master", argv)


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.toml"):
        load("master", ["--config", str(tmp_path / "nothing.toml")])


def test_the_mountpoint_is_a_word() -> None:
    config, origins = load("mount", ["/mnt/x", "--no-allow-other"])
    assert (config.mountpoint, config.allow_other) == ("/mnt/x", False)
    assert origins["mountpoint"] == "MOUNTPOINT"
    assert load("mount", [])[0].allow_other is None


def test_help_ends_well_and_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load("chunkd", ["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(flag_of(name) in text for name in field_types("chunkd"))


def test_every_setting_has_a_line_and_a_variable_of_its_own() -> None:
    seen: dict[str, str] = {}
    for section in SECTIONS:
        for name, annotation in field_types(section).items():
            assert description(annotation), f"{section}.{name} has no description"
            variable = variable_of(section, name)
            assert seen.setdefault(variable, name) == name


def test_defaults_obey_their_own_limits() -> None:
    for section, kind in SECTIONS.items():
        config, origins = load_section(section, environment={})
        assert config == kind()
        assert set(origins.values()) == {"default"}
