"""Keeps a group of processes alive: each is a fork of this one, so that they share what was loaded before."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import NoReturn

import structlog

from cd.queue.worker import die_with_parent

log = structlog.get_logger()

#: Seconds: the first and the longest wait before a child that died is started again; a child that lived LONG is well.
FIRST, LAST, LONG = 0.05, 5.0, 10.0
#: Seconds that children get to end by themselves after SIGTERM.
GRACE = 8.0
SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}


@dataclass
class Child:
    """One process of the group. `body` runs in it until it ends."""

    name: str
    body: Callable[[], None]
    pid: int = 0
    started: float = 0.0
    delay: float = FIRST
    due: float = field(default=0.0)


class Supervisor:
    """Starts children, starts them again when they die, stops them all at the end."""

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._stopping = False
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def add(self, name: str, body: Callable[[], None]) -> None:
        """Start a child now."""
        child = Child(name, body)
        self._children.append(child)
        self._start(child)

    def _start(self, child: Child) -> None:
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _become(child, parent)
        child.pid, child.started = pid, monotonic()
        log.debug("supervisor.started", child=child.name, pid=pid)

    def run(self) -> None:
        """Look after the children until SIGTERM or SIGINT, then stop them, the last one first."""
        while True:
            self._reap()
            for child in self._children:
                if not child.pid and monotonic() >= child.due:
                    self._start(child)
            info = signal.sigtimedwait(SIGNALS, self._pause())
            if info is not None and info.si_signo != signal.SIGCHLD:
                break
        self.stop()

    def _pause(self) -> float:
        waiting = [child.due - monotonic() for child in self._children if not child.pid]
        return max(0.0, min(waiting, default=60.0))

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = next((one for one in self._children if one.pid == pid), None)
            if child is None:
                continue
            child.delay = FIRST if monotonic() - child.started > LONG else min(LAST, child.delay * 2)
            child.pid, child.due = 0, monotonic() + child.delay
            tell = log.debug if self._stopping else log.warning
            tell("supervisor.child_ended", child=child.name, status=os.waitstatus_to_exitcode(status))

    def stop(self) -> None:
        """SIGTERM to all, SIGKILL to what is left after the grace."""
        self._stopping = True
        for child in reversed(self._children):
            _signal(child.pid, signal.SIGTERM)
        until = monotonic() + GRACE
        while any(child.pid for child in self._children) and monotonic() < until:
            signal.sigtimedwait({signal.SIGCHLD}, 0.2)
            self._reap()
        for child in self._children:
            _signal(child.pid, signal.SIGKILL)


def _become(child: Child, parent: int) -> NoReturn:
    """In the fork: signals as in a fresh process, then the body; never returns."""
    code = 1
    try:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        # A terminal's Ctrl-C must reach only the supervisor, which then stops the children in order.
        os.setpgid(0, 0)
        die_with_parent(parent)
        child.body()
        code = 0
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 1
    except BaseException:  # noqa: BLE001 - the last frame of a process: said, then it ends
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _signal(pid: int, number: signal.Signals) -> None:
    if pid:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            log.debug("supervisor.gone", pid=pid)
