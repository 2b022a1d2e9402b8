"""Adds that come one after the other: each goes on top of page 1 as it is in memory, and it must be what SQL says."""

import contextlib
import uuid

import pytest

from asker import Asker
from lists import content, framed

SIZE = 5
TEXTS = ("plain", "<b>&amp; \"quoted\" 'it' {{text}} \\ \\n", "two\nlines\n\nand more", "ünï©ode 🍞 שלום", " x\t y ", "0")


def stored(database):
    rows = database.sql("SELECT id, author, text FROM messages ORDER BY created_at DESC, id DESC")
    pages = max(1, -(-len(rows) // SIZE))
    return framed(1, pages, tuple(rows[:SIZE]))


def shown(frame):
    return content(frame["page"], frame["pages"], frame["html"])


class Writer(Asker):
    def add(self, text, **data):
        """Adds a message; returns its id."""
        code, reply = self.ask("add message", author="Ann & Bob", text=text, **data)
        assert code == "ok", reply
        return reply["id"]


@pytest.fixture
def ann(board):
    return Writer(board)


@contextlib.contextmanager
def unheard(database):
    """A connection whose writes nobody announces."""
    connection = database.connect()
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET breadboard.origin = 'nobody'")
            yield cursor
    finally:
        connection.close()


def test_each_add_makes_the_page_that_sql_has(ann, database):
    for number in range(8 * len(TEXTS)):
        key = {"key": str(uuid.uuid4())} if number % 3 else {}
        ann.add(TEXTS[number % len(TEXTS)], **key)
        assert shown(ann.list) == stored(database)
    assert ann.client.frames(silence=0.8) == []  # it is read meanwhile, and is the same to the byte


def test_an_add_that_is_a_copy_changes_nothing(ann, database):
    key = str(uuid.uuid4())
    number = ann.add("once", key=key)
    ann.add("another")
    for _ in range(20):
        assert ann.add("once", key=key) == number
        assert shown(ann.list) == stored(database)


def test_a_deleted_message_stays_away_when_its_copy_comes(ann, database):
    key = str(uuid.uuid4())
    number = ann.add("once", key=key)
    ann.add("another")
    assert ann.ask("delete message", id=number, key=str(uuid.uuid4()))[0] == "ok"
    assert ann.add("once", key=key) == number
    ann.add("third")
    assert shown(ann.list) == stored(database)


def test_a_message_of_the_future_stays_on_top(ann, database):
    database.sql("INSERT INTO messages (author, text, created_at) VALUES ('Eve', 'later', now() + '1 day')")
    ann.client.until("later")
    for number in range(25):
        ann.add(f"now {number}")
        assert shown(ann.list) == stored(database)
        assert "later" in ann.list["html"]


@contextlib.contextmanager
def trigger(database, when, body):
    """A trigger of somebody else's on each message that is added."""
    database.sql(f"CREATE FUNCTION foreign_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$")
    database.sql(f"CREATE TRIGGER foreign_trigger {when} INSERT ON messages FOR EACH ROW"
                 " EXECUTE FUNCTION foreign_trigger()")
    try:
        yield
    finally:
        database.sql("DROP FUNCTION foreign_trigger CASCADE")


def test_what_is_stored_is_shown_not_what_was_sent(ann, database):
    with trigger(database, "BEFORE", "NEW.text = upper(NEW.text); RETURN NEW;"):
        for number in range(25):
            ann.add(f"quiet {number}")
            assert shown(ann.list) == stored(database)
        assert "QUIET 24" in ann.list["html"]


def test_what_a_trigger_makes_of_it_afterwards_is_shown_soon(ann, database):
    signs = "UPDATE messages SET text = text || ' (signed)' WHERE id = NEW.id; RETURN NULL;"
    with trigger(database, "AFTER", signs):
        for number in range(5):
            ann.add(f"mine {number}")
        ann.client.until("mine 4 (signed)")  # though nobody writes any more


def test_what_nobody_announces_is_not_hidden_for_long(ann, board, database):
    for number in range(5):
        first = ann.add(f"before {number}")
    bob = board.client()
    with unheard(database) as stranger:
        stranger.execute("UPDATE messages SET text = 'changed unheard' WHERE id = %s", (first,))
        ann.add("behind it")
    assert "behind it" in bob.until("changed unheard")  # though nobody writes any more
