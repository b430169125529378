"""The mount's caches never answer with what an invalidation or a mutation has overtaken."""

from __future__ import annotations

import random
import stat
from typing import Any

import pytest

from gfs.ids import ROOT_INO
from gfs.items import Inode
from gfs.messages import Entry, ListedName, NamePair
from mount.core.caching import ABSENT, UNKNOWN, Cache

D = 10  # a directory
F = 20  # a file


def image(size: int = 0, *, directory: bool = False) -> Inode:
    mode = stat.S_IFDIR | 0o755 if directory else stat.S_IFREG | 0o644
    return Inode(mode, 0, 0, 1, size, 0, 0, 0)


def entry(position: int, ino: int = F, size: int = 0, *, cacheable: bool = True) -> Entry:
    return Entry(position, ino, image(size), cacheable)


def looked_up(cache: Cache, name: bytes, found: Entry) -> bool:
    directory = cache.directory(D)
    named = cache.learn_name(directory, name, found.ino, found.position)
    cache.learn(found)
    return named


@pytest.fixture
def cache() -> Cache:
    return Cache()


def test_name_is_unknown_until_learned(cache: Cache) -> None:
    assert cache.lookup(D, b"f") == UNKNOWN
    assert looked_up(cache, b"f", entry(5))
    assert cache.lookup(D, b"f") == F
    assert cache.trusted(F)


def test_absent_name_is_remembered(cache: Cache) -> None:
    assert cache.learn_name(cache.directory(D), b"no", ABSENT, 5)
    assert cache.lookup(D, b"no") == ABSENT
    assert cache.lookup(D, b"other") == UNKNOWN


def test_directory_made_here_needs_no_question(cache: Cache) -> None:
    cache.made_directory(D, 7)
    assert cache.lookup(D, b"anything") == ABSENT
    assert cache.is_complete(D)


def test_directory_made_here_but_changed_by_others_since_is_not_complete(cache: Cache) -> None:
    cache.invalidate(8, [NamePair(D, b"theirs")], [])
    cache.made_directory(D, 7)
    assert cache.lookup(D, b"theirs") == UNKNOWN


def test_late_reply_about_a_name_is_not_kept(cache: Cache) -> None:
    directory = cache.directory(D)  # taken before the question is sent
    cache.invalidate(6, [NamePair(D, b"f")], [])
    assert not cache.learn_name(directory, b"f", F, 5)
    assert cache.lookup(D, b"f") == UNKNOWN
    assert cache.learn_name(directory, b"f", F, 6)


def test_what_is_outdated_is_asked_again_and_late_replies_are_not_kept(cache: Cache) -> None:
    cache.made_directory(D, 5)
    looked_up(cache, b"f", entry(5))
    cache.pin(F)
    directory = cache.directory(D)
    cache.outdate(9)
    assert cache.knows_directory(D)
    assert not cache.is_complete(D)
    assert cache.lookup(D, b"f") == UNKNOWN
    assert cache.attributes(F) is None
    assert not cache.learn_name(directory, b"f", F, 8)
    cache.learn(entry(8))
    assert cache.attributes(F) is None
    assert not cache.learn_name(cache.directory(77), b"new", F, 8)  # not known before either
    assert cache.learn_name(directory, b"f", F, 9)
    cache.learn(entry(9))
    assert cache.attributes(F) is not None


def test_late_reply_about_attributes_is_used_but_not_trusted(cache: Cache) -> None:
    looked_up(cache, b"f", entry(5, size=1))
    cache.invalidate(9, [], [F])
    assert cache.attributes(F) is None
    shown = cache.learn(entry(8, size=2))
    assert shown is not None
    assert shown.size == 2
    assert not cache.trusted(F)
    cache.learn(entry(9, size=3))
    assert cache.trusted(F)


def test_invalidation_of_an_inode_not_known_yet_is_remembered(cache: Cache) -> None:
    directory = cache.directory(D)
    cache.invalidate(9, [], [F])
    assert cache.learn_name(directory, b"f", F, 8)
    cache.learn(entry(8))
    assert not cache.trusted(F)


def test_older_image_does_not_replace_a_newer_one(cache: Cache) -> None:
    looked_up(cache, b"f", entry(9, size=9))
    shown = cache.learn(entry(5, size=5))
    assert shown is not None
    assert shown.size == 9


def test_own_image_survives_an_earlier_invalidation(cache: Cache) -> None:
    looked_up(cache, b"f", entry(9, size=9))
    cache.invalidate(8, [], [F])
    assert cache.trusted(F)


