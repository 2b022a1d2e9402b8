//  civetweb keeps a thread for each open WebSocket and has no call that gives a socket away, nor
//  one that tells its descriptor. Three system calls do it:
//
//  1. The socket is the one descriptor whose getpeername () and getsockname () are the request's.
//     It is looked for below the base only; since the sockets taken over live above, the search is
//     bounded by what civetweb and the rest of the program hold, whatever the number of clients.
//
//     From one port of a peer, such as a NAT, there may be a connection to each of our addresses,
//     and civetweb does not tell to which one the request was sent. Then none is taken. Where the
//     server listens on one address, the first that is found is the only one; else all have to be
//     looked at, and poll () tells of many at once which are free. That halves the connects a
//     second.
//
//  2. F_DUPFD_CLOEXEC gives the open socket a second descriptor, above.
//  3. dup2 () puts a socket whose peer has closed in the place of the first one, atomically: there
//     is no moment at which civetweb's number is free for another thread's socket. civetweb then
//     reads the end of a connection, and shuts down and closes the dead socket as if it were its
//     own.
//
//  All dead sockets are one open file, made once. What civetweb does to it at the end (blocking
//  mode, shutdown, close) changes nothing that another thread could notice, since it is dead
//  already.
//
//  The number of bytes in civetweb's buffer is not public. The kernel knows how many bytes came in
//  and how many wait unread; the rest went through civetweb, and where its buffer holds no more
//  than the requests it has served, nothing was lost.

#include "http/takeover.h"

#include "config/log.h"

#include <arpa/inet.h>
#include <linux/sockios.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>

//  Readings, at most, until two of them agree; on a quiet socket the first two do
#define UNREAD_ATTEMPTS 16

//  Descriptors that are looked at with one system call
#define POLL_SIZE 256

//  struct tcp_info as Linux 4.1 made it; that of the C library ends before the counts of bytes, and
//  <linux/tcp.h> cannot be included beside it
typedef struct {
    struct tcp_info older;
    uint64_t pacing_rate;
    uint64_t max_pacing_rate;
    uint64_t bytes_acked;
    uint64_t bytes_received;
} s_tcp_info_t;

_Static_assert(offsetof (s_tcp_info_t, bytes_received) == 128, "the kernel's layout");

struct takeover {
    int base;         //  Lowest descriptor for sockets taken over
    int dead;         //  A socket whose peer has closed; owned
    bool everywhere;  //  The server listens on all addresses
    atomic_int first; //  Where the search for the first one begins: a hint
};

takeover_t *
takeover_new (int base, bool everywhere)
{
    int ends[2];
    if (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        log_error ("takeover: could not make a socket: %s", strerror (errno));
        return NULL;
    }
    close (ends[1]);
    takeover_t *self = (takeover_t *) zmalloc (sizeof (takeover_t));
    self->base = base;
    self->everywhere = everywhere;
    atomic_init (&self->first, base);
    self->dead = ends[0];
    return self;
}

void
takeover_destroy (takeover_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        close ((*self_p)->dead);
        freen (*self_p);
    }
}

//  Whether the descriptor is a TCP socket from the peer to our local port. The peer's address and
//  port with our port name one connection to each of our addresses.

static bool
s_is_between (int descriptor, const struct sockaddr_in *peer, in_port_t local_port)
{
    struct sockaddr_in address;
    socklen_t size = sizeof (address);
    if (getpeername (descriptor, (struct sockaddr *) &address, &size) != 0 ||
        address.sin_family != AF_INET || address.sin_port != peer->sin_port ||
        address.sin_addr.s_addr != peer->sin_addr.s_addr)
        return false;
    size = sizeof (address);
    return getsockname (descriptor, (struct sockaddr *) &address, &size) == 0 &&
           address.sin_family == AF_INET && address.sin_port == local_port;
}

//  Looks among the descriptors from first to end, end not included.

static int
s_find_between (int first, int end, const struct sockaddr_in *peer, in_port_t local_port)
{
    for (int descriptor = first; descriptor < end; descriptor++)
        if (s_is_between (descriptor, peer, local_port))
            return descriptor;
    return -1;
}

//  Finds the first one, from the lowest descriptor on that was a client's: below lie those that the
//  program opened at its start and keeps. Returns -1 and errno ENOTCONN when there is none.

