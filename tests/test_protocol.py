"""What http/PROTOCOL.md says to those who write clients: each example is played, and its client is run."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys

from board import PATH, PATIENCE, ROOT, wait_for

with open(os.path.join(ROOT, "http/PROTOCOL.md"), encoding="utf-8") as file:
    BLOCKS = re.findall(r"^```(\S+) ?(\S*)\n(.*?)^```", file.read(), re.M | re.S)

CONVERSATIONS = [block for block in BLOCKS if block[0] in ("plain", "breadboard.1")]
(CLIENT,) = [text for language, _, text in BLOCKS if language == "python"]


def matches(shown, value):
    """Whether a value is what the page shows; … stands for any text."""
    if isinstance(shown, dict) and isinstance(value, dict):
        return set(shown) == set(value) and all(matches(shown[name], value[name]) for name in shown)
    if isinstance(shown, str) and isinstance(value, str):
        pattern = ".*".join(map(re.escape, shown.split("…")))
        return re.fullmatch(pattern, value, re.S) is not None
    return shown == value


def next_frame(client, selector):
    """The next frame, or the next one that tells how many are here."""
    while selector == "#presence" and not client.presences:
        client.frames(0.1)
    return client.presences[0] if selector == "#presence" else client.frame()


def play(board, protocol, text):
    options = {} if protocol == "plain" else {"subprotocols": [protocol]}
    shows_first = len(text.splitlines()) == 1 and "#messages__list" in text
    client = board.silent_client(**options) if shows_first else board.client(**options)
    etag = ""
    for line in text.splitlines():
        arrow, example = line.split(" ", 1)
        shown = json.loads(example)
        if arrow == "→":
            client.send_raw(example.replace("ETAG", etag))
        else:
            assert arrow == "←"
            frame = next_frame(client, shown.get("selector"))
            assert matches(shown, frame), (line, frame)
            etag = frame.get("etag", etag)
    assert client.frames() == []
    client.close()


@contextlib.contextmanager
def situation(database, name):
    """The world in which an example takes place."""
    assert name in ("", "locked", "away")
    with contextlib.closing(database.connect()) as other:
        if name == "locked":
            other.autocommit = False
            other.cursor().execute("SELECT FROM messages FOR UPDATE")
        if name == "away":
            database.stop("immediate")
        yield
    if name == "away":
        database.start()


def test_each_example_is_as_it_is(start, database):
    board = start()
    assert len(CONVERSATIONS) == 10
    for protocol, name, text in CONVERSATIONS:
        with situation(database, name):
            if name == "away":
                wait_for(lambda: board.get("/readyz").status == 503, "the board to notice")
            play(board, protocol, text)
        wait_for(lambda: board.get("/readyz").status == 200, "the database")


def run_client(address, *arguments):
    return subprocess.Popen([sys.executable, "-c", CLIENT, f"ws://{address}{PATH}", *arguments],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_its_client_adds_a_message(start, database):
    board = start()
    out, err = run_client(board.address, "Ann", "by the book").communicate(timeout=PATIENCE)
    assert database.sql("SELECT id, author, text FROM messages") == [(int(out), "Ann", "by the book")]
    assert err == ""
    client = run_client(board.address, "Ann", "x" * 201)
    assert client.communicate(timeout=PATIENCE)[1] == "text is too long: 201 characters, at most 200.\n"
    assert client.returncode == 1


def test_its_client_adds_it_once_though_the_board_comes_and_goes(start, database):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % probe.getsockname()[1]
    clients = [run_client(address, "Ann", f"text {number}") for number in range(5)]
    for _ in range(3):
        board = start(http_listen=address)
        board.signal(15)  # It says when to come back
        assert board.wait() == 0
    start(http_listen=address)
    numbers = [int(client.communicate(timeout=PATIENCE)[0]) for client in clients]
    stored = dict(database.sql("SELECT id, text FROM messages"))
    assert stored == {number: f"text {index}" for index, number in enumerate(numbers)}
