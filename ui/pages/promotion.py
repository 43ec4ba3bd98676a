"""The page of a promotion: what would change, what it waits for, who said what, and how the deployment went."""

from __future__ import annotations

from flask import Blueprint, render_template, url_for
from flask.typing import ResponseReturnValue

from cd.identity.people import Role
from cd.promote import promotions, queries
from cd.promote.records import Promotion
from cd.store import events
from cd.web.context import access, services, who
from ui.pages.common import done, field


def register(pages: Blueprint) -> None:
    """The page and its three forms."""
    base = "/promotions/<int:promotion_id>"
    pages.add_url_rule(base, "promotion", access(Role.viewer)(show))
    pages.add_url_rule(f"{base}/approve", "approve", access(Role.viewer)(approve), methods=["POST"])
    pages.add_url_rule(f"{base}/reject", "reject", access(Role.viewer)(reject), methods=["POST"])
    pages.add_url_rule(f"{base}/cancel", "cancel_promotion", access(Role.developer)(cancel), methods=["POST"])


def show(promotion_id: int) -> ResponseReturnValue:
    """One promotion."""
    with services().database.read() as session:
        cursor = events.newest(session)
        detail = queries.promotion(session, promotion_id)
        row = session.get_one(Promotion, promotion_id)
        gates = promotions.gates(session, row) if detail.promotion.pending else ()
        why_not = promotions.may_approve(session, row, who()) if detail.promotion.pending else ""
    return render_template("ui/promotion.html", detail=detail, gates=gates, why_not=why_not, cursor=cursor)


def approve(promotion_id: int) -> ResponseReturnValue:
    """Vote for it; the hidden fingerprint says what was seen."""
    with services().database.write() as session:
        promotions.approve(session, promotion_id, who(), field("fingerprint", 64), field("comment"))
    return done("Your approval counts.", url_for("ui.promotion", promotion_id=promotion_id))


def reject(promotion_id: int) -> ResponseReturnValue:
    """Vote against it, which ends it."""
    with services().database.write() as session:
        promotions.reject(session, promotion_id, who(), field("fingerprint", 64), field("comment"))
    return done("You rejected it.", url_for("ui.promotion", promotion_id=promotion_id))


def cancel(promotion_id: int) -> ResponseReturnValue:
    """Take it back before it began."""
    with services().database.write() as session:
        promotions.cancel(session, promotion_id, who())
    return done("The promotion is canceled.", url_for("ui.promotion", promotion_id=promotion_id))
