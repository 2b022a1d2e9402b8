"""The private PostgreSQL: what a board that is given no database.url makes, finds, stops and mends."""

import contextlib
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time

import psycopg2
import pytest

from board import BINARY, PATIENCE, Board, wait_for
from conftest import starter
from raw import Raw, request, websocket
from writers import PAGE_SIZE, Writers


class State:
    """A folder for database.state_dir, and what can be seen in it from outside."""

    def __init__(self, folder):
        self.folder = folder

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def connect(self, role="postgres"):
        return psycopg2.connect(host=self.path("socket"), user=role, dbname="breadboard")

    def sql(self, statement):
        with contextlib.closing(self.connect()) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else None

    def texts(self):
        return [text for (text,) in self.sql("SELECT text FROM messages ORDER BY id")]

    @property
    def pid(self):
        with open(self.path("cluster", "postmaster.pid"), encoding="ascii") as file:
            return int(file.readline())

    def processes(self):
        """The processes that work in the cluster's folder; PostgreSQL's all do."""
        cluster = os.path.realpath(self.path("cluster"))
        return [pid for pid in filter(str.isdigit, os.listdir("/proc"))
                if working_directory(pid) == cluster]


def working_directory(pid):
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/cwd")
    return None


@pytest.fixture(scope="module")
def home():
    """A folder that the server's user may enter, whoever that is."""
    folder = tempfile.mkdtemp(prefix="breadboard-state-")
    os.chmod(folder, 0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def made(home):
    """A state that a board has made; what it said doing so is in made.logged."""
    state = State(os.path.join(home, "a new", "state"))
    board = Board(database_state_dir=state.folder)
    client = board.client()
    client.send("add message", author="Ann", text="the first")
    client.until("the first<")
    assert board.stop() == 0
    state.logged = board.logged()
    yield state
    assert state.processes() == []


@pytest.fixture
def state(made):
    """The state, without a board or a server on it."""
    yield made
    for pid in made.processes():  # a test that failed may leave some
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGQUIT)
    wait_for(lambda: not made.processes(), "PostgreSQL to end")


@pytest.fixture
def start(state):
    with starter(database_state_dir=state.folder, limits_messages_per_second=0, board_page_size=PAGE_SIZE) as start:
        yield start


def command(folder):
    return [BINARY, "-s", "http.listen=127.0.0.1:0", "-s", f"database.state_dir={folder}"]


def refusal(folder, environment=None, prefix=()):
    """The sentence with which the board refuses to start; its log lines are left out."""
    ended = subprocess.run([*prefix, *command(folder)], capture_output=True, text=True,
                           timeout=PATIENCE, env={**os.environ, **(environment or {})}, check=False)
    assert ended.returncode == 1 and ended.stdout == "", ended
    lines = [line for line in ended.stderr.splitlines() if not re.match(r"\d{4}-\d\d-\d\dT", line)]
    assert len(lines) == 1, ended.stderr
    return lines[0]


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def listening_sockets():
    """The inodes of the TCP sockets that listen on this machine."""
    inodes = set()
    for table in "/proc/net/tcp", "/proc/net/tcp6":
        with contextlib.suppress(FileNotFoundError), open(table, encoding="ascii") as lines:
            fields = [line.split() for line in list(lines)[1:]]
            inodes |= {field[9] for field in fields if field[3] == "0A"}
    return inodes


def open_sockets(pid):
    links = [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]
    return {link[8:-1] for link in links if link.startswith("socket:[")}


#  ------------------------------------------------------------------------
#  What it makes


def test_a_cluster_is_made_and_its_server_stopped(made):
    assert "making a cluster in" in made.logged
    assert made.processes() == []
    assert not os.path.exists(made.path("cluster", "postmaster.pid"))
    assert not os.path.exists(made.path("cluster.new"))
    with open(made.path("cluster", "PG_VERSION"), encoding="ascii") as version:
        assert int(version.read()) >= 14


