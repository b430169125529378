"""fio with verification, and fsx: writes at random, read back and compared."""

from __future__ import annotations

from bench.posix.program import Program

GROUP = "fio, fsx"
COMMON = "--directory=$HERE --size=24m --bs=4k --verify=crc32c --verify_fatal=1 --minimal"
LIMIT_S = 180.0


def _fio(name: str, says: str, words: str) -> Program:
    script = f"fio --name={name} {COMMON} {words} > out || {{ cat out; exit 1; }}"
    return Program(f"fio-{name}", GROUP, says, script, ("fio",), LIMIT_S)


PROGRAMS = (
    _fio("randwrite", "4 KiB at random by pwrite", "--rw=randwrite --ioengine=psync"),
    _fio(
        "randrw",
        "4 KiB read and written at random",
        "--rw=randrw --ioengine=psync --bsrange=512-64k --bs_unaligned=1",
    ),
    _fio("mmap", "through a shared mapping", "--rw=randwrite --ioengine=mmap --size=8m"),
    _fio(
        "libaio",
        "O_DIRECT, 16 in flight",
        "--rw=randwrite --ioengine=libaio --iodepth=16 --direct=1",
    ),
    _fio("io_uring", "io_uring, 16 in flight", "--rw=randrw --ioengine=io_uring --iodepth=16"),
    _fio("fsync", "fsync after every eighth", "--rw=randwrite --ioengine=sync --fsync=8 --size=4m"),
    _fio("osync", "O_SYNC", "--rw=randwrite --ioengine=sync --sync=1 --size=2m"),
    _fio(
        "jobs",
        "four processes, a file each",
        "--rw=randrw --ioengine=psync --numjobs=4 --size=8m",
    ),
    _fio(
        "sequential",
        "1 MiB in order, verified afterwards",
        "--rw=write --ioengine=psync --bs=1m --size=128m",
    ),
    Program(
        "random-steps",
        GROUP,
        "1,000 random steps on one file after fsx: write, append, truncate, map, copy, reopen",
        """
        for seed in 1 2; do
            "$PYTHON" -m bench.posix.drivers.exerciser "$HERE/file" "$THERE/file" 500 $seed
        done
        """,
        limit_s=LIMIT_S,
    ),
    Program(
        "fsx",
        GROUP,
        "`fsx`: 5,000 operations on one file, mappings included",
        """
        command -v fsx || { echo 'fsx is in no Debian package; make model stands for it'; exit 77; }
        fsx -N 5000 -S 7 "$HERE/file"
        """,
        limit_s=LIMIT_S,
        skipped_by=(77,),
    ),
)
