"""Patterns of files in /work and /tmp."""

from __future__ import annotations

from time import process_time

import pytest

from cd.errors import UserError
from cd.pipeline.globs import glob, roots

FITS = [
    ("/work/junit.xml", "/work/junit.xml"),
    ("/work/dist/*", "/work/dist/a.whl"),
    ("/work/dist/*", "/work/dist/.hidden"),
    ("/work/dist/*", "/work/dist/folder/deep/file"),
    ("/work/dist", "/work/dist/folder/file"),
    ("/work//dist/./*", "/work/dist/x"),
    ("/work/**/*.xml", "/work/a.xml"),
    ("/work/**/*.xml", "/work/a/b/c.xml"),
    ("/work/**/reports/*.xml", "/work/a/reports/reports/c.xml"),
    ("/work/**/a/**/b", "/work/a/x/a/y/z/b"),
    ("/work/**", "/work/x/y"),
    ("/tmp/core.[0-9]*", "/tmp/core.12"),
    ("/tmp/?.log", "/tmp/a.log"),
    ("/work/a[[]1].txt", "/work/a[1].txt"),
]
DOES_NOT = [
    ("/work/junit.xml", "/work/junit.xml.bak"),
    ("/work/dist/*", "/work/dist2/a"),
    ("/work/*.xml", "/work/a/b.xml"),
    ("/work/**/*.xml", "/work/a/b.txt"),
    ("/work/**", "/work"),
    ("/work/a?c", "/work/a/c"),
    ("/work/**/reports/*.xml", "/work/reports"),
    ("/work/A", "/work/a"),
]


@pytest.mark.parametrize("pattern,path", FITS)
def test_fits(pattern: str, path: str) -> None:
    assert glob(pattern).matches(path)


@pytest.mark.parametrize("pattern,path", DOES_NOT)
def test_does_not_fit(pattern: str, path: str) -> None:
    assert not glob(pattern).matches(path)


@pytest.mark.parametrize(
    "pattern", ["", "dist/*", "/", "/etc/passwd", "/work/../etc/passwd", "/workshop/x", "/*/x", "/work/\0", "../x"]
)
def test_other_places_are_refused(pattern: str) -> None:
    with pytest.raises(UserError, match="/work and /tmp"):
        glob(pattern)


def test_roots_hold_all_that_patterns_fit() -> None:
    patterns = ["/work/dist/*", "/work/dist/docs/**", "/work/junit.xml", "/tmp/*.log", "/work/distant/a*"]
    assert list(roots(glob(one) for one in patterns)) == ["/tmp", "/work/dist", "/work/distant", "/work/junit.xml"]
    assert list(roots([glob("/work/**/x"), glob("/work/a")])) == ["/work"]


@pytest.mark.parametrize("pattern", ["/work/" + "*a" * 60 + "b", "/work/" + "**/a*/" * 40 + "b"])
def test_no_pattern_takes_long(pattern: str) -> None:
    began = process_time()
    assert not glob(pattern).matches("/work/" + "a" * 250 + "/a" * 1500)
    assert process_time() - began < 1
