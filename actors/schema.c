//  The schema has a version, kept in the table breadboard_schema. Each step below leads from one
//  version to the next; all that are missing run in one transaction, under an advisory lock, so two
//  servers that start at once take turns and the second finds nothing left to do. An index of a big
//  table is built before them, CONCURRENTLY, so that the original application goes on writing
//  meanwhile.
//
//  Step 1 makes the table as the original application's migration makes it, or takes that one over
//  with its rows; our own columns have defaults, so that the original application can go on
//  writing. Its triggers announce what somebody else changed: the original application, or a hand
//  in psql.
//
//  A step is never changed once it was released, and does no harm when it runs again: after
//  somebody has dropped the table all of them do.

#include "actors/schema.h"
#include "actors/scratch.h"
#include "config/log.h"
#include "config/signals.h"

//  Any number will do, as long as nobody else uses it: "bread" in ASCII
#define LOCK_KEY "422995780964"

//  How often we look whether the board is to end
#define LOOK_MS 100

//  How often the log tells how far an index is
#define REPORT_MS 2000

//  Bytes from which on a table is a big one; smaller ones have their indexes in less than a second
#define BIG_TABLE "16 * 1024 * 1024"

//  Ours, beside the original application's
#define ADD_COLUMNS                       \
    "ALTER TABLE messages"                \
    " ADD COLUMN IF NOT EXISTS key uuid," \
    " ADD COLUMN IF NOT EXISTS version integer NOT NULL DEFAULT 1;"

//  Named in the announcement are at most 300 ids: NOTIFY takes less than 8,000 bytes
static const char s_step_1[] =
    "CREATE TABLE IF NOT EXISTS messages ("
    " id bigserial PRIMARY KEY,"
    " author varchar(100) NOT NULL,"
    " text text NOT NULL,"
    " created_at timestamptz NOT NULL);" ADD_COLUMNS
    "CREATE UNIQUE INDEX IF NOT EXISTS messages_key ON messages (key);"
    "CREATE INDEX IF NOT EXISTS messages_newest ON messages (created_at DESC, id DESC);"

    "CREATE OR REPLACE FUNCTION breadboard_next_version () RETURNS trigger LANGUAGE plpgsql AS $$"
    " BEGIN NEW.version := OLD.version + 1; RETURN NEW; END $$;"
    "CREATE TRIGGER breadboard_next_version BEFORE UPDATE ON messages FOR EACH ROW"
    " WHEN (NEW.version = OLD.version"
    " AND (NEW.author, NEW.text) IS DISTINCT FROM (OLD.author, OLD.text))"
    " EXECUTE FUNCTION breadboard_next_version ();"

    "CREATE OR REPLACE FUNCTION breadboard_announce () RETURNS trigger LANGUAGE plpgsql AS $$"
    " DECLARE ids text := 'many';"
    " BEGIN"
    "  IF TG_OP <> 'TRUNCATE' THEN"
    "   SELECT CASE WHEN count(*) <= 300 THEN string_agg(id::text, ',') ELSE 'many' END INTO ids"
    "    FROM (SELECT id FROM changed LIMIT 301) AS few;"
    "  END IF;"
    "  IF ids IS NOT NULL THEN"
    "   PERFORM pg_notify('" SCHEMA_CHANNEL
    "', '- ' || pg_current_xact_id() || ' ' || TG_OP || ' ' || ids);"
    "  END IF;"
    "  RETURN NULL;"
    " END $$;"
    "CREATE TRIGGER breadboard_inserted AFTER INSERT ON messages"
    " REFERENCING NEW TABLE AS changed FOR EACH STATEMENT"
    " WHEN (coalesce(current_setting('" SCHEMA_ORIGIN "', true), '') = '')"
    " EXECUTE FUNCTION breadboard_announce ();"
    "CREATE TRIGGER breadboard_updated AFTER UPDATE ON messages"
    " REFERENCING NEW TABLE AS changed FOR EACH STATEMENT"
    " WHEN (coalesce(current_setting('" SCHEMA_ORIGIN "', true), '') = '')"
    " EXECUTE FUNCTION breadboard_announce ();"
    "CREATE TRIGGER breadboard_deleted AFTER DELETE ON messages"
    " REFERENCING OLD TABLE AS changed FOR EACH STATEMENT"
    " WHEN (coalesce(current_setting('" SCHEMA_ORIGIN "', true), '') = '')"
    " EXECUTE FUNCTION breadboard_announce ();"
    "CREATE TRIGGER breadboard_truncated AFTER TRUNCATE ON messages FOR EACH STATEMENT"
    " EXECUTE FUNCTION breadboard_announce ();";

