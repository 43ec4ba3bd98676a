"""What is read out of a Dockerfile before anything is built."""

from __future__ import annotations

import pytest

from cd.pipeline.dockerfile import BuildFailed, expand, parse

TEXT = rb"""# a comment
# escape=\
ARG VERSION=3.11
ARG REGISTRY
FROM ${REGISTRY:-docker.example}/python:${VERSION} AS base
RUN echo a \
    # a comment between

    && echo b
RUN <<EOF
FROM not/an:instruction
EOF
FROM --platform=linux/amd64 base AS test
COPY --from=tools:1 /bin/x /bin/x
RUN --mount=type=bind,from=base,target=/x true
FROM unused/image
FROM scratch AS runtime
COPY --from=0 /app /app
"""


def test_stages_and_instructions_keep_their_lines() -> None:
    parsed = parse(TEXT, "Dockerfile")
    assert [(stage.name, stage.base, stage.line) for stage in parsed.stages] == [
        ("base", "${REGISTRY:-docker.example}/python:${VERSION}", 5),
        ("test", "base", 13),
        ("", "unused/image", 16),
        ("runtime", "scratch", 17),
    ]
    assert [(one.line, one.keyword, one.rest) for one in parsed.stages[0].instructions] == [
        (6, "RUN", "echo a && echo b"),
        (10, "RUN", "<<EOF"),
    ]


@pytest.mark.parametrize(
    ("targets", "args", "bases"),
    [
        (["runtime"], {}, {"docker.example/python:3.11": 5}),
        ([None], {"VERSION": "3.12"}, {"docker.example/python:3.12": 5}),
        (["test"], {"REGISTRY": "r", "OTHER": "x"}, {"r/python:3.11": 5, "tools:1": 14}),
        (["2"], {}, {"unused/image": 16}),
    ],
)
def test_bases_are_those_that_the_targets_need(
    targets: list[str | None], args: dict[str, str], bases: dict[str, int]
) -> None:
    assert parse(TEXT, "Dockerfile").bases(targets, args) == bases


def test_a_base_that_only_the_builder_knows_makes_all_unknown() -> None:
    assert parse(b"FROM x-$TARGETARCH\n", "Dockerfile").bases([None], {}) is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("# syntax=docker/dockerfile:1\nFROM x", 1),
        ("\ufeff#  SyNtAx = evil\r\nFROM x", 1),
        ("#!/bin/x\n// syntax=evil\nFROM x", 2),
        ("# escape=`\n#syntax=evil\nFROM x", 2),
        ("FROM x\nARG BUILDKIT_SYNTAX=evil", 2),
        ('{"syntax": "evil"}', 1),
    ],
)
def test_another_builder_is_refused(text: str, line: int) -> None:
    with pytest.raises(BuildFailed) as caught:
        parse(text.encode(), "web/Dockerfile")
    assert caught.value.where == f"web/Dockerfile:{line}"


def test_an_unknown_target_is_told_with_those_there_are() -> None:
    with pytest.raises(BuildFailed, match="no stage 'tset' in it; correct the target; stages: base, test, runtime"):
        parse(TEXT, "Dockerfile").stage("tset")
    with pytest.raises(BuildFailed, match="there is no FROM"):
        parse(b"", "Dockerfile").stage(None)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [("a$X", "a1"), ("${X}b", "1b"), ("${Y:-z}", "z"), ("${X:+y}", "y"), ("$Y", None), ("${X%b}", None), ("$E", None)],
)
def test_variables(text: str, expanded: str | None) -> None:
    assert expand(text, {"X": "1", "E": None}) == expanded
