//  The connection is always in one of four states:
//
//  WAITING     there is none; a timer runs until the next try
//  CONNECTING  PQconnectPoll () says what the socket must be ready for; a timer limits it, because
//              libpq's own connect_timeout does not hold for that call
//  PREPARING   the set-up pipeline is on its way; its results are ours, not the owner's
//  UP          all results are the owner's; a timer limits how long we wait for one in silence
//
//  It stays in pipeline mode. PQgetResult () then gives NULL between two statements' results, and
//  NULL again when nothing is left; so two NULLs in a row end a round of reading.
//
//  A socket that cannot take all that libpq has to write makes libpq read what has come. No event
//  tells of that any more, so who flushes looks whether there is a result to take.
//
//  zloop calls a timer that has been ended once more, when its time had come in the same turn; so
//  each handler looks whether it is for the timer that counts.

#include "actors/postgres.h"
#include "actors/schema.h"
#include "actors/scratch.h"
#include "config/log.h"

#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 800
#define SILENCE_MS   1000 //  Beyond the longest statement

typedef enum { WAITING, CONNECTING, PREPARING, UP } state_t;

struct postgres {
    zloop_t *loop;                          //  Borrowed
    const char *url;                        //  Borrowed
    const char *origin;                     //  Borrowed
    const postgres_statement_t *statements; //  Borrowed
    const postgres_handler_t *handler;      //  Borrowed
    void *arg;                              //  The handler's
    postgres_limits_t limits;
    PGconn *connection;     //  Owned; NULL while WAITING
    zmq_pollitem_t watched; //  What the loop watches; events 0: nothing
    int timer;              //  Of the retry, the connect timeout or silence; -1: none
    int retry_ms;           //  The next delay, before jitter
    state_t state;
    bool taking;      //  Results are being taken; whoever flushes meanwhile need not look for more
    int awaited;      //  Syncs whose results are to come
    int64_t heard_ms; //  When something came, or when we began to wait for it
    bool broken;      //  Something could not be queued, and nothing is from there on: out of memory
    char pid[16];     //  Of our backend, the last one where there is none now; "": never had one
    char started[40]; //  When it started; with pid it is unmistakable
    char failure[1024]; //  Why the set-up failed; "": it did not
};

static void s_fail (postgres_t *self, const char *reason);

//  ------------------------------------------------------------------------
//  Waiting for the socket

static int s_handle_socket (zloop_t *loop, zmq_pollitem_t *item, void *arg);

static void
s_watch (postgres_t *self, short events)
{
    int descriptor = self->connection ? PQsocket (self->connection) : -1;
    if (descriptor < 0)
        events = 0;
    if (self->watched.events == events && self->watched.fd == descriptor)
        return;
    if (self->watched.events)
        zloop_poller_end (self->loop, &self->watched);
    self->watched = (zmq_pollitem_t){.fd = descriptor, .events = events};
    if (events) {
        zloop_poller (self->loop, &self->watched, s_handle_socket, self);
        zloop_poller_set_tolerant (self->loop, &self->watched); //  An error is read from libpq
    }
}

static void
s_set_timer (postgres_t *self, int delay_ms, zloop_timer_fn *handler)
{
    if (self->timer >= 0)
        zloop_timer_end (self->loop, self->timer);
    self->timer = handler ? zloop_timer (self->loop, (size_t) delay_ms, 1, handler, self) : -1;
}

//  ------------------------------------------------------------------------
//  Set-up

static void
s_ignore_notice (void *arg, const PGresult *notice)
{
    (void) arg;
    log_debug ("database: notice %s", PQresultErrorField (notice, PG_DIAG_SQLSTATE));
}

//  Values that the url may replace stand before it, those that it must not behind it.

static PGconn *
s_connect (const char *url, int timeout_ms, bool blocking)
{
    char timeout[16];
    snprintf (timeout, sizeof (timeout), "%d", (timeout_ms + 999) / 1000);
    const char *const keys[] = {"fallback_application_name",
                                "connect_timeout",
                                "keepalives_idle",
                                "keepalives_interval",
                                "keepalives_count",
                                "tcp_user_timeout",
                                "dbname",
                                "client_encoding",
                                NULL};
    //  TCP gives up after 2 s without an answer: left to itself it tries again ever more seldom,
    //  and so would find out long after the network has come back
    const char *const values[] = {"breadboard", timeout, "10", "5", "3", "2000", url, "UTF8", NULL};
    return blocking ? PQconnectdbParams (keys, values, 1) : PQconnectStartParams (keys, values, 1);
}

