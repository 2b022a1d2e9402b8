"""A big table of the original application, taken over while that goes on writing."""

import contextlib
import threading

import psycopg2
import pytest

from board import Board, Fresh, wait_for

TABLE = """CREATE TABLE messages (id bigserial PRIMARY KEY, author varchar(100) NOT NULL,
           text text NOT NULL, created_at timestamptz NOT NULL)"""
ROWS = """INSERT INTO messages (author, text, created_at)
          SELECT 'Django', repeat('long ago ', 20) || n, '2020-01-01'::timestamptz + n * '1 s'::interval
          FROM generate_series(1, %s) AS n"""
INSERT = "INSERT INTO messages (author, text, created_at) VALUES ('Django', %s, now())"
VALID = """SELECT count(*) FROM pg_index WHERE indisvalid
           AND indexrelid IN (to_regclass('messages_newest'), to_regclass('messages_key'))"""
BIG = 150_000  # rows, of more than 16 MB


@pytest.fixture
def fresh(server):
    fresh = Fresh(server)
    fresh.sql(TABLE)
    return fresh


@contextlib.contextmanager
def starting(fresh):
    """A board that starts meanwhile; at the end it has."""
    board = Board.__new__(Board)
    thread = threading.Thread(target=board.__init__, kwargs={"database_url": fresh.url})
    thread.start()
    try:
        yield board
        thread.join()
        wait_for(lambda: hasattr(board, "port"), "the board to start")
    finally:
        thread.join()
    assert board.stop() == 0


def test_the_indexes_of_a_big_table_are_built_while_others_write(fresh):
    fresh.sql(ROWS, BIG)
    with contextlib.ExitStack() as stack:
        slow = stack.enter_context(contextlib.closing(fresh.connect()))
        slow.autocommit = False
        slow.cursor().execute(INSERT, ("in a transaction that takes long",))
        board = stack.enter_context(starting(fresh))
        wait_for(lambda: fresh.sql("SELECT 1 FROM pg_stat_progress_create_index"), "a build")
        fresh.sql("SET lock_timeout = '2 s'; " + INSERT, "meanwhile")
        assert fresh.sql(VALID) == [(0,)]
        board.wait_logged("schema: building messages_newest: waiting for")
        slow.commit()
    assert fresh.sql(VALID) == [(2,)]
    with starting(fresh) as board:
        pass
    assert "building" not in board.logged()


def test_the_boards_that_wait_for_a_build_do_not_hold_it_up(fresh):
    fresh.sql(ROWS, BIG)
    with starting(fresh) as one, starting(fresh) as two:
        pass
    assert fresh.sql(VALID) == [(2,)]
    assert ("building" in one.logged()) != ("building" in two.logged())


@pytest.mark.parametrize("rows", [10, BIG])
def test_an_index_whose_build_was_broken_off_is_built_anew(fresh, rows):
    fresh.sql(ROWS, rows)
    with contextlib.closing(fresh.connect()) as slow, contextlib.closing(fresh.connect()) as other:
        slow.autocommit = False
        slow.cursor().execute(INSERT, ("in a transaction that takes long",))
        other.cursor().execute("SET statement_timeout = '2 s'")
        with pytest.raises(psycopg2.errors.QueryCanceled):
            other.cursor().execute("CREATE INDEX CONCURRENTLY messages_newest"
                                   " ON messages (created_at DESC, id DESC)")
        slow.rollback()
    assert fresh.sql("SELECT indisvalid FROM pg_index"
                     " WHERE indexrelid = to_regclass('messages_newest')") == [(False,)]
    with starting(fresh):
        pass
    assert fresh.sql(VALID) == [(2,)]
