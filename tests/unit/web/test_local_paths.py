from __future__ import annotations

import pytest

from cd.web.context import local


@pytest.mark.parametrize("target", ["/", "/projects/demo", "/projects/demo?before=3", "/a/b#c"])
def test_paths_of_this_server_are_kept(target: str) -> None:
    assert local(target) == target


@pytest.mark.parametrize(
    "target",
    [
        None,
        "",
        "projects",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "/a\\..\\b",
        "https://evil.example/",
        "javascript:alert(1)",
        "/\t/evil.example",
        "/\n/evil.example",
        " /x",
    ],
)
def test_anything_else_is_not_followed(target: str | None) -> None:
    assert local(target) == "/"
