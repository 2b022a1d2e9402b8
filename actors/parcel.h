//  parcel - a ready frame that many connections of one thread send: counted, not copied
//
//  thread     one connection thread's; so the count needs no atomics

#ifndef PARCEL_H_INCLUDED
#define PARCEL_H_INCLUDED

#include <czmq.h>

typedef struct {
    zframe_t *frame; //  Owned
    const byte *data;
    size_t size;
    size_t references;
} parcel_t;

//  Takes the frame; returns the first reference.
parcel_t *parcel_new (zframe_t **frame_p);

//  One more reference; each ends with parcel_destroy ().
parcel_t *parcel_ref (parcel_t *self);

void parcel_destroy (parcel_t **self_p);

void parcel_test (bool verbose);

#endif
