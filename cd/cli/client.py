"""The client of `/api/v1`: JSON in and out, problems as the errors of Towpath."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cd.cli import credentials
from cd.cli.credentials import Credentials
from cd.errors import Conflict, Forbidden, NotFound, ServiceError, TooLarge, Unauthorized, UserError

if TYPE_CHECKING:
    import httpx

PREFIX = "/api/v1"
#: Most items of one page.
PAGE = 200
_KINDS = {401: Unauthorized, 403: Forbidden, 404: NotFound, 409: Conflict, 413: TooLarge}


class Client:
    """Calls one server. Raises UserError for what it refuses, ServiceError when it does not answer."""

    def __init__(self, told: Credentials) -> None:
        import httpx

        if not told.url.startswith(("http://", "https://")):
            raise UserError(f"{told.url!r} is not a server's URL", remedy="write it like https://towpath.example.org")
        self.url = told.url
        headers = {"Authorization": f"Bearer {told.token}"} if told.token else {}
        self._http = httpx.Client(
            base_url=told.url + PREFIX, headers=headers, timeout=httpx.Timeout(60.0, connect=10.0)
        )

    def get(self, path: str, **params: Any) -> Any:
        """What is at `path`; parameters that are None are left out."""
        return self._call("GET", path, params=_set(params))

    def pages(self, path: str, limit: int, **params: Any) -> list[Any]:
        """Up to `limit` items of a list, however many pages that takes."""
        items: list[Any] = []
        before: int | None = None
        while len(items) < limit:
            page = self.get(path, limit=min(limit - len(items), PAGE), before=before, **params)
            items += page["items"]
            before = page.get("next")
            if before is None:
                break
        return items

    def post(self, path: str, **body: Any) -> Any:
        """Send a JSON body; keys that are None are left out."""
        return self._call("POST", path, json=_set(body))

    def patch(self, path: str, **body: Any) -> Any:
        """The same with PATCH."""
        return self._call("PATCH", path, json=_set(body))

    def put(self, path: str, **body: Any) -> Any:
        """The same with PUT."""
        return self._call("PUT", path, json=_set(body))

    def put_file(self, path: str, content: bytes, name: str) -> Any:
        """Send a file as it is; faults in it are told under `name`."""
        return self._call("PUT", path, name, content=content, headers={"Content-Type": "application/yaml"})

    def delete(self, path: str) -> Any:
        """Remove what is at `path`."""
        return self._call("DELETE", path)

    def stream(self, path: str, **params: Any) -> Iterator[bytes]:
        """The bytes of an answer as they come, however long that takes."""
        import httpx

        with (
            _reached(self.url),
            self._http.stream("GET", path, params=_set(params), timeout=httpx.Timeout(None, connect=10.0)) as answer,
        ):
            if answer.is_error:
                answer.read()
                raise _error(answer, self.url)
            yield from answer.iter_bytes()

    def _call(self, method: str, path: str, name: str = "", **sent: Any) -> Any:
        with _reached(self.url):
            answer = self._http.request(method, path, **sent)
        if not answer.is_success:
            raise _error(answer, self.url, name)
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError as error:
            raise _stranger(self.url, answer.status_code) from error


def connect() -> Client:
    """A client of the server that this user is logged in to. Raises UserError."""
    return Client(credentials.load())


def part(text: str | int) -> str:
    """A name as one part of a path."""
    from urllib.parse import quote

    if str(text) in ("", ".", ".."):
        raise UserError(f"{text!r} is not a name")
    return quote(str(text), safe="")


def _set(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


@contextlib.contextmanager
def _reached(url: str) -> Iterator[None]:
    import httpx

    try:
        yield
    except httpx.TimeoutException as error:
        raise ServiceError(f"{url} did not answer in time", remedy="try again in a moment") from error
    except (httpx.TransportError, httpx.InvalidURL) as error:
        reason = str(error).strip() or type(error).__name__
        raise ServiceError(
            f"{url} does not answer: {reason}", remedy="check the URL, and that the server runs"
        ) from error


def _error(answer: httpx.Response, url: str, name: str = "") -> Exception:
    """A problem as an error: with the places of its faults where a file was sent."""
    try:
        told = answer.json()
        detail = str(told["detail"])
    except (ValueError, KeyError, TypeError):
        return _stranger(url, answer.status_code)
    if any("line" in fault for fault in told.get("faults", ())):
        return _document_error(told, name)
    if answer.status_code >= 500:
        return ServiceError(detail, remedy=told.get("remedy", ""))
    kind = _KINDS.get(answer.status_code, UserError)
    remedy = told.get("remedy", "")
    if kind is Unauthorized:
        remedy = f"run `towpath login {url}`, or correct TOWPATH_TOKEN"
    return kind(detail, where=told.get("where", ""), remedy=remedy)


def _document_error(told: Mapping[str, Any], name: str) -> Exception:
    from cd.documents import DocumentError, Fault

    faults = [Fault(one["line"], one["column"], one["message"], one.get("remedy", "")) for one in told["faults"]]
    return DocumentError(name or told.get("where", ""), faults)


def _stranger(url: str, status: int) -> ServiceError:
    return ServiceError(f"{url} answered {status}, but not as Towpath does", remedy="check the URL")
