"""The program itself: options, settings, the ready line, logs, signals, and what it leaves behind."""

import configparser
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time

import pytest

from board import BINARY, PATIENCE, READY, ROOT, Board, wait_for
from conftest import stop_all
from writers import PAGE_SIZE, Writers

NOWHERE = "host=127.0.0.1 port=1 dbname=board"  # nothing listens there
OPTIONS = "-c", "--config", "-s", "--set", "--check-config", "--print-config", "--version", "--help"


def run(*arguments):
    """Runs the program to its end."""
    return subprocess.run([BINARY, *arguments], capture_output=True, text=True, timeout=PATIENCE,
                          check=False)


def refusal(status, *arguments):
    """The one sentence with which the program refuses to start, log lines before it aside."""
    ended = run(*arguments)
    assert ended.returncode == status, ended
    assert ended.stdout == ""
    lines = [line for line in ended.stderr.splitlines() if not re.match(r"\d{4}-\d\d-\d\dT", line)]
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("breadboard: ")
    return lines[0]


def parsed(text):
    """The settings in an ini file, each as SECTION.KEY."""
    parser = configparser.ConfigParser(interpolation=None, comment_prefixes="#", delimiters="=")
    parser.read_string(text)
    return {f"{section}.{key}": value for section in parser.sections()
            for key, value in parser[section].items()}


def sample():
    with open(os.path.join(ROOT, "config", "breadboard.ini"), encoding="utf-8") as file:
        return file.read()


def stored(database):
    return [text for (text,) in database.sql("SELECT text FROM messages ORDER BY id")]


@pytest.fixture
def ini(tmp_path, database):
    """Writes a settings file: ini(board_title="X"); what is not named is as a plain board needs it."""
    path = tmp_path / "board.ini"

    def write(**settings):
        settings = {"http_listen": "127.0.0.1:0", "database_url": database.url, **settings}
        sections = {}
        for name, value in settings.items():
            section, _, key = name.partition("_")
            sections.setdefault(section, []).append(f"{key} = {value}\n")
        path.write_text("".join(f"[{section}]\n{''.join(lines)}"
                                for section, lines in sections.items()), encoding="utf-8")

    write.path = path
    write()
    return write


@pytest.fixture
def start_ini(ini):
    """Starts boards on the settings file; those that still run afterwards must end with 0."""
    boards = []

    def start():
        boards.append(Board(["-c", str(ini.path)], http_listen="127.0.0.1:0"))
        return boards[-1]

    yield start
    stop_all(boards)


def reload(board, line="reload: settings, templates and assets read anew"):
    """SIGHUP; waits until the log says what became of it."""
    before = board.logged().count(line)
    board.signal(signal.SIGHUP)
    wait_for(lambda: board.logged().count(line) > before, f"{line!r} in the log")


#  ------------------------------------------------------------------------
#  Options


def test_help_names_every_option_and_key():
    ended = run("--help")
    assert ended.returncode == 0 and ended.stderr == ""
    words = re.findall(r"[\w.-]+", ended.stdout)
    for name in [*OPTIONS, *parsed(sample())]:
        assert name in words, name


def test_version():
    ended = run("--version")
    assert ended.returncode == 0 and ended.stderr == ""
    assert re.fullmatch(r"breadboard \d+\.\d+\.\d+\n", ended.stdout)


def test_printed_settings_are_the_documented_ones():
    printed, documented = run("--print-config"), sample()
    assert printed.returncode == 0 and printed.stderr == ""
    folder = "/var/lib/breadboard" if os.geteuid() == 0 else "var"
    documented = documented.replace("state_dir =\n", f"state_dir = {folder}\n")
    #  The first line says what one looks at
    assert printed.stdout.splitlines()[1:] == documented.splitlines()[1:]


def test_printed_settings_are_those_in_force_and_can_be_read(tmp_path):
    set_here = {"board.title": "Ann's = \"Board\" # 1 ; ü", "board.page_size": "7",
                "http.allowed_hosts": "a.example b.example", "log.format": "json",
                "http.trust_proxy": "yes", "database.url": "postgresql:///board?user=ann"}
    options = [word for key, value in set_here.items() for word in ("-s", f"{key}={value}")]
    first = run(*options, "--print-config").stdout
    file = tmp_path / "board.ini"
    file.write_text(first, encoding="utf-8")
    second = run("-c", str(file), "--print-config")
    assert second.returncode == 0 and second.stdout == first
    assert {key: parsed(first)[key] for key in set_here} == set_here


