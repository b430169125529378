"""Every error of gfs.errors has an errno, and none tells a caller to try again."""

from __future__ import annotations

import errno

import pytest
import trio

from gfs import errors
from gfs.errors import BY_CODE, GfsError
from mount.errnos import ERRNOS, errno_of


@pytest.mark.parametrize("kind", BY_CODE.values(), ids=lambda kind: kind.code)
def test_table_has_every_error(kind: type[GfsError]) -> None:
    assert kind in ERRNOS
    assert ERRNOS[kind] > 0


@pytest.mark.parametrize("kind", BY_CODE.values(), ids=lambda kind: kind.code)
def test_error_meant_for_a_retry_never_leaks(kind: type[GfsError]) -> None:
    assert ERRNOS[kind] != errno.EAGAIN
    if issubclass(kind, errors.TryAgain):
        assert ERRNOS[kind] in (errno.ETIMEDOUT, errno.EIO)


@pytest.mark.parametrize("kind", BY_CODE.values(), ids=lambda kind: kind.code)
def test_refusal_keeps_the_errno_it_was_given(kind: type[GfsError]) -> None:
    if issubclass(kind, errors.Refused):
        assert ERRNOS[kind] == kind.errno


def test_group_of_one_is_what_it_holds() -> None:
    group = ExceptionGroup("nursery", [ExceptionGroup("inner", [errors.NotFound("x")])])
    assert errno_of(group) == errno.ENOENT


def test_system_and_time_errors_have_theirs() -> None:
    assert errno_of(OSError(errno.ENOSPC, "full")) == errno.ENOSPC
    assert errno_of(trio.TooSlowError()) == errno.ETIMEDOUT


def test_unforeseen_error_is_told_apart() -> None:
    assert errno_of(KeyError("bug")) is None
    assert errno_of(ExceptionGroup("two", [KeyError(), errors.NotFound("x")])) is None
