"""A hosted project that is pushed to, and everything that builds it: real git, real engine, real Redis."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import redis
from buildshop import Shop

from cd.identity.vault import Vault
from cd.pipeline.build import BuildRunner
from cd.pipeline.builder import Builder
from cd.pipeline.logs import LogStore
from cd.pipeline.records import Project
from cd.pipeline.registry import Registry
from cd.pipeline.repositories import Repositories
from cd.store.base import now
from cd.store.database import Database

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture(scope="session")
def base(docker_client: docker.DockerClient, busybox_image: str) -> str:
    """Name of a base image that only this engine has; it goes away with `busybox_image`."""
    name = f"towpath-test-base:{uuid.uuid4().hex[:12]}"
    docker_client.api.tag(busybox_image, *name.split(":"))
    return name


@pytest.fixture
def shop(
    tmp_path: Path,
    sqlite_database: Database,
    redis_client: redis.Redis,
    docker_client: docker.DockerClient,
    base: str,
) -> Iterator[Shop]:
    slug = f"shop-{uuid.uuid4().hex[:12]}"
    with sqlite_database.write() as session:
        project = Project(slug=slug, forge="generic", clone_url=None, webhook_secret=b"", created_at=now())
        session.add(project)
    logs = LogStore(sqlite_database, redis_client, f"file://{tmp_path / 'blobs'}")
    repositories = Repositories(tmp_path / "home", hooks_url="http://127.0.0.1:9/hooks")
    repositories.create_hosted(project, SECRET)
    ended: list[int] = []
    builder = Builder(timeout=120)
    runner = BuildRunner(
        database=sqlite_database,
        repositories=repositories,
        builder=builder,
        logs=logs,
        vault=Vault(bytes(32)),
        registry=Registry(""),
        ended=lambda session, run: ended.append(run.id),
    )
    yield Shop(tmp_path, sqlite_database, runner, logs, project, base, ended)
    builder.close()
    for image in docker_client.images.list(name=f"towpath/{slug}"):
        docker_client.images.remove(image.id, force=True)
