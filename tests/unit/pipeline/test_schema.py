"""The schema for editors takes and refuses what the parser does, where one place alone decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from cd.documents import DocumentError
from cd.pipeline.parse import json_schema, parse

SCHEMA = json_schema()
TAKEN = [
    "image: {secrets: PIP_TOKEN, args: {VERSION: '1'}}",
    "stages: {a: {run: x, needs: b}, b: {run: [x, y]}}",
    "stages: {a: {run: x, when: {events: push, status: [passed, failed], branches: main, paths: ['src/**']}}}",
    "stages: {a: {run: x, matrix: {python: [3.11, '3.12', true, 4]}}}",
    "stages: {a: {run: x, limits: {memory: 1.5 GiB, disk: 2097152, timeout: 1h30m, cpus: 0.5, pids: 2}}}",
    "stages: {a: {run: x, limits: {timeout: 90}}}",
    "stages: {a: {run: x, services: {db: {image: 'postgres:16', ready: [pg_isready]}}, network: services}}",
    "stages: {a: {run: x, artifacts: /work/dist/*, reports: {junit: [/tmp/a.xml, /work/*.xml]}}}",
    "stages: {a: {run: x, reuse: never, retries: 5, allow_failure: true, secrets: [TOKEN]}}",
    "deploy: {port: 80, health: {path: /x, interval: 500ms}, limits: {memory: 64MiB}, replicas: 2, before: x}",
    "deploy:",
]
REFUSED = [
    "other: 1",
    "stages: {a: {}}",
    "stages: {a: {run: ''}}",
    "stages: {a: {run: []}}",
    "stages: {a: {run: x, privileged: true}}",
    "stages: {build: {run: x}}",
    "stages: {../x: {run: x}}",
    "stages: {a: {run: x, env: {TOWPATH_A: x}}}",
    "stages: {a: {run: x, env: {A-B: x}}}",
    "stages: {a: {run: x, env: {A: 1}}}",
    "stages: {a: {run: x, network: host}}",
    "stages: {a: {run: x, services: {db: {}}}}",
    "stages: {a: {run: x, services: {localhost: {image: x}}}}",
    "stages: {a: {run: x, services: {db: {image: '-x'}}}}",
    "stages: {a: {run: x, matrix: {k: []}}}",
    "stages: {a: {run: x, matrix: {a-b: [1]}}}",
    "stages: {a: {run: x, limits: {memory: 0}}}",
    "stages: {a: {run: x, limits: {memory: much}}}",
    "stages: {a: {run: x, limits: {memory: 10000000000000}}}",
    "stages: {a: {run: x, limits: {timeout: 10 minutes}}}",
    "stages: {a: {run: x, limits: {timeout: 0}}}",
    "stages: {a: {run: x, limits: {pids: 1}}}",
    "stages: {a: {run: x, retries: 6}}",
    "stages: {a: {run: x, when: {events: [pushed]}}}",
    "stages: {a: {run: x, when: {status: broken}}}",
    "stages: {a: {run: x, artifacts: /etc/passwd}}",
    "stages: {a: {run: x, reuse: always}}",
    "deploy: {port: 0}",
]


def fits(text: str) -> bool:
    value: Any = YAML(typ="safe").load(text)
    return Draft202012Validator(SCHEMA).is_valid(value)


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("text", TAKEN)
def test_both_take(text: str) -> None:
    parse(text.encode())
    assert fits(text)


@pytest.mark.parametrize("text", REFUSED)
def test_both_refuse(text: str) -> None:
    with pytest.raises(DocumentError):
        parse(text.encode())
    assert not fits(text)


def test_the_example_fits() -> None:
    assert fits((Path(__file__).parents[3] / "examples/demo/.towpath.yml").read_text())
