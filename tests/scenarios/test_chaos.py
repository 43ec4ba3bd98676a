"""Random processes are killed while pushes come in: the same as the measurement, with fewer pushes."""

from __future__ import annotations

from bench import chaos


def test_every_push_reaches_its_end_once(docker_client: object) -> None:
    figure = chaos.measure(pushes=6, seed=7)[0]
    assert figure.reached, figure.figure
