"""How many are here, and whether saving is off: told to those who speak breadboard.1, soon, and not too often."""

import os
import re
import time

from board import wait_for
from proxy import Proxy
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


def test_an_outage_is_told_once_and_so_is_its_end(start, server):
    proxy = Proxy(os.path.join(server.folder, f".s.PGSQL.{server.port}"))
    board = start(database_url=f"host=127.0.0.1 port={proxy.port} user=board dbname=board")
    ann, plain = speaker(board), board.client()

    def told():
        here(ann)
        return ["saving is off" in frame["html"] for frame in ann.presences]

    wait_here(ann, 2)
    before = told()
    proxy.refuses = True
    proxy.cut()
    wait_for(lambda: told() == before + [True], "the outage to be told")
    bob = speaker(board)
    wait_here(bob, 3)
    assert "saving is off" in bob.presences[-1]["html"]
    proxy.refuses = False
    wait_for(lambda: told()[-1] is False, "its end to be told")
    assert told() in (before + [True, True, False], before + [True, False])  # Bob's coming may be told with the end
    wait_for(lambda: here(bob) and "saving" not in bob.presences[-1]["html"], "its end to be told")
    assert plain.presences == [] and plain.frames() == []
    assert board.stop() == 0
    proxy.close()
