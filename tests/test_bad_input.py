"""Bad input costs its sender an answer at most: section 4 of the contract, and its codes.

A frame that the protocol can bear is answered with a notice and the connection lives on; what RFC
6455 forbids closes it. In either case nothing is written, and nobody else sees a thing.
"""

import contextlib
import json
import re
import signal
import struct
import time

import pytest

from board import wait_for
from raw import BINARY, CLOSE, PING, PONG, TEXT, Raw, command, frame, websocket

LIMIT = 65536  # limits.max_message_bytes by default
HUGE = "1" + "0" * 400
HUGE_NEGATIVE = "-" + HUGE

MALFORMED = {
    "nothing": "",
    "white space": " \r\n\t",
    "no JSON": "hello",
    "half an object": '{"action": "list messages", "data": {"page": 1}',
    "two objects": command("list messages", page=1) * 2,
    "a tail": command("list messages", page=1) + "x",
    "a NUL behind": command("list messages", page=1) + "\0",
    "a NUL between": command("list messages", page=1).replace(" ", "\0"),
    "a NUL in a string": command("list messages", page=1).replace("list", "l\0st"),
    "a byte order mark": "\ufeff" + command("list messages", page=1),
    "single quotes": command("list messages", page=1).replace('"', "'"),
    "a comment": command("list messages", page=1) + "// page 1",
    "a trailing comma": '{"action": "list messages", "data": {"page": 1},}',
    "NaN": '{"action": "list messages", "data": {"page": NaN}}',
    "Infinity": '{"action": "list messages", "data": {"page": -Infinity}}',
    "a hexadecimal page": '{"action": "list messages", "data": {"page": 0x1}}',
    "a page with a plus": '{"action": "list messages", "data": {"page": +1}}',
    "a page with a zero before": '{"action": "list messages", "data": {"page": 01}}',
    "a newline in a string": '{"action": "list\nmessages", "data": {"page": 1}}',
    "an escape that is none": r'{"action": "list messages", "data": {"page": "\x31"}}',
    "a float out of range": '{"action": "list messages", "data": {"page": 1e999}}',
    "an exponent out of range": '{"action": "list messages", "data": {"page": 1e%s}}' % HUGE,
    "an array": '["list messages", {"page": 1}]',
    "a string": '"list messages"',
    "a number": "1",
    "a huge number": HUGE,
    "null": "null",
    "true": "true",
    "an empty object": "{}",
    "an empty array": "[]",
    "no action": '{"data": {"page": 1}}',
    "no data": '{"action": "list messages"}',
    "no data for an add": '{"action": "add message"}',
    "a key twice": '{"action": "list messages", "action": "list messages", "data": {"page": 1}}',
    "data twice": '{"action": "list messages", "data": {"page": 1}, "data": {"page": 2}}',
    "a field twice": '{"action": "add message", "data": {"author": "a", "text": "b", "text": "c"}}',
    "a field twice, once escaped":
        r'{"action": "add message", "data": {"author": "a", "text": "b", "t\u0065xt": "c"}}',
    "an unknown key twice": '{"action": "list messages", "data": {"page": 1}, "x": {"y": 1, "y": 2}}',
    "a lone high surrogate": r'{"action": "add message", "data": {"author": "a", "text": "\ud83d"}}',
    "a lone low surrogate": r'{"action": "add message", "data": {"author": "\ude00", "text": "b"}}',
    "surrogates the wrong way round":
        r'{"action": "add message", "data": {"author": "a", "text": "\ude00\ud83d"}}',
    "a surrogate before text":
        r'{"action": "add message", "data": {"author": "a", "text": "\ud83dx"}}',
    "a lone surrogate somewhere else":
        r'{"action": "list messages", "data": {"page": 1}, "x": "\udfff"}',
    "a deep array": "[" * 60000,
    "a deep array, closed": "[" * 30000 + "]" * 30000,
    "a deep object": '{"a":' * 10000 + "1" + "}" * 10000,
    "deep data": '{"action": "list messages", "data": ' + "[" * 30000 + "]" * 30000 + "}",
    "depth beside": '{"action": "list messages", "data": {"page": 1}, "x": ' + "[" * 60000,
}

