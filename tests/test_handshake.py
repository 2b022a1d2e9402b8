"""The way in for WebSockets: RFC 6455's opening handshake, to the letter, and who is let in."""

import itertools
import json

import pytest

from board import PATH, wait_for
from raw import (ACCEPT, CLOSE, KEY, PING, PONG, TEXT, Raw, command, frame, handshake, request,
                 websocket)

SUBPROTOCOL = "Sec-WebSocket-Protocol"
FORM = ("Content-Type", "application/x-www-form-urlencoded")


def status(board, sent):
    """The status of the answer to a handshake's bytes, whose connection it ends."""
    with Raw(board.address) as raw:
        raw.send(sent)
        return raw.answer().status


def works(raw):
    """Whether a command is answered; what else comes first is passed over."""
    raw.send_frame(command("open edit page", id=0))
    while raw.selector() != "#notices":
        pass
    return True


def test_the_answer(board):
    with Raw(board.address) as raw:
        answer = raw.upgrade()
        assert answer["Upgrade"].lower() == "websocket"
        assert answer["Connection"].lower() == "upgrade"
        assert answer["Sec-WebSocket-Accept"] == ACCEPT
        assert answer[SUBPROTOCOL] is None
        assert answer["Content-Length"] is None
        assert raw.selector() == "#messages__list"
        assert works(raw)


def test_no_extension_is_agreed_on(board):
    with Raw(board.address) as raw:
        answer = raw.upgrade(("Sec-WebSocket-Extensions", "permessage-deflate; x=1, y"))
        assert answer["Sec-WebSocket-Extensions"] is None
        assert raw.selector() == "#messages__list"


@pytest.mark.parametrize("headers", [
    [("Upgrade", "WebSocket")],
    [("Upgrade", "h2c, WEBSOCKET")],
    [("Upgrade", "h2c"), ("Upgrade", "websocket")],
    [("Upgrade", ",, websocket ,")],
    [("Connection", "keep-alive, Upgrade")],
    [("Connection", "UPGRADE,keep-alive")],
    [("Connection", "keep-alive"), ("Connection", "upgrade")],
    [("Connection", "   upgrade  ")],
    [("SEC-WEBSOCKET-KEY", KEY), ("sec-websocket-version", "13")],
    [("Sec-WebSocket-Key", KEY + "   "), ("Sec-WebSocket-Version", " 13 ")],
    [("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")],
    [("Sec-WebSocket-Key", "/+/+/+/+/+/+/+/+/+/+/w==")],
    [("Host", "127.0.0.1:1")],
    [("Content-Length", "0")],
], ids=str)
def test_what_is_a_handshake(board, headers):
    with Raw(board.address) as raw:
        raw.upgrade(*headers)
        assert raw.selector() == "#messages__list"
        assert works(raw)


def test_a_query_is_no_part_of_the_path(board):
    assert status(board, handshake(path=f"{PATH}?room=1")) == 101


@pytest.mark.parametrize("wrong, headers", [
    # No upgrade to WebSocket is asked for
    (426, [("Upgrade", "websocket-evil")]),
    (426, [("Upgrade", "web socket")]),
    (426, [("Upgrade", "xwebsocket")]),
    (426, [("Upgrade", "h2c")]),
    (426, [("Upgrade", "")]),
    (426, [("Upgrade", None)]),
    (426, [("Connection", "keep-alive")]),
    (426, [("Connection", "upgrades")]),
    (426, [("Connection", "")]),
    (426, [("Connection", None)]),
    # Another version, or who knows which
    (426, [("Sec-WebSocket-Version", "8")]),
    (426, [("Sec-WebSocket-Version", "14")]),
    (426, [("Sec-WebSocket-Version", "13, 8")]),
    (426, [("Sec-WebSocket-Version", "8"), ("Sec-WebSocket-Version", "13")]),
    (426, [("Sec-WebSocket-Version", "13.0")]),
    (426, [("Sec-WebSocket-Version", "013")]),
    (426, [("Sec-WebSocket-Version", "0xD")]),
    (426, [("Sec-WebSocket-Version", "")]),
    (426, [("Sec-WebSocket-Version", None)]),
    # A key that is not 16 bytes in base64
    (400, [("Sec-WebSocket-Key", None)]),
    (400, [("Sec-WebSocket-Key", "")]),
    (400, [("Sec-WebSocket-Key", "short")]),
    (400, [("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAA")]),
    (400, [("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAAA=")]),
    (400, [("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAAAA")]),
    (400, [("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA")]),
    (400, [("Sec-WebSocket-Key", "AAAA AAAAAAAAAAAAAAAAA==")]),
    (400, [("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAA-_==")]),
    (400, [("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==")]),
    (400, [("Sec-WebSocket-Key", KEY), ("Sec-WebSocket-Key", KEY)]),
    # No host, or two
    (400, [("Host", None)]),
    (400, [("Host", "")]),
    (400, [("Host", "localhost"), ("Host", "localhost")]),
    (403, [("Host", "evil.example")]),
    # A body
    (400, [("Content-Length", "5")]),
    (411, [("Transfer-Encoding", "chunked")]),
], ids=str)
def test_what_is_no_handshake(board, wrong, headers):
    without = [name for name, value in headers if value is None]
    given = [(name, value) for name, value in headers if value is not None]
    with Raw(board.address) as raw:
        raw.send(handshake(*given, without=without))
        answer = raw.answer()
        assert answer.status == wrong
        assert answer["Sec-WebSocket-Accept"] is None
        assert answer["Content-Security-Policy"]
        if wrong == 426:
            assert answer["Sec-WebSocket-Version"] == "13"
            assert answer["Upgrade"] == "websocket"
            assert answer["Connection"] in ("Upgrade, close", "Upgrade, keep-alive")


