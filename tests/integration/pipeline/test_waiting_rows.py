"""Why steps wait, out of the rows of both databases."""

from __future__ import annotations

import playing
import rows

from cd.pipeline import queries, waiting
from cd.store.database import Database


def test_a_queued_run_and_its_stages_say_why_they_wait(database: Database) -> None:
    with database.write() as session:
        project = rows.project(session)
        run = rows.run(session, project, "stages: {lint: {run: x}, unit: {run: x, needs: [lint]}}")
        playing.build(session, run)
        slug, number = project.slug, run.number
    with database.read() as session:
        detail = queries.detail(session, slug, number)
        found = {step.name: waiting.look(session, detail, 2).get(step.id) for step in detail.steps}
        none = waiting.look(session, detail, 0)
    assert found["build"] is None
    assert found["lint"] == waiting.Wait("a worker takes it now", 0)
    assert found["unit"] == waiting.Wait("needs lint, which waits too", None)
    assert all("no worker is there" in wait.reason for wait in none.values())