# What stands where an object, a name or a number should
WRONG_DATA = [None, True, False, 1, 1.5, "", "x", "{}", [], [{"page": 1}]]
WRONG_ACTION = [None, True, 1, [], {}, ["add message"], "", "add", "Add message", "add message ",
                " add message", "add  message", "add_message", "drop table", "list messages\0",
                "list messages\0x", "x" * 10000, "'; DROP TABLE messages; --"]
WRONG_NUMBER = [None, True, False, 1.5, 1.0, -0.5, [], [1], {}, "", " ", "x", "-1", "+1", " 1", "1 ",
                "1.0", "1e3", "0x1", "１", "٣", "1\0", "\0", "1\n", "1;"]
WRONG_TEXT = [None, True, 0, 1.5, [], ["x"], {}, "", " ", " \t\r\n", "\u00a0\u2003\u3000\u0085\u2028",
              "\0", "a\0b", "a\0", "\0" * 200]


def malformed():
    """All frames that are no request, by what is wrong with them."""
    yield from MALFORMED.items()
    for data in WRONG_DATA:
        for action in "add message", "list messages", "update message":
            yield f"{action}: data {data!r}", json.dumps({"action": action, "data": data})
    for action in WRONG_ACTION:
        yield f"action {str(action)[:30]!r}", json.dumps({"action": action, "data": {"page": 1}})
    for number in WRONG_NUMBER:
        yield f"page {number!r}", command("list messages", page=number)
        for action in "open edit page", "update message", "delete message":
            sent = command(action, id=number, author="a", text="b")
            yield f"{action}: id {number!r}", sent
    yield "no page", command("list messages")


def invalid(number):
    """Requests for message number with a field that cannot be: what is wrong, frame, field."""
    for action, fixed in ("add message", {}), ("update message", {"id": number}):
        for name, limit in ("author", 100), ("text", 200):
            good = {"author": "Ann", "text": "hello", **fixed}
            for value in [*WRONG_TEXT, "x" * (limit + 1), "😀" * (limit + 1), "x" * 20000]:
                given = {**good, name: value}
                yield f"{action}: {name} {str(value)[:30]!r}", command(action, **given), name
            del good[name]
            yield f"{action}: no {name}", command(action, **good), name
            huge = json.dumps({"action": action, "data": {**good, name: "?"}}).replace('"?"', HUGE)
            yield f"{action}: {name} huge", huge, name
        yield f"{action}: nothing", command(action, **fixed), "author"
    for action in "open edit page", "update message", "delete message":
        yield f"{action}: no id", command(action, author="a", text="b"), "id"
    for key in None, 1, "", "x", "0" * 36, "00000000-0000-0000-0000-00000000000g", [], {}:
        yield f"key {key!r}", command("add message", author="a", text="b", key=key), "key"
    for version in None, True, 1.5, "", "x", "-1", 0, -1, [], {}:
        sent = command("update message", id=number, author="a", text="b", version=version)
        yield f"version {version!r}", sent, "version"


class Scene:
    """A board with one message, an offender, a witness, and a look at what is stored."""

    def __init__(self, board, database):
        self.board = board
        self.database = database
        author = websocket(board.address)
        author.send_frame(command("add message", author="Ann", text="first"))
        assert author.selector() == "#messages__list"
        author.close()
        self.before = self.stored()
        ((self.number, *_),) = self.before
        self.offender = websocket(board.address)
        self.witness = websocket(board.address)

    def stored(self):
        return self.database.sql("SELECT * FROM messages")

    def offend(self, sent):
        """Sends a bad text to which a notice must be the only answer; returns code and HTML."""
        self.offender.send_frame(sent)
        opcode, answer = self.offender.frame()
        assert opcode == TEXT, (opcode, answer, sent[:80])
        answer = json.loads(answer)
        assert answer["selector"] == "#notices", (answer, sent[:80])
        assert 'role="alert"' in answer["html"]
        code = re.search(r'data-code="([a-z-]+)"', answer["html"]).group(1)
        self.expect_life(self.offender)
        return code, answer["html"]

    @staticmethod
    def expect_life(client):
        """The next frame is the answer to a request."""
        client.send_frame(command("list messages", page=1))
        assert client.selector() == "#messages__list"

    def expect_innocence(self):
        """Nothing was written, and the witness saw nothing."""
        assert self.stored() == self.before
        self.expect_life(self.witness)

    def close(self):
        self.offender.close()
        self.witness.close()


