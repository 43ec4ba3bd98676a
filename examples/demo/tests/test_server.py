"""Integration tests: the server asked over HTTP, inside the container."""

import json
import threading
import unittest
from http.server import ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import urlopen

import app
import look


class ServerTest(unittest.TestCase):
    def setUp(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), app.Handler)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def test_page(self):
        with urlopen(self.url + "/") as answer:
            self.assertIn(look.GREETING, answer.read().decode())

    def test_health_names_the_version(self):
        with urlopen(self.url + "/healthz") as answer:
            self.assertEqual(json.load(answer)["version"], look.VERSION)

    def test_unknown_page_is_404(self):
        with self.assertRaises(HTTPError) as caught:
            urlopen(self.url + "/nothing")
        caught.exception.close()
        self.assertEqual(caught.exception.code, 404)


if __name__ == "__main__":
    unittest.main()