//  Step 2: what was deleted is remembered for a while, by the ids and keys of those that write: see
//  batch. Somebody else who deletes rows need not know of it. Author and text are NULL once they
//  cannot come back any more.
static const char s_step_2[] =
    "CREATE TABLE IF NOT EXISTS breadboard_deleted ("
    " id bigint PRIMARY KEY,"
    " key uuid,"
    " deletion uuid,"
    " deleted_at timestamptz NOT NULL,"
    " restored_at timestamptz,"
    " author text,"
    " text text,"
    " created_at timestamptz,"
    " version integer);"
    "CREATE INDEX IF NOT EXISTS breadboard_deleted_key ON breadboard_deleted (key);"
    "CREATE INDEX IF NOT EXISTS breadboard_deleted_at ON breadboard_deleted (deleted_at);"
    "CREATE INDEX IF NOT EXISTS breadboard_deleted_text ON breadboard_deleted (deleted_at)"
    " WHERE text IS NOT NULL;";

//  Step 3: announcements tell which messages came and went, so that servers can count without
//  asking; a few by name, many by the range that they lie in. NOTIFY takes less than 8,000 bytes.

#define FEW "100"

//  The function of a trigger: rows are those that moved, with a sign; unmoved is what to announce
//  when there are none; mark is appended to those that did
#define ANNOUNCER(name, rows, unmoved, mark)                                                   \
    "CREATE OR REPLACE FUNCTION " name " () RETURNS trigger LANGUAGE plpgsql AS $$"            \
    " DECLARE changes text;"                                                                   \
    " BEGIN"                                                                                   \
    "  SELECT CASE WHEN count(*) <= " FEW " THEN string_agg(sign || " SCHEMA_KEY ", ' ')"      \
    "   ELSE (SELECT '~' || " SCHEMA_KEY " FROM (" rows ") AS moved"                           \
    "    ORDER BY created_at DESC, id DESC LIMIT 1) || ' ' ||"                                 \
    "    (SELECT " SCHEMA_KEY " FROM (" rows ") AS moved ORDER BY created_at, id LIMIT 1) END" \
    "   INTO changes FROM (SELECT * FROM (" rows ") AS moved LIMIT " FEW " + 1) AS few;"       \
    "  changes := coalesce(changes" mark ", " unmoved ");"                                     \
    "  IF changes IS NOT NULL THEN"                                                            \
    "   PERFORM pg_notify('" SCHEMA_CHANNEL "', '- ' || pg_current_xact_id() || ' ' ||"        \
    "    changes);"                                                                            \
    "  END IF;"                                                                                \
    "  RETURN NULL;"                                                                           \
    " END $$;"

#define CAME "SELECT '+' AS sign, created_at, id FROM came"
#define WENT "SELECT '-' AS sign, created_at, id FROM went"

//  A statement's trigger; not for those that have an origin, as they announce by themselves
#define TRIGGER(name, event, tables)                                                    \
    "DROP TRIGGER IF EXISTS " name " ON messages;"                                      \
    "CREATE TRIGGER " name " AFTER " event " ON messages " tables " FOR EACH STATEMENT" \
    " WHEN (coalesce(current_setting('" SCHEMA_ORIGIN "', true), '') = '')"             \
    " EXECUTE FUNCTION " name " ();"

#define MOVED                                                                           \
    "SELECT '+' AS sign, * FROM"                                                        \
    " (SELECT created_at, id FROM came EXCEPT SELECT created_at, id FROM went) AS came" \
    " UNION ALL SELECT '-', * FROM"                                                     \
    " (SELECT created_at, id FROM went EXCEPT SELECT created_at, id FROM came) AS went"

