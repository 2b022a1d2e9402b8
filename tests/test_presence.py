"""How many are here: told to those who speak breadboard.1, soon, and not too often."""

import re
import time

from board import wait_for
from test_replies import speaker


def here(client):
    """The numbers that the client was told, in order."""
    client.frames(0.01)
    return [int(re.search(r'class="presence__count">(\d+)<', frame["html"]).group(1))
            for frame in client.presences]


def wait_here(client, count):
    wait_for(lambda: here(client)[-1:] == [count], f"{count} to be here")


def test_everyone_is_told_when_somebody_comes_or_goes(start):
    board = start()
    ann = speaker(board)
    wait_here(ann, 1)
    bob, plain = speaker(board), board.client()
    wait_here(ann, 3)
    wait_here(bob, 3)
    bob.close()
    wait_here(ann, 2)
    plain.abort()
    wait_here(ann, 1)
    assert set(ann.presences[0]) == {"selector", "html"}
    assert plain.presences == []


def test_who_comes_is_told_though_the_number_is_the_same(start):
    board = start()
    ann, bob = speaker(board), speaker(board)
    wait_here(ann, 2)
    for _ in range(3):
        bob.close()
        bob = speaker(board)
        wait_here(bob, 2)


def test_it_is_told_at_most_once_a_second_and_not_at_all_in_quiet(start):
    board = start()
    before = time.monotonic()
    ann = speaker(board)
    for _ in range(30):
        speaker(board)
        speaker(board).close()
    wait_for(lambda: "breadboard_connections 31\n" in board.get("/metrics").text, "the last to go")
    ann.ping()  # What was told before has come
    wait_here(ann, 31)
    told = len(ann.presences)
    assert told <= time.monotonic() - before + 1
    assert ann.frames(2.5) == [] and len(ann.presences) == told


def test_its_template_is_read_anew(start, tmp_path):
    (tmp_path / "presence.html").write_text('<b class="presence__count">{{count}}</b> readers')
    board = start(http_templates=str(tmp_path))
    ann = speaker(board)
    wait_here(ann, 1)
    assert ann.presences[-1]["html"].endswith(" readers")
    (tmp_path / "presence.html").write_text('<i class="presence__count">{{count}}</i> writers')
    board.signal(1)  # SIGHUP
    wait_for(lambda: here(ann) and ann.presences[-1]["html"].endswith("writers"), "the new template")
