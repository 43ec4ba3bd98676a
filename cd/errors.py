"""The one tree of errors. What a person can mend is a UserError; the rest is a ServiceError."""

from __future__ import annotations


class TowpathError(Exception):
    """Base of every error that Towpath raises on purpose."""


class UserError(TowpathError):
    """Something the user can change. `message` says what is wrong, `where` the place, `remedy` what to do.

    >>> str(UserError("no Dockerfile", where="web/", remedy="add one or set image.dockerfile"))
    'web/: no Dockerfile; add one or set image.dockerfile'
    """

    #: HTTP status that the API answers with when this error reaches it.
    status = 400

    def __init__(self, message: str, *, where: str = "", remedy: str = "") -> None:
        self.message, self.where, self.remedy = message, where, remedy
        text = f"{where}: {message}" if where else message
        super().__init__(f"{text}; {remedy}" if remedy else text)


class NotFound(UserError):
    """No such thing, or none that this person may see."""

    status = 404


class Conflict(UserError):
    """The thing has moved on: somebody else was first, or its state does not allow this now."""

    status = 409


class Forbidden(UserError):
    """The person is known but may not do this."""

    status = 403


class Unauthorized(UserError):
    """Nobody is signed in, or the signature is wrong."""

    status = 401


class TooLarge(UserError):
    """The input is over a stated limit."""

    status = 413


class ServiceError(TowpathError):
    """Towpath's or an engine's fault. `retryable` says whether trying again can help by itself."""

    def __init__(self, message: str, *, retryable: bool = True, remedy: str = "") -> None:
        self.message, self.retryable, self.remedy = message, retryable, remedy
        super().__init__(f"{message}; {remedy}" if remedy else message)


class StaleWrite(TowpathError):
    """A compare-and-set changed no row: the state or the fence is not what the writer believed."""
