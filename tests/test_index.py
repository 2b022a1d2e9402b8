"""The numbers of pages, whatever happens to the table: each page is what SQL says, and so is their number.

Random histories of clients and of others who write by hand, on two boards of one database with page sizes of their
own. Now and then all is quiet, and then every page, asked for by HTTP and by WebSocket, live on a page or by a
permalink, has to become what ORDER BY, LIMIT and OFFSET find; for how long that may take is no matter here.
OPERATIONS=10000 in the environment plays a history that nobody has played before, SEED=N one again; without them
a short one is played, always the same.
"""

import contextlib
import json
import os
import random
import re
import signal
import tempfile
import threading
import time
import uuid

import websockets

from board import PATIENCE, Board, Fresh
from lists import content, framed, served
from strangers import FIRST_ID, ORDER, Stranger

OPERATIONS = int(os.environ.get("OPERATIONS", 0))
SEED = int(os.environ.get("SEED") or 0) or (random.randrange(1, 10**9) if OPERATIONS else 2)
MOST = 9000  # messages, above which many are deleted
OPEN_MOST = 3  # transactions at a time
AT_ONCE = 100  # requests of a client that wait for their replies
NOBODY = 10**12  # a page past the end
PERMALINK = re.compile(r"/\?page=(\d+)#message--(\d+)")


def ask(client, requests):
    """Sends requests, (action, data), many at once; returns their replies, or those before the connection ended."""
    replies = {}
    with contextlib.suppress(websockets.ConnectionClosed):
        for ref, (action, data) in enumerate(requests):
            client.send_raw(json.dumps({"action": action, "ref": str(ref), "data": data}))
            while len(replies) < (len(requests) if ref + 1 == len(requests) else ref + 1 - AT_ONCE):
                frame = client.frame()
                if "ref" in frame:
                    replies[int(frame["ref"])] = frame
    return [replies[ref] for ref in sorted(replies)]


