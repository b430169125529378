"""The overlay of uncommitted bytes against the plainest model: a bytearray."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfs.client.ranges import Overlay, Piece, covers

SPAN = 64
WRITES = st.lists(
    st.tuples(
        st.sampled_from(["write", "grow", "patch", "drop", "truncate"]),
        st.integers(0, SPAN - 1),
        st.integers(1, 12),
    ),
    max_size=40,
)


def overlay_bytes(overlay: Overlay) -> dict[int, int]:
    return {
        start + step: value
        for start, end, piece in overlay.read(0, 10 * SPAN)
        for step, value in enumerate(bytes(piece.view(start, end)))
    }


@given(WRITES)
def test_overlay_shows_exactly_the_last_writer_of_each_byte(
    script: list[tuple[str, int, int]],
) -> None:
    # A hidden byte stays hidden when the piece above it is committed first: commits go in
    # write order, so the model drops the oldest piece only, as the write-back does.
    overlay, truth, live = Overlay(), dict[int, tuple[int, Piece]](), list[Piece]()
    for step, (kind, offset, length) in enumerate(script):
        data = bytes([step + 1]) * length
        if kind == "write" or (kind in ("grow", "patch") and not live):
            piece = Piece(offset, data)
            live.append(piece)
            overlay.add(piece)
            truth |= dict.fromkeys(range(offset, offset + length), (step + 1, piece))
        elif kind == "grow":
            piece = live[-1]
            start = piece.end
            piece.grow(data)
            overlay.grown(piece, length)
            truth |= dict.fromkeys(range(start, start + length), (step + 1, piece))
        elif kind == "patch":
            piece = live[-1]
            start = piece.offset + offset % piece.length
            data = data[: piece.end - start]
            piece.patch(start, data)
            for at in range(start, start + len(data)):
                if at in truth:
                    truth[at] = (step + 1, truth[at][1])
        elif kind == "drop" and live:
            piece = live.pop(0)
            overlay.drop(piece)
            truth = {at: shown for at, shown in truth.items() if shown[1] is not piece}
        elif kind == "truncate":
            overlay.truncate(offset)
            truth = {at: shown for at, shown in truth.items() if at < offset}
            live.clear()
        assert overlay_bytes(overlay) == {at: value for at, (value, _) in truth.items()}
        assert overlay.end == max(truth, default=-1) + 1


def test_read_clips_to_the_range_asked() -> None:
    overlay = Overlay()
    overlay.add(Piece(10, b"abcdefghij"))
    [(start, end, piece)] = overlay.read(12, 15)
    assert (start, end, bytes(piece.view(start, end))) == (12, 15, b"cde")


def test_a_gap_is_not_covered() -> None:
    overlay = Overlay()
    overlay.add(Piece(0, b"aa"))
    overlay.add(Piece(3, b"bb"))
    assert not covers(overlay.read(0, 5), 0, 5)
    overlay.add(Piece(2, b"c"))
    assert covers(overlay.read(0, 5), 0, 5)


@pytest.mark.parametrize("seed", range(8))
def test_a_piece_is_its_writes_however_they_are_gathered(seed: int) -> None:
    rng = random.Random(seed)
    piece, model = Piece(100, b"first"), bytearray(b"first")
    for _ in range(60):
        data = rng.randbytes(rng.choice((1, 100, 4096, 9000)))
        choice = rng.random()
        if choice < 0.7:
            piece.grow(data)
            model += data
        elif choice < 0.8 and len(data) < len(model):
            at = rng.randrange(len(model) - len(data))
            piece.patch(100 + at, data)
            model[at : at + len(data)] = data
        else:
            start = rng.randrange(len(model))
            seen = piece.view(100 + start, 100 + len(model))
            assert seen == model[start:]
        assert piece.end == 100 + len(model)
    assert piece.buffer == model


def test_what_was_read_of_a_growing_piece_does_not_change() -> None:
    piece = Piece(0, b"a" * 5000)
    piece.grow(b"b" * 5000)
    seen = piece.view(0, 10000)
    piece.patch(0, b"c" * 10000)
    assert bytes(seen) == b"a" * 5000 + b"b" * 5000
