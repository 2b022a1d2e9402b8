"""A client that says exactly what it is told to: for what a well-behaved one never sends."""

import contextlib
import http.client
import io
import json
import socket
import struct

from board import PATH, PATIENCE

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # and its answer, of RFC 6455, 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def request(method, path, *headers, version="HTTP/1.1", body=""):
    """A request's bytes; headers are pairs, and only those."""
    lines = [f"{method} {path} {version}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def handshake(*headers, without=(), method="GET", path=PATH, version="HTTP/1.1"):
    """An opening handshake's bytes; headers are added, or replace those of their names."""
    left_out = {name.lower() for name, _ in headers} | {name.lower() for name in without}
    usual = [
        ("Host", "localhost"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
    ]
    kept = [pair for pair in usual if pair[0].lower() not in left_out]
    return request(method, path, *kept, *headers, version=version)


def frame(payload=b"", opcode=TEXT, final=True, reserved=0, mask=b"\x5a\x00\xc3\x99", form=None):
    """A frame's bytes; form is the length's, 7, 16 or 64 bits, the shortest when it is not given."""
    payload = payload.encode() if isinstance(payload, str) else payload
    size = len(payload)
    form = form or (7 if size < 126 else 16 if size < 65536 else 64)
    masked = 0x80 if mask else 0
    head = bytes([(0x80 if final else 0) | reserved << 4 | opcode])
    if form == 7:
        head += bytes([masked | size])
    elif form == 16:
        head += struct.pack(">BH", masked | 126, size)
    else:
        head += struct.pack(">BQ", masked | 127, size)
    if not mask:
        return head + payload
    # XOR as whole numbers, which is quick for large ones too
    keys = (mask * (size // 4 + 1))[:size]
    covered = int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")
    return head + mask + covered.to_bytes(size, "big")


def command(action, **data):
    return json.dumps({"action": action, "data": data})


class Raw:
    """A TCP connection to the board, from a source, (host, port), or from anywhere."""

    def __init__(self, address, source=None):
        host, port = address.split(":")
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if source:
            self.socket.bind(source)
        self.socket.connect((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data.encode() if isinstance(data, str) else data)

    def _more(self):
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            raise EOFError(f"ended after {self.received[:200]!r}")
        self.received += data

    def read(self, size):
        while len(self.received) < size:
            self._more()
        data, self.received = self.received[:size], self.received[size:]
        return data

    def read_until(self, mark):
        while mark not in self.received:
            self._more()
        return self.read(self.received.index(mark) + len(mark))

    def came(self):
        """What has come so far and was not read; does not wait for more."""
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError, EOFError):
            while True:
                self._more()
        self.socket.settimeout(PATIENCE)
        return self.received

    def ended(self):
        """Whether the other side has ended the connection, as far as one can see without waiting."""
        self.socket.setblocking(False)
        try:
            while True:
                self._more()
        except BlockingIOError:
            return False
        except EOFError:
            return True
        finally:
            self.socket.settimeout(PATIENCE)

    def rest(self):
        """All up to the end of the connection, which must come."""
        with contextlib.suppress(EOFError):
            while True:
                self._more()
        return self.received

    def answer(self, method="GET"):
        """The next HTTP answer: its status, headers (as of a dictionary), body and text."""
        head = self.read_until(b"\r\n\r\n")
        answer = http.client.parse_headers(io.BytesIO(head.split(b"\r\n", 1)[1]))
        version, status, *_ = head.split(b" ", 2)
        assert version == b"HTTP/1.1", head
        answer.status = int(status)
        size = int(answer["Content-Length"] or 0)
        bare = method == "HEAD" or answer.status in (101, 304)
        answer.body = b"" if bare else self.read(size)
        answer.text = answer.body.decode()
        return answer

    def ask(self, *arguments, **options):
        """Sends a request and returns its answer."""
        self.send(request(*arguments, **options))
        return self.answer(arguments[0])

    def upgrade(self, *headers):
        """An opening handshake, which must succeed; returns the answer to it."""
        self.send(handshake(*headers))
        answer = self.answer()
        assert answer.status == 101, answer.status
        return answer

    def send_frame(self, payload=b"", opcode=TEXT, **options):
        self.send(frame(payload, opcode, **options))

    def frame(self):
        """The next frame's opcode and payload, but for the server's pings, which may come any time."""
        while True:
            first, size = self.read(2)
            # A server's frames are final, and have no mask
            assert first & 0xF0 == 0x80 and size < 128, (first, size)
            if size == 126:
                (size,) = struct.unpack(">H", self.read(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", self.read(8))
            opcode, payload = first & 0x0F, self.read(size)
            if opcode != PING:
                return opcode, payload

    def message(self):
        """The next frame's object; the frame must be text."""
        opcode, payload = self.frame()
        assert opcode == TEXT, (opcode, payload)
        return json.loads(payload)

    def selector(self):
        return self.message()["selector"]

    def close_frame(self):
        """The payload of the close frame that must come, and behind it the connection's end."""
        opcode, payload = self.frame()
        while opcode != CLOSE:
            opcode, payload = self.frame()
        assert self.rest() == b""
        return payload

    def close_code(self):
        return struct.unpack(">H", self.close_frame()[:2])[0]


def websocket(address, *headers):
    """A WebSocket that has received its first page."""
    raw = Raw(address)
    raw.upgrade(*headers)
    assert raw.selector() == "#messages__list"
    return raw
