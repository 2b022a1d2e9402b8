"""Somebody's PostgreSQL, named by database.url: shared, changed by others, away, and back again."""

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import threading
import time

import psycopg2
import pytest

from board import BINARY, PATIENCE, Board, Database, wait_for
from conftest import stop_all
from proxy import Proxy
from writers import PAGE_SIZE, Writers

DJANGO_TABLE = """CREATE TABLE messages (id {id} PRIMARY KEY, author varchar(100) NOT NULL,
                  text text NOT NULL, created_at timestamptz NOT NULL)"""
DJANGO_INSERT = "INSERT INTO messages (author, text, created_at) VALUES (%s, %s, now()) RETURNING id"

_numbers = itertools.count(1)


class Fresh:
    """A database of its own in a server; nothing is in it."""

    def __init__(self, server):
        self.server = server
        self.name = f"fresh_{next(_numbers)}"
        server.sql(f"CREATE DATABASE {self.name}", database="postgres")
        self.url = f"host={server.folder} user=board dbname={self.name}"

    def connect(self):
        return self.server.connect(self.name)

    def sql(self, statement, *values):
        return self.server.sql(statement, *values, database=self.name)

    def texts(self):
        return [text for (text,) in self.sql("SELECT text FROM messages ORDER BY id")]

    def backends(self):
        """The processes of the boards' connections."""
        return [pid for (pid,) in self.server.sql(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'breadboard'"
            " AND datname = %s", self.name, database="postgres")]


@pytest.fixture
def fresh(server):
    return Fresh(server)


@pytest.fixture
def start(fresh):
    """Starts boards on the fresh database, fit for writers."""
    boards = []

    def start(**settings):
        settings.setdefault("database_url", fresh.url)
        settings.setdefault("limits_messages_per_second", 0)
        settings.setdefault("board_page_size", PAGE_SIZE)
        boards.append(Board(**settings))
        return boards[-1]

    yield start
    stop_all(boards)


