"""The database's schema, brought to the newest revision by Alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from cd.errors import ServiceError
from cd.store import facts
from cd.store.database import Database


def _config(database: Database) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["engine"] = database.engine
    return config


def upgrade(database: Database) -> None:
    """Bring the schema to the newest revision; nothing happens when it is there already.

    On SQLite the steps run in one writing transaction, on PostgreSQL under an advisory lock, so that two
    processes that start at once don't both make the tables.
    """
    if not is_current(database):
        command.upgrade(_config(database), "head")
    with database.write() as session:
        facts.instance(session)


def is_current(database: Database) -> bool:
    """Whether the schema is at the newest revision."""
    head = ScriptDirectory.from_config(_config(database)).get_current_head()
    with database.read() as session:
        return MigrationContext.configure(session.connection()).get_current_revision() == head


def check(database: Database) -> None:
    """Raises ServiceError unless the schema is the one that this version works with."""
    if not is_current(database):
        raise ServiceError("the database's schema is not up to date", retryable=False, remedy="run `towpath migrate`")
