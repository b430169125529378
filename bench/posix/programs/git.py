"""git on repositories that live on the target."""

from __future__ import annotations

from bench.posix.program import Program

GROUP = "git"
CLONE = """
if [ -d "$ROOT/.git" ]; then
    git clone -q --no-local "$ROOT" work
else
    git init -q work
    cp -r "$ROOT"/[a-z]* work/
    git -C work add -A
    git -C work commit -qm 1
fi
cd work
"""


def _git(name: str, says: str, script: str, limit_s: float = 120.0) -> Program:
    return Program(f"git-{name}", GROUP, says, CLONE + script, ("git",), limit_s)


PROGRAMS = (
    _git(
        "commit",
        "clone of this checkout, thirty commits, merge, rebase, fsck",
        """
        for i in $(seq 30); do echo $i >> README.md; echo $i > new$i; git add -A
            git commit -qm $i; done
        git checkout -qb side HEAD~10
        echo side > side
        git add side
        git commit -qm side
        git checkout -q -
        git merge -q -m merge side
        git rebase -q HEAD~5
        git stash list
        [ -z "$(git status --porcelain)" ]
        git fsck --full --strict --no-dangling
        """,
    ),
    _git(
        "gc",
        "repack, gc, prune; then everything is there",
        """
        for i in $(seq 10); do echo $i > new$i; git add -A; git commit -qm $i; done
        before=$(git rev-list --objects --all | sort | sha256sum)
        git repack -q -a -d -f
        git gc -q --prune=now
        git prune
        after=$(git rev-list --objects --all | sort | sha256sum)
        [ "$before" = "$after" ]
        git fsck --full
        """,
    ),
    _git(
        "worktree",
        "three worktrees, commits in each",
        """
        for i in 1 2 3; do git worktree add -q ../tree$i -b branch$i; done
        for i in 1 2 3; do (cd ../tree$i; echo $i > f; git add f; git commit -qm $i); done
        git worktree remove ../tree2
        git worktree list
        [ "$(git log --all --oneline -- f | wc -l)" = 3 ]
        git fsck
        """,
    ),
    _git(
        "status",
        "status by the index alone: nothing is read again",
        """
        sleep 1.1; touch_after=$(mktemp); git status --porcelain
        GIT_TRACE2_PERF="$LOCAL/trace" git status --porcelain
        git update-index -q --really-refresh
        for i in 1 2 3; do [ -z "$(git status --porcelain)" ]; done
        git -c core.untrackedCache=true status --porcelain
        git update-index --test-untracked-cache
        """,
    ),
)
