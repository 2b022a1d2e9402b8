//  presence - how many are connected to this server, and whether saving is off, in one frame
//             who are told
//
//  thread     one connection thread's
//  cost       nothing while nobody comes or goes, and the database stays. Where many are connected
//             it is renewed less often, so that about PRESENCE_FRAMES frames a second are the most,
//             whatever the coming and going

#ifndef PRESENCE_H_INCLUDED
#define PRESENCE_H_INCLUDED

#include <czmq.h>

#include "actors/parcel.h"
#include "config/site.h"

#define PRESENCE_FRAMES 1000

typedef struct {
    parcel_t *frame;  //  The newest; a reference; NULL: none yet
    uint16_t version; //  Counts the frames; never 0 once there is one
    int64_t open;     //  Connections that it tells of; -1: it is out of date
    bool away;        //  It tells that the database is away
    bool missed;      //  That was away when we last looked
    int64_t next_ms;  //  When it may be renewed
} presence_t;

presence_t *presence_new (void);
void presence_destroy (presence_t **self_p);

//  Renews the frame if what it tells has changed, and if it is time. To be called once a second:
//  the database counts as away when it was so twice in a row.
void presence_renew (presence_t *self, const site_t *site, int64_t now_ms);

//  Templates have changed: it is renewed in any case.
void presence_outdate (presence_t *self);

//  The frame for one connection, by reference; caller owns it.
parcel_t *presence_parcel (const presence_t *self);

void presence_test (bool verbose);

#endif
