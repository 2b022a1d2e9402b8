"""The subprotocol breadboard.1: each request with a ref gets exactly one reply that carries it."""

import contextlib
import json
import os
import signal
import uuid

import pytest
import websockets


def speaker(board):
    client = board.client(subprotocols=["breadboard.1"])
    assert client.socket.subprotocol == "breadboard.1"
    return client


def ask(client, ref, action, **data):
    client.send_raw(json.dumps({"ref": ref, "action": action, "data": data}))


def reply(client, ref):
    """The reply to the ref, and the frames that came before it."""
    before = []
    while True:
        frame = client.frame()
        if frame.get("ref") == ref:
            return frame, before
        before.append(frame)


def added(client, text="hello", **data):
    """Adds a message; returns its id."""
    ref = str(uuid.uuid4())
    ask(client, ref, "add message", author="Ann", text=text, **data)
    answer, _ = reply(client, ref)
    assert answer["status"] == "ok", answer
    return answer["id"]


def test_ok_comes_behind_the_list_that_shows_the_write(board, database):
    ann = speaker(board)
    ask(ann, "r1", "add message", author="Ann", text="hello")
    answer, before = reply(ann, "r1")
    ((number,),) = database.sql("SELECT id FROM messages")
    assert answer == {"ref": "r1", "status": "ok", "id": number}
    assert [frame["selector"] for frame in before] == ["#messages__list"]
    assert ">hello</p>" in before[0]["html"]
    assert ann.frames() == []


def test_ok_comes_behind_its_list_though_its_sender_turns_the_page(board, database):
    database.sql("INSERT INTO messages (author, text, created_at)"
                 " SELECT 'Ann', 'text', '2026-01-01' FROM generate_series(1, 9)")
    ann = speaker(board)
    number = added(ann)
    ((backend,),) = database.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'breadboard'"
                                 " AND datname = 'board'")
    os.kill(backend, signal.SIGSTOP)
    try:  # The first is under way, the others are answered together
        ask(ann, "0", "update message", id=number, author="Ann", text="first")
        ann.ping()
        ask(ann, "1", "update message", id=number, author="Ann", text="second")
        ask(ann, "2", "list messages", page=2)
        ann.ping()
    finally:
        os.kill(backend, signal.SIGCONT)
    _, shown = reply(ann, "0")
    assert ">first</p>" in shown[-1]["html"] or ">second</p>" in shown[-1]["html"]  # Of two pages the newer may do
    _, before = reply(ann, "1")
    shown += before
    assert ">second</p>" in shown[-1]["html"]
    answer, before = reply(ann, "2")
    assert answer["page"] == 2 and before == []


def test_update_and_delete_are_replied_to(board, database):
    ann = speaker(board)
    number = added(ann)
    ask(ann, "u", "update message", id=number, author="Ann", text="changed")
    answer, before = reply(ann, "u")
    assert answer == {"ref": "u", "status": "ok", "id": number}
    assert ">changed</p>" in before[-1]["html"]
    ask(ann, "d", "delete message", id=number)
    answer, _ = reply(ann, "d")
    assert answer == {"ref": "d", "status": "ok", "id": number}
    assert database.sql("SELECT count(*) FROM messages") == [(0,)]


def test_the_reply_to_a_list_or_a_form_is_that_frame(board):
    ann = speaker(board)
    number = added(ann)
    ask(ann, "l", "list messages", page=1)
    frame = ann.frame()
    assert (frame["ref"], frame["status"], frame["selector"]) == ("l", "ok", "#messages__list")
    ask(ann, "e", "open edit page", id=number)
    frame = ann.frame()
    assert (frame["ref"], frame["status"]) == ("e", "ok")
    assert frame["selector"] == f"#message--{number}" and "update-form" in frame["html"]
    assert ann.frames() == []


def test_a_list_that_has_not_changed_is_not_sent_again(board):
    ann = speaker(board)
    added(ann)
    ask(ann, "1", "list messages", page=1)
    page = ann.frame()
    ask(ann, "2", "list messages", page=1, etag=page["etag"])
    assert ann.frame() == {"ref": "2", "status": "ok", "page": 1, "pages": 1, "etag": page["etag"]}
    for other in "0" * 16, "no etag", 7:
        ask(ann, "3", "list messages", page=1, etag=other)
        assert ann.frame()["html"] == page["html"]


KEY = "8f14e45f-ceea-467f-9e53-0a5d5b7c1c01"


