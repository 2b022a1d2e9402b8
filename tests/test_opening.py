"""The frames of the list say which page they show and in what state; who opens with that gets only news."""

import os
import re
import signal

import pytest
import websockets

from board import PATH, wait_for
from test_replies import added, ask, reply, speaker

FNV_PRIME = 0x100000001B3
BACKENDS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'breadboard'"
PLACE = re.compile(r'id="messages__list" data-page="(\d+)" data-pages="(\d+)" data-etag="([0-9a-f]{16})"')


def etag_of(html):
    """FNV-1a, 64 bits, as isthe.com/chongo/tech/comp/fnv defines it."""
    value = 0xCBF29CE484222325
    for byte in html.encode():
        value = (value ^ byte) * FNV_PRIME % 2**64
    return f"{value:016x}"


def filled(database, count):
    """So many messages, the newest last."""
    database.sql("INSERT INTO messages (author, text, created_at) SELECT 'Ann', 'text ' || number,"
                 " '2026-01-01'::timestamptz + number * interval '1 s'"
                 " FROM generate_series(1, %s) AS number", count)


def open_on(board, query, **options):
    return board.silent_client(path=PATH + query, **options)


def place(board, page=1):
    """What the page as served says of its list: number, pages, etag."""
    return PLACE.search(board.get(f"/?page={page}").text).groups()


def is_on(client, board, database, text):
    """Asserts that the client, which has got nothing, hears of a change on its page next."""
    client.ping()
    database.sql("UPDATE messages SET author = 'Bob' WHERE text = %s", text)
    frame = client.frame()
    assert text in frame["html"] and "Bob" in frame["html"]
    return frame


@pytest.fixture
def twelve(board, database):
    """A board with 12 messages, so 3 pages."""
    filled(database, 12)
    wait_for(lambda: place(board, 99)[0] == "3", "3 pages")
    return board


def test_a_list_frame_names_its_page_and_state(twelve):
    plain = twelve.silent_client()
    frame = plain.frame()
    assert set(frame) == {"selector", "html", "page", "pages", "etag"}
    assert (frame["page"], frame["pages"]) == (1, 3)
    assert frame["etag"] == etag_of(frame["html"])
    plain.send("list messages", page=99)
    frame = plain.frame()
    assert (frame["page"], frame["pages"], frame["etag"]) == (3, 3, etag_of(frame["html"]))


def test_the_reply_to_a_list_does_so_too(twelve):
    ann = speaker(twelve)
    ask(ann, "l", "list messages", page=2)
    frame, _ = reply(ann, "l")
    assert (frame["page"], frame["pages"], frame["status"]) == (2, 3, "ok")
    assert frame["etag"] == etag_of(frame["html"])


def test_the_page_as_served_does_so_too(twelve):
    frame = twelve.silent_client().frame()
    assert place(twelve) == ("1", "3", frame["etag"])
    assert place(twelve, 3)[0] == "3"


def test_the_state_is_the_same_on_each_board(twelve, start):
    other = start()
    places = [place(twelve, page) for page in (1, 2, 3)]
    assert len({etag for _, _, etag in places}) == 3
    assert [place(other, page) for page in (1, 2, 3)] == places
    other.stop()
    assert [place(start(), page) for page in (1, 2, 3)] == places


def test_who_has_page_1_already_gets_no_frame(twelve, database):
    _, _, etag = place(twelve)
    client = open_on(twelve, f"?page=1&etag={etag}")
    assert is_on(client, twelve, database, "text 12")["page"] == 1


def test_without_a_page_the_state_is_that_of_page_1(twelve, database):
    _, _, etag = place(twelve)
    is_on(open_on(twelve, f"?etag={etag}"), twelve, database, "text 12")


