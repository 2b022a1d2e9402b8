"""Doors: what one connection and one address may ask for, how long it may take, and how the program is built.

Addresses are told apart by X-Forwarded-For here, which a board behind a trusted proxy believes.
"""

import ast
import contextlib
import os
import re
import struct
import subprocess
import time

import pytest

from board import BINARY, PATH, PATIENCE, ROOT, Board, wait_for
from raw import (BINARY as BINARY_FRAME, PING, PONG, TEXT, Raw, command, frame, handshake, request,
                 websocket)

HOST = ("Host", "localhost")
FORM = ("Content-Type", "application/x-www-form-urlencoded")
ANN, BOB = "192.0.2.1", "198.51.100.2"
LIMIT = 65536  # limits.max_message_bytes by default


def from_address(address):
    return "X-Forwarded-For", address


@pytest.fixture
def proxied(start):
    """Starts a board that stands behind a trusted proxy: the tests are that."""

    def proxied(**settings):
        return start(http_trust_proxy="yes", **settings)

    return proxied


def knock(board, address):
    """A handshake from the address: the socket if it was let in, or None, with what it was told."""
    raw = Raw(board.address)
    raw.send(handshake(from_address(address)))
    answer = raw.answer()
    if answer.status == 101:
        return raw, answer
    raw.close()
    return None, answer


def let_in(board, address):
    raw, answer = knock(board, address)
    assert raw, answer.status
    return raw


def is_refused(board, address):
    raw, answer = knock(board, address)
    if raw:
        raw.close()
        return False
    assert answer.status == 429
    assert int(answer["Retry-After"]) >= 1
    assert answer["Content-Security-Policy"]
    return True


#  ---------------------------------------------------------------- Connections of an address


def test_an_address_has_so_many_connections(proxied):
    board = proxied(limits_connections_per_address=3)
    anns = [let_in(board, ANN) for _ in range(3)]
    for _ in range(5):
        assert is_refused(board, ANN)
    assert board.metric("address_refused_total") == 5
    assert board.metric("connections_refused_total") == 5
    bobs = [let_in(board, BOB) for _ in range(3)]
    assert is_refused(board, BOB)
    with Raw(board.address) as raw:  # pages need no place
        assert raw.ask("GET", "/", HOST, from_address(ANN)).status == 200
    for raw in *anns, *bobs:
        raw.send_frame(b"here", opcode=PING)
        assert raw.selector() == "#messages__list" and raw.frame() == (PONG, b"here")
    # A place is free again however its owner left
    for leave in (
        lambda raw: raw.send_frame(struct.pack(">H", 1000), opcode=8),
        lambda raw: raw.send_frame(b"", opcode=BINARY_FRAME),
        lambda raw: None,
    ):
        leaver = anns.pop(0)
        leave(leaver)
        leaver.close()
        wait_for(lambda: anns.append(knock(board, ANN)[0]) or anns[-1] or anns.pop(), "a free place")
        assert is_refused(board, ANN)
    # A refusal for another reason takes none
    anns.pop().close()
    for headers in [("Origin", "null")], [("Sec-WebSocket-Key", "x")], [("Host", "")]:
        with Raw(board.address) as raw:
            raw.send(handshake(from_address(ANN), *headers))
            assert raw.answer().status in (400, 403)
    wait_for(lambda: not is_refused(board, ANN), "a free place")
    # The log names the address and the setting, and not over and over
    (line,) = [line for line in board.logged().splitlines() if "doorman" in line]
    assert f"{ANN} is over limits.connections_per_address" in line and "http.trust_proxy" in line


def test_a_full_board_takes_no_place_of_an_address(proxied):
    board = proxied(limits_connections_per_address=2, http_max_connections=1)
    bob = let_in(board, BOB)
    for _ in range(300):  # what she was refused for is over before she can be told
        assert knock(board, ANN)[1].status == 503
    bob.close()
    wait_for(lambda: not is_refused(board, ANN) if board.metric("connections") == 0 else False,
             "a place for her")