@pytest.mark.parametrize("action, data, code, field", [
    ("add message", {"author": "", "text": "b"}, "invalid", "author"),
    ("add message", {"author": "a" * 101, "text": "b"}, "invalid", "author"),
    ("add message", {"author": "a", "text": "b" * 201}, "invalid", "text"),
    ("add message", {"author": "a", "text": 1}, "invalid", "text"),
    ("add message", {"author": "a"}, "invalid", "text"),
    ("add message", {"author": "a", "text": "b", "key": "1"}, "invalid", "key"),
    ("update message", {"author": "a", "text": "b"}, "invalid", "id"),
    ("update message", {"id": 1, "author": "a", "text": "b", "version": 0}, "invalid", "version"),
    ("delete message", {"id": 999999}, "not-found", None),
    ("delete message", {"id": -1}, "not-found", None),
    ("delete message", {"id": "x"}, "malformed", "id"),
    ("delete message", {"id": 1, "key": "1"}, "invalid", "key"),
    ("restore message", {"id": 1}, "invalid", "key"),
    ("restore message", {"id": 999999, "key": KEY}, "not-found", None),
    ("no such action", {}, "malformed", None),
    ("list messages", {"page": "x"}, "malformed", "page"),
])
def test_an_error_is_replied_to_and_shown(board, action, data, code, field):
    ann = speaker(board)
    ask(ann, 'quoted "ref" \\ é', action, **data)
    frame = ann.frame()
    assert (frame["ref"], frame["status"]) == ('quoted "ref" \\ é', "error")
    assert frame["error"]["code"] == code and frame["error"]["message"]
    assert frame["error"].get("field") == field
    assert set(frame["error"]) <= {"code", "message", "field"}
    assert frame["selector"] == "#notices" and 'role="alert"' in frame["html"]
    assert ann.frames() == []


@pytest.mark.parametrize("turn", range(5))
def test_what_is_stored_is_answered_before_the_server_goes(start, database, turn):
    board = start(limits_messages_per_second=0)
    ann = speaker(board)
    for number in range(100):
        ask(ann, str(number), "add message", author="Ann", text=f"message {number}")
    board.signal(signal.SIGTERM)
    answered = set()
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            frame = ann.frame()
            if frame.get("status") == "ok":
                answered.add(frame["id"])
    assert ann.socket.close_code == 1001
    assert board.wait() == 0
    assert answered == {number for number, in database.sql("SELECT id FROM messages")}


def test_a_ref_is_text_of_1_to_64_characters(board):
    ann = speaker(board)
    for ref in "", "x" * 65, 1, None, [], "a\0b":
        ask(ann, ref, "list messages", page=1)
        frame = ann.frame()
        assert frame["error"]["code"] == "malformed" and "ref" not in frame
    ask(ann, "é" * 64, "list messages", page=1)
    assert ann.frame()["ref"] == "é" * 64


def test_the_same_key_is_stored_once(board, database):
    ann, bob = speaker(board), speaker(board)
    key = str(uuid.uuid4())
    number = added(ann, key=key)
    bob.frames()
    assert added(ann, key=key) == number
    assert added(bob, key=key.upper()) == number
    for _ in range(20):
        ask(ann, "many", "add message", author="Ann", text="again", key=key)
    assert {reply(ann, "many")[0]["id"] for _ in range(20)} == {number}
    assert database.sql("SELECT id, text FROM messages") == [(number, "hello")]


def test_a_key_is_known_to_each_board_of_the_database(start, database):
    key = str(uuid.uuid4())
    first = start()
    number = added(speaker(first), key=key)
    assert added(speaker(start()), key=key) == number
    first.stop()
    assert added(speaker(start()), key=key) == number


def test_an_old_version_overwrites_nothing(board, database):
    ann = speaker(board)
    number = added(ann, "first")
    ask(ann, "1", "update message", id=number, author="Ann", text="second", version=1)
    assert reply(ann, "1")[0]["status"] == "ok"
    ask(ann, "2", "update message", id=number, author="Bob", text="third", version=1)
    frame, _ = reply(ann, "2")
    assert frame["error"]["code"] == "conflict"
    assert frame["selector"] == f"#message--{number}"
    assert ">second<" in frame["html"] and "third</textarea>" in frame["html"]
    assert 'name="version" value="2"' in frame["html"]
    assert database.sql("SELECT author, text FROM messages") == [("Ann", "second")]
    ask(ann, "3", "update message", id=number, author="Bob", text="third", version=2)
    assert reply(ann, "3")[0]["status"] == "ok"


def test_an_update_that_is_sent_again_is_no_conflict_with_itself(board, database):
    ann = speaker(board)
    number = added(ann)
    for ref in "once", "again":
        ask(ann, ref, "update message", id=number, author="Ann", text="changed", version=1)
        answer, _ = reply(ann, ref)
        assert answer == {"ref": ref, "status": "ok", "id": number}
    assert database.sql("SELECT text, version FROM messages") == [("changed", 2)]
    ask(ann, "later", "update message", id=number, author="Ann", text="changed", version=2)
    assert reply(ann, "later")[0]["status"] == "ok"
    ask(ann, "too late", "update message", id=number, author="Ann", text="changed", version=1)
    assert reply(ann, "too late")[0]["error"]["code"] == "conflict"


def test_a_sign_of_life_needs_no_database(board):
    ann, plain = speaker(board), board.client()
    ann.send_raw('{"action":"ping"}')
    assert ann.frame() == {"status": "ok"}
    plain.send_raw('{"action":"ping"}')
    assert plain.notice() == "malformed"


def test_the_plain_protocol_has_no_replies(board):
    plain = board.client()
    ask(plain, "r", "add message", author="Ann", text="plain")
    frame = plain.frame()
    assert set(frame) == {"selector", "html", "page", "pages", "etag"}
    ask(plain, "r", "delete message", id=999999)
    assert set(plain.frame()) == {"selector", "html"}
    assert plain.frames() == []