class Truth:
    """What SQL says of the board, read in one go."""

    def __init__(self, cursor):
        cursor.execute(f"SELECT id, author, text FROM messages {ORDER}")
        self.rows = cursor.fetchall()

    def pages(self, size):
        return max(1, -(-len(self.rows) // size))

    def page(self, number, size):
        """The page, or the last one, as content () has it."""
        number = min(number, self.pages(size))
        return framed(number, self.pages(size), tuple(self.rows[(number - 1) * size:number * size]))


class Seat:
    """A board, a client who writes and turns pages, and two who stay on theirs."""

    def __init__(self, url, page_size, settings):
        self.url, self.page_size, self.settings = url, page_size, settings
        self.away = False  # It has lost its connection to the database, or might have
        self.write_settings()
        self.viewers = []
        self.start()

    def write_settings(self):
        self.settings.seek(0)
        self.settings.truncate()
        self.settings.write(f"[board]\npage_size = {self.page_size}\n")
        self.settings.flush()

    def start(self):
        self.board = Board(["-c", self.settings.name], database_url=self.url, limits_messages_per_second=0,
                           log_level="warning")
        self.client = self.board.client(subprotocols=["breadboard.1"])
        self.viewers = [self.board.silent_client() for _ in range(2)]
        self.shown = [None, None]

    def resize(self, page_size):
        self.page_size = page_size
        self.write_settings()
        self.board.signal(signal.SIGHUP)

    def end(self):
        for client in self.viewers + [self.client]:
            client.abort()
        self.board.clients.clear()

    def ask(self, requests):
        """As above; who had a write in doubt comes again."""
        replies = ask(self.client, requests)
        if len(replies) < len(requests):
            assert self.away, "the connection was closed"
            self.client = self.board.client(subprotocols=["breadboard.1"])
        return replies

    def listed(self, numbers):
        """Pages as a client gets them who turns to one after the other; None where the database is away."""
        requests = [("list messages", {"page": number}) for number in numbers]
        return [content(reply["page"], reply["pages"], reply["html"]) if "page" in reply else None
                for reply in self.ask(requests)]

    def served(self, number):
        """A page as HTTP has it; None when the database is away."""
        with contextlib.suppress(AttributeError):  # There is no list
            return served(self.board, number)[0]

    def linked(self, number):
        """The page to which the message's permalink leads; None: there is no such message."""
        found = PERMALINK.fullmatch(self.board.get(f"/messages/{number}").getheader("Location") or "")
        assert not found or found.group(2) == str(number)
        return int(found.group(1)) if found else None

    def become(self, found, wanted, what):
        """Polls until found () is what is wanted."""
        deadline = time.monotonic() + PATIENCE
        while (last := found()) != wanted:
            assert time.monotonic() < deadline, f"{what}: got {last}, not {wanted}"
            time.sleep(0.005)

    def compare(self, truth, numbers, ids):
        """Every way to the pages has to lead to what is true."""
        for number in numbers:
            wanted = truth.page(number, self.page_size)
            self.become(lambda: self.served(number), wanted, f"GET of page {number}")
            self.become(lambda: self.listed([number])[:1], [wanted], f"turn to page {number}")
        places = {row[0]: place for place, row in enumerate(truth.rows)}
        for number in ids:
            place = places.get(number)
            page = None if place is None else place // self.page_size + 1
            self.become(lambda: self.linked(number), page, f"permalink of {number}")

    def compare_all(self, truth):
        """All pages in one pass, and one that is past the end of any; it may take several until one pass is right."""
        numbers = [*range(1, truth.pages(self.page_size) + 1), NOBODY]
        wanted = [truth.page(number, self.page_size) for number in numbers]

        def wrong():
            pages = self.listed(numbers)
            differ = [(got, page) for got, page in zip(pages, wanted) if got != page]
            return differ[:1] if len(pages) == len(wanted) else [None]

        self.become(wrong, [], "all pages, the first that is wrong, and what it should be")

    def compare_live(self, truth):
        """Who stays on a page, and asks nothing, has been given it as it is."""
        deadline = time.monotonic() + PATIENCE
        for index, viewer in enumerate(self.viewers):
            while not self.shown[index] or self.shown[index] != truth.page(self.shown[index][0], self.page_size):
                try:
                    frame = viewer.frame(max(0, deadline - time.monotonic()))
                except AssertionError:
                    raise AssertionError(f"viewer {index} stays with {self.shown[index]}") from None
                assert frame["selector"] == "#messages__list", frame
                self.shown[index] = content(frame["page"], frame["pages"], frame["html"])

    def settle_down(self, number, index):
        """One of those who stay turns to another page, and stays there."""
        self.viewers[index].send("list messages", page=number)
        self.shown[index] = None


class History:
    def __init__(self, server, seed, stack):
        self.chance = random.Random(seed)
        self.done = []  # Each operation, in words
        self.database = Fresh(server)
        self.make_table()
        self.secret = False  # Something was changed that nobody announced
        self.gone = []  # (id, key) of deletes
        self.open = []  # Strangers with a transaction that is under way
        self.looker = stack.enter_context(contextlib.closing(self.database.connect())).cursor()
        self.stranger = self.stranger_new()
        self.seats = []

    def make_table(self):
        """A table such as the original application leaves behind, with many messages of one instant."""
        self.database.sql(
            "CREATE TABLE messages (id bigserial PRIMARY KEY, author varchar(100) NOT NULL, text text NOT NULL,"
            f" created_at timestamptz NOT NULL); ALTER SEQUENCE messages_id_seq RESTART {FIRST_ID}")
        self.database.sql(
            "INSERT INTO messages (author, text, created_at) SELECT 'Old', 'old ' || n,"
            " '2020-01-01'::timestamptz + n / 700 * interval '1 day' FROM generate_series(1, 5000) AS n")

    def stranger_new(self):
        return Stranger(self.database.connect(), random.Random(self.chance.random()))

    def close(self):
        for stranger in [self.stranger, *self.open]:
            stranger.close()
        for seat in self.seats:
            seat.end()
        for seat in self.seats:
            assert seat.board.stop() == 0, seat.board.logged()

    #  ------------------------------------------------------------------------
    #  Looking

    def look(self):
        """All is quiet; what is committed is what has to be seen, on each board."""
        if self.secret:
            self.tell()
        truth = Truth(self.looker)
        everything = self.secret or self.chance.random() < 0.05
        for seat in self.seats:
            last = truth.pages(seat.page_size)
            numbers = [1, 2, last, last + 1, NOBODY, *(self.chance.randint(1, last) for _ in range(4))]
            ids = [self.chance.choice(truth.rows)[0] for _ in range(3) if truth.rows] + [FIRST_ID - 1]
            if everything:
                seat.compare_all(truth)
            seat.compare(truth, self.chance.sample(numbers, len(numbers)), ids)
            seat.compare_live(truth)
            if self.chance.random() < 0.4:
                seat.settle_down(self.chance.choice(numbers), self.chance.randrange(2))
            seat.away = False
        self.secret = False
        return f"{len(truth.rows)} messages" + ", all pages" * everything

    def tell(self):
        """What nobody announced may be overlooked until somebody writes, and then until the pages around it are
        read: no board can know of it before."""
        self.database.sql("INSERT INTO messages (author, text, created_at) VALUES ('Else', 'announced', now())")

    #  ------------------------------------------------------------------------
    #  Operations; each returns what it did, in words

    def step(self):
        self.looker.execute("SELECT count(*) FROM messages")
        if self.looker.fetchone()[0] > MOST:
            name = "many_are_deleted"
        else:
            names = list(WEIGHTS)
            name = self.chance.choices(names, [WEIGHTS[name] for name in names])[0]
        self.done.append(name)
        outcome = getattr(self, name)()
        self.done[-1] = f"{name}: {outcome}"

    def many_are_deleted(self):
        self.end_all()
        return self.stranger.attempt(lambda: self.stranger.delete(MOST // 2))

    def ids(self, count):
        """Neighbours, newest, oldest or in between."""
        self.looker.execute(self.stranger.some(count))
        return [number for (number,) in self.looker.fetchall()]

    def requests(self):
        """Writes of one kind or of all."""
        kind = self.chance.choice(("add", "add", "delete", "delete", "restore", "edit", "all"))
        count = self.chance.choice((1, 1, 1, 2, 7, 40, 300))
        requests = []
        for number in self.ids(count) + [0] * count if kind == "all" else self.ids(count):
            what = self.chance.choice(("add", "delete", "restore", "edit")) if kind == "all" else kind
            key = str(uuid.UUID(int=self.chance.getrandbits(128), version=4))
            if what == "add" or not number:
                requests.append(("add message", {"author": "Ann", "text": f"message {key}", "key": key}))
            elif what == "delete":
                requests.append(("delete message", {"id": number, "key": key}))
                self.gone.append((number, key))
            elif what == "edit":
                requests.append(("update message", {"id": number, "author": "Bob", "text": f"edit {key}"}))
            elif self.gone:
                number, key = self.gone.pop()
                requests.append(("restore message", {"id": number, "key": key}))
        self.gone = self.gone[-300:]
        return requests

    def clients_write(self):
        """A reply says what became of each: it is stored, it was not there, or others have it locked."""
        counts = {}
        for seat in self.chance.sample(self.seats, self.chance.choice((1, len(self.seats)))):
            requests = self.requests()
            replies = seat.ask(requests)
            for (action, _), reply in zip(requests, replies):
                code = reply["error"]["code"] if "error" in reply else "ok"
                assert code in ("ok", "not-found", "busy") or seat.away and code == "unavailable", reply
                counts[action, code] = counts.get((action, code), 0) + 1
        return ", ".join(f"{number} x {' '.join(what)}" for what, number in counts.items())

    def somebody_writes(self):
        return self.stranger.attempt(self.stranger.write)

    def somebody_begins(self):
        if len(self.open) == OPEN_MOST:
            return self.somebody_ends()
        self.open.append(self.stranger_new())
        return self.open[-1].begin()

    def somebody_goes_on(self):
        return self.chance.choice(self.open).go_on() if self.open else ""

    def somebody_ends(self):
        if not self.open:
            return ""
        stranger = self.open.pop(self.chance.randrange(len(self.open)))
        outcome = stranger.end()
        stranger.close()
        return outcome

    def end_all(self):
        """Ends the transactions that are open, so that the whole table can be locked."""
        while self.open:
            self.somebody_ends()

    def somebody_truncates(self):
        self.end_all()
        self.stranger.sql("BEGIN; SET LOCAL lock_timeout = '10s'; TRUNCATE messages")
        if self.chance.random() < 0.8:
            self.stranger.insert(3000)
        return self.stranger.end()

    def nobody_tells(self):
        self.secret = True
        with self.stranger.unheard():
            return self.stranger.attempt(self.stranger.write)

    def all_write_at_once(self):
        """Strangers of which each knows nothing of the others, clients that write and others that read."""
        strangers = [self.stranger_new() for _ in range(3)]
        threads = [threading.Thread(target=write_much, args=(stranger,)) for stranger in strangers]
        for thread in threads:
            thread.start()
        outcome = self.clients_write()
        while any(thread.is_alive() for thread in threads):
            for seat in self.seats:
                seat.listed([self.chance.randrange(1, 1000) for _ in range(10)])
        for thread in threads:
            thread.join()
        return outcome

    def connections_break(self):
        """In the middle of what clients write; and others go on while nobody listens."""
        for seat in self.seats:
            seat.away = True
        pids = self.database.backends()
        pids = self.chance.sample(pids, self.chance.randint(min(1, len(pids)), len(pids)))
        breaker = threading.Thread(target=end_backends, args=(self.database.connect(), pids))
        breaker.start()
        outcome = self.clients_write()
        breaker.join()
        return f"{outcome}; {self.somebody_writes()}"

    def a_board_starts_again(self):
        seat = self.chance.choice(self.seats)
        seat.end()
        how = self.chance.choice(("stop", "kill"))
        status = getattr(seat.board, how)()
        assert how == "kill" or status == 0, seat.board.logged()
        outcome = self.somebody_writes()
        seat.start()
        return f"{how}; {outcome}"

    def a_page_gets_another_size(self):
        seat = self.chance.choice(self.seats)
        seat.resize(self.chance.choice((1, 5, 7, 10, 10, 50)))
        return seat.page_size

    def somebody_drops_the_table(self):
        """The next start makes it again."""
        self.end_all()
        for seat in self.seats:
            seat.end()
            assert seat.board.stop() == 0, seat.board.logged()
        self.database.sql("DROP TABLE messages")
        old = self.chance.random() < 0.7
        if old:
            self.make_table()
        for seat in self.seats:
            seat.start()
        self.database.sql(f"ALTER SEQUENCE messages_id_seq RESTART {2 * FIRST_ID}")
        return "as the original application makes it" if old else "nothing in its place"


#  How often each operation is chosen, beside the others
WEIGHTS = {
    "look": 45, "clients_write": 40, "somebody_writes": 40, "somebody_begins": 10, "somebody_goes_on": 10,
    "somebody_ends": 10, "somebody_truncates": 1, "nobody_tells": 2, "all_write_at_once": 4,
    "connections_break": 2, "a_board_starts_again": 1.5, "a_page_gets_another_size": 1.5,
    "somebody_drops_the_table": 0.3,
}


@contextlib.contextmanager
def settings_file():
    with tempfile.NamedTemporaryFile("w", prefix="breadboard-settings-", suffix=".ini") as file:
        yield file


def write_much(stranger):
    for _ in range(5):
        stranger.attempt(stranger.write)
    stranger.close()


def end_backends(connection, pids):
    with contextlib.closing(connection):
        for pid in pids:
            connection.cursor().execute("SELECT pg_terminate_backend(%s)", (pid,))


@contextlib.contextmanager
def history_of(server, seed, page_sizes):
    """A history; what was done last is told when it goes wrong."""
    with contextlib.ExitStack() as stack:
        history = History(server, seed, stack)
        print(f"SEED={seed}", flush=True)
        try:
            for page_size in page_sizes:
                history.seats.append(Seat(history.database.url, page_size, stack.enter_context(settings_file())))
            yield history
        except BaseException:
            print(f"operation {len(history.done)}, page sizes {[seat.page_size for seat in history.seats]}",
                  *history.done[-60:], sep="\n")
            raise
        finally:
            history.close()


def test_pages_are_what_sql_says(server):
    with history_of(server, SEED, (10, 7)) as history:
        for _ in range(OPERATIONS or 200):
            history.step()
        history.end_all()
        history.look()


def test_own_writes_count_before_they_are_acknowledged(server):
    """Where nobody else writes there is nothing to wait for: who has the reply finds all pages as they are."""
    with history_of(server, SEED, (10,)) as history:
        (seat,) = history.seats
        for _ in range(40):
            history.done.append(history.clients_write())
            truth = Truth(history.looker)
            last = truth.pages(seat.page_size)
            numbers = [1, last, last + 1, *(history.chance.randint(1, last) for _ in range(5))]
            wanted = [truth.page(number, seat.page_size) for number in numbers]
            assert seat.listed(numbers) == wanted
            assert [seat.served(number) for number in numbers] == wanted


def test_what_nobody_announces_is_found_by_who_reads_all_pages(server):
    """Also when no page has messages of two blocks of the index, which would show that there are more."""
    with history_of(server, SEED, (1,)) as history:
        with history.stranger.unheard():
            history.stranger.sql("INSERT INTO messages (author, text, created_at)"
                                 " SELECT 'Else', 'unheard ' || n, now() FROM generate_series(1, 300) AS n")
        history.secret = True
        history.look()
