from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from cd.documents import DocumentError
from cd.pipeline.definition import Pipeline, unsupported
from cd.pipeline.parse import json_schema, parse

#: Every key of the file, as the documentation shows it.
EVERYTHING = b"""\
image:
  context: .
  dockerfile: Dockerfile
  target: runtime
  args: {VERSION: "1.4"}
  secrets: [PIP_TOKEN]
stages:
  lint: {run: [ruff, check]}
  unit:
    run: pytest -q --junitxml=/work/junit.xml
    target: test
    needs: [lint]
    env: {LOG: debug}
    secrets: [TOKEN]
    network: services
    services:
      db: {image: "postgres:16", env: {POSTGRES_PASSWORD: x}, ready: pg_isready -U postgres}
    limits: {memory: 512MiB, cpus: 1, pids: 256, timeout: 10m, disk: 1GiB}
    matrix: {suite: [fast, slow]}
    retries: 1
    allow_failure: false
    when: {branches: [main], paths: ["src/**"], events: [push, pull_request, tag], status: [passed]}
    reports: {junit: /work/junit.xml}
    artifacts: ["/work/dist/*"]
    reuse: auto
deploy:
  command: [python, app.py]
  port: 8000
  health: {path: /healthz, interval: 1s, timeout: 2s, passes: 2, deadline: 60s}
  before: python manage.py migrate
  verify: ./smoke.sh
  replicas: 1
  limits: {memory: 256MiB, cpus: 1}
"""


def faults(text: str) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        parse(text.encode())
    return [str(fault) for fault in caught.value.faults]


def test_every_key_is_read() -> None:
    pipeline = parse(EVERYTHING)
    assert pipeline.image.args == {"VERSION": "1.4"}
    assert pipeline.stages["lint"].argv == ("ruff", "check")
    unit = pipeline.stages["unit"]
    assert unit.argv == ("sh", "-e", "-c", "pytest -q --junitxml=/work/junit.xml")
    assert unit.limits.model_dump() == {
        "memory": 512 << 20, "cpus": 1.0, "pids": 256, "timeout": 600.0, "disk": 1 << 30,
    }  # fmt: skip
    assert unit.reports.junit == ("/work/junit.xml",)
    assert unit.services["db"].ready == ("sh", "-e", "-c", "pg_isready -U postgres")
    assert pipeline.deploy is not None
    assert (pipeline.deploy.port, pipeline.deploy.health.deadline) == (8000, 60.0)


def test_the_example_has_every_key_of_the_models() -> None:
    def keys(value: Any, schema: dict[str, Any]) -> set[str]:
        schema = next((one for one in (schema, *schema.get("anyOf", ())) if "$ref" in one), schema)
        if "$ref" in schema:
            schema = everything["$defs"][schema["$ref"].rsplit("/", 1)[-1]]
        if "properties" not in schema:
            inner = schema.get("additionalProperties")
            return {key for one in value.values() for key in keys(one, inner)} if isinstance(inner, dict) else set()
        known = schema["properties"]
        return (known.keys() - value.keys()).union(*(keys(one, known[key]) for key, one in value.items()))

    everything = json_schema()
    example = YAML(typ="safe").load(EVERYTHING)
    example["stages"] = {"unit": example["stages"]["unit"]}
    assert keys(example, everything) == set()


def test_what_is_not_done_yet_is_told() -> None:
    assert unsupported(parse(EVERYTHING)) == [
        "deploy.before",
        "deploy.verify",
    ]


def test_a_stored_stage_is_read_as_it_was() -> None:
    """Steps keep their stage as JSON; a command that is an argv already must not become text again."""
    stages = parse(EVERYTHING).stages
    for stage in stages.values():
        assert type(stage).model_validate(stage.model_dump(mode="json", by_alias=True)) == stage


def test_no_file_is_an_empty_pipeline() -> None:
    assert parse(b"") == Pipeline()


@pytest.mark.parametrize(
    "key", ["privileged", "mounts", "volumes", "cap_add", "security_opt", "user", "runtime", "devices"]
)
def test_nothing_in_the_file_weakens_the_sandbox(key: str) -> None:
    (fault,) = faults(f"stages:\n  a:\n    run: x\n    {key}: true\n")
    assert fault.startswith(f"4:5: unknown key '{key}'")