#define ANNOUNCERS(mark)                                  \
    ANNOUNCER ("breadboard_inserted", CAME, "NULL", mark) \
    ANNOUNCER ("breadboard_deleted", WENT, "NULL", mark)  \
    ANNOUNCER ("breadboard_updated", MOVED, "(SELECT '=' FROM came LIMIT 1)", mark)

#define TRIGGERS                                                                                \
    TRIGGER ("breadboard_inserted", "INSERT", "REFERENCING NEW TABLE AS came")                  \
    TRIGGER ("breadboard_deleted", "DELETE", "REFERENCING OLD TABLE AS went")                   \
    TRIGGER ("breadboard_updated", "UPDATE", "REFERENCING OLD TABLE AS went NEW TABLE AS came") \
    TRIGGER ("breadboard_truncated", "TRUNCATE", "")

static const char s_step_3[] = ANNOUNCERS (
    "") "CREATE OR REPLACE FUNCTION breadboard_truncated () RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN"
        "  PERFORM pg_notify('" SCHEMA_CHANNEL "', '- ' || pg_current_xact_id() || ' *');"
        "  RETURN NULL;"
        " END $$;" TRIGGERS "DROP FUNCTION IF EXISTS breadboard_announce ();";

//  Step 4: no two announcements of what came or went are the same.
static const char s_step_4[] = ANNOUNCERS (SCHEMA_MARK);

//  Step N, at N - 1, leads from version N - 1 to N
static const char *const s_steps[] = {s_step_1, s_step_2, s_step_3, s_step_4};

#define SCHEMA_VERSION ((int) (sizeof (s_steps) / sizeof (s_steps[0])))

static void
s_cancel (PGconn *connection)
{
    char reason[256];
    PGcancel *cancel = PQgetCancel (connection);
    if (PQcancel (cancel, reason, sizeof (reason)) != 1)
        log_warning ("schema: could not cancel: %s", reason);
    PQfreeCancel (cancel);
}

//  Runs SQL as PQexec () does, but lets a signal that ends the board end it: it may wait for a lock
//  that the original application holds. Meanwhile the report, if there is one, is called every
//  REPORT_MS. Caller owns the result.

typedef void (report_fn) (PGconn *connection, PGconn *second);

static PGresult *
s_execute (PGconn *connection, const char *sql, report_fn *report, PGconn *second)
{
    bool cancelled = false;
    int64_t report_ms = zclock_mono () + REPORT_MS;
    PQsendQuery (connection, sql);
    while (PQconsumeInput (connection) == 1 && PQisBusy (connection)) {
        zmq_pollitem_t item = {.fd = PQsocket (connection), .events = ZMQ_POLLIN};
        zmq_poll (&item, 1, LOOK_MS);
        if (!cancelled && signals_end_pending ()) {
            s_cancel (connection);
            cancelled = true;
        }
        if (report && zclock_mono () >= report_ms) {
            report (connection, second);
            report_ms += REPORT_MS;
        }
    }
    PGresult *last = NULL;
    PGresult *next;
    while ((next = PQgetResult (connection))) {
        PQclear (last);
        last = next;
    }
    return last;
}

//  Takes a result; returns its first value as a number (0: none), or -1, and then *error_p.

static int
s_value (PGconn *connection, PGresult *result, char **error_p)
{
    ExecStatusType status = PQresultStatus (result);
    int value = -1;
    if (status == PGRES_COMMAND_OK)
        value = 0;
    else if (status == PGRES_TUPLES_OK)
        value = PQntuples (result) > 0 ? atoi (PQgetvalue (result, 0, 0)) : 0;
    else {
        const char *reason = PQresultErrorField (result, PG_DIAG_MESSAGE_PRIMARY);
        *error_p = zsys_sprintf ("database: could not make or upgrade the schema: %s",
                                 reason ? reason : PQerrorMessage (connection));
    }
    PQclear (result);
    return value;
}

static int
s_run (PGconn *connection, const char *sql, char **error_p)
{
    return s_value (connection, s_execute (connection, sql, NULL, NULL), error_p);
}

//  Waits for its turn. Asks again and again, as one who waits inside of PostgreSQL would keep an
//  index from being built. Returns 0, or -1 and *error_p.

