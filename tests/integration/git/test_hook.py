"""The hook of a hosted repository: a real push, a real answer, and what is kept when there is none."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from gitforge import Work, project

from cd.pipeline import hosted as hosted_repositories
from cd.pipeline.post_receive import sign
from cd.pipeline.records import Project
from cd.pipeline.repositories import Repositories

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Service:
    """What takes webhooks; `status` and `answer` are what it says."""

    url: str = ""
    status: int = 202
    answer: dict[str, object] = field(default_factory=lambda: {"delivery": 1, "run": 12})
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def service() -> Iterator[Service]:
    told = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            told.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(told.status)
            self.end_headers()
            self.wfile.write(json.dumps(told.answer).encode())

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_port}"
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def pushing(home: Path, service: Service, hosted: Project, work: Work) -> Repositories:
    repositories = Repositories(home, hooks_url=f"{service.url}/hooks")
    work.git("remote", "add", "origin", str(repositories.create_hosted(hosted, SECRET)))
    return repositories


def _kept(repositories: Repositories, hosted: Project) -> list[Path]:
    return sorted((repositories.path(hosted) / "towpath" / "spool").iterdir())


def test_a_push_is_handed_over_signed_and_its_run_is_shown(
    pushing: Repositories, service: Service, hosted: Project, work: Work
) -> None:
    sha = work.commit("a change\n\nwhy")
    said = work.git("push", "origin", "main")
    assert f"Towpath: run #12 {service.url}/projects/shop/runs/12" in said
    path, headers, body = service.got[0]
    assert path == "/hooks/shop"
    push = json.loads(body)
    assert push.pop("created_at").endswith("Z")
    assert push.pop("pusher")
    assert push == {
        "type": "push",
        "ref": "refs/heads/main",
        "before": "0" * 40,
        "after": sha,
        "deleted": False,
        "commit": {"id": sha, "message": "a change\n\nwhy\n", "author": "Ada <ada@example.org>"},
    }
    expected = sign(SECRET, headers["webhook-id"], headers["webhook-timestamp"], body)
    assert headers["webhook-signature"] == expected
    assert _kept(pushing, hosted) == []


def test_the_signature_is_that_of_standard_webhooks() -> None:
    signature = sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_tags_deletions_and_packed_pushes_are_told_as_they_are(
    pushing: Repositories, service: Service, hosted: Project, work: Work
) -> None:
    for number in range(60):
        sha = work.commit(f"number {number}", a=str(number))
    work.git("tag", "--annotate", "--message", "one", "v1")
    work.git("push", "origin", "main", "main:topic", "v1")
    work.git("push", "origin", ":topic")
    pushes = {push["ref"] + str(push["deleted"]): push for push in (json.loads(body) for _, _, body in service.got)}
    assert pushes["refs/tags/v1False"]["commit"]["id"] == sha
    assert pushes["refs/heads/mainFalse"]["commit"]["message"] == "number 59\n"
    assert pushes["refs/heads/topicTrue"]["commit"] is None


def test_a_push_while_the_service_is_away_is_kept_and_handed_over_later(
    home: Path, hosted: Project, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    repositories = Repositories(home, hooks_url="http://127.0.0.1:9/hooks")
    work.git("remote", "add", "origin", str(repositories.create_hosted(hosted, SECRET)))
    sha = work.commit("kept")
    said = work.git("push", "origin", "main", "main:refs/heads/other")
    assert said.count("Towpath:") == 1
    assert "the push is kept and will be delivered" in said
    assert list(repositories.spooled()) == [], "a fresh one is the hook's own to deliver"
    for path in _kept(repositories, hosted):
        os.utime(path, (time.time() - 60, time.time() - 60))
    found = list(repositories.spooled())
    assert [json.loads(one.body)["after"] for one in found] == [sha, sha]
    assert {(one.project_id, one.slug) for one in found} == {(hosted.id, "shop")}
    headers = found[0].headers
    expected = sign(SECRET, headers["webhook-id"], headers["webhook-timestamp"], found[0].body)
    assert headers["webhook-signature"] == expected
    found[0].done()
    found[1].refuse()
    assert _kept(repositories, hosted) == []
    assert len(list((repositories.path(hosted) / "towpath" / "refused").iterdir())) == 1


@pytest.mark.parametrize(("status", "kept"), [(200, 0), (409, 0), (401, 1), (503, 1)])
def test_only_what_was_taken_is_forgotten(
    pushing: Repositories, service: Service, hosted: Project, work: Work, status: int, kept: int
) -> None:
    service.status, service.answer = status, {"reason": "a duplicate", "detail": "bad signature"}
    work.commit("one")
    said = work.git("push", "origin", "main")
    assert len(_kept(pushing, hosted)) == kept
    assert ("Towpath: answered" in said) == bool(kept)
    assert ("Towpath: a duplicate" in said) == (not kept)


def test_hooks_are_refreshed_and_another_projects_repository_is_moved_aside(
    home: Path, hosted: Project, work: Work
) -> None:
    old = Repositories(home, hooks_url="http://old.example/hooks")
    path = old.create_hosted(hosted, SECRET)
    (path / "hooks" / "post-receive").write_text("of an older version")
    Repositories(home, hooks_url="http://new.example/hooks").refresh_hooks([hosted], lambda _: "whsec_bmV3")
    told = json.loads((path / "towpath" / "hook.json").read_text())
    assert (told["url"], told["secret"]) == ("http://new.example/hooks", "whsec_bmV3")
    assert (path / "hooks" / "post-receive").read_text() == hosted_repositories.script(sys.executable)
    assert (path / "towpath" / "hook.json").stat().st_mode & 0o777 == 0o600
    old.create_hosted(project(None, number=8), SECRET)
    assert (path.parent / "shop~7.git" / "HEAD").exists()
    assert json.loads((path / "towpath" / "hook.json").read_text())["id"] == 8