@pytest.fixture
def scene(board, database):
    scene = Scene(board, database)
    yield scene
    scene.close()


def test_what_is_no_request_is_malformed(scene):
    for what, sent in malformed():
        assert scene.offend(sent)[0] == "malformed", what
    scene.expect_innocence()


def test_a_field_that_cannot_be_is_invalid(scene):
    for what, sent, name in invalid(scene.number):
        code, html = scene.offend(sent)
        assert code == "invalid", what
        text = re.search(r'notice__message">([^<]*)<', html).group(1)
        assert text.startswith(name), what
        if "too long" in text:
            assert {"author": "100", "text": "200"}[name] in text, what
    scene.expect_innocence()


def test_a_notice_never_repeats_markup(scene):
    evil = "<script>alert(1)</script>"
    for sent in (
        evil, command(evil, page=1), command("list messages", page=evil),
        command("delete message", id=evil), command("add message", author=evil * 20, text=evil),
        command("add message", author="a", text="b", key=evil), json.dumps({evil: evil}),
    ):
        assert "<script" not in scene.offend(sent)[1]
    scene.expect_innocence()


def test_a_json_bomb_within_the_limit(start, database):
    board = start(limits_max_message_bytes=2**20, limits_messages_per_second=0)
    scene = Scene(board, database)
    for bomb in (
        "[" * 100000, "[" * 2**20, "[" * 100000 + "]" * 100000, '{"a":' * 100000 + "1",
        '{"a":' * 100000 + "1" + "}" * 100000, '[{"a":' * 100000,
        '{"action": "list messages", "data": ' + '{"data":' * 100000 + "1" + "}" * 100001,
        '{"action": "list messages", "data": {"page": ' + "[" * 100000 + "]" * 100000 + "}}",
        '"' + "\\" * 2**19, '{"a":"' + "x" * 2**19,
    ):
        assert scene.offend(bomb)[0] == "malformed", bomb[:40]
    # Wide rather than deep is JSON as any other
    for wide in (
        '{"action": "list messages", "data": {"page": 1}, "x": [' + "0," * 400000 + "0]}",
        '{"action": "list messages", "data": {"page": 1}, "x": {%s}}'
        % ",".join(f'"{number}": 0' for number in range(50000)),
        '{"action": "list messages", "data": {"page": %s}}' % ("9" * 1000000),
    ):
        scene.offender.send_frame(wide)
        assert scene.offender.selector() == "#messages__list", wide[:60]
    scene.expect_innocence()
    scene.close()


def test_huge_integers(scene):
    for page in HUGE, HUGE_NEGATIVE, f'"{HUGE}"', "9" * 5000, "-0", str(2**63), str(-(2**63) - 1):
        scene.offender.send_frame('{"action": "list messages", "data": {"page": %s}}' % page)
        assert scene.offender.selector() == "#messages__list", page[:30]
    for number in (HUGE, HUGE_NEGATIVE, f'"{HUGE}"', str(2**63), str(2**63 - 1), str(-(2**63) - 1),
                   f'"{2**63}"', "0", "-1", '"0"', str(2**64 + scene.number)):
        for action in "open edit page", "update message", "delete message":
            sent = '{"action": "%s", "data": {"id": %s, "author": "a", "text": "b"}}'
            assert scene.offend(sent % (action, number))[0] == "not-found", (action, number[:30])
    scene.expect_innocence()
    # Digits in text are text, whatever stands beside
    text = "9" * 60 + '", 8: "' + "8" * 60 + "\\"
    sent = {"action": "add message", "data": {"author": "7" * 40, "text": text, "other": "?"}}
    scene.offender.send_frame(json.dumps(sent).replace('"?"', HUGE))
    assert scene.offender.selector() == "#messages__list"
    assert scene.database.sql("SELECT author, text FROM messages WHERE id > %s", scene.number) == [
        ("7" * 40, text)]


