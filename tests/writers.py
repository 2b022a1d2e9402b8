"""Clients that write as fast as they are answered, and remember what became of each message."""

import contextlib
import itertools
import threading
import time

import websockets

from board import PATIENCE, Client, wait_for

#  Of several pages that come in a row a client may get only the newest. So that each writer sees its own message
#  all the same, none writes on while one waits whose message so many others were acknowledged after; with those that
#  are on their way they fit on a page. Writers of another board do not know: with those, all must fit on one page.
PAGE_SIZE = 40
AHEAD = 25


class Writers:
    """Several writers of unique texts; the board needs a page of PAGE_SIZE and no rate limit.
    They write until they are stopped, or until each has written as many as it may.

    Each text ends in one of three sets: acknowledged (a list frame showed it to its sender), refused
    (a notice came instead, so it must not be stored) or doubtful (the connection ended before either).
    """

    def __init__(self, board, name, count=6, most=None):
        self.address = board.address
        self.name = name
        self.acknowledged = set()
        self.refused = {}  # code by text
        self.doubtful = set()
        self.close_codes = []
        self._most = most
        self._ending = threading.Event()
        self._turn = threading.Condition()
        self._since = {}  # by writer that waits for its answer: how many had been acknowledged when it wrote
        self._faults = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        with contextlib.ExitStack() as stack:
            if kind:  # what went wrong first is what counts
                stack.enter_context(contextlib.suppress(Exception))
            self.stop()

    def stop(self):
        """Waits until each writer has been answered; a fault of one of them is raised here."""
        if not self._most:
            self._ending.set()
        for thread in self._threads:
            thread.join()
        if self._faults:
            raise self._faults[0]

    def wait(self, count):
        """Waits until so many more messages have been acknowledged."""
        goal = len(self.acknowledged) + count
        wait_for(lambda: self._faults or len(self.acknowledged) >= goal, f"{count} more messages")
        assert not self._faults, self._faults[0]

    def check(self, texts):
        """Compares the texts that are stored with what the writers were told."""
        stored = [text for text in texts if text.startswith(f"{self.name} ")]
        assert len(set(stored)) == len(stored), "a message was stored twice"
        assert not self.acknowledged - set(stored), "a message that was acknowledged is lost"
        assert not set(self.refused) & set(stored), "a message that was refused is stored"
        assert set(stored) <= self.acknowledged | self.doubtful

    def _run(self, number):
        texts = (f"{self.name} {number} {count}"
                 for count in itertools.islice(itertools.count(), self._most))
        try:
            while not self._ending.is_set() and self._write(number, texts):
                pass
        except Exception as fault:  # raised in stop ()
            self._faults.append(fault)

    def _write(self, number, texts):
        """Writes over one connection; true when another one should be tried."""
        try:
            client = Client(self.address, open_timeout=5)
        except (OSError, websockets.InvalidHandshake):
            return False  # the board is gone
        text = None
        try:
            while not self._ending.is_set():
                text = next(texts, None)
                if not text:
                    return False
                with self._takes_turn(number):
                    client.send("add message", author=f"writer {number}", text=text)
                    self._await_answer(client, text)
                text = None
        except websockets.ConnectionClosed as closed:
            if text:
                self.doubtful.add(text)
            self.close_codes.append(closed.rcvd.code if closed.rcvd else None)
            return self.close_codes[-1] == 1013
        finally:
            with contextlib.suppress(Exception):
                client.close()
        return False

    @contextlib.contextmanager
    def _takes_turn(self, number):
        with self._turn:
            self._turn.wait_for(lambda: all(len(self.acknowledged) < since + AHEAD for since in self._since.values()))
            self._since[number] = len(self.acknowledged)
        try:
            yield
        finally:
            with self._turn:
                del self._since[number]
                self._turn.notify_all()

    def _await_answer(self, client, text):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            frame = client.frame()
            if frame["selector"] == "#notices":
                self.refused[text] = frame["html"]
                return
            if frame["selector"] == "#messages__list" and f">{text}</p>" in frame["html"]:
                self.acknowledged.add(text)
                return
        raise AssertionError(f"no answer to {text!r} in {PATIENCE} s")
