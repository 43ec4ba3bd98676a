"""`towpath up` and the processes it is made of."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from cd import log, wiring
from cd import scheduler as scheduling
from cd import worker as working
from cd.cli import redis_server
from cd.cli.supervisor import Supervisor
from cd.config import Settings
from cd.errors import TowpathError, UserError
from cd.identity import users
from cd.pipeline import projects
from cd.queue.doorbell import DEPLOY, WORK
from cd.rehearsal import rehearse
from cd.wiring import Services

home_option = click.option("--home", type=click.Path(path_type=Path), help="Folder for everything that is kept.")
bind_option = click.option("--bind", metavar="HOST:PORT", help="Where the web process listens.")


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """An error of ours is one clear line, and exit status 1."""
    try:
        yield
    except TowpathError as error:
        click.echo(f"towpath: {error}", err=True)
        raise SystemExit(1) from error


def _settings(**given: Any) -> Settings:
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise _misset(error) from error
    log.configure(settings.log_level)
    if shutil.which("git") is None:
        raise UserError("git is not installed", remedy="install it (Debian: git)")
    return settings


def _misset(error: ValidationError) -> UserError:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    return UserError(
        f"{first['msg']} (it is {first['input']!r})",
        where=f"TOWPATH_{name.upper()}",
        remedy="correct the setting; README lists them all",
    )


@click.command()
@home_option
@bind_option
@click.option("--workers", type=click.IntRange(1, 64), help="Stages and builds that run at the same time.")
def up(home: Path | None, bind: str | None, workers: int | None) -> None:
    """Run everything on this machine: web, workers, scheduler, and a Redis unless one is given."""
    with _plain_errors():
        settings = _settings(home=home, bind=bind, workers=workers)
        services = wiring.build(settings)
        with _only_one(settings.folder), _listener(settings.bind) as listener:
            services.sandbox.ping()
            services.sandbox.after_fork()
            _run_group(services, listener)


def _run_group(services: Services, listener: socket.socket) -> None:
    from cd import wsgi  # loaded before the forks, so that they share it

    settings = services.settings
    group = Supervisor()
    try:
        if not settings.redis_url:
            redis_server.program()
            group.add("redis", lambda: redis_server.run(settings.folder / "redis.sock"))
        redis_server.wait(services.redis)
        _in_fork(lambda: _prepare(services))
        rehearse(services)
        # Nothing may be open at a fork: children make their own connections.
        services.redis.connection_pool.disconnect()
        services.database.close()
        gc.collect()
        gc.freeze()
        group.add("web", lambda: wsgi.serve(services, listener))
        group.add("scheduler", lambda: scheduling.Scheduler(services).run())
        name = f"{socket.gethostname()}-{settings.folder}"
        for number in range(1, settings.workers + 1):
            group.add(f"worker {number}", _worker(services, WORK, f"{name}-{number}"[-120:]))
        group.add("worker deploy", _worker(services, DEPLOY, f"{name}-deploy"[-120:]))
        click.echo(f"Towpath runs at {settings.url}")
        sys.stdout.flush()
    except BaseException:
        group.stop()
        raise
    group.run()


def _worker(services: Services, queue: str, name: str) -> Any:
    return lambda: working.run(services, queue=queue, name=name, rehearsed=True)


def _in_fork(body: Callable[[], None]) -> None:
    """Do something once in a process of its own: what it loads (Alembic) must not weigh on all the others."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with _plain_errors():
                body()
            code = 0
        except SystemExit as leave:
            code = leave.code if isinstance(leave.code, int) else 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise SystemExit(1)


def _prepare(services: Services) -> None:
    from cd.store import migrations

    migrations.upgrade(services.database)
    with services.database.write() as session:
        password = users.first_admin(session)
    if password is not None:
        click.echo(f"admin password: {password}")
        click.echo("(shown only now; the user is admin)")
    with services.database.read() as session:
        services.repositories.refresh_hooks(projects.listing(session), partial(projects.secret, services.vault))


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    with (folder / "up.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                "Towpath runs already with this home", where=str(folder), remedy="stop it, or choose another --home"
            ) from error
        yield


@contextlib.contextmanager
def _listener(bind: str) -> Iterator[socket.socket]:
    """The web's socket, held here: connections wait in it while the web process starts again."""
    host, _, port = bind.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise UserError("not an address", where=f"--bind {bind}", remedy="write HOST:PORT, such as 127.0.0.1:8000")
    host = host.strip("[]") or "127.0.0.1"
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, int(port)))
        except OSError as error:
            raise UserError(
                f"can't listen there: {error.strerror or error}",
                where=bind,
                remedy="stop what uses the port, or choose another one with --bind",
            ) from error
        listener.listen(2048)
        yield listener


def _ready(settings: Settings) -> Services:
    """For a process of its own: everything that it stands on must be there."""
    from cd.store import migrations

    services = wiring.build(settings)
    redis_server.wait(services.redis, 2.0)
    migrations.check(services.database)
    return services


@click.command()
@home_option
@bind_option
def web(home: Path | None, bind: str | None) -> None:
    """Run the web process: pages, API and webhooks."""
    with _plain_errors():
        settings = _settings(home=home, bind=bind)
        services = _ready(settings)
        services.database.close()
        services.redis.connection_pool.disconnect()
        with _listener(settings.bind) as listener:
            from cd import wsgi

            wsgi.serve(services, listener)


@click.command()
@home_option
@click.option("--queue", type=click.Choice(["work", "deploy"]), default="work", show_default=True, help="Whose tasks.")
@click.option("--name", default="", help="Name of this worker; one that starts under it again resumes its work.")
def worker(home: Path | None, queue: str, name: str) -> None:
    """Run one worker process; builds and stages, or with `--queue deploy` deployments."""
    with _plain_errors():
        services = _ready(_settings(home=home))
        working.run(services, queue=DEPLOY if queue == "deploy" else WORK, name=name)


@click.command()
@home_option
def scheduler(home: Path | None) -> None:
    """Run the scheduler process; of several one is active."""
    with _plain_errors():
        scheduling.Scheduler(_ready(_settings(home=home))).run()


@click.command()
@home_option
def migrate(home: Path | None) -> None:
    """Bring the database to the newest schema."""
    from cd.store import migrations

    with _plain_errors():
        services = wiring.build(_settings(home=home))
        migrations.upgrade(services.database)
        with services.database.write() as session:
            password = users.first_admin(session)
        click.echo("the database is up to date")
        if password is not None:
            click.echo(f"admin password: {password}")


__all__ = ["migrate", "scheduler", "up", "web", "worker"]
