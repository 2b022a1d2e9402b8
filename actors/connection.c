#include "actors/connection.h"
#include "actors/metrics.h"

#include <sys/socket.h>
#include <unistd.h>

connection_t *
connection_new (uint64_t id, int descriptor)
{
    connection_t *self = (connection_t *) zmalloc (sizeof (connection_t));
    self->id = id;
    self->descriptor = descriptor;
    return self;
}

void
connection_destroy (connection_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        connection_t *self = *self_p;
        assert (!self->audience);
        parcel_destroy (&self->sending);
        zlistx_destroy (&self->queue);
        reassembly_destroy (&self->reassembly);
        close (self->descriptor);
        freen (*self_p);
    }
}

bool
connection_behind (const connection_t *self)
{
    return self->sending || self->queue;
}

//  Gives the kernel as much of the parcel as it takes, from offset on. Returns the new offset; a
//  connection that broke is gone, and takes everything.

static size_t
s_write (connection_t *self, const parcel_t *parcel, size_t offset)
{
    ssize_t rc = send (self->descriptor, parcel->data + offset, parcel->size - offset,
                       MSG_DONTWAIT | MSG_NOSIGNAL);
    if (rc < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
        self->gone = true;
        return parcel->size;
    }
    return rc < 0 ? offset : offset + (size_t) rc;
}

//  Sends the parcel when nothing is before it; what the kernel does not take is kept.

static void
s_send_now (connection_t *self, parcel_t *parcel)
{
    size_t sent = s_write (self, parcel, 0);
    metrics_add (METRICS_FRAMES_SENT, 1);
    metrics_add (METRICS_BYTES_SENT, (int64_t) parcel->size);
    if (sent < parcel->size) {
        self->sending = parcel_ref (parcel);
        self->sent = sent;
    }
}

void
connection_show (connection_t *self, parcel_t *page)
{
    if (self->closing_ms)
        return;
    if (connection_behind (self)) {
        if (!self->stale)
            metrics_add (METRICS_CONNECTIONS_STALE, 1);
        self->stale = true;
    }
    else {
        self->stale = false;
        s_send_now (self, page);
    }
}

static void
s_free_parcel (void **parcel_p)
{
    parcel_destroy ((parcel_t **) parcel_p);
}

int
connection_send (connection_t *self, parcel_t *frame)
{
    if (!connection_behind (self)) {
        s_send_now (self, frame);
        return 0;
    }
    if (!self->queue) {
        self->queue = zlistx_new ();
        zlistx_set_destructor (self->queue, s_free_parcel);
    }
    if (zlistx_size (self->queue) >= CONNECTION_QUEUE)
        return -1;
    zlistx_add_end (self->queue, parcel_ref (frame));
    return 0;
}

void
connection_forget (connection_t *self)
{
    zlistx_destroy (&self->queue);
    self->stale = false;
}

//  Sends the rest of what the kernel took a part of. Returns whether nothing is left of it.

static bool
s_finish_sending (connection_t *self)
{
    if (self->sending) {
        self->sent = s_write (self, self->sending, self->sent);
        if (self->sent < self->sending->size)
            return false;
        parcel_destroy (&self->sending);
    }
    return true;
}

void
connection_flush (connection_t *self, parcel_t *page)
{
    while (s_finish_sending (self) && self->queue) {
        parcel_t *next = (parcel_t *) zlistx_detach (self->queue, NULL);
        if (zlistx_size (self->queue) == 0)
            zlistx_destroy (&self->queue);
        s_send_now (self, next);
        parcel_destroy (&next);
    }
    if (self->stale && page && !connection_behind (self))
        connection_show (self, page);
}

//  ------------------------------------------------------------------------
//  Self test

static parcel_t *
s_parcel_new (char fill, size_t size)
{
    zframe_t *frame = zframe_new (NULL, size);
    memset (zframe_data (frame), fill, size);
    return parcel_new (&frame);
}

//  Reads all that has arrived; returns how many bytes, and the last of them in *last_p.

static size_t
s_drain (int descriptor, char *last_p)
{
    char buffer[65536];
    size_t size = 0;
    ssize_t rc;
    while ((rc = recv (descriptor, buffer, sizeof (buffer), MSG_DONTWAIT)) > 0) {
        size += (size_t) rc;
        *last_p = buffer[rc - 1];
    }
    return size;
}

static void
s_test_slow_reader (void)
{
    int ends[2];
    int rc = socketpair (AF_UNIX, SOCK_STREAM, 0, ends);
    assert (rc == 0);
    connection_t *self = connection_new (1, ends[0]);
    parcel_t *large = s_parcel_new ('a', 1024 * 1024);
    parcel_t *newest = s_parcel_new ('z', 100);
    parcel_t *answer = s_parcel_new ('b', 10);

    connection_show (self, large); //  More than the kernel takes
    assert (connection_behind (self) && !self->stale);
    connection_show (self, large); //  Missed, and made up for by the newest
    assert (self->stale && large->references == 2);
    rc = connection_send (self, answer);
    assert (rc == 0 && answer->references == 2);

    char last = 0;
    size_t size = 0;
    while (connection_behind (self)) {
        size += s_drain (ends[1], &last);
        connection_flush (self, newest);
    }
    size += s_drain (ends[1], &last);
    assert (size == 1024 * 1024 + 10 + 100 && last == 'z');
    assert (!self->stale && large->references == 1 && answer->references == 1);
    assert (!self->queue); //  At rest it holds nothing

    connection_show (self, large);
    for (int index = 0; index < CONNECTION_QUEUE; index++)
        assert (connection_send (self, answer) == 0);
    assert (connection_send (self, answer) == -1); //  Its queue is bounded
    close (ends[1]);
    connection_flush (self, newest);
    assert (self->gone);
    connection_destroy (&self);
    connection_destroy (&self);
    parcel_destroy (&large);
    parcel_destroy (&newest);
    parcel_destroy (&answer);
}

void
connection_test (bool verbose)
{
    printf (" * connection: ");
    if (verbose)
        printf ("%zu bytes at rest\n", sizeof (connection_t));
    s_test_slow_reader ();
    printf ("OK\n");
}
