"""The image of the containers that hold a pod together: one program that does nothing, made here byte by byte.

No registry has to be asked for it, and no shell or library is in it that could be misused.
"""

from __future__ import annotations

import io
import struct
import tarfile
from typing import Any

#: Name on the engine; a program that changes gets another tag.
NAME, TAG = "towpath/pause", "1"
IMAGE = f"{NAME}:{TAG}"
#: Where a 64-bit ELF program is loaded, the size of its headers, and its machine's number.
BASE, HEADERS = 0x400000, 64 + 56
#: By the engine's name of an architecture: ELF machine, and code that waits for a signal for ever.
PROGRAMS = {
    # mov eax, 34 (pause); syscall; jmp back
    "amd64": (62, bytes.fromhex("b822000000 0f05 ebf7")),
    # mov x0..x4, #0; mov x8, #73 (ppoll); svc #0; b back
    "arm64": (183, bytes.fromhex("000080d2 010080d2 020080d2 030080d2 040080d2 280980d2 010000d4 f9ffff17")),
}


def program(architecture: str) -> bytes:
    """A static ELF executable. Raises KeyError for an architecture that there is none for."""
    machine, code = PROGRAMS[architecture]
    size = HEADERS + len(code)
    head = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        2,  # an executable
        machine,
        1,
        BASE + HEADERS,
        64,
        0,
        0,
        64,
        56,
        1,
        0,
        0,
        0,
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 0x1000)
    return head + segment + code


def archive(architecture: str) -> bytes:
    """A tar of the whole root file system: /pause."""
    content, packed = program(architecture), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo("pause")
        entry.size, entry.mode = len(content), 0o555
        tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def make(api: Any) -> None:
    """Put the image on the engine."""
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(arch := api.version()["Arch"], arch)
    api.import_image_from_data(
        archive(architecture), repository=NAME, tag=TAG, changes=['ENTRYPOINT ["/pause"]', "USER 65532:65532"]
    )
