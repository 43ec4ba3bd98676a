"""The scene of tests about promotion."""

from __future__ import annotations

import pytest
from promote_scene import Scene

from cd.store.database import Database


@pytest.fixture
def scene(database: Database) -> Scene:
    """dev, then staging by themselves, then prod with an approval; on SQLite and on PostgreSQL."""
    made = Scene(database)
    made.apply()
    return made
