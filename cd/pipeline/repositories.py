"""Where commits come from: repositories that Towpath hosts, and mirrors of those that live elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cd.errors import NotFound, ServiceError, UserError
from cd.pipeline import hosted, worktrees
from cd.pipeline.checkout import Checkout, opened
from cd.pipeline.git import Git, GitFailed, check_ref, check_sha, check_url, locate, redact
from cd.pipeline.hosted import Spooled
from cd.pipeline.records import Project


class Repositories:
    """All repositories of an installation, below its home folder. Safe to use from many processes at once.

    `hooks_url` is where webhooks go: the hook of a hosted repository posts to `<hooks_url>/<project>`.
    """

    def __init__(
        self, home: Path, *, internal_hosts: Collection[str] = frozenset(), ca_file: str = "", hooks_url: str = ""
    ) -> None:
        self._home = home
        self._internal_hosts = internal_hosts
        self._ca_file = ca_file
        self._hooks_url = hooks_url.rstrip("/")

    def path(self, project: Project) -> Path:
        """The bare repository: what people push to for a hosted project, else the mirror."""
        if project.hosted:
            return self._home / "repositories" / f"{project.slug}.git"
        return self._home / "mirrors" / f"{project.id}.git"

    def create_hosted(self, project: Project, secret: str) -> Path:
        """Make the repository of a hosted project, or renew its hook; returns what to push to.

        A repository that a deleted project of this name left is moved aside, not mixed in.
        """
        path = self.path(project)
        with worktrees.locked(self._home / "repositories" / f".{project.slug}.lock"):
            before = hosted.owner(path)
            if before is not None and before != project.id:
                path.rename(path.with_name(f"{project.slug}~{before}.git"))
            told = {
                "url": self._hooks_url,
                "shown": self._hooks_url.removesuffix("/hooks"),
                "project": project.slug,
                "secret": secret,
            }
            hosted.create(path, self._home, told, project.id)
        return path

    def refresh_hooks(self, projects: Iterable[Project], secret: Callable[[Project], str]) -> None:
        """Bring the hooks of all hosted projects to this version, this interpreter, this address."""
        for project in projects:
            if project.hosted and project.deleted_at is None:
                self.create_hosted(project, secret(project))

    def spooled(self) -> Iterator[Spooled]:
        """Pushes that hooks kept because Towpath was away."""
        return hosted.spooled(self._home / "repositories")

    def clean(self) -> int:
        """Remove the folders of builds whose worker died; how many."""
        with worktrees.locked(self._home / "work" / ".lock"):
            return worktrees.sweep(self._home / "work")

    def resolve(self, project: Project, ref: str) -> str | None:
        """The commit that a full ref names now, None when there is no such ref. Raises UserError, ServiceError."""
        check_ref(ref)
        if project.hosted:
            return self._resolve_hosted(project, ref)
        try:
            said = self._mirror(project).run("ls-remote", "--", _url(project), ref, f"{ref}^{{}}")
        except GitFailed as error:
            raise _explained(error, project) from error
        found = {name: sha for sha, _, name in (line.partition("\t") for line in said.splitlines())}
        return found.get(f"{ref}^{{}}") or found.get(ref)

    def _resolve_hosted(self, project: Project, ref: str) -> str | None:
        try:
            return self._local(project).run("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}").strip()
        except GitFailed as error:
            if error.status == 1 and not error.stderr:
                return None
            raise

    @contextmanager
    def checkout(self, project: Project, sha: str, ref: str) -> Iterator[Checkout]:
        """The commit `sha`, fetched where needed. Raises UserError when it can't be had, ServiceError."""
        check_ref(ref)
        check_sha(sha)
        if not project.hosted:
            self._fetch(project, sha, ref)
        with opened(self._local(project), sha, self._home / "work") as checkout:
            if checkout is None:
                raise self._missing(project, sha, ref)
            yield checkout

    def _fetch(self, project: Project, sha: str, ref: str) -> None:
        """Bring the commit into the mirror, by its ref or, when that has moved on, by its id."""
        if self._has(project, sha):
            return
        with worktrees.locked(self.path(project).with_suffix(".lock")):
            remote = self._mirror(project)
            for wanted in (f"+{ref}:{ref}", sha):
                if self._has(project, sha):
                    return
                try:
                    remote.run("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", _url(project), wanted)
                except GitFailed as error:
                    if not _is_gone(error):
                        raise _explained(error, project) from error

    def _mirror(self, project: Project) -> Git:
        """Git on the mirror, made at first use, held to the address of the clone URL."""
        place = locate(check_url(_url(project), self._internal_hosts))
        path = self.path(project)
        if not (path / "HEAD").exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Git(path, self._home).run("init", "--quiet", "--bare", "--template=", str(path))
        return Git(path, self._home, place, self._ca_file)

    def _has(self, project: Project, sha: str) -> bool:
        if not self.path(project).exists():
            return False
        try:
            self._local(project).run("cat-file", "-e", f"{sha}^{{commit}}")
        except GitFailed:
            return False
        return True

    def _missing(self, project: Project, sha: str, ref: str) -> UserError:
        empty = not self._local(project).run("for-each-ref", "--count=1")
        if empty and (project.hosted or not self._mirror(project).run("ls-remote", "--", _url(project))):
            return NotFound("the repository is empty", remedy="push a commit")
        name = ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
        return NotFound(
            f"commit {sha[:12]} is no longer in the repository: {name} was deleted or force-pushed meanwhile",
            remedy="push again, or start a run of what is there now",
        )

    def _local(self, project: Project) -> Git:
        path = self.path(project)
        if project.hosted and not path.exists():
            raise ServiceError(f"the hosted repository {path} is not there", retryable=False, remedy="restore it")
        return Git(path, self._home)


