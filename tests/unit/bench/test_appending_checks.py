"""The account of appended lines: each kind of damage is found and called by its name."""

from __future__ import annotations

from bench.drivers.appending import LINE_BYTES, Faults, account, line

WRITERS, COUNT = 2, 3
ALL = [line(writer, sequence) for sequence in range(COUNT) for writer in range(WRITERS)]


def faults(*, lost: int = 0, torn: int = 0, doubled: int = 0, disordered: int = 0) -> Faults:
    return {"lost": lost, "torn": torn, "doubled": doubled, "disordered": disordered}


def check(lines: list[bytes]) -> Faults:
    return account(b"".join(lines), WRITERS, COUNT)


def test_every_line_has_the_stated_length() -> None:
    assert {len(text) for text in ALL} == {LINE_BYTES}


def test_interleaved_writers_in_their_own_order_are_right() -> None:
    assert check(ALL) == faults()


def test_missing_line_is_lost() -> None:
    assert check(ALL[1:]) == faults(lost=1)


def test_repeated_line_is_doubled_but_not_disordered() -> None:
    assert check([*ALL, ALL[0]]) == faults(doubled=1)


def test_line_after_its_successor_is_disordered() -> None:
    swapped = [ALL[2], ALL[1], ALL[0], *ALL[3:]]
    assert check(swapped) == faults(disordered=1)


def test_line_cut_into_by_another_is_torn_and_lost() -> None:
    torn = ALL[0][:40] + ALL[1] + ALL[0][40:]
    assert check([torn, *ALL[2:]]) == faults(lost=2, torn=2)


def test_last_line_without_its_end_is_torn() -> None:
    assert check([*ALL[:-1], ALL[-1][:-1]]) == faults(lost=1, torn=1)
