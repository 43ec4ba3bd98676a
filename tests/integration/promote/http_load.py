"""A program that asks a server without a pause until its standard input ends; then prints what it got as JSON."""

from __future__ import annotations

import http.client
import json
import sys
import threading
from dataclasses import dataclass, field


@dataclass
class Load:
    """Half of the threads keep their connection, half open a new one for each request."""

    port: int
    requests: int = 0
    failures: list[str] = field(default_factory=list)
    #: Answers in the order in which they were first seen.
    bodies: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, keep: bool) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self.over.wait(0.002):
            connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                connection.request("GET", "/index.html")
                answer = connection.getresponse()
                self.note(answer.status, answer.read().decode().strip())
                if not keep or answer.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                with self.lock:
                    self.failures.append(repr(error))
                connection.close()
                connection = None

    def note(self, status: int, body: str) -> None:
        with self.lock:
            self.requests += 1
            if status != 200:
                self.failures.append(f"HTTP {status}")
            elif body not in self.bodies:
                self.bodies.append(body)


def main() -> None:
    load = Load(int(sys.argv[1]))
    threads = [threading.Thread(target=load.run, args=(number % 2 == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    load.over.set()
    for thread in threads:
        thread.join()
    print(json.dumps({"requests": load.requests, "failures": load.failures, "bodies": load.bodies}))


if __name__ == "__main__":
    main()