def test_what_looks_bad_and_is_good(scene):
    for sent in (
        command("list messages", page=1, more=[{"x": None}]),
        json.dumps({"x": 1, "action": "list messages", "y": None, "data": {"page": "1"}}),
        " \r\n\t" + command("list messages", page=1) + "\n ",
        r'{"\u0061ction": "list\u0020messages", "data": {"page": "\u0031"}}',
        command("list messages", page="0" * 1000 + "1"),
        '{"action": "list messages", "data": {"page": 1}, "x": [%s]}' % ("[]," * 1000 + "[]"),
        '{"action": "list messages", "data": {"page": 1}, "x": 1.%s}' % ("1" * 400),
    ):
        scene.offender.send_frame(sent)
        assert scene.offender.selector() == "#messages__list", sent[:60]
    scene.expect_innocence()
    for author, text in (
        ("😀" * 100, "👍🏽" * 100), ("\ufeffAnn", "a\u0001b\u007fc"), ("e\u0301" * 50, "\ufffd\uffff"),
        ("\u202eAnn", "\u200b"), ("x", "line\nline\n\nline"),
    ):
        scene.offender.send_frame(command("add message", author=f" {author}\n", text=f"\r\n{text} "))
        assert scene.offender.selector() == "#messages__list", author
        newest = "SELECT author, text FROM messages ORDER BY id DESC LIMIT 1"
        assert scene.database.sql(newest) == [(author, text)]


#  ---------------------------------------------------------------- What RFC 6455 forbids


def close_payload(code, reason=b""):
    return struct.pack(">H", code) + reason


GOOD = command("delete message", id=1)  # which would show, were it carried out

VIOLATIONS = {
    1002: {
        "no mask": frame(GOOD, mask=None),
        "a ping without mask": frame(b"x", PING, mask=None),
        "a close without mask": frame(close_payload(1000), CLOSE, mask=None),
        "the first reserved bit": frame(GOOD, reserved=4),
        "the second reserved bit": frame(GOOD, reserved=2),
        "the third reserved bit": frame(GOOD, reserved=1),
        "a reserved bit on a ping": frame(b"", PING, reserved=4),
        **{f"opcode {code}": frame(GOOD, code) for code in (3, 4, 5, 6, 7)},
        **{f"opcode {code}": frame(b"x", code) for code in (11, 12, 13, 14, 15)},
        "a ping in fragments": frame(b"x", PING, final=False),
        "a pong in fragments": frame(b"x", PONG, final=False),
        "a close in fragments": frame(close_payload(1000), CLOSE, final=False),
        "a long ping": frame(b"x" * 126, PING),
        "a very long ping": frame(b"x" * 70000, PING),
        "a long pong": frame(b"x" * 126, PONG),
        "a long close": frame(close_payload(1000, b"x" * 124), CLOSE),
        "a continuation of nothing": frame(GOOD, 0),
        "a continuation of what has ended": frame(b"{}", TEXT) + frame(GOOD, 0),
        "a text within a text": frame('{"action"', final=False) + frame(GOOD),
        "a length of 16 bits for less": frame(GOOD, form=16),
        "a length of 64 bits for less": frame(GOOD, form=64),
        "a length beyond 63 bits": b"\x81\xff" + b"\xff" * 8,
        "a close of one byte": frame(b"\x03", CLOSE),
        **{f"close code {code}": frame(close_payload(code), CLOSE)
           for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)},
    },
    1003: {
        "binary": frame(GOOD, BINARY),
        "nothing in binary": frame(b"", BINARY),
        "binary in fragments": frame(GOOD[:5], BINARY, final=False),
    },
    1007: {
        "a stray continuation byte": frame(b"{\x80}"),
        "Latin-1": frame(GOOD.replace("}", ', "x": "\xe9"}').encode("latin-1")),
        "an overlong form": frame(b'{"x": "\xc0\xaf"}'),
        "an overlong NUL": frame(b'{"x": "\xc0\x80"}'),
        "a surrogate": frame(b'{"x": "\xed\xa0\x80"}'),
        "a pair of surrogates": frame(b'{"x": "\xed\xa0\xbd\xed\xb8\x80"}'),
        "beyond Unicode": frame(b'{"x": "\xf4\x90\x80\x80"}'),
        "a byte that never occurs": frame(b'{"x": "\xff"}'),
        "an end within a character": frame(GOOD.encode() + b"\xf0\x9f\x98"),
        "bad in the second fragment": frame(b'{"x": "\xf0\x9f', final=False) + frame(b'\x98"}', 0),
        "a reason that is not": frame(close_payload(1000, b"\xff"), CLOSE),
        "a reason cut short": frame(close_payload(1000, b"\xe2\x82"), CLOSE),
    },
    1009: {
        "a byte too many": frame(b" " * (LIMIT + 1)),
        "10 MB": frame(b"x" * 10**7),
        "10 MB announced": b"\x81\xff" + struct.pack(">Q", 10**7),
        "all there is announced": b"\x81\xff\x7f" + b"\xff" * 7,
        "a fragment too many": frame(b" " * LIMIT, final=False) + frame(b" ", 0, final=False),
        "many fragments": frame(b" ", final=False) + frame(b" " * 1000, 0, final=False) * 70,
    },
}


