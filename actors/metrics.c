#include "actors/metrics.h"

#include <inttypes.h>
#include <stdatomic.h>

static const struct {
    const char *name; //  NAME_total is a counter, any other a gauge
    const char *help;
} s_metrics[METRICS_COUNT] = {
    [METRICS_CONNECTIONS_OPEN] = {"connections", "Open WebSockets."},
    [METRICS_CONNECTIONS_TOTAL] = {"connections_total", "WebSockets accepted."},
    [METRICS_CONNECTIONS_REFUSED] = {"connections_refused_total", "Handshakes refused."},
    [METRICS_ADDRESS_REFUSED] = {"address_refused_total",
                                 "Handshakes and forms refused, their address over a limit."},
    [METRICS_CONNECTIONS_STALE] = {"connections_stale_total",
                                   "Times that a connection fell behind."},
    [METRICS_CONNECTIONS_CUT] = {"connections_cut_total", "WebSockets closed by the server."},
    [METRICS_CONNECTIONS_PAUSED] = {"connections_paused_total",
                                    "Times that a connection over a rate was made to wait."},
    [METRICS_COMMANDS] = {"commands_total", "Commands taken by the database actor."},
    [METRICS_COMMANDS_FAILED] = {"commands_failed_total", "Commands answered with an error."},
    [METRICS_BATCHES] = {"batches_total", "Batches of commands run on PostgreSQL."},
    [METRICS_PAGES_RENDERED] = {"pages_rendered_total", "Pages of messages rendered."},
    [METRICS_FRAMES_SENT] = {"frames_sent_total", "Frames sent to clients."},
    [METRICS_BYTES_SENT] = {"bytes_sent_total", "Bytes of the frames sent to clients."},
    [METRICS_DATABASE_UP] = {"database_up", "Whether the connection to PostgreSQL stands."},
    [METRICS_DATABASE_RECONNECTS] = {"database_reconnects_total",
                                     "Connections to PostgreSQL made after the first one."},
    [METRICS_INDEX_MESSAGES] = {"page_index_messages",
                                "Messages on the board; -1 while they are counted."},
    [METRICS_INDEX_BYTES] = {"page_index_bytes", "Memory of the page index."},
    [METRICS_INDEX_REBUILDS] = {"page_index_rebuilds_total",
                                "Times that all messages had to be counted anew."},
    [METRICS_REQUESTS] = {"http_requests_total", "HTTP requests."},
};

static atomic_int_least64_t s_values[METRICS_COUNT];

void
metrics_add (metrics_t metric, int64_t amount)
{
    atomic_fetch_add_explicit (&s_values[metric], amount, memory_order_relaxed);
}

void
metrics_set (metrics_t metric, int64_t value)
{
    atomic_store_explicit (&s_values[metric], value, memory_order_relaxed);
}

int64_t
metrics_get (metrics_t metric)
{
    return atomic_load_explicit (&s_values[metric], memory_order_relaxed);
}

char *
metrics_text (void)
{
    zchunk_t *text = zchunk_new (NULL, 4096);
    for (int metric = 0; metric < METRICS_COUNT; metric++) {
        const char *name = s_metrics[metric].name;
        bool counter = strlen (name) > 6 && streq (name + strlen (name) - 6, "_total");
        char *lines = zsys_sprintf ("# HELP breadboard_%s %s\n# TYPE breadboard_%s %s\n"
                                    "breadboard_%s %" PRId64 "\n",
                                    name, s_metrics[metric].help, name,
                                    counter ? "counter" : "gauge", name,
                                    metrics_get ((metrics_t) metric));
        zchunk_extend (text, lines, strlen (lines));
        zstr_free (&lines);
    }
    char *string = zchunk_strdup (text);
    zchunk_destroy (&text);
    return string;
}

//  ------------------------------------------------------------------------
//  Self test

void
metrics_test (bool verbose)
{
    printf (" * metrics: ");
    metrics_set (METRICS_DATABASE_UP, 1);
    metrics_add (METRICS_COMMANDS, 2);
    metrics_add (METRICS_COMMANDS, 3);
    metrics_add (METRICS_CONNECTIONS_OPEN, 1);
    metrics_add (METRICS_CONNECTIONS_OPEN, -1);
    assert (metrics_get (METRICS_COMMANDS) == 5);

    char *text = metrics_text ();
    if (verbose)
        printf ("\n%s", text);
    assert (strstr (text, "# TYPE breadboard_commands_total counter\n"
                          "breadboard_commands_total 5\n"));
    assert (strstr (text, "# TYPE breadboard_connections gauge\nbreadboard_connections 0\n"));
    assert (strstr (text, "breadboard_database_up 1\n"));
    for (int metric = 0; metric < METRICS_COUNT; metric++)
        assert (s_metrics[metric].name && strstr (text, s_metrics[metric].name));
    zstr_free (&text);
    printf ("OK\n");
}
