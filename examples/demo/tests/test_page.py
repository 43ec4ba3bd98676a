"""Unit tests: the page as text."""

import re
import unittest

import look
import page


class PageTest(unittest.TestCase):
    def test_shows_version_and_environment(self):
        html = page.render("staging")
        self.assertIn(f"<dd>{look.VERSION}</dd>", html)
        self.assertIn("<dd>staging</dd>", html)

    def test_text_can_not_become_markup(self):
        self.assertIn("&lt;b&gt;", page.render("<b>"))

    def test_colour_is_one(self):
        self.assertTrue(re.fullmatch(r"#[0-9a-f]{6}", look.COLOUR), look.COLOUR)


if __name__ == "__main__":
    unittest.main()
