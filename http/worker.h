//  worker - what one of civetweb's threads owns: its sockets to the actors, its site, its request
//
//  thread     made, used and destroyed by the thread itself
//  sends      DATABASE_COMMANDS     DEALER  REQUEST, FIND and READY, one at a time
//             CONNECTIONS_ENDPOINT  PUSH    a socket taken over; all K take turns
//  takes      the newest site, with each request, out of the pool
//  full       a request is answered "busy", a socket taken over is closed

#ifndef WORKER_H_INCLUDED
#define WORKER_H_INCLUDED

#include <civetweb.h>
#include <czmq.h>
#include <jansson.h>
#include <stdatomic.h>

#include "config/site.h"
#include "http/doorman.h"
#include "http/sweeper.h"
#include "http/takeover.h"

#define WORKERS_MAX 256

//  The longest that a worker waits for the database actor
#define WORKER_PATIENCE_MS 2000

//  What the workers share: made by the server before the first of them
typedef struct {
    int connection_threads;  //  K
    int64_t max_connections; //  WebSockets at once
    bool loopback;           //  We listen on a loopback address
    takeover_t *takeover;    //  Borrowed from the server; never changes
    doorman_t *doorman;      //  Borrowed from main; has a lock of its own
    sweeper_t *sweeper;      //  Borrowed from the server; a worker writes its own row
    atomic_bool draining;    //  Set by the server: no connection is kept
    //  For each worker the newest site, until it takes that; whoever takes one out owns the
    //  reference. Not a socket: a thread that has nothing to do would let all reloads pile up there
    _Atomic (site_t *) sites[WORKERS_MAX];
} pool_t;

//  The database actor's answer
typedef struct {
    char *status; //  "ok", or an error code of the contract
    uint64_t id;
    uint64_t page;
    uint64_t pages;
    uint64_t etag; //  Of the page
    char *text;    //  HTML, or what is wrong in words
} reply_t;

typedef struct worker worker_t;

//  Borrows the pool, takes a reference to the site.
worker_t *worker_new (pool_t *pool, int number, site_t *site);

//  Takes NULL.
void worker_destroy (worker_t **self_p);

//  The worker that handles the connection.
worker_t *worker_of (const struct mg_connection *conn);

const pool_t *worker_pool (const worker_t *self);

//  The site and its settings, the same from a request's begin to its end.
const site_t *worker_site (const worker_t *self);
const settings_t *worker_settings (const worker_t *self);

//  A connection's and a request's begin and end, told by civetweb's callbacks.
void worker_open (worker_t *self);
void worker_begin (worker_t *self, const struct mg_request_info *info);
void worker_end (worker_t *self, const struct mg_request_info *info);
void worker_close (worker_t *self);

//  The current request, NULL outside of one: what civetweb could not parse has none.
const struct mg_request_info *worker_request (const worker_t *self);

//  Whether civetweb has seen all lines of the request's head: it stops at one that is no header.
bool worker_has_head (const worker_t *self);

//  Bytes of the connection up to the end of the current request.
int64_t worker_consumed (const worker_t *self);

//  Marks that the request's body is read from now on, or that this is over; whole: to its end.
void worker_begin_body (worker_t *self);
void worker_end_body (worker_t *self, bool whole);

//  Whether the body was read to its end.
bool worker_has_body (const worker_t *self);

//  Asks the doorman for one more WebSocket of the request's client, or for its form, of whose body
//  so many bytes will be read. Returns 0, or after how many seconds the client may ask again. Until
//  worker_hand_over () has passed a WebSocket on, the request's end counts it out again.
int worker_admit (worker_t *self);
int worker_admit_form (worker_t *self, int64_t bytes);

//  Counts one more WebSocket, unless there are max_connections. Until worker_hand_over () has
//  passed it on, the request's end counts it out again.
bool worker_reserve (worker_t *self);

//  Counts the request's WebSocket out again, if it was counted in. Whoever refuses it calls this
//  before the answer goes: a client that has read it may come again at once, and finds its place.
void worker_dismiss (worker_t *self);

//  Gives a socket that was taken over to a connection thread, which opens it on the page of which
//  the client has the state that etag names (0: none). Closes it, and returns -1, when that
//  thread's queue is full.
int worker_hand_over (worker_t *self, int descriptor, bool subprotocol, int64_t page,
                      uint64_t etag);

//  Sends a command of the contract to the database actor and waits for the answer. Takes data in
//  any case. Always returns an answer, caller's to destroy: "busy" when the actor's queue is full,
//  "unavailable" when it has not answered in time.
reply_t *worker_ask (worker_t *self, const char *action, json_t **data_p);

//  The same for a question about the message with this id, in digits: the page that it is on, and
//  the HTML that asks whether to delete it.
reply_t *worker_find (worker_t *self, const char *id);

void reply_destroy (reply_t **self_p);

//  Whether PostgreSQL answers.
bool worker_database_ready (worker_t *self);

#endif
