//  audience - the connections of one thread that look at one page, and the newest frame of it
//
//  thread     one connection thread's

#ifndef AUDIENCE_H_INCLUDED
#define AUDIENCE_H_INCLUDED

#include <czmq.h>

#include "actors/connection.h"

struct audience {
    int64_t page;               //  Its number
    parcel_t *newest;           //  The page's newest frame; a reference; NULL: not known yet
    uint64_t etag;              //  Of that
    connection_t **connections; //  Borrowed; in no order
    size_t size;
    size_t capacity;
    uint32_t version;   //  Counts the newest frames
    bool renewed;       //  In its thread's list: some are owed the newest page
    bool walked;        //  All have got it but those who wait for an answer
    int64_t renewed_ms; //  Since when some are owed one
};

audience_t *audience_new (int64_t page);

//  Nobody must be left in it.
void audience_destroy (audience_t **self_p);

//  The connection, which is in no audience, joins this one.
void audience_join (audience_t *self, connection_t *connection);

//  The connection leaves the audience that it is in.
void audience_leave (connection_t *connection);

//  Replaces the page's newest frame.
void audience_keep (audience_t *self, parcel_t *frame, uint64_t etag);

void audience_test (bool verbose);

#endif
