"""Tests that stages reported: of a run, of a project, and the history of one."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from flask import Response
from pydantic import BaseModel, Field

from cd.identity.people import Role
from cd.pipeline import queries, testhistory
from cd.web.api.common import part, shown
from cd.web.api.models import ProjectPath, RunPath, Shown, StepPath
from cd.web.context import access, services

api = part("tests")


class Summary(Shown):
    files: int
    suites: int
    tests: int
    passed: int
    failed: int
    errors: int
    skipped: int
    seconds: float


class Result(Shown):
    id: int = Field(validation_alias="case_id", description="The test's; see /projects/{slug}/tests/{test}.")
    classname: str
    name: str
    state: Literal["passed", "failed", "error", "skipped"]
    seconds: float
    text: str = Field(description="What the report says of a failure, an error or a skip; long ones are cut.")


class StepTests(Shown):
    step: str
    attempt: int
    reused: int | None = Field(description="Number of the run that earned the verdict; None: the stage ran.")
    summary: Summary
    failures: tuple[Result, ...]
    slowest: tuple[Result, ...]


class RunTests(BaseModel):
    items: list[StepTests]


class Results(BaseModel):
    items: list[Result]
    next: int | None


class ResultQuery(BaseModel):
    state: Literal["passed", "failed", "error", "skipped"] | None = Field(None, description="Only these.")
    search: str = Field("", max_length=200, description="Part of the name or of the class name.")
    before: int = Field(0, ge=0, le=2**31, description="The `next` of the page before.")
    limit: int = Field(50, ge=1, le=200)


class TestPath(ProjectPath):
    __test__ = False  # not for pytest

    test: int = Field(ge=1, le=2**53)


class Past(Shown):
    run_number: int
    ref: str
    sha: str
    step: str
    attempt: int
    shadow: bool = Field(description="Of the audit of a reused verdict.")
    state: str
    seconds: float
    text: str
    at: datetime
    flaky: bool = Field(description="For the same image and stage key it also came out the other way.")


class History(Shown):
    id: int = Field(validation_alias="case_id")
    stage: str
    classname: str
    name: str
    past: tuple[Past, ...] = Field(description="Newest first.")


class Ranked(Shown):
    id: int = Field(validation_alias="case_id")
    stage: str
    classname: str
    name: str
    runs: int = Field(description="Results in the last 50 runs of the project.")
    failures: int
    mean_seconds: float
    max_seconds: float
    flips: int = Field(description="Pairs of image and stage key with which it both passed and failed.")
    last_run: int


class RankedTests(BaseModel):
    items: list[Ranked]


class RankedQuery(BaseModel):
    order: testhistory.Order = Field("failing", description="Which come first.")
    limit: int = Field(20, ge=1, le=200)


@api.get("/projects/<slug>/runs/<int:number>/tests", responses={200: RunTests})
@access(Role.viewer)
def run_tests(path: RunPath) -> Response:
    """Counts, failures and slowest tests of each stage that left a report."""
    with services().database.read() as session:
        found = testhistory.of_run(session, queries.detail(session, path.slug, path.number).run.id)
    return shown(RunTests(items=[StepTests.model_validate(one) for one in found]))


@api.get("/projects/<slug>/runs/<int:number>/steps/<step>/tests", responses={200: Results})
@access(Role.viewer)
def step_tests(path: StepPath, query: ResultQuery) -> Response:
    """All tests of a stage, in the order of its reports with the worst first."""
    with services().database.read() as session:
        run = queries.detail(session, path.slug, path.number).run
        rows, more = testhistory.results(
            session,
            run.id,
            path.step,
            states=(query.state,) if query.state else (),
            search=query.search,
            after=query.before,
            limit=query.limit,
        )
    return shown(Results(items=[Result.model_validate(row) for row in rows], next=more))


@api.get("/projects/<slug>/tests", responses={200: RankedTests})
@access(Role.viewer)
def ranked_tests(path: ProjectPath, query: RankedQuery) -> Response:
    """The tests of the last 50 runs that fail most often, take longest, or came out both ways."""
    with services().database.read() as session:
        project = queries.project(session, path.slug)
        rows = testhistory.ranked(session, project.id, query.limit)[query.order]
    return shown(RankedTests(items=[Ranked.model_validate(row) for row in rows]))


@api.get("/projects/<slug>/tests/<int:test>", responses={200: History})
@access(Role.viewer)
def test_history(path: TestPath) -> Response:
    """The latest 100 results of one test."""
    with services().database.read() as session:
        found = testhistory.history(session, queries.project(session, path.slug).id, path.test)
    return shown(History.model_validate(found))