@pytest.mark.parametrize("options, statuses", [
    ({"method": "POST"}, [405]),
    ({"method": "HEAD"}, [405]),
    ({"method": "PUT"}, [405]),
    ({"method": "OPTIONS"}, [405]),
    ({"method": "CONNECT"}, [400, 405]),
    ({"method": "get"}, [400, 405, 501]),
    ({"version": "HTTP/1.0"}, [400, 426, 505]),
    ({"version": "HTTP/0.9"}, [400, 426, 505]),
    ({"version": "HTTP/2.0"}, [400, 426, 505]),
    ({"path": PATH[:-1]}, [404]),
    ({"path": PATH + "x"}, [404]),
    ({"path": PATH + "/"}, [404]),
    ({"path": "/" + PATH}, [404]),
    ({"path": PATH.upper()}, [404]),
    ({"path": PATH.replace("social", "soci%61l")}, [404]),
    ({"path": f"/x/..{PATH}"}, [404]),
    ({"path": PATH + "%00"}, [404]),
    ({"path": "/"}, [200]),
    ({"path": "/healthz"}, [200]),
    ({"path": "/static/"}, [404]),
], ids=str)
def test_method_version_and_path_are_exact(board, options, statuses):
    with Raw(board.address) as raw:
        raw.send(handshake(**options))
        answer = raw.answer(options.get("method", "GET"))
        assert answer.status in statuses
        if answer.status == 405 and options["method"] != "CONNECT":
            assert answer["Allow"] == "GET"


def test_the_path_is_a_setting(start):
    board = start(http_path="/elsewhere")
    assert status(board, handshake(path="/elsewhere")) == 101
    assert status(board, handshake(path="/elsewhere/")) == 404
    assert status(board, handshake()) == 404


#  ---------------------------------------------------------------- Subprotocol


@pytest.mark.parametrize("offers, taken", [
    (["breadboard.1"], True),
    (["chat, breadboard.1"], True),
    (["breadboard.1,chat"], True),
    (["chat", "breadboard.1"], True),
    (["a", "b , breadboard.1 ,c"], True),
    (["chat"], False),
    (["breadboard.10"], False),
    (["breadboard"], False),
    (["xbreadboard.1"], False),
    (["breadboard.1x, breadboard.2"], False),
    (["breadboard.1;q=1"], False),
    (["BREADBOARD.1"], False),  # not what was offered, to the letter: a browser would refuse it
], ids=str)
def test_the_subprotocol_is_taken_if_offered(board, offers, taken):
    with Raw(board.address) as raw:
        answer = raw.upgrade(*[(SUBPROTOCOL, offer) for offer in offers])
        assert answer.get_all(SUBPROTOCOL, []) == (["breadboard.1"] if taken else [])
        assert raw.selector() == "#messages__list"


def test_the_subprotocol_of_one_is_never_that_of_the_next(start):
    board = start(http_threads=2)  # so that each thread has many
    for number in range(40):
        with Raw(board.address) as raw:
            offered = number % 2 == 0
            answer = raw.upgrade(*[(SUBPROTOCOL, "breadboard.1")] * offered)
            assert answer[SUBPROTOCOL] == ("breadboard.1" if offered else None), number


