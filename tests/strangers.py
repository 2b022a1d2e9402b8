"""Somebody else who writes to the board's table by hand: random statements, transactions, savepoints.

What is random is chosen here, by the number generator that is given; the statements themselves are not.
"""

import contextlib
import datetime
import io

import psycopg2

ORDER = "ORDER BY created_at DESC, id DESC"
FIRST_ID = 1_000_000  # of the sequence; those below are given by hand
LAST_ID = 2**63 - 1
SIZES = (1, 1, 1, 2, 5, 30, 256, 300, 301, 700, 3000)
LEVELS = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")

#  What may become of a statement, by ids that are there twice or by others who write: then it is rolled back
REFUSED = (psycopg2.errors.UniqueViolation, psycopg2.errors.CardinalityViolation,
           psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected,
           psycopg2.errors.SerializationFailure)

#  Expressions for the time of the n-th new message; {at} is a message that is there already
TIMES = {
    "now": "now() + n * interval '1 us'",
    "at once": "now()",
    "newest": "(SELECT max(created_at) FROM messages WHERE isfinite(created_at)) + n * interval '1 ms'",
    "oldest": "(SELECT min(created_at) FROM messages WHERE isfinite(created_at)) - n * interval '1 us'",
    "equal": "{at}",
    "behind": "{at} - n * interval '1 us'",
    "scattered": "timestamptz '2011-01-01' + hashint8(n + {salt}) * interval '0.1 s'",
    "end of time": "timestamptz 'infinity'",
    "before all time": "timestamptz '-infinity'",
    "stone age": "timestamptz '4000-01-01 BC' + n * interval '1 s'",
    "far future": "timestamptz '290000-01-01' + n * interval '1 s'",
}

#  No message is there yet, or none that has a place in time
NO_TIME = "timestamptz '2001-01-01'"


