"""What a forge is to Towpath: one pure module with these names."""

from __future__ import annotations

from typing import Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cd.errors import UserError
from cd.webhooks.events import Event, fault
from cd.webhooks.signature import Headers

MAX_ID = 200

M = TypeVar("M", bound="Payload")


class Forge(Protocol):
    """A module of this package. Header names are in lower case."""

    @property
    def KEPT(self) -> tuple[str, ...]:  # noqa: N802 - a constant of the module
        """Headers that are stored with a delivery, by how their names begin; never one that holds a secret."""

    def verify(self, secret: str, headers: Headers, body: bytes, at: float) -> None:
        """Check the signature over the raw bytes; `at` is Unix time now. Raises Unauthorized."""

    def delivery_id(self, headers: Headers) -> str:
        """The forge's own id of this delivery. Raises UserError when it is missing."""

    def event(self, headers: Headers, body: bytes) -> Event:
        """What it says. Raises UserError that names the fault and its place."""


class Payload(BaseModel):
    """Base of payload models: forges add keys whenever they like."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def read(model: type[M], body: bytes, source: str) -> M:
    """The payload, checked. Raises UserError with the place of the fault; `source` is its remedy."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise fault(error.errors(include_url=False, include_context=False, include_input=False), source) from error


def header_id(headers: Headers, name: str) -> str:
    """The delivery id out of a header. Raises UserError."""
    value = headers.get(name, "").strip()
    if not value:
        raise UserError(f"the header {name} is missing", remedy="send the id of the delivery in it")
    if len(value) > MAX_ID or not value.isprintable():
        raise UserError(f"the header {name} is over {MAX_ID} characters or not printable", remedy="send a plain id")
    return value
