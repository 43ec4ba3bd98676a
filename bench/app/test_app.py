import unittest

import app


class Test(unittest.TestCase):
    def test_version(self):
        self.assertNotEqual(app.VERSION, "")