//  Queues the set-up as one pipeline. All that we ask is answered by an index; a planner that sees
//  LIMIT $1, or a table that it has no statistics of, does not always know that. Left to choose, it
//  would plan a page anew each time it is read, for 40 µs, because any limit that it knows looks
//  cheaper than one that it does not: hence generic plans. A range whose ends are parameters looks
//  to such a plan like a part of the whole table, worth the start of other processes, or a plan
//  that is compiled first, for 100 ms each time: hence no workers and no JIT.
//
//  The backend of a connection that broke may still be at work: it is ended, and waited for, before
//  anything else.

static void
s_send_set_up (postgres_t *self)
{
    PQenterPipelineMode (self->connection);
    if (*self->pid) {
        const char *const old[] = {self->pid, self->started};
        PQsendQueryParams (self->connection,
                           "SELECT pg_terminate_backend(pid, 4000) FROM pg_stat_activity"
                           " WHERE pid = $1::integer"
                           " AND extract(epoch FROM backend_start)::text = $2",
                           2, NULL, old, NULL, NULL, 0);
    }
    char lock[16];
    char statement[16];
    snprintf (lock, sizeof (lock), "%d", self->limits.lock_ms);
    snprintf (statement, sizeof (statement), "%d", self->limits.statement_ms);
    const char *const values[] = {self->origin, lock, statement};
    PQsendQueryParams (self->connection,
                       "SELECT set_config('" SCHEMA_ORIGIN "', $1, false),"
                       " set_config('lock_timeout', $2, false),"
                       " set_config('statement_timeout', $3, false),"
                       " set_config('enable_seqscan', 'off', false),"
                       " set_config('enable_sort', 'off', false),"
                       " set_config('plan_cache_mode', 'force_generic_plan', false),"
                       " set_config('max_parallel_workers_per_gather', '0', false),"
                       " set_config('jit', 'off', false)",
                       3, NULL, values, NULL, NULL, 0);
    PQsendQueryParams (self->connection, "LISTEN " SCHEMA_CHANNEL, 0, NULL, NULL, NULL, NULL, 0);
    for (const postgres_statement_t *statement = self->statements; statement->name; statement++)
        PQsendPrepare (self->connection, statement->name, statement->sql, 0, NULL);
    PQsendQueryParams (self->connection,
                       "SELECT pid, extract(epoch FROM backend_start)::text FROM pg_stat_activity"
                       " WHERE pid = pg_backend_pid()",
                       0, NULL, NULL, NULL, NULL, 0);
    postgres_sync (self);
    postgres_flush (self);
}

static void
s_finish_set_up (postgres_t *self)
{
    if (*self->failure) {
        s_fail (self, self->failure);
        return;
    }
    s_set_timer (self, 0, NULL);
    self->retry_ms = RETRY_MIN_MS;
    self->state = UP;
    self->handler->up (self->arg);
}

//  PostgreSQL's sentence, without the statement that libpq shows below it.

static const char *
s_reason (const PGresult *result)
{
    const char *reason = PQresultErrorField (result, PG_DIAG_MESSAGE_PRIMARY);
    return reason ? reason : PQresultErrorMessage (result);
}

//  Whether this is the answer of pg_terminate_backend (), and it waited in vain.

static bool
s_tells_old_backend_alive (const PGresult *result)
{
    return PQresultStatus (result) == PGRES_TUPLES_OK && PQntuples (result) == 1 &&
           streq (PQfname (result, 0), "pg_terminate_backend") && *PQgetvalue (result, 0, 0) == 'f';
}

static void
s_take_set_up_result (postgres_t *self, PGresult *result)
{
    ExecStatusType status = PQresultStatus (result);
    if (status == PGRES_FATAL_ERROR && !*self->failure)
        snprintf (self->failure, sizeof (self->failure), "%s", s_reason (result));
    else if (s_tells_old_backend_alive (result))
        snprintf (self->failure, sizeof (self->failure), "the old backend does not end");
    else if (status == PGRES_TUPLES_OK && PQntuples (result) == 1 && PQnfields (result) == 2 &&
             !*self->failure) { //  Else the old backend is the one to be ended next time, too
        snprintf (self->pid, sizeof (self->pid), "%s", PQgetvalue (result, 0, 0));
        snprintf (self->started, sizeof (self->started), "%s", PQgetvalue (result, 0, 1));
    }
    PQclear (result);
    if (status == PGRES_PIPELINE_SYNC)
        s_finish_set_up (self);
}