static int
s_lock (PGconn *connection, char **error_p)
{
    int locked = s_run (connection, "SET client_min_messages = warning", error_p);
    while (locked == 0) {
        locked = s_run (connection, "SELECT pg_try_advisory_lock(" LOCK_KEY ")::integer", error_p);
        if (locked == 0 && signals_end_pending ()) {
            *error_p = zsys_sprintf ("database: ended while another server upgrades the schema");
            locked = -1;
        }
        if (locked == 0)
            zclock_sleep (LOOK_MS);
    }
    return locked < 0 ? -1 : 0;
}

//  ------------------------------------------------------------------------
//  Indexes of a big table, which would keep others from writing for long if they were built inside
//  of a step

typedef struct {
    const char *name;
    const char *before; //  SQL; NULL: none
    const char *build;  //  SQL
} index_t;

static const index_t s_indexes[] = {
    {"messages_newest", NULL,
     "CREATE INDEX CONCURRENTLY messages_newest ON messages (created_at DESC, id DESC)"},
    {"messages_key", ADD_COLUMNS,
     "CREATE UNIQUE INDEX CONCURRENTLY messages_key ON messages (key)"},
};

static void
s_report_build (PGconn *connection, PGconn *second)
{
    char sql[300];
    snprintf (
        sql, sizeof (sql),
        "SELECT index_relid::regclass || ': ' || phase"
        " || coalesce(', ' || 100 * blocks_done / nullif(blocks_total, 0) || ' %% of blocks', '')"
        " || coalesce(', ' || 100 * tuples_done / nullif(tuples_total, 0) || ' %% of rows', '')"
        " FROM pg_stat_progress_create_index WHERE pid = %d",
        PQbackendPID (connection));
    PGresult *result = PQexec (second, sql);
    if (PQntuples (result) > 0)
        log_info ("schema: building %s", PQgetvalue (result, 0, 0));
    PQclear (result);
}

//  Runs SQL about an index, a format with its name; returns as s_run () does.

static int
s_run_named (PGconn *connection, const char *format, const char *name, char **error_p)
{
    char *sql = zsys_sprintf (format, name);
    int value = s_run (connection, sql, error_p);
    zstr_free (&sql);
    return value;
}

//  Builds an index that is missing. Returns 0, or -1 and *error_p.

static int
s_build_index (PGconn *connection, const char *url, const index_t *index, char **error_p)
{
    int there = s_run_named (connection,
                             "SELECT count(*) FROM pg_class WHERE oid = to_regclass('%s')",
                             index->name, error_p);
    if (there != 0)
        return there < 0 ? -1 : 0;
    log_info ("schema: building the index %s of a big table, while others write", index->name);
    if (index->before && s_run (connection, index->before, error_p) < 0)
        return -1;
    PGconn *second = PQconnectdb (url);
    PGresult *result = s_execute (connection, index->build, s_report_build, second);
    PQfinish (second);
    return s_value (connection, result, error_p);
}

//  Builds those that a big table lacks. One whose build was broken off is there, but of no use, and
//  is built anew.

static int
s_build_indexes (PGconn *connection, const char *url, char **error_p)
{
    int big = s_run (connection,
                     "SELECT (pg_relation_size(to_regclass('messages')) > " BIG_TABLE ")::integer",
                     error_p);
    int rc = big < 0 ? -1 : 0;
    for (size_t index = 0; rc == 0 && index < sizeof (s_indexes) / sizeof (*s_indexes); index++) {
        const char *name = s_indexes[index].name;
        int broken = s_run_named (connection,
                                  "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
                                  " AND indexrelid = to_regclass('%s')",
                                  name, error_p);
        rc = broken < 0 ? -1 : 0;
        if (broken > 0)
            rc = s_run_named (connection, "DROP INDEX CONCURRENTLY %s", name, error_p);
        if (rc == 0 && big > 0)
            rc = s_build_index (connection, url, &s_indexes[index], error_p);
    }
    return rc;
}

//  ------------------------------------------------------------------------
//  Steps

//  Begins the transaction, and returns the schema's version, 0 where there is none yet; -1 on
//  failure.

