"""Who may have what: the first rule that fits, by address and by name."""

from __future__ import annotations

import pytest

from gfs.errors import NotPermitted, PermissionDenied, UsageError
from gfs.messages import Access
from master.core.exports import Export, Exports

READ = Access(read_only=True)
ALL = Access()


def test_without_rules_nobody_is_restricted() -> None:
    assert Exports().access_of("10.0.0.1", "/mnt") == ALL
    Exports().require_operator("10.0.0.1")


def test_the_first_rule_that_fits_counts() -> None:
    exports = Exports(
        [
            Export(["10.1.2.3"]),
            Export(["10.1.0.0/16", "fd00::/8"], access=READ),
            Export(["10.2.0.0/16"], ["backup-*"]),
            Export(["10.2.0.0/16"], access=None),
        ]
    )
    assert exports.access_of("10.1.2.3", "") == ALL
    assert exports.access_of("10.1.2.4", "") == READ
    assert exports.access_of("fd12::1", "") == READ
    assert exports.access_of("::ffff:10.1.2.4", "") == READ
    assert exports.access_of("10.2.0.1", "backup-1") == ALL
    for host, mount in (("10.2.0.1", "/mnt"), ("10.2.0.1", ""), ("192.0.2.1", ""), ("::1", "")):
        with pytest.raises(PermissionDenied, match=host):
            exports.access_of(host, mount)


def test_the_masters_own_socket_is_restricted_by_a_rule_of_its_own_alone() -> None:
    assert Exports([Export(["10.0.0.0/8"], access=READ)]).access_of("", "") == ALL
    assert Exports([Export(["unix"], access=READ)]).access_of("", "") == READ
    assert Exports([Export(access=READ)]).access_of("", "") == READ


def test_who_is_restricted_does_not_operate_the_cluster() -> None:
    exports = Exports([Export(["10.0.0.1"]), Export(["10.0.0.0/8"], access=READ)])
    exports.require_operator("10.0.0.1")
    with pytest.raises(NotPermitted):
        exports.require_operator("10.0.0.2")
    with pytest.raises(PermissionDenied):
        exports.require_operator("192.0.2.1")


@pytest.mark.parametrize("client", ["10.0.0.1/8", "alpha", "10.0.0.0/33", ""])
def test_what_is_no_address_is_refused_by_name(client: str) -> None:
    with pytest.raises(UsageError, match=repr(client)):
        Export([client])
