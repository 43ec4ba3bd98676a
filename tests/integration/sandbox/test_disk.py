"""The engine's disk stays within its bound, and nothing goes that somebody needs: on a real engine of its own."""

from __future__ import annotations

import gc
import io
import json
import os
import tarfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import docker
import pytest
import rows
from engines import Engine, engine
from sqlalchemy import select

from cd.errors import Conflict
from cd.identity.people import Person, Role
from cd.pipeline.collection import Disk
from cd.pipeline.records import Image, Project, Run
from cd.pipeline.states import RUN
from cd.promote import promotions, retention
from cd.promote.records import Deployment, Environment, Promotion, Release
from cd.sandbox.stock import Stock
from cd.store.base import now
from cd.store.database import Database
from cd.store.states import move

MB = 1 << 20
SPEC = {"name": "prod", "target": {"kind": "docker", "url": "http://127.0.0.1:9"}, "from": {"branches": ["main"]}}
# The client leaves a socket open each time that an engine that is starting does not answer yet.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def own() -> Iterator[Engine]:
    with engine() as made:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        yield made


@pytest.fixture
def api(own: Engine) -> Iterator[docker.APIClient]:
    made = docker.APIClient(own.host, version="1.41", timeout=60)
    yield made
    for one in made.containers(all=True):
        made.remove_container(one["Id"], force=True)
    # What was committed goes before what it stands on.
    for one in sorted(made.images(), key=lambda one: not one["ParentId"]):
        made.remove_image(one["Id"], force=True, noprune=True)
    made.close()