static int
s_begin (PGconn *connection, char **error_p)
{
    if (s_run (connection, "BEGIN", error_p) != 0 ||
        s_run (connection, "CREATE TABLE IF NOT EXISTS breadboard_schema (version integer)",
               error_p) != 0)
        return -1;
    return s_run (connection, "SELECT max(version) FROM breadboard_schema", error_p);
}

static int
s_step (PGconn *connection, int version, char **error_p)
{
    log_info ("schema: upgrading from version %d to %d", version, version + 1);
    char sql[80];
    snprintf (sql, sizeof (sql), "INSERT INTO breadboard_schema VALUES (%d)", version + 1);
    return s_run (connection, s_steps[version], error_p) == 0 ? s_run (connection, sql, error_p)
                                                              : -1;
}

//  Returns the version, or 0 when somebody has dropped the table since, or has put another one in
//  its place, which then has none of our triggers; -1 on failure.

static int
s_look_at_table (PGconn *connection, int version, char **error_p)
{
    int triggers = s_run (connection,
                          "SELECT count(*) FROM pg_trigger WHERE tgrelid = to_regclass('messages')"
                          " AND tgname LIKE 'breadboard\\_%'",
                          error_p);
    return triggers > 0 ? version : triggers;
}

static int
s_run_steps (PGconn *connection, char **error_p)
{
    int version = s_begin (connection, error_p);
    if (version > SCHEMA_VERSION) {
        *error_p = zsys_sprintf ("database: its schema has version %d and this program knows %d:"
                                 " run a newer breadboard",
                                 version, SCHEMA_VERSION);
        version = -1;
    }
    else if (version > 0)
        version = s_look_at_table (connection, version, error_p);
    int rc = version < 0 ? -1 : 0;
    for (; rc == 0 && version < SCHEMA_VERSION; version++)
        rc = s_step (connection, version, error_p);
    if (rc == 0)
        rc = s_run (connection, "COMMIT", error_p);
    if (rc != 0)
        PQclear (PQexec (connection, "ROLLBACK"));
    return rc;
}

int
schema_upgrade (PGconn *connection, const char *url, char **error_p)
{
    int rc = s_lock (connection, error_p);
    if (rc == 0) {
        rc = s_build_indexes (connection, url, error_p);
        if (rc == 0)
            rc = s_run_steps (connection, error_p);
        PQclear (PQexec (connection, "SELECT pg_advisory_unlock(" LOCK_KEY ")"));
    }
    return rc;
}

//  ------------------------------------------------------------------------
//  Self test

static void
s_expect (const scratch_t *scratch, const char *sql, const char *expected)
{
    char *value = scratch_sql (scratch, sql);
    if (!streq (value, expected))
        printf ("\n%s: %s, not %s\n", sql, value, expected);
    assert (streq (value, expected));
    zstr_free (&value);
}

static int
s_upgrade (const scratch_t *scratch, char **error_p)
{
    PGconn *connection = PQconnectdb (scratch_url (scratch));
    int rc = schema_upgrade (connection, scratch_url (scratch), error_p);
    PQfinish (connection);
    return rc;
}

//  A table as the original application's migration leaves it is taken over with its rows.

static void
s_test_take_over (const scratch_t *scratch)
{
    s_expect (scratch,
              "CREATE TABLE messages (id bigserial PRIMARY KEY, author varchar(100) NOT NULL,"
              " text text NOT NULL, created_at timestamptz NOT NULL);"
              "INSERT INTO messages (author, text, created_at) VALUES ('Ann', 'old', now())",
              "");
    char *error = NULL;
    int rc = s_upgrade (scratch, &error);
    assert (rc == 0);
    s_expect (scratch, "SELECT text || version FROM messages", "old1");
    rc = s_upgrade (scratch, &error); //  Nothing is left to do
    assert (rc == 0);
    s_expect (scratch, "SELECT count(*) FROM breadboard_schema", "4");
}

//  A board of version 1 keeps its rows, and can delete for a while from then on.