static int
s_handle_connect_timeout (zloop_t *loop, int timer, void *arg)
{
    (void) loop;
    postgres_t *self = (postgres_t *) arg;
    if (timer != self->timer)
        return 0;
    self->timer = -1;
    char reason[64];
    snprintf (reason, sizeof (reason), "no answer in %d ms", self->limits.connect_ms);
    s_fail (self, reason);
    return 0;
}

static void
s_poll_connection (postgres_t *self)
{
    switch (PQconnectPoll (self->connection)) {
    case PGRES_POLLING_READING:
        s_watch (self, ZMQ_POLLIN);
        break;
    case PGRES_POLLING_WRITING:
        s_watch (self, ZMQ_POLLOUT);
        break;
    case PGRES_POLLING_OK:
        PQsetnonblocking (self->connection, 1);
        self->state = PREPARING;
        s_send_set_up (self);
        break;
    default:
        s_fail (self, PQerrorMessage (self->connection));
    }
}

static int
s_handle_retry (zloop_t *loop, int timer, void *arg)
{
    (void) loop;
    postgres_t *self = (postgres_t *) arg;
    if (timer != self->timer)
        return 0;
    self->timer = -1;
    *self->failure = 0;
    self->broken = false;
    self->awaited = 0;
    self->connection = s_connect (self->url, self->limits.connect_ms, false);
    if (!self->connection || PQstatus (self->connection) == CONNECTION_BAD)
        s_fail (self, self->connection ? PQerrorMessage (self->connection) : "out of memory");
    else {
        PQsetNoticeReceiver (self->connection, s_ignore_notice, NULL);
        self->state = CONNECTING;
        s_set_timer (self, self->limits.connect_ms, s_handle_connect_timeout);
        s_watch (self, ZMQ_POLLOUT); //  As libpq's manual says: as if it had asked for writing
    }
    return 0;
}

//  Ends the connection and tries anew later. The reason may lie inside of the connection.

static void
s_fail (postgres_t *self, const char *reason)
{
    char copy[512];
    snprintf (copy, sizeof (copy), "%s", reason);
    s_watch (self, 0);
    PQfinish (self->connection);
    self->connection = NULL;
    self->state = WAITING;
    int half_ms = self->retry_ms / 2;
    s_set_timer (self, half_ms + randof (half_ms), s_handle_retry);
    self->retry_ms = 2 * self->retry_ms < RETRY_MAX_MS ? 2 * self->retry_ms : RETRY_MAX_MS;
    copy[strcspn (copy, "\n")] = 0; //  libpq's further lines are guesses
    self->handler->down (self->arg, copy);
}

//  ------------------------------------------------------------------------
//  At work

//  An error without a SQLSTATE is libpq's own: memory is out, or the connection. What PostgreSQL
//  did, and whether it committed that, it does not tell.

static bool
s_is_of_libpq (const PGresult *result)
{
    return PQresultStatus (result) == PGRES_FATAL_ERROR &&
           !PQresultErrorField (result, PG_DIAG_SQLSTATE);
}

//  A prepared statement is of no use any more, because somebody has changed a column's type; only a
//  new connection prepares it anew. The SQLSTATE alone may be a trigger's, which fails one command.

static bool
s_is_outdated (const PGresult *result)
{
    const char *sqlstate = PQresultErrorField (result, PG_DIAG_SQLSTATE);
    const char *function = PQresultErrorField (result, PG_DIAG_SOURCE_FUNCTION);
    return sqlstate && streq (sqlstate, "0A000") && function &&
           streq (function, "RevalidateCachedQuery");
}

//  Takes what has come, until nothing is left or the connection is gone (a handler may end it).

static void
s_take_results (postgres_t *self)
{
    bool gap = false;
    self->taking = true;
    while (self->connection && !PQisBusy (self->connection)) {
        PGresult *result = PQgetResult (self->connection);
        if (!result && gap)
            break;
        gap = !result;
        if (result && PQresultStatus (result) == PGRES_PIPELINE_SYNC)
            self->awaited--;
        if (result && (s_is_of_libpq (result) || (self->state == UP && s_is_outdated (result)))) {
            s_fail (self, PQresultErrorMessage (result));
            PQclear (result);
        }
        else if (result && self->state == UP)
            self->handler->result (self->arg, result);
        else if (result)
            s_take_set_up_result (self, result);
    }
    self->taking = false;
}

