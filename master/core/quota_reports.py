"""Quotas as people and mounts ask for them: what is used, what is left, how much fits."""

from __future__ import annotations

from msgspec.structs import replace

from gfs.errors import GfsError
from gfs.items import INODES, QUOTAS, Inode, Quota
from gfs.messages import FilesystemStat, GetQuota, ListQuotas, Quotas, QuotaUse
from master.core.decision import Policy
from master.core.permissions import require_root
from master.core.queries import Queries
from master.core.quotas import NO_LIMIT, limits_now, room_in
from master.core.realms import Realms, home
from master.core.tables import ReadTables

PAGE_MAX = 1000
NS = 1_000_000_000


class QuotaReports:
    """Reads what is committed, so it never uses what `realms` remembers of newer tables."""

    def __init__(
        self, tables: ReadTables, realms: Realms, queries: Queries, policy: Policy
    ) -> None:
        self._tables = tables
        self._realms = realms
        self._queries = queries
        self._grace_ns = policy.quota_grace_ns

    def room(self, tables: ReadTables, ino: int, now_ns: int) -> int:
        """Bytes that may be added to a file; `NO_LIMIT`."""
        inode: Inode | None = tables.get(INODES, (ino,)) if self._realms else None
        if inode is None:
            return NO_LIMIT
        chain = self._realms.fresh().of_inode(tables, ino, inode)
        return room_in(tables, chain, now_ns, self._grace_ns)[0]

    def limited(self, found: FilesystemStat, ino: int, now_ns: int) -> FilesystemStat:
        """Space of the filesystem as it is at or below an inode, see `FilesystemStat`."""
        chain = self._governing(ino)
        bytes_left, files_left = room_in(self._tables, chain, now_ns, self._grace_ns)
        quotas = [quota for ino in chain if (quota := self._tables.get(QUOTAS, (ino,)))]
        limits = [(limits_now(quota, now_ns, self._grace_ns), quota) for quota in quotas]
        if bytes_left != NO_LIMIT:
            in_force = [(most, quota.bytes) for (most, _), quota in limits if most != NO_LIMIT]
            total = min(found.total_bytes, *(most for most, _ in in_force))
            free, used = min(found.free_bytes, bytes_left), in_force[0][1]
            found = replace(found, total_bytes=total, free_bytes=free, used_bytes=used)
        if files_left != NO_LIMIT:
            used = next(quota.files for (_, most), quota in limits if most != NO_LIMIT)
            found = replace(found, files=used, files_free=files_left)
        return found

    def above(self, ask: GetQuota, now_ns: int) -> Quotas:
        """Raises StaleInode."""
        found = [self._use(ino, now_ns) for ino in self._governing(ask.ino)]
        return Quotas([use for use in found if use is not None])

    def _governing(self, ino: int) -> tuple[int, ...]:
        """Quotas that count what lies in a directory, or a file; raises StaleInode."""
        inode = self._queries.inode(ino)
        directory = ino if inode.is_directory else home(self._tables, ino, inode)
        return self._realms.fresh().chain(self._tables, directory)

    def listed(self, ask: ListQuotas, now_ns: int) -> Quotas:
        """Raises NotPermitted."""
        require_root(ask.actor, "lists quotas")
        limit = min(max(ask.limit, 1), PAGE_MAX)
        page = self._tables.scan(QUOTAS, after=(ask.after,) if ask.after else None, limit=limit)
        found = [self._use(int(key[0]), now_ns) for key, _ in page]
        return Quotas([use for use in found if use is not None], len(page) == limit)

    def exceeded(self, now_ns: int) -> list[QuotaUse]:
        """Those of which a limit is reached or a soft one exceeded; looks at all of them."""
        found = []
        for ino in self._realms.all():
            quota: Quota | None = self._tables.get(QUOTAS, (ino,))
            if quota is not None and _is_exceeded(quota):
                use = self._use(ino, now_ns)
                found += [use] if use is not None else []
        return found

    def _use(self, ino: int, now_ns: int) -> QuotaUse | None:
        quota: Quota | None = self._tables.get(QUOTAS, (ino,))
        if quota is None:
            return None
        try:
            path = self._queries.path(ino)
        except GfsError:
            path = b""
        return QuotaUse(
            ino,
            path,
            quota.bytes_max,
            quota.bytes_soft,
            quota.files_max,
            quota.files_soft,
            quota.bytes,
            quota.files,
            self._grace_s(quota.bytes_over_ns, now_ns),
            self._grace_s(quota.files_over_ns, now_ns),
            quota.is_counting,
        )

    def _grace_s(self, over_ns: int, now_ns: int) -> float:
        return max(0, over_ns + self._grace_ns - now_ns) / NS if over_ns else -1.0


def _is_exceeded(quota: Quota) -> bool:
    full = (quota.bytes_max and quota.bytes >= quota.bytes_max) or (
        quota.files_max and quota.files >= quota.files_max
    )
    return bool(full or quota.bytes_over_ns or quota.files_over_ns)
