//  bench_load - loads a board, or the bare loop, and measures it; prints one JSON object.
//
//  usage: bench_load BENCH --port PORT [--pid PID] [OPTION...]
//
//  fanout   one writer, and everybody sees it: CPU of the server for each frame delivered, time
//           until the last client has a write, memory for each connection; with slow readers or a
//           flood
//  writes   writers that wait for their acknowledgements: acknowledged adds a second
//  storm    connects, each until its first page is there
//  turns    clients that turn pages, each another one
//  get      GET / on connections that are kept open
//
//  One thread and one epoll. A bench first connects its clients, waits until it is quiet, and
//  measures from there on; what was lost or refused ends it with status 1. The server's CPU is that
//  of all its threads (the kernel's clock of the process, in ns; utime + stime of /proc/PID/stat
//  count the same in ticks of 10 ms). Clients come from 127.0.0.1 to 127.0.0.16, so ports never run
//  out. Everything is counted as it arrives; nothing is estimated.

#include "tests/bench_wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_MAX     512
#define BUFFER_BYTES   (1024 * 1024)
#define SOURCES        16
#define PATIENCE_NS    120000000000
#define QUIET_NS       300000000
#define WARM_UP_NS     500000000
#define NARROW_BYTES   4096 //  SO_RCVBUF of a client that never reads
#define FLOOD_BYTES    65536
#define PIPELINE_MAX   1024
#define WRITES_MAX     1000000
#define SECOND_NS      1000000000
#define MICROSECOND_NS 1000

typedef enum { CONNECTING, UPGRADING, OPEN, LOST } state_t;

typedef struct {
    int descriptor;
    state_t state;
    bool deaf;          //  Never reads, once it is open
    bool floods;        //  Sends as much as the server takes
    bool greeted;       //  Its first frame is there
    bool watches_write; //  EPOLLOUT is asked for
    uint32_t number;
    uint32_t page;    //  The page it asked for
    int64_t since_ns; //  When it began to connect, or to wait for an answer
    uint64_t newest;  //  The newest mark it has seen
    byte *in;         //  The beginning of what has not come in full; owned
    size_t in_size;
    byte *out; //  What the kernel did not take yet; owned
    size_t out_size;
} client_t;

typedef struct {
    double *values; //  Owned
    size_t size;
    size_t capacity;
} samples_t;

typedef struct load load_t;
struct load {
    const char *bench;
    int port;
    int pid;        //  Of the server; 0: not known
    int clients;    //  That read
    int slow;       //  That do not
    int at_once;    //  That connect at the same time
    int writes;     //  In all
    int pipeline;   //  Adds of one writer that are not acknowledged yet
    int pages;      //  That are turned
    int text_bytes; //  Of a message
    double seconds; //  To measure
    double rate;    //  Writes a second; 0: the next one when all have seen the last one
    bool by_frame;  //  The next list frame is the acknowledgement
    const char *path;
    const char *flood;

    client_t *client; //  All of them: first those that read, then the slow, then the flood
    int count;
    int started;
    int greeted;
    int lost;       //  Cut off before their first page; only a storm goes on then
    int lost_later; //  The same, after it
    int epoll;
    byte *buffer;
    char request[1024];
    size_t request_size;
    byte *flood_data;
    size_t flood_size;
    size_t flood_sent;   //  Of the data, since it was sent in full the last time
    int64_t flood_bytes; //  Sent in all
    bool flood_cut_off;
    //  Takes what a client has received; returns how much of it that was, 0 when more must come
    size_t (*take) (load_t *self, client_t *client, byte *data, size_t size);
    void (*take_text) (load_t *self, client_t *client, const wire_frame_t *frame);

    uint64_t mark; //  Of the first write, less one
    int sent;      //  Writes
    int done;      //  Writes that all witnesses have seen
    int witnesses; //  How many must see a write
    int *seen;     //  By how many, for each write
    int64_t *sent_ns;
    int64_t *acknowledged_ns; //  Of writes that wait, by client and slot: when they were sent
    samples_t latency_us;     //  Of what the bench measures; fanout and turns: of writes
    samples_t turn_us;
    int64_t frames; //  List frames received by those that read, from the start of measuring
    int64_t bytes;
    int64_t acknowledged; //  In the time measured
    int64_t acknowledged_ever;
    int64_t failed;
    int64_t from_ns; //  When measuring starts and ends
    int64_t until_ns;
    uint64_t random;
};

static void
s_die (const char *format, ...)
{
    va_list arguments;
    va_start (arguments, format);
    fprintf (stderr, "bench_load: ");
    vfprintf (stderr, format, arguments);
    fprintf (stderr, "\n");
    va_end (arguments);
    exit (1);
}

static void *
s_allocate (size_t size)
{
    void *memory = calloc (1, size ? size : 1);
    if (!memory)
        s_die ("out of memory");
    return memory;
}

//  ------------------------------------------------------------------------
//  Figures

static void
s_sample (samples_t *self, double value)
{
    if (self->size == self->capacity) {
        self->capacity = self->capacity ? 2 * self->capacity : 4096;
        self->values = (double *) realloc (self->values, self->capacity * sizeof (double));
        if (!self->values)
            s_die ("out of memory");
    }
    self->values[self->size++] = value;
}

static int
s_compare (const void *left, const void *right)
{
    double difference = *(const double *) left - *(const double *) right;
    return (difference > 0) - (difference < 0);
}

//  The value that so large a part of the samples does not exceed (nearest rank).