static void
s_take_notifications (postgres_t *self)
{
    PGnotify *notification;
    while (self->connection && (notification = PQnotifies (self->connection))) {
        self->handler->notification (self->arg, notification->extra);
        PQfreemem (notification);
    }
}

static int
s_handle_socket (zloop_t *loop, zmq_pollitem_t *item, void *arg)
{
    (void) loop;
    (void) item;
    postgres_t *self = (postgres_t *) arg;
    if (self->state == CONNECTING) {
        s_poll_connection (self);
        return 0;
    }
    //  Results that came before the end are taken first: they may hold the commit
    bool alive = PQconsumeInput (self->connection) == 1;
    self->heard_ms = zclock_mono ();
    s_take_results (self);
    s_take_notifications (self);
    if (self->connection && (!alive || PQstatus (self->connection) == CONNECTION_BAD))
        s_fail (self, PQerrorMessage (self->connection));
    else if (self->connection)
        postgres_flush (self);
    return 0;
}

void
postgres_break (postgres_t *self, const char *reason)
{
    if (self->connection)
        s_fail (self, reason);
}

bool
postgres_is_up (const postgres_t *self)
{
    return self->state == UP;
}

void
postgres_query (postgres_t *self, const char *name, int count, const char *const *values)
{
    self->broken = self->broken ||
                   !PQsendQueryPrepared (self->connection, name, count, values, NULL, NULL, 0);
}

void
postgres_hurry (postgres_t *self)
{
    self->broken = self->broken || !PQsendFlushRequest (self->connection);
}

//  Waits until the connection's socket is ready for the events; returns whether it is by then.

static bool
s_wait_socket (const postgres_t *self, short events, int patience_ms)
{
    zmq_pollitem_t item = {.fd = PQsocket (self->connection), .events = events};
    return zmq_poll (&item, 1, patience_ms) == 1;
}

//  PostgreSQL has been silent for too long, or has to be given more time. It may also have been us
//  who stood still: timers come first in a turn of the loop, and what has come is only looked at
//  behind them.

static int
s_handle_silence (zloop_t *loop, int timer, void *arg)
{
    (void) loop;
    postgres_t *self = (postgres_t *) arg;
    if (timer != self->timer)
        return 0;
    int limit_ms = self->limits.statement_ms + SILENCE_MS;
    int64_t left_ms = self->heard_ms + limit_ms - zclock_mono ();
    self->timer = -1;
    if (self->awaited > 0 && (left_ms > 0 || s_wait_socket (self, ZMQ_POLLIN, 0)))
        s_set_timer (self, left_ms > 0 ? (int) left_ms : SILENCE_MS, s_handle_silence);
    else if (self->awaited > 0) {
        char reason[64];
        snprintf (reason, sizeof (reason), "no answer in %d ms", limit_ms);
        s_fail (self, reason);
    }
    return 0;
}

static void
s_await (postgres_t *self)
{
    if (self->awaited++ == 0)
        self->heard_ms = zclock_mono ();
    if (self->timer < 0)
        s_set_timer (self, self->limits.statement_ms + SILENCE_MS, s_handle_silence);
}

void
postgres_sync (postgres_t *self)
{
    self->broken = self->broken || !PQpipelineSync (self->connection);
    s_await (self);
}

void
postgres_flush (postgres_t *self)
{
    //  That the socket cannot be written to shows when it is read, and then with the server's
    //  reason
    bool more = PQflush (self->connection) == 1;
    //  What was read meanwhile is taken when the socket can be written to: now, or when all is
    //  written
    bool read = self->awaited > 0 && !self->taking && !PQisBusy (self->connection);
    s_watch (self, more || read ? ZMQ_POLLIN | ZMQ_POLLOUT : ZMQ_POLLIN);
    if (self->broken || PQstatus (self->connection) == CONNECTION_BAD)
        s_fail (self, PQerrorMessage (self->connection));
}

