"""What could come next is read from the releases that were really made."""

from __future__ import annotations

from promote_scene import Scene

from cd.promote import queries
from cd.store.database import Database


def test_the_newest_release_could_come_to_the_first_environment(database: Database) -> None:
    scene = Scene(database)
    scene.apply()
    for image in ("sha256:a", "sha256:b"):
        scene.passed(image)
    first = scene.read(lambda session: queries.environments(session, scene.project_id))[0]
    assert first.next is not None
    assert first.next.number == 2
