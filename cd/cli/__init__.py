"""The `towpath` command: a client of the HTTP API, and the processes of a server."""

from __future__ import annotations

import click

from cd.cli.lazy import Entry, LazyGroup

#: In the order of `towpath --help`. The texts are the first lines of the commands' own help.
COMMANDS = {
    "up": Entry("cd.cli.up", "up", "Run everything on this machine."),
    "web": Entry("cd.cli.up", "web", "Run the web process: pages, API and webhooks."),
    "worker": Entry("cd.cli.up", "worker", "Run one worker process."),
    "scheduler": Entry("cd.cli.up", "scheduler", "Run the scheduler process."),
    "migrate": Entry("cd.cli.up", "migrate", "Bring the database to the newest schema."),
    "login": Entry("cd.cli.login", "login", "Get a token of a server and keep it."),
    "project": Entry("cd.cli.project", "project", "Connect repositories."),
    "secret": Entry("cd.cli.secret", "secret", "Keep what stages and builds must know and nobody may see."),
    "environment": Entry("cd.cli.environment", "environment", "Say where releases go, and by which policy."),
    "run": Entry("cd.cli.run", "run", "Start, watch and end runs."),
    "tests": Entry("cd.cli.tests", "tests", "Look at the tests that stages reported."),
    "artifact": Entry("cd.cli.artifact", "artifact", "List and fetch what stages left to be kept."),
    "shell": Entry("cd.cli.shell", "shell", "Open a shell on the files of a failed stage."),
    "images": Entry("cd.cli.images", "images", "Show what images take of the engine's disk, and what needs them."),
    "promotion": Entry("cd.cli.promotion", "promotion", "See what wants to go where."),
    "promote": Entry("cd.cli.promotion", "promote", "Ask for a release to be brought into an environment."),
    "approve": Entry("cd.cli.promotion", "approve", "Vote for a promotion."),
    "reject": Entry("cd.cli.promotion", "reject", "Vote against a promotion, which ends it."),
    "why": Entry("cd.cli.promotion", "why", "Say what a promotion waits for, and who can help."),
    "rollback": Entry("cd.cli.environment", "rollback", "Bring an environment back to an earlier release."),
    "hold": Entry("cd.cli.environment", "hold", "Pin what runs in an environment."),
    "unhold": Entry("cd.cli.environment", "unhold", "Let an environment go again."),
    "deliveries": Entry("cd.cli.deliveries", "deliveries", "Look at received webhooks."),
    "audit": Entry("cd.cli.audit", "audit", "Read and check the audit log."),
    "user": Entry("cd.cli.people", "user", "Manage accounts."),
    "token": Entry("cd.cli.people", "token", "Manage your API tokens."),
    "validate": Entry("cd.cli.validate", "validate", "Check a pipeline file."),
    "schema": Entry("cd.cli.schema", "schema", "Print the JSON Schema of the pipeline file, for editors."),
    "doctor": Entry("cd.cli.doctor", "doctor", "Check this machine, and that the engine's sandbox stops what it must."),
    "exec": Entry("cd.cli.execute", "execute", "Run the pipeline of the working tree on this machine."),
}


@click.command(cls=LazyGroup, entries=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="towpath", message="%(prog)s %(version)s")
def main() -> None:
    """Push to git; Towpath builds one image, tests it in isolated containers, and promotes that same image.

    Commands that ask a server take it and the token from TOWPATH_URL and TOWPATH_TOKEN, or from what `towpath login`
    kept. They end with 0 when all went well, 1 when something did not, 2 when they were called wrongly.
    """