def test_an_option_stands_above_the_file_and_the_last_one_counts(tmp_path):
    file = tmp_path / "board.ini"
    file.write_text("[board]\ntitle = file\npage_size = 3\n", encoding="utf-8")
    printed = parsed(run("-s", "board.title=first", "--set", "board.title=last", "--config",
                         str(file), "--print-config").stdout)
    assert printed["board.title"] == "last" and printed["board.page_size"] == "3"


def test_no_print_and_no_refusal_shows_a_password():
    for url in "postgresql://ann:sesame@127.0.0.1:1/x", "host=127.0.0.1 port=1 password=sesame":
        ended = run("-s", f"database.url={url}", "--print-config")
        assert "sesame" not in ended.stdout and "***" in ended.stdout
        assert "sesame" not in refusal(1, "-s", f"database.url={url}")
    for setting in "database.url=password='sesame", "databose.url=host=x password=sesame":
        assert "sesame" not in refusal(2, "-s", setting)


def test_check_config(tmp_path):
    file = tmp_path / "board.ini"
    file.write_text(sample(), encoding="utf-8")
    ended = run("-c", str(file), "--check-config")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    file.write_text("[board]\n\npage_size = many\n", encoding="utf-8")
    assert f"{file}:3: board.page_size" in refusal(2, "-c", str(file), "--check-config")
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "list.html").write_text("\n{{#messages}}\n", encoding="utf-8")
    folder = f"http.templates={tmp_path}/page"
    assert "list.html:" in refusal(2, "-s", folder, "--check-config")


@pytest.mark.parametrize("arguments", [["--frobnicate"], ["-x"], ["-c"], ["--set"], ["-s"],
                                       ["board.ini"], ["--check-config", "now"], ["--help=all"]])
def test_a_wrong_option_is_refused(arguments):
    sentence = refusal(2, *arguments)
    assert arguments[-1].split("=")[0] in sentence and "--help" in sentence


@pytest.mark.parametrize("setting, words", [
    ("http", "SECTION.KEY=VALUE"),
    ("http.listen", "SECTION.KEY=VALUE"),
    ("web.listen=127.0.0.1:80", "web.listen: no such key"),
    ("http.port=80", "http.port: no such key"),
    ("http.listen=localhost:8080", "http.listen: must be IPv4ADDRESS:PORT"),
    ("http.listen=127.0.0.1", "http.listen: must be IPv4ADDRESS:PORT"),
    ("http.listen=127.0.0.1:65536", "http.listen: must be IPv4ADDRESS:PORT"),
    ("http.path=ws", "http.path: must be a path"),
    ("http.path=/", "http.path: must be a path"),
    ("http.path=/messages", "http.path: must be a path"),
    ("http.threads=0", "http.threads: must be a number from 1 to 256"),
    ("http.metrics=yes", "http.metrics: must be loopback, all or off"),
    ("http.trust_proxy=maybe", "http.trust_proxy: must be yes or no"),
    ("http.allowed_origins=example", "http.allowed_origins: must be origins"),
    ("database.url=host", "database.url: must be a libpq connection string"),
    ("board.title=", "board.title: must be 1 to 100 characters"),
    ("board.page_size=5 pages", "board.page_size: must be a number from 1 to 100"),
    ("board.author_max=101", "board.author_max: must be a number from 1 to 100"),
    ("limits.max_message_bytes=-1", "limits.max_message_bytes: must be a number"),
    ("limits.max_message_bytes=1024", "limits.max_message_bytes: must be at least"),
    ("database.lock_timeout_ms=10001", "database.lock_timeout_ms: must be at most"),
    ("log.level=loud", "log.level: must be debug, info, warning or error"),
])
def test_a_wrong_setting_is_refused(tmp_path, setting, words):
    assert words in refusal(2, "-s", setting)
    section, _, rest = setting.partition(".")
    if "=" in rest:
        file = tmp_path / "board.ini"
        file.write_text(f"#  Here\n[{section}]\n{rest}\n", encoding="utf-8")
        sentence = refusal(2, "-c", str(file))
        if section == "web":
            assert f"{file}:2: [web]: no such section" in sentence
        else:
            assert f"{file}:3: " in sentence and words in sentence


