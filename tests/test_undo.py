"""A delete can be undone by the one who did it, once and for a while; retries do nothing twice."""

import threading
import time
import uuid

import pytest

from board import Board, Fresh, paused, wait_for
from conftest import starter
from test_replies import added, ask, reply, speaker


def key():
    return str(uuid.uuid4())


def outcome(client, action, **data):
    """ "ok" or the error's code; an ok names the message."""
    ref = key()
    ask(client, ref, action, **data)
    answer, _ = reply(client, ref)
    if answer["status"] == "error":
        return answer["error"]["code"]
    assert answer["id"] == data.get("id", answer["id"])
    return answer["status"]


def backends(database):
    """The processes that work for boards."""
    return {pid for (pid,) in database.sql("SELECT pid FROM pg_stat_activity"
                                           " WHERE application_name = 'breadboard'")}


def rows(database):
    return database.sql("SELECT id, author, text, created_at, version, key FROM messages ORDER BY id")


def test_the_same_message_comes_back_for_everyone(board, database):
    ann, bob = speaker(board), board.client()
    added(ann, "before")
    number = added(ann, "precious", key=key())
    assert outcome(ann, "update message", id=number, author="Ann", text="edited") == "ok"
    added(ann, "after")
    stored = rows(database)
    bob.frames()
    deletion = key()
    assert outcome(ann, "delete message", id=number, key=deletion) == "ok"
    assert "edited" not in bob.html()
    assert len(rows(database)) == 2
    ask(ann, "r", "restore message", id=number, key=deletion)
    answer, before = reply(ann, "r")
    assert answer == {"ref": "r", "status": "ok", "id": number}
    assert ">edited</p>" in before[-1]["html"]
    html = bob.html()
    assert html.index("after") < html.index("edited") < html.index("before")
    assert rows(database) == stored


def test_each_is_done_once_however_often_it_is_sent(board, database):
    ann, bob = speaker(board), speaker(board)
    number, deletion = added(ann), key()
    for client in ann, ann, bob:
        assert outcome(client, "delete message", id=number, key=deletion) == "ok"
    assert rows(database) == []
    for client in ann, bob, ann:
        assert outcome(client, "restore message", id=number, key=deletion.upper()) == "ok"
    assert len(rows(database)) == 1
    assert outcome(bob, "delete message", id=number, key=deletion) == "ok"  # A copy that comes late
    assert len(rows(database)) == 1
    again = key()
    assert outcome(ann, "delete message", id=number, key=again) == "ok"
    assert rows(database) == []
    assert outcome(ann, "restore message", id=number, key=deletion) == "not-found"
    assert outcome(ann, "restore message", id=number, key=again) == "ok"
    assert len(rows(database)) == 1


def test_only_its_own_key_undoes_a_delete(board, database):
    ann, bob = speaker(board), speaker(board)
    number = added(ann)
    assert outcome(bob, "restore message", id=number, key=key()) == "not-found"  # It is there
    assert outcome(ann, "delete message", id=number, key=key()) == "ok"
    assert outcome(bob, "restore message", id=number, key=key()) == "not-found"
    assert outcome(bob, "delete message", id=number, key=key()) == "not-found"
    assert outcome(bob, "delete message", id=number) == "not-found"
    other = added(ann)
    assert outcome(ann, "delete message", id=other) == "ok"
    assert outcome(ann, "restore message", id=other, key=key()) == "not-found"
    assert rows(database) == []


def test_the_plain_protocol_can_do_it_too(board):
    plain, deletion = board.client(), key()
    plain.send("add message", author="Ann", text="plain")
    number = int(plain.until("plain").split('id="message--')[1].split('"')[0])
    plain.send("delete message", id=number, key=deletion)
    assert "plain" not in plain.html()
    plain.send("restore message", id=str(number), key=deletion)
    assert ">plain</p>" in plain.html()
    plain.send("restore message", id=number)
    assert plain.notice() == "invalid"


def age(database, number, time):
    """Makes the deletion of a message so much older."""
    database.sql("UPDATE breadboard_deleted SET deleted_at = deleted_at - %s::interval"
                 " WHERE id = %s", time, number)


