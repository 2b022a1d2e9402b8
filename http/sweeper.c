//  civetweb's thread waits for a client's header as long as request_timeout_ms, so as many clients
//  as there are threads, each silent after its first byte, would close the board to everybody.
//  (Those that send nothing at all never get here: TCP_DEFER_ACCEPT.) When threads become rare,
//  waiting becomes dear: then half a header gets SWEEPER_HEADER_MS, which an honest client needs
//  only when a packet is lost. Connections that wait in civetweb's queue are held to the same, so
//  that however many come at once, they are gone together instead of one after the other.
//
//  civetweb tells no descriptors. They are found as in takeover.c, among the low ones, by local
//  port; the peer's address then tells the row of the table. Who has no row waits in the queue, or
//  is with a thread that has read no request from it yet: civetweb tells the address only with a
//  request.
//
//  A descriptor may be closed, and its number be given to another client, while we look. So what is
//  shut down is a duplicate whose peer was read from itself, and only if that peer's row still says
//  the same. Only the reading side is shut down: should the request have become whole in the last
//  microsecond, it is answered.

#include "http/sweeper.h"

#include "config/log.h"
#include "http/takeover.h"

#include <arpa/inet.h>
#include <stdatomic.h>

//  As much of a waiting request as is looked at
#define PEEK_BYTES 16384

//  A thread's row. Address and time are written before the state, and read after it.
typedef struct {
    _Atomic uint64_t peer; //  Address and port in network order; 0: not known
    _Atomic int64_t since; //  Of the state; monotonic, ms
    atomic_int state;
} row_t;

//  A connection without a row, remembered by its descriptor
typedef struct {
    uint64_t peer;
    int64_t taken; //  Bytes that a thread has read
    int64_t since; //  When that was first seen
} waiting_t;

struct sweeper {
    int threads;
    int base;
    int port;           //  Ours, in network order; set before the actor starts
    row_t *rows;        //  Owned; one for each thread
    waiting_t *waiting; //  Owned, the actor's alone; one for each descriptor below base
    zactor_t *actor;    //  Owned; NULL until started
};

sweeper_t *
sweeper_new (int threads, int base)
{
    sweeper_t *self = (sweeper_t *) zmalloc (sizeof (sweeper_t));
    self->threads = threads;
    self->base = base;
    self->rows = (row_t *) zmalloc ((size_t) threads * sizeof (row_t));
    self->waiting = (waiting_t *) zmalloc ((size_t) base * sizeof (waiting_t));
    return self;
}

void
sweeper_destroy (sweeper_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        sweeper_t *self = *self_p;
        zactor_destroy (&self->actor);
        freen (self->waiting);
        freen (self->rows);
        freen (*self_p);
    }
}

static uint64_t
s_peer_key (uint32_t address, uint16_t port)
{
    return (uint64_t) address << 16 | port;
}

void
sweeper_set (sweeper_t *self, int thread, sweeper_state_t state, const struct mg_request_info *info)
{
    assert (thread >= 0 && thread < self->threads);
    row_t *row = &self->rows[thread];
    struct in_addr address = {0};
    uint64_t peer = 0;
    if (info && inet_pton (AF_INET, info->remote_addr, &address) == 1)
        peer = s_peer_key (address.s_addr, htons ((uint16_t) info->remote_port));
    atomic_store (&row->peer, peer);
    atomic_store (&row->since, zclock_mono ());
    atomic_store (&row->state, (int) state);
}

int
sweeper_busy (const sweeper_t *self)
{
    int busy = 0;
    for (int thread = 0; thread < self->threads; thread++)
        if (atomic_load (&self->rows[thread].state) != SWEEPER_IDLE)
            busy++;
    return busy;
}

int
sweeper_answering (const sweeper_t *self)
{
    int answering = 0;
    for (int thread = 0; thread < self->threads; thread++) {
        int state = atomic_load (&self->rows[thread].state);
        if (state == SWEEPER_BODY || state == SWEEPER_ANSWER)
            answering++;
    }
    return answering;
}

bool
sweeper_crowded (const sweeper_t *self)
{
    return 2 * sweeper_busy (self) > self->threads;
}

//  ------------------------------------------------------------------------
//  The actor

//  The peer of a descriptor that is one of our port's connections, or 0.

static uint64_t
s_client (const sweeper_t *self, int descriptor)
{
    struct sockaddr_in address = {0};
    socklen_t size = sizeof (address);
    if (getsockname (descriptor, (struct sockaddr *) &address, &size) != 0 ||
        address.sin_family != AF_INET || address.sin_port != self->port)
        return 0;
    size = sizeof (address);
    if (getpeername (descriptor, (struct sockaddr *) &address, &size) != 0)
        return 0; //  The listening socket, or a client that is gone
    return s_peer_key (address.sin_addr.s_addr, address.sin_port);
}

