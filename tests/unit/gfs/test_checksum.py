"""Digests of neighbours give that of both."""

from __future__ import annotations

import random

import pytest

from gfs.checksum import (
    DIGEST_KNOWN,
    DIGEST_OF_NOTHING,
    DIGEST_UNKNOWN,
    digest_of,
    is_digest,
    joined_digest,
)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 255, 4096, 65_536, 65_537, 1 << 20])
def test_the_digest_of_two_runs_is_that_of_their_bytes(length: int) -> None:
    rng = random.Random(length)
    for before in (0, 1, 7, 70_000):
        first, second = rng.randbytes(before), rng.randbytes(length)
        found = joined_digest(digest_of(first), digest_of(second), length)
        assert found == digest_of(first + second)


def test_any_cut_gives_the_same() -> None:
    rng = random.Random(1)
    whole = rng.randbytes(300_000)
    for _ in range(20):
        at, found = 0, DIGEST_OF_NOTHING
        while at < len(whole):
            part = whole[at : at + rng.choice((1, 100, 4096, 65_536, 100_003))]
            found = joined_digest(found, digest_of(part), len(part))
            at += len(part)
        assert found == digest_of(whole)


def test_what_is_not_known_stays_so() -> None:
    known = digest_of(b"x")
    assert joined_digest(DIGEST_UNKNOWN, known, 1) == DIGEST_UNKNOWN
    assert joined_digest(known, DIGEST_UNKNOWN, 1) == DIGEST_UNKNOWN
    assert joined_digest(known, DIGEST_OF_NOTHING, 0) == known


@pytest.mark.parametrize(
    ("value", "right"),
    [(0, True), (1, False), (-1, False), (DIGEST_KNOWN, True), (2 * DIGEST_KNOWN, False)],
)
def test_only_a_crc_with_its_bit_is_a_digest(value: int, right: bool) -> None:
    assert is_digest(value) is right
