"""Somebody who looks at pages and sends their forms, without scripts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flask.testing import FlaskClient
from werkzeug.test import TestResponse


@dataclass
class Visitor:
    """A person with a browser that runs no scripts: gets pages and sends their forms."""

    client: FlaskClient

    def get(self, path: str) -> str:
        answer = self.client.get(path)
        assert answer.status_code == 200, (path, answer.status_code)
        return answer.text

    def send(self, page: str, action: str, **fields: object) -> TestResponse:
        """Fill the form of `page` that goes to `action`: with its hidden fields, and `fields` over them."""
        text = self.get(page)
        form = re.search(rf'<form[^>]*action="{re.escape(action)}"[^>]*>(.*?)</form>', text, re.S)
        assert form, f"{page} has no form for {action}"
        hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form[1]))
        return self.client.post(action, data=hidden | fields, headers={"Referer": f"http://localhost{page}"})
