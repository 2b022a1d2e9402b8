"""A network that breaks when a test wants it to: between a board and its PostgreSQL, or a board and browsers."""

import contextlib
import socket
import threading


class Proxy:
    """Listens on TCP and passes on to a server, both ways, byte for byte: to a UNIX socket's path, or
    to a port of this machine."""

    def __init__(self, server, address="127.0.0.1"):
        self.server = server
        self.listener = socket.create_server((address, 0))
        self.port = self.listener.getsockname()[1]
        self.address = f"{address}:{self.port}"
        self.refuses = False  # whether new connections are closed at once
        self.forges = (b"", b"")  # in what the server says, and what comes through instead
        self._flows = threading.Event()
        self._flows.set()
        self._hides = threading.Event()
        self._hidden = threading.Event()
        self.hiding = set()  # the connections on which the next answer is hidden, and all that follows
        self._lock = threading.Lock()
        self._pairs = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        """Ends all connections, whatever is under way on them."""
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for end in (end for pair in pairs for end in pair):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut_at_answer(self, patience):
        """Ends the connections when the server answers next; the answer does not come through."""
        self._hidden.clear()
        with self._lock:
            self.hiding = set(self._pairs)
        assert self._hidden.wait(patience), "the server answered nothing"
        self.cut()
        self.hiding = set()

    def freeze(self):
        """Nothing comes through any more, and nobody is told."""
        self._flows.clear()

    def thaw(self):
        self._flows.set()

    def hide_answers(self):
        """What the server says does not come through, until it may again."""
        self._hides.set()

    def show_answers(self):
        self._hides.clear()

    def close(self):
        self.refuses = True
        self._flows.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_INET if isinstance(self.server, int) else socket.AF_UNIX)
            try:
                if self.refuses:
                    raise ConnectionRefusedError
                server.connect(("127.0.0.1", self.server) if isinstance(self.server, int) else self.server)
            except OSError:
                client.close()
                server.close()
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._pairs.add((client, server))
            for pump in self._pump_questions, self._pump_answers:
                threading.Thread(target=pump, args=(client, server), daemon=True).start()

    def _pump_questions(self, client, server):
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                self._flows.wait()
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _pump_answers(self, client, server):
        with contextlib.suppress(OSError), client, server:
            while data := server.recv(65536):
                self._flows.wait()
                if self._hides.is_set() or (client, server) in self.hiding:
                    self._hidden.set()
                else:
                    client.sendall(data.replace(*self.forges) if self.forges[0] else data)
            client.shutdown(socket.SHUT_RDWR)
