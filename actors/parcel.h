//  parcel - a ready frame that many connections of one thread send: counted, not copied
//
//  thread     one connection thread's; so the count needs no atomics

#ifndef PARCEL_H_INCLUDED
#define PARCEL_H_INCLUDED

#include <czmq.h>

typedef struct parcel parcel_t;

struct parcel {
    const byte *data; //  Borrowed from frame or whole
    size_t size;
    size_t references;
    zframe_t *frame; //  Owned; NULL for a part
    parcel_t *whole; //  A reference to what this is a part of; NULL for a whole
    bool shows_page; //  A private frame with a page in it, which a newer one must not overtake
    parcel_t *next;  //  In the queue of a connection; owned by the queue
};

//  Takes the frame; returns the first reference.
parcel_t *parcel_new (zframe_t **frame_p);

//  A part of another parcel, which lives as long as its parts. Returns the first reference.
parcel_t *parcel_new_part (parcel_t *whole, const byte *data, size_t size);

//  Gives a part bytes of its own, so that it no longer keeps the rest alive. Nothing happens to
//  others.
void parcel_keep (parcel_t *self);

//  One more reference; each ends with parcel_destroy ().
parcel_t *parcel_ref (parcel_t *self);

void parcel_destroy (parcel_t **self_p);

void parcel_test (bool verbose);

#endif
