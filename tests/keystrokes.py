#!/usr/bin/python3
"""Types in an edit form, or a page's number, while 20 others write, change, delete and turn pages, and the
server is restarted twice: keystrokes.py RUNS [SECONDS]

Not a character may be lost, and the caret must be where it was left. The two take turns.
Prints a line for each run.
"""

import contextlib
import random
import re
import sys
import threading
import time

import websockets
from selenium.webdriver import Keys

from board import Board, Client, Database, wait_for
from browser import Browser

FIELD = "message-form__text--update"
NUMBER = "messages__page-number"
STATE = """const it = document.activeElement;
return [it.id, it.value, it.selectionStart, it.selectionEnd];"""
DIGITS = "0123456789"
CHARACTERS = "abcdefghijklmnopqrstuvwxyzäßéñ0123456789 .,;-!?"
OTHERS = 20
PAUSE_S = 0.15  # Of each of them between two commands, at most


class Typist:
    """Somebody who types, and knows what must be in the field and where the caret is."""

    def __init__(self, window, dice, field=FIELD, characters=CHARACTERS):
        self.window = window
        self.dice = dice
        self.field = field
        self.characters = characters
        self.text = window.value(f"#{field}")
        self.caret = len(self.text)
        self.keys = 0

    def type(self):
        """Presses some keys: mostly a word, now and then goes elsewhere in the text, or deletes."""
        keys, count = self.dice.choice((
            (self.dice.choices(self.characters, k=9), 1),
            (self.dice.choices(self.characters, k=9), 1),
            ((Keys.LEFT,), self.dice.randint(1, 12)),
            ((Keys.RIGHT,), self.dice.randint(1, 12)),
            ((Keys.BACKSPACE,), self.dice.randint(1, 4)),
            ((Keys.DELETE,), self.dice.randint(1, 4)),
        ))
        for key in list(keys) * count:
            self.window.press(key)
            self._follow(key)
            self.keys += 1

    def _follow(self, key):
        before, after = self.text[: self.caret], self.text[self.caret :]
        if key == Keys.LEFT:
            self.caret = max(0, self.caret - 1)
        elif key == Keys.RIGHT:
            self.caret = min(len(self.text), self.caret + 1)
        elif key == Keys.BACKSPACE:
            self.text, self.caret = before[:-1] + after, len(before[:-1])
        elif key == Keys.DELETE:
            self.text = before + after[1:]
        else:
            self.text, self.caret = before + key + after, self.caret + 1

    def check(self):
        assert self.window.js(STATE) == [self.field, self.text, self.caret, self.caret], (self.text, self.caret)


class Others:
    """Clients that write, change, delete and turn pages, and come back when the server does."""

    def __init__(self, address, spared):
        self.address = address
        self.spared = spared  # The number of the message that none of them touches
        self.commands = 0
        self._ending = threading.Event()
        self._faults = []
        self._threads = [threading.Thread(target=self._run, args=(seed,)) for seed in range(OTHERS)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ending.set()
        for thread in self._threads:
            thread.join()
        if self._faults:
            raise self._faults[0]

    def _run(self, seed):
        try:
            while not self._ending.is_set():
                with contextlib.suppress(OSError, websockets.WebSocketException):
                    self._act(Client(self.address, open_timeout=5), random.Random(seed))
                self._ending.wait(0.05)
        except Exception as fault:  # raised when they are stopped
            self._faults.append(fault)

    def _act(self, client, dice):
        numbers = []
        with contextlib.closing(client):
            while not self._ending.is_set():
                for frame in client.frames(0.01):
                    numbers = re.findall(r'id="message--(\d+)"', frame["html"]) or numbers
                touchable = [number for number in numbers if number != self.spared]
                self._send(client, dice, dice.choice(touchable) if touchable else None)
                self.commands += 1
                self._ending.wait(dice.random() * PAUSE_S)

    def _send(self, client, dice, number):
        action = dice.choice(("add", "add", "add", "update", "update", "delete", "list"))
        text = "\n".join(f"words of {dice.random()}" for _ in range(dice.randint(1, 4)))
        if action == "list":
            client.send("list messages", page=dice.randint(1, 3))
        elif action == "add" or not number:
            client.send("add message", author="Somebody", text=text)
        elif action == "update":
            client.send("update message", id=number, author="Somebody else", text=text)
        else:
            client.send("delete message", id=number)


def run(browser, start, seconds, seed):
    """One run; start (address) starts the board, on a free port where the address is None. Returns the
    number of keys that were pressed, and of commands that others sent."""
    board, window = opened(browser, start, 8, "/")
    window.edit("message 6")
    spared = window.one(".update-form").get_attribute("data-id")
    typist = Typist(window, random.Random(seed))
    board, commands = type_on(typist, board, start, seconds, spared)
    window.press(Keys.ENTER, ctrl=True)
    window.wait_gone(".update-form")
    wait_for(lambda: stored(board, spared) == typist.text.strip(), "the text to be stored")
    return typist.keys, commands


def run_number(browser, start, seconds, seed):
    """The same in the field for a page's number."""
    board, window = opened(browser, start, 60, "/?page=3")
    window.click(f"#{NUMBER}")
    window.press(Keys.END, "1")
    typist = Typist(window, random.Random(seed), NUMBER, DIGITS)
    board, commands = type_on(typist, board, start, seconds, None)
    window.press("a", ctrl=True)
    window.press("2", Keys.ENTER)
    window.wait(lambda: window.path == "/?page=2", "the page that was typed")
    return typist.keys, commands


def opened(browser, start, count, path):
    """A board with so many messages, and a window on it."""
    board = start(None)
    client = board.client()
    for number in range(1, count + 1):
        client.send("add message", author="Ann", text=f"message {number}")
        client.html()
    return board, browser.window(board, path)


def type_on(typist, board, start, seconds, spared):
    """Types and checks while others are at work and the board is restarted. Returns the board that
    runs in the end, and the number of commands that others sent."""
    with Others(board.address, spared) as others:
        for end in "kill", "stop", None:
            until = time.monotonic() + seconds / 3
            while time.monotonic() < until:
                typist.type()
                typist.check()
            if end:
                getattr(board, end)()
                typist.type()
                typist.check()
                board = start(board.address)
    typist.window.wait_text("#connection", "Live")
    typist.check()
    return board, others.commands


def stored(board, number):
    """The text of a message, as its edit form has it."""
    form = board.get(f"/messages/{number}/edit").text
    text = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", form, re.DOTALL).group(1)
    return text.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")


def main(runs, seconds):
    database = Database()
    browser = Browser()
    boards = []

    def start(address):
        boards.append(Board(database_url=database.url, http_listen=address or "127.0.0.1:0",
                            board_text_max=5000, limits_messages_per_second=0))
        return boards[-1]

    failed = 0
    try:
        for number in range(1, runs + 1):
            try:
                keys, commands = (run if number % 2 else run_number)(browser, start, seconds, number)
                print(f"run {number}: {keys} keys, {commands} commands of others: nothing lost", flush=True)
            except AssertionError as fault:
                failed += 1
                print(f"run {number}: {fault}", flush=True)
            browser.close_windows()
            for board in boards:
                if board.process.returncode is None:
                    board.stop()
    finally:
        browser.quit()
        database.destroy()
    print(f"{runs - failed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 60) > 0)
