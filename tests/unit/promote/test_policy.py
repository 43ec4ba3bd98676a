"""The file of environments: what it means, and what is said about faults in it."""

from __future__ import annotations

from textwrap import dedent

import pytest

from cd.documents import DocumentError
from cd.promote.policy import dump, parse, stored

GOOD = """\
    environments:
      - name: dev
        from: {branches: [main, "release/*"]}
        env: {LOG: debug}
        target: {kind: docker, url: "http://127.0.0.1:18001"}
      - name: staging
        after: [dev]
        soak: 10m
        target: {kind: docker, url: "http://localhost:18002/"}
      - name: prod
        after: [staging]
        promote: manual
        approvals: {required: 2, from: [approver, jane], self_approval: true, expire: 3d}
        target: {kind: docker, url: "http://0.0.0.0:80", engine: "tcp://10.0.0.2:2376"}
    """


def faults(text: str) -> list[str]:
    with pytest.raises(DocumentError) as error:
        parse(dedent(text).encode())
    return [str(fault) for fault in error.value.faults]


def one(keys: str) -> str:
    """A file with one environment that has these keys besides its name and target."""
    return f"""\
environments:
  - name: dev
    target: {{kind: docker, url: "http://127.0.0.1:18001"}}
    {keys}
"""


def test_a_whole_file() -> None:
    dev, staging, prod = parse(dedent(GOOD).encode())
    assert dev.takes("main")
    assert dev.takes("release/1.2")
    assert not dev.takes("feature")
    assert not dev.takes(None)
    assert (dev.approvals_required, staging.approvals_required, prod.approvals_required) == (0, 0, 2)
    assert staging.takes("feature")
    assert (staging.soak, prod.approvals.expire) == (600, 3 * 86400)
    assert (staging.target.host, staging.target.port) == ("127.0.0.1", 18002)
    assert (prod.target.host, prod.target.port, prod.target.engine) == ("0.0.0.0", 80, "tcp://10.0.0.2:2376")


def test_manual_means_one_approval_when_nothing_else_is_said() -> None:
    (spec,) = parse(one("from: {branches: main}\n    promote: manual").encode())
    assert (spec.approvals_required, spec.approvals.allowed, spec.approvals.self_approval) == (1, ("approver",), False)


def test_a_spec_survives_the_database() -> None:
    for spec in parse(dedent(GOOD).encode()):
        assert stored(dump(spec)) == spec


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ('from: {branches: main}\n    windows: ["Mon-Fri 09:00-17:00"]', "5:14: environments.0.windows: this version"),
        ("from: {branches: main}\n    bake: 5m", "5:11: environments.0.bake: this version"),
        ("from: {branches: main}\n    secrets: [X]", "5:14: environments.0.secrets: this version"),
        ("from: {branches: main}\n    aproovals: {}", "5:5: unknown key 'aproovals'; did you mean 'approvals'?"),
        ("from: {branches: main}\n    promote: manual\n    approvals: {required: 0}", "6:16: environments.0.approvals"),
        ("from: {branches: main}\n    soak: 5m", "5:11: environments.0.soak: there is no environment before"),
        ("promote: auto", "2:5: environments.0: nothing comes here; add from: {branches: [main]}"),
        ("after: [test]", "4:12: environments.0.after: 'test' is not another environment of this file"),
        ("after: [dev]", "4:12: environments.0.after: 'dev' is not another environment of this file"),
        ("from: {branches: main}\n    env: {TOWPATH_X: 1}", "5:"),
    ],
)
def test_faults_have_a_place_and_a_remedy(keys: str, fault: str) -> None:
    (said,) = faults(one(keys))
    assert said.startswith(fault)
    assert ";" in said or "must be text" in said


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ('{kind: swarm, engine: "ssh://x"}', "'swarm' is not available in this version; use docker"),
        ("{kind: kubernetes, context: prod}", "'kubernetes' is not available in this version; use docker"),
        ("{kind: podman}", "'podman' is not a kind of target; use docker"),
        ('{url: "http://127.0.0.1:1"}', "the kind is missing; add kind: docker"),
        ("{kind: docker}", "url"),
        ('{kind: docker, url: "https://127.0.0.1:1"}', "write it like http://127.0.0.1:18001"),
        ('{kind: docker, url: "http://127.0.0.1"}', "has no port"),
        ('{kind: docker, url: "http://example.org:80"}', "needs an IPv4 address"),
        ('{kind: docker, url: "http://127.0.0.1:99999"}', "needs an IPv4 address"),
        ('{kind: docker, url: "http://127.0.0.1:80/path"}', "write it like"),
    ],
)
def test_faults_of_targets(target: str, fault: str) -> None:
    text = f"environments:\n  - name: dev\n    from: {{branches: main}}\n    target: {target}\n"
    (said,) = faults(text)
    assert said.startswith("4:")
    assert fault in said


def test_environments_that_do_not_fit_each_other() -> None:
    target = 'target: {kind: docker, url: "http://127.0.0.1:%s"}'
    a = f"{{name: a, after: [b], {target % 1}}}"
    b = f"{{name: b, after: [a], {target % 2}}}"
    c = f"{{name: c, from: {{branches: x}}, {target % 2}}}"
    d = f"{{name: d, from: {{branches: x}}, {target % 2}}}"
    assert "a circle" in faults(f"environments:\n  - {a}\n  - {b}\n")[0]
    assert "c has that port already" in faults(f"environments:\n  - {c}\n  - {d}\n")[0]
    assert "'c' stands here twice" in faults(f"environments:\n  - {c}\n  - {c}\n")[0]


def test_an_empty_file_has_no_environments() -> None:
    assert parse(b"") == ()
