//  database - the actor that alone talks to PostgreSQL: it serialises all BREAD operations,
//             answers each command once, and publishes each page that changed
//
//  thread     its own; started and ended by main
//  takes      DATABASE_COMMANDS  ROUTER, from DEALERs that send without blocking
//             [1: DATABASE_COMMANDS_SENT][8: K][records]   from connection thread K: each record is
//                                                          a database_command_t and its JSON
//             [1: DATABASE_LEFT][8: connection]            the connection is gone
//             [1: DATABASE_HELLO][8: K]                    connection thread K listens; publishes
//                                                          to/K/ and page 1 until that is heard
//             [1: DATABASE_REQUEST][8: sequence][JSON]     from a civetweb thread: same commands
//             [1: DATABASE_FIND][8: sequence][s: id]       from there: what is that message, and on
//                                                          which page?
//             [1: DATABASE_READY][8: sequence]             does PostgreSQL answer?
//  answers    each REQUEST, FIND and READY, on the same socket
//             [8: sequence][s: "ok" or an error code][8: id][8: page][8: pages][8: etag][text]
//             text is the HTML of the list, of the edit form (after a conflict, too), or of the
//             question whether to delete what was found; or what is wrong, in words
//  publishes  DATABASE_PUBLISHED  PUB that does not drop
//             [page/N/][8: pages][8: etag][frame]  page N changed; who was past the last page is on
//                                                  it now. While pages is a guess: INT64_MAX
//             [to/K/][8: 0][8: 0][records]         for connections of thread K: each record is a
//                                                  database_answer_t and its frame; none: answers a
//                                                  HELLO
//  full       once DATABASE_QUEUE commands wait, no more are taken; then DATABASE_SENT zmsgs of
//             each sender wait on their way, and after that its zmq_send fails with EAGAIN: it
//             answers "busy" itself
//  pipe       [SITE][p: site_t reference]                  a reload; the actor owns the reference
//             [DRAIN]                                      signals 0 once nothing waits, or is
//                                                          in doubt

#ifndef DATABASE_H_INCLUDED
#define DATABASE_H_INCLUDED

#include <czmq.h>

#include "config/site.h"

#define DATABASE_COMMANDS  "inproc://database"
#define DATABASE_PUBLISHED "inproc://published"
#define DATABASE_QUEUE     4096 //  Commands that wait inside of the actor
#define DATABASE_SENT      64   //  zmsgs on the way to it, for each sender

//  What a zmsg to the actor is, its first frame
typedef enum {
    DATABASE_COMMANDS_SENT = 1,
    DATABASE_LEFT,
    DATABASE_HELLO,
    DATABASE_REQUEST,
    DATABASE_FIND,
    DATABASE_READY
} database_message_t;

//  What stands before the JSON of a client's command
typedef struct {
    uint64_t connection;
    uint32_t size; //  Of the JSON, in bytes
    uint16_t speaks_breadboard_1;
    uint16_t opens; //  The connection's first "list messages", which its thread wrote
} database_command_t;

//  What stands before the frame of an answer
typedef struct {
    uint64_t connection;
    int64_t page;  //  That the connection is on from now on; 0: where it was
    uint64_t size; //  Of the frame, in bytes; 0: there is none
} database_answer_t;
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
