"""The build of a run: its commit, its pipeline file, its images — built, or known from an earlier run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from cd.errors import StaleWrite, TowpathError, UserError
from cd.pipeline import dockerfile, images, runs, secrets
from cd.pipeline.builder import Builder, BuildRequest, Canceled
from cd.pipeline.checkout import Checkout
from cd.pipeline.definition import ImageSpec, Pipeline, unsupported
from cd.pipeline.dockerfile import Dockerfile
from cd.pipeline.logs import LogStore
from cd.pipeline.logwriter import LogWriter
from cd.pipeline.parse import FILE, parse
from cd.pipeline.plan import Occasion, Planned, plan
from cd.pipeline.projects import Vault
from cd.pipeline.records import Project, Run, Step
from cd.pipeline.registry import Registry
from cd.pipeline.repositories import Repositories
from cd.pipeline.states import STEP
from cd.store.database import Database
from cd.store.tasks import Claim

log = structlog.get_logger()

NO_FILE = f"there is no {FILE}: the Dockerfile is built, and nothing is tested"
RED, PLAIN = b"\x1b[31m", b"\x1b[0m"


@dataclass(frozen=True)
class Begun:
    """The build as it was when it was taken."""

    project: Project
    run: Run
    step: Step
    #: Secrets in clear, none for code from outside.
    secrets: Mapping[str, str]


@dataclass(frozen=True)
class Seen:
    """What is known of the commit so far; kept also when the build fails."""

    tree: str | None = None
    message: str = ""
    author: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Built:
    """What came out: the image of each target (None: the last stage of the Dockerfile), and its key if it has one."""

    pipeline: Pipeline
    planned: Sequence[Planned]
    #: By name of a step, the image of each of its services.
    services: Mapping[str, Mapping[str, str]]
    images: Mapping[str | None, str]
    keys: Mapping[str | None, str]
    #: Number of the run that built the image, when nothing was built now.
    reused_of: int | None = None


class Log:
    """The log of one attempt, opened by the first thing that is written: most builds of known trees write none."""

    def __init__(self, logs: LogStore, step: Step, secrets: Sequence[str]) -> None:
        self._logs, self._step, self._secrets = logs, step, secrets
        self._writer: LogWriter | None = None

    def write(self, data: bytes) -> None:
        """Add bytes."""
        if self._writer is None:
            self._writer = self._logs.writer(
                self._step.id, self._step.attempt, self._step.fence, self._secrets
            ).__enter__()
            # What a lost worker wrote stands; this build's own output goes behind it.
            self._writer.append()
            if self._writer.position:
                self._writer.write(b"\n--- the worker was lost; the build begins anew ---\n")
        self._writer.write(data)

    def close(self) -> None:
        """Store what is left. Raises what kept the log from being stored."""
        if self._writer is not None:
            self._writer.__exit__(None, None, None)


@dataclass(frozen=True)
class BuildRunner:
    """Executes builds."""

    database: Database
    repositories: Repositories
    builder: Builder
    logs: LogStore
    vault: Vault
    registry: Registry
    ended: runs.Ended

    def execute(self, claim: Claim) -> None:
        """The "build" task.

        What the repository's people can mend ends the step as failed. Raises ServiceError, with the step left
        running, for the engine's and Towpath's faults; StaleWrite when another worker holds the step.
        """
        begun = self._begin(claim)
        if begun is None:
            return
        attempt = _Attempt(self, begun)
        try:
            with self._log(begun) as written:
                built = attempt.run(written)
        except Canceled:
            log.info("build.canceled", run=begun.run.id)
        except UserError as error:
            self._fail(begun, attempt.seen, str(error))
        else:
            self._finish(begun, attempt.seen, built)

    def _begin(self, claim: Claim) -> Begun | None:
        with self.database.write() as session:
            started = runs.start_step(session, claim.subject, claim.fence)
            if started is None:
                return None
            run, step = started
            project = session.get_one(Project, run.project_id)
            return Begun(project, run, step, self._secrets(session, project, run))

    def _secrets(self, session: Session, project: Project, run: Run) -> Mapping[str, str]:
        """All secrets of the project, in runs that may have them: which the build asks for is not known yet."""
        names = [one.name for one in secrets.listing(session, project.id)] if run.trusted else []
        return secrets.values(session, self.vault, project.id, names)

    @contextmanager
    def _log(self, begun: Begun) -> Iterator[Callable[[bytes], None]]:
        """Where the builder's output goes; the error that ends it is its last line."""
        written = Log(self.logs, begun.step, tuple(begun.secrets.values()))
        try:
            yield written.write
        except TowpathError as error:
            if not isinstance(error, StaleWrite):
                written.write(b"\n" + RED + str(error).encode(errors="replace") + PLAIN + b"\n")
            raise
        finally:
            written.close()

    def canceled(self, begun: Begun) -> bool:
        """Whether the step has ended meanwhile. Raises StaleWrite when somebody else holds it."""
        with self.database.read() as session:
            state, fence = session.execute(select(Step.state, Step.fence).where(Step.id == begun.step.id)).one()
        if state in STEP.terminal:
            return True
        if state != "running" or fence != begun.step.fence:
            raise StaleWrite(f"step {begun.step.id} is held by fence {fence}, not {begun.step.fence}")
        return False

    def _held(self, session: Session, begun: Begun) -> tuple[Run, Step] | None:
        """Both rows as they are now, None when the step ended meanwhile."""
        run = runs.lock(session, begun.run.id)
        step = session.get_one(Step, begun.step.id)
        if step.state in STEP.terminal:
            return None
        if step.fence != begun.step.fence:
            raise StaleWrite(f"step {step.id} is held by fence {step.fence}, not {begun.step.fence}")
        return run, step

    def _fail(self, begun: Begun, seen: Seen, reason: str) -> None:
        with self.database.write() as session:
            held = self._held(session, begun)
            if held is not None:
                run, step = held
                _describe(run, seen)
                runs.end_step(session, step, "failed", self.ended, reason=reason)

    def _finish(self, begun: Begun, seen: Seen, built: Built) -> None:
        with self.database.write() as session:
            held = self._held(session, begun)
            if held is None:
                return
            run, step = held
            _describe(run, seen)
            _apply(session, run, step, built)
            if built.reused_of is None:
                runs.end_step(session, step, "passed", self.ended)
            else:
                reason = f"the image was built from the same files in run #{built.reused_of}"
                runs.end_step(session, step, "reused", self.ended, reason=reason)