static int
s_find_first (takeover_t *self, const struct sockaddr_in *peer, in_port_t local_port)
{
    int first = atomic_load (&self->first);
    int found = s_find_between (first, self->base, peer, local_port);
    if (found < 0) {
        found = s_find_between (0, first, peer, local_port);
        if (found >= 0)
            atomic_store (&self->first, found);
        else
            errno = ENOTCONN;
    }
    return found;
}

//  Finds the only one. Returns -1 and errno: ENOTCONN when there is none, ENOTUNIQ when there is
//  another one.

static int
s_find_only (const takeover_t *self, const struct sockaddr_in *peer, in_port_t local_port)
{
    int found = -1;
    for (int start = 0; start < self->base; start += POLL_SIZE) {
        struct pollfd items[POLL_SIZE];
        int size = self->base - start < POLL_SIZE ? self->base - start : POLL_SIZE;
        for (int index = 0; index < size; index++)
            items[index] = (struct pollfd){.fd = start + index};
        if (poll (items, (nfds_t) size, 0) < 0)
            return -1;
        for (int index = 0; index < size; index++) {
            if (items[index].revents & POLLNVAL ||
                !s_is_between (items[index].fd, peer, local_port))
                continue;
            if (found >= 0) {
                errno = ENOTUNIQ;
                return -1;
            }
            found = items[index].fd;
        }
    }
    if (found < 0)
        errno = ENOTCONN;
    return found;
}

static int
s_find (takeover_t *self, const struct mg_request_info *info)
{
    struct sockaddr_in peer = {.sin_family = AF_INET,
                               .sin_port = htons ((uint16_t) info->remote_port)};
    in_port_t local_port = htons ((uint16_t) info->server_port);
    if (inet_pton (AF_INET, info->remote_addr, &peer.sin_addr) != 1) {
        errno = ENOTCONN;
        return -1;
    }
    return self->everywhere ? s_find_only (self, &peer, local_port)
                            : s_find_first (self, &peer, local_port);
}

int
takeover_steal (takeover_t *self, const struct mg_request_info *info)
{
    int theirs = s_find (self, info);
    if (theirs < 0)
        return -1;
    int ours = fcntl (theirs, F_DUPFD_CLOEXEC, self->base);
    if (ours >= 0 && dup3 (self->dead, theirs, O_CLOEXEC) < 0) {
        int reason = errno;
        close (ours);
        errno = reason;
        ours = -1;
    }
    return ours;
}

//  civetweb parses in place: each name and value is a string in its buffer, and what stands between
//  them is overwritten with NUL: both bytes of a CRLF, the colon, and blanks before that. It takes
//  a bare LF for the end of a line, and so may see the end of the headers where others see more of
//  them; and it drops blanks where RFC 9112 (2.2, 5.1) has us refuse them.

int64_t
takeover_header_size (const struct mg_request_info *info)
{
    assert (info->num_headers > 0 && info->num_headers < MG_MAX_HEADERS);
    const char *version = info->http_version;
    if (info->http_headers[0].name != version + strlen (version) + strlen ("\r\n"))
        return -1; //  The request's line ends with LF, or there are blanks behind it
    for (int index = 0; index < info->num_headers; index++) {
        const char *name = info->http_headers[index].name;
        const char *colon = name + strlen (name);
        if (info->http_headers[index].value > colon + 1 && colon[1] == '\0')
            return -1; //  It was a blank
    }
    const char *last = info->http_headers[info->num_headers - 1].value;
    const char *end = last + strlen (last);
    bool whole = end[1] == '\0' && end[2] == '\r' && (end[3] == '\0' || end[3] == '\n');
    return whole ? end + strlen ("\r\n\r\n") - info->request_method : -1;
}