static double
s_percentile (samples_t *self, double part)
{
    if (self->size == 0)
        return 0;
    qsort (self->values, self->size, sizeof (double), s_compare);
    size_t rank = (size_t) (part * (double) self->size + 0.999999);
    return self->values[rank > 0 ? rank - 1 : 0];
}

//  CPU time that all threads of a process have used; 0 for a process that is not known.

static int64_t
s_cpu_ns (int pid)
{
    clockid_t clock;
    struct timespec used = {0, 0};
    if (pid && (clock_getcpuclockid (pid, &clock) != 0 || clock_gettime (clock, &used) != 0))
        s_die ("there is no process %d", pid);
    return (int64_t) used.tv_sec * SECOND_NS + used.tv_nsec;
}

static int64_t
s_own_cpu_ns (void)
{
    struct timespec used;
    clock_gettime (CLOCK_PROCESS_CPUTIME_ID, &used);
    return (int64_t) used.tv_sec * SECOND_NS + used.tv_nsec;
}

static int64_t
s_resident_kb (int pid)
{
    char path[64];
    long pages = 0;
    snprintf (path, sizeof (path), "/proc/%d/statm", pid);
    FILE *file = pid ? fopen (path, "r") : NULL;
    if (file && fscanf (file, "%*s %ld", &pages) != 1)
        pages = 0;
    if (file)
        fclose (file);
    return pages * sysconf (_SC_PAGESIZE) / 1024;
}

//  Memory that the kernel holds for all TCP sockets of the machine: /proc/net/sockstat, in pages.

static int64_t
s_tcp_kb (void)
{
    char line[200];
    long pages = 0;
    FILE *file = fopen ("/proc/net/sockstat", "r");
    while (file && fgets (line, sizeof (line), file))
        if (sscanf (line, "TCP: inuse %*d orphan %*d tw %*d alloc %*d mem %ld", &pages) == 1)
            break;
    if (file)
        fclose (file);
    return pages * sysconf (_SC_PAGESIZE) / 1024;
}

static void
s_print (const char *name, double value, int digits)
{
    printf (",\n \"%s\": %.*f", name, digits, value);
}

static void
s_print_latency (samples_t *latency_us, const char *what)
{
    char name[64];
    snprintf (name, sizeof (name), "%s_median_us", what);
    s_print (name, s_percentile (latency_us, 0.5), 1);
    snprintf (name, sizeof (name), "%s_p99_us", what);
    s_print (name, s_percentile (latency_us, 0.99), 1);
    snprintf (name, sizeof (name), "%s_max_us", what);
    s_print (name, s_percentile (latency_us, 1), 1);
}

//  ------------------------------------------------------------------------
//  Sending

static void
s_watch (const load_t *self, client_t *client, int operation)
{
    bool reads = !(client->deaf && client->greeted);
    uint32_t events = (uint32_t) (reads ? EPOLLIN : 0) |
                      (uint32_t) (client->watches_write ? EPOLLOUT : 0);
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl (self->epoll, operation, client->descriptor, &event) != 0)
        s_die ("epoll_ctl: %s", strerror (errno));
}

static void
s_watch_write (const load_t *self, client_t *client, bool wanted)
{
    if (client->watches_write == wanted)
        return;
    client->watches_write = wanted;
    s_watch (self, client, EPOLL_CTL_MOD);
}

//  The server has cut a client off. Who floods may expect it, and a storm counts it; any other
//  bench would measure something else from here on.

static void
s_lose (load_t *self, client_t *client, const char *reason)
{
    if (client->floods)
        self->flood_cut_off = true;
    else if (strcmp (self->bench, "storm") != 0)
        s_die ("client %u was cut off %s its first page: %s", client->number,
               client->greeted ? "after" : "before", reason);
    else if (client->greeted)
        self->lost_later++;
    else
        self->lost++;
    client->state = LOST;
    close (client->descriptor);
}

//  Gives the kernel what it takes; returns how much that was.

