"""The "deploy" task: from a promotion whose gates are passed to a release that serves."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from cd.promote import attempts
from cd.promote.attempts import OPEN, Attempt, Line
from cd.promote.cleaning import clean
from cd.promote.progress import RETIRE
from cd.promote.targets import FindTarget
from cd.promote.targets.base import DeployFailed, Target
from cd.store.base import now
from cd.store.database import Database
from cd.store.tasks import Claim

__all__ = ["Deployer", "clean", "give_up"]


@dataclass(frozen=True)
class Deployer:
    """What executes "deploy" tasks. `instance` is this installation's mark on what it makes."""

    database: Database
    targets: FindTarget
    instance: str

    def execute(self, claim: Claim) -> None:
        """Deploy the claimed promotion; as a "retire" task, remove what it replaced.

        The two are tasks of their own, so that what comes next need not wait for old connections to end.
        May be called again after an end at any point, by any worker: it goes on from the rows and from what exists
        on the target. Raises ServiceError when the engine or the database is away (then it should be), StaleWrite
        when the claim was lost. What the release is at fault for ends in the promotion's state instead.
        """
        with self.database.write() as session:
            attempt = attempts.begin(session, claim, self.instance)
        if attempt is None:
            return
        target = self.targets(attempt.spec)
        if claim.kind != RETIRE:
            _Rollout(self.database, target, attempt).run()
        elif attempt.live:  # else a newer one is, which looks after what is left
            target.retire(attempt.served)
            self._leave_engine(target, attempt)

    def _leave_engine(self, target: Target, attempt: Attempt) -> None:
        """When the environment has moved to another engine, nothing of it stays on the one before."""
        if attempt.previous_spec is not None:
            before = self.targets(attempt.previous_spec)
            if before is not target:
                before.clear(attempt.app.place)


class _Rollout:
    """One attempt, and the lines of its timeline that are not stored yet."""

    def __init__(self, database: Database, target: Target, attempt: Attempt) -> None:
        self._database, self._target, self._attempt = database, target, attempt
        self._lines: list[Line] = []

    def run(self) -> None:
        """Deploy if that is not done yet; what did not become live is removed."""
        state = self._attempt.state
        live = state == "succeeded"
        if state in OPEN:
            live = self._turn_back() if state == "rolling_back" else self._forward()
        if not live:
            self._target.discard(self._attempt.app)

    def _note(self, what: str, ok: bool) -> None:
        self._lines.append(Line(now(), what, ok))

    def _take_lines(self) -> list[Line]:
        taken, self._lines = self._lines, []
        return taken

    def _forward(self) -> bool:
        try:
            self._prepare()
        except DeployFailed as error:
            return self._fail(error)
        with self._database.write() as session:
            # Also the last look at the fence before traffic moves.
            attempts.enter(session, self._attempt, self._take_lines(), "verifying")
        try:
            if self._attempt.reuse is None:
                self._target.switch(self._attempt.app, self._note)
        except DeployFailed as error:
            return self._switch_failed(error)
        with self._database.write() as session:
            attempts.succeed(session, self._attempt, self._take_lines())
        return True

    def _prepare(self) -> None:
        reuse = self._attempt.reuse
        if reuse is not None:
            if self._target.serves(reuse):
                self._note(f"the same image and settings run already, as deployment {reuse.deployment}", True)
                return
            with self._database.write() as session:
                attempts.not_reused(session, self._attempt, self._take_lines())
            self._attempt = replace(self._attempt, reuse=None)
        self._target.prepare(self._attempt.app, self._note)

    def _fail(self, error: DeployFailed) -> bool:
        self._note(str(error), False)
        evidence = error.evidence.as_json()
        with self._database.write() as session:
            attempts.fail(
                session, self._attempt, self._take_lines(), state="failed", reason=str(error), evidence=evidence
            )
        return False

    def _switch_failed(self, error: DeployFailed) -> bool:
        app = self._attempt.app
        if self._attempt.previous is None:
            self._target.switch_back(app.place, app.target, None, self._note)
            return self._fail(error)
        self._note(str(error), False)
        with self._database.write() as session:
            attempts.turn_back(session, self._attempt, self._take_lines(), str(error), error.evidence.as_json())
        return self._turn_back()

    def _turn_back(self) -> bool:
        app = self._attempt.app
        state, reason = "rolled_back", ""
        try:
            self._target.switch_back(app.place, app.target, self._attempt.previous, self._note)
        except DeployFailed as error:
            self._note(str(error), False)
            state, reason = "rollback_failed", str(error)
        with self._database.write() as session:
            attempts.fail(session, self._attempt, self._take_lines(), state=state, reason=reason)
        return False


def give_up(session: Session, claim: Claim, reason: str) -> None:
    """The task failed for good: a deployment that was under way ends as `errored`.

    What it leaves on the engine is for `clean`.
    """
    attempts.give_up(session, claim.subject, reason)
