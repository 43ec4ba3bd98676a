"""Accounts, sessions, tokens and the audit chain, on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import delete, update

from cd.errors import Conflict, NotFound, UserError
from cd.identity import audit, sessions, tokens, users
from cd.identity.people import Person, Role
from cd.identity.records import AuditEntry, LoginSession, Token, User
from cd.store.base import now
from cd.store.database import Database

PASSWORD = "correct horse battery"


def add(database: Database, name: str = "ada", role: Role = Role.developer) -> Person:
    with database.write() as session:
        return users.person_of(users.create(session, "admin", name, PASSWORD, role))


def test_the_first_start_makes_one_admin_with_a_password_that_works(database: Database) -> None:
    with database.write() as session:
        password = users.first_admin(session)
        assert password is not None
        assert users.first_admin(session) is None
        person = users.verify(session, "admin", password)
    assert person is not None
    assert person.role is Role.admin


def test_only_the_right_password_of_an_account_in_force_is_let_in(database: Database) -> None:
    ada = add(database)
    add(database, "root", Role.admin)
    with database.write() as session:
        assert users.verify(session, "ada", PASSWORD) == ada
        assert users.verify(session, "ADA", PASSWORD) == ada
        assert users.verify(session, "ada", PASSWORD + "x") is None
        assert users.verify(session, "ada", "") is None
        assert users.verify(session, "ada", "x" * 100_000) is None
        assert users.verify(session, "nobody", PASSWORD) is None
        users.disable(session, "root", ada.id)
        assert users.verify(session, "ada", PASSWORD) is None


def test_passwords_are_argon2id(database: Database) -> None:
    ada = add(database)
    with database.read() as session:
        assert session.get_one(User, ada.id).password_hash.startswith("$argon2id$")


@pytest.mark.parametrize("name", ["", "Ada", "-x", "a b", "towpath", "a" * 65, "a\n", "a\0"])
def test_names_that_can_not_be(database: Database, name: str) -> None:
    with database.write() as session, pytest.raises(UserError, match="can't be a user's name"):
        users.create(session, "admin", name, PASSWORD, Role.viewer)


def test_faults_of_accounts_are_told(database: Database) -> None:
    root = add(database, "root", Role.admin)
    with database.write() as session:
        with pytest.raises(Conflict, match="already"):
            users.create(session, "root", "root", PASSWORD, Role.viewer)
        with pytest.raises(UserError, match="fewer than 10"):
            users.create(session, "root", "bob", "short", Role.viewer)
        with pytest.raises(UserError, match="not a role"):
            users.create(session, "root", "bob", PASSWORD, "king")
        with pytest.raises(Conflict, match="last admin"):
            users.set_role(session, "root", root.id, Role.viewer)
        with pytest.raises(Conflict, match="last admin"):
            users.disable(session, "root", root.id)


def test_a_session_lasts_until_it_is_closed_or_over(database: Database) -> None:
    ada = add(database)
    with database.write() as session:
        secret, other = sessions.open(session, ada.id), sessions.open(session, ada.id)
        assert sessions.find(session, secret) == ada
        assert sessions.find(session, secret + "x") is None
        sessions.close(session, secret)
        assert sessions.find(session, secret) is None
        session.execute(update(LoginSession).values(expires_at=now() - timedelta(seconds=1)))
        assert sessions.find(session, other) is None


def test_no_secret_is_stored_in_clear(database: Database) -> None:
    ada = add(database)
    with database.write() as session:
        cookie, token = sessions.open(session, ada.id), tokens.create(session, ada, "laptop")
        session.flush()
        assert session.query(LoginSession).one().secret_hash != cookie
        assert session.query(Token).one().secret_hash != token


def test_a_new_password_and_a_lock_out_end_what_was_open(database: Database) -> None:
    ada = add(database)
    add(database, "root", Role.admin)
    with database.write() as session:
        cookie, token = sessions.open(session, ada.id), tokens.create(session, ada, "laptop")
        users.set_password(session, "ada", ada.id, PASSWORD + "!")
        assert sessions.find(session, cookie) is None
        assert tokens.find(session, token) == ada
        cookie = sessions.open(session, ada.id)
        users.disable(session, "root", ada.id)
        assert sessions.find(session, cookie) is None
        assert tokens.find(session, token) is None
        users.enable(session, "root", ada.id)
        assert tokens.find(session, token) is None


def test_tokens_are_revoked_by_their_owner_or_an_admin(database: Database) -> None:
    ada, bob, root = add(database), add(database, "bob"), add(database, "root", Role.admin)
    with database.write() as session:
        first, second = tokens.create(session, ada, "one"), tokens.create(session, ada, "two")
        ids = [token.id for token in tokens.listing(session, ada.id)]
        with pytest.raises(NotFound):
            tokens.revoke(session, bob, ids[0])
        tokens.revoke(session, ada, ids[0])
        tokens.revoke(session, root, ids[1])
        assert tokens.find(session, first) is tokens.find(session, second) is None
        assert not tokens.listing(session, ada.id)


def chain(database: Database) -> list[int]:
    with database.write() as session:
        for number in range(5):
            audit.append(session, "ada", "promotion.approve", f"demo/prod#{number}", n=[1.5, None])
    with database.read() as session:
        return [entry.id for entry in audit.entries(session)][::-1]


def broken(database: Database) -> str | None:
    with database.read() as session:
        return audit.verify(session)


def test_an_untouched_chain_is_whole(database: Database) -> None:
    assert broken(database) is None
    chain(database)
    assert broken(database) is None


@pytest.mark.parametrize(
    "change", [{"actor": "eve"}, {"subject": "x"}, {"action": "y"}, {"detail": {}}, {"at": now() - timedelta(days=1)}]
)
def test_a_changed_entry_is_found(database: Database, change: dict[str, object]) -> None:
    ids = chain(database)
    with database.write() as session:
        session.execute(update(AuditEntry).where(AuditEntry.id == ids[2]).values(**change))
    assert broken(database) == f"entry {ids[2]} was changed after it was written"


@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_removed_entry_is_found_wherever_it_was(database: Database, place: int) -> None:
    ids = chain(database)
    with database.write() as session:
        session.execute(delete(AuditEntry).where(AuditEntry.id == ids[place]))
    assert broken(database) is not None


def test_an_emptied_log_is_found(database: Database) -> None:
    chain(database)
    with database.write() as session:
        session.execute(delete(AuditEntry))
    assert broken(database) is not None


def test_an_entry_whose_hash_was_made_to_fit_breaks_the_next_one(database: Database) -> None:
    ids = chain(database)
    with database.write() as session:
        entry = session.get_one(AuditEntry, ids[1])
        entry.actor = "eve"
        entry.hash = audit._hash(entry)
    assert broken(database) is not None


def test_texts_from_outside_do_not_break_the_log(database: Database) -> None:
    with database.write() as session:
        audit.append(session, "a\0b" * 40, "x", "nul \0 and \ud800", text="\0 \u2028", deep={"a": ["\0"]})
    assert broken(database) is None


def test_entries_are_paged_newest_first(database: Database) -> None:
    ids = chain(database)
    with database.read() as session:
        assert [entry.id for entry in audit.entries(session, None, 2)] == ids[:-3:-1]
        assert [entry.id for entry in audit.entries(session, ids[2], 2)] == [ids[1], ids[0]]