postgres_t *
postgres_new (zloop_t *loop, const char *url, const char *origin,
              const postgres_statement_t *statements, postgres_limits_t limits,
              const postgres_handler_t *handler, void *arg)
{
    postgres_t *self = (postgres_t *) zmalloc (sizeof (postgres_t));
    self->loop = loop;
    self->url = url;
    self->origin = origin;
    self->statements = statements;
    self->limits = limits;
    self->handler = handler;
    self->arg = arg;
    self->timer = -1;
    self->retry_ms = RETRY_MIN_MS;
    s_set_timer (self, 0, s_handle_retry);
    return self;
}

void
postgres_destroy (postgres_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        postgres_t *self = *self_p;
        s_set_timer (self, 0, NULL);
        s_watch (self, 0);
        PQfinish (self->connection);
        freen (*self_p);
    }
}

PGconn *
postgres_connect_blocking (const char *url, int timeout_ms, char **error_p)
{
    PGconn *connection = s_connect (url, timeout_ms, true);
    int version = PQserverVersion (connection); //  0 without a connection
    if (version >= POSTGRES_MAJOR_LEAST * 10000)
        return connection;
    const char *reason = connection ? PQerrorMessage (connection) : "out of memory";
    if (version > 0)
        *error_p = zsys_sprintf ("database: this is PostgreSQL %d; the board needs %d or newer",
                                 version / 10000, POSTGRES_MAJOR_LEAST);
    else
        *error_p = zsys_sprintf (
            "database: could not connect: %.*s; start it, or correct database.url",
            (int) strcspn (reason, "\n"), reason);
    PQfinish (connection);
    return NULL;
}

//  ------------------------------------------------------------------------
//  Self test

//  What the connection told, and the process that served it at first
typedef struct {
    postgres_t *postgres;
    zloop_t *loop;
    int ups;
    int downs;
    int syncs;
    char value[64]; //  Of the last row
    char payload[64];
} witness_t;

static const postgres_statement_t s_test_statements[] = {
    {"echo", "SELECT $1::text"},
    {"length", "SELECT length($1)"},
    {"pid", "SELECT pg_backend_pid()"},
    {"sleep", "SELECT pg_sleep(60)"},
    {NULL, NULL},
};

//  Each time that it is up, the witness asks something, and ends the loop when it has the answer.

static void
s_witness_up (void *arg)
{
    witness_t *self = (witness_t *) arg;
    self->ups++;
    const char *const values[] = {"bread"};
    postgres_query (self->postgres, self->ups == 1 ? "pid" : "echo", self->ups > 1, values);
    postgres_sync (self->postgres);
    postgres_flush (self->postgres);
}

static void
s_witness_down (void *arg, const char *reason)
{
    witness_t *self = (witness_t *) arg;
    assert (*reason);
    self->downs++;
}

static void
s_witness_result (void *arg, PGresult *result)
{
    witness_t *self = (witness_t *) arg;
    if (PQresultStatus (result) == PGRES_TUPLES_OK)
        snprintf (self->value, sizeof (self->value), "%s", PQgetvalue (result, 0, 0));
    else if (PQresultStatus (result) == PGRES_PIPELINE_SYNC) {
        self->syncs++;
        zloop_timer (self->loop, 200, 1, scratch_end_loop, NULL);
    }
    PQclear (result);
}

static void
s_witness_notification (void *arg, const char *payload)
{
    witness_t *self = (witness_t *) arg;
    snprintf (self->payload, sizeof (self->payload), "%s", payload);
}

//  An answer that libpq has read while it could not write.

static void
s_test_read_while_writing (postgres_t *postgres, witness_t *witness)
{
    int syncs = witness->syncs;
    const char *const question[] = {"crust"};
    postgres_query (postgres, "echo", 1, question);
    postgres_sync (postgres);
    postgres_flush (postgres);
    bool answered = s_wait_socket (postgres, ZMQ_POLLIN, 10000);
    assert (answered);
    char *large = (char *) zmalloc (300001); //  More than the socket takes, less than twice that
    memset (large, 'c', 300000);
    const char *const values[] = {large};
    postgres_query (postgres, "length", 1, values);
    while (PQflush (postgres->connection) == 1)
        s_wait_socket (postgres, ZMQ_POLLOUT, 10000);
    postgres_flush (postgres);
    assert (!s_wait_socket (postgres, ZMQ_POLLIN, 0)); //  The answer has left the socket
    zloop_start (witness->loop);
    assert (witness->syncs == syncs + 1 && witness->downs == 0 && streq (witness->value, "crust"));
    postgres_sync (postgres);
    postgres_flush (postgres);
    zloop_start (witness->loop);
    assert (witness->syncs == syncs + 2 && streq (witness->value, "300000"));
    zstr_free (&large);
}

