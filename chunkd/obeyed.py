"""What this server has heard from masters, durable: highest epoch, newest committed position.

They only rise, positions within an epoch. A promotion asks a majority of the servers for
them, so a master of a lower epoch is refused for ever, also after a restart. Two sectors
take turns, so that a power loss leaves the old or the new. Each data directory has the
file: one that fails takes nothing along that was promised.
"""

from __future__ import annotations

from collections.abc import Sequence

from chunkd.directory import DataDirectory
from chunkd.formats import OBEYED, SECTOR_BYTES, Obeyed, open_block, seal_block
from gfs.disk import File
from gfs.errors import Corrupt, StorageFailed


class ObeyedFile:
    """See the module's text. `save` may take long and belongs in one thread at a time."""

    def __init__(self, file: File, found: Obeyed, turn: int) -> None:
        self._file = file
        self._turn = turn
        self.saved = found

    @classmethod
    def open(cls, directory: DataDirectory) -> ObeyedFile:
        """Raises `NewerFormat`, `StorageFailed`."""
        path = directory.path / "obeyed"
        file = directory.disk.open(path, create=True)
        if file.size() < 2 * SECTOR_BYTES:
            file.zero(0, 2 * SECTOR_BYTES)
            file.fsync()
            directory.disk.sync_directory(directory.path)
        newest, turn = Obeyed(0, 0), 0
        for number in (0, 1):
            try:
                slot = open_block(
                    OBEYED, file.pread(SECTOR_BYTES, number * SECTOR_BYTES), Obeyed, path
                )
            except Corrupt:
                continue  # empty, or torn before it counted
            if _age(slot) >= _age(newest):
                newest, turn = slot, number
        return cls(file, newest, turn)

    def save(self, wanted: Obeyed) -> None:
        """Make it durable; what is older than what is saved changes nothing."""
        if wanted == self.saved or _age(wanted) < _age(self.saved):
            return
        turn = 1 - self._turn
        block = seal_block(OBEYED, wanted).ljust(SECTOR_BYTES, b"\0")
        self._file.pwrite(block, turn * SECTOR_BYTES)
        self._file.fdatasync()
        self._turn, self.saved = turn, wanted

    def close(self) -> None:
        self._file.close()


class ObeyedFiles:
    """One in each directory; the newest counts. `save` as `ObeyedFile`'s."""

    def __init__(self, files: dict[DataDirectory, ObeyedFile]) -> None:
        self._files = files

    @classmethod
    def open(cls, directories: Sequence[DataDirectory]) -> ObeyedFiles:
        """Raises `NewerFormat`; `StorageFailed` if no directory has it for us."""
        files: dict[DataDirectory, ObeyedFile] = {}
        failure: StorageFailed | None = None
        for directory in directories:
            try:
                files[directory] = ObeyedFile.open(directory)
            except StorageFailed as error:
                failure = error
        if failure is not None and not files:
            raise failure
        return cls(files)

    @property
    def saved(self) -> Obeyed:
        return max((file.saved for file in self._files.values()), key=_age)

    def save(self, wanted: Obeyed) -> None:
        """Raises `StorageFailed`: no directory took it. One that fails its probe tells."""
        failure = StorageFailed("no data directory works")
        done = False
        for directory, file in self._files.items():
            if directory.health.is_out:
                continue
            try:
                file.save(wanted)
                done = True
            except StorageFailed as error:
                failure = error
        if not done:
            raise failure

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def _age(slot: Obeyed) -> tuple[int, int, int]:
    return slot.epoch, slot.heard_epoch, slot.committed