#  ---------------------------------------------------------------- Who is let in


def test_origin(board):
    same, port = f"http://{board.address}", board.port
    host = ("Host", board.address)
    for origin, wanted in {
        same: 101, f"https://{board.address}": 101, f"HTTP://{board.address}": 101, "null": 403,
        "": 403, "http://evil.example": 403, f"http://evil.example:{port}": 403,
        f"http://127.0.0.1:{port + 1}": 403, "http://127.0.0.1": 403,
        f"http://localhost:{port}": 403, f"{same}.evil.example": 403, f"{same}@evil.example": 403,
        f"{same}/": 403, "file://": 403, board.address: 403,
    }.items():
        assert status(board, handshake(host, ("Origin", origin))) == wanted, origin
    assert status(board, handshake(host, ("Origin", same), ("Origin", same))) == 403
    # The ports that the schemes have by default
    for origin, wanted in {"http://localhost": 101, "https://localhost": 101,
                           "http://localhost:80": 101, "http://localhost:443": 403}.items():
        assert status(board, handshake(("Origin", origin))) == wanted, origin


def test_allowed_origins(start):
    board = start(http_allowed_origins="https://friend.example")
    for origin, wanted in {"https://friend.example": 101, "https://friend.example:443": 101,
                           "http://friend.example": 403, "https://x.friend.example": 403,
                           "http://localhost": 101, "null": 403}.items():
        assert status(board, handshake(("Origin", origin))) == wanted, origin


def test_origin_behind_a_trusted_proxy(start):
    board = start(http_trust_proxy="yes", http_allowed_hosts="board.example")
    proxied = ("Host", "board.example"), ("X-Forwarded-Proto", "https")
    for origin, wanted in {"https://board.example": 101, "http://board.example": 403}.items():
        assert status(board, handshake(*proxied, ("Origin", origin))) == wanted, origin


def test_no_more_than_max_connections(start):
    board = start(http_max_connections=3)
    clients = [websocket(board.address) for _ in range(3)]
    for _ in range(5):
        with Raw(board.address) as raw:
            raw.send(handshake())
            answer = raw.answer()
            assert answer.status == 503 and answer["Retry-After"]
    assert board.get("/").status == 200  # pages need no place
    assert all(works(client) for client in clients)

    def let_in():
        raw = Raw(board.address)
        raw.send(handshake())
        if raw.answer().status == 101:
            clients.append(raw)
            return True
        raw.close()
        return False

    # A place is free again however its client left
    for leave in (
        lambda client: client.send_frame(b"\x03\xe8", opcode=CLOSE),
        lambda client: client.send_frame("unmasked", mask=None),
        lambda client: None,
    ):
        client = clients.pop(0)
        leave(client)
        client.close()
        wait_for(let_in, "a free place")
        assert not let_in()
    # Those that were refused for another reason took none
    clients.pop().close()
    wait_for(let_in, "a free place")
    clients.pop().close()
    for headers in [("Origin", "null")], [("Sec-WebSocket-Key", "x")], [("Host", "evil.example")]:
        assert status(board, handshake(*headers)) in (400, 403)
    wait_for(let_in, "a free place")
    assert works(clients[-1]) and not let_in()
    for client in clients:
        client.close()


def test_headers_up_to_63(board):
    usual = 5
    for count, wanted in {58: 101, 59: 431, 60: 431, 200: 431}.items():
        fill = [(f"X-{number}", "y") for number in range(count)]
        with Raw(board.address) as raw:
            raw.send(handshake(*fill))
            answer = raw.answer()
            assert answer.status == wanted, count + usual
            assert wanted == 101 or answer["Content-Security-Policy"]
    # Nothing hides behind them
    with Raw(board.address) as raw:
        raw.send(handshake(*fill, ("Origin", "http://evil.example")))
        assert raw.answer().status == 431


#  ---------------------------------------------------------------- The bytes around a handshake


@pytest.mark.parametrize("early", [
    frame(command("list messages", page=1)),
    frame(command("list messages", page=1))[:1],
    frame(command("list messages", page=1))[:9],
    frame(b"early", PING),
    frame("x" * 9000) * 3,
    b"\x00",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
], ids=["frame", "a byte", "half a frame", "ping", "much", "zero", "request"])
def test_bytes_that_did_not_wait_for_the_answer_close(board, early):
    other = board.client()
    with Raw(board.address) as raw:
        raw.send(handshake() + early)
        assert raw.answer().status == 101
        assert raw.close_code() == 1002
    other.send("open edit page", id=0)
    assert other.notice() == "not-found"


