"""Users and groups of a restricted session: what it says, what that means here, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce

from gfs.errors import InvalidArgument, UsageError
from gfs.identities import ID_MAX, NOBODY, IdMap
from gfs.messages import Access, Actor

ROOT_UID = ROOT_GID = 0
ROOT, ALL = "root", "all"  # whom `Access.squash` names


class Identities:
    """The numbers of one `Access`. Raises UsageError: they are none."""

    def __init__(self, access: Access) -> None:
        if not (0 <= access.anon_uid <= ID_MAX and 0 <= access.anon_gid <= ID_MAX):
            raise UsageError(f"{access.anon_uid}:{access.anon_gid} is no user and group")
        self._access = access
        self.users = IdMap(access.map_uid)
        self.groups = IdMap(access.map_gid)

    def actor(self, said: Actor) -> Actor:
        """Whom the master takes the caller for. Groups that nobody has asked for stay unsaid."""
        access = self._access
        if access.squash == ALL:
            return Actor(access.anon_uid, access.anon_gid, said.pid, ())
        uid, gid = self.users.stored(said.uid), self.groups.stored(said.gid)
        squash = access.squash == ROOT
        if uid is None or (squash and uid == ROOT_UID):
            uid = access.anon_uid
        if gid is None or (squash and gid == ROOT_GID):
            gid = access.anon_gid
        groups = said.groups
        if groups is not None:
            found = (self.groups.stored(group) for group in groups)
            groups = tuple(
                one for one in found if one is not None and not (squash and one == ROOT_GID)
            )
        return Actor(uid, gid, said.pid, groups)


class Layers:
    """What the client wishes and, around it, what it is granted."""

    def __init__(self, layers: Iterable[Access]) -> None:
        self._inner_first = [Identities(access) for access in reversed(tuple(layers))]
        self.renumbers = any(one.users or one.groups for one in self._inner_first)

    def actor(self, said: Actor) -> Actor:
        """Whom the master takes the caller for."""
        return reduce(lambda actor, one: one.actor(actor), self._inner_first, said)

    def owner(self, uid: int | None, gid: int | None) -> tuple[int | None, int | None]:
        """What chown is to store for what the client says; None = leave.

        Raises:
          InvalidArgument: the number belongs to another here.
        """
        for one in self._inner_first:
            uid, gid = _image(one.users.stored, uid), _image(one.groups.stored, gid)
        return uid, gid

    def shown(self, uid: int, gid: int) -> tuple[int, int]:
        """The client's numbers of an owner."""
        for one in reversed(self._inner_first):
            user, group = one.users.shown(uid), one.groups.shown(gid)
            uid = NOBODY if user is None else user
            gid = NOBODY if group is None else group
        return uid, gid

    def seen(self, uid: int, gid: int) -> tuple[int, int]:
        """As which owner of files somebody sees himself, in the client's numbers."""
        actor = self.actor(Actor(uid, gid, groups=()))
        return self.shown(actor.uid, actor.gid)


def _image(stored: Callable[[int], int | None], number: int | None) -> int | None:
    if number is None:
        return None
    image = stored(number)
    if image is None:
        raise InvalidArgument(f"the map of this session has no number for {number}")
    return image
