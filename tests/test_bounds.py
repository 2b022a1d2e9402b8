"""No queue grows without a bound, and what is full says so; slow and dead readers cost nobody else anything."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time

import pytest

from asker import Asker
from board import BINARY, Fresh, paused, wait_for
from raw import PING, PONG, websocket

WRITES = 400  # Their pages are more than the kernel's buffers hold for a client
DEAD_AFTER = 60  # s, at most
ADDRESS, PEER_ADDRESS = "10.213.97.1", "10.213.97.2"


def shadow():
    """How many times as much it may be where a sanitizer takes notes of each byte."""
    with open(BINARY, "rb") as program:
        return 10 if re.search(rb"__[at]san_init", program.read()) else 1


def test_a_full_board_says_busy_and_stores_what_it_acknowledged(own_server, start):
    own = Fresh(own_server)
    board = start(database_url=own.url, limits_messages_per_second=0,
                  database_statement_timeout_ms=600000)
    clients = [board.client(subprotocols=["breadboard.1"]) for _ in range(8)]
    sent, replies = 0, {}

    def take():
        for client in clients:
            for answer in client.frames(0.005):
                if "ref" in answer:
                    assert answer["ref"] not in replies
                    replies[answer["ref"]] = answer

    with paused(own_server):
        while not replies:
            assert sent < 60000, "a queue without a bound"
            for _ in range(400):
                data = {"author": "Ann", "text": f"message {sent}"}
                clients[sent % 8].send_raw(json.dumps({"action": "add message", "ref": f"{sent}",
                                                       "data": data}))
                sent += 1
            take()
        for answer in replies.values():
            assert (answer["status"], answer["error"]["code"]) == ("error", "busy")
            assert answer["retry_after_ms"] > 0
        assert board.get("/healthz").status == 200
    wait_for(lambda: take() or len(replies) == sent, "an answer for each")
    stored = {answer["id"]: f"message {ref}" for ref, answer in replies.items()
              if answer["status"] == "ok"}
    assert 4096 < len(stored) < sent  # As many as the database actor holds, at least
    assert dict(own.sql("SELECT id, text FROM messages")) == stored
    assert board.client().first  # And goes on


@pytest.fixture
def sleepers(board):
    """Clients that do not read for a while."""
    raws = [websocket(board.address) for _ in range(50)]
    yield raws
    for raw in raws:
        raw.close()


def test_a_slow_reader_costs_little_and_ends_on_the_newest_page(board, sleepers):
    writer = board.client()
    before = board.resident()
    stale = board.metric("connections_stale_total")
    for number in range(WRITES):
        writer.send("add message", author="Ann", text=f"message {number} " + "x" * 180)
        newest = writer.until(f"message {number} ")
    assert board.resident() - before < 10 * 1024 * shadow()
    assert board.metric("connections_stale_total") > stale
    for raw in sleepers:
        frames, html = 0, ""
        while html != newest:
            html = raw.message()["html"]
            frames += 1
        assert frames < WRITES  # It was spared most of them
        raw.send_frame(opcode=PING)
        assert raw.frame() == (PONG, b"")  # And nothing older comes behind


def ask_together(server, askers, around=lambda: None):
    """All of them ask for page 1 while the server stands still, so that the answers come together.
    What is around them is done before and after."""
    with paused(server):
        around()
        asked = [(asker, asker.send("list messages", page=1)) for asker in askers]
        around()
    for asker, ref in asked:
        assert len(asker.reply(ref)["html"]) > 10000


def test_who_does_not_read_keeps_nothing_of_what_others_get(own_server, start):
    own = Fresh(own_server)
    board = start(database_url=own.url, limits_messages_per_second=0, board_page_size=50,
                  environment={"MALLOC_MMAP_THRESHOLD_": "65536"})  # what is free is the system's again
    own.sql("INSERT INTO messages (author, text, created_at)"
            " SELECT 'Ann', repeat('\"', 200), now() FROM generate_series(1, 50)")
    wait_for(lambda: board.get("/").text.count("<article") == 50, "the messages")
    askers = [Asker(board) for _ in range(20)]
    everyone = 5 * askers
    for _ in range(5):
        ask_together(own_server, everyone)  # The memory that this takes at most
    absent = json.dumps({"action": "open edit page", "data": {"id": 0}})
    with websocket(board.address) as deaf:
        for _ in range(40):  # more than the kernel holds
            deaf.send_frame(json.dumps({"action": "list messages", "data": {"page": 1}}))
        askers[0].ask("list messages", page=1)
        before = board.resident()
        for _ in range(12):  # The kernel waits for 30 s for one who does not read
            ask_together(own_server, everyone, lambda: deaf.send_frame(absent))
        assert board.resident() - before < 10 * 1024 * shadow()


#  ---------------------------------------------------------------- Dead peers


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def network():
    """Another network, at the end of a wire that can be cut; its name."""
    name = f"breadboard-{os.getpid()}"
    try:
        ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to make a network namespace")
    try:
        ip("link", "add", "bread0", "type", "veth", "peer", "name", "board0", "netns", name)
        ip("addr", "add", f"{ADDRESS}/30", "dev", "bread0")
        ip("link", "set", "bread0", "up")
        ip("-n", name, "addr", "add", f"{PEER_ADDRESS}/30", "dev", "board0")
        ip("-n", name, "link", "set", "board0", "up")
        yield name
    finally:
        #  The other network lives on for as long as a connection in it does, and its end of the wire with it
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("link", "del", "bread0")
        ip("netns", "del", name)


#  What runs in the other network: a client that opens a WebSocket, and stays
PEER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from raw import websocket
raw = websocket(sys.argv[2], ("Host", sys.argv[2]))
print("open", flush=True)
while True:
    raw.frame()
"""


@contextlib.contextmanager
def peer(network, board):
    process = subprocess.Popen(
        ["ip", "netns", "exec", network, sys.executable, "-c", PEER, os.path.dirname(__file__),
         board.address], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout.readline() == "open\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_dead_peer_is_gone_within_a_minute(network, start):
    boards = [start(http_listen=f"{ADDRESS}:0", http_metrics="all") for _ in range(2)]
    quiet, busy = boards
    with peer(network, quiet), peer(network, busy):
        assert [board.metric("connections") for board in boards] == [1, 1]
        ip("-n", network, "link", "set", "board0", "down")
        began = time.monotonic()
        gone = set()
        while len(gone) < 2:
            assert time.monotonic() - began < DEAD_AFTER, f"only {gone} gone"
            busy.post("/messages", "author=Ann&message=to+whom")
            gone.update(board for board in boards if board.metric("connections") == 0)
            time.sleep(0.5)