@pytest.mark.parametrize("lines, same", [
    (["203.0.113.7, 192.0.2.1"], True),  # what a client claims comes first
    (["192.0.2.1"], True),
    (["203.0.113.7", "192.0.2.1"], True),  # a proxy that adds a line
    (["203.0.113.7,192.0.2.1 , 10.1.2.3"], True),  # a second proxy of ours
    (["192.0.2.1", "10.1.2.3", "10.9.9.9"], True),
    (["::ffff:192.0.2.1"], True),
    (["192.0.2.1, 203.0.113.7"], False),
    (["192.0.2.1", "203.0.113.7"], False),
    (["192.0.2.2"], False),
    (["2001:db8::1"], False),
    (["192.0.2.1, unknown"], False),  # then it is the proxy's own address that counts
    (["192.0.2.1, 10.1.2.3, <script>"], False),
], ids=str)
def test_whose_connection_it_is(proxied, lines, same):
    board = proxied(limits_connections_per_address=1, limits_exempt_addresses="127.0.0.1 10.0.0.0/8")
    first = let_in(board, ANN)
    with Raw(board.address) as raw:
        raw.send(handshake(*[from_address(line) for line in lines]))
        assert raw.answer().status == (429 if same else 101)
    first.close()


def test_half_an_ipv6_address_is_one(proxied):
    board = proxied(limits_connections_per_address=1)
    first = let_in(board, "2001:db8:1:2::1")
    assert is_refused(board, "2001:db8:1:2:ffff:ffff:ffff:ffff")
    let_in(board, "2001:db8:1:3::1").close()
    first.close()


def test_this_machine_is_exempt_unless_told_otherwise(start):
    board = start(limits_connections_per_address=1)
    raws = [let_in(board, address) for address in (ANN, ANN, BOB)]  # nobody believes these
    for raw in raws:
        raw.close()
    board = start(limits_connections_per_address=1, limits_exempt_addresses="")
    first = let_in(board, ANN)
    assert is_refused(board, BOB)
    first.close()


#  ---------------------------------------------------------------- Rates


def test_an_address_has_so_many_handshakes(proxied):
    board = proxied(limits_handshakes_per_address=1)
    begun, more = time.monotonic(), 0
    for _ in range(2):
        let_in(board, ANN).close()
    while not is_refused(board, ANN):
        more += 1
        assert more <= time.monotonic() - begun
    let_in(board, BOB).close()
    wait_for(lambda: not is_refused(board, ANN), "her rate to allow another")


def exchange(raws, count):
    """Each sends so many pings at once, and gets its pongs."""
    for raw in raws:
        raw.send(b"".join(frame(str(number), PING) for number in range(count)))
    for raw in raws:
        for number in range(count):
            assert raw.frame() == (PONG, str(number).encode())


def test_the_connections_of_an_address_share_its_rate(proxied):
    rate = 100
    board = proxied(limits_messages_per_address=rate, limits_messages_per_second=0)
    anns = [let_in(board, ANN) for _ in range(4)]
    bob = let_in(board, BOB)
    for raw in *anns, bob:
        assert raw.selector() == "#messages__list"
    begun = time.monotonic()
    exchange(anns, 100)  # twice the rate at once, then the rate
    assert time.monotonic() - begun >= (400 - 2 * rate) / rate - 0.05
    assert board.metric("connections_paused_total") >= 1
    exchange([bob], 100)
    for raw in *anns, bob:
        raw.close()


def test_forms_count_as_messages_of_an_address(proxied, database):
    board = proxied(limits_messages_per_address=1)

    def post(address, path="/messages", body="author=Ann&message=Hello"):
        with Raw(board.address) as raw:
            return raw.ask("POST", path, HOST, FORM, ("Content-Length", len(body)),
                           from_address(address), body=body)

    begun = time.monotonic()
    assert [post(ANN).status for _ in range(2)] == [303, 303]
    more = 0
    for path, body in ("/messages", "author=a&message=b"), ("/messages/1/delete", ""), (
            "/messages/1", "author=a&message=b"):
        while (answer := post(ANN, path, body)).status != 429:
            more += 1
            assert more <= time.monotonic() - begun
        assert int(answer["Retry-After"]) >= 1, path
    assert post(BOB).status == 303
    if not more:
        assert database.sql("SELECT count(*), min(text) FROM messages") == [(3, "Hello")]
    wait_for(lambda: post(ANN).status == 303, "her rate to allow another")


