//  connection - one open WebSocket: what it owes us, what we owe it
//
//  thread     its connection thread's
//  at rest    this struct and nothing else: input that is unfinished and output that the kernel did
//             not take are kept only for as long as there is some
//  output     a page that cannot be sent at once makes it stale: it gets the newest page once it has
//             caught up, not those that it missed; private frames wait in a short queue

#ifndef CONNECTION_H_INCLUDED
#define CONNECTION_H_INCLUDED

#include <czmq.h>

#include "actors/parcel.h"
#include "http/rate_limit.h"
#include "http/reassembly.h"

//  Private frames that may wait; one more closes the connection with 1013
#define CONNECTION_QUEUE 64

typedef struct connection connection_t;

typedef struct audience audience_t;

struct connection {
    uint64_t id;
    int descriptor;           //  Owned
    uint32_t events;          //  That epoll watches for
    uint32_t place;           //  In its audience
    audience_t *audience;     //  Borrowed: who looks at the same page
    parcel_t *sending;        //  Of which the kernel took a part; a reference; NULL: none
    size_t sent;              //  Bytes of it that the kernel took
    zlistx_t *queue;          //  Of parcel_t, to be sent after it; owned; NULL: none
    reassembly_t *reassembly; //  Unfinished input; owned; NULL: none
    rate_limit_t bucket;      //  Commands that it may send now
    int64_t unfinished_ms;    //  Since when the client owes the rest of a message; 0: it does not
    int64_t closing_ms;       //  When our close frame was sent; 0: it was not
    bool stale;               //  Is owed the newest page
    bool paused;              //  Over its rate: not read from
    bool known;               //  The database actor has heard of it
    bool gone;                //  Broken, or done with
    bool doomed;              //  In its thread's list of those to destroy
    bool speaks_breadboard_1; //  The subprotocol
};

//  Takes the descriptor, which must not block.
connection_t *connection_new (uint64_t id, int descriptor);

void connection_destroy (connection_t **self_p);

//  Shows the newest page: sends it now, or marks the connection as stale when it is behind.
void connection_show (connection_t *self, parcel_t *page);

//  Sends a private frame, or puts it behind those that wait. Returns 0, or -1 when too many do.
int connection_send (connection_t *self, parcel_t *frame);

//  Drops the private frames that wait, and the page that is owed.
void connection_forget (connection_t *self);

//  The kernel has room again: sends what waits, and last the page when the connection is stale.
void connection_flush (connection_t *self, parcel_t *page);

//  Whether something waits for the kernel to take it.
bool connection_behind (const connection_t *self);

void connection_test (bool verbose);

#endif
