"""What a real stage leaves on a real engine, with all that it can do to make that hard."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pytest

from cd.pipeline.collecting import Collected, Collector
from cd.pipeline.definition import StageSpec
from cd.sandbox.base import ContainerSpec, Limits
from cd.sandbox.docker_engine import DockerSandbox

MIB = 1 << 20
REPORT = (
    "<testsuite name='s'><testcase name='a' time='1'/><testcase name='b'><failure>no</failure></testcase></testsuite>"
)


class Nowhere:
    """A sink for output that nobody asks for."""

    position = since = since_at = 0

    def write(self, data: bytes, times: Sequence[tuple[int, int]] = ()) -> None:
        self.position += len(data)


@dataclass
class Stages:
    """Runs a script and collects what it leaves."""

    sandbox: DockerSandbox
    image: str
    home: Path
    name: str

    def leave(self, script: str, *, limit: int = 16 * MIB, disk: int = 32 * MIB, **keys: object) -> Collected:
        limits = Limits(memory=64 * MIB, cpus=1, pids=64, disk=disk, timeout=60)
        command = ("sh", "-e", "-c", script)
        self.sandbox.start(ContainerSpec(self.name, self.image, command, limits, keep_files=True))
        ended = self.sandbox.follow(self.name, into=Nowhere(), timeout=60, canceled=lambda: False, limit=MIB)
        assert ended.exit_code == 0
        spec = StageSpec.model_validate({"run": script, "limits": {"disk": disk}, **keys})
        collector = Collector(self.sandbox, f"file://{self.home / 'blobs'}", limit, days=1)
        return collector.collect(self.name, spec, step_id=1, attempt=1, fence=1)


@pytest.fixture
def stages(busybox_image: str, tmp_path: Path) -> Iterator[Stages]:
    sandbox = DockerSandbox()
    made = Stages(sandbox, busybox_image, tmp_path, f"towpath-test-collect-{uuid.uuid4().hex[:12]}")
    yield made
    sandbox.remove(made.name)
    sandbox.api.close()


def test_reports_and_artifacts_come_out_of_work_and_tmp(stages: Stages) -> None:
    found = stages.leave(
        f'mkdir -p /work/dist/deep; echo "{REPORT}" >/work/junit.xml; echo 1 >/work/dist/a; echo 22 >/work/dist/deep/b;'
        " echo 333 >/tmp/core.1; echo no >/work/other",
        reports={"junit": "/work/junit.xml"},
        artifacts=["/work/dist/*", "/tmp/core.*"],
    )
    assert {path: one.size for path, one in found.artifacts} == {
        "/work/dist/a": 2,
        "/work/dist/deep/b": 3,
        "/tmp/core.1": 4,
    }
    assert found.report is not None
    assert (found.report["tests"], found.report["failed"]) == (2, 1)
    assert (found.notes, found.lost) == ((), "")


def test_links_and_pipes_are_left_out(stages: Stages) -> None:
    found = stages.leave(
        "mkdir /work/out; cd /work/out; ln -s /etc/passwd link; ln -s /etc folder; mkfifo pipe; echo x >plain;"
        " ln plain second",
        artifacts=["/work/out"],
    )
    assert len(found.artifacts) == 1
    told = "; ".join(found.notes)
    assert "it is a symbolic link: " in told
    assert "/work/out/pipe" in told
    assert "hard link" in told


def test_a_link_in_the_place_of_what_was_asked_for_leads_nowhere(stages: Stages) -> None:
    found = stages.leave(
        "ln -s /etc /work/dist; ln -s /etc/passwd /work/junit.xml",
        reports={"junit": "/work/junit.xml"},
        artifacts=["/work/dist/**"],
    )
    assert found.artifacts == ()
    assert found.report is None
    assert not [path for path in (stages.home / "blobs").rglob("*") if path.is_file()]


def test_ten_gigabytes_of_zeros_are_capped(stages: Stages) -> None:
    began = monotonic()
    found = stages.leave("mkdir /work/out; truncate -s 10G /work/out/zeros", artifacts=["/work/out/*"])
    assert "can't be kept" in found.lost
    assert found.artifacts == ()
    stages.sandbox.remove(stages.name)
    assert monotonic() - began < 30


def test_many_files_are_capped(stages: Stages) -> None:
    found = stages.leave(
        "mkdir /work/out; cd /work/out; i=0; while [ $i -lt 5100 ]; do : >$i; i=$((i+1)); done",
        artifacts=["/work/out/*"],
    )
    assert len(found.artifacts) == 5000
    assert "more than 5000 files match" in found.lost


def test_a_stage_that_left_nothing(stages: Stages) -> None:
    found = stages.leave("true", reports={"junit": "/work/no/junit.xml"}, artifacts=["/tmp/none/*"])
    assert found.notes == ("no report at /work/no/junit.xml", "no file at /tmp/none/*")
