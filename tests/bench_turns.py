#!/usr/bin/python3
"""Measures page turns, and what else must not grow with the table, on boards of many sizes: make turns.

    bench_turns.py [--turns N] [--seconds S] [ROWS...]

For each number of rows scripts/seed fills a table, without fsync; all else is measured with it. A turn asks for a
page that the board does not have in memory, since somebody else has just written; after some turns the same pages are
read as one would without an index, by count(*) and OFFSET, through libpq. Writes are made in turns with a board that is
empty. The figures are printed as bench.py prints them, and go to build/turns.json; they decide nothing.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import re
import subprocess
import sys
import time

from bench import Suite, begin, finish, number
from board import ROOT, Fresh, wait_for
from raw import websocket

SEED = os.path.join(ROOT, "scripts", "seed")
ROWS = (1000, 10_000, 100_000, 1_000_000, 10_000_000)
BASE = 10  # rows of the board whose memory is compared with
PAGE_SIZE = 5
FIRST = "near the first"
PLACES = FIRST, "in the middle", "near the last", "anywhere"
ROUND = 8  # turns to each place between two writes of somebody else
STARTS = 3
WRITES = 100  # of each kind
BUILD_SECONDS = 900  # after which an index counts as not built
TURN_LIMIT = 2  # x of a first page's, and of the smallest board's
MESSAGE_BYTES = 2
ENOUGH_ROWS = 1_000_000  # before the process's own ups and downs are little beside these bytes
FIRST_PAGE_MS = 300
METRIC = re.compile(r"^breadboard_page_index_(\w+) (-?\d+)$", re.MULTILINE)
REPLIES = ("Sec-WebSocket-Protocol", "breadboard.1")


def microseconds(since):
    return (time.perf_counter() - since) * 1e6


def p99(values):
    return sorted(values)[max(0, -(-len(values) * 99 // 100) - 1)]


class Visitor:
    """A client that waits for each of its replies."""

    def __init__(self, board):
        self.raw = websocket(board.address, REPLIES)

    def ask(self, action, **data):
        """Returns how many microseconds the reply took, and the reply."""
        began = time.perf_counter()
        self.raw.send_frame(json.dumps({"action": action, "ref": "1", "data": data}))
        frame = self.raw.message()
        while "ref" not in frame:
            frame = self.raw.message()
        took = microseconds(began)
        if frame["status"] != "ok":
            raise RuntimeError(f"{action}: {frame['error']}")
        return took, frame

    def turn(self, page):
        took, frame = self.ask("list messages", page=page)
        if frame["page"] != page:
            raise RuntimeError(f"asked for page {page}, got {frame['page']}")
        return took

    def until(self, text):
        """Waits for a frame with the text in it."""
        while text not in self.raw.message().get("html", ""):
            pass

    def close(self):
        self.raw.close()


def index_metrics(board):
    """What the board tells of its index, by the ends of the names; nothing when it has none."""
    return {name: int(value) for name, value in METRIC.findall(board.get("/metrics").text)}


#  ------------------------------------------------------------------------
#  As one would read it without an index

NAIVE = ("SET enable_sort = off; SET jit = off; PREPARE naive_count AS SELECT count(*) FROM messages;"
         " PREPARE naive_page (bigint, bigint) AS SELECT id, author, text, extract(epoch FROM created_at)"
         " FROM messages ORDER BY created_at DESC, id DESC LIMIT $1 OFFSET $2")


class Naive:
    """The same pages by count(*) and OFFSET, as long as there is time for it."""

    def __init__(self, database, seconds):
        self.connection = database.connect()
        self.cursor = self.connection.cursor()
        self.cursor.execute(NAIVE)
        self.left_us = seconds * 1e6

    def read(self, page, took):
        """Adds how long it takes to those that it took; once at least, however long."""
        if self.left_us < 0 and took:
            return
        began = time.perf_counter()
        self.cursor.execute("EXECUTE naive_count")
        self.cursor.fetchall()
        self.cursor.execute("EXECUTE naive_page (%s, %s)", (PAGE_SIZE, (page - 1) * PAGE_SIZE))
        if len(self.cursor.fetchall()) == 0:
            raise RuntimeError(f"there is no page {page}")
        took.append(microseconds(began))
        self.left_us -= took[-1]

    def close(self):
        self.connection.close()


#  ------------------------------------------------------------------------


class Turns(Suite):
    """All sizes, one after the other, on one PostgreSQL."""

    def __init__(self, options):
        super().__init__(quick=False)
        self.options = options
        self.chance = random.Random(1)
        self.empty = Fresh(self.database)  # Has a board, too
        self.turns = {}  # By number of rows and place, in us

    def absent(self, figure):
        print(f"  {figure:<49} {'-':>12}", flush=True)

    def timed(self, figure, values, limit=None, floor=None, floor_name=None):
        self.row(figure, values, "us", limit, floor=floor, floor_name=floor_name,
                 note=f"p99 {number(p99(values))}, of {len(values)}")
        self.rows[-1].update(p99=p99(values), samples=len(values))

    #  The table

    def restart_database(self, fsync):
        self.database.stop()
        self.database.fsync = fsync
        self.database.start()

    def seed(self, rows):
        """Leaves so many messages on the board; returns how many seconds that took."""
        self.restart_database("off")
        self.database.sql("TRUNCATE messages RESTART IDENTITY")
        began = time.monotonic()
        subprocess.run([SEED, "--count", str(rows), "--url", self.database.url], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        took = time.monotonic() - began
        self.restart_database("on")
        return took

    def insert(self, text):
        """As somebody else does."""
        self.database.sql("INSERT INTO messages (author, text, created_at) VALUES ('Else', %s, now())", text)

    #  Starting

    def start(self):
        """Starts a board; returns it, and how many ms it took until page 1 was there."""
        began = time.perf_counter()
        board = self.board(board_page_size=PAGE_SIZE)
        wait_for(lambda: "<article" in board.get("/").text, "page 1")
        return board, microseconds(began) / 1000

    def measure_starts(self):
        """Returns the last board, once its index is built."""
        took = []
        for _ in range(STARTS):
            self.close()
            began = time.perf_counter()
            board, ms = self.start()
            took.append(ms)
        self.row("from the start until page 1 is there", took, "ms", FIRST_PAGE_MS)
        deadline = time.monotonic() + BUILD_SECONDS
        while (messages := index_metrics(board).get("messages")) == -1 and time.monotonic() < deadline:
            time.sleep(0.005)
        if messages in (None, -1):
            self.absent("from the start until the index is built")
        else:
            self.row("from the start until the index is built", [microseconds(began) / 1000], "ms")
        return board

    def measure_return(self, board):
        """The database is away and comes back."""
        self.database.stop("immediate")
        wait_for(lambda: board.get("/readyz").status == 503, "the board to notice")
        self.database.start()
        began = time.perf_counter()
        self.insert("back again")
        wait_for(lambda: "back again<" in board.get("/").text, "page 1")
        self.row("from when the database is back until page 1 is new", [microseconds(began) / 1000], "ms",
                 note="tries to connect are up to 800 ms apart")

    def measure_memory(self, board, base_kb, rows):
        limit = MESSAGE_BYTES if rows >= ENOUGH_ROWS else None
        grown = (board.resident() - base_kb) * 1024 / rows
        self.row("memory for each message: the process grows by", [grown], "B", limit)
        size = index_metrics(board).get("bytes")
        if size is None:
            self.absent("memory for each message: the index alone")
        else:
            self.row("memory for each message: the index alone", [size / rows], "B", limit)

    #  Turning pages

    def choose(self, pages):
        """Places and pages for a round, in any order, each page once."""
        ranges = (2, 20), (pages // 2 - 40, pages // 2 + 40), (pages - 99, pages), (2, pages)
        chosen = {}
        for place, limits in zip(PLACES, ranges):
            wanted = len(chosen) + ROUND
            while len(chosen) < wanted:
                chosen.setdefault(self.chance.randint(*limits), place)
        chosen = [(place, page) for page, place in chosen.items()]
        self.chance.shuffle(chosen)
        return chosen

    def measure_turns(self, board, rows):
        turns = {place: [] for place in PLACES}
        old = {place: [] for place in PLACES}
        news = []
        visitor, watcher = Visitor(board), Visitor(board)
        deadline = time.monotonic() + self.options.seconds
        with contextlib.closing(Naive(self.database, self.options.seconds / 2)) as naive:
            while len(turns["anywhere"]) < self.options.turns and (not news or time.monotonic() < deadline):
                visitor.turn(1)
                news.append(self.tell(watcher, f"new {len(news)}"))
                for place, page in (chosen := self.choose((rows + len(news)) // PAGE_SIZE)):
                    turns[place].append(visitor.turn(page))
                for place, page in chosen:
                    naive.read(page, old[place])
        for place in PLACES:
            beside = {} if place == FIRST else {"limit": TURN_LIMIT, "floor": turns[FIRST], "floor_name": FIRST}
            self.timed(f"{place}: a turn", turns[place], **beside)
            self.timed(f"{place}: count(*) and OFFSET", old[place])
        self.timed("somebody else's message is on page 1", news)
        self.turns[rows] = turns
        visitor.close()
        watcher.close()

    def measure_permalinks(self, board, rows):
        """Asks on which page messages are, anywhere; what is seeded has the ids from 1 on."""
        took = []
        connection = http.client.HTTPConnection(board.address)
        for _ in range(self.options.turns):
            began = time.perf_counter()
            connection.request("GET", f"/messages/{self.chance.randint(1, rows)}")
            answer = connection.getresponse()
            answer.read()
            took.append(microseconds(began))
            if answer.status != 302:
                raise RuntimeError(f"a permalink was answered {answer.status}")
        connection.close()
        self.timed("a permalink, anywhere", took)

    def tell(self, watcher, text):
        """Somebody else writes, and so no page in memory is up to date; returns when page 1 shows it, in us."""
        began = time.perf_counter()
        self.insert(text)
        watcher.until(f"{text}<")
        return microseconds(began)

    #  Writing

    def measure_writes(self, board):
        """One client writes, and another looks at page 1; beside a board that is empty."""
        boards = [board, self.board(database_url=self.empty.url, board_page_size=PAGE_SIZE)]
        writers = [Visitor(board) for board in boards]
        watchers = [Visitor(board) for board in boards]
        took = {"add": ([], []), "edit": ([], []), "delete": ([], [])}
        for count in range(WRITES):
            for which, writer in enumerate(writers):
                text = f"message {count} " * 8
                us, reply = writer.ask("add message", author="Ann", text=text)
                watchers[which].until(text.strip())
                took["add"][which].append(us)
                took["edit"][which].append(writer.ask("update message", id=reply["id"], author="Bob", text="edited")[0])
                took["delete"][which].append(writer.ask("delete message", id=reply["id"])[0])
        for what, (full, empty) in took.items():
            self.timed(f"{what}: acknowledged", full, floor=empty, floor_name="on an empty board")
        for visitor in writers + watchers:
            visitor.close()

    #  All of it

    def measure(self, rows, base_kb):
        print(f"\n{rows:,} messages", flush=True)
        try:
            self.row("filling the table, without fsync", [self.seed(rows)], "s")
            board = self.measure_starts()
            self.measure_memory(board, base_kb, rows)
            self.measure_turns(board, rows)
            self.measure_permalinks(board, rows)
            self.measure_writes(board)
            self.measure_return(board)
        except (RuntimeError, AssertionError) as error:
            print(f"  the rest was not measured: {error}")
            self.rows.append({"figure": f"{rows:,} messages", "verdict": "NOT MEASURED", "note": str(error)})
        finally:
            self.close()

    def base_memory(self):
        """The memory of a board with a few messages, in KB."""
        self.seed(BASE)
        board, _ = self.start()
        wait_for(lambda: index_metrics(board).get("messages") != -1, "the index")
        kb = board.resident()
        self.close()
        return kb

    def compare_sizes(self):
        """A turn may not take longer on a larger board."""
        if len(self.turns) < 2:
            return
        smallest, *others = sorted(self.turns)
        print(f"\nThe same turns on {smallest:,} messages", flush=True)
        for rows in others:
            for place, values in self.turns[rows].items():
                self.timed(f"{rows:,} messages, {place}", values, TURN_LIMIT, self.turns[smallest][place],
                           f"{smallest:,} messages")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=200, help="to each place (%(default)s)")
    parser.add_argument("--seconds", type=float, default=120,
                        help="to turn pages on each board at most; half of it for OFFSET (%(default)s)")
    parser.add_argument("rows", nargs="*", type=int, default=ROWS, help="numbers of messages, 500 or more")
    options = parser.parse_args()
    if min(options.rows) < 500:
        parser.error("a board of less than 500 messages has too few pages")
    return options


def main():
    options = parse()
    start = time.monotonic()
    suite = Turns(options)
    try:
        about = begin(suite)
        base_kb = suite.base_memory()
        for rows in sorted(options.rows):
            suite.measure(rows, base_kb)
        suite.compare_sizes()
    finally:
        suite.close()
        suite.database.destroy()
    finish(suite, about, start, "turns.json")


if __name__ == "__main__":
    sys.exit(main())
