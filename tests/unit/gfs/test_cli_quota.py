"""How limits are written for `gfs quota`, and how a quota is shown."""

from __future__ import annotations

import pytest

from gfs.cli.main import run
from gfs.cli.quota import describe, limit_of
from gfs.errors import UsageError
from gfs.messages import QuotaUse


@pytest.mark.parametrize(
    ("text", "size", "count"),
    [
        ("0", 0, 0),
        ("none", 0, 0),
        ("10G", 10 << 30, 10 * 10**9),
        ("1.5k", 1536, 1500),
        ("512MiB", 512 << 20, None),
        ("3tb", 3 << 40, None),
        ("-1", None, None),
        ("10 apples", None, None),
        ("", None, None),
    ],
)
def test_a_limit_is_a_number_with_a_unit(text: str, size: int | None, count: int | None) -> None:
    for what, expected in (("SIZE", size), ("COUNT", count)):
        if expected is None:
            with pytest.raises(UsageError, match=f"is no {what.lower()} such as"):
                limit_of(what, text)
        else:
            assert limit_of(what, text) == expected


def test_nothing_to_set_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quota", "set", "/d"]) == 2
    assert "give a limit" in capsys.readouterr().err
    assert run(["quota", "set", "/d", "--bytes", "much"]) == 2
    assert "'much' is no size such as 10G, 512MiB" in capsys.readouterr().err


def test_a_quota_is_shown_with_what_is_left() -> None:
    use = QuotaUse(7, b"/d", 10 << 30, 8 << 30, 0, 50, 9 << 30, 100, 3600 * 50, 0.0, False)
    assert describe(use) == [
        "/d",
        "  bytes: 9.0 GiB used of 10.0 GiB, soft limit 8.0 GiB, 90 %, 2 d of grace left",
        "  files: 100 used, soft limit 50, 200 %, the grace period is over",
    ]
    nowhere = QuotaUse(7, b"", 0, 0, 0, 0, 0, 100, -1.0, -1.0, True)
    assert describe(nowhere) == [
        "inode 7, in the trash, being counted: there may be more",
        "  bytes: 0 B used",
        "  files: 100 used",
    ]
