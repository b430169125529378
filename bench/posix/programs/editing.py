"""Programs that change files in their own ways: editors, logrotate, sort, find, locks."""

from __future__ import annotations

from bench.posix.program import Program

GROUP = "editing"


def _edit(name: str, says: str, script: str, *packages: str) -> Program:
    return Program(name, GROUP, says, script, packages, 180.0)


PROGRAMS = (
    _edit(
        "vim",
        "vim saves in place and by renaming, with backup, swap and undo files",
        """
        for copy in yes no auto; do
            seq 1000 > f
            chmod 640 f
            ln f link
            setfattr -n user.keep -v 1 f
            vim -es -u NONE -i NONE -c "set backup backupcopy=$copy undofile undodir=." \\
                -c '%s/^5/five/' -c 'wq' f < /dev/null
            [ "$(grep -c five f)" = 111 ]
            [ "$(stat -c %a f)" = 640 ]
            cmp f~ <(seq 1000)
            [ ! -e .f.swp ]
            rm -f f f~ link
        done
        """,
        "vim",
    ),
    _edit(
        "vim-recover",
        "vim killed by kill -9 leaves a swap file, from which it recovers",
        """
        seq 100 > f
        vim -es -u NONE -i NONE -c 'set updatecount=1' -c 'normal ggcwchanged' -c 'preserve' \\
            -c 'sleep 60' f < /dev/null & editor=$!
        until_so grep -qsa changed .f.swp
        kill -9 $editor; wait $editor || true
        vim -es -u NONE -i NONE -r f -c 'w! recovered' -c 'q!' < /dev/null
        head -1 recovered | grep -q changed
        """,
        "vim",
    ),
    _edit(
        "sed",
        "sed -i, perl -i, ed: written beside and renamed over, or in place",
        """
        seq 1000 > f
        chmod 604 f
        ln f other
        sed -i 's/^9/nine/' f
        grep -c nine f
        [ "$(stat -c %a f)" = 604 ]
        [ "$(stat -c %h f)" = 1 ]
        cmp other <(seq 1000)
        perl -pi.bak -e 's/^8/eight/' f
        grep -q nine f.bak
        [ "$(grep -c eight f)" = 111 ]
        printf '1,10d\\nw\\nq\\n' | ed -s f
        [ "$(wc -l < f)" = 990 ]
        sort -o f f
        sort -c f
        """,
        "sed",
        "perl",
        "ed",
    ),
    _edit(
        "logrotate",
        "logrotate twenty times beneath one who opens anew: no line lost or doubled",
        """
        printf '%s {\\n size 1\\n rotate 30\\n create\\n}\\n' "$HERE/log" > "$LOCAL/conf"
        chmod 755 .
        chmod 644 "$LOCAL/conf"
        touch log
        (for i in $(seq 2000); do echo "line $i of the log" >> log; done) & writer=$!
        for i in $(seq 20); do logrotate -f -s "$LOCAL/state" "$LOCAL/conf"; sleep 0.1; done
        wait $writer
        cat log log.* | sort -k2n | cmp - <(seq -f 'line %.0f of the log' 2000)
        """,
        "logrotate",
    ),
    _edit(
        "copytruncate",
        "logrotate with copytruncate: what the writer goes on with is whole and in order",
        """
        printf '%s {\\n size 1\\n rotate 30\\n copytruncate\\n nocompress\\n}\\n' "$HERE/log" \\
            > "$LOCAL/conf"
        chmod 755 .
        chmod 644 "$LOCAL/conf"
        touch log
        (for i in $(seq 3000); do echo "line $i of the log"; sleep 0.001; done >> log) & writer=$!
        for i in $(seq 10); do sleep 0.2; logrotate -f -s "$LOCAL/state" "$LOCAL/conf"; done
        wait $writer
        ls -v -r log.* > "$LOCAL/names"
        cat $(cat "$LOCAL/names") log > "$LOCAL/all"
        not grep -vx 'line [0-9]* of the log' "$LOCAL/all"
        cut -d' ' -f2 "$LOCAL/all" | sort -nc
        [ "$(tail -1 "$LOCAL/all")" = 'line 3000 of the log' ]
        [ "$(ls log.* | wc -l)" -ge 5 ]
        """,
        "logrotate",
    ),
    _edit(
        "sort",
        "sort -S 1M: temporary files on the target",
        """
        seq 300000 | shuf --random-source=<(yes) -o shuffled
        sort -n -S 1M -T "$TMPDIR" --parallel=2 shuffled > sorted
        cmp sorted <(seq 300000)
        [ -z "$(ls -A "$TMPDIR")" ]
        """,
        "coreutils",
    ),
    _edit(
        "find",
        "find: -newer, -links, -perm, -delete; rm -r of 3,000 names",
        """
        mkdir -p d/{1..30}; touch d/{1..30}/{1..100}
        touch -d '2001-02-03 04:05:06.123456789' d/1/1
        touch -d yesterday mark
        [ "$(find d -type f -newer mark | wc -l)" = 2999 ]
        ln d/2/2 d/2/hard
        [ "$(find d -links 2 -type f | wc -l)" = 2 ]
        chmod 600 d/3/*
        [ "$(find d -perm 600 -type f | wc -l)" = 100 ]
        [ "$(find d -mindepth 1 -maxdepth 1 -type d -links 2 | wc -l)" = 30 ]
        find d -name '*0' -type f -delete
        [ "$(find d -type f | wc -l)" = 2701 ]
        find d -depth -type d -empty -delete; rm -r d
        [ ! -e d ]
        """,
        "findutils",
    ),
    _edit(
        "flock",
        "flock(1): two shells count to 200 without losing one; -n is refused",
        """
        echo 0 > count; touch lock
        add() { seq 100 | xargs -I N flock lock sh -c 'echo $(($(cat count) + 1)) > count'; }
        add & add & wait
        [ "$(cat count)" = 200 ]
        flock lock sleep 2 & sleep 0.5
        not flock -n lock true
        not flock -s -n lock true
        flock -w 10 lock true
        flock -s lock sleep 1 & sleep 0.3; flock -s -n lock true; wait
        """,
        "util-linux",
    ),
    _edit(
        "inotify",
        "inotifywait sees what programs of the same mount do",
        """
        mkdir d
        inotifywait -m -r --format '%e %f' d > "$LOCAL/events" 2> "$LOCAL/said" & watcher=$!
        until_so grep -qs established "$LOCAL/said"
        echo 1 > d/a
        echo 2 >> d/a
        mv d/a d/b
        chmod 600 d/b
        ln d/b d/c
        rm d/b d/c
        mkdir d/e
        rmdir d/e
        until_so grep -q 'DELETE,ISDIR e' "$LOCAL/events"
        kill $watcher
        for event in 'CREATE a' 'MODIFY a' 'CLOSE_WRITE,CLOSE a' 'MOVED_FROM a' 'MOVED_TO b' \\
            'ATTRIB b' 'CREATE c' 'DELETE b' 'DELETE c' 'CREATE,ISDIR e' 'DELETE,ISDIR e'; do
            grep -qx "$event" "$LOCAL/events" || { echo "not seen: $event"; exit 1; }
        done
        """,
        "inotify-tools",
    ),
    _edit(
        "tail",
        "tail -f on the other mount follows each line, and a rotation with -F",
        """
        echo 0 > f; echo first > g
        tail -n +1 -f "$THERE/f" > "$LOCAL/seen" & one=$!
        tail -n +1 -F "$THERE/g" > "$LOCAL/seen-g" 2> /dev/null & two=$!
        for i in $(seq 1 20); do echo $i >> f; sleep 0.1; done
        mv g g.1; echo second > g
        until_so cmp "$LOCAL/seen" f
        until_so grep -q second "$LOCAL/seen-g"
        kill $one $two
        cmp "$LOCAL/seen" f
        cmp "$LOCAL/seen-g" <(printf 'first\\nsecond\\n')
        """,
        "coreutils",
    ),
    _edit(
        "less",
        "less +F on the other mount shows what is appended here",
        """
        seq 5 > f
        (sleep 20) | TERM=xterm script -qec "less +F '$THERE/f'" /dev/null > "$LOCAL/seen" 2>&1 &
        sleep 2; echo appended-here >> f
        until_so grep -q appended-here "$LOCAL/seen"
        """,
        "less",
        "bsdutils",
    ),
)