static void
s_test_upgrade (const scratch_t *scratch)
{
    s_expect (scratch, "DELETE FROM breadboard_schema WHERE version > 1", "");
    s_expect (scratch, "DROP TABLE breadboard_deleted", "");
    char *error = NULL;
    int rc = s_upgrade (scratch, &error);
    assert (rc == 0);
    s_expect (scratch, "SELECT text || version FROM messages", "old1");
    s_expect (scratch, "SELECT count(*) FROM breadboard_deleted", "0");
    s_expect (scratch,
              "SELECT string_agg(version::text, ' ' ORDER BY version) FROM breadboard_schema",
              "1 2 3 4");
    s_expect (scratch, "DROP TABLE messages CASCADE", ""); //  By hand, and all is made once more
    rc = s_upgrade (scratch, &error);
    assert (rc == 0);
    s_expect (scratch,
              "INSERT INTO messages (author, text, created_at) VALUES ('Ann', 'new', now())", "");
}

//  The next announcement that the listener gets; caller frees it. Waits for it.

static PGnotify *
s_next_announcement (PGconn *listener)
{
    PGnotify *announcement;
    int rc = 1;
    while (rc > 0 && !(announcement = PQnotifies (listener))) {
        zmq_pollitem_t item = {.fd = PQsocket (listener), .events = ZMQ_POLLIN};
        rc = zmq_poll (&item, 1, 5000);
        PQconsumeInput (listener);
    }
    assert (rc > 0);
    return announcement;
}

//  Somebody else's change of a text makes a new version, and is announced.

static void
s_test_triggers (const scratch_t *scratch)
{
    PGconn *listener = PQconnectdb (scratch_url (scratch));
    PQclear (PQexec (listener, "LISTEN " SCHEMA_CHANNEL));
    s_expect (scratch, "UPDATE messages SET text = 'newer'; SELECT version FROM messages", "2");
    s_expect (scratch, "UPDATE messages SET text = 'newer'; SELECT version FROM messages", "2");
    s_expect (scratch, "SET " SCHEMA_ORIGIN " = 'us'; UPDATE messages SET text = 'ours'", "");
    s_expect (scratch, "UPDATE messages SET id = 7, created_at = '2000-01-01 00:00:01.5 UTC'", "");
    s_expect (scratch,
              "INSERT INTO messages (id, author, text, created_at) VALUES"
              " (8, 'Ann', '1', 'infinity'), (9, 'Ann', '2', '-infinity')",
              "");
    s_expect (scratch, "DELETE FROM messages WHERE id = 7", "");
    s_expect (scratch,
              "INSERT INTO messages (id, author, text, created_at) SELECT number, 'Ann',"
              " 'x', to_timestamp(number) FROM generate_series(1000, 1100) AS number",
              "");
    s_expect (scratch, "DELETE FROM messages WHERE id = 99; TRUNCATE messages", "");
    const char *expected[] = {" =",
                              " =",
                              " +946684801.500000/7 -",
                              " +Infinity/8 +-Infinity/9",
                              " -946684801.500000/7",
                              " ~1100.000000/1100 1000.000000/1000",
                              " *"};
    for (size_t index = 0; index < sizeof (expected) / sizeof (*expected); index++) {
        PGnotify *announcement = s_next_announcement (listener);
        assert (strncmp (announcement->extra, "- ", 2) == 0);
        assert (strstr (announcement->extra, expected[index]));
        PQfreemem (announcement);
    }
    PQfinish (listener);
}

static void
s_test_refusals (const scratch_t *scratch)
{
    char *error = NULL;
    s_expect (scratch, "INSERT INTO breadboard_schema VALUES (1000)", "");
    int rc = s_upgrade (scratch, &error);
    assert (rc == -1 && error && strstr (error, "run a newer breadboard"));
    zstr_free (&error);

    s_expect (scratch, "DROP TABLE breadboard_schema, messages; CREATE TABLE messages (id bigint)",
              "");
    rc = s_upgrade (scratch, &error);
    assert (rc == -1 && error);
    zstr_free (&error);
    s_expect (scratch, "SELECT count(*) FROM pg_tables WHERE tablename = 'breadboard_schema'", "0");
}

void
schema_test (bool verbose)
{
    printf (" * schema: ");
    if (verbose)
        printf ("\n");
    scratch_t *scratch = scratch_new ();
    s_test_take_over (scratch);
    s_test_upgrade (scratch);
    s_test_triggers (scratch);
    s_test_refusals (scratch);
    scratch_destroy (&scratch);
    printf ("OK\n");
}
