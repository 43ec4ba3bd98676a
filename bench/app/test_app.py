import threading
import unittest
import urllib.request
from http.server import ThreadingHTTPServer

import app


class Test(unittest.TestCase):
    def test_version(self):
        with ThreadingHTTPServer(("127.0.0.1", 0), app.Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            for _ in range(1000):
                with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/") as answer:
                    self.assertEqual(answer.read().decode(), app.VERSION)
            server.shutdown()
