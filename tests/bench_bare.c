//  bench_bare - the floor: what it costs to send the same bytes to everybody, and nothing else.
//
//  One thread, one epoll, no library. It accepts WebSockets of bench_load (and of nobody else: it
//  knows the answer to one key only), gives each the frame at once, and for each message from
//  anybody sends the frame, with the message's mark in it, to all. It reads no HTTP but the end of
//  the header, checks nothing, and remembers nothing of a client but its descriptor.

#include "tests/bench_wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_MAX   256
#define BUFFER_BYTES 65536
#define SEND_BUFFER  (128 * 1024) //  As the board's

typedef struct {
    int descriptor;
    bool open;    //  Its handshake is done
    size_t place; //  In everybody
} client_t;

typedef struct {
    int listener;
    int epoll;
    client_t **everybody; //  Those that are open
    size_t size;
    size_t capacity;
    byte *frame;
    size_t frame_size;
    size_t mark; //  Where in the frame a mark belongs
    byte buffer[BUFFER_BYTES];
} self_t;

static void
s_die (const char *what)
{
    fprintf (stderr, "bench_bare: %s: %s\n", what, strerror (errno));
    exit (1);
}

static void
s_watch (const self_t *self, int descriptor, void *who)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = who};
    if (epoll_ctl (self->epoll, EPOLL_CTL_ADD, descriptor, &event) != 0)
        s_die ("epoll_ctl");
}

//  Makes the frame of so many bytes, header included; it begins as the board's list frame does.

static void
s_make_frame (self_t *self, size_t size)
{
    static const char start[] = "{\"selector\":\"#messages__list\",\"html\":\"";
    size_t header = size - 4 < 65536 ? 4 : 10;
    self->frame = (byte *) malloc (size);
    self->frame_size = size;
    wire_put_header (self->frame, WIRE_TEXT, false, size - header);
    memset (self->frame + header, 'x', size - header);
    memcpy (self->frame + header, start, sizeof (start) - 1);
    memcpy (self->frame + size - 2, "\"}", 2);
    self->mark = header + sizeof (start) - 1;
}

static void
s_leave (self_t *self, client_t *client)
{
    if (client->open) {
        client_t *last = self->everybody[--self->size];
        last->place = client->place;
        self->everybody[client->place] = last;
    }
    close (client->descriptor);
    free (client);
}

//  A client that does not read is none of ours: its end comes as its next event.

static void
s_give (const self_t *self, const client_t *client)
{
    ssize_t rc = send (client->descriptor, self->frame, self->frame_size,
                       MSG_DONTWAIT | MSG_NOSIGNAL);
    if (rc != (ssize_t) self->frame_size)
        shutdown (client->descriptor, SHUT_RDWR);
}

static void
s_join (self_t *self, client_t *client)
{
    if (self->size == self->capacity) {
        self->capacity = self->capacity ? 2 * self->capacity : 1024;
        self->everybody = (client_t **) realloc (self->everybody,
                                                 self->capacity * sizeof (client_t *));
    }
    client->open = true;
    client->place = self->size;
    self->everybody[self->size++] = client;
}

static void
s_upgrade (self_t *self, client_t *client, size_t size)
{
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                                 "Connection: Upgrade\r\nSec-WebSocket-Accept: " WIRE_ACCEPT
                                 "\r\n\r\n";
    if (size < 4 || memcmp (&self->buffer[size - 4], "\r\n\r\n", 4) != 0)
        return; //  Ours come in one piece
    send (client->descriptor, answer, sizeof (answer) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    s_join (self, client);
    s_give (self, client);
}

static void
s_take_messages (self_t *self, size_t size)
{
    wire_frame_t message;
    byte *data = self->buffer;
    for (; wire_parse (data, size, &message); data += message.size, size -= message.size) {
        const byte *mark = wire_find_mark (message.payload, message.payload_size);
        if (message.opcode != WIRE_TEXT)
            continue;
        if (mark)
            memcpy (self->frame + self->mark, mark, WIRE_MARK_SIZE);
        for (size_t index = 0; index < self->size; index++)
            s_give (self, self->everybody[index]);
    }
}

static void
s_read (self_t *self, client_t *client)
{
    ssize_t size = recv (client->descriptor, self->buffer, BUFFER_BYTES, MSG_DONTWAIT);
    if (size <= 0)
        s_leave (self, client);
    else if (client->open)
        s_take_messages (self, (size_t) size);
    else
        s_upgrade (self, client, (size_t) size);
}

static void
s_accept (self_t *self)
{
    int descriptor;
    while ((descriptor = accept4 (self->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        int yes = 1;
        int buffer = SEND_BUFFER;
        setsockopt (descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof (yes));
        setsockopt (descriptor, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof (buffer));
        client_t *client = (client_t *) calloc (1, sizeof (client_t));
        client->descriptor = descriptor;
        s_watch (self, descriptor, client);
    }
}

//  Listens on a free port of loopback, and says which.

static void
s_listen (self_t *self)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl (INADDR_LOOPBACK)};
    socklen_t size = sizeof (address);
    self->epoll = epoll_create1 (EPOLL_CLOEXEC);
    self->listener = socket (AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind (self->listener, (struct sockaddr *) &address, size) != 0 ||
        listen (self->listener, 4096) != 0 ||
        getsockname (self->listener, (struct sockaddr *) &address, &size) != 0)
        s_die ("listen");
    s_watch (self, self->listener, NULL);
    printf ("bare ready on http://127.0.0.1:%d/\n", ntohs (address.sin_port));
    fflush (stdout);
}

int
main (int argc, char **argv)
{
    long frame_bytes = argc > 1 ? strtol (argv[1], NULL, 10) : 2500;
    if (argc > 2 || frame_bytes < 100 || frame_bytes > 1000000) {
        fprintf (stderr, "usage: bench_bare [FRAME_BYTES]\n");
        return 2;
    }
    struct rlimit limit;
    getrlimit (RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit (RLIMIT_NOFILE, &limit);
    static self_t self;
    s_make_frame (&self, (size_t) frame_bytes);
    s_listen (&self);
    for (;;) {
        struct epoll_event events[EVENTS_MAX];
        int count = epoll_wait (self.epoll, events, EVENTS_MAX, -1);
        for (int index = 0; index < count; index++)
            if (events[index].data.ptr)
                s_read (&self, (client_t *) events[index].data.ptr);
            else
                s_accept (&self);
    }
}
