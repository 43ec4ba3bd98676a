from __future__ import annotations

import pytest

from cd import errors
from cd.errors import ServiceError, StaleWrite, TowpathError, UserError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UserError("no Dockerfile"), "no Dockerfile"),
        (UserError("no Dockerfile", where="web/"), "web/: no Dockerfile"),
        (UserError("no Dockerfile", remedy="add one"), "no Dockerfile; add one"),
        (UserError("no Dockerfile", where="web/", remedy="add one"), "web/: no Dockerfile; add one"),
        (ServiceError("the engine is away"), "the engine is away"),
        (ServiceError("the engine is away", remedy="start it"), "the engine is away; start it"),
    ],
)
def test_the_text_says_where_what_and_what_to_do(error: TowpathError, text: str) -> None:
    assert str(error) == text


def test_one_tree_and_a_status_for_each_fault_of_a_person() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert all(issubclass(kind, TowpathError) for kind in kinds)
    assert {kind.__name__: kind.status for kind in kinds if issubclass(kind, UserError)} == {
        "UserError": 400,
        "Unauthorized": 401,
        "Forbidden": 403,
        "NotFound": 404,
        "Conflict": 409,
        "TooLarge": 413,
    }
    assert not issubclass(StaleWrite, UserError | ServiceError)
    assert ServiceError("x").retryable
