//  metrics - counters and gauges that any thread adds to, and their Prometheus text
//
//  thread     any; C11 atomics, relaxed: the one thing that threads share and change

#ifndef METRICS_H_INCLUDED
#define METRICS_H_INCLUDED

#include <czmq.h>

//  One line for each metric in metrics.c gives its name, type and help.
typedef enum {
    METRICS_CONNECTIONS_OPEN,    //  Gauge: WebSockets, counted from the handshake on
    METRICS_CONNECTIONS_TOTAL,   //  WebSockets taken over
    METRICS_CONNECTIONS_REFUSED, //  Handshakes answered 403, 429 or 503
    METRICS_ADDRESS_REFUSED,    //  Handshakes and forms answered 429: their address is over a limit
    METRICS_CONNECTIONS_STALE,  //  Times that a connection fell behind
    METRICS_CONNECTIONS_CUT,    //  Connections closed by us: too slow, dead or in violation
    METRICS_CONNECTIONS_PAUSED, //  Times that one was not read from, since it was over a rate
    METRICS_COMMANDS,           //  Commands that the database actor took
    METRICS_COMMANDS_FAILED,    //  Of these, answered with an error
    METRICS_BATCHES,            //  Transactions
    METRICS_PAGES_RENDERED,
    METRICS_FRAMES_SENT, //  Frames sent to clients
    METRICS_BYTES_SENT,  //  Bytes of these
    METRICS_DATABASE_UP, //  Gauge: 1 while the connection to PostgreSQL stands
    METRICS_DATABASE_RECONNECTS,
    METRICS_INDEX_MESSAGES, //  Gauge: messages on the board; -1 while they are counted
    METRICS_INDEX_BYTES,    //  Gauge: memory of the page index
    METRICS_INDEX_REBUILDS, //  Times that it was in doubt as a whole
    METRICS_REQUESTS,       //  HTTP requests
    METRICS_COUNT
} metrics_t;

void metrics_add (metrics_t metric, int64_t amount);
void metrics_set (metrics_t metric, int64_t value);
int64_t metrics_get (metrics_t metric);

//  The Prometheus text format, version 0.0.4; caller frees.
char *metrics_text (void);

void metrics_test (bool verbose);

#endif
