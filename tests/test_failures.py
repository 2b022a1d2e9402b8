"""What is acknowledged is there, once, whatever fails; and all comes back by itself.

The failures that take a server's life are tried on a server of their own; test_database.py has the plainer ones.
"""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time

import pytest

import kills
import locks
from asker import Asker
from board import BINARY, PATIENCE, READY, Board, Client, Fresh, paused, wait_for
from conftest import starter
from keepers import ROWS, Keepers
from proxy import Proxy

RETURN = 5  # seconds within which all is well again once the cause has gone: 2, and the rest for a busy machine


@pytest.fixture
def fresh(own_server):
    return Fresh(own_server)


@pytest.fixture
def start(fresh):
    with starter(database_url=fresh.url, limits_messages_per_second=0) as start:
        yield start


@pytest.fixture
def proxy(own_server):
    proxy = Proxy(os.path.join(own_server.folder, f".s.PGSQL.{own_server.port}"))
    yield proxy
    proxy.close()


def far(proxy, fresh):
    return f"host=127.0.0.1 port={proxy.port} user=board dbname={fresh.name}"


def writes_return(asker):
    """Writes until one is acknowledged; returns how long that took."""
    began = time.monotonic()
    while asker.ask("add message", author="Ann", text="again")[0] != "ok":
        assert time.monotonic() - began < PATIENCE
        time.sleep(0.02)
    return time.monotonic() - began


def check(keepers, fresh):
    keepers.stop()
    found = keepers.check(fresh.sql(ROWS + " WHERE author LIKE 'keeper %'"))
    assert not any(found.values()), found


def is_at_work(board, asker):
    """The page comes from memory, saving is refused, and the board says so."""
    page = board.get("/")
    assert page.status == 200 and "<article" in page.text
    assert "<article" in board.client().first
    code, _ = asker.ask("add message", author="Ann", text="in vain")
    assert code == "unavailable"
    assert board.get("/readyz").status == 503
    assert board.get("/healthz").status == 200
    assert 'id="away"' in page.text


def begin(board):
    """An asker, and a message that everybody sees."""
    asker = Asker(board)
    code, _ = asker.ask("add message", author="Ann", text="before")
    assert code == "ok" and 'id="away"' not in board.get("/").text
    return asker


def test_a_server_that_is_killed(start, fresh, own_server):
    board = start()
    asker = begin(board)
    with Keepers(board.address) as keepers:
        keepers.wait(100)
        own_server.stop("immediate")
        wait_for(lambda: board.get("/readyz").status == 503, "the board to notice")
        is_at_work(board, asker)
        own_server.start()
        assert writes_return(asker) < RETURN
        keepers.wait(100)
    check(keepers, fresh)
    assert "in vain" not in str(fresh.sql("SELECT text FROM messages"))


def test_a_server_that_stands_still_for_long(start, fresh, own_server):
    """Until then nobody knows whether it will answer; what was on its way is in doubt, the rest is refused."""
    board = start(database_statement_timeout_ms=1000)
    asker = begin(board)
    with Keepers(board.address) as keepers:
        keepers.wait(100)
        with paused(own_server):
            board.wait_logged("database: no answer in 2000 ms")
            is_at_work(board, asker)
            board.wait_logged("database: gave up on")
        assert writes_return(asker) < RETURN
        keepers.wait(100)
    assert set(keepers.close_codes) == {1013}
    check(keepers, fresh)


def test_a_page_in_memory_does_not_wait_for_postgres(start, fresh, own_server):
    """Who only reads sees the board as it was before what is being written, though that take long."""
    board = start()
    asker = begin(board)
    backend = fresh.backend()
    with paused(own_server):
        ref = asker.send("add message", author="Ann", text="meanwhile")
        wait_for(lambda: has_work(backend), "the add to be sent")
        for path in "/", "/?page=9":
            page = board.get(path)
            assert page.status == 200 and "before" in page.text and "meanwhile" not in page.text
        assert "before" in board.client().first
    assert asker.reply(ref)["status"] == "ok"
    assert "meanwhile" in board.get("/").text


def test_large_messages_of_many_do_not_wait_for_each_other(start, fresh):
    """More is sent ahead than the socket takes; libpq reads then, too, and no event tells of what it has read."""
    board = start(board_text_max=10000, limits_max_message_bytes=200000, board_page_size=1)
    with Keepers(board.address, count=16, padding=chr(0x1D54F) * 9000) as keepers:
        keepers.wait(1000, 4 * PATIENCE)
    check(keepers, fresh)
    assert "no answer" not in board.logged()