def test_a_file_that_is_no_settings_file_is_refused(tmp_path):
    file = tmp_path / "board.ini"
    for line, text in [(1, "page_size = 5\n"), (2, "[board]\npage_size\n"), (2, "\n[board\n"),
                       (3, "[board]\npage_size = 5\npage_size = 6\n")]:
        file.write_text(text, encoding="utf-8")
        assert f"{file}:{line}: " in refusal(2, "-c", str(file))
    file.unlink()
    assert str(file) in refusal(2, "-c", str(file))
    assert str(tmp_path) in refusal(2, "-c", str(tmp_path))


#  ------------------------------------------------------------------------
#  What is wrong at start


def test_a_broken_template_is_refused_with_file_and_line(tmp_path):
    (tmp_path / "message.html").write_text("<p>\n{{text}}\n{{#author}}</p>\n", encoding="utf-8")
    assert "message.html:3:" in refusal(2, "-s", f"http.templates={tmp_path}")
    (tmp_path / "message.html").write_text("\n{{> absent.html}}", encoding="utf-8")
    sentence = refusal(2, "-s", f"http.templates={tmp_path}")
    assert "message.html:2:" in sentence and "absent.html" in sentence


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    for key in "http.templates", "http.static":
        sentence = refusal(2, "-s", f"{key}={tmp_path}/absent")
        assert key in sentence and f"{tmp_path}/absent" in sentence


def test_a_database_out_of_reach_is_said_at_once():
    start = time.monotonic()
    sentence = refusal(1, "-s", f"database.url={NOWHERE}")
    assert time.monotonic() - start < 2
    assert "127.0.0.1" in sentence and "database.url" in sentence


def test_a_database_that_does_not_answer_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"host=127.0.0.1 port={silent.getsockname()[1]} connect_timeout=2"
        sentence = refusal(1, "-s", f"database.url={url}")
    assert "timeout" in sentence and "database.url" in sentence


def test_a_database_that_is_not_there_is_named(server):
    url = server.url.replace("dbname=board", "dbname=absent")
    assert '"absent"' in refusal(1, "-s", f"database.url={url}")


def test_a_port_that_is_taken_is_named(database):
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        sentence = refusal(1, "-s", f"database.url={database.url}", "-s", f"http.listen={listen}")
    assert listen in sentence and "in use" in sentence and "http.listen" in sentence


def test_an_address_of_another_machine_is_refused(database):
    sentence = refusal(1, "-s", f"database.url={database.url}", "-s", "http.listen=192.0.2.1:0")
    assert "192.0.2.1:0" in sentence and "http.listen" in sentence


def test_too_few_descriptors_are_refused(database):
    sentence = refusal(1, "-s", f"database.url={database.url}", "-s",
                       "http.max_connections=1000000", "-s", "http.threads=256")
    assert "http.max_connections" in sentence and "ulimit -n" in sentence


#  ------------------------------------------------------------------------
#  Serving


