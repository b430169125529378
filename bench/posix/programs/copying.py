"""Programs that copy trees, and must keep all of it: content, modes, owners, times, links."""

from __future__ import annotations

from bench.posix.program import Program

GROUP = "copying"
TREE = '"$PYTHON" -m bench.posix.drivers.trees make "$LOCAL/tree"\n'
SAME = '"$PYTHON" -m bench.posix.drivers.trees compare'


def _copy(name: str, says: str, script: str, *packages: str) -> Program:
    return Program(name, GROUP, says, TREE + script, packages, 120.0)


PROGRAMS = (
    _copy(
        "cp",
        "`cp -a` there, within and back: all the same",
        f"""
        cp -a "$LOCAL/tree" tree
        {SAME} "$LOCAL/tree" tree
        cp -a tree again
        {SAME} tree again
        cp -a again "$LOCAL/back"
        {SAME} "$LOCAL/tree" "$LOCAL/back"
        cp -a --reflink=auto --sparse=always tree sparse
        {SAME} tree sparse
        diff -r tree/plain "$LOCAL/tree/plain"
        """,
        "coreutils",
    ),
    _copy(
        "rsync",
        "`rsync -aHAX` twice: the second transfers nothing, also by checksum",
        f"""
        rsync -aHX "$LOCAL/tree/" tree
        {SAME} "$LOCAL/tree" tree
        for how in '' --checksum; do
            again=$(rsync -aHX $how --out-format='%i %n' "$LOCAL/tree/" tree)
            [ -z "$again" ] || {{ echo "transferred again: $again"; exit 1; }}
        done
        rsync -aHX --inplace --no-whole-file tree/ inplace
        {SAME} tree inplace
        echo more >> tree/plain/file1
        rsync -aHX --delete tree/ inplace
        {SAME} tree inplace
        """,
        "rsync",
    ),
    _copy(
        "tar",
        "tar out and back with xattrs and hard links, gzip and sparse",
        f"""
        tar -C "$LOCAL" --xattrs -cf tree.tar tree
        tar --xattrs -xpf tree.tar
        {SAME} "$LOCAL/tree" tree
        tar --xattrs -czSf sparse.tgz tree
        mkdir x
        tar -C x --xattrs -xpzf sparse.tgz
        {SAME} tree x/tree
        tar -df tree.tar
        tar -cf inc.tar -g snar tree/odd
        tar -cf inc2.tar -g snar tree/odd
        [ "$(tar tf inc2.tar | grep -v '/$' | wc -l)" = 0 ]
        """,
        "tar",
    ),
    _copy(
        "cpio",
        "find | cpio -o | cpio -i",
        """
        (cd "$LOCAL/tree" && find . -depth -type f -print0 | cpio -0 -o -H newc) > a.cpio
        mkdir tree
        (cd tree && cpio -idm --no-absolute-filenames) < a.cpio
        diff -r tree/plain "$LOCAL/tree/plain"
        """,
        "cpio",
    ),
    _copy(
        "zip",
        "zip, unzip -t, unzip, compare",
        """
        cp -r "$LOCAL/tree/plain" .
        zip -qr all.zip plain
        unzip -tq all.zip
        mkdir x
        unzip -q all.zip -d x
        diff -r plain x/plain
        echo more >> plain/file1
        zip -q all.zip plain/file1
        unzip -p all.zip plain/file1 |
            cmp - plain/file1
        """,
        "zip",
        "unzip",
    ),
    _copy(
        "dd",
        "dd: seek, conv=notrunc, oflag=direct,append, count_bytes",
        """
        dd if=/dev/urandom of="$LOCAL/a" bs=1M count=8 status=none
        dd if="$LOCAL/a" of=a bs=64k oflag=direct status=none
        cmp a "$LOCAL/a"
        for f in a "$LOCAL/a"; do
            dd if=/dev/zero of=$f bs=1000 seek=77 count=5 conv=notrunc status=none
            dd if="$ROOT/README.md" of=$f bs=4k conv=notrunc oflag=append status=none
            dd if=/dev/zero of=$f bs=1 count=0 seek=10M conv=notrunc status=none
        done
        cmp a "$LOCAL/a"
        split -b 1M -d a part
        cat part* | cmp - a
        dd if=a iflag=direct bs=4k status=none | cmp - a
        truncate -s 3M a
        truncate -s +1M a
        shred -n 1 -u a
        [ ! -e a ]
        """,
        "coreutils",
    ),
)
