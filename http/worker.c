//  Answers carry the sequence number of their question: one that comes after its question was given
//  up is dropped when the next one is asked.
//
//  Sites wait in the worker's own socket until its next request begins; the last one counts.

#include "http/worker.h"

#include "actors/connections.h"
#include "actors/database.h"
#include "actors/metrics.h"
#include "http/request.h"

//  Sockets on their way to one connection thread, from one worker
#define HAND_OVER_QUEUE 1 //  Connection threads say how many more they hold

struct worker {
    pool_t *pool;         //  Borrowed from the server
    int number;           //  From 0
    site_t *site;         //  Our reference
    zsock_t *database;    //  DEALER; owned
    zsock_t *connections; //  PUSH; owned
    uint64_t sequence;    //  Of the last question

    const struct mg_request_info *request; //  Borrowed from civetweb; NULL between requests
    int64_t consumed;                      //  Bytes of the connection up to the end of this request
    bool has_body;                         //  Its body was read to the end
    bool whole;                            //  civetweb has seen the whole head of the request
    bool reserved;      //  We count one WebSocket that no connection thread has yet
    visitor_t *visitor; //  Whose it is; NULL: exempt, or there is none
};

static zsock_t *
s_new_database (void)
{
    zsock_t *database = zsock_new (ZMQ_DEALER);
    assert (database);
    zsock_set_sndtimeo (database, 0);
    zsock_set_sndhwm (database, 1);
    int rc = zsock_connect (database, DATABASE_COMMANDS);
    assert (rc == 0);
    return database;
}

//  Each worker begins with another thread, so that the first sockets do not all go to one.

static zsock_t *
s_new_connections (int threads, int number)
{
    zsock_t *connections = zsock_new (ZMQ_PUSH);
    assert (connections);
    zsock_set_sndtimeo (connections, 0);
    zsock_set_sndhwm (connections, HAND_OVER_QUEUE);
    for (int thread = 0; thread < threads; thread++) {
        int rc = zsock_connect (connections, CONNECTIONS_ENDPOINT, (thread + number) % threads);
        assert (rc == 0);
    }
    return connections;
}

worker_t *
worker_new (pool_t *pool, int number, site_t *site)
{
    worker_t *self = (worker_t *) zmalloc (sizeof (worker_t));
    self->pool = pool;
    self->number = number;
    self->site = site_ref (site);
    self->database = s_new_database ();
    self->connections = s_new_connections (pool->connection_threads, number);
    return self;
}

static void
s_take_site (worker_t *self)
{
    site_t *site = atomic_exchange (&self->pool->sites[self->number], NULL);
    if (site) {
        site_destroy (&self->site);
        self->site = site;
    }
}

void
worker_destroy (worker_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        worker_t *self = *self_p;
        zsock_destroy (&self->connections);
        zsock_destroy (&self->database);
        site_destroy (&self->site);
        freen (*self_p);
    }
}

worker_t *
worker_of (const struct mg_connection *conn)
{
    worker_t *self = (worker_t *) mg_get_thread_pointer (conn);
    assert (self);
    return self;
}

const pool_t *
worker_pool (const worker_t *self)
{
    return self->pool;
}

const site_t *
worker_site (const worker_t *self)
{
    return self->site;
}

const settings_t *
worker_settings (const worker_t *self)
{
    return site_settings (self->site);
}

//  ------------------------------------------------------------------------
//  Connections and requests

void
worker_open (worker_t *self)
{
    self->consumed = 0;
    sweeper_set (self->pool->sweeper, self->number, SWEEPER_HEADER, NULL);
}

void
worker_begin (worker_t *self, const struct mg_request_info *info)
{
    s_take_site (self);
    self->request = info;
    self->has_body = false;
    int64_t size = 0;
    if (info->num_headers > 0 && info->num_headers < MG_MAX_HEADERS)
        size = takeover_header_size (info);
    self->whole = size >= 0;
    self->consumed += size;
    request_trim (info); //  Only now: it changes the bytes that were counted
    if (info->content_length > 0 && info->content_length < INT32_MAX) //  What is more is not read
        self->consumed += info->content_length;
    sweeper_set (self->pool->sweeper, self->number, SWEEPER_ANSWER, info);
}

void
worker_end (worker_t *self, const struct mg_request_info *info)
{
    self->request = NULL;
    worker_dismiss (self);
    sweeper_set (self->pool->sweeper, self->number, SWEEPER_HEADER, info);
}

void
worker_close (worker_t *self)
{
    sweeper_set (self->pool->sweeper, self->number, SWEEPER_IDLE, NULL);
}

const struct mg_request_info *
worker_request (const worker_t *self)
{
    return self->request;
}

bool
worker_has_head (const worker_t *self)
{
    return self->whole;
}

int64_t
worker_consumed (const worker_t *self)
{
    return self->consumed;
}

