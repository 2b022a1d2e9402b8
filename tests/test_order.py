"""Many writers, many readers on many pages: nobody's frames go back, and all end on what is stored."""

import asyncio
import json
import random
import re
import threading
import time

import websockets

from board import PATH, wait_for
from keepers import ROWS, Keepers

READERS = 40
PAGES = 8
PAGE_SIZE = 5


def shown(html):
    """The messages of a list, as (id, text)."""
    return [(int(number), text) for number, text in
            re.findall(r'id="message--(\d+)".*?message__text[^>]*>(.*?)</p>', html, re.DOTALL)]


class Reader:
    """Turns pages, stands still and comes anew at random; remembers what it saw last, and what went back."""

    def __init__(self, address, number):
        self.address = address
        self.chance = random.Random(number)
        self.page = 1  # that it asked for last
        self.html = None
        self.wild = True  # later it only reads
        self.faults = []
        self._versions = {}
        self._newest = 0

    async def read(self):
        while True:
            self._versions, self._newest, self.page = {}, 0, 1  # what one connection sees is in order
            async with websockets.connect(f"ws://{self.address}{PATH}", max_size=None, max_queue=1,
                                          close_timeout=1) as socket:
                await self._watch(socket)

    async def _watch(self, socket):
        while True:
            self._take(json.loads(await socket.recv()))
            if not self.wild:
                continue
            chance = self.chance.random()
            if chance < 0.05:
                self.page = self.chance.randrange(1, PAGES + 1)
                await socket.send(json.dumps({"action": "list messages", "data": {"page": self.page}}))
            elif chance < 0.07:
                await asyncio.sleep(self.chance.uniform(0, 0.5))  # it gets the newest page then, not each
            elif chance < 0.08:
                return

    def _take(self, frame):
        if frame["selector"] != "#messages__list":
            assert frame["selector"] == "#notices" and 'data-code="unavailable"' in frame["html"], frame
            return  # the page that it asked for is not in memory while the connection is away
        self.html = frame["html"]
        messages = shown(self.html)
        for number, text in messages:
            version = int(text.split()[1])
            if version < self._versions.get((frame["page"], number), 0):
                self.faults.append(f"message {number}: {version} on page {frame['page']} after a newer one")
            self._versions[frame["page"], number] = version
        if messages and frame["page"] == 1:  # the newest message is never deleted here
            if messages[0][0] < self._newest:
                self.faults.append(f"page 1 went back from {self._newest} to {messages}")
            self._newest = max(self._newest, messages[0][0])


class Crowd:
    """The readers, in a thread of their own."""

    def __init__(self, address):
        self.readers = [Reader(address, number) for number in range(READERS)]
        self._tasks = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        for task in self._tasks:
            task.get_loop().call_soon_threadsafe(task.cancel)
        self._thread.join()

    async def _run(self):
        self._tasks = [asyncio.create_task(reader.read()) for reader in self.readers]
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        for end, reader in zip(ends, self.readers):
            if not isinstance(end, asyncio.CancelledError):
                reader.faults.append(repr(end))

    def wait_until_all_show(self, rows):
        """Each reader shows what is stored on its page."""
        pages = [rows[at:at + PAGE_SIZE] for at in range(0, len(rows), PAGE_SIZE)]
        wait_for(lambda: all(shown(reader.html) == pages[min(reader.page, len(pages)) - 1]
                             for reader in self.readers), "all readers to see what is stored")


STORED = "SELECT id, text FROM messages ORDER BY created_at DESC, id DESC"


def test_nobody_sees_an_older_state_after_a_newer_one(start, database):
    board = start(limits_messages_per_second=0, board_page_size=PAGE_SIZE)
    with Crowd(board.address) as crowd:
        with Keepers(board.address, count=8) as keepers:
            for _ in range(3):
                keepers.wait(1000)
                database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                             " WHERE application_name = 'breadboard' AND datname = 'board'")
            keepers.wait(1000)
            for reader in crowd.readers:
                reader.wild = False
        rows = database.sql(STORED)
        crowd.wait_until_all_show(rows)

        #  Nobody is behind any more: what is written now moves every page, and is everywhere within 1 s
        ann = board.client()
        ann.send("add message", author="Ann", text="last 1")
        ann.until("last 1<")
        ended = time.monotonic()
        crowd.wait_until_all_show(database.sql(STORED))
        assert time.monotonic() - ended < 5  # the rest for a busy machine, and readers still asleep
    assert not any(keepers.check(database.sql(ROWS + " WHERE author LIKE 'keeper %'")).values())
    assert [fault for reader in crowd.readers for fault in reader.faults] == []