def test_only_its_owner_can_look_inside(start, state):
    start()
    assert mode(state.folder) == (0o711 if os.geteuid() == 0 else 0o700)
    for name in "cluster", "socket":
        assert mode(state.path(name)) == 0o700
    for name in "lock", "postgres.log":
        assert mode(state.path(name)) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_nobody_else_gets_in(start, state):
    """Neither by the socket nor by TCP, whatever role is named; the owner does."""
    start()
    client = ["psql", "-X", "-w", "-h", state.path("socket"), "-d", "breadboard", "-c", "SELECT 1"]
    for role in "postgres", "nobody", "breadboard":
        ended = subprocess.run(["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups",
                                *client, "-U", role], capture_output=True, text=True, cwd="/",
                               timeout=PATIENCE, check=False)
        assert ended.returncode == 2 and "Permission denied" in ended.stderr, ended
    assert state.sql("SHOW listen_addresses") == [("",)]
    assert state.sql("SHOW unix_socket_permissions") == [("0700",)]


def test_the_server_is_as_it_should_be(start, state):
    start()
    for setting, value in [("server_encoding", "UTF8"), ("data_checksums", "on"), ("fsync", "on"),
                           ("full_page_writes", "on"), ("synchronous_commit", "on"),
                           ("listen_addresses", ""), ("unix_socket_permissions", "0700")]:
        assert state.sql(f"SHOW {setting}") == [(value,)], setting
    assert not open_sockets(state.pid) & listening_sockets()
    assert state.sql("SELECT DISTINCT rolname, rolsuper FROM pg_stat_activity JOIN pg_roles ON pg_roles.oid = usesysid"
                     " WHERE application_name = 'breadboard'") == [("breadboard", False)]


def test_what_was_written_is_there_after_a_restart(start, state):
    board = start()
    client = board.client()
    assert "the first<" in client.first
    client.send("add message", author="Ann", text="the second")
    client.until("the second<")
    assert board.stop() == 0
    assert state.processes() == []
    assert "the second<" in start().client().first


def test_the_users_own_postgresql_settings_do_not_matter(start):
    board = start(environment={"PGHOST": "/nowhere", "PGHOSTADDR": "192.0.2.1", "PGPORT": "1",
                               "PGUSER": "nobody", "PGDATABASE": "nothing", "PGDATA": "/nowhere",
                               "PGOPTIONS": "-c search_path=nowhere", "PGSSLMODE": "verify-full",
                               "PGTARGETSESSIONATTRS": "standby", "PGCHANNELBINDING": "require",
                               "PGSERVICE": "nothing", "LC_ALL": "C.UTF-8"})
    assert "the first<" in board.client().first


#  ------------------------------------------------------------------------
#  What it finds


def test_a_board_that_was_killed_loses_nothing(start, state):
    board = start()
    writers = Writers(board, "killed")
    writers.wait(200)
    server = state.pid
    board.kill()
    writers.stop()
    assert state.pid == server  # it goes on without the board

    board = start()
    assert f"found the server that an earlier run left, process {server}" in board.logged()
    assert state.pid == server
    writers.check(state.texts())
    with Writers(board, "afterwards") as more:
        more.wait(20)
    more.check(state.texts())
    assert board.stop() == 0
    assert state.processes() == []


def test_a_board_and_a_server_that_were_killed_lose_nothing(start, state):
    board = start()
    writers = Writers(board, "both killed")
    writers.wait(200)
    os.kill(state.pid, signal.SIGKILL)
    board.kill()
    writers.stop()
    start()
    writers.check(state.texts())


def test_a_server_that_was_killed_comes_back(start, state):
    board = start()
    reader = board.client()

    def runs_anew(killed):
        with contextlib.suppress(OSError, ValueError):  # while the file is written
            return state.pid != killed

    with Writers(board, "came back") as writers:
        for _ in range(2):
            writers.wait(100)
            killed = state.pid
            os.kill(killed, signal.SIGKILL)  # its backends may write on for a while
            wait_for(lambda: runs_anew(killed), "a new server")
            writers.wait(100)
    board.wait_logged("the server has died; starting it again")
    writers.check(state.texts())
    assert board.get("/readyz").status == 200
    reader.send("add message", author="Ann", text="still connected")
    reader.until("still connected<")
    assert board.stop() == 0
    assert state.processes() == []


def test_who_holds_up_the_end_holds_it_up_for_5_s_together(start, state):
    """A request that stops halfway, a client that does not answer a close frame, a server that cannot checkpoint."""
    board = start()
    ((checkpointer,),) = state.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
    with Raw(board.address) as half, websocket(board.address):
        half.send(request("POST", "/messages", ("Host", "localhost"), ("Content-Length", "100"),
                          ("Content-Type", "application/x-www-form-urlencoded"), body="author="))
        wait_for(lambda: board.metric("connections") == 1, "the client")
        os.kill(checkpointer, signal.SIGSTOP)
        try:
            began = time.monotonic()
            board.signal(signal.SIGTERM)
            assert board.wait() == 0
            assert time.monotonic() - began < 5
        finally:
            os.kill(checkpointer, signal.SIGCONT)
    wait_for(lambda: not state.processes(), "the server's end")
    start()


