//  database - the actor that alone talks to PostgreSQL: it serialises all BREAD operations,
//             answers each command once, and publishes each page that changed
//
//  thread     its own; started and ended by main
//  takes      DATABASE_COMMANDS  ROUTER, from DEALERs that send without blocking
//             [1: DATABASE_COMMAND][8: connection][JSON]   from a connection thread
//             [1: DATABASE_LEFT][8: connection]            the connection is gone
//             [1: DATABASE_HELLO][8: K]                    connection thread K listens; publishes
//                                                          to/K/ and page 1 until that is heard
//             [1: DATABASE_REQUEST][8: sequence][JSON]     from a civetweb thread: same commands
//             [1: DATABASE_READY][8: sequence]             does PostgreSQL answer?
//  answers    each REQUEST and READY, on the same socket
//             [8: sequence][s: "ok" or an error code][8: id][8: page][8: pages][text]
//             text is the list's or the edit form's HTML (after a conflict, too), or what is wrong,
//             in words
//  publishes  DATABASE_PUBLISHED  PUB that does not drop; each zmsg is [s: topic][8][8][frame]
//             [page/N/][8: etag][8: pages][frame]          page N changed; who was past the last page
//                                                          is on it now
//             [to/K/][8: connection][8: page][frame]       for one connection of thread K: moves it
//                                                          to the page (0: stays) and sends it the
//                                                          frame; connection 0: answers a HELLO
//  full       DATABASE_COMMANDS takes DATABASE_QUEUE zmsgs of each sender; after that the sender's
//             zmq_send fails with EAGAIN, and it answers "busy" itself
//  pipe       [SITE][p: site_t reference]                  a reload; the actor owns the reference
//             [DRAIN]                                      signals 0 once nothing waits or is in doubt

#ifndef DATABASE_H_INCLUDED
#define DATABASE_H_INCLUDED

#include <czmq.h>

#include "config/site.h"

#define DATABASE_COMMANDS  "inproc://database"
#define DATABASE_PUBLISHED "inproc://published"
#define DATABASE_QUEUE     4096

//  What a zmsg to the actor is, its first frame
typedef enum {
    DATABASE_COMMAND = 1,
    DATABASE_LEFT,
    DATABASE_HELLO,
    DATABASE_REQUEST,
    DATABASE_READY
} database_message_t;
//  Starts the actor: connects to the database that url names (a libpq connection string), makes or
//  upgrades its schema, and reads page 1. Takes a reference to the site in any case. Returns the
//  actor, or NULL, and then *error_p is a sentence that says what to do, caller's to free. Caller
//  owns the actor and ends it, thread included, with zactor_destroy ().
zactor_t *database_new (site_t *site, const char *url, char **error_p);

//  Reloads the actor's site.
void database_reload (zactor_t *self, site_t *site);

//  Waits until each command that was sent so far is answered; what is in doubt by then, and cannot
//  be settled in a second, is told to come back.
void database_drain (zactor_t *self);

void database_test (bool verbose);

#endif
