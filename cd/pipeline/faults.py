"""Whose fault it was that a build ended badly, read from the builder's last words. Pure."""

from __future__ import annotations

import re

from cd.errors import ServiceError, TowpathError
from cd.pipeline.dockerfile import STEPS, BuildFailed, BuildStage, Dockerfile, Instruction

#: Words of the engine and of registries that don't answer; none of them is about what the repository says.
_ENGINE = (
    "cannot connect to the docker daemon", "error during connect", "failed to dial", "is the docker daemon running",
    "no space left on device", "input/output error", "read-only file system", "structure needs cleaning",
    "failed to do request", "dial tcp", "tls handshake", "i/o timeout", "connection reset", "connection refused",
    "no such host", "unexpected eof", "broken pipe", "context canceled", "context deadline exceeded", "rpc error",
    "transport is closing", "toomanyrequests", "too many requests", "unexpected status: 5",
    "unexpected http status: 5", "unexpected status code 5", "server misbehaving", "buildx component",
    "no active session", "cannot allocate memory", "failed to mount",
)  # fmt: skip
_PARSE_ERROR = re.compile(r"dockerfile parse error (?:on )?line (\d+): (.+)", re.IGNORECASE)
_SHOWN_LINE = re.compile(r"^\S+:(\d+)\n-{8,}$", re.MULTILINE)
_STEP = re.compile(r"^ > \[([^\]]*?)\s*(\d+)/(\d+)\] (\w+)", re.MULTILINE)
_LOADED = re.compile(r"^ > (?:\[internal\] load metadata for|FROM|\[[^\]]*\] FROM) (\S+?)(?:@\S+)?:?$", re.MULTILINE)
_RUN_FAILED = re.compile(r"(?:executor failed running|did not complete successfully)(?:.*?)exit code: (\d+)", re.DOTALL)
_MISSING = re.compile(r'"?/[^"\n]*"?:? not found')
_NOISE = re.compile(
    r"^(?:ERROR: |failed to solve(?: with frontend \S+)?: |failed to create LLB definition: "
    r"|rpc error: code = \w+ desc = |failed to compute cache key: |failed to load cache key: "
    r"|failed to calculate checksum of ref \S+: )+"
)


def explain(output: str, dockerfile: Dockerfile) -> TowpathError:
    """The error that a failed build is. `output` is the end of what the builder said, at least its last 16 KiB."""
    last = _last_words(output)
    parse_error = _PARSE_ERROR.search(last)
    if parse_error:
        return BuildFailed(parse_error[2].strip(), where=f"{dockerfile.name}:{parse_error[1]}")
    where = _where(output, dockerfile)
    ran = _RUN_FAILED.search(last)
    if ran:
        return BuildFailed(f"{_shown(output, dockerfile)} failed with exit code {ran[1]}", where=where)
    message = _NOISE.sub("", last.split("\n", 1)[0]) or "the builder ended without a word"
    if not _MISSING.search(last) and any(words in last.lower() for words in _ENGINE):
        return _service_error(message)
    return BuildFailed(message, where=where)


def _service_error(message: str) -> ServiceError:
    if "no space left" in message:
        return ServiceError("the engine's disk is full", remedy="free some space on it")
    return ServiceError(f"the engine could not build: {message}")


def _last_words(output: str) -> str:
    """The builder's own verdict, without what the commands of the Dockerfile printed."""
    lines = output.rstrip().split("\n")
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].startswith("ERROR: "):
            return "\n".join(lines[index:])
        if re.fullmatch(r"-{6,}", lines[index]):
            return "\n".join(lines[index + 1 :])
        if re.match(r"#\d+ ", lines[index]):
            return "\n".join(lines[index + 1 :]) or lines[index]
    return "\n".join(lines)


def _where(output: str, dockerfile: Dockerfile) -> str:
    shown = _SHOWN_LINE.findall(output)
    if shown:
        return f"{dockerfile.name}:{shown[-1]}"
    instruction = failing(output, dockerfile)
    if instruction is not None:
        return f"{dockerfile.name}:{instruction.line}"
    loaded = _LOADED.findall(output)
    for stage in dockerfile.stages if loaded else ():
        if loaded[-1].split(":")[0].endswith(stage.base.split(":")[0]):
            return f"{dockerfile.name}:{stage.line}"
    return dockerfile.name


def failing(output: str, dockerfile: Dockerfile) -> Instruction | None:
    """The instruction that the builder names as the one that failed."""
    named = list(_STEP.finditer(output))
    if not named:
        return None
    stage = _stage(named[-1][1], dockerfile)
    if stage is None:
        return None
    steps = [one for one in stage.instructions if one.keyword in STEPS]
    # The builder counts FROM as a step or not; counted from the end it does not matter.
    from_end = int(named[-1][3]) - int(named[-1][2])
    found = steps[-1 - from_end] if from_end < len(steps) else None
    return found if found is not None and found.keyword == named[-1][4].upper() else None


def _stage(label: str, dockerfile: Dockerfile) -> BuildStage | None:
    """`builder`, `stage-2` or, for the only stage, nothing; a platform may stand before it."""
    words = [word for word in label.split() if "/" not in word]
    if not words:
        return dockerfile.stages[-1] if dockerfile.stages else None
    for stage in dockerfile.stages:
        if words[-1].lower() in (stage.name, f"stage-{stage.index}" if not stage.name else stage.name):
            return stage
    return None


def _shown(output: str, dockerfile: Dockerfile) -> str:
    instruction = failing(output, dockerfile)
    if instruction is None:
        return "RUN"
    text = f"{instruction.keyword} {instruction.rest}"
    return f"`{text}`" if len(text) <= 120 else f"`{text[:117]}...`"