def test_too_late_is_too_late_and_the_text_is_erased(board, database):
    ann = speaker(board)
    number, old, deletion = added(ann, "secret"), added(ann, "older"), key()
    assert outcome(ann, "delete message", id=number, key=deletion) == "ok"
    age(database, number, "10 s")
    assert outcome(ann, "restore message", id=number, key=deletion) == "ok"
    deletion = key()
    for message in number, old:
        assert outcome(ann, "delete message", id=message, key=deletion) == "ok"
    age(database, number, "20 s")
    age(database, old, "1 day")
    assert outcome(ann, "restore message", id=number, key=deletion) == "not-found"
    wait_for(lambda: database.sql("SELECT id, author, text, created_at FROM breadboard_deleted")
             == [(number, None, None, None)], "one to be erased, one to be forgotten")
    assert outcome(ann, "delete message", id=number, key=deletion) == "ok"  # Still known
    assert outcome(ann, "restore message", id=number, key=deletion) == "not-found"
    assert outcome(ann, "delete message", id=old, key=deletion) == "not-found"


@pytest.mark.parametrize("with_key", [True, False])
def test_a_retry_of_an_add_does_not_bring_back_what_was_deleted(board, database, with_key):
    ann, bob = speaker(board), speaker(board)
    name = key()
    number = added(ann, key=name)
    more = {"key": key()} if with_key else {}
    assert outcome(bob, "delete message", id=number, **more) == "ok"
    assert added(ann, key=name) == number
    assert added(ann, key=name) == number
    assert rows(database) == []
    if with_key:
        assert outcome(bob, "restore message", id=number, **more) == "ok"
        assert added(ann, key=name) == number
        assert len(rows(database)) == 1


def test_keys_come_through_together(board, database):
    """Adds that share a statement: some new, some known, some deleted, some twice."""
    ann = speaker(board)
    names = [key() for _ in range(6)]
    numbers = [added(ann, key=name) for name in names[:4]]
    assert outcome(ann, "delete message", id=numbers[1]) == "ok"
    assert outcome(ann, "delete message", id=numbers[2]) == "ok"
    order = [5, 0, 1, 4, 2, 4, 3, 5]
    for index in order:
        ask(ann, f"r{index}", "add message", author="Ann", text=f"{index}", key=names[index])
    ids = {}
    for index in order:
        answer, _ = reply(ann, f"r{index}")
        assert ids.setdefault(index, answer["id"]) == answer["id"]
    assert [ids[index] for index in range(4)] == numbers
    assert ids[5] < ids[4]  # In order of arrival
    stored = [row[0] for row in rows(database)]
    assert stored == [numbers[0], numbers[3], ids[5], ids[4]]
    assert 'Page' not in board.get("/").text


def test_another_board_and_one_that_was_started_again_know_of_it(start, database):
    first, second = start(), start()
    ann, bob = speaker(first), speaker(second)
    name, deletion = key(), key()
    number = added(ann, "moving", key=name)
    assert outcome(ann, "delete message", id=number, key=deletion) == "ok"
    assert outcome(bob, "delete message", id=number, key=deletion) == "ok"
    assert added(bob, key=name) == number
    first.stop()
    ann = speaker(start())
    assert outcome(ann, "delete message", id=number, key=deletion) == "ok"
    assert outcome(bob, "restore message", id=number, key=deletion) == "ok"
    assert outcome(ann, "restore message", id=number, key=deletion) == "ok"
    assert added(ann, key=name) == number
    assert [row[2] for row in rows(database)] == ["moving"]


def test_boards_that_do_the_same_at_once_do_it_once(start, database):
    """Each client retries what is busy, as it should."""
    clients = [speaker(board) for board in (start(), start()) for _ in range(2)]

    def insist(client, action, number, name):
        answer = "busy"
        while answer == "busy":
            answer = outcome(client, action, id=number, key=name)
        answers.append(answer)

    for _ in range(10):
        number, name = added(clients[0]), key()
        for action in "delete message", "restore message":
            answers = []
            threads = [threading.Thread(target=insist, args=(client, action, number, name))
                       for client in clients]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert answers == ["ok"] * 4
            assert len(rows(database)) == (action == "restore message")
        assert outcome(clients[0], "delete message", id=number) == "ok"


def test_a_delete_in_doubt_is_settled_and_can_be_undone(start, database):
    before = backends(database)
    ann = speaker(start())
    number, deletion = added(ann), key()
    for action in ["delete message", "restore message"] * 5:
        ref = key()
        ask(ann, ref, action, id=number, key=deletion)
        database.sql("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid",
                     list(backends(database) - before))
        answer, _ = reply(ann, ref)
        while answer.get("error", {}).get("code") == "unavailable":
            ask(ann, ref, action, id=number, key=deletion)
            answer, _ = reply(ann, ref)
        assert answer["status"] == "ok", answer
        assert len(rows(database)) == (action == "restore message")
        if action == "restore message":
            deletion = key()