void
worker_begin_body (worker_t *self)
{
    sweeper_set (self->pool->sweeper, self->number, SWEEPER_BODY, self->request);
}

void
worker_end_body (worker_t *self, bool whole)
{
    self->has_body = whole;
    sweeper_set (self->pool->sweeper, self->number, SWEEPER_ANSWER, self->request);
}

bool
worker_has_body (const worker_t *self)
{
    return self->has_body;
}

int
worker_admit (worker_t *self)
{
    assert (!self->visitor);
    const settings_t *settings = worker_settings (self);
    address_t address = request_address (self->request, settings);
    return doorman_enter (self->pool->doorman, &address, settings, &self->visitor);
}

int
worker_admit_form (worker_t *self, int64_t bytes)
{
    const settings_t *settings = worker_settings (self);
    address_t address = request_address (self->request, settings);
    return doorman_take_form (self->pool->doorman, &address, settings, bytes);
}

//  Two that come for the last place at once may both be refused; never are there too many.

bool
worker_reserve (worker_t *self)
{
    metrics_add (METRICS_CONNECTIONS_OPEN, 1);
    self->reserved = metrics_get (METRICS_CONNECTIONS_OPEN) <= self->pool->max_connections;
    if (!self->reserved)
        metrics_add (METRICS_CONNECTIONS_OPEN, -1);
    return self->reserved;
}

void
worker_dismiss (worker_t *self)
{
    if (self->reserved)
        metrics_add (METRICS_CONNECTIONS_OPEN, -1);
    self->reserved = false;
    visitor_leave (&self->visitor);
}

int
worker_hand_over (worker_t *self, int descriptor, bool subprotocol, int64_t page, uint64_t etag)
{
    assert (self->reserved);
    if (zsock_send (self->connections, "4188p", (uint32_t) descriptor, (uint8_t) subprotocol,
                    (uint64_t) page, etag, self->visitor) != 0) {
        worker_dismiss (self);
        close (descriptor);
        return -1;
    }
    self->reserved = false; //  The connection thread counts it out
    self->visitor = NULL;
    metrics_add (METRICS_CONNECTIONS_TOTAL, 1);
    return 0;
}

//  ------------------------------------------------------------------------
//  The database actor

static reply_t *
s_reply_new (const char *status, const char *text)
{
    reply_t *self = (reply_t *) zmalloc (sizeof (reply_t));
    self->status = strdup (status);
    self->text = strdup (text);
    assert (self->status && self->text);
    return self;
}

void
reply_destroy (reply_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        zstr_free (&(*self_p)->status);
        zstr_free (&(*self_p)->text);
        freen (*self_p);
    }
}

//  Waits for the answer to the last question; NULL when there is none in time.

static reply_t *
s_await (worker_t *self)
{
    reply_t *reply = NULL;
    int64_t give_up = zclock_mono () + WORKER_PATIENCE_MS;
    int64_t left;
    while (!reply && (left = give_up - zclock_mono ()) > 0) {
        zsock_set_rcvtimeo (self->database, (int) left);
        uint64_t sequence = 0;
        reply = (reply_t *) zmalloc (sizeof (reply_t));
        int rc = zsock_recv (self->database, "8s8888s", &sequence, &reply->status, &reply->id,
                             &reply->page, &reply->pages, &reply->etag, &reply->text);
        if (rc != 0 || sequence != self->sequence)
            reply_destroy (&reply);
    }
    return reply;
}

//  Asks, and always returns an answer.

static reply_t *
s_ask (worker_t *self, database_message_t kind, const char *text)
{
    if (zsock_send (self->database, "18s", (uint8_t) kind, ++self->sequence, text) != 0)
        return s_reply_new ("busy", "The board has too much to do just now. Please try again.");
    reply_t *reply = s_await (self);
    return reply ? reply
                 : s_reply_new ("unavailable", "The board gave no answer in time, so it may or may "
                                               "not have done this. Please look, and try again.");
}

reply_t *
worker_ask (worker_t *self, const char *action, json_t **data_p)
{
    json_t *command = json_pack ("{s:s, s:o}", "action", action, "data", *data_p);
    *data_p = NULL;
    char *text = command ? json_dumps (command, JSON_COMPACT) : NULL;
    assert (text);
    json_decref (command);
    reply_t *reply = s_ask (self, DATABASE_REQUEST, text);
    free (text);
    return reply;
}

reply_t *
worker_find (worker_t *self, const char *id)
{
    return s_ask (self, DATABASE_FIND, id);
}

bool
worker_database_ready (worker_t *self)
{
    if (zsock_send (self->database, "18", (uint8_t) DATABASE_READY, ++self->sequence) != 0)
        return false;
    reply_t *reply = s_await (self);
    bool ready = reply && streq (reply->status, "ok");
    reply_destroy (&reply);
    return ready;
}
