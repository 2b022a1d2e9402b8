#include "actors/parcel.h"

parcel_t *
parcel_new (zframe_t **frame_p)
{
    parcel_t *self = (parcel_t *) zmalloc (sizeof (parcel_t));
    self->frame = *frame_p;
    *frame_p = NULL;
    self->data = zframe_data (self->frame);
    self->size = zframe_size (self->frame);
    self->references = 1;
    return self;
}

parcel_t *
parcel_ref (parcel_t *self)
{
    self->references++;
    return self;
}

void
parcel_destroy (parcel_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        parcel_t *self = *self_p;
        assert (self->references > 0);
        if (--self->references == 0) {
            zframe_destroy (&self->frame);
            freen (self);
        }
        *self_p = NULL;
    }
}

//  ------------------------------------------------------------------------
//  Self test

void
parcel_test (bool verbose)
{
    printf (" * parcel: ");
    if (verbose)
        printf ("\n");
    zframe_t *frame = zframe_new ("bread", 5);
    parcel_t *self = parcel_new (&frame);
    assert (!frame && self->size == 5 && memcmp (self->data, "bread", 5) == 0);
    parcel_t *other = parcel_ref (self);
    parcel_destroy (&self);
    assert (!self && memcmp (other->data, "bread", 5) == 0); //  Lives as long as anybody holds it
    parcel_destroy (&other);
    parcel_destroy (&other);
    printf ("OK\n");
}
