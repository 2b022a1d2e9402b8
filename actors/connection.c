//  A connection that is at rest and gets a page, by far the most frequent case, costs one send (2).
//  Everything else is gathered into one sendmsg (2), GATHER frames at a time.

#include "actors/connection.h"

#include <sys/socket.h>
#include <unistd.h>

#define GATHER 16

connection_t *
connection_new (uint64_t id, int descriptor)
{
    connection_t *self = (connection_t *) zmalloc (sizeof (connection_t));
    self->id = id;
    self->descriptor = descriptor;
    return self;
}

//  Takes the first parcel out of the queue; NULL when there is none.

static parcel_t *
s_unqueue (connection_t *self)
{
    parcel_t *parcel = self->first;
    if (parcel) {
        self->first = parcel->next;
        parcel->next = NULL;
        self->queued--;
    }
    return parcel;
}

void
connection_forget (connection_t *self)
{
    parcel_t *parcel;
    while ((parcel = s_unqueue (self)))
        parcel_destroy (&parcel);
    self->stale = false;
}

void
connection_destroy (connection_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        connection_t *self = *self_p;
        assert (!self->audience);
        connection_forget (self);
        parcel_destroy (&self->sending);
        reassembly_destroy (&self->reassembly);
        visitor_leave (&self->visitor);
        close (self->descriptor);
        freen (*self_p);
    }
}

int
connection_queue (connection_t *self, parcel_t **frame_p)
{
    parcel_t *frame = *frame_p;
    assert (frame->references == 1 && !frame->next);
    if (self->queued >= CONNECTION_QUEUE) {
        parcel_destroy (frame_p);
        return -1;
    }
    if (self->first)
        self->last->next = frame;
    else
        self->first = frame;
    self->last = frame;
    self->queued++;
    *frame_p = NULL;
    return 0;
}

void
connection_keep (connection_t *self)
{
    if (self->sending)
        parcel_keep (self->sending);
    for (parcel_t *parcel = self->first; parcel; parcel = parcel->next)
        parcel_keep (parcel);
}

bool
connection_behind (const connection_t *self)
{
    return self->sending || self->first || self->stale;
}

//  What send (2) or sendmsg (2) has returned, as a number of bytes; a connection that broke is
//  gone.