class Stranger:
    """One connection. Statements run in the transaction that is open, or each in its own."""

    def __init__(self, connection, chance):
        self.connection = connection
        self.chance = chance
        self.cursor = connection.cursor()
        self.cursor.execute("SET lock_timeout = '150ms'; SET TIME ZONE 'UTC'")

    def close(self):
        self.connection.close()

    def sql(self, statement):
        self.cursor.execute(statement)

    #  Choices

    def some(self, count):
        """Selects the ids of so many messages that are neighbours, anywhere on the board."""
        at = self.chance.choice((0, 0, 1, self.chance.random(), self.chance.random()))
        return (f"SELECT id FROM messages {ORDER} LIMIT {count} OFFSET"
                f" greatest(0, floor({at} * (SELECT count(*) FROM messages) - {at} * {count}))")

    def time(self):
        """An expression for the time of the n-th message."""
        at = (f"coalesce((SELECT created_at FROM messages WHERE id = ({self.some(1)}) AND"
              f" isfinite(created_at)), {NO_TIME})")
        expression = self.chance.choice(list(TIMES.values()))
        expression = expression.format(at=at, salt=self.chance.randrange(10**6))
        return f"coalesce({expression}, {NO_TIME} + n * interval '1 s')"

    def size(self, most=3000):
        return min(most, self.chance.choice(SIZES))

    def number(self):
        """An expression for the id of the n-th message."""
        low, high = self.chance.randrange(1, FIRST_ID - 3000), 2**62 + self.chance.randrange(10**6)
        return self.chance.choice(("nextval('messages_id_seq')",) * 4 + (
            f"{low} + n", f"{low} - n + 3000", f"{high} + n", f"{LAST_ID - 3000} + n"))

    #  Statements

    def insert(self, count=None):
        self.sql("INSERT INTO messages (id, author, text, created_at)"
                 f" SELECT {self.number()}, 'Else', 'new ' || n, {self.time()}"
                 f" FROM generate_series(1, {count or self.size()}) AS n")

    def copy(self):
        start = datetime.datetime.fromtimestamp(self.chance.randrange(10**9), datetime.timezone.utc)
        step = datetime.timedelta(seconds=self.chance.choice((0, 1, -1)))
        lines = [f"Copy\tline {n}\t{start + n * step}\n" for n in range(self.size())]
        self.cursor.copy_expert("COPY messages (author, text, created_at) FROM STDIN",
                                io.StringIO("".join(lines)))

    def delete(self, count=None):
        self.sql(f"DELETE FROM messages WHERE id IN ({self.some(count or self.size(1500))})")

    def thin(self):
        """Every second message, or every hundredth."""
        step = self.chance.choice((2, 10, 100))
        self.sql(f"DELETE FROM messages WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER ({ORDER})"
                 f" AS place FROM messages WHERE id IN ({self.some(2000)})) AS range WHERE place % {step} = 0)")

    def delete_an_instant(self):
        """All messages that have the time of one."""
        self.sql("DELETE FROM messages WHERE created_at ="
                 f" (SELECT created_at FROM messages WHERE id = ({self.some(1)}))")

    def move(self):
        self.sql(f"UPDATE messages SET created_at = {self.time()} FROM (SELECT id AS moved, row_number()"
                 f" OVER (ORDER BY id) AS n FROM ({self.some(self.size(1000))}) AS range) AS numbered"
                 " WHERE id = moved")

    def shift(self):
        by = self.chance.choice(("1 us", "-1 us", "1 s", "-1 hour", "300 days"))
        self.sql(f"UPDATE messages SET created_at = created_at + interval '{by}'"
                 f" WHERE isfinite(created_at) AND id IN ({self.some(self.size())})")

    def swap(self):
        """Two messages change places."""
        self.sql(f"UPDATE messages AS one SET created_at = other.created_at FROM ({self.some(1)}) AS a,"
                 f" ({self.some(1)}) AS b, messages AS other"
                 " WHERE (one.id = a.id AND other.id = b.id) OR (one.id = b.id AND other.id = a.id)")

    def renumber(self):
        self.sql("UPDATE messages SET id = nextval('messages_id_seq')"
                 f" WHERE id IN ({self.some(self.size(300))})")

    def rewrite(self):
        self.sql(f"UPDATE messages SET text = {self.chance.choice(('text', 'author || id'))},"
                 f" created_at = created_at WHERE id IN ({self.some(self.size())})")

    def upsert(self):
        """Inserts, and where the id is there already, updates."""
        self.sql("INSERT INTO messages (id, author, text, created_at)"
                 f" SELECT {self.number()}, 'Upsert', 'inserted', {self.time()} FROM generate_series(1, 20) AS n"
                 f" UNION ALL SELECT id, 'Upsert', 'known', now() FROM ({self.some(self.size(300))}) AS known"
                 " ON CONFLICT (id) DO UPDATE SET text = 'updated', created_at = excluded.created_at")

    def replace(self):
        """One statement that deletes and inserts."""
        self.sql(f"WITH gone AS (DELETE FROM messages WHERE id IN ({self.some(self.size(700))})"
                 " RETURNING author, text, created_at), counted AS (SELECT row_number() OVER () AS n, * FROM gone)"
                 " INSERT INTO messages (author, text, created_at)"
                 f" SELECT author, 'again', {self.chance.choice(('created_at', self.time()))} FROM counted")

    def extremes(self):
        """The first and the last places that there can be."""
        self.sql("INSERT INTO messages (id, author, text, created_at) VALUES"
                 f" ({LAST_ID}, 'First', 'of all', 'infinity'), (1, 'Last', 'of all', '-infinity')"
                 " ON CONFLICT DO NOTHING")

    def truncate(self):
        self.sql("TRUNCATE messages")

    def write(self):
        """Any of these; returns which."""
        what = self.chance.choice((
            "insert", "insert", "insert", "insert", "copy", "delete", "delete", "thin", "delete_an_instant",
            "move", "move", "shift", "swap", "renumber", "rewrite", "upsert", "replace", "extremes"))
        getattr(self, what)()
        return what

    #  Transactions

    @staticmethod
    def attempt(write):
        """A statement in a transaction of its own; returns what became of it."""
        try:
            return write() or "done"
        except REFUSED as error:
            return f"refused: {type(error).__name__}"

    def begin(self):
        self.sql(f"BEGIN ISOLATION LEVEL {self.chance.choice(LEVELS)}")
        return self.go_on()

    def go_on(self):
        """More statements in the open transaction, some of them under a savepoint that is rolled back."""
        done = []
        for _ in range(self.chance.randrange(1, 4)):
            back = self.chance.random() < 0.4
            self.sql("SAVEPOINT here")
            try:
                done.append(self.write() + " and not" * back)
            except REFUSED as error:
                back = True
                done.append(f"refused: {type(error).__name__}")
            self.sql("ROLLBACK TO here" if back else "RELEASE here")
        return ", ".join(done)

    def end(self):
        how = self.chance.choice(("COMMIT", "COMMIT", "ROLLBACK"))
        try:
            self.sql(how)
        except psycopg2.errors.SerializationFailure as error:
            how = f"refused: {type(error).__name__}"
        return how

    @contextlib.contextmanager
    def unheard(self):
        """Without triggers, so nothing is announced."""
        self.sql("SET session_replication_role = replica")
        try:
            yield
        finally:
            self.sql("SET session_replication_role = DEFAULT")
