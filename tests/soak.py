#!/usr/bin/python3
"""soak [--minutes M] - a board at work for long, and whether its memory and descriptors stay flat; make soak runs it.

Keepers write all the time; visitors come, turn pages, read, do not read, and go; the site is read anew every few seconds;
now and then the connection to PostgreSQL breaks. Ends with 1 when memory or descriptors have grown, or a write is lost.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import sys
import threading
import time

import websockets

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from board import PATH, Board, Database, wait_for
from keepers import ROWS, Keepers

VISITORS = 40
GROWTH_KB = 1024  # that memory may differ between the second quarter of a soak and its last
SAMPLES = 40


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Visitors:
    """They come and go until they are stopped; counted in visits."""

    def __init__(self, address):
        self.address = address
        self.visits = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()

    def stop(self):
        self._ending.set()
        self._thread.join()

    async def _run(self):
        await asyncio.gather(*(self._visit(random.Random(number)) for number in range(VISITORS)))

    async def _visit(self, chance):
        while not self._ending.is_set():
            socket = None
            with contextlib.suppress(OSError, websockets.WebSocketException, asyncio.TimeoutError):
                socket = await websockets.connect(f"ws://{self.address}{PATH}", max_size=None, max_queue=1,
                                                  close_timeout=1, ping_timeout=None)
                self.visits += 1
                for _ in range(chance.randrange(1, 10)):
                    await socket.send(json.dumps({"action": "list messages",
                                                  "data": {"page": chance.randrange(1, 50)}}))
                    if chance.random() < 0.3:
                        await asyncio.sleep(chance.uniform(0, 2))  # without a look at what comes
                    else:
                        await asyncio.wait_for(socket.recv(), 10)
                if chance.random() < 0.5:
                    await socket.close()
            if socket:
                socket.transport.abort()  # the others go without a word


def soak(minutes, report=print):
    """Returns whether all is well."""
    server = Database()
    board = Board(database_url=server.url, limits_messages_per_second=0)
    with Keepers(board.address, name="first") as first:
        first.wait(1000)
    at_rest = descriptors(board.process.pid)  # each thread has what it needs by now
    keepers = Keepers(board.address, count=4)
    visitors = Visitors(board.address)
    samples = []
    for count in range(SAMPLES):
        until = time.monotonic() + minutes * 60 / SAMPLES
        while time.monotonic() < until:
            board.signal(signal.SIGHUP)
            time.sleep(min(2, minutes * 60 / SAMPLES))
        if count % 4 == 3:
            server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                       " WHERE application_name = 'breadboard'")
        assert board.process.poll() is None, board.logged()[-2000:]
        samples.append((board.resident(), descriptors(board.process.pid)))
    visitors.stop()
    keepers.stop()
    found = keepers.check(server.sql(ROWS + " WHERE author LIKE 'keeper %'"))
    wait_for(lambda: descriptors(board.process.pid) <= at_rest, "the descriptors of visitors who are gone")
    left = descriptors(board.process.pid)
    second = sorted(kb for kb, _ in samples[SAMPLES // 4:SAMPLES // 2])
    last = sorted(kb for kb, _ in samples[-SAMPLES // 4:])
    growth = last[len(last) // 2] - second[len(second) // 2]
    report(f"{minutes} minutes, {keepers.acknowledged} writes, {visitors.visits} visits, {keepers.doubts} in doubt")
    report("memory (KB): " + " ".join(str(kb) for kb, _ in samples))
    report("descriptors: " + " ".join(str(count) for _, count in samples) + f"; at rest {at_rest}, then {left}")
    report(f"memory grew by {growth} KB from the second quarter to the last; "
           + ", ".join(f"{count} {what}" for what, count in found.items()))
    status = board.stop()
    server.destroy()
    return status == 0 and growth < GROWTH_KB and not any(found.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it minds that visitors go without a word
    parser.add_argument("--minutes", type=float, default=15)
    return 0 if soak(parser.parse_args().minutes) else 1


if __name__ == "__main__":
    sys.exit(main())