def test_invalidated_name_of_a_complete_directory_is_unknown_not_absent(cache: Cache) -> None:
    cache.made_directory(D, 1)
    cache.named(D, b"mine", F, 2)
    cache.invalidate(3, [NamePair(D, b"mine"), NamePair(D, b"new")], [])
    assert cache.lookup(D, b"mine") == UNKNOWN
    assert cache.lookup(D, b"new") == UNKNOWN
    assert cache.lookup(D, b"else") == ABSENT
    assert not cache.is_complete(D)


def test_own_name_overtaken_by_a_foreign_change_is_in_doubt(cache: Cache) -> None:
    cache.made_directory(D, 1)
    cache.invalidate(5, [NamePair(D, b"theirs")], [])
    assert not cache.named(D, b"mine", F, 4)
    assert cache.lookup(D, b"mine") == UNKNOWN


def test_listing_makes_a_directory_complete_and_drops_what_is_gone(cache: Cache) -> None:
    looked_up(cache, b"gone", entry(3, ino=30))
    directory = cache.directory(D)
    cache.learn_listed(directory, [ListedName(b"f", F, stat.S_IFREG, image())], 5)
    cache.learn_whole(directory, {b"f": F}, 5)
    assert cache.names(D) == [(b"f", F)]
    assert cache.lookup(D, b"gone") == ABSENT
    assert not cache.trusted(30)


def test_name_made_in_a_directory_without_interest_is_not_kept(cache: Cache) -> None:
    assert not cache.named(D, b"mine", F, 2)
    assert cache.directories() == []


def test_listing_that_a_mutation_overtook_does_not_make_it_complete(cache: Cache) -> None:
    directory = cache.directory(D)
    cache.named(D, b"mine", F, 6)
    cache.learn_whole(directory, {}, 5)
    assert cache.lookup(D, b"mine") == F
    assert cache.lookup(D, b"other") == UNKNOWN


def test_inode_without_a_name_here_is_never_trusted(cache: Cache) -> None:
    cache.pin(F)
    cache.learn(entry(5))
    assert cache.attributes(F) is not None
    assert not cache.trusted(F)
    cache.unpin(F)
    assert cache.attributes(F) is None


def test_uncacheable_image_is_known_but_not_trusted(cache: Cache) -> None:
    looked_up(cache, b"f", entry(5, cacheable=False))
    assert cache.attributes(F) is not None
    assert not cache.trusted(F)


def test_last_of_two_links_ends_trust(cache: Cache) -> None:
    looked_up(cache, b"a", entry(5))
    looked_up(cache, b"b", entry(5))
    cache.named(D, b"a", ABSENT, 6)
    assert cache.trusted(F)
    cache.named(D, b"b", ABSENT, 7)
    assert not cache.trusted(F)


def test_root_is_trusted_only_with_interest_in_it(cache: Cache) -> None:
    cache.learn(entry(5, ino=ROOT_INO))
    assert not cache.trusted(ROOT_INO)
    cache.directory(ROOT_INO)
    assert not cache.trusted(ROOT_INO)  # what was learned before may have changed untold
    cache.learn(entry(6, ino=ROOT_INO))
    assert cache.trusted(ROOT_INO)


def test_names_are_bounded_and_least_recently_used_go_first() -> None:
    cache = Cache(names_max=10, directories_max=100)
    for number in range(5):
        directory = cache.directory(100 + number)
        for name in range(4):
            cache.learn_name(directory, b"%d" % name, 1000 + number * 10 + name, 1)
    cache.lookup(100, b"0")
    assert cache.shed(now=0, lease_until=20) == []
    assert cache.lookup(100, b"0") == 1000
    assert cache.lookup(101, b"0") == UNKNOWN


def test_names_that_come_and_go_in_a_directory_known_whole_take_no_room() -> None:
    cache = Cache(names_max=10)
    cache.made_directory(2, 1)
    for number in range(100):
        assert cache.named(2, b"%d" % number, 100 + number, 2 + number)
        assert cache.named(2, b"%d" % number, ABSENT, 2 + number)
        assert cache.learn_name(cache.directory(2), b"never", ABSENT, 2 + number)
    assert cache.shed(now=0.0, lease_until=1.0) == []
    assert cache.is_complete(2)
    assert cache.lookup(2, b"7") == cache.lookup(2, b"never") == ABSENT
    assert cache.names(2) == []


def test_interest_is_given_up_only_when_the_kernel_has_stopped_trusting() -> None:
    cache = Cache(names_max=100, directories_max=1)
    first = cache.directory(D)
    cache.learn_name(first, b"f", F, 1)
    cache.directory(D + 1)
    assert cache.shed(now=0, lease_until=20) == []
    assert cache.shed(now=19, lease_until=30) == []
    assert cache.shed(now=20, lease_until=30) == [D]
    assert not cache.learn_name(first, b"f", F, 9)  # a reply that was on its way
    assert cache.lookup(D, b"f") == UNKNOWN


