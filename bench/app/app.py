"""A small service: says its version."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION="0"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = VERSION.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        return


if __name__ == "__main__":
    ThreadingHTTPServer(("", 8000), Handler).serve_forever()
