"""A web server of one page and a health check, with nothing but Python's standard library."""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import look
import page


class Handler(BaseHTTPRequestHandler):
    """Answers / with the page and /healthz with what is running."""

    def do_GET(self) -> None:
        environment = os.environ.get("ENVIRONMENT", "this machine")
        if self.path == "/":
            self.answer(200, "text/html; charset=utf-8", page.render(environment))
        elif self.path == "/healthz":
            running = {"status": "ok", "version": look.VERSION, "environment": environment}
            self.answer(200, "application/json", json.dumps(running))
        else:
            self.answer(404, "text/plain; charset=utf-8", "Not here.\n")

    def answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        if self.path != "/healthz":
            super().log_message(format, *args)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    port = int(os.environ.get("PORT", "8000"))
    print(f"version {look.VERSION} listens on port {port}", flush=True)
    ThreadingHTTPServer(("", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