def test_the_ready_line_is_all_that_stdout_gets(database):
    command = [BINARY, "-s", "http.listen=127.0.0.1:0", "-s", f"database.url={database.url}",
               "-s", "log.level=debug"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:
        line = process.stdout.readline()
        port = int(READY.fullmatch(line).group(2))
        assert port > 0
        version = run("--version").stdout.strip()
        assert line == f"{version} ready on http://127.0.0.1:{port}/\n"
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /absent HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 404 ")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert stdout == ""
    for line in stderr.splitlines():
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (debug|info|warning|error) ", line)
    assert " info breadboard: ending" in stderr


def test_a_port_that_is_chosen_is_used_and_can_be_used_again_at_once(start):
    first = start()
    first.client().send("list messages", page=1)
    assert first.stop() == 0
    second = start(http_listen=first.address)
    assert second.address == first.address
    second.client()


def test_every_json_log_line_is_an_object(start):
    board = start(log_format="json", log_level="debug", board_title='"\\')
    board.client().send_raw("no JSON \x7f")
    reload(board)
    assert board.stop() == 0
    lines = [json.loads(line) for line in board.logged().splitlines()]
    assert lines
    for line in lines:
        assert set(line) == {"time", "level", "message"}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert line["level"] in ("debug", "info", "warning", "error")


def test_the_log_has_the_level_that_was_asked_for_and_those_above(start):
    board = start(log_level="error")
    board.client()
    assert board.stop() == 0
    assert board.logged() == ""
    board = start(log_level="warning")
    board.client()
    assert board.stop() == 0
    assert " info " not in board.logged()


def test_the_log_never_has_what_clients_write(start):
    board = start(log_level="debug")
    ann = board.client()
    ann.send("add message", author="Ann", text="sesame")
    ann.until("sesame")
    ann.send_raw('{"action": "sesame"}')
    assert ann.notice() == "malformed"
    ann.send("add message", author="", text="sesame")
    assert ann.notice() == "invalid"
    assert board.get("/sesame").status == 404
    assert board.stop() == 0
    assert "sesame" not in board.logged()


def test_boards_live_side_by_side(start):
    boards = [start() for _ in range(3)]
    assert len({board.address for board in boards}) == 3
    clients = [board.client() for board in boards]
    for number, client in enumerate(clients):
        client.send("add message", author="Ann", text=f"from {number}")
        for other in clients:
            other.until(f"from {number}<")
    assert boards[0].stop() == 0
    clients[1].send("add message", author="Ann", text="and on")
    clients[2].until("and on<")


def test_clients_that_come_and_go_leave_no_descriptor(start):
    board = start(limits_messages_per_second=0)
    folder = f"/proc/{board.process.pid}/fd"

    def come_and_go(count):
        for number in range(count):
            if number % 5 == 4:
                board.get("/")
            elif number % 5 == 3:
                board.get("/absent", Connection="close")
            else:
                client = board.silent_client()
                client.html()
                board.clients.remove(client)
                if number % 5 == 2:
                    client.abort()
                else:
                    client.close()

    come_and_go(40)  # each of its threads has made what it keeps
    wait_for(lambda: gauge(board, "breadboard_connections") == 0, "clients to be gone")
    before = len(os.listdir(folder))
    come_and_go(500)
    wait_for(lambda: gauge(board, "breadboard_connections") == 0, "clients to be gone")
    wait_for(lambda: len(os.listdir(folder)) <= before, f"descriptors to be {before} again")


def gauge(board, name):
    return float(re.search(rf"^{name} (\S+)$", board.get("/metrics").text, re.M).group(1))


#  ------------------------------------------------------------------------
#  Ending


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_board_and_tells_the_clients(start, number):
    board = start()
    clients = [board.client() for _ in range(20)]
    began = time.monotonic()
    board.signal(number)
    farewell = 1001, "the server goes away; spread=1"
    assert [client.closed() for client in clients] == [farewell] * 20
    assert board.wait() == 0
    assert time.monotonic() - began < 5
    with pytest.raises(ConnectionRefusedError):
        board.get("/")


def test_a_client_that_does_not_read_does_not_stop_the_end(start):
    board = start()
    with socket.create_connection(("127.0.0.1", board.port)) as deaf:
        deaf.sendall(b"GET /ws/social-network/ HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                     b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        assert deaf.recv(12) == b"HTTP/1.1 101"
        client = board.client()
        began = time.monotonic()
        board.signal(signal.SIGTERM)
        assert client.close_code() == 1001
        assert board.wait() == 0
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_acknowledged_before_the_end_is_stored(start, database, number):
    board = start(limits_messages_per_second=0, board_page_size=PAGE_SIZE)
    writers = Writers(board, "hammer")
    writers.wait(300)
    began = time.monotonic()
    board.signal(number)
    assert board.wait() == 0
    assert time.monotonic() - began < 5
    writers.stop()
    assert writers.close_codes == [1001] * 6
    writers.check(stored(database))


def test_what_was_received_before_the_end_is_done(start, database):
    board = start(limits_messages_per_second=0)
    ann = board.client()
    for number in range(100):
        ann.send("add message", author="Ann", text=f"received {number}")
    ann.ping()  # the answer comes behind what was sent before it
    board.signal(signal.SIGTERM)
    assert ann.close_code() == 1001
    assert board.wait() == 0
    assert stored(database) == [f"received {number}" for number in range(100)]


def test_sigterm_ends_a_start_that_waits_for_the_database(server):
    """Another program holds the lock under which the schema is upgraded."""
    with contextlib.closing(server.connect()) as other:
        other.cursor().execute("SELECT pg_advisory_lock(422995780964)")
        process = subprocess.Popen(
            [BINARY, "-s", "http.listen=127.0.0.1:0", "-s", f"database.url={server.url}"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            wait_for(lambda: server.sql("SELECT 1 FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                                        " AND query LIKE '%pg_try_advisory_lock%'"),
                     "the board to wait for the lock")
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            stdout, stderr = process.communicate(timeout=5)
            assert time.monotonic() - began < 5
        finally:
            process.kill()
            process.communicate()
    assert (process.returncode, stdout) == (0, ""), stderr


def test_sigterm_ends_a_start_at_once(database):
    for _ in range(5):
        with subprocess.Popen([BINARY, "-s", "http.listen=127.0.0.1:0", "-s",
                               f"database.url={database.url}"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as process:
            wait_for(lambda: blocks_sigterm(process.pid), "the program to block signals")
            process.send_signal(signal.SIGTERM)
            _, stderr = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, stderr


def blocks_sigterm(pid):
    """Whether the program has begun: before that SIGTERM ends it as it ends any process."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        blocked = int(re.search(r"^SigBlk:\s*(\w+)$", status.read(), re.M).group(1), 16)
    return bool(blocked & 1 << signal.SIGTERM - 1) and os.readlink(f"/proc/{pid}/exe") == BINARY


#  ------------------------------------------------------------------------
#  SIGHUP


def test_reload_changes_title_and_page_size(ini, start_ini):
    board = start_ini()
    ann = board.client()
    for number in range(1, 4):
        ann.send("add message", author="Ann", text=f"message {number}")
        ann.until(f"message {number}<")
    bob = board.client()
    bob.send("list messages", page=1)
    bob.html()

    ini(board_title="Another Board", board_page_size=2)
    reload(board)
    for client in ann, bob:
        html = client.html()
        assert "message 2<" in html and "message 1<" not in html
        client.send("list messages", page=2)
        assert "message 1<" in client.html()
    page = board.get("/").text
    assert page.count("<article") == 2 and "<title>Another Board</title>" in page
    assert board.client().first.count("<article") == 2

    ini(board_page_size=3)  # page 2 is no more
    reload(board)
    for client in ann, bob:
        html = client.html()
        assert "message 1<" in html and 'data-page="1"' in html
    assert "<title>Social Network</title>" in board.get("/").text


def test_reload_changes_templates_and_assets(ini, start_ini, tmp_path):
    board = start_ini()
    ann = board.client()
    ann.send("add message", author="Ann", text="hello")
    ann.until("hello<")
    before = board.get("/").text
    (tmp_path / "message.html").write_text('<article class="message" id="message--{{id}}">'
                                           "<p>new look: {{text}}</p></article>", encoding="utf-8")
    (tmp_path / "breadboard.css").write_text("body { color: red }\n", encoding="utf-8")
    ini(http_templates=tmp_path, http_static=tmp_path)
    reload(board)
    assert "new look: hello<" in ann.html()
    page = board.get("/").text
    assert "new look: hello<" in page
    assert "new look: hello<" in board.client().first

    def style(html):
        return re.search(r'href="(/static/breadboard\.css[^"]*)"', html).group(1)

    assert board.get(style(page)).text == "body { color: red }\n"
    assert style(page) != style(before)  # or browsers would keep the old one
    ini()
    reload(board)
    assert "new look" not in ann.html()
    assert style(board.get("/").text) == style(before)


def test_reload_changes_limits_of_open_connections(ini, start_ini):
    ini(limits_messages_per_second=1000000, limits_burst=1000000)
    board = start_ini()
    ann = board.client()
    ini(board_text_max=10, board_author_max=5, limits_max_message_bytes=2000,
        limits_messages_per_second=1, limits_burst=1)
    reload(board)
    ann.ping()  # Her thread has its settings now
    began = time.monotonic()
    ann.send("add message", author="Ann", text="x" * 11)
    assert "10" in ann.html("#notices")
    ann.send("add message", author="Annabella", text="x")
    assert "5" in ann.html("#notices")
    assert time.monotonic() - began > 0.5  # one a second
    ann.send_raw(json.dumps({"action": "list messages", "data": {"page": "1" * 2000}}))
    assert ann.close_code() == 1009
    form = board.post("/messages", "author=Ann&message=12345678901")
    assert form.status == 422 and 'maxlength="10"' in board.get("/").text


def test_reload_changes_the_log(ini, start_ini):
    ini(log_level="error")
    board = start_ini()
    ini(log_format="json")
    reload(board)
    assert json.loads(board.logged().splitlines()[-1])["level"] == "info"


def test_reload_changes_who_may_write_and_read(ini, start_ini):
    board = start_ini()
    message = "author=Ann&message=hello"
    assert board.post("/messages", message, Origin="http://foreign.example").status == 403
    assert board.get("/", Host="board.example").status >= 400
    ini(http_allowed_origins="http://foreign.example", http_allowed_hosts="board.example localhost",
        http_metrics="off")
    reload(board)
    assert board.post("/messages", message, Origin="http://foreign.example",
                      Host="localhost").status == 303
    assert board.get("/", Host="board.example").status == 200
    assert board.get("/metrics", Host="localhost").status == 404


def test_reload_names_what_only_a_restart_changes(ini, start_ini):
    board = start_ini()
    ann = board.client()
    ini(http_path="/elsewhere/", http_threads=7, http_max_connections=1, database_url=NOWHERE,
        database_state_dir="/elsewhere", board_title="Applied")
    reload(board)
    (line,) = [line for line in board.logged().splitlines() if "only a restart" in line]
    assert " warning " in line
    for key in ("http.path", "http.threads", "http.max_connections", "database.url",
                "database.state_dir"):
        assert key in line.split()
    assert "board.title" not in line
    assert "<title>Applied</title>" in board.get("/").text
    bob = board.client()
    bob.send("add message", author="Bob", text="as before")
    for client in ann, bob:
        client.until("as before<")
    reload(board)  # it is said again, as it still holds
    assert board.logged().count("only a restart") == 2


@pytest.mark.parametrize("template, line", [("{{#messages}}\n", 1), ("\n\n{{> absent.html}}", 3)])
def test_a_broken_template_changes_nothing(ini, start_ini, tmp_path, template, line):
    (tmp_path / "list.html").write_text("{{#messages}}(as it was: {{text}}){{/messages}}",
                                        encoding="utf-8")
    ini(http_templates=tmp_path)
    board = start_ini()
    ann = board.client()
    (tmp_path / "list.html").write_text(template, encoding="utf-8")
    ini(http_templates=tmp_path, board_title="Not applied")
    reload(board, "nothing was changed")
    assert f"list.html:{line}:" in board.logged()
    ann.send("add message", author="Ann", text="hello")
    assert "(as it was: hello)" in ann.html()
    page = board.get("/").text
    assert "(as it was: hello)" in page and "<title>Social Network</title>" in page

    (tmp_path / "list.html").write_text("{{#messages}}(mended: {{text}}){{/messages}}",
                                        encoding="utf-8")
    reload(board)
    assert "(mended: hello)" in ann.html()
    assert "<title>Not applied</title>" in board.get("/").text


def test_broken_settings_change_nothing(ini, start_ini, tmp_path):
    board = start_ini()
    ann = board.client()
    for name, value in [("board_page_size", "0"), ("board_pages", "5"),
                        ("http_templates", f"{tmp_path}/absent")]:
        ini(board_title="Not applied", **{name: value})
        reload(board, "nothing was changed")
        last = board.logged().splitlines()[-1]
        assert " error reload: " in last and name.replace("_", ".", 1) in last
    ini.path.unlink()
    reload(board, "nothing was changed")
    ann.send("add message", author="Ann", text="hello")
    ann.until("hello<")
    assert "<title>Social Network</title>" in board.get("/").text


def test_reload_under_load_loses_nothing(ini, start_ini, database):
    ini(limits_messages_per_second=0, board_page_size=PAGE_SIZE)
    board = start_ini()
    with Writers(board, "reloaded") as writers:
        for number in range(10):
            ini(limits_messages_per_second=0, board_page_size=PAGE_SIZE + number % 2)
            reload(board)
            writers.wait(20)
    assert writers.close_codes == [] and writers.refused == {}
    writers.check(stored(database))
