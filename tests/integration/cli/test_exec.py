"""`towpath exec` on a real engine, and what it takes of a working tree."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from click.testing import CliRunner, Result

from cd.cli import execute, main, snapshot
from cd.errors import UserError
from cd.pipeline.parse import parse
from cd.pipeline.plan import Occasion, plan
from cd.pipeline.verdicts import stage_key

PIPELINE = """
image: {args: {WORD: hello}}
stages:
  look:
    run: cat /word && id -u && test ! -w / && test ! -e /ignored
  behind:
    run: "echo behind; exit 3"
    needs: [look]
  never:
    run: echo never
    needs: [behind]
"""


LISTENS = """
import socketserver
class Hello(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"hello from the listener\\n")
print("listening", flush=True)
socketserver.TCPServer(("", 7001), Hello).serve_forever()
"""
TALK = """
stages:
  talk:
    run: nc -w 5 db $PORT < /dev/null
    matrix: {PORT: [7001, 7002]}
    retries: 1
    allow_failure: true
    services:
      db:
        image: LISTENER
        ready: [bash, -c, "</dev/tcp/127.0.0.1/7001"]
  unready:
    run: echo never
    allow_failure: true
    services: {db: {image: "python:3.11-slim", ready: "false"}}  # ends, as nobody types anything
  release:
    run: echo never
    when: {branches: release-*}
  tell:
    run: echo $TOKEN && echo $OTHER
    needs: [talk, release]
    secrets: [TOKEN, OTHER]
"""


@pytest.fixture(scope="module")
def listener(docker_client: docker.DockerClient, python_image: str) -> Iterator[str]:
    """Name of an image whose command greets whoever connects to port 7001."""
    name = f"towpath-test-listener:{uuid.uuid4().hex[:12]}"
    container = docker_client.containers.create(
        python_image, ["python", "-c", LISTENS], labels={"towpath-test": "exec"}
    )
    try:
        repository, tag = name.split(":")
        container.commit(repository, tag)
        yield name
    finally:
        container.remove(force=True)
        if docker_client.images.list(name=name):
            docker_client.api.remove_image(name, force=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A working tree of git with nothing committed."""
    folder = tmp_path / "tree"
    folder.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def base(docker_client: docker.DockerClient, busybox_image: str) -> str:
    """Name of a base image that is on this engine only; it goes away with `busybox_image`."""
    name = f"towpath-test-exec:{uuid.uuid4().hex[:12]}"
    docker_client.api.tag(busybox_image, *name.split(":"))
    return name


@pytest.fixture
def shop(tree: Path, base: str, docker_client: docker.DockerClient) -> Iterator[Path]:
    """A working tree with a pipeline."""
    (tree / "Dockerfile").write_text(f"FROM {base}\nARG WORD\nCOPY . /\nRUN echo $WORD > /word && chmod 755 /\n")
    (tree / ".towpath.yml").write_text(PIPELINE)
    (tree / ".gitignore").write_text("ignored\n")
    (tree / "ignored").write_text("")
    yield tree
    tag = execute.tag(tree)
    if docker_client.images.list(name=tag):
        docker_client.api.remove_image(tag, force=True)


def towpath(tree: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["exec", "-C", str(tree), *arguments])


def left_behind(client: docker.DockerClient) -> list[str]:
    return [one.name for one in client.containers.list(all=True, filters={"label": "towpath.project=exec"})]


def test_the_pipeline_of_the_working_tree(shop: Path, docker_client: docker.DockerClient) -> None:
    result = towpath(shop, "--json")
    assert result.exit_code == 1, result.output
    told = json.loads(result.stdout)
    assert told["state"] == "failed"
    assert {one["name"]: (one["state"], one["reason"]) for one in told["stages"]} == {
        "look": ("passed", ""),
        "behind": ("failed", "exit code 3"),
        "never": ("skipped", "needs behind, which failed"),
    }
    assert "  look │ hello\n  look │ 65532\n" in result.stderr
    assert left_behind(docker_client) == []


def test_a_service_a_matrix_conditions_and_secrets(
    shop: Path, listener: str, monkeypatch: pytest.MonkeyPatch, docker_client: docker.DockerClient
) -> None:
    (shop / ".towpath.yml").write_text(TALK.replace("LISTENER", listener))
    monkeypatch.setenv("TOKEN", "hush-hush")
    result = towpath(shop, "--json", "--branch", "main", "--secret", "OTHER=word-of-mouth")
    told = json.loads(result.stdout)
    assert {one["name"]: one["state"] for one in told["stages"]} == {
        "talk:7001": "passed",
        "talk:7002": "failed",
        "unready": "failed",
        "release": "skipped",
        "tell": "passed",
    }, result.stderr
    assert (result.exit_code, told["state"]) == (0, "passed")
    good, bad, unready, release, tell = told["stages"]
    assert "talk:7001 │ hello from the listener\n" in result.stderr
    assert (bad["allow_failure"], bad["attempts"]) == (True, 2)
    assert unready["cause"] == "service"
    assert "  unready │ --- service db " in result.stderr
    assert release["reason"] == "only on release-*, and this is main"
    assert "     tell │ *********\n" in result.stderr
    assert "     tell │ *************\n" in result.stderr
    assert "hush" not in result.output
    # What a server would know the stage by.
    spec = plan(parse((shop / ".towpath.yml").read_bytes()), Occasion("push", "refs/heads/main"))[0].spec
    digest = str(docker_client.images.get(listener).id)
    assert good["key"] == stage_key(spec, {"db": digest})
    assert good["image"] == docker_client.images.get(execute.tag(shop)).id
    assert len({good["key"], bad["key"], tell["key"]}) == 3
    assert left_behind(docker_client) == []


