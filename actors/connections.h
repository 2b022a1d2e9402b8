//  connections - the actor, one of K, that owns a share of the open WebSockets: only it reads them
//                and writes to them
//
//  thread     its own; started and ended by main
//  takes      CONNECTIONS_ENDPOINT  PULL, from civetweb threads
//             [4: descriptor][1: speaks breadboard.1][8: page][8: etag][p: visitor_t reference]
//             the socket and whose it is (NULL: exempt), given away, counted in
//             METRICS_CONNECTIONS_OPEN by whoever sends it, counted out by the actor; the page that
//             it opens on, and the state that the client has of it
//             DATABASE_PUBLISHED    SUB to page/ and to/K/
//  sends      DATABASE_COMMANDS     see there
//  full       a civetweb thread's send fails with EAGAIN: it closes the socket
//  pipe       [SITE][p: site_t reference]   a reload; the actor owns the reference
//             [QUIET]                       stop reading from clients; signals 0
//             [DRAIN]                       close all with 1001; signals 0 when all are gone

#ifndef CONNECTIONS_H_INCLUDED
#define CONNECTIONS_H_INCLUDED

#include <czmq.h>

#include "config/site.h"

//  A printf format for the thread's number, 0 to K - 1
#define CONNECTIONS_ENDPOINT    "inproc://connections/%d"
#define CONNECTIONS_THREADS_MAX 255
//  A connection's id names its thread, so that an answer finds its way
#define CONNECTIONS_THREAD(connection) ((int) ((connection) % (CONNECTIONS_THREADS_MAX + 1)))

//  Starts thread number; the database actor must run. Takes a reference to the site in any case.
//  Returns once everything that is published reaches the thread, and page 1 has; or NULL when its
//  endpoint is taken or the database actor is silent (logged). Caller owns it and ends it, thread
//  included, with zactor_destroy ().
zactor_t *connections_new (int number, site_t *site);

//  Reloads the site of the actor.
void connections_reload (zactor_t *self, site_t *site);

//  Stops reading from clients; what they sent so far has been forwarded when this returns.
void connections_quiet (zactor_t *self);

//  Has each of count actors send what has been published so far and tell its clients that the
//  server goes away (1001), and waits until they are gone, at most 1 s.
void connections_drain (zactor_t **actors, int count);

//  The close frame that sends a client away for now (1001, 1013). Its reason ends in the seconds
//  within which to come back, at a random moment: "spread=S", so many that about 1,000 come in
//  each. Any thread; caller owns it.
zframe_t *connections_farewell (uint16_t code, const char *reason);

void connections_test (bool verbose);

#endif