static void
s_test_reconnect (const scratch_t *scratch)
{
    static const postgres_handler_t handler = {s_witness_up, s_witness_down, s_witness_result,
                                               s_witness_notification};
    witness_t witness = {.loop = zloop_new ()};
    zloop_set_nonstop (witness.loop, true);
    witness.postgres = postgres_new (witness.loop, scratch_url (scratch), "origin",
                                     s_test_statements, scratch_limits, &handler, &witness);
    zloop_start (witness.loop);
    assert (postgres_is_up (witness.postgres) && witness.ups == 1 && witness.syncs == 1);
    char pid[sizeof (witness.value)];
    snprintf (pid, sizeof (pid), "%s", witness.value);
    s_test_read_while_writing (witness.postgres, &witness);

    //  Somebody ends the backend; the connection comes back, and its statements with it
    char sql[128];
    snprintf (sql, sizeof (sql), "SELECT pg_terminate_backend(%s)", pid);
    char *ended = scratch_sql (scratch, sql);
    assert (streq (ended, "t"));
    zstr_free (&ended);
    zloop_start (witness.loop);
    assert (witness.downs == 1 && witness.ups == 2 && streq (witness.value, "bread"));

    scratch_run (scratch, "NOTIFY " SCHEMA_CHANNEL ", 'crumbs'");
    zloop_timer (witness.loop, 200, 1, scratch_end_loop, NULL);
    zloop_start (witness.loop);
    assert (streq (witness.payload, "crumbs"));
    postgres_destroy (&witness.postgres);
    postgres_destroy (&witness.postgres);
    zloop_destroy (&witness.loop);
}

//  While the loop stood still, its time came for a timer that breaks the connection, and for the
//  one of the silence behind it, which that ends.

static int
s_stand_still (zloop_t *loop, int timer, void *arg)
{
    (void) loop;
    (void) timer;
    (void) arg;
    zclock_sleep (800);
    return 0;
}

static int
s_break (zloop_t *loop, int timer, void *arg)
{
    (void) loop;
    (void) timer;
    postgres_break (((witness_t *) arg)->postgres, "for a test");
    return 0;
}

static void
s_late_up (void *arg)
{
    witness_t *self = (witness_t *) arg;
    if (self->ups++ > 0) {
        zloop_timer (self->loop, 200, 1, scratch_end_loop, NULL);
        return;
    }
    zloop_timer (self->loop, SILENCE_MS / 2, 1, s_stand_still, NULL);
    zloop_timer (self->loop, SILENCE_MS, 1, s_break, self);
    postgres_query (self->postgres, "sleep", 0, NULL);
    postgres_sync (self->postgres);
    postgres_flush (self->postgres);
}

static void
s_test_late_timer (const scratch_t *scratch)
{
    static const postgres_handler_t handler = {s_late_up, s_witness_down, s_witness_result,
                                               s_witness_notification};
    static const postgres_limits_t limits = {5000, 0, 300}; //  A statement may take for ever
    witness_t witness = {.loop = zloop_new ()};
    zloop_set_nonstop (witness.loop, true);
    witness.postgres = postgres_new (witness.loop, scratch_url (scratch), "origin",
                                     s_test_statements, limits, &handler, &witness);
    zloop_start (witness.loop);
    assert (witness.downs == 1 && witness.ups == 2 && postgres_is_up (witness.postgres));
    postgres_destroy (&witness.postgres);
    zloop_destroy (&witness.loop);
}

void
postgres_test (bool verbose)
{
    printf (" * postgres: ");
    if (verbose)
        printf ("\n");
    char *error = NULL;
    PGconn *connection = postgres_connect_blocking ("host=/nowhere", 1000, &error);
    assert (!connection && error && strstr (error, "could not connect"));
    zstr_free (&error);

    scratch_t *scratch = scratch_new ();
    connection = postgres_connect_blocking (scratch_url (scratch), 1000, &error);
    assert (connection);
    PQfinish (connection);
    s_test_reconnect (scratch);
    s_test_late_timer (scratch);
    scratch_destroy (&scratch);
    printf ("OK\n");
}