def refusal(url):
    """The sentence with which a board refuses to start on the database."""
    ended = subprocess.run([BINARY, "-s", "http.listen=127.0.0.1:0", "-s", f"database.url={url}"],
                           capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == 1 and ended.stdout == "", ended
    lines = [line for line in ended.stderr.splitlines() if not re.match(r"\d{4}-\d\d-\d\dT", line)]
    assert len(lines) == 1, ended.stderr
    return lines[0]


def add(client, text):
    """Adds a message; returns its id."""
    client.send("add message", author="Ann", text=text)
    article = client.until(f">{text}</p>").partition(f">{text}</p>")[0]
    return int(re.findall(r'id="message--(\d+)"', article)[-1])


#  ------------------------------------------------------------------------
#  Shared with others


def test_two_boards_show_each_others_changes(start):
    one, two = start().client(), start().client()
    for writer, reader in (one, two), (two, one):
        number = add(writer, "from here")
        assert f'id="message--{number}"' in reader.until("from here<")
        reader.send("update message", id=number, author="Bob", text="changed there")
        writer.until("changed there<")
        reader.until("changed there<")
        writer.send("delete message", id=number)
        for client in one, two:
            assert "changed there" not in client.html()


def test_what_others_change_shows_up_live(start, fresh):
    board = start(board_page_size=2)
    ann, bob = board.client(), board.client()
    clients = ann, bob
    ((number,),) = fresh.sql(DJANGO_INSERT, "Django", "by hand")
    for client in clients:
        assert f'id="message--{number}"' in client.until("by hand<")
    fresh.sql("UPDATE messages SET text = 'changed by hand' WHERE id = %s", number)
    for client in clients:
        client.until("changed by hand<")
    fresh.sql("INSERT INTO messages (author, text, created_at)"
              " SELECT 'Django', 'many ' || n, now() + n * interval '1 second'"
              " FROM generate_series(1, 1000) AS n")
    for client in clients:
        client.until("many 1000<")
    bob.send("list messages", page=501)
    assert "changed by hand<" in bob.until('data-page="501"')
    fresh.sql("DELETE FROM messages WHERE text LIKE 'many %%' AND id > %s", number + 500)
    ann.until("many 500<")
    assert 'data-page="251"' in bob.until("changed by hand<")
    fresh.sql("TRUNCATE messages")
    for client in clients:
        client.until("Nothing here yet")


def test_a_transaction_of_others_shows_up_when_it_is_committed(start, fresh):
    board = start()
    ann = board.client()
    with contextlib.closing(fresh.connect()) as other:
        other.autocommit = False
        other.cursor().execute(DJANGO_INSERT, ("Django", "rolled back"))
        other.rollback()
        other.cursor().execute(DJANGO_INSERT, ("Django", "committed"))
        add(ann, "meanwhile")
        assert "committed<" not in board.get("/").text
        other.commit()
    html = ann.until("committed<")
    assert "meanwhile<" in html and "rolled back" not in html


@pytest.mark.parametrize("kind", ["bigserial", "bigint GENERATED BY DEFAULT AS IDENTITY"])
def test_the_original_applications_table_is_taken_over(start, fresh, kind):
    fresh.sql(DJANGO_TABLE.format(id=kind))
    fresh.sql("INSERT INTO messages (author, text, created_at)"
              " SELECT 'Django', 'old ' || n, '2020-01-01'::timestamptz + n * interval '1 minute'"
              " FROM generate_series(1, 1000) AS n")
    before = fresh.sql("SELECT id, author, text, created_at FROM messages ORDER BY id")
    board = start(board_page_size=5)
    ann = board.client()
    assert "old 1000<" in ann.first
    assert fresh.sql("SELECT id, author, text, created_at FROM messages ORDER BY id") == before
    ann.send("list messages", page=200)
    html = ann.until("old 1<")
    number = before[0][0]
    ann.send("update message", id=number, author="Ann", text="no longer old")
    ann.until("no longer old<")
    ann.send("list messages", page=1)
    ann.until("old 1000<")

    #  The original application goes on, before the restart and after it
    ids = [number for (number, *_) in before]
    for _ in range(2):
        ((django,),) = fresh.sql(DJANGO_INSERT, "Django", f"new {len(ids)}")
        ann.until(f"new {len(ids)}<")
        ids.append(django)
        ids.append(add(ann, f"ours {len(ids)}"))
        fresh.sql("UPDATE messages SET author = 'D' WHERE id = %s", ids[-1])
        fresh.sql("DELETE FROM messages WHERE id = %s", ids.pop(0))
        assert board.stop() == 0
        board = start(board_page_size=5)
        ann = board.client()
    assert len(set(ids)) == len(ids)
    assert [number for (number,) in fresh.sql("SELECT id FROM messages ORDER BY id")] == sorted(ids)


def test_an_original_application_that_holds_the_table_is_waited_for(fresh, start):
    fresh.sql(DJANGO_TABLE.format(id="bigserial"))
    boards = []
    with contextlib.closing(fresh.connect()) as other:
        other.autocommit = False
        other.cursor().execute(DJANGO_INSERT, ("Django", "in a transaction"))
        starting = threading.Thread(target=lambda: boards.append(start()))
        starting.start()
        wait_for(lambda: fresh.sql("SELECT 1 FROM pg_locks WHERE NOT granted"), "the board to wait")
        other.commit()
    starting.join()
    assert "in a transaction<" in boards[0].client().first


def test_boards_that_start_at_once_on_an_empty_database_all_come_up(start, fresh):
    boards = []
    threads = [threading.Thread(target=lambda: boards.append(start())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(boards) == 3
    clients = [board.client() for board in boards]
    add(clients[0], "for all")
    for client in clients[1:]:
        client.until("for all<")


def test_writers_on_two_boards_do_not_lose_or_double(start, fresh):
    one, two = start(board_page_size=100), start(board_page_size=100)
    with Writers(one, "one", 3, most=16) as first, Writers(two, "two", 3, most=16) as second:
        pass
    for writers in first, second:
        assert writers.refused == {} and writers.close_codes == []
        assert len(writers.acknowledged) == 3 * 16
        writers.check(fresh.texts())
    for board in one, two:
        wait_for(lambda: board.get("/").text.count("<article") == 6 * 16, "all messages")


#  ------------------------------------------------------------------------
#  Refused


def test_a_schema_newer_than_the_program_is_refused(start, fresh):
    start().stop()
    fresh.sql("INSERT INTO breadboard_schema VALUES (1000)")
    sentence = refusal(fresh.url)
    assert "1000" in sentence and "run a newer breadboard" in sentence


def test_a_table_that_is_another_one_is_refused_and_left_alone(fresh):
    fresh.sql("CREATE TABLE messages (id bigint, body text)")
    fresh.sql("INSERT INTO messages VALUES (1, 'precious')")
    assert "messages" in refusal(fresh.url) or "column" in refusal(fresh.url)
    assert fresh.sql("SELECT * FROM messages") == [(1, "precious")]
    assert fresh.sql("SELECT to_regclass('breadboard_schema')") == [(None,)]


def test_a_read_only_database_is_refused_at_start(fresh):
    fresh.server.sql(f"ALTER DATABASE {fresh.name} SET default_transaction_read_only = on",
                     database="postgres")
    assert "read-only" in refusal(fresh.url)


#  ------------------------------------------------------------------------
#  In trouble


def test_a_read_only_database_is_read(start, fresh):
    board = start()
    ann = board.client()
    number = add(ann, "before")
    alter = f"ALTER DATABASE {fresh.name} SET default_transaction_read_only = "
    fresh.server.sql(alter + "on", database="postgres")
    end_backends(fresh)
    wait_for(lambda: board.get("/readyz").status == 200, "the board to be connected")
    for action in "add message", "update message", "delete message":
        ann.send(action, id=number, author="Ann", text="not now")
        assert ann.notice() == "unavailable"
    ann.send("list messages", page=1)
    assert "before<" in ann.html()
    ann.send("open edit page", id=number)
    ann.html(f"#message--{number}")
    assert "before<" in board.client().first
    fresh.server.sql(alter + "off", database="postgres")
    end_backends(fresh)
    wait_for(lambda: board.get("/readyz").status == 200, "the board to be connected")
    add(ann, "again")
    assert fresh.texts() == ["before", "again"]


def end_backends(fresh):
    """Ends the boards' connections, and waits until they have noticed."""
    pids = fresh.backends()
    assert pids
    for pid in pids:
        fresh.server.sql("SELECT pg_terminate_backend(%s)", pid, database="postgres")
    wait_for(lambda: fresh.backends() and not set(pids) & set(fresh.backends()), "new connections")


def test_connections_that_are_ended_lose_and_double_nothing(start, fresh):
    board = start()
    with Writers(board, "ended") as writers:
        for _ in range(8):
            writers.wait(40)
            for pid in fresh.backends():
                fresh.server.sql("SELECT pg_terminate_backend(%s)", pid, database="postgres")
        writers.wait(40)
    writers.check(fresh.texts())


def test_a_locked_row_stops_nobody_else(start, fresh):
    board = start()
    ann, bob = board.client(), board.client()
    number = add(ann, "locked")
    bob.until("locked<")
    with contextlib.closing(fresh.connect()) as other, Writers(board, "others") as writers:
        other.autocommit = False
        other.cursor().execute("SELECT * FROM messages WHERE id = %s FOR UPDATE", (number,))
        for action in "update message", "delete message":
            ann.send(action, id=number, author="Ann", text="in vain")
            wait_for_notice(ann, "busy")
            writers.wait(20)
        bob.send("open edit page", id=number)
        bob.until("locked", f"#message--{number}")
        assert board.get("/").status == 200
        other.rollback()
        while "at last" not in fresh.texts():  # who was told busy tries again, for a second here
            ann.send("update message", id=number, author="Ann", text="at last")
            time.sleep(0.1)
    assert writers.refused == {} and writers.close_codes == []
    writers.check(fresh.texts())


def test_commands_that_the_database_refuses_cost_no_other_its_turn(start, fresh):
    """Batches are sent ahead of the end of the one before; when that one fails, they are not to overtake it."""
    board = start(limits_messages_per_second=0)
    fresh.sql("ALTER TABLE messages ADD CHECK (text NOT LIKE 'forbidden%')")
    clients = [board.client(subprotocols=["breadboard.1"]) for _ in range(4)]
    texts = [f"forbidden {number}" if number % 50 == 7 else f"allowed {number}" for number in range(300)]
    for number, text in enumerate(texts):
        for client in clients:
            client.send_raw(json.dumps({"action": "add message", "ref": str(number),
                                        "data": {"author": "Ann", "text": text}}))
    for client in clients:
        replies = {}
        while len(replies) < len(texts):
            frame = client.frame()
            if "ref" in frame:
                assert frame["ref"] not in replies
                replies[frame["ref"]] = frame
        for number, text in enumerate(texts):
            answer = replies[str(number)]
            assert answer["status"] == ("error" if text.startswith("forbidden") else "ok"), answer
            assert answer["status"] == "ok" or answer["error"]["code"] == "invalid"
        ids = [replies[str(number)]["id"] for number, text in enumerate(texts)
               if text.startswith("allowed")]
        assert ids == sorted(ids)  # In order of arrival
        assert fresh.sql("SELECT text FROM messages WHERE id = ANY(%s) ORDER BY id", ids) == [
            (text,) for text in texts if text.startswith("allowed")]
    assert fresh.sql("SELECT count(*) FROM messages") == [(len(clients) * len(ids),)]


def wait_for_notice(client, code):
    """Skips the pages that others' messages bring."""
    assert f'data-code="{code}"' in client.until("data-code", "#notices")


@pytest.mark.parametrize("again", [None, DJANGO_TABLE.format(id="bigserial")], ids=["no table", "theirs"])
def test_a_table_that_is_dropped_is_made_again_by_the_next_start(start, fresh, again):
    board = start()
    ann = board.client()
    add(ann, "lost")
    fresh.sql("DROP TABLE messages")
    ann.send("add message", author="Ann", text="into nothing")
    assert ann.notice() == "unavailable"
    assert board.get("/healthz").status == 200
    assert "lost<" in board.client().first  # what is in memory is shown
    assert board.stop() == 0
    if again:
        fresh.sql(again)  # the original application's migration
    board = start()
    bob = board.client()
    assert "Nothing here yet" in bob.first
    add(bob, "found")
    ((django,),) = fresh.sql(DJANGO_INSERT, "Django", "by hand")
    bob.until("by hand<")


def test_a_running_board_survives_that_the_table_is_dropped_and_made_again(start, fresh):
    board = start()
    ann = board.client()
    add(ann, "lost")
    kept = dump(fresh)
    fresh.sql("DROP TABLE messages")
    ann.send("add message", author="Ann", text="into nothing")
    assert ann.notice() == "unavailable"
    fresh.sql(kept)
    ann.send("list messages", page=1)
    ann.until("lost<")
    add(ann, "found")
    fresh.sql(DJANGO_INSERT, "Django", "by hand")
    ann.until("by hand<")


def dump(fresh):
    """The table as SQL, triggers, rows and all."""
    ended = subprocess.run(
        [os.path.join(fresh.server.bin, "pg_dump"), "--inserts", "--table=messages", "--host",
         fresh.server.folder, "--username=board", fresh.name],
        capture_output=True, text=True, check=True)
    return "".join(line for line in ended.stdout.splitlines(True) if not line.startswith(("SET", "SELECT", "\\")))


#  ------------------------------------------------------------------------
#  Away: on a server that no other test uses


@pytest.fixture(scope="module")
def own_server():
    server = Database()
    yield server
    server.destroy()


@pytest.fixture
def own(own_server):
    return Fresh(own_server)


@pytest.fixture
def own_board(own):
    board = Board(database_url=own.url, limits_messages_per_second=0, board_page_size=PAGE_SIZE)
    yield board
    stop_all([board])


@contextlib.contextmanager
def paused(server):
    """All of the server's processes stand still."""
    pids = [server.pid, *children(server.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def children(parent):
    pids = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            if int(file.read().rpartition(")")[2].split()[1]) == parent:
                pids.append(int(pid))
    return pids


def test_without_its_database_the_board_shows_what_it_has(own, own_board, own_server):
    board = own_board
    ann = board.client()
    number = add(ann, "before")
    own_server.stop()
    wait_for(lambda: board.get("/readyz").status == 503, "the board to notice")
    assert board.get("/healthz").status == 200
    page = board.get("/")
    assert page.status == 200 and "before<" in page.text
    bob = board.client()
    assert "before<" in bob.first
    for client in ann, bob:
        for action in "add message", "update message", "delete message", "open edit page":
            client.send(action, id=number, author="Ann", text="in vain")
            assert client.notice() == "unavailable"
        client.send("list messages", page=1)
        assert "before<" in client.html()
    form = board.post("/messages", "author=Ann&message=in+vain")
    assert form.status == 503 and "in vain" in form.text

    own_server.start()
    began = time.monotonic()
    own.sql(DJANGO_INSERT, "Django", "meanwhile")
    for client in ann, bob:
        client.until("meanwhile<")
    add(bob, "again")
    assert time.monotonic() - began < 2.5
    assert board.get("/readyz").status == 200
    assert own.texts() == ["before", "meanwhile", "again"]


def test_writers_and_a_database_that_comes_and_goes(own, own_board, own_server):
    with Writers(own_board, "restarts") as writers:
        for mode in "fast", "immediate":
            writers.wait(50)
            own_server.stop(mode)
            own_server.start()
        writers.wait(50)
    writers.check(own.texts())


def test_a_database_that_stands_still_for_a_while_loses_nothing(own, own_board, own_server):
    with Writers(own_board, "paused") as writers:
        writers.wait(50)
        with paused(own_server):
            time.sleep(3)
            assert own_board.client().first  # from memory
        writers.wait(50)
    assert writers.refused == {} and writers.close_codes == []
    writers.check(own.texts())


#  ------------------------------------------------------------------------
#  In doubt: the connection breaks between a commit and the news of it


@pytest.fixture
def proxy(server):
    proxy = Proxy(os.path.join(server.folder, f".s.PGSQL.{server.port}"))
    yield proxy
    proxy.close()


@pytest.fixture
def far_board(proxy, fresh, start):
    return start(database_url=f"host=127.0.0.1 port={proxy.port} user=board dbname={fresh.name}")


def test_a_commit_whose_news_is_lost_is_done_once(proxy, far_board, fresh):
    with Writers(far_board, "once") as writers:
        for _ in range(5):
            writers.wait(30)
            proxy.cut_at_answer(PATIENCE)
        writers.wait(30)
    assert writers.close_codes == []  # each one could be settled
    writers.check(fresh.texts())


def test_changes_whose_news_is_lost_are_done_once(proxy, far_board, fresh):
    ann = far_board.client()
    number = add(ann, "to be changed")
    for action, text in ("update message", "changed"), ("delete message", "Nothing here yet"):
        sending = threading.Thread(target=proxy.cut_at_answer, args=(PATIENCE,))
        sending.start()
        ann.send(action, id=number, author="Ann", text="changed")
        sending.join()
        frames = [ann.html()]
        while text not in frames[-1]:
            frames.append(ann.html())  # never a notice that it was not found
    ann.send("list messages", page=1)
    assert "Nothing here yet" in ann.html()
    assert fresh.texts() == []


def test_a_connection_that_breaks_at_any_moment_loses_and_doubles_nothing(proxy, far_board, fresh):
    with Writers(far_board, "cut") as writers:
        for count in range(20, 30):
            writers.wait(count)
            proxy.cut()
        writers.wait(30)
    writers.check(fresh.texts())


def test_a_backend_that_lives_on_does_not_commit_behind_the_boards_back(proxy, far_board, fresh):
    """It stands still with the commands in its socket while the board is on a new connection."""
    with Writers(far_board, "lives on") as writers:
        for _ in range(2):
            writers.wait(30)
            (backend,) = fresh.backends()
            os.kill(backend, signal.SIGSTOP)
            try:
                wait_for(lambda: has_work(fresh, backend), "commands to have been sent")
                proxy.cut()
                wait_for(lambda: len(fresh.backends()) > 1, "a new connection")
            finally:
                os.kill(backend, signal.SIGCONT)
        writers.wait(30)
    assert writers.close_codes == []
    writers.check(fresh.texts())


def has_work(fresh, backend):
    """Whether the backend is at work, or has bytes of the board's in its socket."""
    if fresh.sql("SELECT 1 FROM pg_stat_activity WHERE pid = %s AND state = 'active'", backend):
        return True
    listed = subprocess.run(["ss", "-xpn"], capture_output=True, text=True, check=True).stdout
    return any(f"pid={backend}," in line and int(line.split()[2]) > 0
               for line in listed.splitlines())


def test_what_cannot_be_settled_in_time_closes_its_connection(proxy, far_board, fresh):
    bystander = far_board.client()
    ann = far_board.client()
    proxy.refuses = True
    ann.send("add message", author="Ann", text="doubtful")
    proxy.cut_at_answer(PATIENCE)
    bob = far_board.client()
    bob.send("add message", author="Bob", text="refused")
    assert bob.notice() == "unavailable"
    assert ann.closed() == (1013, "not known whether saved; spread=1")
    proxy.refuses = False
    assert "doubtful<" in bystander.html()  # here it was committed
    add(bystander, "afterwards")
    assert fresh.texts() == ["doubtful", "afterwards"]
