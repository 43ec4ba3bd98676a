"""Every fault is told at once: what one place has wrong does not hide what several have wrong together."""

from __future__ import annotations

import pytest

from cd.documents import DocumentError
from cd.pipeline.parse import parse

TEXT = b"""\
stages:
  ../x: {run: a, needs: [nowhere]}
  one: {run: a, needs: [two], limits: {memory: 0}}
  two: {run: a, needs: [one], retires: 2}
  three: {run: [], needs: [three, on]}
  four: {run: a, services: {db: {}}, limits: {disk: 10TB}}
"""


def test_faults_of_places_and_faults_across_them() -> None:
    with pytest.raises(DocumentError) as caught:
        parse(TEXT)
    told = [(fault.line, fault.column, fault.message) for fault in caught.value.faults]
    assert len(told) == len(set(told))
    lines = {line: [message for at, _, message in told if at == line] for line in range(2, 7)}
    assert {"can't be a stage's name", "there is no stage 'nowhere'"} <= {
        part
        for message in lines[2]
        for part in ("can't be a stage's name", "there is no stage 'nowhere'")
        if part in message
    }
    assert any("memory" in message for message in lines[3])
    assert any("a circle: one needs two needs one" in message for message in lines[3])
    assert any("retires" in message for message in lines[4])
    assert any("the command is empty" in message for message in lines[5])
    assert any("needs itself" in message for message in lines[5])
    assert any("there is no stage 'on'" in message for message in lines[5])
    assert any("image" in message for message in lines[6])
    assert any("disk" in message for message in lines[6])
