"""The forges whose webhooks are understood. A new one is a module like the others and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from cd.webhooks.forges import generic, github
from cd.webhooks.forges.base import Forge

FORGES: Mapping[str, Forge] = {
    "github": github,
    "generic": generic,
}