def test_who_has_another_page_already_gets_no_frame_and_is_on_it(twelve, database):
    _, _, etag = place(twelve, 2)
    client = open_on(twelve, f"?page=2&etag={etag}", subprotocols=["breadboard.1"])
    ask(client, "e", "open edit page", id=1)  # Answered once the board has seen to the page
    assert client.frame()["ref"] == "e"
    assert is_on(client, twelve, database, "text 4")["page"] == 2


@pytest.mark.parametrize("page, text", [(1, "text 10"), (2, "text 5"), (3, "text 1")])
def test_who_has_an_older_state_gets_the_page(twelve, database, page, text):
    _, _, etag = place(twelve, page)
    database.sql("UPDATE messages SET text = 'changed' WHERE text = %s", text)
    client = open_on(twelve, f"?page={page}&etag={etag}")
    frame = client.frame()
    while "changed" not in frame["html"]:  # The board may not have heard of it yet
        frame = client.frame()
    assert frame["page"] == page


def test_a_page_alone_opens_on_it(twelve, database):
    client = open_on(twelve, "?page=2")
    assert client.frame()["page"] == 2
    database.sql("UPDATE messages SET author = 'Bob' WHERE text = 'text 12'")
    twelve.silent_client().until("Bob")
    assert [frame["page"] for frame in client.frames()] == []


@pytest.mark.parametrize("query, page", [
    ("?page=0", 1), ("?page=99", 3), ("?page=99999999999999999999", 3), ("?page=-2", 1),
    ("?page=2x", 1), ("?page=", 1), ("?page=%FF", 1), ("?page=2&page=2", 1), ("?", 1), ("?x", 1),
    ("?page=2&etag=0123", 2), ("?page=2&etag=zzzzzzzzzzzzzzzz", 2), ("?page=2&x=1", 2),
    ("?etag=0000000000000000", 1), ("?page=%32", 2),
])
def test_pages_are_clamped_and_what_is_malformed_is_ignored(twelve, query, page):
    assert open_on(twelve, query).frame()["page"] == page


def test_the_first_page_of_another_is_not_seen_in_between(twelve, database):
    """A change of page 1 while page 2 is on its way does not take the client there."""
    clients = [open_on(twelve, "?page=2") for _ in range(20)]
    writer = speaker(twelve)
    for index in range(10):
        clients.append(open_on(twelve, "?page=2"))
        added(writer, f"new {index}")
    for client in clients:
        assert {frame["page"] for frame in client.frames(0.1)} == {2}


def test_a_page_that_cannot_be_read_comes_once_it_can(twelve, start, database):
    fresh = start()  # It has read page 1 only
    database.stop("immediate")
    try:
        client = open_on(fresh, "?page=2")
        assert client.notice() == "unavailable"
    finally:
        database.start()
    frame = client.frame()
    assert frame["page"] == 2 and "text 7" in frame["html"]


def test_who_opens_on_a_page_while_the_board_has_too_much_to_do_is_sent_away(twelve, start, database):
    """Nobody is left on a page of which he would never hear."""
    before = {pid for (pid,) in database.sql(BACKENDS)}
    busy = start(limits_messages_per_second=0, database_statement_timeout_ms=600000)
    wait_for(lambda: len({pid for (pid,) in database.sql(BACKENDS)} - before) == 1, "that of its start to be gone")
    (backend,) = {pid for (pid,) in database.sql(BACKENDS)} - before
    os.kill(backend, signal.SIGSTOP)
    try:
        flood = busy.client()
        while not flood.frames(0.01):  # Until it is told that no more can wait
            for _ in range(1000):
                flood.send("list messages", page=3)
        clients = [open_on(busy, "?page=2") for _ in range(40)]
    finally:
        os.kill(backend, signal.SIGCONT)
    sent_away = 0
    for client in clients:
        try:
            assert client.frame()["page"] == 2
        except websockets.ConnectionClosed as closed:
            assert closed.rcvd.code == 1013
            assert closed.rcvd.reason == "the board is very busy; spread=1"
            sent_away += 1
    assert sent_away > 0