def test_a_board_that_stood_still_itself_does_not_blame_the_server(start, fresh, own_server):
    board = start(database_statement_timeout_ms=3000)
    asker = begin(board)
    backend = fresh.backend()
    try:
        with paused(own_server):
            ref = asker.send("add message", author="Ann", text="meanwhile")
            wait_for(lambda: has_work(backend), "the add to be sent")
            board.signal(signal.SIGSTOP)
        wait_for(lambda: ("meanwhile",) in fresh.sql("SELECT text FROM messages"), "the commit")
        time.sleep(5)  # longer than the server may be silent
    finally:
        board.signal(signal.SIGCONT)
    assert asker.reply(ref)["status"] == "ok"
    assert "no answer" not in board.logged() and fresh.backends() == [backend]


def test_a_server_without_a_connection_to_spare(start, fresh, own_server):
    own_server.sql("CREATE ROLE few LOGIN IN ROLE pg_read_all_stats", database="postgres")
    own_server.sql(f"ALTER DATABASE {fresh.name} OWNER TO few", database="postgres")
    board = start(database_url=fresh.url.replace("user=board", "user=few"))
    asker = begin(board)
    with Keepers(board.address) as keepers:
        keepers.wait(100)
        own_server.sql("ALTER ROLE few CONNECTION LIMIT 0", database="postgres")
        fresh.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'few'")
        wait_for(lambda: "too many connections" in str(asker.ask("delete message", id=0)) or
                 board.get("/readyz").status == 503, "the board to notice")
        is_at_work(board, asker)
        own_server.sql("ALTER ROLE few CONNECTION LIMIT -1", database="postgres")
        assert writes_return(asker) < RETURN
        keepers.wait(100)
    check(keepers, fresh)