def test_bytes_on_the_heels_of_a_handshake_are_never_garbage(board):
    """Whether they came too early only the server's luck decides; in between there is nothing."""
    outcomes = set()
    for number in range(40):
        with Raw(board.address) as raw:
            raw.send(handshake())
            raw.send_frame(command("open edit page", id=0))
            raw.send_frame(b"echo", opcode=PING)
            assert raw.answer().status == 101
            frames = [raw.frame()]
            while frames[-1] != (PONG, b"echo") and frames[-1][0] != CLOSE:
                frames.append(raw.frame())
            if frames[-1][0] == CLOSE:
                assert frames[-1][1] == b"\x03\xea" and len(frames) == 1, number
            else:
                selectors = sorted(json.loads(data)["selector"] for op, data in frames if op == TEXT)
                assert selectors in (["#messages__list", "#notices"], ["#messages__list"]), number
            outcomes.add(frames[-1][0])
    assert outcomes <= {PONG, CLOSE}


def test_a_handshake_in_pieces(board):
    with Raw(board.address) as raw:
        sent = handshake(("X", "y"))
        for start, end in itertools.pairwise(range(0, len(sent) + 20, 20)):
            raw.send(sent[start:end])
        assert raw.answer().status == 101
        assert raw.selector() == "#messages__list"
        assert works(raw)


def test_a_connection_that_was_used_before_can_be_upgraded(board, database):
    host = ("Host", "localhost")
    body = "author=Ann&message=Hello"
    with Raw(board.address) as raw:
        for path in "/", "/healthz", "/absent", "/static/breadboard.css", "/?page=2":
            answer = raw.ask("GET", path, host, ("X", "space behind  "))
            assert answer["Connection"] == "keep-alive"
        assert raw.ask("HEAD", "/", host).status == 200
        etag = raw.ask("GET", "/static/breadboard.js", host)["ETag"]
        assert raw.ask("GET", "/static/breadboard.js", host, ("If-None-Match", etag)).status == 304
        length = ("Content-Length", len(body))
        assert raw.ask("POST", "/messages", host, FORM, length, body=body).status == 303
        refused = raw.ask("POST", "/messages", host, FORM, length, ("Origin", "null"), body=body)
        assert refused.status == 403
        if refused["Connection"] != "keep-alive":
            raw.close()
            raw = Raw(board.address)
        assert raw.ask("GET", PATH, host).status == 426
        raw.upgrade()
        first = raw.message()
        assert first["selector"] == "#messages__list" and "Hello" in first["html"]
        assert works(raw)
        raw.close()
    assert database.sql("SELECT count(*) FROM messages")[0][0] == 1


def test_requests_and_a_handshake_one_behind_the_other(board):
    with Raw(board.address) as raw:
        host = ("Host", "localhost")
        raw.send(request("GET", "/healthz", host) + request("GET", "/readyz", host) + handshake())
        assert raw.answer().text == "ok\n"
        assert raw.answer().text == "ready\n"
        assert raw.answer().status == 101
        assert raw.selector() == "#messages__list"
        assert works(raw)


def test_many_at_once(board):
    clients = [Raw(board.address) for _ in range(100)]
    for client in clients:
        client.send(handshake())
    for client in clients:
        assert client.answer().status == 101
        assert client.selector() == "#messages__list"
        client.send_frame(b"there?", opcode=PING)
    for client in clients:
        assert client.frame() == (PONG, b"there?")
        client.close()


def test_who_comes_to_two_of_our_addresses_from_one_port_is_not_mixed_up(start):
    """As two clients behind one NAT may: where the board listens on all addresses, only our own tells them apart."""
    board = start(http_listen="0.0.0.0:0")
    for _ in range(10):
        #  Bound, its port is its alone; one that comes with connect (2) may be shared with others elsewhere
        with Raw(f"127.0.0.1:{board.port}", ("127.0.0.1", 0)) as one:
            assert one.ask("GET", "/healthz", ("Host", "localhost")).status == 200
            with Raw(f"127.0.0.2:{board.port}", one.socket.getsockname()) as two:
                two.send(handshake())
                assert two.answer().status == 503
            assert one.ask("GET", "/healthz", ("Host", "localhost")).status == 200
            with Raw(f"127.0.0.2:{board.port}") as two:
                assert two.upgrade() and works(two)
