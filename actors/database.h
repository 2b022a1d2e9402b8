//  database - the actor that alone talks to PostgreSQL: it serialises all BREAD operations,
//             answers each command once, and publishes each page that changed
//
//  thread     its own; started and ended by main
//  takes      DATABASE_COMMANDS  ROUTER, from DEALERs that send without blocking
//             [1: DATABASE_COMMAND][8: connection][JSON]   from a connection thread
//             [1: DATABASE_LEFT][8: connection]            the connection is gone
//             [1: DATABASE_REQUEST][8: sequence][JSON]     from a civetweb thread: same commands
//             [1: DATABASE_READY][8: sequence]             does PostgreSQL answer?
//  answers    each REQUEST and READY, on the same socket
//             [8: sequence][s: "ok" or an error code][8: id][8: page][8: pages][text]
//             text is the list's or the edit form's HTML, or what is wrong, in words
//  publishes  DATABASE_PUBLISHED  PUB that does not drop
//             [page/N/][s: etag][8: pages][frame]          page N changed; pages past the last one
//                                                          have become the last one
//             [to/K/][8: connection][8: page][frame]       for one connection of thread K: moves it
//                                                          to the page (0: stays) and sends the
//                                                          frame (empty: none)
//             [probe/]                                     at start, until all threads listen
//  full       DATABASE_COMMANDS takes DATABASE_QUEUE zmsgs of each sender; after that the sender's
//             zmq_send fails with EAGAIN, and it answers "busy" itself
//  pipe       [SITE][p: site_t reference]                  a reload; the actor owns the reference

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
    DATABASE_REQUEST,
    DATABASE_READY
} database_message_t;

