"""JUnit reports: those of many tools, and those of nobody who means well."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from time import process_time

import pytest

from cd.pipeline.junit import BadReport, Case, Reader, shortened
from cd.pipeline.reports import Results

SAMPLES = Path(__file__).parents[4] / "shared" / "fixtures" / "junit"


def read(data: bytes | str, size: int = 1 << 20) -> Reader:
    whole = data.encode() if isinstance(data, str) else data
    reader = Reader()
    for at in range(0, len(whole), size):
        reader.feed(whole[at : at + size])
    reader.feed(b"", last=True)
    return reader


def cases(data: str) -> list[Case]:
    return read(data).cases


@pytest.mark.skipif(not SAMPLES.exists(), reason=f"{SAMPLES} is not there")
@pytest.mark.parametrize("size", [7, 1 << 20])
@pytest.mark.parametrize(
    "path", sorted(SAMPLES.glob("*.results.json")), ids=lambda path: path.name.split(".results")[0]
)
def test_samples_have_the_expected_counts(path: Path, size: int) -> None:
    expected = json.loads(path.read_text())["stats"]
    results = Results()
    results.add(read((path.parent / path.name.replace(".results.json", ".xml")).read_bytes(), size))
    found = results.summary
    assert (found.files, found.suites, found.tests) == (1, expected["suites"], expected["tests"])
    assert (found.passed, found.skipped) == (expected["tests_succ"], expected["tests_skip"])
    assert (found.failed, found.errors) == (expected["tests_fail"], expected["tests_error"])


@pytest.mark.skipif(not SAMPLES.exists(), reason=f"{SAMPLES} is not there")
def test_a_corrupt_sample_says_where() -> None:
    with pytest.raises(BadReport, match="line 11, column 21"):
        read((SAMPLES / "pytest-corrupt-xml.xml").read_bytes())


def test_what_is_said_of_a_failure() -> None:
    text = """<testsuites><testsuite name="s">
        <testcase classname="c" name="n" time="1.5"><failure message="assert 1 == 2" type="AssertionError">
        assert 1 == 2
        where</failure><system-out>printed</system-out><system-err> </system-err></testcase>
        <testcase name="typed"><error type="Timeout"/></testcase>
        <testcase name="message"><skipped message="no disk">trace</skipped><system-out>x</system-out></testcase>
    </testsuite></testsuites>"""
    first, second, third = cases(text)
    assert (first.classname, first.name, first.state, first.seconds) == ("c", "n", "failed", 1.5)
    assert first.text == "assert 1 == 2\n        where\n--- output ---\nprinted"
    assert (second.classname, second.state, second.text) == ("s", "error", "Timeout")
    assert (third.state, third.text) == ("skipped", "no disk\ntrace")


def test_the_worst_of_several_results_counts() -> None:
    (found,) = cases("<testsuite><testcase name='a'><failure/><skipped/><error/></testcase></testsuite>")
    assert found.state == "error"


def test_a_name_space_is_no_hindrance() -> None:
    found = read("<j:testsuite xmlns:j='x'><j:testcase name='a'><j:failure>f</j:failure></j:testcase></j:testsuite>")
    assert [(one.name, one.state, one.text) for one in found.cases] == [("a", "failed", "f")]


@pytest.mark.parametrize(
    "time,seconds",
    [("1,234.5", 1234.5), ("-3", 0.0), ("nan", 0.0), ("inf", 0.0), ("soon", 0.0), ("", 0.0), ("1e300", 1e300)],
)
def test_times_that_are_none(time: str, seconds: float) -> None:
    assert cases(f"<testsuite><testcase time='{time}'/></testsuite>")[0].seconds == seconds


BOMB = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 20))
BAD = {
    "empty": b"",
    "binary": bytes(range(256)) * 10,
    "text": b"3 passed",
    "html": b"<html><body>no</body></html>",
    "cut": b"<testsuites><testsuite><testcase name='a'>",
    "crossed": b"<testsuite><testcase></testsuite></testcase>",
    "twice": b"<testsuite/><testsuite/>",
    "bomb": f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "lol">{BOMB}]><testsuite name="&l19;"/>'.encode(),
    "quadratic": b'<!DOCTYPE x [<!ENTITY a "' + b"a" * 100_000 + b'">]><testsuite>' + b"&a;" * 10_000 + b"</testsuite>",
    "outside": b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><testsuite name="x">&a;</testsuite>',
    "parameter": b'<!DOCTYPE x [<!ENTITY % a SYSTEM "http://127.0.0.1/x"> %a;]><testsuite/>',
    "undeclared": b"<testsuite>&a;</testsuite>",
    "encoding": b'<?xml version="1.0" encoding="klingon"?><testsuite/>',
    "lying": '<?xml version="1.0" encoding="utf-8"?><testsuite name="ü"/>'.encode("latin-1"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_report_is_told_of_at_once(name: str) -> None:
    began = process_time()
    with pytest.raises(BadReport) as caught:
        read(BAD[name])
    assert str(caught.value)
    assert process_time() - began < 1


def test_a_dtd_elsewhere_is_not_fetched() -> None:
    assert read(b'<!DOCTYPE testsuite SYSTEM "http://127.0.0.1:1/x.dtd"><testsuite/>').suites == 1


@pytest.mark.parametrize(
    "data",
    [
        b"<testsuite>" * 300_000 + b"</testsuite>" * 300_000,
        b"<testsuite><testcase>" + b"<a>" * 300_000 + b"</a>" * 300_000 + b"</testcase></testsuite>",
        b"<testsuite><testcase>" + b"<failure/>" * 300_000 + b"</testcase></testsuite>",
        b"<testsuite><testcase><failure>" + b"x" * 30_000_000 + b"</failure></testcase></testsuite>",
        b"<testsuite><testcase " + b" ".join(b"a%d='1'" % n for n in range(300_000)) + b"/></testsuite>",
    ],
    ids=["nested suites", "nested nothing", "many failures", "long text", "many attributes"],
)
def test_no_shape_takes_much(data: bytes) -> None:
    tracemalloc.start()
    began = process_time()
    read(data, 1 << 16)
    assert tracemalloc.get_traced_memory()[1] < 80 << 20
    tracemalloc.stop()
    assert process_time() - began < 15


def test_many_cases_are_quick() -> None:
    data = "<testsuite>" + "".join(f"<testcase classname='c' name='{n}' time='0.1'/>" for n in range(20_000))
    began = process_time()
    found = read(data + "</testsuite>")
    assert len(found.cases) == 20_000
    assert process_time() - began < 3


def test_a_text_is_shortened_in_its_middle() -> None:
    assert shortened("abcdefghij", 10) == "abcdefghij"
    assert shortened("abcdefghij", 4) == "ab\n… 6 characters left out …\nij"