def _describe(run: Run, seen: Seen) -> None:
    run.tree = seen.tree
    run.message = run.message or seen.message
    run.author = run.author or seen.author[:255]
    run.notes = [*run.notes, *(note for note in seen.notes if note not in run.notes)]


def _apply(session: Session, run: Run, step: Step, built: Built) -> None:
    """Write images and stages; what follows from them is decided when the step ends."""
    promoted = built.images[built.pipeline.image.target]
    run.image = step.image = promoted
    step.spec = built.pipeline.image.model_dump(mode="json", by_alias=True)
    deploy = built.pipeline.deploy
    run.deploy = deploy.model_dump(mode="json", by_alias=True) if deploy is not None else None
    by_step = {one.name: built.images[one.spec.target or built.pipeline.image.target] for one in built.planned}
    runs.add_stages(session, run, built.planned, by_step, built.services)
    if built.reused_of is None and run.trusted:
        for target, key in built.keys.items():
            images.keep(session, run, key, built.images[target])
    session.flush()


class _Attempt:
    """One attempt; `seen` grows as the commit becomes known."""

    def __init__(self, runner: BuildRunner, begun: Begun) -> None:
        self._runner, self._begun = runner, begun
        self._builder = runner.builder
        self.seen = Seen()

    def run(self, write: Callable[[bytes], None]) -> Built:
        """From the commit to its images."""
        run = self._begun.run
        with self._runner.repositories.checkout(self._begun.project, run.sha, run.ref) as checkout:
            self.seen = Seen(checkout.tree, checkout.message, checkout.author)
            pipeline = self._pipeline(checkout)
            spec = pipeline.image
            parsed = read_dockerfile(checkout, spec)
            targets = wanted_targets(pipeline, parsed)
            planned = plan(pipeline, self._occasion(checkout, pipeline))
            services = self._services(planned, write)
            keys = self._keys(spec, parsed, targets, write)
            if not run.fresh and (known := self._known(keys, targets)) is not None:
                return Built(pipeline, planned, services, known[0], keys, known[1])
            with checkout.files() as files:
                project = self._begun.project
                tag = f"run-{run.number}"
                request = BuildRequest(
                    files=files,
                    spec=spec,
                    dockerfile=parsed,
                    targets=targets,
                    tag=f"towpath/{project.slug}:{tag}",
                    namespace=f"towpath-{project.id}" if run.trusted else f"towpath-{project.id}-run-{run.id}",
                    secrets=self._wanted_secrets(spec),
                )
                built = self._builder.build(request, write, lambda: self._runner.canceled(self._begun))
            return Built(pipeline, planned, services, self._pushed(built, tag, write), keys)

    def _occasion(self, checkout: Checkout, pipeline: Pipeline) -> Occasion:
        run = self._begun.run
        asked = any(stage.when.paths for stage in pipeline.stages.values())
        changed = checkout.changed(run.before) if asked and run.before else None
        return Occasion(run.event, run.ref, changed, run.trusted)

    def _services(self, planned: Sequence[Planned], write: Callable[[bytes], None]) -> dict[str, dict[str, str]]:
        """The image of each service; those that are absent are pulled."""
        known: dict[str, str] = {}
        for one in planned:
            for name, service in one.spec.services.items():
                if not one.skip and service.image not in known:
                    where = f"{FILE}: stages.{one.stage}.services.{name}"
                    known[service.image] = self._builder.reference(service.image, where, write)
        return {
            one.name: {name: known[service.image] for name, service in one.spec.services.items()}
            for one in planned
            if not one.skip
        }

    def _wanted_secrets(self, spec: ImageSpec) -> dict[str, str]:
        if not spec.secrets:
            return {}
        if not self._begun.run.trusted:
            raise UserError("the build asks for secrets, which code from outside does not get", where=FILE)
        absent = [name for name in spec.secrets if name not in self._begun.secrets]
        if absent:
            raise UserError(
                f"the project has no secret {', '.join(absent)}",
                where=f"{FILE}: image.secrets",
                remedy="`towpath secret set PROJECT NAME` stores one",
            )
        return {name: self._begun.secrets[name] for name in spec.secrets}

    def _pushed(
        self, built: Mapping[str | None, str], tag: str, write: Callable[[bytes], None]
    ) -> Mapping[str | None, str]:
        """By target what each image is known by everywhere, where a registry is configured."""
        registry, run = self._runner.registry, self._begun.run
        if not registry:
            return built
        # Code from outside never lies where releases do.
        name = self._begun.project.slug if run.trusted else f"{self._begun.project.slug}-untrusted"
        return {
            target: registry.push(image, name, tag if target is None else f"{tag}-{target}", write)
            for target, image in built.items()
        }

    def _pipeline(self, checkout: Checkout) -> Pipeline:
        if checkout.pipeline is None:
            self.seen = replace(self.seen, notes=(NO_FILE,))
            return Pipeline()
        pipeline = parse(checkout.pipeline)
        refused = unsupported(pipeline)
        if refused:
            raise UserError(
                f"this version of Towpath can't do {', '.join(refused)}", where=FILE, remedy="remove it for now"
            )
        return pipeline

    def _keys(
        self,
        spec: ImageSpec,
        parsed: Dockerfile,
        targets: list[str | None],
        write: Callable[[bytes], None],
    ) -> dict[str | None, str]:
        """What each image is known by; nothing when its base images can't be told. Pulls those that are absent."""
        bases = parsed.bases(targets, spec.args)
        if bases is None or self.seen.tree is None:
            return {}
        ids: dict[str, str] = {}
        for name, line in bases.items():
            here = self._builder.image_id(name)
            ids[name] = here or self._builder.pull(name, f"{spec.dockerfile}:{line}", write)
        with self._runner.database.read() as session:
            versions = secrets.versions(session, self._begun.project.id, spec.secrets) if spec.secrets else {}
        return {target: images.image_key(self.seen.tree, spec, target, ids, versions) for target in targets}

    def _known(
        self, keys: Mapping[str | None, str], targets: list[str | None]
    ) -> tuple[dict[str | None, str], int] | None:
        """All images, and the run that built them, when every one is known and still on the engine."""
        with self._runner.database.read() as session:
            found = images.known(session, self._begun.project.id, list(keys.values()))
        if not keys or len(found) < len(set(keys.values())):
            return None
        by_target = {target: found[keys[target]] for target in targets}
        if not all(self._has(digest) for digest, _ in by_target.values()):
            return None
        return {target: digest for target, (digest, _) in by_target.items()}, by_target[targets[0]][1]

    def _has(self, image: str) -> bool:
        """Whether the image can be run: it is in the registry, or on the engine where there is none."""
        registry = self._runner.registry
        if "@" in image:
            return bool(registry) and registry.has(image)
        return not registry and self._builder.image_id(image) is not None


def read_dockerfile(checkout: Checkout, spec: ImageSpec) -> Dockerfile:
    """The commit's Dockerfile. Raises UserError when there is none, or when it may not be used."""
    checkout.check_folder(spec.context)
    text = checkout.read(spec.dockerfile)
    if text is None:
        raise UserError(
            "there is no such file in this commit",
            where=spec.dockerfile,
            remedy=f"add a Dockerfile, or set image.dockerfile in {FILE}",
        )
    return dockerfile.parse(text, spec.dockerfile)


def wanted_targets(pipeline: Pipeline, parsed: Dockerfile) -> list[str | None]:
    """The promoted target first, then what the stages ask for besides. Raises BuildFailed for one that is not there."""
    promoted = pipeline.image.target
    wanted = [promoted, *(stage.target for stage in pipeline.stages.values() if stage.target is not None)]
    targets = list(dict.fromkeys(wanted))
    for target in targets:
        parsed.stage(target)
    return targets