static const row_t *
s_row_of (const sweeper_t *self, uint64_t peer)
{
    for (int thread = 0; thread < self->threads; thread++) {
        const row_t *row = &self->rows[thread];
        if (atomic_load (&row->state) != SWEEPER_IDLE && atomic_load (&row->peer) == peer)
            return row;
    }
    return NULL;
}

//  How long a state may last.

static int64_t
s_patience_ms (int state, bool rare)
{
    switch (state) {
    case SWEEPER_HEADER:
        return rare ? SWEEPER_HEADER_MS : INT64_MAX; //  Else civetweb's own time-out holds
    case SWEEPER_BODY:
        return rare ? SWEEPER_BODY_MS : SWEEPER_BODY_MAX_MS;
    default:
        return INT64_MAX;
    }
}

static bool
s_row_overdue (const row_t *row, bool rare, int64_t now)
{
    int state = atomic_load (&row->state);
    return now - atomic_load (&row->since) > s_patience_ms (state, rare);
}

//  Where the header in text ends; NULL when it does not.

static const char *
s_header_end (const char *text)
{
    const char *end = strstr (text, "\r\n\r\n");
    if (end)
        return end + 4;
    end = strstr (text, "\n\n");
    return end ? end + 2 : NULL;
}

//  Whether the kernel holds a whole request for a thread that comes to read it: the header, and as
//  much of a body as the header tells, or more than we look at. A NUL, which belongs in neither,
//  ends what we see.

static bool
s_has_request (int descriptor)
{
    char text[PEEK_BYTES + 1];
    ssize_t size = recv (descriptor, text, PEEK_BYTES, MSG_PEEK | MSG_DONTWAIT);
    if (size <= 0)
        return false;
    text[size] = '\0';
    const char *body = s_header_end (text);
    if (!body || size == PEEK_BYTES)
        return body != NULL;
    const char *length = strcasestr (text, "\nContent-Length:");
    return !length || length > body || strtoll (length + 16, NULL, 10) <= text + size - body;
}

//  A thread that has just read a request, and does not have its row yet, has its time to get there.

static bool
s_waiting_overdue (sweeper_t *self, int descriptor, uint64_t peer, int64_t now)
{
    waiting_t *waiting = &self->waiting[descriptor];
    int64_t received = 0;
    int64_t taken = takeover_taken (descriptor, &received);
    if (waiting->peer != peer || waiting->taken != taken) {
        waiting->peer = peer;
        waiting->taken = taken;
        waiting->since = now;
    }
    return now - waiting->since > SWEEPER_HEADER_MS;
}

static bool
s_overdue (sweeper_t *self, int descriptor, uint64_t peer, bool rare, int64_t now)
{
    const row_t *row = s_row_of (self, peer);
    if (row)
        return s_row_overdue (row, rare, now);
    return rare && s_waiting_overdue (self, descriptor, peer, now);
}

//  Shuts down what is overdue. Returns whether it was so, when looked at again.

static bool
s_cut (sweeper_t *self, int descriptor, uint64_t peer, bool rare, int64_t now)
{
    int duplicate = fcntl (descriptor, F_DUPFD_CLOEXEC, self->base);
    if (duplicate < 0)
        return false;
    bool cut = s_client (self, duplicate) == peer &&
               s_overdue (self, descriptor, peer, rare, now) &&
               (s_row_of (self, peer) || !s_has_request (duplicate));
    if (cut)
        shutdown (duplicate, SHUT_RD);
    close (duplicate);
    return cut;
}

static void
s_sweep (sweeper_t *self, bool rare, int64_t now)
{
    int cut = 0;
    for (int descriptor = 0; descriptor < self->base; descriptor++) {
        uint64_t peer = s_client (self, descriptor);
        if (peer && s_overdue (self, descriptor, peer, rare, now) &&
            s_cut (self, descriptor, peer, rare, now))
            cut++;
    }
    if (cut)
        log_debug ("sweeper: cut off %d clients with half a request", cut);
}

//  An eighth of the threads, or the last one, is left.

static bool
s_rare (const sweeper_t *self)
{
    return sweeper_busy (self) >= self->threads - self->threads / 8;
}

static void
s_tick (sweeper_t *self)
{
    bool rare = s_rare (self);
    int64_t now = zclock_mono ();
    bool wanted = rare;
    for (int thread = 0; thread < self->threads && !wanted; thread++)
        wanted = s_row_overdue (&self->rows[thread], rare, now);
    if (wanted)
        s_sweep (self, rare, now);
    if (!rare)
        memset (self->waiting, 0, (size_t) self->base * sizeof (waiting_t));
}

static void
s_run (zsock_t *pipe, void *args)
{
    sweeper_t *self = (sweeper_t *) args;
    zpoller_t *poller = zpoller_new (pipe, NULL);
    zpoller_set_nonstop (poller, true);
    zsock_signal (pipe, 0);
    while (!zpoller_wait (poller, SWEEPER_TICK_MS))
        s_tick (self);
    zstr_free (&(char *){zstr_recv (pipe)}); //  $TERM is all that ever comes
    zpoller_destroy (&poller);
}