def test_the_branch_is_the_one_that_is_checked_out(shop: Path) -> None:
    (shop / ".towpath.yml").write_text("stages: {release: {run: 'true', when: {branches: release-*}}}\n")
    assert "only on release-*" in towpath(shop).stdout
    subprocess.run(["git", "checkout", "-q", "-b", "release-1"], cwd=shop, check=True)
    result = towpath(shop)
    assert "passed" in result.stdout.split("KEY")[1].splitlines()[1]
    assert "only for" not in result.stdout
    assert "only on release-*, and this is pull/0/head" in towpath(shop, "--event", "pull_request").stdout


def test_a_build_gets_its_secrets_and_nobody_sees_them(shop: Path, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The builder's cache knows nothing of secrets: only a command that it never saw is run.
    fresh = uuid.uuid4().hex
    run = f"RUN --mount=type=secret,id=TOKEN cat /run/secrets/TOKEN; echo {fresh}"
    (shop / "Dockerfile").write_text(f"FROM {base}\n{run}\n")
    (shop / ".towpath.yml").write_text("image: {secrets: [TOKEN]}\n")
    monkeypatch.setenv("TOKEN", f"hush-{uuid.uuid4().hex}")
    result = towpath(shop)
    assert result.exit_code == 0, result.output
    assert "*" * 37 in result.output
    assert "hush-" not in result.output


def test_a_missing_secret_is_told_before_anything_is_built(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / ".towpath.yml").write_text("stages: {tell: {run: 'true', secrets: [TOKEN, OTHER]}}\n")
    monkeypatch.delenv("TOKEN", raising=False)
    result = towpath(tree, "--secret", "OTHER=x1y2")
    assert result.exit_code == 1
    assert "stages.tell.secrets: there is no secret TOKEN; " in result.stderr
    assert "--secret TOKEN" in result.stderr
    wrong = towpath(tree, "--secret", "TOKKEN=x1y2")
    assert wrong.exit_code == 2
    assert "asks for a secret 'TOKKEN'" in wrong.stderr
    assert "the environment has no TOKEN" in towpath(tree, "--secret", "TOKEN").stderr


def test_one_stage_with_what_it_needs(shop: Path) -> None:
    result = towpath(shop, "look")
    assert result.exit_code == 0, result.output
    assert "the run passed" in result.stdout
    assert "behind" not in result.stdout


def test_a_faulty_dockerfile_says_where(shop: Path, base: str) -> None:
    (shop / "Dockerfile").write_text(f"FROM {base}\nRUN exit 7\n")
    result = towpath(shop)
    assert result.exit_code == 1
    assert "towpath: Dockerfile:2: " in result.stderr


def test_an_unknown_stage_is_a_wrong_call(tree: Path) -> None:
    (tree / ".towpath.yml").write_text(PIPELINE)
    result = towpath(tree, "loook")
    assert result.exit_code == 2
    assert "did you mean 'look'?" in result.stderr


def test_a_faulty_pipeline_is_told_before_anything_is_built(tree: Path) -> None:
    (tree / ".towpath.yml").write_text("stages: {unit: {rum: x}}\n")
    result = towpath(tree)
    assert result.exit_code == 1
    assert ".towpath.yml:1:" in result.stderr


def test_outside_of_a_working_tree(tmp_path: Path) -> None:
    result = towpath(tmp_path)
    assert result.exit_code == 1
    assert "not a working tree" in result.stderr


def test_a_snapshot_is_what_a_commit_would_be(tree: Path) -> None:
    (tree / "sub").mkdir()
    for name, mode in (("plain", 0o600), ("sub/tool", 0o700), ("gone", 0o644), ("odd\n name", 0o644)):
        (tree / name).write_text(name)
        (tree / name).chmod(mode)
    subprocess.run(["git", "add", "-A"], cwd=tree, check=True)
    (tree / "gone").unlink()
    (tree / "plain").write_text("changed")
    (tree / "new").write_text("not added yet")
    (tree / "link").symlink_to("/etc/passwd")
    with snapshot.taken(tree / "sub") as taken:
        files = sorted(str(path.relative_to(taken.files)) for path in taken.files.rglob("*"))
        assert files == ["link", "new", "odd\n name", "plain", "sub", "sub/tool"]
        assert (taken.files / "plain").read_text() == "changed"
        modes = {name: (taken.files / name).stat().st_mode & 0o777 for name in ("plain", "sub", "sub/tool")}
        assert modes == {"plain": 0o644, "sub": 0o755, "sub/tool": 0o755}
        assert os.readlink(taken.files / "link") == "/etc/passwd"
    assert not taken.files.exists()


def test_symbolic_links_lead_nowhere(tree: Path) -> None:
    (tree / ".towpath.yml").symlink_to("/etc/passwd")
    with snapshot.taken(tree) as taken, pytest.raises(UserError, match="symbolic link"):
        _ = taken.pipeline
