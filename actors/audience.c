//  The connections lie in one array, so that a fan-out walks memory in order; whoever leaves is
//  replaced by the last one, and each connection knows its place.

#include "actors/audience.h"

audience_t *
audience_new (int64_t page)
{
    audience_t *self = (audience_t *) zmalloc (sizeof (audience_t));
    self->page = page;
    return self;
}

void
audience_destroy (audience_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        audience_t *self = *self_p;
        assert (self->size == 0);
        parcel_destroy (&self->newest);
        freen (self->connections);
        freen (*self_p);
    }
}

static void
s_resize (audience_t *self, size_t capacity)
{
    self->connections = (connection_t **) realloc (self->connections,
                                                   capacity * sizeof (connection_t *));
    assert (self->connections); //  As zmalloc does
    self->capacity = capacity;
}

void
audience_join (audience_t *self, connection_t *connection)
{
    assert (!connection->audience);
    if (self->size == self->capacity)
        s_resize (self, self->capacity ? 2 * self->capacity : 4);
    connection->audience = self;
    connection->place = (uint32_t) self->size;
    self->connections[self->size++] = connection;
}

void
audience_leave (connection_t *connection)
{
    audience_t *self = connection->audience;
    assert (self && self->connections[connection->place] == connection);
    connection_t *last = self->connections[--self->size];
    self->connections[connection->place] = last;
    last->place = connection->place;
    connection->audience = NULL;
    if (self->capacity > 4 && self->size <= self->capacity / 4)
        s_resize (self, self->capacity / 2);
}

void
audience_keep (audience_t *self, parcel_t *frame, uint64_t etag)
{
    parcel_t *old = self->newest;
    self->newest = parcel_ref (frame);
    self->etag = etag;
    self->version++;
    parcel_destroy (&old);
}

//  ------------------------------------------------------------------------
//  Self test

void
audience_test (bool verbose)
{
    printf (" * audience: ");
    if (verbose)
        printf ("\n");
    audience_t *self = audience_new (7);
    connection_t connections[40] = {{.id = 0}};
    for (size_t index = 0; index < 40; index++)
        audience_join (self, &connections[index]);
    assert (self->size == 40 && self->connections[39] == &connections[39]);
    audience_leave (&connections[3]);
    assert (self->size == 39 && !connections[3].audience);
    assert (self->connections[3] == &connections[39] && connections[39].place == 3);

    zframe_t *frame = zframe_new ("page", 4);
    parcel_t *parcel = parcel_new (&frame);
    audience_keep (self, parcel, 1);
    audience_keep (self, parcel, 2); //  The same once more
    assert (parcel->references == 2 && self->version == 2 && self->etag == 2);
    parcel_destroy (&parcel);
    assert (self->newest->references == 1);

    for (size_t index = 0; index < 40; index++)
        if (connections[index].audience)
            audience_leave (&connections[index]);
    assert (self->size == 0 && self->capacity <= 4);
    audience_destroy (&self);
    audience_destroy (&self);
    printf ("OK\n");
}
