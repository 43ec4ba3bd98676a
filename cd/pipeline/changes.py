"""Which paths a commit changed: asked of the local repository, within bounds."""

from __future__ import annotations

from cd.pipeline.git import SHA, Git, GitFailed

#: Bytes of paths that are read; what changes more changes everything.
LARGEST_DIFF = 8 << 20


def changed(git: Git, before: str, sha: str) -> tuple[str, ...] | None:
    """Paths that differ between `sha` and its merge base with `before`; None when that can't be told.

    So it is when `before` is not here (a force push, a forge that was not asked for it), when the two share no
    history, and when more than LARGEST_DIFF bytes of paths differ.
    """
    if not SHA.fullmatch(before):
        return None
    try:
        base = git.run("merge-base", before, sha).strip()
    except GitFailed:
        return None
    running = git.start(["diff-tree", "-r", "-z", "--name-only", "--no-renames", base, sha])
    process = running.proc
    with process.stdout as stream, process.stderr:
        said: bytes = stream.read(LARGEST_DIFF + 1)
        if len(said) > LARGEST_DIFF:
            process.kill()
        if process.wait() != 0 or len(said) > LARGEST_DIFF:
            return None
    return tuple(name.decode(errors="surrogateescape") for name in said.split(b"\0") if name)