@pytest.mark.parametrize("code", VIOLATIONS)
def test_a_violation_closes(scene, code):
    for what, sent in VIOLATIONS[code].items():
        with websocket(scene.board.address) as raw:
            # A server that has heard enough may well be gone before all is sent
            with contextlib.suppress(ConnectionError):
                raw.send(sent + frame(GOOD))
            try:
                closed = raw.close_code()
            except AssertionError as failure:
                raise AssertionError(what) from failure
            assert closed == code, what
    scene.expect_life(scene.offender)
    scene.expect_innocence()


def test_a_violation_does_not_wait_for_the_rest(scene):
    for sent, code in (
        (b"\xc1", 1002), (b"\x83", 1002), (b"\x09", 1002), (b"\x81\x05", 1002), (b"\x89\xfe", 1002),
        (b"\x81\xff" + struct.pack(">Q", LIMIT + 1), 1009), (b"\x82\x85", 1003), (b"\x80\x85", 1002),
    ):
        with websocket(scene.board.address) as raw:
            raw.send(sent)
            assert raw.close_code() == code, sent
    scene.expect_innocence()


def test_what_came_before_a_violation_is_carried_out(scene):
    with websocket(scene.board.address) as raw:
        raw.send(frame(command("add message", author="Ann", text="before")) + frame(b"x", BINARY)
                 + frame(command("add message", author="Ann", text="after")))
        assert raw.close_code() == 1003
    texts = "SELECT text FROM messages ORDER BY id"
    wait_for(lambda: len(scene.database.sql(texts)) == 2, "the message before")
    assert scene.witness.selector() == "#messages__list"
    scene.expect_life(scene.witness)
    assert scene.database.sql(texts) == [("first",), ("before",)]


def test_a_message_of_exactly_the_limit(scene):
    good = command("list messages", page=1)
    scene.offender.send_frame(good.ljust(LIMIT))
    assert scene.offender.selector() == "#messages__list"
    scene.offender.send(frame(good.ljust(LIMIT - 1), final=False) + frame(" ", 0))
    assert scene.offender.selector() == "#messages__list"
    assert scene.offend("x" * LIMIT)[0] == "malformed"


#  ---------------------------------------------------------------- What RFC 6455 allows


def test_a_ping_gets_its_pong(scene):
    for payload in b"", b"x", bytes(range(125)), b"\xff\xfe\x00", b"p" * 125:
        scene.offender.send_frame(payload, opcode=PING)
        assert scene.offender.frame() == (PONG, payload)
    scene.offender.send_frame(b"nobody asked", opcode=PONG)
    scene.expect_life(scene.offender)


def test_text_in_fragments_with_a_ping_between(scene):
    sent = command("add message", author="Zoë", text="😀 in pieces").encode()
    sent = json.dumps(json.loads(sent), ensure_ascii=False).encode()
    scene.offender.send(frame(sent[:30], final=False))
    scene.offender.send(frame(b"between", PING))
    assert scene.offender.frame() == (PONG, b"between")
    for at in range(30, len(sent)):  # through the middle of characters too
        scene.offender.send(frame(sent[at : at + 1], 0, final=False))
        scene.offender.send(frame(b"", 0, final=False))
    scene.offender.send(frame(b"again", PING) + frame(b"", PONG))
    assert scene.offender.frame() == (PONG, b"again")
    scene.offender.send(frame(b"", 0))
    assert "😀 in pieces</p>" in scene.offender.message()["html"]
    assert "😀 in pieces</p>" in scene.witness.message()["html"]