static size_t
s_taken (connection_t *self, ssize_t rc)
{
    if (rc < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
        self->gone = true;
    return rc > 0 ? (size_t) rc : 0;
}

//  Notes that the kernel took so many bytes of the parcel, from offset on, or more. Takes the
//  reference; what the kernel did not take is what we are sending now. Returns the bytes left over
//  for the parcels behind.

static size_t
s_account (connection_t *self, parcel_t *parcel, size_t offset, size_t taken)
{
    size_t wanted = parcel->size - offset;
    if (taken >= wanted) {
        parcel_destroy (&parcel);
        return taken - wanted;
    }
    self->sending = parcel;
    self->sent = offset + taken;
    return 0;
}

//  Sends the page to a connection at rest.

static size_t
s_send_page (connection_t *self, parcel_t *page)
{
    size_t taken = s_taken (
        self, send (self->descriptor, page->data, page->size, MSG_DONTWAIT | MSG_NOSIGNAL));
    self->stale = taken == 0; //  Then a newer page may still take its place
    if (taken > 0 && taken < page->size) {
        self->sending = parcel_ref (page);
        self->sent = taken;
    }
    return taken;
}

static struct iovec
s_iovec (const parcel_t *parcel, size_t offset)
{
    return (struct iovec){(void *) (parcel->data + offset), parcel->size - offset};
}

//  The last private frame that shows a page; NULL: none does.

static const parcel_t *
s_last_page (const connection_t *self)
{
    const parcel_t *last = NULL;
    for (const parcel_t *parcel = self->first; parcel; parcel = parcel->next)
        if (parcel->shows_page)
            last = parcel;
    return last;
}

//  Sends as much as fits into one call. Returns how many bytes the kernel took, and in *more_p
//  whether it took everything and something is left.

static size_t
s_send_gathered (connection_t *self, parcel_t *page, bool *more_p)
{
    struct iovec vector[GATHER];
    size_t count = 0;
    const parcel_t *older = page ? s_last_page (self) : NULL; //  It and those before it go first
    if (older)
        page = NULL;
    if (self->sending)
        vector[count++] = s_iovec (self->sending, self->sent);
    if (page)
        vector[count++] = s_iovec (page, 0);
    const parcel_t *end = older ? older->next : NULL;
    for (parcel_t *parcel = self->first; parcel != end && count < GATHER; parcel = parcel->next)
        vector[count++] = s_iovec (parcel, 0);
    size_t wanted = 0;
    for (size_t index = 0; index < count; index++)
        wanted += vector[index].iov_len;

    struct msghdr message = {.msg_iov = vector, .msg_iovlen = count};
    size_t taken = s_taken (self,
                            sendmsg (self->descriptor, &message, MSG_DONTWAIT | MSG_NOSIGNAL));
    size_t left = taken;
    if (self->sending) {
        parcel_t *sending = self->sending;
        self->sending = NULL;
        left = s_account (self, sending, self->sent, left);
    }
    if (page && left > 0) {
        self->stale = false;
        left = s_account (self, parcel_ref (page), 0, left);
    }
    while (left > 0)
        left = s_account (self, s_unqueue (self), 0, left);
    *more_p = taken == wanted && (self->first || older);
    return taken;
}

size_t
connection_flush (connection_t *self, parcel_t *page)
{
    if (self->closing_ms || !self->stale)
        page = NULL;
    if (page && !self->sending && !self->first)
        return s_send_page (self, page);
    size_t taken = 0;
    bool more = self->sending || self->first;
    while (more && !self->gone)
        taken += s_send_gathered (self, self->stale ? page : NULL, &more);
    return taken;
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

static int
s_queue_new (connection_t *self, char fill, size_t size)
{
    parcel_t *parcel = s_parcel_new (fill, size);
    return connection_queue (self, &parcel);
}

//  Reads all that has arrived and appends one letter for each run of equal bytes to runs.

static void
s_drain (int descriptor, char *runs)
{
    char buffer[65536];
    ssize_t rc;
    while ((rc = recv (descriptor, buffer, sizeof (buffer), MSG_DONTWAIT)) > 0)
        for (ssize_t at = 0; at < rc; at++) {
            size_t length = strlen (runs);
            if (length == 0 || runs[length - 1] != buffer[at])
                runs[length] = buffer[at];
        }
}

static void
s_test_order (connection_t *self, int peer, parcel_t *page, parcel_t *newest)
{
    self->stale = true;
    size_t taken = connection_flush (self, page); //  More than the kernel takes
    assert (taken > 0 && connection_behind (self) && !self->stale && page->references == 2);
    self->stale = true; //  Pages that it misses are made up for by the newest one
    for (int fill = 'b'; fill < 'z'; fill++) {
        int rc = s_queue_new (self, (char) fill, 10); //  More than are gathered in one call
        assert (rc == 0);
    }
    char runs[64] = "";
    while (connection_behind (self)) {
        s_drain (peer, runs);
        connection_flush (self, newest);
    }
    s_drain (peer, runs);
    assert (streq (runs, "azbcdefghijklmnopqrstuvwxy"));
    assert (page->references == 1 && newest->references == 1 && self->queued == 0);
}

//  A page that was asked for is not sent behind a newer one; what follows it is.

static void
s_test_page_asked_for (connection_t *self, int peer, parcel_t *big, parcel_t *newest)
{
    self->stale = true;
    connection_flush (self, big); //  More than the kernel takes
    for (int fill = 'b'; fill <= 'd'; fill++) {
        parcel_t *frame = s_parcel_new ((char) fill, 10);
        frame->shows_page = fill == 'c';
        int rc = connection_queue (self, &frame);
        assert (rc == 0);
    }
    self->stale = true;
    char runs[64] = "";
    while (connection_behind (self)) {
        s_drain (peer, runs);
        connection_flush (self, newest);
    }
    s_drain (peer, runs);
    assert (streq (runs, "abczd"));
}

static void
s_test_bound (connection_t *self, parcel_t *page)
{
    self->stale = true;
    connection_flush (self, page);
    for (int count = 0; count < CONNECTION_QUEUE; count++) {
        int rc = s_queue_new (self, 'q', 1);
        assert (rc == 0);
    }
    int rc = s_queue_new (self, 'q', 1);
    assert (rc == -1 && self->queued == CONNECTION_QUEUE);
    connection_forget (self);
    assert (self->queued == 0 && connection_behind (self)); //  What is half sent is sent
}

void
connection_test (bool verbose)
{
    printf (" * connection: ");
    if (verbose)
        printf ("%zu bytes at rest\n", sizeof (connection_t));
    int ends[2];
    int rc = socketpair (AF_UNIX, SOCK_STREAM, 0, ends);
    assert (rc == 0);
    connection_t *self = connection_new (1, ends[0]);
    parcel_t *page = s_parcel_new ('a', 1024 * 1024);
    parcel_t *newest = s_parcel_new ('z', 100);
    s_test_order (self, ends[1], page, newest);
    s_test_page_asked_for (self, ends[1], page, newest);
    s_test_bound (self, page);
    close (ends[1]);
    connection_flush (self, newest);
    assert (self->gone);
    connection_destroy (&self);
    connection_destroy (&self);
    parcel_destroy (&page);
    parcel_destroy (&newest);
    printf ("OK\n");
}