static size_t
s_write (load_t *self, client_t *client, const void *data, size_t size)
{
    if (client->state == LOST)
        return size;
    ssize_t rc = send (client->descriptor, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (rc < 0 && errno != EAGAIN)
        s_lose (self, client, strerror (errno));
    return rc < 0 ? 0 : (size_t) rc;
}

//  Sends; what the kernel does not take waits.

static void
s_send (load_t *self, client_t *client, const void *data, size_t size)
{
    size_t sent = client->out_size ? 0 : s_write (self, client, data, size);
    if (sent == size)
        return;
    client->out = (byte *) realloc (client->out, client->out_size + size - sent);
    if (!client->out)
        s_die ("out of memory");
    memcpy (client->out + client->out_size, (const byte *) data + sent, size - sent);
    client->out_size += size - sent;
    s_watch_write (self, client, true);
}

static void
s_flush (load_t *self, client_t *client)
{
    size_t sent = s_write (self, client, client->out, client->out_size);
    client->out_size -= sent;
    memmove (client->out, client->out + sent, client->out_size);
    if (client->out_size == 0)
        s_watch_write (self, client, false);
}

//  Sends more of the flood, over and over.

static void
s_flood (load_t *self, client_t *client)
{
    size_t sent = s_write (self, client, self->flood_data + self->flood_sent,
                           self->flood_size - self->flood_sent);
    self->flood_sent = (self->flood_sent + sent) % self->flood_size;
    self->flood_bytes += (int64_t) sent;
}

static void
s_send_frame (load_t *self, client_t *client, int opcode, const void *payload, size_t size)
{
    byte frame[WIRE_HEADER_MAX + 2048];
    if (size > 2048)
        s_die ("a message of %zu bytes is too long for this program", size);
    size_t header = wire_put_header (frame, opcode, true, size);
    memcpy (frame + header, payload, size);
    s_send (self, client, frame, header + size);
}

//  Sends an add whose text begins with the mark (0: without one) and has text_bytes in all; with a
//  ref, unless that is negative.

static void
s_send_add (load_t *self, client_t *client, uint64_t mark, int ref)
{
    char text[1024];
    char json[2048];
    char ref_text[32] = "";
    int size = 0;
    if (mark)
        size = snprintf (text, sizeof (text), "~%016" PRIu64 "~ ", mark);
    for (; size < self->text_bytes; size++)
        text[size] = size % 7 ? 'm' : ' ';
    text[self->text_bytes - 1] = '.';
    text[self->text_bytes] = 0;
    if (ref >= 0)
        snprintf (ref_text, sizeof (ref_text), "\"ref\":\"%d\",", ref);
    size = snprintf (
        json, sizeof (json),
        "{%s\"action\":\"add message\",\"data\":{\"author\":\"Bench\",\"text\":\"%s\"}}", ref_text,
        text);
    s_send_frame (self, client, WIRE_TEXT, json, (size_t) size);
}

static void
s_send_list (load_t *self, client_t *client, uint32_t page)
{
    char json[100];
    int size = snprintf (json, sizeof (json),
                         "{\"action\":\"list messages\",\"data\":{\"page\":%u}}", page);
    client->page = page;
    client->since_ns = wire_now_ns ();
    s_send_frame (self, client, WIRE_TEXT, json, (size_t) size);
}

//  ------------------------------------------------------------------------
//  Receiving

static bool
s_has (const void *data, size_t size, const char *text)
{
    return memmem (data, size, text, strlen (text)) != NULL;
}

static bool
s_is_list (const wire_frame_t *frame)
{
    static const char start[] = "{\"selector\":\"#messages__list\"";
    return frame->payload_size >= sizeof (start) &&
           memcmp (frame->payload, start, sizeof (start) - 1) == 0;
}

static void
s_greet (load_t *self, client_t *client)
{
    client->greeted = true;
    self->greeted++;
    s_sample (&self->latency_us, (double) (wire_now_ns () - client->since_ns) / MICROSECOND_NS);
    if (client->deaf)
        s_watch (self, client, EPOLL_CTL_MOD);
    if (client->floods)
        s_watch_write (self, client, true);
}

static void
s_take_close (load_t *self, client_t *client, const wire_frame_t *frame)
{
    char reason[40];
    int code = frame->payload_size > 1 ? frame->payload[0] << 8 | frame->payload[1] : 0;
    snprintf (reason, sizeof (reason), "closed with %d", code);
    s_lose (self, client, reason);
}

static size_t
s_take_frame (load_t *self, client_t *client, byte *data, size_t size)
{
    wire_frame_t frame;
    if (!wire_parse (data, size, &frame))
        return 0;
    if (frame.opcode == WIRE_CLOSE)
        s_take_close (self, client, &frame);
    else if (frame.opcode == WIRE_PING && !client->floods) //  In the middle of a frame, perhaps
        s_send_frame (self, client, WIRE_PONG, frame.payload, frame.payload_size);
    else if (frame.opcode == WIRE_TEXT && !client->greeted && s_is_list (&frame))
        s_greet (self, client);
    else if (frame.opcode == WIRE_TEXT && self->take_text && !client->floods)
        self->take_text (self, client, &frame);
    return frame.size;
}

static size_t
s_take_upgrade (client_t *client, const byte *data, size_t size)
{
    const byte *end = (const byte *) memmem (data, size, "\r\n\r\n", 4);
    if (!end)
        return 0;
    size_t header = (size_t) (end - data) + 4;
    if (!s_has (data, header, " 101 ") || !s_has (data, header, WIRE_ACCEPT))
        s_die ("client %u was refused: %.*s", client->number, (int) size, (const char *) data);
    client->state = OPEN;
    return header;
}

static size_t
s_take_web_socket (load_t *self, client_t *client, byte *data, size_t size)
{
    return client->state == UPGRADING ? s_take_upgrade (client, data, size)
                                      : s_take_frame (self, client, data, size);
}

//  Keeps what has not come in full.

static void
s_keep (client_t *client, const byte *data, size_t size)
{
    if (size > 0) {
        client->in = (byte *) realloc (client->in, size);
        if (!client->in)
            s_die ("out of memory");
        memcpy (client->in, data, size);
    }
    client->in_size = size;
}

static void
s_read (load_t *self, client_t *client)
{
    byte *data = self->buffer;
    if (client->in_size)
        memcpy (data, client->in, client->in_size);
    ssize_t rc = recv (client->descriptor, data + client->in_size, BUFFER_BYTES - client->in_size,
                       MSG_DONTWAIT);
    if (rc < 0 && errno == EAGAIN)
        return;
    if (rc <= 0) {
        s_lose (self, client, rc ? strerror (errno) : "end of the connection");
        return;
    }
    size_t size = client->in_size + (size_t) rc;
    size_t taken = 1;
    while (size > 0 && taken > 0 && client->state != LOST && !(client->deaf && client->greeted)) {
        taken = self->take (self, client, data, size);
        data += taken;
        size -= taken;
    }
    s_keep (client, data, size);
}

static void
s_handle_event (load_t *self, client_t *client, uint32_t events)
{
    if (client->state == CONNECTING && (events & (EPOLLOUT | EPOLLERR))) {
        client->state = UPGRADING;
        client->watches_write = false;
        s_watch (self, client, EPOLL_CTL_MOD);
        s_send (self, client, self->request, self->request_size);
        return;
    }
    if (events & EPOLLOUT && client->floods && client->greeted)
        s_flood (self, client);
    else if (events & EPOLLOUT)
        s_flush (self, client);
    if (client->state != LOST && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        s_read (self, client);
}

//  Handles what has happened, after waiting for it until a point in time.

static void
s_turn (load_t *self, int64_t until_ns)
{
    struct epoll_event events[EVENTS_MAX];
    int64_t wait_ns = until_ns - wire_now_ns ();
    struct timespec timeout = {0, 0};
    if (wait_ns > 0) {
        timeout.tv_sec = wait_ns / SECOND_NS;
        timeout.tv_nsec = wait_ns % SECOND_NS;
    }
    int count = epoll_pwait2 (self->epoll, events, EVENTS_MAX, &timeout, NULL);
    for (int index = 0; index < count; index++)
        s_handle_event (self, (client_t *) events[index].data.ptr, events[index].events);
}

static void
s_turn_until (load_t *self, int64_t until_ns)
{
    while (wire_now_ns () < until_ns)
        s_turn (self, until_ns);
}

//  ------------------------------------------------------------------------
//  Connecting

static void
s_make_request (load_t *self)
{
    const char *protocol = strcmp (self->bench, "writes") == 0 && !self->by_frame
                               ? "Sec-WebSocket-Protocol: breadboard.1\r\n"
                               : "";
    int size;
    if (strcmp (self->bench, "get") == 0)
        size = snprintf (self->request, sizeof (self->request),
                         "GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", self->port);
    else
        size = snprintf (self->request, sizeof (self->request),
                         "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
                         "Connection: Upgrade\r\nSec-WebSocket-Key: " WIRE_KEY
                         "\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
                         self->path, self->port, protocol);
    if (size >= (int) sizeof (self->request))
        s_die ("the path is too long");
    self->request_size = (size_t) size;
}

static void
s_set_option (int descriptor, int level, int name, int value)
{
    if (setsockopt (descriptor, level, name, &value, sizeof (value)) != 0)
        s_die ("setsockopt: %s", strerror (errno));
}

static void
s_connect (load_t *self, client_t *client)
{
    struct sockaddr_in from = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl (INADDR_LOOPBACK + client->number % SOURCES)};
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons ((uint16_t) self->port),
                             .sin_addr.s_addr = htonl (INADDR_LOOPBACK)};
    client->since_ns = wire_now_ns ();
    client->descriptor = socket (AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->descriptor < 0)
        s_die ("socket: %s", strerror (errno));
    s_set_option (client->descriptor, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    s_set_option (client->descriptor, IPPROTO_TCP, TCP_NODELAY, 1);
    if (client->deaf)
        s_set_option (client->descriptor, SOL_SOCKET, SO_RCVBUF, NARROW_BYTES);
    if (bind (client->descriptor, (struct sockaddr *) &from, sizeof (from)) != 0 ||
        (connect (client->descriptor, (struct sockaddr *) &to, sizeof (to)) != 0 &&
         errno != EINPROGRESS))
        s_die ("client %u cannot connect: %s", client->number, strerror (errno));
    client->state = CONNECTING;
    client->watches_write = true;
    s_watch (self, client, EPOLL_CTL_ADD);
}

static void
s_make_clients (load_t *self)
{
    self->count = self->clients + self->slow + (self->flood ? 1 : 0);
    self->client = (client_t *) s_allocate ((size_t) self->count * sizeof (client_t));
    for (int index = 0; index < self->count; index++) {
        client_t *client = &self->client[index];
        client->number = (uint32_t) index;
        client->newest = self->mark;
        client->floods = index == self->clients + self->slow;
        client->deaf = index >= self->clients && !client->floods;
    }
}

//  Connects all clients but the one that floods, at most at_once at the same time, each until its
//  first frame is there. Returns how long that took.

static double
s_connect_all (load_t *self)
{
    int64_t start_ns = wire_now_ns ();
    int wanted = self->clients + self->slow;
    while (self->greeted + self->lost < wanted) {
        while (self->started < wanted && self->started - self->greeted - self->lost < self->at_once)
            s_connect (self, &self->client[self->started++]);
        s_turn (self, wire_now_ns () + SECOND_NS);
        if (wire_now_ns () - start_ns > PATIENCE_NS)
            s_die ("%d of %d have their first page after 120 s", self->greeted, wanted);
    }
    return (double) (wire_now_ns () - start_ns) / SECOND_NS;
}

//  ------------------------------------------------------------------------
//  Fan-out

//  What a client that floods sends over and over.

static void
s_make_flood (load_t *self)
{
    static const char *const kinds[][2] = {
        {"list", "{\"action\":\"list messages\",\"data\":{\"page\":1}}"},
        {"edit", "{\"action\":\"open edit page\",\"data\":{\"id\":1}}"},
        {"add", "{\"action\":\"add message\",\"data\":{\"author\":\"Flood\",\"text\":\"more\"}}"},
        {"malformed", "this is no JSON"},
        {NULL, NULL},
    };
    int kind = 0;
    while (kinds[kind][0] && strcmp (kinds[kind][0], self->flood) != 0)
        kind++;
    if (!kinds[kind][0])
        s_die ("a flood is one of list, edit, add, malformed");
    size_t size = strlen (kinds[kind][1]);
    self->flood_data = (byte *) s_allocate (FLOOD_BYTES + 2 * WIRE_HEADER_MAX + size);
    while (self->flood_size < FLOOD_BYTES) {
        byte *end = self->flood_data + self->flood_size;
        size_t header = wire_put_header (end, WIRE_TEXT, true, size);
        memcpy (end + header, kinds[kind][1], size);
        self->flood_size += header + size;
    }
}

//  Notes that one more client has seen a write.

static void
s_see (load_t *self, int write)
{
    if (++self->seen[write] < self->witnesses)
        return;
    s_sample (&self->latency_us, (double) (wire_now_ns () - self->sent_ns[write]) / MICROSECOND_NS);
    self->done++;
}

static void
s_take_fanout (load_t *self, client_t *client, const wire_frame_t *frame)
{
    if (client->deaf || !s_is_list (frame))
        return;
    self->frames++;
    self->bytes += (int64_t) frame->size;
    uint64_t mark = wire_mark (frame->payload, frame->payload_size);
    if (mark <= client->newest || mark > self->mark + (uint64_t) self->sent)
        return;
    for (uint64_t each = client->newest + 1; each <= mark; each++)
        s_see (self, (int) (each - self->mark - 1));
    client->newest = mark;
}

//  When the next write is due; never before the last one was seen by all, unless there is a rate.

static int64_t
s_next_write_ns (const load_t *self)
{
    if (self->sent == self->writes || (self->rate == 0 && self->done < self->sent))
        return INT64_MAX;
    return self->rate > 0 ? self->from_ns + (int64_t) ((double) self->sent * SECOND_NS / self->rate)
                          : self->from_ns;
}

static void
s_prepare_writes (load_t *self, int writes, int witnesses)
{
    self->writes = writes;
    self->witnesses = witnesses;
    self->seen = (int *) s_allocate ((size_t) writes * sizeof (int));
    self->sent_ns = (int64_t *) s_allocate ((size_t) writes * sizeof (int64_t));
    self->latency_us.size = 0;
}

//  Makes a write if one is due; else handles what happens until one is, or the end.

static void
s_write_or_turn (load_t *self, int64_t end_ns)
{
    int64_t now_ns = wire_now_ns ();
    int64_t next_ns = s_next_write_ns (self);
    if (next_ns > now_ns) {
        s_turn (self, next_ns < end_ns ? next_ns : end_ns);
        return;
    }
    self->sent_ns[self->sent++] = now_ns;
    s_send_add (self, &self->client[0], self->mark + (uint64_t) self->sent, -1);
}

static void
s_run_writes (load_t *self)
{
    int64_t end_ns = self->from_ns + PATIENCE_NS;
    while (self->done < self->writes && wire_now_ns () < end_ns)
        s_write_or_turn (self, end_ns);
    if (self->done < self->writes)
        s_die ("%d of %d writes were seen by all after 120 s", self->done, self->writes);
}

static void
s_start_flood (load_t *self)
{
    if (!self->flood)
        return;
    s_make_flood (self);
    s_connect (self, &self->client[self->count - 1]);
    while (!self->client[self->count - 1].greeted)
        s_turn (self, wire_now_ns () + SECOND_NS);
    s_turn_until (self, wire_now_ns () + SECOND_NS); //  Its bucket is empty from here on
}

static void
s_fanout (load_t *self)
{
    int64_t empty_kb = s_resident_kb (self->pid);
    double connecting = s_connect_all (self);
    s_turn_until (self, wire_now_ns () + QUIET_NS);
    int64_t full_kb = s_resident_kb (self->pid);
    s_start_flood (self);
    s_prepare_writes (self, self->writes, self->clients);
    self->frames = self->bytes = self->flood_bytes = 0;
    int64_t tcp_kb = s_tcp_kb ();
    int64_t cpu_ns = s_cpu_ns (self->pid);
    int64_t own_ns = s_own_cpu_ns ();
    self->from_ns = wire_now_ns ();
    s_run_writes (self);
    double took = (double) (wire_now_ns () - self->from_ns) / SECOND_NS;
    cpu_ns = s_cpu_ns (self->pid) - cpu_ns;
    own_ns = s_own_cpu_ns () - own_ns;
    double frames = (double) self->frames;
    int connections = self->clients + self->slow;
    s_print ("clients", self->clients, 0);
    s_print ("slow_clients", self->slow, 0);
    s_print ("writes", self->writes, 0);
    s_print ("seconds", took, 3);
    s_print ("connects_per_second", connections / connecting, 0);
    s_print ("deliveries", frames, 0);
    s_print ("deliveries_per_second", frames / took, 0);
    s_print ("bytes_per_delivery", (double) self->bytes / frames, 1);
    s_print_latency (&self->latency_us, "last_client");
    s_print ("server_cpu_us_per_delivery", (double) cpu_ns / frames / MICROSECOND_NS, 3);
    s_print ("server_cpu_us_per_write", (double) cpu_ns / self->writes / MICROSECOND_NS, 1);
    s_print ("load_cpu_us_per_delivery", (double) own_ns / frames / MICROSECOND_NS, 3);
    s_print ("server_kb_without_clients", (double) empty_kb, 0);
    s_print ("server_kb_with_clients", (double) full_kb, 0);
    s_print ("server_kb_per_connection", (double) (full_kb - empty_kb) / connections, 3);
    s_print ("server_kb_growth", (double) (s_resident_kb (self->pid) - full_kb), 0);
    s_print ("kernel_tcp_kb_growth", (double) (s_tcp_kb () - tcp_kb), 0);
    if (self->flood) {
        s_print ("flood_bytes_per_second", (double) self->flood_bytes / took, 0);
        s_print ("flood_was_cut_off", self->flood_cut_off, 0);
    }
}

//  ------------------------------------------------------------------------
//  Acknowledged writes

static bool
s_measuring (const load_t *self, int64_t now_ns)
{
    return now_ns >= self->from_ns && now_ns < self->until_ns;
}

static int64_t *
s_slot (const load_t *self, const client_t *client, int slot)
{
    return &self->acknowledged_ns[client->number * (uint32_t) self->pipeline + (uint32_t) slot];
}

static void
s_send_slot (load_t *self, client_t *client, int slot)
{
    *s_slot (self, client, slot) = wire_now_ns ();
    self->sent++;
    s_send_add (self, client, 0, self->by_frame ? -1 : slot);
}

//  Where the string value of a member of the frame's object begins; NULL: it has none. Quotes
//  within other values are escaped, so they cannot be taken for a name's.

static const char *
s_member (const wire_frame_t *frame, const char *quoted_name)
{
    const char *end = (const char *) frame->payload + frame->payload_size;
    const char *at = (const char *) memmem (frame->payload, frame->payload_size, quoted_name,
                                            strlen (quoted_name));
    for (at = at ? at + strlen (quoted_name) : end; at < end && strchr (": ", *at);)
        at++;
    return at < end && *at == '"' ? at + 1 : NULL;
}

//  The slot that a reply names; -1 for a frame that is none.

static int
s_reply_slot (const wire_frame_t *frame)
{
    const char *ref = s_is_list (frame) ? NULL : s_member (frame, "\"ref\"");
    return ref ? atoi (ref) : -1;
}

static bool
s_is_ok (const wire_frame_t *frame)
{
    const char *status = s_member (frame, "\"status\"");
    return status && strncmp (status, "ok\"", 3) == 0;
}

static void
s_take_reply (load_t *self, client_t *client, const wire_frame_t *frame)
{
    self->frames++;
    self->bytes += (int64_t) frame->size;
    int slot = self->by_frame ? (s_is_list (frame) ? 0 : -1) : s_reply_slot (frame);
    if (slot < 0 || slot >= self->pipeline || *s_slot (self, client, slot) == 0)
        return;
    int64_t now_ns = wire_now_ns ();
    self->done++;
    if (!self->by_frame && !s_is_ok (frame))
        self->failed++;
    else {
        self->acknowledged_ever++;
        if (s_measuring (self, now_ns)) {
            self->acknowledged++;
            s_sample (&self->latency_us,
                      (double) (now_ns - *s_slot (self, client, slot)) / MICROSECOND_NS);
        }
    }
    *s_slot (self, client, slot) = 0;
    if (now_ns < self->until_ns)
        s_send_slot (self, client, slot);
}

//  Waits for what has not been acknowledged; not for good, as a server without ref never will.

static void
s_await_rest (load_t *self)
{
    int64_t end_ns = wire_now_ns () + 3 * (int64_t) SECOND_NS;
    while (self->done < self->sent && wire_now_ns () < end_ns)
        s_turn (self, end_ns);
}

static void
s_writes (load_t *self)
{
    s_connect_all (self);
    s_turn_until (self, wire_now_ns () + QUIET_NS);
    self->latency_us.size = 0;
    size_t slots = (size_t) self->clients * (size_t) self->pipeline;
    self->acknowledged_ns = (int64_t *) s_allocate (slots * sizeof (int64_t));
    self->from_ns = wire_now_ns () + WARM_UP_NS;
    self->until_ns = self->from_ns + (int64_t) (self->seconds * SECOND_NS);
    for (int index = 0; index < self->clients; index++)
        for (int slot = 0; slot < self->pipeline; slot++)
            s_send_slot (self, &self->client[index], slot);
    s_turn_until (self, self->from_ns);
    int64_t cpu_ns = s_cpu_ns (self->pid);
    int64_t own_ns = s_own_cpu_ns ();
    self->frames = self->bytes = 0;
    s_turn_until (self, self->until_ns);
    cpu_ns = s_cpu_ns (self->pid) - cpu_ns;
    own_ns = s_own_cpu_ns () - own_ns;
    double frames = (double) self->frames;
    double adds = self->acknowledged ? (double) self->acknowledged : 1;
    s_await_rest (self);
    s_print ("writers", self->clients, 0);
    s_print ("pipelined_by_each", self->pipeline, 0);
    s_print ("seconds", self->seconds, 3);
    s_print ("acknowledged", (double) self->acknowledged, 0);
    s_print ("acknowledged_per_second", (double) self->acknowledged / self->seconds, 0);
    s_print_latency (&self->latency_us, "acknowledgement");
    s_print ("acknowledged_with_warm_up", (double) self->acknowledged_ever, 0);
    s_print ("sent_with_warm_up", self->sent, 0);
    s_print ("failed_with_warm_up", (double) self->failed, 0);
    s_print ("never_answered", self->sent - self->done, 0);
    s_print ("frames_received_per_add", frames / adds, 3);
    s_print ("server_cpu_us_per_add", (double) cpu_ns / adds / MICROSECOND_NS, 2);
    s_print ("load_cpu_us_per_add", (double) own_ns / adds / MICROSECOND_NS, 2);
}

//  ------------------------------------------------------------------------
//  Storm

static void
s_storm (load_t *self)
{
    int64_t empty_kb = s_resident_kb (self->pid);
    int64_t cpu_ns = s_cpu_ns (self->pid);
    double took = s_connect_all (self);
    cpu_ns = s_cpu_ns (self->pid) - cpu_ns;
    s_turn_until (self, wire_now_ns () + QUIET_NS);
    double kb = (double) (s_resident_kb (self->pid) - empty_kb);
    s_print ("clients", self->clients, 0);
    s_print ("at_once", self->at_once, 0);
    s_print ("seconds", took, 3);
    s_print ("cut_off", self->lost + self->lost_later, 0);
    s_print ("cut_off_after_first_page", self->lost_later, 0);
    s_print ("connects_per_second", self->greeted / took, 0);
    s_print_latency (&self->latency_us, "first_page");
    s_print ("server_cpu_us_per_connect", (double) cpu_ns / self->clients / MICROSECOND_NS, 1);
    s_print ("server_kb_per_connection", kb / self->greeted, 3);
}

//  ------------------------------------------------------------------------
//  Page turns

static uint32_t
s_random_page (load_t *self)
{
    self->random ^= self->random << 13; //  Marsaglia's xorshift64, the same in each run
    self->random ^= self->random >> 7;
    self->random ^= self->random << 17;
    return (uint32_t) (self->random % (uint64_t) self->pages) + 1;
}

static bool
s_shows_page (const wire_frame_t *frame, uint32_t page)
{
    char text[40];
    snprintf (text, sizeof (text), "data-page=\\\"%u\\\"", page);
    return s_is_list (frame) && s_has (frame->payload, frame->payload_size, text);
}

//  The writer (the first client, when there is a rate) waits for its mark, the others for their
//  page.

static void
s_take_turn (load_t *self, client_t *client, const wire_frame_t *frame)
{
    if (self->rate > 0 && client->number == 0) {
        s_take_fanout (self, client, frame);
        return;
    }
    if (!s_shows_page (frame, client->page))
        return;
    int64_t now_ns = wire_now_ns ();
    if (s_measuring (self, now_ns)) {
        self->acknowledged++;
        s_sample (&self->turn_us, (double) (now_ns - client->since_ns) / MICROSECOND_NS);
    }
    if (now_ns < self->until_ns)
        s_send_list (self, client, s_random_page (self));
    else
        client->page = 0;
}

static void
s_turns (load_t *self)
{
    s_connect_all (self);
    s_turn_until (self, wire_now_ns () + QUIET_NS);
    s_prepare_writes (self, (int) (self->rate * self->seconds), 1);
    self->from_ns = wire_now_ns () + WARM_UP_NS;
    self->until_ns = self->from_ns + (int64_t) (self->seconds * SECOND_NS);
    for (int index = self->rate > 0; index < self->clients; index++)
        s_send_list (self, &self->client[index], s_random_page (self));
    s_turn_until (self, self->from_ns);
    int64_t cpu_ns = s_cpu_ns (self->pid);
    while (wire_now_ns () < self->until_ns)
        s_write_or_turn (self, self->until_ns);
    cpu_ns = s_cpu_ns (self->pid) - cpu_ns;
    double turns = self->acknowledged ? (double) self->acknowledged : 1;
    s_print ("clients", self->clients, 0);
    s_print ("pages", self->pages, 0);
    s_print ("seconds", self->seconds, 3);
    s_print ("turns_per_second", (double) self->acknowledged / self->seconds, 0);
    s_print_latency (&self->turn_us, "turn");
    s_print ("writes_per_second", self->rate, 1);
    s_print_latency (&self->latency_us, "write");
    s_print ("server_cpu_us_per_turn", (double) cpu_ns / turns / MICROSECOND_NS, 2);
}

//  ------------------------------------------------------------------------
//  GET

static size_t
s_take_response (load_t *self, client_t *client, byte *data, size_t size)
{
    static const char name[] = "\r\nContent-Length: ";
    const byte *end = (const byte *) memmem (data, size, "\r\n\r\n", 4);
    if (!end)
        return 0;
    size_t header = (size_t) (end - data) + 4;
    const char *length = (const char *) memmem (data, header, name, sizeof (name) - 1);
    if (!length || memcmp (data, "HTTP/1.1 200 ", 13) != 0)
        s_die ("not answered by 200 and a Content-Length: %.*s", (int) header, (char *) data);
    size_t whole = header + (size_t) strtoul (length + sizeof (name) - 1, NULL, 10);
    if (size < whole)
        return 0;
    int64_t now_ns = wire_now_ns ();
    if (s_measuring (self, now_ns)) {
        self->acknowledged++;
        self->bytes += (int64_t) whole;
        s_sample (&self->latency_us, (double) (now_ns - client->since_ns) / MICROSECOND_NS);
    }
    client->since_ns = now_ns;
    if (now_ns < self->until_ns)
        s_send (self, client, self->request, self->request_size);
    return whole;
}

static void
s_get (load_t *self)
{
    self->take = s_take_response;
    self->from_ns = wire_now_ns () + WARM_UP_NS;
    self->until_ns = self->from_ns + (int64_t) (self->seconds * SECOND_NS);
    for (int index = 0; index < self->clients; index++)
        s_connect (self, &self->client[index]);
    s_turn_until (self, self->from_ns);
    int64_t cpu_ns = s_cpu_ns (self->pid);
    s_turn_until (self, self->until_ns);
    cpu_ns = s_cpu_ns (self->pid) - cpu_ns;
    double requests = self->acknowledged ? (double) self->acknowledged : 1;
    s_print ("clients", self->clients, 0);
    s_print ("seconds", self->seconds, 3);
    s_print ("requests_per_second", (double) self->acknowledged / self->seconds, 0);
    s_print_latency (&self->latency_us, "request");
    s_print ("bytes_per_response", (double) self->bytes / requests, 1);
    s_print ("server_cpu_us_per_request", (double) cpu_ns / requests / MICROSECOND_NS, 2);
}

//  ------------------------------------------------------------------------
//  Options

typedef struct {
    const char *name;
    void (*run) (load_t *self);
    void (*take_text) (load_t *self, client_t *client, const wire_frame_t *frame);
} bench_t;

static const bench_t s_benches[] = {
    {"fanout", s_fanout, s_take_fanout},
    {"writes", s_writes, s_take_reply},
    {"storm", s_storm, NULL},
    {"turns", s_turns, s_take_turn},
    {"get", s_get, NULL},
    {NULL, NULL, NULL},
};

static const char s_usage[] =
    "usage: bench_load BENCH --port PORT [OPTION...]\n"
    "BENCH is fanout, writes, storm, turns or get\n"
    "  --pid PID         the server, to read its CPU time and memory\n"
    "  --clients N       fanout, turns: that read; writes: writers; storm: in all (1000)\n"
    "  --at-once N       that connect at the same time (64)\n"
    "  --path PATH       of the WebSocket (/ws/social-network/)\n"
    "  --seconds S       writes, turns, get: to measure, after half a second to warm up (2)\n"
    "  --text-bytes N    of an added message (100)\n"
    "  --writes N        fanout: in all (100)\n"
    "  --rate R          fanout, turns: writes a second (fanout without it: the next one when\n"
    "                    all have seen the last one; turns without it: none)\n"
    "  --slow N          fanout: more clients, that never read\n"
    "  --flood KIND      fanout: one more that floods with list, edit, add or malformed\n"
    "  --pipeline N      writes: adds of one writer that are not acknowledged yet (1)\n"
    "  --ack ref|frame   writes: what acknowledges an add: the reply with its ref (breadboard.1),\n"
    "                    or the next list frame (plain protocol) (ref)\n"
    "  --pages N         turns: among which to choose (100)\n";

static void
s_refuse (void)
{
    fputs (s_usage, stderr);
    exit (2);
}

static int
s_number (const char *text, int least, int most)
{
    char *end;
    long value = strtol (text, &end, 10);
    if (*end || value < least || value > most)
        s_refuse ();
    return (int) value;
}

static void
s_set (load_t *self, int option, const char *value)
{
    switch (option) {
    case 'p':
        self->port = s_number (value, 1, 65535);
        break;
    case 'P':
        self->pid = s_number (value, 1, 1 << 22);
        break;
    case 'c':
        self->clients = s_number (value, 1, 1000000);
        break;
    case 'a':
        self->at_once = s_number (value, 1, 1000000);
        break;
    case 'u':
        self->path = value;
        break;
    case 's':
        self->seconds = atof (value);
        break;
    case 't':
        self->text_bytes = s_number (value, 20, 1000);
        break;
    case 'w':
        self->writes = s_number (value, 1, WRITES_MAX);
        break;
    case 'r':
        self->rate = atof (value);
        break;
    case 'S':
        self->slow = s_number (value, 0, 1000000);
        break;
    case 'f':
        self->flood = value;
        break;
    case 'l':
        self->pipeline = s_number (value, 1, PIPELINE_MAX);
        break;
    case 'k':
        self->by_frame = strcmp (value, "frame") == 0;
        if (!self->by_frame && strcmp (value, "ref") != 0)
            s_refuse ();
        break;
    case 'g':
        self->pages = s_number (value, 1, 1000000000);
        break;
    default:
        s_refuse ();
    }
}

static const bench_t *
s_parse (load_t *self, int argc, char **argv)
{
    static const struct option options[] = {
        {"port", 1, NULL, 'p'},       {"pid", 1, NULL, 'P'},    {"clients", 1, NULL, 'c'},
        {"at-once", 1, NULL, 'a'},    {"path", 1, NULL, 'u'},   {"seconds", 1, NULL, 's'},
        {"text-bytes", 1, NULL, 't'}, {"writes", 1, NULL, 'w'}, {"rate", 1, NULL, 'r'},
        {"slow", 1, NULL, 'S'},       {"flood", 1, NULL, 'f'},  {"pipeline", 1, NULL, 'l'},
        {"ack", 1, NULL, 'k'},        {"pages", 1, NULL, 'g'},  {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long (argc, argv, "", options, NULL)) != -1)
        s_set (self, option, optarg);
    self->bench = optind == argc - 1 ? argv[optind] : "";
    const bench_t *bench = s_benches;
    while (bench->name && strcmp (bench->name, self->bench) != 0)
        bench++;
    if (!bench->name || !self->port || (self->by_frame && self->pipeline > 1))
        s_refuse ();
    return bench;
}

//  Descriptors for all clients, as far as root may give them to itself.

static void
s_raise_limit (void)
{
    struct rlimit limit;
    getrlimit (RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit (RLIMIT_NOFILE, &limit);
}

int
main (int argc, char **argv)
{
    static load_t self = {.clients = 1000,
                          .at_once = 64,
                          .path = "/ws/social-network/",
                          .seconds = 2,
                          .text_bytes = 100,
                          .writes = 100,
                          .pipeline = 1,
                          .pages = 100,
                          .take = s_take_web_socket,
                          .random = 88172645463325252u};
    const bench_t *bench = s_parse (&self, argc, argv);
    struct timespec now;
    clock_gettime (CLOCK_REALTIME, &now);
    self.mark = (uint64_t) now.tv_sec * 1000000 + (uint64_t) now.tv_nsec / 1000;
    self.take_text = bench->take_text;
    self.buffer = (byte *) s_allocate (BUFFER_BYTES + 16); //  Numbers are read to their end
    self.epoll = epoll_create1 (EPOLL_CLOEXEC);
    s_raise_limit ();
    s_make_request (&self);
    s_make_clients (&self);
    printf ("{\"bench\": \"%s\"", self.bench);
    bench->run (&self);
    printf ("}\n");
    return 0;
}
