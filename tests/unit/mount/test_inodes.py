"""References of the kernel, handles, and when its pages may be kept."""

from __future__ import annotations

from mount.core.inodes import Handles, Inodes

F = 20


def test_inode_is_known_until_every_lookup_is_given_back() -> None:
    inodes = Inodes()
    inodes.looked_up(F)
    inodes.looked_up(F)
    inodes.forget(F, 1)
    assert inodes.is_known(F)
    inodes.forget(F, 1)
    assert not inodes.is_known(F)


def test_forgetting_the_unknown_is_harmless() -> None:
    Inodes().forget(F, 3)


def test_open_inode_outlives_its_lookups() -> None:
    inodes = Inodes()
    inodes.looked_up(F)
    inodes.opened(F)
    inodes.forget(F, 1)
    assert inodes.is_open(F)
    assert not inodes.released(F)
    assert not inodes.is_known(F)


def test_last_handle_of_an_unlinked_inode_is_reported() -> None:
    inodes = Inodes()
    inodes.opened(F)
    inodes.opened(F)
    assert not inodes.unlinked(F)
    assert not inodes.released(F)
    assert inodes.released(F)


def test_unlinked_inode_that_nobody_holds_is_free_at_once() -> None:
    inodes = Inodes()
    inodes.looked_up(F)
    assert inodes.unlinked(F)
    assert inodes.unlinked(F + 1)


def test_new_link_takes_unlinked_back() -> None:
    inodes = Inodes()
    inodes.opened(F)
    inodes.unlinked(F)
    inodes.linked(F)
    assert not inodes.released(F)


def test_pages_are_kept_only_at_the_same_data_version() -> None:
    inodes = Inodes()
    inodes.looked_up(F)
    assert not inodes.may_keep_pages(F, 3)
    assert inodes.may_keep_pages(F, 3)
    assert not inodes.may_keep_pages(F, 4)
    inodes.content_changed(F)
    assert not inodes.may_keep_pages(F, 4)


def test_pages_of_a_forgotten_inode_are_not_kept() -> None:
    inodes = Inodes()
    inodes.looked_up(F)
    inodes.may_keep_pages(F, 3)
    inodes.forget(F, 1)
    assert not inodes.may_keep_pages(F, 3)


def test_handle_number_is_never_used_again() -> None:
    handles: Handles[str] = Handles()
    first = handles.add("a")
    assert handles.pop(first) == "a"
    assert handles.pop(first) is None
    assert handles.add("b") != first
    assert list(handles) == ["b"]