int64_t
takeover_taken (int descriptor, int64_t *received_p)
{
    s_tcp_info_t info = {0};
    socklen_t size = sizeof (info);
    int waiting = 0;
    if (getsockopt (descriptor, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 ||
        ioctl (descriptor, SIOCINQ, &waiting) != 0 || size < sizeof (info))
        return -1;
    *received_p = (int64_t) info.bytes_received;
    int64_t taken = *received_p - waiting;
    return taken > 0 ? taken : 0; //  More may wait than had come by then
}

//  The two numbers are read one after the other, and what comes in between makes it look as if less
//  had been read. A reading was right when nothing came in between it and the next one, and a wrong
//  one is too low, so the highest counts.

int64_t
takeover_unread (int descriptor, int64_t consumed)
{
    int64_t received = -1;
    int64_t before;
    int64_t most = 0;
    int attempts = 0;
    do {
        before = received;
        int64_t taken = takeover_taken (descriptor, &received);
        if (taken < 0)
            return -1;
        if (taken > most)
            most = taken;
    } while (received != before && ++attempts < UNREAD_ATTEMPTS);
    return most > consumed ? most - consumed : 0;
}

//  ------------------------------------------------------------------------
//  Self test: a real civetweb, whose sockets are taken over and echo one byte

#define TEST_BASE     512
#define TEST_CONNECTS 20000
#define TEST_AT_ONCE  16

typedef struct {
    takeover_t *takeover;
    atomic_int taken;
    atomic_int unread; //  Connections that had bytes behind the handshake
    atomic_int failed;
} test_t;

static const char s_request[] = "GET /take HTTP/1.1\r\nHost: localhost\r\n\r\n";
static const char s_answer[] = "HTTP/1.1 101 Taken\r\n\r\n";

//  Takes the socket, answers on it, waits for a byte, echoes it and closes: what websocket and a
//  connection thread would do.

static int
s_test_take (struct mg_connection *conn, void *args)
{
    test_t *test = (test_t *) args;
    const struct mg_request_info *info = mg_get_request_info (conn);
    int64_t *before = (int64_t *) mg_get_user_connection_data (conn);
    int64_t consumed = takeover_header_size (info) + (before ? *before : 0);
    int descriptor = takeover_steal (test->takeover, info);
    if (descriptor < TEST_BASE) {
        atomic_fetch_add (&test->failed, 1);
        return 503;
    }
    ssize_t sent = send (descriptor, s_answer, strlen (s_answer), MSG_NOSIGNAL);
    assert (sent == (ssize_t) strlen (s_answer));
    if (takeover_unread (descriptor, consumed) != 0)
        atomic_fetch_add (&test->unread, 1);
    assert (fcntl (descriptor, F_GETFD) & FD_CLOEXEC);
    fcntl (descriptor, F_SETFL, O_NONBLOCK);
    struct pollfd ready = {.fd = descriptor, .events = POLLIN};
    char byte = 0;
    if (poll (&ready, 1, 1000) == 1 && recv (descriptor, &byte, 1, 0) == 1 &&
        send (descriptor, &byte, 1, MSG_NOSIGNAL) == 1)
        atomic_fetch_add (&test->taken, 1);
    close (descriptor);
    mg_disable_connection_keep_alive (conn);
    return 101;
}

//  Counts the bytes of requests before it on the same connection.

static int
s_test_page (struct mg_connection *conn, void *args)
{
    assert (args);
    static int64_t size; //  One client at a time asks for pages in this test
    size = takeover_header_size (mg_get_request_info (conn));
    mg_set_user_connection_data (conn, &size);
    mg_printf (conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    return 200;
}

static int
s_test_connect (int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons ((uint16_t) port)};
    address.sin_addr.s_addr = htonl (INADDR_LOOPBACK);
    int client = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert (client >= 0);
    //  Closing with a reset leaves no TIME_WAIT: 20,000 of them would use up the ports
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    setsockopt (client, SOL_SOCKET, SO_LINGER, &linger, sizeof (linger));
    int rc = connect (client, (struct sockaddr *) &address, sizeof (address));
    assert (rc == 0);
    return client;
}

//  Sends text, reads until the reply holds what is expected, closes when asked to.

static void
s_test_exchange (int client, const char *text, const char *expected)
{
    ssize_t sent = send (client, text, strlen (text), MSG_NOSIGNAL);
    assert (sent == (ssize_t) strlen (text));
    char reply[1024] = "";
    size_t size = 0;
    while (!strstr (reply, expected)) {
        ssize_t got = recv (client, reply + size, sizeof (reply) - size - 1, 0);
        assert (got > 0);
        size += (size_t) got;
        reply[size] = '\0';
    }
}

static void *
s_test_client (void *args)
{
    int port = *(int *) args;
    for (int count = 0; count < TEST_CONNECTS / TEST_AT_ONCE; count++) {
        int client = s_test_connect (port);
        s_test_exchange (client, s_request, "\r\n\r\n");
        s_test_exchange (client, "x", "x");
        close (client);
    }
    return NULL;
}

static int
s_open_descriptors (void)
{
    zdir_t *folder = zdir_new ("/proc/self/fd", "-");
    size_t count = zdir_count (folder);
    zdir_destroy (&folder);
    return (int) count;
}

//  Waits until all of civetweb's threads have cleaned up.

static int
s_settled_descriptors (int wanted)
{
    int64_t give_up = zclock_mono () + 3000;
    while (s_open_descriptors () > wanted && zclock_mono () < give_up)
        zclock_sleep (10);
    return s_open_descriptors ();
}

static void
s_test_leaks (test_t *test, int port)
{
    int before = s_open_descriptors ();
    pthread_t clients[TEST_AT_ONCE];
    for (int client = 0; client < TEST_AT_ONCE; client++)
        pthread_create (&clients[client], NULL, s_test_client, &port);
    for (int client = 0; client < TEST_AT_ONCE; client++)
        pthread_join (clients[client], NULL);
    assert (s_settled_descriptors (before) == before); //  And so all handlers have returned
    assert (atomic_load (&test->failed) == 0);
    assert (atomic_load (&test->taken) == TEST_CONNECTS);
    assert (atomic_load (&test->unread) == 0);
}

static void
s_test_early_bytes (test_t *test, int port)
{
    //  Bytes in one packet with the request are in civetweb's buffer, and noticed
    int client = s_test_connect (port);
    char *both = zsys_sprintf ("%s%s", s_request, "frame");
    s_test_exchange (client, both, "\r\n\r\n");
    zstr_free (&both);
    s_test_exchange (client, "x", "x");
    close (client);
    assert (atomic_load (&test->unread) == 1);

    //  Requests served before on the same connection are not mistaken for early bytes
    client = s_test_connect (port);
    s_test_exchange (client, "GET /page HTTP/1.1\r\nHost:localhost \r\n\r\n", "\r\n\r\nok");
    s_test_exchange (client, s_request, "\r\n\r\n");
    s_test_exchange (client, "x", "x");
    close (client);
    assert (atomic_load (&test->unread) == 1);
    assert (takeover_unread (-1, 0) == -1);
}

static void *
s_test_sender (void *descriptor)
{
    ssize_t sent = send (*(int *) descriptor, s_request, strlen (s_request), MSG_NOSIGNAL);
    assert (sent == (ssize_t) strlen (s_request));
    return NULL;
}

//  Whatever comes in just now, nothing was read.

static void
s_test_arrivals (void)
{
    int listener = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl (INADDR_LOOPBACK)}};
    socklen_t size = sizeof (address);
    int rc = bind (listener, (struct sockaddr *) &address, size) || listen (listener, 1) ||
             getsockname (listener, (struct sockaddr *) &address, &size);
    assert (rc == 0);
    for (int turn = 0; turn < 200; turn++) {
        int client = s_test_connect (ntohs (address.sin_port));
        int served = accept (listener, NULL, NULL);
        assert (served >= 0);
        pthread_t sender;
        pthread_create (&sender, NULL, s_test_sender, &client);
        int64_t received;
        do {
            int64_t taken = takeover_taken (served, &received);
            int64_t unread = takeover_unread (served, 0);
            assert (taken == 0 && unread == 0);
        } while (received == 0);
        pthread_join (sender, NULL);
        close (served);
        close (client);
    }
    close (listener);
}