def _url(project: Project) -> str:
    return project.clone_url or ""


#: What git says when a ref or commit is not there, is not allowed to be had, or the whole repository is not what
#: it should be; none of it gets better by asking again.
_GONE = ("couldn't find remote ref", "not our ref", "no such remote ref", "does not allow request for unadvertised")
_REFUSED = {
    "could not read Username": "the forge wants to know who asks; give a clone URL that works without a password",
    "Authentication failed": "the user or password in the clone URL is wrong",
    "Permission denied": "the forge does not know this machine's ssh key; add it as a deploy key",
    "Host key verification failed": "the forge's ssh host key has changed; check it, then remove it from known_hosts",
    "error: 401": "the forge refuses; check the clone URL",
    "error: 403": "the forge refuses; check the clone URL",
    "error: 404": "there is no such repository; check the clone URL",
    "error: 3": "the forge redirects, which is not followed; give the URL that it redirects to",
    "redirect": "the forge redirects, which is not followed; give the URL that it redirects to",
    "not found": "there is no such repository; check the clone URL",
    "does not appear to be a git repository": "there is no such repository; check the clone URL",
    "not valid: is this a git repository": "there is no git repository at this URL; check it",
    "transport 'file' not allowed": "give a URL over https or ssh",
    "fsck": "the repository has broken objects, which are not taken in; `git fsck` shows them",
    "File too large": "the repository is larger than a fetch may be",
}


def _is_gone(error: GitFailed) -> bool:
    return any(words in error.stderr for words in _GONE)


def _explained(error: GitFailed, project: Project) -> Exception:
    """What a failed fetch means for people; unknown reasons are tried again."""
    where = redact(_url(project))
    if error.status in (124, 137):
        return ServiceError(f"{where} took too long to fetch")
    if "No space left" in error.stderr:
        return ServiceError("the disk is full", remedy="free some space")
    remedy = next((remedy for words, remedy in _REFUSED.items() if words in error.stderr), None)
    if remedy is not None:
        return UserError(error.message, where=where, remedy=remedy)
    return ServiceError(f"{where} could not be fetched: {error.message}")
