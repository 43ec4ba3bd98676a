"""Workers are killed in the middle of stages: the same as the measurement, with fewer kills."""

from __future__ import annotations

from bench import adoption


def test_each_stage_runs_once_and_no_line_is_lost(docker_client: object) -> None:
    figure = adoption.measure(kills=6, stages=5, lines=300, seed=3)[0]
    assert figure.reached, figure.figure