void
takeover_test (bool verbose)
{
    printf (" * takeover: ");
    test_t test = {.takeover = takeover_new (TEST_BASE, true)};
    assert (test.takeover);
    mg_init_library (0);
    const char *options[] = {
        "listening_ports",   "127.0.0.1:0", "num_threads", "16", "tcp_nodelay", "1",
        "enable_keep_alive", "yes",         NULL};
    struct mg_callbacks callbacks = {0};
    struct mg_context *civetweb = mg_start (&callbacks, NULL, options);
    assert (civetweb);
    struct mg_server_port port;
    int rc = mg_get_server_ports (civetweb, 1, &port);
    assert (rc == 1);
    mg_set_request_handler (civetweb, "/take", s_test_take, &test);
    mg_set_request_handler (civetweb, "/page", s_test_page, &test);

    int64_t start = zclock_mono ();
    s_test_leaks (&test, port.port);
    if (verbose)
        printf ("%d connects in %d ms ", TEST_CONNECTS, (int) (zclock_mono () - start));
    s_test_early_bytes (&test, port.port);
    s_test_arrivals ();

    //  A socket that is not there is not found
    struct mg_request_info nobody = {.remote_addr = "192.0.2.1", .remote_port = 1};
    assert (takeover_steal (test.takeover, &nobody) == -1 && errno == ENOTCONN);

    mg_stop (civetweb);
    mg_exit_library ();
    takeover_destroy (&test.takeover);
    takeover_destroy (&test.takeover);
    printf ("OK\n");
}