@pytest.mark.parametrize("key", ["environments", "approvals", "policy", "secrets"])
def test_policy_is_no_part_of_the_file(key: str) -> None:
    assert faults(f"{key}: []\n")[0].startswith(f"1:1: unknown key '{key}'")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stages: {a: {run: ''}}", "1:19: stages.a.run: the command is empty; write what to run"),
        ("stages: {a: {run: []}}", "1:19: stages.a.run: the command is empty; write what to run"),
        ("stages: {a: {run: [sleep, 5]}}", "1:27: stages.a.run.1: this must be text; write it in quotes"),
        ("stages:\n  a: {needs: []}", "2:6: stages.a: 'run' is missing; add `run:`"),
        ("stages:\n  Unit: {run: x}",
         "2:9: stages.Unit: 'Unit' can't be a stage's name; use a-z, 0-9, - and _, at most 63, and not `build`"),
        ("stages:\n  build: {run: x}",
         "2:10: stages.build: 'build' can't be a stage's name; use a-z, 0-9, - and _, at most 63, and not `build`"),
        ("stages:\n  a: {run: x, needs: [b]}\n  b: {run: x, needs: [a]}",
         "2:22: stages.a.needs: a circle: a needs b needs a; remove one of these needs"),
        ("stages:\n  unit: {run: x}\n  b: {run: x, needs: [unti]}",
         "3:23: stages.b.needs.0: there is no stage 'unti'; did you mean 'unit'?"),
        ("stages:\n  a:\n    run: x\n    env: {A-B: x}",
         "4:16: stages.a.env.A-B: 'A-B' is not a name of a variable; use letters, digits and _"),
        ("stages:\n  a:\n    run: x\n    env: {TOWPATH_X: x}",
         "4:22: stages.a.env.TOWPATH_X: 'TOWPATH_X' is set by Towpath; choose a name without TOWPATH_"),
        ("stages: {a: {run: x, limits: {timeout: 10 minutes}}}",
         "1:40: stages.a.limits.timeout: '10 minutes' is not a duration; write it like 30s, 10m or 1h30m"),
        ("stages: {a: {run: x, limits: {memory: 1KiB}}}",
         "1:39: stages.a.limits.memory: this must be at least 6MiB; write 6MiB or more"),
        ("stages: {a: {run: x, network: host}}",
         "1:31: stages.a.network: Input should be 'none', 'services' or 'internet'"),
        ("stages:\n  a:\n    run: x\n    network: none\n    services: {db: {image: postgres}}",
         "4:14: stages.a.network: `none` reaches no services; leave network out, or write `services`"),
        (f"stages:\n  a:\n    run: x\n    matrix: {{{', '.join(f'k{n}: [1, 2, 3, 4]' for n in range(5))}}}",
         "4:13: stages.a.matrix: 1024 cells are more than 256; drop some values"),
        ("stages:\n  a:\n    run: x\n    matrix: {k: [1, 2, '1']}",
         "4:24: stages.a.matrix.k.2: '1' stands here twice; remove one of the two"),
        ("stages:\n  a:\n    run: x\n    matrix: {a-b: [1]}",
         "4:19: stages.a.matrix.a-b: 'a-b' is not a name of a variable; use letters, digits and _"),
        ("stages:\n  a:\n    run: x\n    env: {K: x}\n    matrix: {K: [1]}",
         "4:14: stages.a.env.K: 'K' is set by the matrix already; remove it here"),
        ("stages:\n  a:\n    run: x\n    env: {K: x}\n    secrets: [K]",
         "5:15: stages.a.secrets.0: 'K' stands in env, too; choose another name"),
        ("stages:\n  a: {run: x, matrix: {k: [1, 2]}}\n  b: {run: x, needs: ['a:1']}",
         "3:23: stages.b.needs.0: there is no stage 'a:1'; a cell can't be needed alone, write 'a' for all of them"),
        ("stages:\n  ../x: {run: x}",
         "2:9: stages.../x: '../x' can't be a stage's name; use a-z, 0-9, - and _, at most 63, and not `build`"),
        ("stages:\n  a:\n    run: x\n    services: {db: {env: {A: b}}}",
         "4:20: stages.a.services.db: 'image' is missing; add `image:`"),
        ("stages:\n  a:\n    run: x\n    services: {DB: {image: postgres}}",
         "4:20: stages.a.services.DB: 'DB' can't be a host's name; use a-z, 0-9 and -, and not `localhost`"),
        ("stages: {a: {run: x, limits: {memory: 0}}}",
         "1:39: stages.a.limits.memory: this must be at least 6MiB; write 6MiB or more"),
        ("stages: {a: {run: x, limits: {disk: 10TB}}}",
         "1:37: stages.a.limits.disk: this must be at most 1TiB; write 1TiB or less"),
        ("stages: {a: {run: x, artifacts: [/etc/passwd]}}",
         "1:34: stages.a.artifacts.0: '/etc/passwd': a stage leaves files only in /work and /tmp; "
         "write /work/… or /tmp/…"),
        ("stages: {a: {run: x, when: {paths: ['!src']}}}",
         "1:37: stages.a.when.paths.0: '!src' is no pattern; write it without a leading ! or / and without .."),
        ("image: {context: ../other}",
         "1:18: image.context: '../other' must be a path inside the repository; "
         "write it without a leading / and without .."),
        ("image: {dockerfile: /etc/passwd}",
         "1:21: image.dockerfile: '/etc/passwd' must be a path inside the repository; "
         "write it without a leading / and without .."),
        ("image:\n  args:\n    BUILDKIT_SYNTAX: evil/frontend",
         "3:22: image.args.BUILDKIT_SYNTAX: BUILDKIT_SYNTAX would run another builder; remove it"),
        ("deploy: {port: 70000}", "1:16: deploy.port: this must be at most 65535; write 65535 or less"),
        ('deploy: {health: {path: "/a b"}}', "1:25: deploy.health.path: String should match pattern '^/[!-~]*$'"),
    ],
)  # fmt: skip
def test_faults_tell_place_and_remedy(text: str, expected: str) -> None:
    assert faults(text) == [expected]


