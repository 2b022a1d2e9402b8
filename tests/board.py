"""The board as its users have it: the real binary, a real PostgreSQL, a real WebSocket client.

The environment variable BREADBOARD names the binary under test; without it that is ./breadboard.
"""

import asyncio
import contextlib
import glob
import http.client
import itertools
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time

import psycopg2
import websockets

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BINARY = os.path.abspath(os.environ.get("BREADBOARD", os.path.join(ROOT, "breadboard")))
PATH = "/ws/social-network/"
READY = re.compile(r"breadboard \S+ ready on http://([\d.]+):(\d+)/\n")
PATIENCE = 30  # seconds after which something that must happen counts as not happening
SILENCE = 0.4  # seconds without a frame that count as no frame

_loop = asyncio.new_event_loop()
threading.Thread(target=_loop.run_forever, daemon=True).start()


def _wait(coroutine):
    return asyncio.run_coroutine_threadsafe(coroutine, _loop).result(PATIENCE + 5)


class Client:
    """A WebSocket client without surprises: what it receives stays in order until it is asked for."""

    def __init__(self, address, path=PATH, **options):
        options.setdefault("max_size", None)
        options.setdefault("max_queue", None)
        self.presences = []
        self.socket = _wait(self._connect(f"ws://{address}{path}", options))

    @staticmethod
    async def _connect(uri, options):
        return await websockets.connect(uri, **options)

    def send(self, action, **data):
        self.send_raw(json.dumps({"action": action, "data": data}))

    def send_raw(self, text):
        """Text goes as it is; bytes go as binary data; a list as fragments."""
        _wait(self.socket.send(text))

    def ping(self):
        """Waits until the server has read all that was sent."""

        async def ping():
            await asyncio.wait_for(await self.socket.ping(), PATIENCE)

        _wait(ping())

    def frame(self, patience=PATIENCE):
        """The next frame; an assertion fails when none comes in time. What tells how many are here, at
        any moment, goes to self.presences."""
        deadline = time.monotonic() + patience
        while True:
            try:
                left = max(deadline - time.monotonic(), 0)
                text = _wait(asyncio.wait_for(self.socket.recv(), left))
            except asyncio.TimeoutError:
                raise AssertionError(f"no frame in {patience} s") from None
            frame = json.loads(text)
            if frame.get("selector") != "#presence":
                return frame
            self.presences.append(frame)

    def frames(self, silence=SILENCE):
        """All frames until nothing has come for a while."""
        frames = []
        with contextlib.suppress(AssertionError):
            while True:
                frames.append(self.frame(silence))
        return frames

    def html(self, selector="#messages__list"):
        """The next frame's HTML; it must be for the selector."""
        frame = self.frame()
        assert frame["selector"] == selector, frame
        return frame["html"]

    def until(self, text, selector="#messages__list"):
        """The HTML of the first frame for the selector that has the text in it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            frame = self.frame()
            if frame["selector"] == selector and text in frame["html"]:
                return frame["html"]
        raise AssertionError(f"no frame for {selector} with {text!r}")

    def notice(self):
        """The code of the next frame, which must be a notice."""
        return re.search(r'data-code="([a-z-]+)"', self.html("#notices")).group(1)

    def close_code(self):
        """Waits until the server closes the connection; returns the code that it gave."""
        return self.closed()[0]

    def closed(self):
        """The same, with the reason."""
        try:
            while True:
                self.frame()
        except websockets.ConnectionClosed as closed:
            return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (None, None)

    def close(self):
        _wait(self.socket.close())

    def abort(self):
        """Goes without a word."""
        _loop.call_soon_threadsafe(self.socket.transport.abort)


class Board:
    """A running board. Arguments are settings, http_threads=4 for -s http.threads=4."""

    def __init__(self, arguments=(), environment=None, cwd=None, **settings):
        settings.setdefault("http_listen", "127.0.0.1:0")
        self.log = tempfile.NamedTemporaryFile("w+", prefix="breadboard-log-")
        options = []
        for key, value in settings.items():
            options += ["-s", f"{key.replace('_', '.', 1)}={value}"]
        self.process = subprocess.Popen(
            [BINARY, *options, *arguments],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
        )
        line = self.process.stdout.readline()
        ready = READY.fullmatch(line)
        if not ready:
            self.kill()
            raise AssertionError(f"not ready: {line!r}\n{self.logged()}")
        self.port = int(ready.group(2))
        self.address = f"{ready.group(1)}:{self.port}"
        self.clients = []

    def logged(self):
        with open(self.log.name, encoding="utf-8") as log:
            return log.read()

    def wait_logged(self, text):
        wait_for(lambda: text in self.logged(), f"{text!r} in the log")

    def client(self, **options):
        """A new client that has received its first page, whose HTML is in client.first."""
        client = self.silent_client(**options)
        client.first = client.html()
        return client

    def silent_client(self, **options):
        client = Client(self.address, **options)
        self.clients.append(client)
        return client

    def request(self, method, path, body=None, **headers):
        """An HTTP request; returns the response with its body in response.text."""
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        response.body = response.read()
        response.text = response.body.decode("utf-8", "replace")
        connection.close()
        return response

    def get(self, path, **headers):
        return self.request("GET", path, **headers)

    def post(self, path, body, **headers):
        headers.setdefault("Content_Type", "application/x-www-form-urlencoded")
        return self.request("POST", path, body, **headers)

    def metric(self, name):
        (value,) = re.findall(rf"^breadboard_{name} (\d+)$", self.get("/metrics").text, re.M)
        return int(value)

    def resident(self):
        """The kilobytes of memory that the process has."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            (size,) = re.findall(r"^VmRSS:\s+(\d+) kB$", status.read(), re.M)
        return int(size)

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        """Ends the board in order; returns its exit status."""
        for client in self.clients:
            with contextlib.suppress(Exception):
                client.close()
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self):
        status = self.process.wait(PATIENCE)
        self.process.stdout.close()
        return status

    def kill(self):
        self.process.kill()
        self.wait()


