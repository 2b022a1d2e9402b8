//  bench_libpq - what libpq alone reaches: inserts over one connection, each committed to disk.
//
//  usage: bench_libpq CONNECTION PIPELINE SECONDS
//
//  PIPELINE inserts share a pipeline, a Sync and so a transaction; the next pipeline is sent once
//  the last result of the one before is there. The table is the board's, indexes and triggers and
//  all; its triggers keep silent, as they do for the board's own writes. Prints one JSON object.

#include "tests/bench_wire.h"

#include <libpq-fe.h>

#define PIPELINE_MAX 4096
#define TEXT         "What libpq alone stores, so that there is something to compare the board with"

static void
s_die (PGconn *connection, const char *what)
{
    fprintf (stderr, "bench_libpq: %s: %s", what, PQerrorMessage (connection));
    exit (1);
}

static void
s_expect (PGconn *connection, PGresult *result, ExecStatusType expected, const char *what)
{
    if (PQresultStatus (result) != expected)
        s_die (connection, what);
    PQclear (result);
}

static PGconn *
s_connect (const char *url)
{
    PGconn *connection = PQconnectdb (url);
    if (PQstatus (connection) != CONNECTION_OK)
        s_die (connection, "connect");
    s_expect (connection, PQexec (connection, "SET breadboard.origin = 'bench'"), PGRES_COMMAND_OK,
              "SET");
    s_expect (connection,
              PQprepare (connection, "add",
                         "INSERT INTO messages (author, text, created_at, key)"
                         " VALUES ($1, $2, now(), $3) RETURNING id",
                         3, NULL),
              PGRES_COMMAND_OK, "prepare");
    if (!PQenterPipelineMode (connection))
        s_die (connection, "pipeline mode");
    return connection;
}

//  A random UUID, as the board gives each message that comes without one.

static void
s_make_key (char key[37])
{
    static uint64_t state;
    if (!state)
        state = (uint64_t) wire_now_ns () | 1;
    uint32_t parts[4];
    for (int index = 0; index < 4; index++) {
        state ^= state << 13; //  Marsaglia's xorshift64
        state ^= state >> 7;
        state ^= state << 17;
        parts[index] = (uint32_t) (state >> 16);
    }
    snprintf (key, 37, "%08x-%04x-4%03x-8%03x-%04x%08x", parts[0], parts[1] >> 16, parts[1] & 0xFFF,
              parts[2] >> 20, parts[2] & 0xFFFF, parts[3]);
}

static void
s_send (PGconn *connection, int pipeline)
{
    for (int index = 0; index < pipeline; index++) {
        char key[37];
        s_make_key (key);
        const char *const values[] = {"bench", TEXT, key};
        if (!PQsendQueryPrepared (connection, "add", 3, values, NULL, NULL, 0))
            s_die (connection, "send");
    }
    if (!PQpipelineSync (connection))
        s_die (connection, "sync");
}

static void
s_take (PGconn *connection, int pipeline)
{
    for (int index = 0; index < pipeline; index++) {
        s_expect (connection, PQgetResult (connection), PGRES_TUPLES_OK, "insert");
        PGresult *end = PQgetResult (connection);
        if (end)
            s_die (connection, "more results than statements");
    }
    s_expect (connection, PQgetResult (connection), PGRES_PIPELINE_SYNC, "commit");
}

int
main (int argc, char **argv)
{
    int pipeline = argc == 4 ? atoi (argv[2]) : 0;
    double seconds = argc == 4 ? atof (argv[3]) : 0;
    if (pipeline < 1 || pipeline > PIPELINE_MAX || seconds <= 0) {
        fprintf (stderr, "usage: bench_libpq CONNECTION PIPELINE SECONDS\n");
        return 2;
    }
    PGconn *connection = s_connect (argv[1]);
    int64_t inserts = 0;
    int64_t start_ns = wire_now_ns ();
    double took = 0;
    while (took < seconds) {
        s_send (connection, pipeline);
        s_take (connection, pipeline);
        inserts += pipeline;
        took = (double) (wire_now_ns () - start_ns) / 1e9;
    }
    PQfinish (connection);
    printf ("{\"pipeline\": %d, \"seconds\": %.3f, \"inserts\": %" PRId64
            ", \"inserts_per_second\": %.0f}\n",
            pipeline, took, inserts, (double) inserts / took);
    return 0;
}
