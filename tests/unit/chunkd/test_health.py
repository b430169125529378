"""When a data directory is slow, hung, failed, and well again."""

from __future__ import annotations

from chunkd.core.health import GOOD_PROBES, READ_ERRORS_MAX, Health


def probes(health: Health, count: int) -> list[bool]:
    """So many good ones; whether each changed something."""
    return [health.probed(0.0, "") for _ in range(count)]


def test_a_job_that_does_not_end_makes_it_slow_then_hung() -> None:
    health = Health(hung_s=10)
    assert not health.look(102.9, 100.0)
    assert health.is_working
    assert health.look(103.0, 100.0)
    assert health.is_slow
    assert not health.is_out, "its replicas still count"
    assert health.look(110.0, 100.0)
    assert (health.is_hung, health.is_out, health.is_working) == (True, True, False)


def test_a_slow_one_works_again_when_the_job_has_ended() -> None:
    health = Health(hung_s=10)
    health.look(105.0, 100.0)
    assert health.look(105.1, None)
    assert health.is_working


def test_a_hung_one_needs_a_probe_that_ends() -> None:
    """That one job has ended proves little: its thread may have been the only one waiting."""
    health = Health(hung_s=10)
    health.look(110.0, 100.0)
    assert not health.look(111.0, None)
    assert health.is_hung
    assert probes(health, 1) == [True]
    assert health.is_working


def test_an_error_fails_it_until_several_probes_were_good_one_behind_the_other() -> None:
    health = Health()
    assert health.failed("input/output error")
    assert not health.failed("again"), "known"
    assert (health.is_out, health.reason) == (True, "input/output error")
    assert probes(health, GOOD_PROBES - 1) == [False] * (GOOD_PROBES - 1)
    health.probed(0.0, "input/output error")
    assert probes(health, GOOD_PROBES) == [False] * (GOOD_PROBES - 1) + [True]
    assert health.is_working


def test_each_return_is_harder_than_the_one_before() -> None:
    health = Health()
    for needed in (GOOD_PROBES, 2 * GOOD_PROBES, 4 * GOOD_PROBES):
        health.failed("input/output error")
        assert probes(health, needed).index(True) == needed - 1


def test_a_bad_probe_fails_it() -> None:
    health = Health()
    assert health.probe_due(1.0)
    assert not health.probe_due(100.0), "one is under way"
    assert health.probed(101.0, "read-only file system")
    assert not health.probe_due(101.1)
    assert health.reason == "read-only file system"


def test_an_unreadable_replica_is_its_own_trouble_many_are_the_disks() -> None:
    health = Health()
    for _ in range(100):
        assert not health.unreadable(1, "input/output error")
    for handle in range(2, READ_ERRORS_MAX):
        assert not health.unreadable(handle, "input/output error")
    assert health.unreadable(READ_ERRORS_MAX, "input/output error")
    assert health.is_out
