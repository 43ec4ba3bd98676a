"""Alembic's entry: runs revisions on the engine that `cd.store.migrations` hands over."""

from __future__ import annotations

from alembic import context
from sqlalchemy import text

from cd.identity import records as _identity  # noqa: F401 - the tables must be known to autogenerate
from cd.pipeline import records as _pipeline  # noqa: F401
from cd.promote import records as _promote  # noqa: F401
from cd.store import records as _store  # noqa: F401
from cd.store.base import Base
from cd.store.database import EVENT_LOCK
from cd.webhooks import records as _webhooks  # noqa: F401

engine = context.config.attributes["engine"].execution_options(towpath_writer=True)
with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        compare_type=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": EVENT_LOCK + 1})
        context.run_migrations()
    connection.commit()
