"""The one page of the demo."""

from html import escape
from string import Template

import look

PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$greeting</title>
<style>
  body { margin: 0; min-height: 100vh; display: grid; place-content: center; justify-items: center;
         font: 1.1rem/1.5 system-ui, sans-serif; color: #fff; background: $colour }
  h1 { margin: 0; font-size: clamp(2rem, 7vw, 4rem); text-align: center }
  dl { display: grid; grid-template-columns: auto auto; gap: .2rem 1rem; opacity: .9 }
  dd { margin: 0; font-weight: 600 }
</style>
<h1>$greeting</h1>
<dl><dt>version</dt><dd>$version</dd><dt>environment</dt><dd>$environment</dd></dl>
</html>
""")


def render(environment: str) -> str:
    """The page as `environment` shows it."""
    return PAGE.substitute(
        greeting=escape(look.GREETING),
        colour=escape(look.COLOUR),
        version=escape(look.VERSION),
        environment=escape(environment),
    )
