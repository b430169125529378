"""What of pyfuse3's own messages comes into the mount's log."""

from __future__ import annotations

import logging

import pytest

from mount.__main__ import is_news

REPLY = "fuse_releasedir(): fuse_reply_* failed with %s"


@pytest.mark.parametrize(
    ("message", "why", "shown"),
    [
        (REPLY, "No such file or directory", False),  # unmounted before it was answered
        (REPLY, "Invalid argument", True),
        ("open failed with %s", "No such file or directory", True),
    ],
)
def test_an_answer_that_nobody_waits_for_is_no_error(message: str, why: str, shown: bool) -> None:
    record = logging.LogRecord("pyfuse3", logging.ERROR, "", 0, message, (why,), None)
    assert is_news(record) is shown