def wait_for(condition, what):
    """Waits until the condition holds; what says what for."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


class Database:
    """A PostgreSQL server of the tests' own, as one that database.url names."""

    def __init__(self, fsync="off"):
        self.fsync = fsync
        self.folder = tempfile.mkdtemp(prefix="breadboard-db-")
        os.chmod(self.folder, 0o711)
        self.data = os.path.join(self.folder, "data")
        self.bin = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
        self.port = 5432
        os.mkdir(self.data)
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", "postgres", self.folder], check=True)
        self._tool("initdb", "-D", self.data, "-U", "board", "-E", "UTF8", "--locale=C.UTF-8",
                   "-A", "trust", "--no-sync")
        self.start()
        self.sql("CREATE DATABASE board", database="postgres")

    def _tool(self, name, *arguments):
        command = [os.path.join(self.bin, name), *arguments]
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command]
        subprocess.run(command, check=True, cwd="/", stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL)

    def start(self):
        #  What a process has written outlives it without fsync too; only a power cut would tell
        self._tool("pg_ctl", "-D", self.data, "-w", "-l", os.path.join(self.folder, "log"), "-o",
                   f"-c listen_addresses= -c unix_socket_directories={self.folder}"
                   f" -c max_connections=50 -c fsync={self.fsync}", "start")

    def stop(self, mode="fast"):
        self._tool("pg_ctl", "-D", self.data, "-w", "-m", mode, "stop")

    @property
    def pid(self):
        with open(os.path.join(self.data, "postmaster.pid"), encoding="ascii") as file:
            return int(file.readline())

    @property
    def url(self):
        return f"host={self.folder} user=board dbname=board"

    def connect(self, database="board"):
        connection = psycopg2.connect(host=self.folder, user="board", dbname=database)
        connection.autocommit = True
        return connection

    def sql(self, statement, *values, database="board"):
        """Runs a statement as somebody else would; returns its rows, if it has any."""
        with contextlib.closing(self.connect(database)) as connection:
            cursor = connection.cursor()
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else None

    def destroy(self):
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop("immediate")
        subprocess.run(["rm", "-rf", self.folder], check=True)


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

    def backend(self):
        """The process of the board's connection, once that of its start is gone."""
        wait_for(lambda: len(self.backends()) == 1, "the board's one connection")
        return self.backends()[0]

    def backends(self):
        """The processes of the boards' connections."""
        return [pid for (pid,) in self.server.sql(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'breadboard'"
            " AND datname = %s", self.name, database="postgres")]


@contextlib.contextmanager
def paused(server):
    """All of the server's processes stand still. One that was about to end may have ended instead."""
    pids = [server.pid, *children(server.pid)]

    def tell(number):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    try:
        tell(signal.SIGSTOP)
        yield
    finally:
        tell(signal.SIGCONT)


def children(parent):
    pids = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            if int(file.read().rpartition(")")[2].split()[1]) == parent:
                pids.append(int(pid))
    return pids
