"""Compiles the application and a part of the standard library anew: about what a type checker would take."""

import asyncio
import compileall
import email
import os
import unittest

for place in (asyncio, email, unittest):
    if not compileall.compile_dir(os.path.dirname(place.__file__), quiet=1, force=True):
        raise SystemExit(1)
if not compileall.compile_file("/app/app.py", quiet=1, force=True):
    raise SystemExit(1)
