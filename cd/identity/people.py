"""Who somebody is and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a person may do; each role may do all that the ones before it may."""

    viewer = "viewer"
    developer = "developer"
    approver = "approver"
    admin = "admin"

    def allows(self, needed: Role) -> bool:
        """Whether this role is enough where `needed` is asked for."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class Person:
    """Somebody who has proven who they are."""

    id: int
    username: str
    role: Role
