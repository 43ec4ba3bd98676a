"""The builder's last words, of both generations, as the error that they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from cd.errors import ServiceError
from cd.pipeline.builder import BuildRequest, command
from cd.pipeline.buildtool import Tool, has_own_buildkit
from cd.pipeline.definition import ImageSpec
from cd.pipeline.dockerfile import BuildFailed, parse
from cd.pipeline.faults import explain

DOCKERFILE = parse(
    b"""FROM base:1 AS base
WORKDIR /app
COPY a /a
RUN echo hi && \\
    exit 3
FROM base
ENV A=1
COPY nothere /x
RUN two
""",
    "Dockerfile",
)

OLD_RUN = """\
#6 0.153 dial tcp: no space left on device
#6 ERROR: executor failed running [/bin/sh -c echo hi && exit 3]: exit code: 3
------
 > [base 4/4] RUN echo hi && exit 3:
------
executor failed running [/bin/sh -c echo hi && exit 3]: exit code: 3
"""
NEW_RUN = """\
#6 ERROR: process "/bin/sh -c echo hi && exit 3" did not complete successfully: exit code: 3
------
 > [base 4/4] RUN echo hi && exit 3:
0.153 no space left on device
------
Dockerfile:4
--------------------
   3 |     COPY a /a
   4 | >>> RUN echo hi && \\
   5 | >>>     exit 3
--------------------
ERROR: failed to solve: process "/bin/sh -c echo hi && exit 3" did not complete successfully: exit code: 3
"""
OLD_COPY = """\
#6 ERROR: "/nothere" not found: not found
------
 > [stage-1 1/2] COPY nothere /x:
------
failed to compute cache key: "/nothere" not found: not found
"""
NEW_COPY = """\
------
 > [stage-1 1/2] COPY nothere /x:
------
Dockerfile:8
--------------------
   8 | >>> COPY nothere /x
--------------------
ERROR: failed to solve: failed to compute cache key: failed to calculate checksum of ref a::b: "/nothere": not found
"""
OLD_PARSE = """\
#2 DONE 0.0s
failed to solve with frontend dockerfile.v0: failed to create LLB definition: dockerfile parse error line 2: unknown x
"""
NEW_PARSE = "ERROR: failed to solve: dockerfile parse error on line 2: unknown x\n"
METADATA = """\
#3 ERROR: docker.io/library/base:1: not found
------
 > [internal] load metadata for docker.io/library/base:1:
------
failed to solve with frontend dockerfile.v0: failed to create LLB definition: docker.io/library/base:1: not found
"""


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (OLD_RUN, "Dockerfile:4: `RUN echo hi && exit 3` failed with exit code 3"),
        (NEW_RUN, "Dockerfile:4: `RUN echo hi && exit 3` failed with exit code 3"),
        (OLD_COPY, 'Dockerfile:8: "/nothere" not found: not found'),
        (NEW_COPY, 'Dockerfile:8: "/nothere": not found'),
        (OLD_PARSE, "Dockerfile:2: unknown x"),
        (NEW_PARSE, "Dockerfile:2: unknown x"),
        (METADATA, "Dockerfile:1: docker.io/library/base:1: not found"),
    ],
)
def test_faults_of_the_dockerfile_name_their_line(output: str, said: str) -> None:
    error = explain(output, DOCKERFILE)
    assert isinstance(error, BuildFailed)
    assert str(error) == said


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("failed to dial gRPC: cannot connect to the Docker daemon. Is 'docker daemon' running?", "could not build"),
        ("ERROR: Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?", "could not build"),
        ("#7 ERROR: x\n------\n > exporting:\n------\nwrite /var/lib/x: no space left on device", "disk is full"),
        ('------\nfailed to do request: Head "https://r/v2/": dial tcp: lookup r: no such host', "could not build"),
        ("ERROR: failed to receive status: rpc error: code = Unavailable desc = closing", "could not build"),
    ],
)
def test_faults_of_the_engine_are_not_the_repositorys(output: str, said: str) -> None:
    error = explain(output, DOCKERFILE)
    assert isinstance(error, ServiceError)
    assert said in str(error)


@pytest.mark.parametrize(
    ("version", "able"),
    [
        ("Docker version 20.10.24+dfsg1, build 297e128", True),
        ("Docker version 19.03.1, build x", True),
        ("Docker version 18.09.1, build x", False),
        ("Docker version 28.2.2, build e6534b4", False),
        ("podman version 4", False),
    ],
)
def test_a_docker_with_buildkit_inside_is_known_by_its_version(version: str, able: bool) -> None:
    assert has_own_buildkit(version) is able


def test_the_command_holds_what_the_repository_says_inside_of_options() -> None:
    request = BuildRequest(
        files=Path("/w"),
        spec=ImageSpec(context="web", dockerfile="web/Dockerfile", target="--run", args={"A": "--b=$(id)"}),
        dockerfile=DOCKERFILE,
        targets=["--run"],
        tag="towpath/shop:run-1",
        namespace="towpath-7",
    )
    assert command(Tool(("docker", "build")), request, "--run", Path("/i"), {"TOKEN": Path("/s")}) == [
        "docker",
        "build",
        "--progress=plain",
        "--iidfile=/i",
        "--file=/w/web/Dockerfile",
        "--secret=id=TOKEN,src=/s",
        "--build-arg=A=--b=$(id)",
        "--build-arg=BUILDKIT_CACHE_MOUNT_NS=towpath-7",
        "--target=--run",
        "--tag=towpath/shop:run-1",
        "--",
        "/w/web",
    ]
    other = command(Tool(("docker", "build")), request, "test", Path("/i"))
    assert "--tag=towpath/shop:run-1-test" in other
