"""Milliseconds of a question put many times with different arguments."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
Times = dict[str, float]


def summary(samples_s: Sequence[float]) -> Times:
    """Median and 95th percentile, in milliseconds."""
    ordered = sorted(samples_s)
    return {
        "median_ms": round(ordered[len(ordered) // 2] * 1e3, 2),
        "p95_ms": round(ordered[len(ordered) * 95 // 100] * 1e3, 2),
        "times": len(ordered),
    }


def timed(arguments: Sequence[T], ask: Callable[[T], object]) -> Times:
    """Ask once with each."""
    samples = []
    for argument in arguments:
        began = time.perf_counter()
        ask(argument)
        samples.append(time.perf_counter() - began)
    return summary(samples)


async def timed_async(arguments: Sequence[T], ask: Callable[[T], Awaitable[object]]) -> Times:
    """The same for a question that is awaited."""
    samples = []
    for argument in arguments:
        began = time.perf_counter()
        await ask(argument)
        samples.append(time.perf_counter() - began)
    return summary(samples)
