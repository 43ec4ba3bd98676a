"""For all tests: whatever lies in `unit` opens no socket, not even a Unix one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

#: Real servers for the tests in `integration` and `contract`.
pytest_plugins = ("servers",)

UNIT = Path(__file__).parent / "unit"

# The machine may be busy with other tests: how long an example takes says nothing, and examples must repeat.
settings.register_profile(
    "towpath", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("towpath")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(UNIT):
            item.add_marker(pytest.mark.disable_socket)