def test_interest_in_a_removed_directory_is_given_up(cache: Cache) -> None:
    cache.made_directory(D, 1)
    cache.named(D, b"f", F, 2)
    cache.removed_directory(D, lease_until=20)
    cache.removed_directory(D + 1, lease_until=20)  # never heard of
    assert cache.shed(now=19, lease_until=39) == []  # the kernel may trust what was below
    assert cache.shed(now=20, lease_until=40) == [D]
    assert cache.shed(now=20, lease_until=40) == []
    assert cache.lookup(D, b"f") == UNKNOWN
    assert not cache.trusted(F)


def test_interest_in_a_directory_removed_under_an_old_name_stays(cache: Cache) -> None:
    cache.made_directory(D, 1)
    cache.removed_directory(D, lease_until=20)  # it was another one of this name
    again = cache.directory(D)
    assert cache.shed(now=30, lease_until=40) == []
    assert cache.learn_name(again, b"f", F, 2)


def test_name_that_an_own_mutation_leaves_in_doubt_is_asked_for(cache: Cache) -> None:
    cache.made_directory(D, 1)
    cache.named(D, b"f", F, 2)
    assert not cache.named(D, b"f", UNKNOWN, 3)
    assert cache.lookup(D, b"f") == UNKNOWN
    assert not cache.learn_name(cache.directory(D), b"f", F, 2)
    assert not cache.is_complete(D)


def test_cleared_cache_keeps_nothing_but_pins(cache: Cache) -> None:
    directory = cache.directory(D)
    looked_up(cache, b"f", entry(5))
    cache.pin(F)
    cache.clear()
    assert cache.directories() == []
    assert cache.attributes(F) is None
    assert not cache.learn_name(directory, b"f", F, 99)
    cache.unpin(F)


@pytest.mark.parametrize("seed", range(200))
def test_at_rest_no_cached_name_differs_from_the_truth(seed: int) -> None:
    """Goal: whatever the order of arrival, once all has arrived nothing cached is wrong.

    Method: one directory at a made-up master; foreign and own changes, lookups and whole
    listings, each answer as of its position, delivered in random order.
    """
    rng = random.Random(seed)
    cache, truth, position = Cache(), dict[bytes, int](), 1
    cache.made_directory(D, position)
    on_the_way: list[Any] = []
    names = [b"a", b"b", b"c"]
    for _ in range(60):
        name, kind = rng.choice(names), rng.randrange(5)
        if kind < 2:
            position += 1
            truth[name] = rng.choice([ABSENT, F, F + 1])
            on_the_way.append((kind, name, truth[name], position))
        elif kind == 2:
            found = truth.get(name, ABSENT)
            on_the_way.append((cache.directory(D), name, found, position))
        elif kind == 3:
            listed = {name: ino for name, ino in truth.items() if ino}
            on_the_way.append((cache.directory(D), None, listed, position))
        while on_the_way and rng.random() < 0.4:
            deliver(cache, on_the_way.pop(rng.randrange(len(on_the_way))))
    rng.shuffle(on_the_way)
    for message in on_the_way:
        deliver(cache, message)
    for name in names:
        assert cache.lookup(D, name) in (UNKNOWN, truth.get(name, ABSENT))


def deliver(cache: Cache, message: Any) -> None:
    kind, name, found, position = message
    if kind == 0:
        cache.invalidate(position, [NamePair(D, name)], [])
    elif kind == 1:
        cache.named(D, name, found, position)
    elif name is None:
        cache.learn_whole(kind, found, position)
    else:
        cache.learn_name(kind, name, found, position)


def test_what_is_in_doubt_is_kept_by_nobody_until_it_is_settled(cache: Cache) -> None:
    cache.made_directory(D, 1)
    cache.named(D, b"f", F, 2)
    names = [NamePair(D, b"f"), NamePair(D, b"g")]
    cache.doubt(names, [F])
    cache.doubt(names[:1], [])
    assert cache.lookup(D, b"f") == cache.lookup(D, b"g") == UNKNOWN
    assert not cache.learn_name(cache.directory(D), b"f", F, 3)
    assert not cache.named(D, b"f", F, 4)
    cache.learn(entry(5))
    assert cache.attributes(F) is None
    cache.settle(names, [F])
    assert not cache.learn_name(cache.directory(D), b"f", F, 6)
    cache.settle(names[:1], [])
    assert cache.learn_name(cache.directory(D), b"f", F, 7)
    cache.learn(entry(8))
    assert cache.attributes(F) is not None


def test_listing_does_not_call_absent_what_is_in_doubt(cache: Cache) -> None:
    directory = cache.directory(D)
    cache.doubt([NamePair(D, b"g")], [])
    cache.learn_whole(directory, {b"f": F}, 1)
    assert cache.lookup(D, b"g") == UNKNOWN
    assert not cache.is_complete(D)
