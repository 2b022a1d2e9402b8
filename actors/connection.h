//  connection - one open WebSocket: what it owes us, what we owe it
//
//  thread     its connection thread's
//  at rest    this struct and nothing else: input that is unfinished and output that the kernel did
//             not take are kept only for as long as there is some
//  output     is owed first, and sent by connection_flush (), all that is owed in one call. A page
//             is owed as "the newest", so who is behind gets the newest page once it has caught up,
//             not those that it missed; private frames follow it, from a short queue

#ifndef CONNECTION_H_INCLUDED
#define CONNECTION_H_INCLUDED

#include <czmq.h>

#include "actors/parcel.h"
#include "http/doorman.h"
#include "http/meter.h"
#include "http/rate_limit.h"
#include "http/reassembly.h"

//  Private frames that may wait; one more closes the connection with 1013
#define CONNECTION_QUEUE 256

typedef struct connection connection_t;

typedef struct audience audience_t;

struct connection {
    uint64_t id;
    int descriptor;    //  Owned
    uint32_t events;   //  That epoll watches for
    uint32_t place;    //  In its audience
    uint32_t seen;     //  The version of its audience's page that it has got
    uint16_t queued;   //  Parcels in the queue
    uint16_t asked;    //  Requests in breadboard.1 that were not answered yet, or need no answer
    uint16_t presence; //  The version of the presence that it has got; 0: none
    bool stale : 1;    //  Is owed the newest page
    bool paused : 1;   //  Over its rate: not read from
    bool known : 1;    //  The database actor has heard of it
    bool gone : 1;     //  Broken, or done with
    bool doomed : 1;   //  In its thread's list of those to destroy
    bool dirty : 1;    //  In its thread's list of those to flush
    bool shut : 1;     //  Our side is shut down: the close frame has been sent
    bool speaks_breadboard_1 : 1; //  The subprotocol
    audience_t *audience;         //  Borrowed: who looks at the same page
    parcel_t *sending;            //  Of which the kernel took a part; a reference; NULL: none
    size_t sent;                  //  Bytes of it that the kernel took
    parcel_t *first;              //  Of the queue of private frames; owned; NULL: empty
    parcel_t *last;               //  Of the same queue; borrowed
    reassembly_t *reassembly;     //  Unfinished input; owned; NULL: none
    rate_limit_t bucket;          //  Commands that it may send now
    meter_t bytes;                //  That it has sent
    visitor_t *visitor;    //  Whose it is; a reference; NULL: exempt from an address's limits
    int64_t unfinished_ms; //  Since when the client owes the rest of a message; 0: it does not
    int64_t closing_ms;    //  When our close frame was queued; 0: it was not
};

//  Takes the descriptor, which must not block.
connection_t *connection_new (uint64_t id, int descriptor);

void connection_destroy (connection_t **self_p);

//  Queues a private frame, and takes it; nobody else may hold a reference. Returns 0, or -1 when
//  too many wait: then it is destroyed.
int connection_queue (connection_t *self, parcel_t **frame_p);

//  Drops the private frames that wait, and the page that is owed.
void connection_forget (connection_t *self);

//  Sends what is owed, as far as the kernel takes it: the rest of a frame, then page, the newest
//  one, when the connection is stale, then what is queued. What shows a page itself goes before
//  page, with all that was queued before it. Returns how many bytes the kernel took.
size_t connection_flush (connection_t *self, parcel_t *page);

//  The client does not read: what is owed to it keeps no more alive than itself from now on.
void connection_keep (connection_t *self);

//  Whether something is owed.
bool connection_behind (const connection_t *self);

void connection_test (bool verbose);

#endif
