import contextlib
import signal

import pytest

from board import Board, Database, wait_for
from browser import Browser


@pytest.fixture(scope="session")
def server():
    """A PostgreSQL server that all tests share."""
    database = Database()
    yield database
    database.destroy()


@pytest.fixture(scope="module")
def own_server():
    """A PostgreSQL server for the tests of one file, which stop it, kill it or let it stand still."""
    database = Database()
    yield database
    database.destroy()


@pytest.fixture
def database(server):
    """The shared server's database, without a message in it, nor one that was deleted."""
    if server.sql("SELECT to_regclass('messages')")[0][0]:
        server.sql("TRUNCATE messages, breadboard_deleted RESTART IDENTITY")
    return server


def stop_all(boards):
    """Ends the boards that still run; each must exit 0."""
    running = [board for board in boards if board.process.returncode is None]
    for board in running:
        board.signal(signal.SIGTERM)
    for board in running:
        assert board.stop() == 0, board.logged()


@contextlib.contextmanager
def starter(**defaults):
    """A function that starts boards with settings beside these; those that still run at the end must exit 0."""
    boards = []

    def start(**settings):
        boards.append(Board(**{**defaults, **settings}))
        return boards[-1]

    yield start
    stop_all(boards)


@pytest.fixture
def start(database):
    """Starts boards on the database."""
    with starter(database_url=database.url) as start:
        yield start


@pytest.fixture(scope="session")
def shared_board(server):
    board = Board(database_url=server.url, limits_messages_per_second=0)
    yield board
    assert board.stop() == 0, board.logged()


@pytest.fixture
def board(shared_board, database):
    """A board that tests share, empty, without a limit of messages a second."""
    # It has heard that the table is empty, so no client will be told of it later
    wait_for(lambda: 'class="message"' not in shared_board.get("/").text, "an empty board")
    yield shared_board
    for client in shared_board.clients:
        client.close()
    shared_board.clients.clear()


@pytest.fixture(scope="session")
def chromium():
    browser = Browser()
    yield browser
    browser.quit()


@pytest.fixture
def browser(chromium, request):
    """The browser that tests share, without a window. Nothing may go wrong in its console, where it
    reports what breaks the content security policy too, but what the test's parameter console names."""
    yield chromium
    expected = getattr(request.function, "console", ())
    said = chromium.close_windows()
    assert [line for line in said if not any(part in line for part in expected)] == []