def test_what_others_delete_needs_no_tombstone(board, database):
    ann = speaker(board)
    number, deletion = added(ann), key()
    database.sql("DELETE FROM messages")
    assert outcome(ann, "delete message", id=number, key=deletion) == "not-found"
    assert outcome(ann, "restore message", id=number, key=deletion) == "not-found"


@pytest.mark.parametrize("name", [
    "018f14e4-5fce-1a67-9e53-0a5d5b7c1c01",
    "018f14e4-5fce-7a67-9e53-0a5d5b7c1c01",
    "018f14e4-5fce-8a67-9e53-0a5d5b7c1c01",  # whose makers put into it what they like
    "018f14e4-5fce-8a67-de53-0a5d5b7c1c01",  # Microsoft's of old
    "00000000-0000-0000-0000-000000000000",
], ids=str)
def test_a_late_retry_finds_what_was_deleted_whatever_its_key(board, database, name):
    ann = speaker(board)
    number = added(ann, key=name)
    assert outcome(ann, "delete message", id=number) == "ok"
    assert added(ann, key=name) == number
    assert rows(database) == []


def test_who_sends_no_key_leaves_none_behind(board, database):
    """Nobody can ask for it again."""
    ann = speaker(board)
    assert outcome(ann, "delete message", id=added(ann)) == "ok"
    assert database.sql("SELECT count(*) FROM breadboard_deleted") == [(0,)]


@pytest.mark.parametrize("somebody", [False, True], ids=["us", "somebody else"])
def test_other_boards_count_a_message_that_one_transaction_deletes_twice(own_server, somebody):
    """PostgreSQL delivers only one of two announcements that say the same."""
    fresh = Fresh(own_server)
    with starter(database_url=fresh.url, limits_messages_per_second=0) as start:
        here, there = start(), start()
        ann, bob = speaker(here), there.client()
        number = [added(ann) for _ in range(101)][0]
        wait_for(lambda: there.metric("page_index_messages") == 101, "all that was added")
        if somebody:
            fresh.sql(f"CREATE TABLE kept AS SELECT * FROM messages WHERE id = {number};"
                      "DELETE FROM messages USING kept WHERE messages.id = kept.id;"
                      "INSERT INTO messages SELECT * FROM kept;"
                      "DELETE FROM messages USING kept WHERE messages.id = kept.id;"
                      "DROP TABLE kept")
        else:
            first, second = key(), key()
            with paused(own_server):
                ask(ann, "0", "add message", author="Ann", text="and is alone in its write")
                time.sleep(0.2)
                ask(ann, "1", "delete message", id=number, key=first)
                ask(ann, "2", "restore message", id=number, key=first)
                ask(ann, "3", "delete message", id=number, key=second)
                time.sleep(0.2)
            assert [reply(ann, ref)[0]["status"] for ref in "0123"] == ["ok"] * 4
            assert outcome(ann, "delete message", id=rows(fresh)[-1][0]) == "ok"
        added(ann, "the last word")
        bob.until("the last word")
        assert there.metric("page_index_messages") == len(fresh.texts()) == 101


def test_boards_upgrade_a_database_of_version_1_together(server):
    """With the rows that were in it, and two boards at once."""
    server.sql("DROP DATABASE IF EXISTS old", database="postgres")
    server.sql("CREATE DATABASE old", database="postgres")
    url = server.url.replace("dbname=board", "dbname=old")
    board = Board(database_url=url)
    number, name = added(speaker(board), "kept"), key()
    assert board.stop() == 0
    server.sql("DROP TABLE breadboard_deleted; DELETE FROM breadboard_schema WHERE version > 1",
               database="old")
    boards = []
    threads = [threading.Thread(target=lambda: boards.append(Board(database_url=url)))
               for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(boards) == 2
    for board in boards:
        wait_for(lambda: ">kept</p>" in board.get("/").text, "what the other board has restored")
        assert outcome(speaker(board), "delete message", id=number, key=name) == "ok"
        assert outcome(speaker(board), "restore message", id=number, key=name) == "ok"
    assert server.sql("SELECT version FROM breadboard_schema ORDER BY version",
                      database="old") == [(1,), (2,), (3,), (4,)]
    for board in boards:
        assert board.stop() == 0