@pytest.mark.parametrize("length", [2**32, 2**32 + 1, 10**17])
def test_a_body_that_is_only_announced_is_not_counted(proxied, length):
    board = proxied()

    def post(path, announced, body=""):
        with Raw(board.address) as raw:
            return raw.ask("POST", path, HOST, FORM, ("Content-Length", announced), from_address(ANN),
                           body=body).status

    assert post("/messages/1/delete", length) == 404  # it needs no body, and waits for none
    assert post("/messages", length) == 413
    body = "author=Ann&message=Hello"
    assert post("/messages", len(body), body) == 303


@pytest.mark.parametrize("limit", ["bytes_per_second", "bytes_per_address"])
def test_bytes_are_counted_whatever_they_are(proxied, limit):
    rate = 100000
    settings = {f"limits_{limit}": rate, "limits_messages_per_second": 0}
    board = proxied(**settings)
    ann, bob = let_in(board, ANN), let_in(board, BOB)
    for raw in ann, bob:
        assert raw.selector() == "#messages__list"
    # Empty fragments, pongs that nobody asked for, and a message that fits: none is lost
    sent = (frame(final=False) + frame(b"", 0, final=False) * 20000 + frame(b"x" * 125, PONG) * 1000
            + frame(command("open edit page", id=0), 0) + frame(b"last", PING))
    begun = time.monotonic()
    ann.send(sent)
    answers = [ann.frame(), ann.frame()]
    assert (PONG, b"last") in answers
    assert any(opcode == TEXT and b"not-found" in payload for opcode, payload in answers)
    assert time.monotonic() - begun >= (len(sent) - 2 * rate - LIMIT) / rate - 0.05
    begun = time.monotonic()
    bob.send_frame(b"at once", opcode=PING)
    assert bob.frame() == (PONG, b"at once")
    for raw in ann, bob:
        raw.close()


def test_a_message_may_take_longer_than_its_time_where_the_rate_makes_it_wait(start):
    board = start(limits_bytes_per_second=10000)
    raw = websocket(board.address)
    raw.send_frame(command("open edit page", id=0).ljust(LIMIT))
    raw.send_frame(command("open edit page", id=0).ljust(LIMIT))
    begun = time.monotonic()
    assert raw.selector() == "#notices" and raw.selector() == "#notices"
    assert time.monotonic() - begun >= (LIMIT - 20000) / 10000 - 0.05
    raw.close()


def test_reload_changes_the_limits_of_an_address(database, tmp_path):
    ini = tmp_path / "board.ini"

    def write(most):
        ini.write_text(f"[http]\nlisten = 127.0.0.1:0\ntrust_proxy = yes\n[database]\n"
                       f"url = {database.url}\n[limits]\nconnections_per_address = {most}\n")

    write(1)
    board = Board(["-c", str(ini)], http_listen="127.0.0.1:0")
    raws = [let_in(board, ANN)]
    assert is_refused(board, ANN)
    write(2)
    board.signal(1)
    board.wait_logged("reload: settings")
    raws.append(let_in(board, ANN))
    assert is_refused(board, ANN)
    for raw in raws:
        raw.close()
    assert board.stop() == 0


#  ---------------------------------------------------------------- Time


def test_what_does_not_end_in_its_time_is_cut(board):
    """All at once, since each takes 10 s: what stops short, and what comes a byte at a time."""
    good = frame(command("add message", author="Ann", text="never" * 200))
    long = "x" * 1000
    body = request("POST", "/messages", HOST, FORM, ("Content-Length", 1000))
    sockets = {
        "a frame's first byte": (good[:1], b""),
        "a frame's length": (good[:3], b""),
        "a frame but its last byte": (good[:-1], b""),
        "a message but its last fragment": (frame('{"action"', final=False), b""),
        "a frame, byte by byte": (b"", good),
        "a fragment, byte by byte": (frame('{"action"', final=False), frame("x" * 1000, 0)),
        "pings within a message": (frame('{"action"', final=False), frame(b"", PING) * 200),
    }
    others = {
        "a request line": (b"GET / HT", b""),
        "a header": (b"GET / HTTP/1.1\r\nHo", b""),
        "a handshake": (handshake()[:-2], b""),
        "a body": (body + b"author=", b""),
        "a header, byte by byte": (b"GET / HTTP/1.1\r\nX: ", long.encode()),
        "a handshake, byte by byte": (handshake()[:-2] + b"X: ", long.encode()),
        "a body, byte by byte": (body, long.encode()),
    }
    raws = {what: websocket(board.address) for what in sockets}
    raws |= {what: Raw(board.address) for what in others}
    drips = {}
    for what, (sent, drip) in (sockets | others).items():
        raws[what].send(sent)
        drips[what] = iter(drip)
    left = set(raws)
    deadline = time.monotonic() + PATIENCE
    while left:
        assert time.monotonic() < deadline, left
        for what in left:
            byte = next(drips[what], None)
            with contextlib.suppress(ConnectionError):
                raws[what].send(b"" if byte is None else bytes([byte]))
        time.sleep(0.25)
        left -= {what for what in left if raws[what].ended()}
    for what, raw in raws.items():
        assert what in others or b"\x03\xf0message not finished in time" in raw.received, what
        assert what in sockets or raw.received[:11] in (b"", b"HTTP/1.1 40"), (what, raw.received)
        raw.close()
    with websocket(board.address) as raw:
        raw.send_frame(b"alive", opcode=PING)
        assert raw.frame() == (PONG, b"alive")