def test_a_second_board_is_refused(start, state):
    board = start()
    sentence = refusal(state.folder)
    assert f"another board (process {board.process.pid}) holds {state.folder}" in sentence
    assert "database.state_dir" in sentence
    client = board.client()
    client.send("add message", author="Ann", text="undisturbed")
    client.until("undisturbed<")


#  ------------------------------------------------------------------------
#  What it refuses


@contextlib.contextmanager
def replaced(path, text):
    with open(path, encoding="utf-8") as file:
        before = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    try:
        yield
    finally:
        with open(path, "w", encoding="utf-8") as file:
            file.write(before)


def test_the_cluster_of_another_version_is_refused(start, state):
    with replaced(state.path("cluster", "PG_VERSION"), "9\n"):
        sentence = refusal(state.folder)
        assert "made by PostgreSQL 9," in sentence and "postgresql-9" in sentence
    with replaced(state.path("cluster", "PG_VERSION"), "x\n"):
        assert "is no PostgreSQL cluster" in refusal(state.folder)
    start()
    assert state.texts()[0] == "the first"


def test_a_path_too_long_for_a_socket_is_refused(home):
    sentence = refusal(os.path.join(home, "x" * 100))
    assert "database.state_dir a path shorter by" in sentence


def test_folders_that_cannot_be_used_are_refused(home):
    file = os.path.join(home, "file")
    with open(file, "w", encoding="utf-8"):
        pass
    assert "is not a folder" in refusal(file)
    assert "could not make the folder" in refusal("/proc/breadboard")
    assert "has a comma" in refusal(os.path.join(home, "a,b"))
    assert "everybody may write" in refusal(tempfile.gettempdir())


def test_programs_that_fail_are_quoted(home):
    """The search path goes first, so a server that fails can be put there."""
    folder = os.path.join(home, "bin")
    os.mkdir(folder)
    for name, script in [("postgres", "echo 'postgres (PostgreSQL) 99.1'"),
                         ("initdb", "echo 'initdb: error: no such luck' >&2; exit 1")]:
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\n{script}\n")
        os.chmod(os.path.join(folder, name), 0o755)
    state = State(os.path.join(home, "luckless"))
    sentence = refusal(state.folder, {"PATH": f"{folder}:{os.environ['PATH']}"})
    assert "no such luck" in sentence and state.path("postgres.log") in sentence
    assert not os.path.exists(state.path("cluster"))


def test_missing_programs_are_named(home):
    """Without a server on the machine: its folder is hidden, from this board alone."""
    prefix = ["unshare", "--mount", "sh", "-c",
              'mount -t tmpfs none /usr/lib/postgresql && exec "$@"', "sh"]
    probe = subprocess.run([*prefix, "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip("hiding a folder from one process takes root's rights here")
    sentence = refusal(os.path.join(home, "bare"), {"PATH": "/usr/bin:/bin"}, prefix)
    assert "install the package postgresql" in sentence and "database.url" in sentence


def test_sigterm_ends_a_start_that_makes_a_cluster(home):
    state = State(os.path.join(home, "interrupted"))
    with subprocess.Popen(command(state.folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:
        wait_for(lambda: os.path.exists(state.path("cluster.new", "base")), "initdb to be at work")
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: os.path.exists(state.path("cluster")) or process.poll() is not None,
                 "initdb to be done")  # It is waited for
        began = time.monotonic()
        stdout, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stdout) == (0, ""), stderr
    assert time.monotonic() - began < 5
    assert state.processes() == []


def test_a_board_that_was_killed_while_it_made_a_cluster_leaves_no_trace(home):
    state = State(os.path.join(home, "cut short"))
    with subprocess.Popen(command(state.folder), stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: os.path.exists(state.path("cluster.new", "base")), "initdb to be at work")
        process.kill()
    assert not os.path.exists(state.path("cluster"))
    board = Board(database_state_dir=state.folder)
    board.client()
    assert board.stop() == 0
    assert not os.path.exists(state.path("cluster.new"))
    assert state.processes() == []
