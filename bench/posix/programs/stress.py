"""stress-ng's stressors of files, two of each at a time, each checking what it reads back."""

from __future__ import annotations

from bench.posix.program import Program

SECONDS = 2
STRESSORS = (
    "access", "aio", "aiol", "chattr", "chdir", "chmod", "chown", "copy-file", "dentry", "dir",
    "dirdeep", "dirmany", "dnotify", "dup", "fallocate", "fanotify", "fcntl", "fiemap",
    "file-ioctl", "filename", "flock", "fpunch", "fsize", "fstat", "getdent", "handle", "hdd",
    "inode-flags", "inotify", "io", "io-uring", "iomix", "lease", "link", "locka", "lockf",
    "lockofd", "mknod", "mmap", "msync", "open", "readahead", "rename", "revio", "seek",
    "sendfile", "symlink", "sync-file", "touch", "utime", "verity", "xattr",
)  # fmt: skip
OPTIONS = {
    "mmap": "--mmap-file --mmap-bytes 8m",
    "msync": "--msync-bytes 8m",
    "hdd": "--hdd-bytes 16m",
    "iomix": "--iomix-bytes 16m",
    "readahead": "--readahead-bytes 16m",
    "revio": "--revio-bytes 16m",
    "seek": "--seek-size 16m",
    "sync-file": "--sync-file-bytes 8m",
    "fallocate": "--fallocate-bytes 16m",
    "fiemap": "--fiemap-bytes 8m",
    "copy-file": "--copy-file-bytes 128m",
    "dirmany": "--dirmany-bytes 0",
    "sendfile": "--sendfile-size 1m",
    "aiol": "--aiol-requests 8",
}
LIMIT_S = 120.0
NOT_HERE = (3, 4)  # exit codes: no resources, not implemented on this system
NOT_SUPPORTED = r"[^]]*skipping stress.*"

PROGRAMS = tuple(
    Program(
        f"stress-{name}",
        "stress-ng",
        f"`stress-ng --{name} 2 {OPTIONS.get(name, '')}`".replace(" `", "`"),
        f'stress-ng --temp-path "$HERE" --verify --oomable --timeout {SECONDS} '
        f"--{name} 2 {OPTIONS.get(name, '')}",
        packages=("stress-ng",),
        limit_s=LIMIT_S,
        skipped_by=NOT_HERE,
        skipped_words=NOT_SUPPORTED,
    )
    for name in STRESSORS
)
