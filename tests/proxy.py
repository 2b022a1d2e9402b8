"""A network between a board and its PostgreSQL that breaks when a test wants it to."""

import contextlib
import socket
import threading


class Proxy:
    """Listens on TCP and passes on to a server's UNIX socket, both ways, byte for byte."""

    def __init__(self, path, address="127.0.0.1"):
        self.path = path
        self.listener = socket.create_server((address, 0))
        self.port = self.listener.getsockname()[1]
        self.refuses = False  # whether new connections are closed at once
        self._hides = threading.Event()
        self._hidden = threading.Event()
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
        self._hides.set()
        assert self._hidden.wait(patience), "the server answered nothing"
        self.cut()
        self._hides.clear()

    def close(self):
        self.refuses = True
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                if self.refuses:
                    raise ConnectionRefusedError
                server.connect(self.path)
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
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _pump_answers(self, client, server):
        with contextlib.suppress(OSError), client, server:
            while data := server.recv(65536):
                if self._hides.is_set():
                    self._hidden.set()
                else:
                    client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)
