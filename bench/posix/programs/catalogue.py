"""Every program, in the order in which they run."""

from __future__ import annotations

from bench.posix.program import Program
from bench.posix.programs import (
    building,
    copying,
    cpython,
    databases,
    editing,
    exercisers,
    git,
    stress,
)

PROGRAMS: tuple[Program, ...] = (
    *copying.PROGRAMS,
    *editing.PROGRAMS,
    *git.PROGRAMS,
    *building.PROGRAMS,
    *databases.PROGRAMS,
    *cpython.PROGRAMS,
    *exercisers.PROGRAMS,
    *stress.PROGRAMS,
)