def test_a_server_whose_disk_is_full(start, fresh, own_server):
    """The table lies on a disk of 4 MB; messages are still read, deleted ones make no room."""
    disk = os.path.join(own_server.folder, "disk")
    os.mkdir(disk)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=777", "none", disk], check=True)
    try:
        board = start()
        asker = begin(board)
        space = os.path.join(disk, "space")
        os.mkdir(space)
        subprocess.run(["chown", "postgres", space], check=True)
        own_server.sql(f"CREATE TABLESPACE small LOCATION '{space}'", database="postgres")
        fresh.sql("ALTER TABLE messages SET TABLESPACE small")
        with open(os.path.join(disk, "filler"), "wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(b"x" * 4096)
        with Keepers(board.address) as keepers:
            wait_for(lambda: keepers.refusals > 50, "the disk to be full")
            assert board.get("/").status == 200
            asker.ask("list messages", page=2)
            os.unlink(os.path.join(disk, "filler"))
            assert writes_return(asker) < RETURN
            keepers.wait(100)
        check(keepers, fresh)
        assert board.stop() == 0
        own_server.sql(f"DROP DATABASE {fresh.name}", database="postgres")
        own_server.sql("DROP TABLESPACE small", database="postgres")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture
def hole(own_server, fresh):
    """A network namespace from which the server answers, until it swallows everything; gives its url, and a
    function that opens the hole or closes it."""
    #  Addresses of its own, as the wire of a run that was killed, or of one beside this, may have others
    net = f"10.213.{os.getpid() % 250}"
    name, near, distant = f"bb{os.getpid()}", f"{net}.1", f"{net}.2"
    relay = ("import sys, time; sys.path.insert(0, sys.argv[1]); from proxy import Proxy;"
             f"p = Proxy(sys.argv[2], '{distant}'); print(p.port, flush=True); time.sleep(1e6)")

    def run(*words):
        subprocess.run(words, check=True)

    run("ip", "netns", "add", name)
    try:
        run("ip", "link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        run("ip", "addr", "add", f"{near}/30", "dev", f"{name}a")
        run("ip", "link", "set", f"{name}a", "up")
        run("ip", "-n", name, "addr", "add", f"{distant}/30", "dev", f"{name}b")
        run("ip", "-n", name, "link", "set", f"{name}b", "up")
        with subprocess.Popen(
                ["ip", "netns", "exec", name, "/usr/bin/python3", "-c", relay, os.path.dirname(__file__),
                 os.path.join(own_server.folder, f".s.PGSQL.{own_server.port}")],
                stdout=subprocess.PIPE, text=True) as process:
            port = int(process.stdout.readline())

            def swallow(on):
                run("ip", "-n", name, "route", "add" if on else "del", "blackhole", f"{near}/32")

            yield f"host={distant} port={port} user=board dbname={fresh.name}", swallow
            process.kill()
    finally:
        #  The other network lives on for as long as a connection in it does, and its end of the wire with it
        subprocess.run(["ip", "link", "del", f"{name}a"], check=False)
        run("ip", "netns", "del", name)


def test_a_network_that_swallows_everything(start, fresh, hole):
    url, swallow = hole
    board = start(database_url=url)
    asker = begin(board)
    with Keepers(board.address) as keepers:
        for moment in 0.3, 2.7, 6.1:  # later than the last: the board is on new connections that hang, too
            keepers.wait(100)
            swallow(True)
            wait_for(lambda: board.get("/readyz").status == 503, "the board to notice")
            time.sleep(moment)
            if moment > 2:
                #  Where only an answer was lost, TCP waits for nothing, and the board for longer
                wait_for(lambda: board.metric("database_up") == 0, "the connection to be given up")
                is_at_work(board, asker)
            swallow(False)
            assert writes_return(asker) < RETURN
        keepers.wait(100)
    check(keepers, fresh)


def test_an_old_backend_that_does_not_end_is_waited_for(start, fresh, proxy):
    """It may still commit; so nothing is written while it lives, however often it was told to end."""
    board = start(database_url=far(proxy, fresh))
    ann, bob = Asker(board), Asker(board)
    _, frame = ann.ask("add message", author="Ann", text="first")
    update = {"id": frame["id"], "author": "Bob", "text": "new"}
    backend = fresh.backend()
    os.kill(backend, signal.SIGSTOP)
    codes = set()
    enders = set()
    try:
        ann.send("update message", id=frame["id"], author="Ann", text="old")
        wait_for(lambda: has_work(backend), "the update to be sent")
        proxy.cut()

        def told_to_end_three_times():
            codes.add(bob.ask("update message", **update)[0])
            enders.update(pid for (pid,) in fresh.sql(
                "SELECT pid FROM pg_stat_activity WHERE query LIKE %s AND state = 'active'",
                "SELECT pg_terminate_backend(pid, 4000)%"))
            return "ok" in codes or len(enders) > 2

        wait_for(told_to_end_three_times, "a third try to end it")
    finally:
        os.kill(backend, signal.SIGCONT)
    assert codes == {"unavailable"}
    wait_for(lambda: bob.ask("update message", **update)[0] == "ok", "the board to be connected")
    assert not fresh.sql("SELECT 1 FROM pg_stat_activity WHERE pid = %s", backend)
    assert fresh.sql("SELECT text FROM messages") == [("new",)]


def has_work(backend):
    listed = subprocess.run(["ss", "-xpn"], capture_output=True, text=True, check=True).stdout
    return any(f"pid={backend}," in line and int(line.split()[2]) > 0 for line in listed.splitlines())


def test_an_end_while_a_read_hangs_and_a_write_was_sent_ahead(start, fresh):
    board = start(database_lock_timeout_ms=60000, database_statement_timeout_ms=60000)
    asker = begin(board)
    with contextlib.closing(fresh.connect()) as other:
        other.autocommit = False
        other.cursor().execute("LOCK TABLE messages")
        fresh.sql("SELECT pg_notify('breadboard', 'somebody 1 INSERT many')")
        wait_for(lambda: fresh.sql("SELECT 1 FROM pg_locks WHERE NOT granted"), "a read that waits")
        asker.send("add message", author="Ann", text="ahead")
        asker.client.ping()
        began = time.monotonic()
        board.signal(signal.SIGTERM)
        assert board.wait() == 0
        assert time.monotonic() - began < 5
    assert fresh.sql("SELECT text FROM messages") == [("before",)]


def test_others_who_write_while_pages_are_read(start, fresh):
    """Readers past page 1, reloads and other people's writes, all at once."""
    board = start()
    with Keepers(board.address) as keepers:
        keepers.wait(100)
        readers = [board.client() for _ in range(5)]
        for page, reader in enumerate(readers, 2):
            reader.send("list messages", page=page)
        for count in range(100):
            board.signal(signal.SIGHUP)
            fresh.sql("INSERT INTO messages (author, text, created_at) VALUES ('by hand', %s, now())", str(count))
            assert board.process.poll() is None, board.logged()
        keepers.wait(100)
    check(keepers, fresh)
    for reader in readers:
        reader.ping()


def test_a_row_that_stays_locked(start, fresh):
    """The short form of make locks."""
    refusals, written = locks.run(start(), fresh, seconds=5)
    assert refusals >= 3 and written > refusals


def test_what_is_sent_ahead_of_a_read_is_done_once(own_server, start, fresh):
    """Page 1 is to be read again while a form is on its way, and writes come behind that."""
    asker = Asker(start())
    first, second = (asker.ask("add message", author="Ann", text="old")[1]["id"] for _ in range(2))
    for turn in range(5):
        assert asker.ask("add message", author="Ann", text=f"page 1 grows by {turn}")[0] == "ok"
        with paused(own_server):
            form = asker.send("open edit page", id=second)
            time.sleep(0.5)  # by then it is to be read
            refs = [asker.send("update message", id=second, author="Ann", text=f"new {turn}"),
                    asker.send("add message", author="Ann", text=f"once {turn}")]
            if turn == 4:
                refs.append(asker.send("delete message", id=first))
            time.sleep(0.1)
        assert f"{f'new {turn - 1}' if turn else 'old'}</textarea>" in asker.reply(form)["html"]
        for ref in refs:
            answer = asker.reply(ref)
            assert answer["status"] == "ok", answer
    assert fresh.sql("SELECT text, version FROM messages WHERE id = %s", second) == [("new 4", 6)]
    assert sorted(text for text in fresh.texts() if "once" in text) == [f"once {turn}" for turn in range(5)]


def test_kills(request):
    """The short form of make kills."""
    killed, found = kills.run(board=4, postgres=3)
    assert not any(found.values()), found
    assert max(killed.times["board"]) < RETURN and len(killed.times) == 4


def test_ends_under_load_lose_nothing(fresh):
    """The board is ended in order, and started again, while keepers write."""
    port = kills.free_port()
    settings = {"http_listen": f"127.0.0.1:{port}", "database_url": fresh.url, "limits_messages_per_second": 0}
    board = Board(**settings)
    with Keepers(board.address) as keepers:
        for _ in range(5):
            keepers.wait(200)
            began = time.monotonic()
            board.signal(signal.SIGTERM)
            assert board.wait() == 0, board.logged()
            assert time.monotonic() - began < 5
            board = Board(**settings)
        keepers.wait(200)
    check(keepers, fresh)
    #  None: it was not open yet. 1013: PostgreSQL did not commit within the second that the board waits
    assert set(keepers.close_codes) <= {1001, 1013, None}, keepers.close_codes
    assert board.stop() == 0


def test_without_descriptors_it_goes_on(start, fresh):
    board = start(http_threads=2)
    asker = begin(board)
    pid = board.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        assert asker.ask("add message", author="Ann", text="without a new descriptor")[0] == "ok"
        for backend in fresh.backends():
            fresh.sql("SELECT pg_terminate_backend(%s)", backend)
        wait_for(lambda: asker.ask("open edit page", id=1)[0] == "unavailable",
                 "the board to notice")
        time.sleep(1)  # it tries to connect, and cannot
        assert asker.ask("add message", author="Ann", text="in vain")[0] == "unavailable"
        waiting = socket.create_connection(("127.0.0.1", board.port), PATIENCE)
        waiting.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    assert writes_return(asker) < RETURN
    with waiting:
        assert waiting.recv(12) == b"HTTP/1.1 200"
    assert "again<" in board.client().first


def test_a_full_disk_for_logs_costs_nothing_but_the_log(fresh):
    with open("/dev/full", "w", encoding="ascii") as full, subprocess.Popen(
            [BINARY, "-s", "http.listen=127.0.0.1:0", "-s", f"database.url={fresh.url}", "-s", "log.level=debug"],
            stdout=subprocess.PIPE, stderr=full, text=True) as process:
        ready = READY.fullmatch(process.stdout.readline())
        client = Client(f"127.0.0.1:{ready.group(2)}")
        client.html()
        client.send("add message", author="Ann", text="not logged")
        client.until("not logged<")
        for backend in fresh.backends():
            fresh.sql("SELECT pg_terminate_backend(%s)", backend)
        client.send("list messages", page=1)
        client.until("not logged<")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