def make(api: docker.APIClient, tag: str, megabytes: int) -> str:
    """Id of an image with so many bytes that no other has."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo("bytes")
        entry.size = megabytes * MB
        tar.addfile(entry, io.BytesIO(os.urandom(entry.size)))
    repository, _, version = tag.rpartition(":")
    answer = api.import_image_from_data(packed.getvalue(), repository=repository, tag=version)
    return str(json.loads(answer.splitlines()[-1])["status"])


@dataclass
class Scene:
    """A project whose releases and runs each have an image of 4 MB; the older, the earlier used."""

    database: Database
    api: docker.APIClient
    images: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, hours: float, *, release: bool = False, state: str = "passed") -> int:
        """A run that ended that long ago, and its release; the release's id, or the run's."""
        with self.database.write() as session:
            project = session.scalars(select(Project)).one_or_none() or rows.project(session)
            run = rows.run(session, project)
            tag = f"towpath/shop:run-{run.number}"
            run.image = self.images[name] = make(self.api, tag, 4)
            run.created_at = now() - timedelta(hours=hours)
            session.add(
                Image(project_id=project.id, key=name, digest=run.image, run_id=run.id, created_at=run.created_at)
            )
            session.flush()
            if state != "queued":
                move(session, RUN, run, "running", started_at=run.created_at)
            if state == "passed":
                move(session, RUN, run, "passed", finished_at=run.created_at)
            return self._release(session, run) if release else run.id

    def _release(self, session, run: Run) -> int:
        row = Release(
            project_id=run.project_id,
            number=run.number,
            run_id=run.id,
            run_number=run.number,
            image=run.image,
            sha=run.sha,
            ref=run.ref,
            subject="",
            author="",
            pusher="",
            deploy={},
            created_at=run.created_at,
        )
        session.add(row)
        session.flush()
        return row.id

    def environment(self) -> int:
        with self.database.write() as session:
            project = session.scalars(select(Project)).one()
            row = Environment(project_id=project.id, name="prod", position=0, spec=SPEC)
            session.add(row)
            session.flush()
            return row.id

    def promote(self, environment: int, release: int, state: str, deployment: str | None = None) -> None:
        """A promotion in that state, with a deployment in that one."""
        with self.database.write() as session:
            made = session.get_one(Release, release)
            row = Promotion(
                project_id=made.project_id,
                environment_id=environment,
                release_id=release,
                kind="promote",
                state=state,
                fingerprint="",
                created_at=now(),
            )
            session.add(row)
            session.flush()
            if deployment is not None:
                session.add(
                    Deployment(
                        project_id=made.project_id,
                        environment_id=environment,
                        promotion_id=row.id,
                        release_id=release,
                        state=deployment,
                        image=made.image,
                        environment_version=1,
                        spec=SPEC,
                        started_at=now(),
                    )
                )

    def disk(self, limit: int, keep: int = 1, registry: str = "") -> Disk:
        held = partial(retention.held, keep=keep)
        return Disk(self.database, Stock(self.api), limit, held, retention.retire, registry)

    def there(self) -> set[str]:
        """Names of the images that the engine has."""
        ids = {one["Id"] for one in self.api.images()}
        return {name for name, image in self.images.items() if image in ids}

    def retired(self) -> set[str]:
        with self.database.read() as session:
            gone = set(session.scalars(select(Release.image).where(Release.retired_at.is_not(None))))
        return {name for name, image in self.images.items() if image in gone}


@pytest.fixture
def scene(database: Database, api: docker.APIClient) -> Scene:
    return Scene(database, api)


def fill(scene: Scene) -> int:
    """Everything that there can be; the id of the environment."""
    ids = {name: scene.add(name, hours, release=True) for name, hours in RELEASES.items()}
    place = scene.environment()
    for name in ("third", "second", "first"):
        scene.promote(place, ids[name], "succeeded", "retired")
    scene.promote(place, ids["live"], "succeeded", "live")
    scene.promote(place, ids["asked"], "waiting")
    for number in range(4):
        scene.add(f"run-{number}", 10 - number)
    scene.add("queued", 100, state="queued")
    scene.add("running", 100, state="running")
    scene.add("just ended", 0.01)
    scene.add("contained", 100)
    scene.api.create_container(scene.images["contained"], "x")
    scene.images["stranger"] = make(scene.api, "towpath/stranger:run-1", 4)
    return place


RELEASES = {"third": 100, "second": 90, "first": 80, "live": 70, "asked": 60, "old": 50, "newest": 40}
NEEDED = {"second", "first", "live", "asked", "newest", "queued", "running", "just ended", "contained", "stranger"}


def test_what_is_needed_stays_and_the_rest_goes_oldest_first(scene: Scene) -> None:
    fill(scene)
    made = set(scene.images)
    assert scene.there() == made
    # Nine are needed; two of the others have room. Those of strangers count for nothing.
    disk = scene.disk(limit=11 * 4 * MB + MB)
    assert disk.clean() == len(made - NEEDED) - 2
    assert scene.there() == NEEDED | {"run-2", "run-3"}
    assert scene.retired() == {"third", "old"}
    candidates, taken = disk.look()
    assert taken == 11 * 4 * MB
    assert {one.image.id: one.why for one in candidates}[scene.images["first"]] == retention.BEFORE
    assert disk.clean() == 0
    with scene.database.read() as session:
        known = set(session.scalars(select(Image.digest)))
    assert known == {scene.images[name] for name in scene.there() - {"stranger"}}


def test_what_is_needed_stays_even_when_it_is_too_much(scene: Scene) -> None:
    fill(scene)
    scene.disk(limit=1).clean()
    assert scene.there() == NEEDED


def test_within_the_bound_nothing_goes(scene: Scene) -> None:
    fill(scene)
    assert scene.disk(limit=1 << 30).clean() == 0
    assert scene.there() == set(scene.images)


def test_a_retired_release_is_not_promoted(scene: Scene) -> None:
    place = fill(scene)
    scene.disk(limit=1).clean()
    person = Person(1, "ada", Role.admin)
    with scene.database.write() as session:
        project = session.scalars(select(Project)).one()
        release = session.scalars(select(Release).where(Release.image == scene.images["third"])).one()
        environment = session.get_one(Environment, place)
        with pytest.raises(Conflict, match=r"retired.*towpath run retry shop 1"):
            promotions.request(session, project, environment, release, person)
        with pytest.raises(Conflict, match="retired"):
            promotions.rollback(session, environment, release, person)


def test_what_a_registry_has_is_dropped_and_stays_a_release(scene: Scene) -> None:
    fill(scene)
    with scene.database.write() as session:
        for row in (*session.scalars(select(Release)), *session.scalars(select(Run)), *session.scalars(select(Image))):
            name = "digest" if isinstance(row, Image) else "image"
            setattr(row, name, f"registry:5000/towpath/shop@{getattr(row, name)}")
    scene.disk(limit=1, registry="registry:5000/towpath").clean()
    assert scene.retired() == set()


def test_layers_that_images_share_are_counted_once(scene: Scene) -> None:
    scene.add("base", 5)
    made = scene.api.create_container(scene.images["base"], "x")["Id"]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo("more")
        entry.size = MB
        tar.addfile(entry, io.BytesIO(os.urandom(MB)))
    scene.api.put_archive(made, "/", packed.getvalue())
    top = scene.api.commit(made, repository="towpath/shop", tag="run-2")["Id"]
    scene.api.remove_container(made)
    with scene.database.write() as session:
        project = session.scalars(select(Project)).one()
        run = rows.run(session, project)
        run.image = scene.images["top"] = top
    disk = scene.disk(limit=MB)
    candidates, taken = disk.look()
    assert taken == 5 * MB
    assert {one.why for one in candidates} == {"an open run", "an image on top of it"}
    assert disk.clean() == 0


def test_what_builds_keep_is_bounded(api: docker.APIClient) -> None:
    assert Stock(api).prune_cache(MB) == 0
