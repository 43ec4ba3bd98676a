"""Tars that nobody vouches for."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

import pytest

from cd.errors import ServiceError
from cd.pipeline import archive
from cd.pipeline.archive import Budget, Endless, walk

KINDS = {
    "link": tarfile.SYMTYPE,
    "second": tarfile.LNKTYPE,
    "null": tarfile.CHRTYPE,
    "disk": tarfile.BLKTYPE,
    "pipe": tarfile.FIFOTYPE,
}


def tar(*members: tuple[str, bytes], kinds: dict[str, bytes] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
        for name, kind in (kinds or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            made.addfile(info)
    return out.getvalue()


def pieces(data: bytes, size: int = 1000) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def read(data: bytes, budget: int = 1 << 20) -> dict[str, bytes | str]:
    return {one.path: one.refused or b"".join(one.pieces()) for one in walk(pieces(data), "/work", Budget(budget))}


def test_files_are_read_in_order_with_their_whole_path() -> None:
    found = read(tar(("dist/a", b"1"), ("./dist/b", b"2" * 5000), ("dist/ü/" + "x" * 300, b"")))
    assert found == {"/work/dist/a": b"1", "/work/dist/b": b"2" * 5000, "/work/dist/ü/" + "x" * 300: b""}


def test_what_is_no_plain_file_in_its_folder_is_refused() -> None:
    found = read(tar(("../out", b"x"), ("/etc/passwd", b"x"), ("a/../../b", b"x"), ("a..b", b"fine"), kinds=KINDS))
    assert found.pop("/work/a..b") == b"fine"
    assert len(found) == 8
    assert all(isinstance(why, str) and why for why in found.values())
    assert found["/work/link"] == "it is a symbolic link"
    assert found["/work/null"] == found["/work/pipe"] == found["/work/disk"] == "it is no plain file"


def test_a_file_that_nobody_reads_is_passed_over() -> None:
    data = tar(("a", b"1" * 100_000), ("b", b"2"))
    assert [(one.path, one.size) for one in walk(pieces(data), "/work", Budget(1 << 20))] == [
        ("/work/a", 100_000),
        ("/work/b", 1),
    ]


def test_names_that_are_no_text_can_be_stored() -> None:
    info = tarfile.TarInfo("x\udcff\n")
    data = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + bytes(1024)
    assert list(read(data)) == ["/work/x\ufffd\n"]


def test_ten_gigabytes_of_zeros_have_an_end() -> None:
    def endless() -> Iterator[bytes]:
        info = tarfile.TarInfo("zeros")
        info.size = 10 << 30
        yield info.tobuf()
        while True:
            yield bytes(1 << 20)

    seen = (len(piece) for one in walk(endless(), "/work", Budget(64 << 20)) for piece in one.pieces())
    with pytest.raises(Endless):
        assert sum(seen) < 64 << 20


def test_too_many_files_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_ENTRIES", 5)
    with pytest.raises(Endless):
        read(tar(*((str(number), b"") for number in range(6))))


@pytest.mark.parametrize("cut", [100, 600, 1500])
def test_a_damaged_tar_is_the_engines_fault(cut: int) -> None:
    with pytest.raises(ServiceError, match="is damaged"):
        read(tar(("a", b"x" * 5000))[:cut])
