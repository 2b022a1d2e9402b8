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
parcel_new_part (parcel_t *whole, const byte *data, size_t size)
{
    assert (data >= whole->data && data + size <= whole->data + whole->size);
    parcel_t *self = (parcel_t *) zmalloc (sizeof (parcel_t));
    self->whole = parcel_ref (whole);
    self->data = data;
    self->size = size;
    self->references = 1;
    return self;
}

void
parcel_keep (parcel_t *self)
{
    if (self->whole) {
        self->frame = zframe_new (self->data, self->size);
        self->data = zframe_data (self->frame);
        parcel_destroy (&self->whole);
    }
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
            parcel_destroy (&self->whole);
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
    zframe_t *frame = zframe_new ("breadboard", 10);
    parcel_t *self = parcel_new (&frame);
    assert (!frame && self->size == 10 && memcmp (self->data, "breadboard", 10) == 0);
    parcel_t *other = parcel_ref (self);
    parcel_destroy (&self);
    assert (!self && memcmp (other->data, "bread", 5) == 0); //  Lives as long as anybody holds it

    parcel_t *part = parcel_new_part (other, other->data + 5, 5);
    assert (other->references == 2);
    parcel_keep (other);
    parcel_t *kept = parcel_new_part (other, other->data, 5);
    parcel_keep (kept);
    parcel_keep (kept);
    assert (other->references == 2 && kept->size == 5 && memcmp (kept->data, "bread", 5) == 0);
    parcel_destroy (&other);
    parcel_destroy (&kept);
    assert (part->size == 5 && memcmp (part->data, "board", 5) == 0);
    parcel_destroy (&part);
    parcel_destroy (&part);
    printf ("OK\n");
}
