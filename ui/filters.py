"""Filters and functions that templates may use."""

from __future__ import annotations

from datetime import datetime

from flask import Blueprint
from markupsafe import Markup

from cd.units import format_seconds
from ui import look


def register(pages: Blueprint) -> None:
    """Give the blueprint's templates what they need; names are shared by the whole application."""
    for function in (look.ago, look.age, look.took, look.moment, look.clock, look.digest, look.sha, look.plural):
        pages.add_app_template_filter(function, function.__name__)
    pages.add_app_template_filter(look.shown, "look")
    pages.add_app_template_filter(when, "when")
    pages.add_app_template_filter(format_seconds, "seconds")
    pages.add_app_template_global(look.CAUSES, "CAUSES")  # type: ignore[arg-type]  # a value, not a function


def when(at: datetime | None) -> Markup:
    """How long ago, with the time in full as its title; scripts keep it fresh."""
    if at is None:
        return Markup("")
    full = look.moment(at)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(full, full, look.ago(at))
