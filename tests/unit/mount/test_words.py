"""The words of -o: ours, the kernel's, others'; and none that is ignored."""

from __future__ import annotations

import doctest

import pytest

from gfs import access, mounts
from gfs.access import wish_of
from gfs.errors import UsageError
from gfs.messages import Access
from gfs.sections import MountConfig
from mount import words
from mount.words import applied


def test_the_examples_hold() -> None:
    for module in (words, mounts, access):
        assert doctest.testmod(module).failed == 0


def test_a_line_of_fstab() -> None:
    line = "ro,_netdev,noauto,nofail,user,x-systemd.automount,noatime,relatime,nosuid"
    config, kernel = applied(MountConfig(options=[line, "key=/k,subtree=/a,allow_other"]))
    assert (config.read_only, config.key_file, config.subtree) == (True, "/k", "/a")
    assert config.allow_other is True
    assert kernel == {"noatime", "nosuid"}


def test_every_setting_is_a_word_and_the_last_one_counts() -> None:
    text = "root_squash,no_root_squash,all_squash,anonuid=5,anon_gid=6,flush_after_s=0.5,rw"
    config, _ = applied(MountConfig(read_only=True, options=[text]))
    assert (config.root_squash, config.all_squash, config.read_only) == (False, True, False)
    assert (config.anon_uid, config.anon_gid, config.flush_after_s) == (5, 6, 0.5)
    config, _ = applied(MountConfig(map_uid=["1:2"], options=["map_uid=3:4,map_uid=5:6:7"]))
    assert config.map_uid == ["1:2", "3:4", "5:6:7"]


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("foo", "'foo' is not known"),
        ("foo=1", "'foo=1' is not known"),
        ("mountpoint=/x", "not known"),
        ("options=ro", "not known"),
        ("nosubtree", "not known"),
        ("subtree", "needs a value"),
        ("root_squash=1", "takes no value"),
        ("anon_uid=x", "-o anon_uid=x"),
        ("flush_after_s=900", "-o flush_after_s=900"),
    ],
)
def test_what_is_not_known_is_refused_by_its_name(word: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        applied(MountConfig(options=[f"ro,{word}"]))


def test_what_a_mount_asks_for() -> None:
    assert wish_of(MountConfig(anon_uid=5)) is None
    config = MountConfig(
        read_only=True, subtree="/a", map_uid=["1:2"], map_gid=["3:4:5"], root_squash=True
    )
    assert wish_of(config) == Access(True, b"/a", [(1, 2, 1)], [(3, 4, 5)], "root")
    both = MountConfig(root_squash=True, all_squash=True)
    assert wish_of(both) == Access(squash="all")
    for bad in (MountConfig(subtree="a"), MountConfig(map_uid=["1:2:3", "2:9"])):
        with pytest.raises(UsageError):
            wish_of(bad)


@pytest.mark.parametrize("cluster", ["/srv/c", "alpha:7100,beta:7100", "gfs://alpha:7100"])
@pytest.mark.parametrize("subtree", ["/", "/a/b"])
def test_a_source_names_cluster_and_subtree(cluster: str, subtree: str) -> None:
    assert mounts.parse_source(mounts.source_of(cluster, subtree)) == (cluster, subtree)