CROWDS = {
    "silent": b"",
    "half a handshake": handshake()[:-2],
    "half a header": b"GET / HTTP/1.1\r\nHost: localhost\r\n",
    "a whole request": request("GET", "/healthz", HOST),  # and nothing more on a kept connection
    "half a body": request("POST", "/messages", HOST, FORM, ("Content-Length", 100), body="author="),
}


def asked(board, path="/healthz"):
    """Seconds until the answer."""
    begun = time.monotonic()
    assert board.get(path).status == 200
    return time.monotonic() - begun


@pytest.mark.parametrize("sent", CROWDS.values(), ids=CROWDS)
def test_a_crowd_that_says_little_does_not_close_the_door(start, sent, record_property):
    """While 2,000 come, and once they stand; the figures are printed, and only too much is an error."""
    board = start()
    asked(board)
    crowd, arriving = [], []
    for number in range(2000):
        crowd.append(Raw(board.address))
        crowd[-1].send(sent)
        if number % 100 == 99:
            arriving.append(asked(board))
    standing = [asked(board) for _ in range(20)]
    figures = (f"arriving {max(arriving) * 1000:.0f} ms at worst, "
               f"standing {max(standing) * 1000:.0f} ms at worst")
    record_property("figures", figures)
    print(figures)
    for raw in crowd:
        raw.close()
    assert max(arriving) < PATIENCE / 2 and max(standing) < PATIENCE / 2


#  ---------------------------------------------------------------- Memory


def test_who_does_not_read_is_sent_away(start):
    board = start(limits_messages_per_second=0)
    with websocket(board.address) as other, websocket(board.address) as deaf:
        asks = frame(command("open edit page", id=0)) * 100
        with contextlib.suppress(ConnectionError):
            for _ in range(500):  # far more answers than the kernel holds
                deaf.send(asks)
                if board.metric("connections_cut_total") == 1:
                    break
        assert board.metric("connections_cut_total") == 1
        payload = deaf.close_frame()
        assert struct.unpack(">H", payload[:2]) == (1013,) and b"too slow" in payload
        other.send_frame(b"not held up", opcode=PING)
        assert other.frame() == (PONG, b"not held up")


def test_what_is_announced_takes_no_memory(start):
    """100 clients promise 16 MB each, all that is allowed, and send 100 bytes; one promises more."""
    most = 2**24
    board = start(limits_max_message_bytes=most)
    clients = [websocket(board.address) for _ in range(100)]
    before = board.resident()
    for client in clients:
        client.send(b"\x81\xff" + struct.pack(">Q", most) + b"mask" + b"x" * 100)
    with websocket(board.address) as liar:
        liar.send(b"\x81\xff" + struct.pack(">Q", most + 1))
        assert liar.close_code() == 1009
    with websocket(board.address) as other:
        other.send_frame(b"all was read", opcode=PING)
        assert other.frame() == (PONG, b"all was read")
    assert 1024 * (board.resident() - before) < most
    for client in clients:
        client.close()


#  ---------------------------------------------------------------- The log


