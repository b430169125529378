"""When the soak says that something grows."""

from __future__ import annotations

from bench.soak import MIB, Samples, slope, verdict


def samples(name: str, sizes_mib: list[float]) -> Samples:
    return [(100_000 * at, {name: round(size * MIB)}) for at, size in enumerate(sizes_mib)]


def test_one_odd_sample_does_not_move_the_slope() -> None:
    points = [(number, 10 * number) for number in range(10)]
    points[4] = (4, 10_000)
    assert slope(points) == 10


def test_what_fills_in_the_warm_up_and_then_stays_does_not_grow() -> None:
    lines, sound = verdict(samples("mount1", [30, 50, 60, 61, 61.5, 61, 60.8, 61.2, 61, 61, 61.1]))
    assert sound
    assert len(lines) == 1


def test_what_goes_on_growing_is_named() -> None:
    found = samples("mount1", [30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130])
    for _, sizes in found:
        sizes["master"] = 40 * MIB
    lines, sound = verdict(found)
    assert not sound
    assert [line.split()[0] for line in lines if "GROWS" in line] == ["mount1"]


def test_databases_of_views_may_fill_their_caches_and_no_more() -> None:
    filling = [40 + 7 * number for number in range(11)]
    for name, last, sound in (
        ("projections-search", 110, True),
        ("projections-search", 200, False),
    ):
        found = verdict(samples(name, [*filling[:-1], last]))
        assert found[1] == sound
        assert ("fills its cache" in found[0][0]) == sound


def test_a_process_that_was_there_for_a_while_only_is_no_matter() -> None:
    found = samples("master", [40] * 11)
    found[5][1]["master's checkpoint"] = 90 * MIB
    assert verdict(found)[1]