void
sweeper_start (sweeper_t *self, int port)
{
    assert (!self->actor);
    self->port = htons ((uint16_t) port);
    self->actor = zactor_new (s_run, self);
}

//  ------------------------------------------------------------------------
//  Self test: sockets of our own play clients and civetweb's side of their connections

typedef struct {
    int client;
    int server;
    struct mg_request_info info; //  As civetweb would have it
} test_pair_t;

static test_pair_t
s_test_pair (int listener, const struct sockaddr_in *address)
{
    test_pair_t pair = {.client = socket (AF_INET, SOCK_STREAM, 0)};
    int rc = connect (pair.client, (const struct sockaddr *) address, sizeof (*address));
    assert (rc == 0);
    struct sockaddr_in peer;
    socklen_t size = sizeof (peer);
    pair.server = accept (listener, (struct sockaddr *) &peer, &size);
    assert (pair.server >= 0);
    inet_ntop (AF_INET, &peer.sin_addr, pair.info.remote_addr, sizeof (pair.info.remote_addr));
    pair.info.remote_port = ntohs (peer.sin_port);
    return pair;
}

static void
s_test_pair_close (test_pair_t *pair)
{
    close (pair->client);
    close (pair->server);
}

//  Whether the server's side reads the end of the connection.

static bool
s_test_is_cut (const test_pair_t *pair)
{
    char bytes[64];
    ssize_t size;
    do
        size = recv (pair->server, bytes, sizeof (bytes), MSG_DONTWAIT);
    while (size > 0);
    return size == 0;
}

void
sweeper_test (bool verbose)
{
    printf (" * sweeper: ");
    if (verbose)
        printf ("\n");
    int listener = socket (AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl (INADDR_LOOPBACK);
    socklen_t size = sizeof (address);
    int rc = bind (listener, (struct sockaddr *) &address, size);
    assert (rc == 0);
    listen (listener, 8);
    getsockname (listener, (struct sockaddr *) &address, &size);

    sweeper_t *sweeper = sweeper_new (2, 256);
    test_pair_t half = s_test_pair (listener, &address);
    test_pair_t answered = s_test_pair (listener, &address);
    test_pair_t queued = s_test_pair (listener, &address);
    test_pair_t body = s_test_pair (listener, &address);
    test_pair_t whole = s_test_pair (listener, &address);
    send (queued.client, "GET / HT", 8, 0);
    send (body.client, "POST / HTTP/1.0\r\ncontent-length: 2\r\n\r\n1", 39, 0);
    send (whole.client, "POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\n12", 40, 0);
    sweeper_start (sweeper, ntohs (address.sin_port));

    //  One of two threads is taken: nobody is cut
    sweeper_set (sweeper, 0, SWEEPER_HEADER, &half.info);
    assert (sweeper_busy (sweeper) == 1 && sweeper_answering (sweeper) == 0);
    assert (!sweeper_crowded (sweeper));
    zclock_sleep (SWEEPER_HEADER_MS + 3 * SWEEPER_TICK_MS);
    assert (recv (half.server, &(char){0}, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);

    //  Both are taken: who sent half a request is cut, in the queue too; the others are not
    sweeper_set (sweeper, 1, SWEEPER_ANSWER, &answered.info);
    assert (sweeper_busy (sweeper) == 2 && sweeper_answering (sweeper) == 1);
    assert (sweeper_crowded (sweeper));
    zclock_sleep (SWEEPER_HEADER_MS + 4 * SWEEPER_TICK_MS);
    assert (s_test_is_cut (&half));
    assert (s_test_is_cut (&queued) && s_test_is_cut (&body));
    assert (!s_test_is_cut (&answered));
    assert (!s_test_is_cut (&whole));

    //  A body has a little longer
    sweeper_set (sweeper, 1, SWEEPER_BODY, &answered.info);
    zclock_sleep (SWEEPER_HEADER_MS + 3 * SWEEPER_TICK_MS);
    assert (!s_test_is_cut (&answered));
    zclock_sleep (SWEEPER_BODY_MS);
    assert (s_test_is_cut (&answered));

    sweeper_set (sweeper, 0, SWEEPER_IDLE, NULL);
    sweeper_set (sweeper, 1, SWEEPER_IDLE, NULL);
    assert (sweeper_busy (sweeper) == 0 && !sweeper_crowded (sweeper));
    sweeper_destroy (&sweeper);
    sweeper_destroy (&sweeper);
    s_test_pair_close (&half);
    s_test_pair_close (&answered);
    s_test_pair_close (&queued);
    s_test_pair_close (&body);
    s_test_pair_close (&whole);
    close (listener);
    printf ("OK\n");
}