def test_one_byte_at_a_time(scene):
    sent = frame(command("add message", author="Ann", text="byte by byte")) + frame(b"?", PING)
    for at in range(len(sent)):
        scene.offender.send(sent[at : at + 1])
    answers = [scene.offender.frame(), scene.offender.frame()]
    assert (PONG, b"?") in answers
    (shown,) = [json.loads(payload) for opcode, payload in answers if opcode == TEXT]
    assert "byte by byte</p>" in shown["html"]


def test_many_frames_in_one_piece(scene):
    scene.offender.send(frame(command("delete message", id=0)) * 500 + frame(b"last", PING))
    notices, pongs = 0, 0
    while notices < 500 or pongs < 1:
        opcode, payload = scene.offender.frame()
        if opcode == PONG:
            assert payload == b"last"
            pongs += 1
        else:
            assert b'"#notices"' in payload
            notices += 1
    scene.expect_life(scene.offender)


@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x02\x03\x04"])
def test_any_mask(scene, mask):
    for size in range(9):
        scene.offender.send_frame(b"12345678"[:size], opcode=PING, mask=mask)
        assert scene.offender.frame() == (PONG, b"12345678"[:size])


def test_the_closing_handshake_echoes_the_code(scene):
    for code in 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999:
        for reason in b"", "bye 😀".encode(), b"x" * 123:
            with websocket(scene.board.address) as raw:
                raw.send_frame(close_payload(code, reason), opcode=CLOSE)
                assert raw.close_code() == code
    with websocket(scene.board.address) as raw:
        raw.send_frame(b"", opcode=CLOSE)
        assert raw.close_frame() == b""
    with websocket(scene.board.address) as raw:
        # Nothing counts that comes after it
        raw.send(frame(close_payload(1000), CLOSE) + frame(GOOD) + b"garbage")
        assert raw.close_code() == 1000
    scene.expect_innocence()


def test_who_hangs_up_in_the_middle_leaves_no_trace(scene):
    sent = frame(command("add message", author="Ann", text="never finished"))
    for end in 0, 1, 5, 20, len(sent) - 1:
        leaver = websocket(scene.board.address)
        leaver.send(sent[:end])
        leaver.close()
    scene.expect_life(scene.offender)
    scene.expect_innocence()


#  ---------------------------------------------------------------- The rate


def test_over_its_rate_a_client_waits_and_loses_nothing(start, database):
    rate, burst, count = 200, 20, 300
    board = start(limits_messages_per_second=rate, limits_burst=burst)
    scene = Scene(board, database)
    begun = time.monotonic()
    scene.offender.send(frame(command("delete message", id=0)) * (count - 1))
    scene.offender.send_frame(command("add message", author="Ann", text="the last one"))
    scene.expect_life(scene.witness)
    # The witness did not wait for all of these
    assert scene.offender.came().count(b"#notices") <= burst + rate * (time.monotonic() - begun) + 1
    notices, shown = 0, False
    while notices < count - 1 or not shown:  # the list may overtake notices of the same moment
        answer = scene.offender.message()
        notices += answer["selector"] == "#notices"
        shown = shown or "the last one</p>" in answer["html"]
    ended = time.monotonic()
    assert "the last one</p>" in scene.witness.message()["html"]
    # The bucket is full at first, then fills at its rate; a millisecond's rounding is allowed
    assert ended - begun >= (count - burst) / rate - 0.01
    scene.expect_life(scene.offender)  # nothing was answered twice
    scene.close()


def test_pings_count_too(start):
    board = start(limits_messages_per_second=100, limits_burst=10)
    with websocket(board.address) as raw:
        begun = time.monotonic()
        for number in range(60):
            raw.send_frame(str(number), opcode=PING)
        for number in range(60):
            assert raw.frame() == (PONG, str(number).encode())
        assert time.monotonic() - begun >= 0.49


def test_a_client_that_waits_can_still_be_closed(start):
    """A flood that has to wait, and then its sender's end: nothing keeps the board from ending."""
    board = start(limits_messages_per_second=1, limits_burst=1)
    raw = websocket(board.address)
    raw.send(frame(command("delete message", id=0)) * 1000)
    assert raw.selector() == "#notices"
    raw.close()
    other = websocket(board.address)
    other.send(frame(command("delete message", id=0)) * 1000)
    assert other.selector() == "#notices"
    board.signal(signal.SIGTERM)
    while (opcode := other.frame()[0]) != CLOSE:
        assert opcode == TEXT
    other.close()
    assert board.wait() == 0