#: What means something to YAML, and words of this file.
WORDS = r"""
stages image deploy run needs env a : - { } [ ] , ' " &a *a ! | > % @ ` # ? << --- ... ~ \ 0x 1e9 .nan null = _
"""
SPACES = [": ", "- ", "? ", " #", "\n", "\n  ", "\n    ", "\t", "\r", "\x85", "\u2028", "\ufeff", "\x00"]
PIECES = st.sampled_from([*WORDS.split(), *SPACES])


@given(st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=25).map(lambda pieces: "".join(pieces).encode())))
@settings(max_examples=300)
def test_any_bytes_are_a_pipeline_or_faults_inside_of_the_file(text: bytes) -> None:
    try:
        parse(text)
    except DocumentError as error:
        faults = error.faults
    else:
        return
    assert faults
    for fault in faults:
        assert 1 <= fault.line <= len(text.splitlines()) + 2
        assert fault.column >= 1
        assert fault.message
        assert "\n" not in str(fault)


def test_thousands_of_stages_are_a_fault_and_no_crash() -> None:
    text = "stages:\n" + "".join(f"  s{n}: {{run: x}}\n" for n in range(5001))
    assert faults(text) == ["2:3: stages: 5001 stages, counting each cell, are more than 5000; split the pipeline"]


def test_a_million_cells_are_a_fault_and_are_never_made() -> None:
    axes = ", ".join(f"k{axis}: [{', '.join(map(str, range(10)))}]" for axis in range(6))
    assert faults(f"stages: {{a: {{run: x, matrix: {{{axes}}}}}}}") == [
        "1:30: stages.a.matrix: 1000000 cells are more than 256; drop some values"
    ]


def test_needs_count_cell_by_cell() -> None:
    values = ", ".join(map(str, range(250)))
    text = "stages:\n" + "".join(
        f"  s{n}: {{run: x, matrix: {{k: [{values}]}}, needs: [{f's{n - 1}' if n else ''}]}}\n" for n in range(5)
    )
    (fault,) = faults(text)
    assert fault.startswith("2:3: stages: 250000 needs, cell by cell, are more than 200000;")


def test_all_faults_are_told_at_once() -> None:
    text = "stages:\n  a: {runs: x}\n  b: {run: x, limits: {pids: 0}, network: host}\n  b: {run: y}\n"
    assert [fault.split(":")[0] for fault in faults(text)] == ["4"], "a key that stands twice makes the rest unsure"
    text = text.replace("  b: {run: y}\n", "deploy: {prot: 1}\n")
    assert [fault.split(":")[0] for fault in faults(text)] == ["2", "2", "3", "3", "4"]
