"""Maps of numbers: one to one, and back."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfs import identities
from gfs.errors import UsageError
from gfs.identities import IdMap, parse_range


def test_the_examples_hold() -> None:
    assert doctest.testmod(identities).failed == 0


@st.composite
def maps(draw: st.DrawFn) -> IdMap:
    """Ranges of three numbers each, anywhere in a small world, so that they often collide."""
    count = draw(st.integers(0, 4))
    firsts = draw(st.lists(st.integers(0, 9), min_size=count, max_size=count, unique=True))
    tos = draw(st.lists(st.integers(0, 9), min_size=count, max_size=count, unique=True))
    return IdMap([(first * 3, to * 3, 3) for first, to in zip(firsts, tos, strict=True)])


@given(maps(), st.integers(0, 40))
def test_what_has_a_number_gets_it_back_and_nobody_has_anothers(users: IdMap, number: int) -> None:
    stored, shown = users.stored(number), users.shown(number)
    assert stored is None or users.shown(stored) == number
    assert shown is None or users.stored(shown) == number


def test_two_may_change_places() -> None:
    users = IdMap([(1, 2, 1), (2, 1, 1)])
    assert [users.stored(n) for n in (1, 2, 3)] == [2, 1, 3]
    assert str(users) == "1:2,2:1"


def test_ranges_are_read_and_what_is_none_is_refused() -> None:
    assert parse_range("1000:5000") == (1000, 5000, 1)
    assert parse_range("0:5:10") == (0, 5, 10)
    for text in ("", "1", "1:", ":1", "1:2:3:4", "-1:2", "a:b", "1:2:x", "\u0661:2"):
        with pytest.raises(UsageError):
            parse_range(text)