def test_what_a_client_sends_is_never_logged(start):
    """At every level, and wherever a client can put something; least of all what moves a terminal."""
    evil = "sesame\x1b[31m"
    board = start(log_level="debug", http_trust_proxy="yes", limits_connections_per_address=1)
    first = let_in(board, ANN)
    for sent in (
        request("GET", f"/{evil}", HOST), request(evil, "/", HOST), request("GET", "/", ("Host", evil)),
        request("GET", "/", HOST, (evil, "x")), request("GET", "/", HOST, version=evil),
        request("GET", f"/?page={evil}", HOST), request("GET", f"/static/{evil}", HOST),
        request("GET", f"/messages/{evil}", HOST), request("GET", "/", HOST, ("X", evil)),
        request("POST", "/messages", HOST, ("Content-Type", evil), ("Content-Length", "0")),
        request("POST", "/messages", HOST, FORM, ("Content-Length", evil)),
        request("POST", "/messages", HOST, FORM, ("Content-Length", len(evil)), body=evil),
        f"{evil}\r\n\r\n".encode(), f"{evil}\n{evil}\n\n".encode(), b"\x16\x03\x01sesame\r\n\r\n",
        handshake(("Origin", evil)), handshake(("Sec-WebSocket-Key", evil)),
        handshake(("Sec-WebSocket-Protocol", evil)), handshake(path=f"{PATH}?page={evil}"),
        handshake(from_address(evil)), handshake(from_address(f"sesame, {ANN}")),
        handshake() + evil.encode(),
    ):
        with Raw(board.address) as raw:
            raw.send(sent)
            raw.read_until(b"\r\n\r\n")
    first.send_frame(evil)
    first.send_frame(command(evil, text=evil))
    first.send_frame(command("update message", id=evil, author=evil, text=evil))
    first.send_frame(command("add message", author=evil * 100, text=evil))
    first.send_frame(struct.pack(">H", 1000) + evil.encode(), opcode=8)
    first.rest()
    assert board.stop() == 0
    assert f"{ANN} is over limits" in board.logged()
    assert "sesame" not in board.logged() and "\x1b" not in board.logged()


#  ---------------------------------------------------------------- How it is built


def readelf(*options):
    return subprocess.run(["readelf", "--wide", *options, BINARY], check=True, text=True,
                          stdout=subprocess.PIPE).stdout


def test_the_program_is_hardened():
    symbols = readelf("--dyn-syms")
    if "__asan_init" in symbols:
        pytest.skip("sanitizers replace some of this")
    assert re.search(r"Type:\s+DYN \(Position-Independent Executable file\)", readelf("--file-header"))
    dynamic = readelf("--dynamic")
    assert re.search(r"\(FLAGS\)\s+.*BIND_NOW", dynamic)
    assert re.search(r"\(FLAGS_1\)\s+Flags:.*\bNOW\b.*\bPIE\b", dynamic)
    assert "TEXTREL" not in dynamic and "RPATH" not in dynamic and "RUNPATH" not in dynamic
    segments = readelf("--program-headers")
    assert "GNU_RELRO" in segments
    (stack,) = re.findall(r"GNU_STACK.* (R\S*)\s+0x", segments)
    assert stack == "RW"
    assert not re.search(r"LOAD .* RWE", segments)
    assert "__stack_chk_fail" in symbols
    fortified = set(re.findall(r"__(\w+)_chk@", symbols))
    assert {"snprintf", "memcpy"} & fortified and len(fortified) >= 3, fortified
    # Every function with a buffer was built so: none of these may be left unchecked
    assert not {"sprintf", "vsprintf", "strcpy", "strcat", "gets"} & set(
        re.findall(r" (\w+)@GLIBC", symbols))


def test_the_threat_model_names_tests_that_there_are():
    with open(os.path.join(ROOT, "SECURITY.md"), encoding="utf-8") as page:
        text = page.read()
    named = re.findall(r"`(test_\w+)\.py: ((?:test_\w+(?:, )?)+)`", text)
    assert len(named) >= 20
    for module, tests in named:
        with open(os.path.join(ROOT, "tests", f"{module}.py"), encoding="utf-8") as source:
            there = {node.name for node in ast.parse(source.read()).body
                     if isinstance(node, ast.FunctionDef)}
        for test in tests.split(", "):
            assert test in there, (module, test)
    # Each row of the table of threats names one
    table = text.split("## Threats", 1)[1].split("\n## ", 1)[0]
    rows = [row for row in table.splitlines() if row.startswith("| ")][2:]
    assert rows and all("`test_" in row for row in rows), rows
