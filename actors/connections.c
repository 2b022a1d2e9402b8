//  One epoll watches the descriptors of all connections and those of the actor's own ZeroMQ
//  sockets. A ZeroMQ descriptor only says that something may have happened (zmq_getsockopt (3),
//  ZMQ_FD), and is quiet again once the socket was asked; so a socket that stirred is asked, and
//  emptied, or it is remembered that something is left.
//
//  A turn gathers, then sends. What is published only marks what connections are owed: an audience
//  is owed its newest page, a connection its private frames. At the end of the turn each gets all
//  that it is owed in one system call, so a page and the acknowledgement behind it cost one, and of
//  two pages published meanwhile only the newer is sent. In the same way the commands that clients
//  sent in one turn go to the database actor as one zmsg.
//
//  Who waits for an answer gets the newest page with it, in one call, and so is passed over when a
//  page comes before the answer, for PATIENCE_MS at most. Where many write at once, pages come
//  faster than answers, and this saves most of them.
//
//  Two things keep a write cheap where few look on. A thread without connections stops watching
//  when something was published, and looks every LOOK_MS, and before somebody arrives, until
//  nothing was. And a connection thread that is woken does not interrupt the database actor, which
//  has more to publish (s_set_policy): so it takes a page, and the answers behind it, in one turn.
//
//  Whatever ends a connection only dooms it. It is destroyed at the end of the turn, when no event
//  at hand and no walk through an audience can still lead to it; and it leaves epoll before it is
//  closed: while another thread's getpeername (2) looks at the descriptor (http/takeover), closing
//  alone would not take it out.

#include "actors/connections.h"
#include "actors/audience.h"
#include "actors/database.h"
#include "actors/metrics.h"
#include "actors/presence.h"
#include "actors/scratch.h"
#include "actors/swap.h"
#include "actors/table.h"
#include "config/log.h"
#include "http/frame.h"

#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

//  High-water marks. An inproc pipe holds as much as both its ends say together, so one end says
//  how much, and the other one 1
#define ARRIVALS_QUEUE  1000 //  Sockets handed over and not yet taken, of each civetweb thread
#define PUBLISHED_QUEUE 1    //  The database actor's end says how much
#define COMMANDS_QUEUE  1    //  The same

#define BUFFER_BYTES   65536     //  Of input, taken in one go
#define EVENTS_MAX     256       //  Taken in one turn
#define PUBLISHED_MAX  64        //  Taken in one turn
#define COMMANDS_BYTES 65536     //  Of commands gathered for one zmsg, and one command more
#define GATHERED_MAX   (1 << 20) //  Bytes of them, while the database actor takes none
#define FULL_MS        1         //  Until it is asked again
#define PATIENCE_MS    10
#define LOOK_MS        50
#define SWEEP_MS       1000
#define PING_EVERY_S   20
#define UNFINISHED_MS  10000 //  A message that does not end in this time is cut
#define CLOSING_MS     2000  //  How long a client may take to answer a close frame
#define DRAIN_MS       1000  //  And how long when the board ends
#define RETURNS_PER_S  1000  //  Of clients that were sent away
#define SPREAD_MAX_S   60
#define PING           "{\"action\":\"ping\"}"
#define PONG           "{\"status\":\"ok\"}"
#define HELLO_TRIES    100
#define HELLO_WAIT_MS  50

typedef struct {
    int number;           //  K
    zsock_t *pipe;        //  To our parent; the zactor owns it
    zsock_t *arrivals;    //  PULL; owned
    zsock_t *published;   //  SUB; owned
    zsock_t *commands;    //  DEALER; owned
    char endpoint[40];    //  Of arrivals
    int epoll;            //  Owned; -1: none
    byte *buffer;         //  For input; owned
    site_t *site;         //  Our reference
    zhashx_t *table;      //  Of connection_t by id; items are owned, destroyed by s_bury ()
    zhashx_t *audiences;  //  Of audience_t by page; owned
    audience_t *first;    //  That of page 1, which always is
    presence_t *presence; //  Owned
    zlistx_t *renewed;    //  Audiences owed a new page; borrowed from audiences
    zchunk_t *gathered;   //  Commands for the database actor; owned
    zlistx_t *dirty;      //  Connections owed private frames; borrowed from table
    zlistx_t *doomed;     //  Connections to destroy; borrowed from table
    zlistx_t *paused;     //  Connections over their rate; borrowed from table
    int64_t frames;       //  Sent since they were last counted
    int64_t bytes;        //  The same
    uint64_t last_id;     //  Of a connection
    int64_t now_ms;       //  Of this turn
    int64_t resume_ms;    //  When to look at the paused ones
    int64_t patient_ms;   //  When those passed over get their page in any case; INT64_MAX: none are
    int64_t sweep_ms;     //  When to sweep
    uint64_t sweeps;      //  So far
    int64_t pages;        //  How many the board has, as it was published last
    int64_t drained_ms;   //  When draining ends at the latest; 0: we do not drain
    bool stirred;         //  A ZeroMQ socket of ours has something, or may have
    bool heard;           //  Something was published before this turn
    bool listens;         //  We watch for it
    bool full;            //  The database actor took no more when it was asked last
    bool quiet;           //  Clients are not read from
    bool terminated;      //  $TERM has come
} self_t;

//  What a message of a client leads to
typedef struct {
    self_t *self;
    connection_t *connection;
} sender_t;

//  ------------------------------------------------------------------------
//  Watching, dooming, burying

//  To be called after anything was done to a connection: watches for what it needs now, or dooms
//  it.

static void
s_settle (self_t *self, connection_t *connection)
{
    if (connection->gone) {
        if (!connection->doomed) {
            epoll_ctl (self->epoll, EPOLL_CTL_DEL, connection->descriptor, NULL);
            zlistx_add_end (self->doomed, connection);
        }
        connection->doomed = true;
        return;
    }
    bool deaf = !connection->closing_ms && (connection->paused || self->quiet);
    uint32_t events = (deaf ? 0 : EPOLLIN) | (connection_behind (connection) ? EPOLLOUT : 0);
    if (events != connection->events) {
        struct epoll_event event = {.events = events, .data.ptr = connection};
        epoll_ctl (self->epoll, EPOLL_CTL_MOD, connection->descriptor, &event);
        connection->events = events;
    }
}

static audience_t *
s_audience (self_t *self, int64_t page)
{
    audience_t *audience = (audience_t *) zhashx_lookup (self->audiences, &page);
    if (!audience) {
        audience = audience_new (page);
        zhashx_insert (self->audiences, &audience->page, audience);
    }
    return audience;
}

//  Leaves its audience, which ends with its last connection.

static void
s_leave (self_t *self, connection_t *connection)
{
    audience_t *audience = connection->audience;
    audience_leave (connection);
    if (audience->size > 0 || audience == self->first)
        return;
    if (audience->renewed)
        zlistx_delete (self->renewed, zlistx_find (self->renewed, audience));
    zhashx_delete (self->audiences, &audience->page);
}

static void
s_move (self_t *self, connection_t *connection, audience_t *audience)
{
    if (connection->audience != audience) {
        s_leave (self, connection);
        audience_join (audience, connection);
        connection->seen = audience->version; //  Whoever moves it sees to its page
    }
}

//  Destroys a doomed connection. Returns false when the database actor's queue is full: it must
//  hear of it, so it is tried again at the next turn.

static bool
s_bury (self_t *self, connection_t *connection)
{
    //  Not before its own commands
    if (connection->known &&
        (zchunk_size (self->gathered) > 0 ||
         zsock_send (self->commands, "18", DATABASE_LEFT, connection->id) != 0))
        return false;
    if (connection->paused)
        zlistx_delete (self->paused, zlistx_find (self->paused, connection));
    if (connection->dirty)
        zlistx_delete (self->dirty, zlistx_find (self->dirty, connection));
    epoll_ctl (self->epoll, EPOLL_CTL_DEL, connection->descriptor, NULL);
    s_leave (self, connection);
    zhashx_delete (self->table, &connection->id);
    connection_destroy (&connection);
    metrics_add (METRICS_CONNECTIONS_OPEN, -1);
    return true;
}

static void
s_bury_doomed (self_t *self)
{
    for (size_t count = zlistx_size (self->doomed); count > 0; count--) {
        connection_t *connection = (connection_t *) zlistx_detach (self->doomed, NULL);
        if (!s_bury (self, connection))
            zlistx_add_end (self->doomed, connection);
    }
}

//  ------------------------------------------------------------------------
//  Sending

//  Sends what the connection is owed.

static void
s_flush (self_t *self, connection_t *connection)
{
    audience_t *audience = connection->audience;
    connection->stale = connection->seen != audience->version && !connection->closing_ms;
    size_t sent = connection_flush (connection, audience->newest);
    self->bytes += (int64_t) sent;
    self->frames += sent > 0;
    if (!connection->stale)
        connection->seen = audience->version;
    if (connection_behind (connection))
        connection_keep (connection);
    if (connection->closing_ms && !connection->shut && !connection_behind (connection)) {
        connection->shut = true;
        shutdown (connection->descriptor, SHUT_WR);
    }
    s_settle (self, connection);
}

//  Remembers that the connection is owed something.

static void
s_mark_dirty (self_t *self, connection_t *connection)
{
    if (!connection->dirty)
        zlistx_add_end (self->dirty, connection);
    connection->dirty = true;
}

//  Sends a close frame behind what is half sent, and hears no more of the client but its end.

static void
s_close (self_t *self, connection_t *connection, zframe_t *close_frame)
{
    parcel_t *parcel = parcel_new (&close_frame);
    if (connection->closing_ms || connection->gone) {
        parcel_destroy (&parcel);
        return;
    }
    connection_forget (connection);
    connection_queue (connection, &parcel);
    connection->closing_ms = self->now_ms;
    s_mark_dirty (self, connection);
}

//  Closes for a reason of ours.

static void
s_cut (self_t *self, connection_t *connection, int code, const char *reason)
{
    if (connection->closing_ms || connection->gone)
        return;
    s_close (self, connection,
             code == FRAME_CLOSE_TRY_LATER ? connections_farewell ((uint16_t) code, reason)
                                           : frame_new_close ((uint16_t) code, reason));
    metrics_add (METRICS_CONNECTIONS_CUT, 1);
}

//  Owes the connection a private frame; takes it. When many were gathered, the kernel may have room
//  for them; only a client that does not read is too slow.

static void
s_owe (self_t *self, connection_t *connection, parcel_t *parcel)
{
    if (connection->queued == CONNECTION_QUEUE && !(connection->events & EPOLLOUT))
        s_flush (self, connection);
    if (connection->events & EPOLLOUT)
        parcel_keep (parcel); //  It may wait for long
    if (connection->closing_ms)
        parcel_destroy (&parcel);
    else if (connection_queue (connection, &parcel) != 0)
        s_cut (self, connection, FRAME_CLOSE_TRY_LATER, "too slow");
    s_mark_dirty (self, connection);
}

//  The same; NULL: memory is out, and the client may try again.

static void
s_owe_frame (self_t *self, connection_t *connection, zframe_t *frame)
{
    if (frame)
        s_owe (self, connection, parcel_new (&frame));
    else
        s_cut (self, connection, FRAME_CLOSE_TRY_LATER, "out of memory");
}

//  Owes an audience its newest page.

static void
s_renew (self_t *self, audience_t *audience, parcel_t *page, uint64_t etag)
{
    audience_keep (audience, page, etag);
    audience->walked = false;
    if (!audience->renewed) {
        zlistx_add_end (self->renewed, audience);
        audience->renewed_ms = self->now_ms;
    }
    audience->renewed = true;
}

//  Sends an audience its newest page; patient: but to those who wait for an answer. Returns whether
//  some were passed over.

static bool
s_flush_audience (self_t *self, audience_t *audience, bool patient)
{
    bool passed_over = false;
    for (size_t index = 0; index < audience->size; index++) {
        connection_t *connection = audience->connections[index];
        if (connection->events & EPOLLOUT) {
            if (!connection->stale)
                metrics_add (METRICS_CONNECTIONS_STALE, 1);
            connection->stale = true; //  It is behind, and gets this page or a newer one
        }
        else if (connection->seen != audience->version && patient && connection->asked > 0)
            passed_over = true;
        else if (connection->seen != audience->version)
            s_flush (self, connection);
    }
    audience->walked = true;
    return passed_over;
}

//  Sends new pages to the audiences that have one.

static void
s_flush_audiences (self_t *self)
{
    self->patient_ms = INT64_MAX;
    for (size_t count = zlistx_size (self->renewed); count > 0; count--) {
        audience_t *audience = (audience_t *) zlistx_detach (self->renewed, NULL);
        int64_t due_ms = audience->renewed_ms + PATIENCE_MS;
        bool patient = self->now_ms < due_ms;
        bool rests = audience->walked && patient;
        audience->renewed = rests || s_flush_audience (self, audience, patient);
        if (audience->renewed) {
            zlistx_add_end (self->renewed, audience);
            self->patient_ms = self->patient_ms < due_ms ? self->patient_ms : due_ms;
        }
    }
}

//  Ends a turn: sends all that is owed. Who is behind anyway is served when the kernel has room.

static void
s_flush_all (self_t *self)
{
    s_flush_audiences (self);
    connection_t *connection;
    while ((connection = (connection_t *) zlistx_detach (self->dirty, NULL))) {
        connection->dirty = false;
        if (!(connection->events & EPOLLOUT))
            s_flush (self, connection);
        else
            s_settle (self, connection);
    }
    metrics_add (METRICS_FRAMES_SENT, self->frames);
    metrics_add (METRICS_BYTES_SENT, self->bytes);
    self->frames = self->bytes = 0;
}

//  ------------------------------------------------------------------------
//  What clients send

//  Says busy to the sender of a command that cannot be forwarded.

static void
s_refuse (self_t *self, const database_command_t *head, const void *json)
{
    connection_t *connection = (connection_t *) zhashx_lookup (self->table, &head->connection);
    if (!connection)
        return;
    command_t *command = command_new ((const char *) json, head->size, site_settings (self->site));
    command->speaks_breadboard_1 = head->speaks_breadboard_1;
    command_fail (command, COMMAND_BUSY, "The board is very busy; try again in a second.");

    if (head->opens)
        s_cut (self, connection, FRAME_CLOSE_TRY_LATER, "the board is very busy");
    else
        s_owe_frame (self, connection, swap_new_notice (self->site, command));
    command_destroy (&command);
}

static void
s_refuse_gathered (self_t *self)
{
    const byte *data = zchunk_data (self->gathered);
    const byte *end = data + zchunk_size (self->gathered);
    while (data < end) {
        database_command_t head;
        memcpy (&head, data, sizeof (head));
        data += sizeof (head);
        s_refuse (self, &head, data);
        data += head.size;
    }
    zchunk_set (self->gathered, NULL, 0);
}

//  Gives what was gathered to the database actor. When its queue is full, that stays for the next
//  turn.

static void
s_forward (self_t *self)
{
    size_t size = zchunk_size (self->gathered);
    if (size == 0 || (self->full && !(zsock_events (self->commands) & ZMQ_POLLOUT)))
        return;
    self->full = zsock_send (self->commands, "18b", DATABASE_COMMANDS_SENT, (uint64_t) self->number,
                             zchunk_data (self->gathered), size) != 0;
    if (!self->full)
        zchunk_set (self->gathered, NULL, 0);
}

//  Gathers a command; the caller has filled in what the head says of it beside who sends it.

static void
s_gather (self_t *self, connection_t *connection, database_command_t head, const void *json)
{
    head.connection = connection->id;
    head.speaks_breadboard_1 = connection->speaks_breadboard_1;
    if (self->full && zchunk_size (self->gathered) >= GATHERED_MAX) {
        s_refuse (self, &head, json);
        return;
    }
    zchunk_extend (self->gathered, &head, sizeof (head));
    zchunk_extend (self->gathered, json, head.size);
    connection->known = true;
    if (connection->speaks_breadboard_1 && connection->asked < UINT16_MAX)
        connection->asked++;
    if (zchunk_size (self->gathered) >= COMMANDS_BYTES)
        s_forward (self);
}

//  Counts messages that came, or bytes, for the connection and for its address.

static void
s_count (self_t *self, connection_t *connection, int64_t messages, int64_t bytes)
{
    const settings_t *settings = site_settings (self->site);
    if (messages > 0)
        rate_limit_take (&connection->bucket, settings->limits_messages_per_second,
                         settings->limits_burst, self->now_ms);
    meter_count (&connection->bytes, bytes, settings->limits_bytes_per_second, self->now_ms);
    visitor_count (connection->visitor, settings, messages, bytes, self->now_ms);
}

//  Milliseconds until the connection may be read from: its rates and those of its address allow it.

static int64_t
s_wait_ms (const self_t *self, const connection_t *connection)
{
    const settings_t *settings = site_settings (self->site);
    int64_t waits_ms[] = {
        rate_limit_wait_ms (&connection->bucket, settings->limits_messages_per_second,
                            settings->limits_burst, self->now_ms),
        meter_wait_ms (&connection->bytes, settings->limits_bytes_per_second, self->now_ms),
        visitor_wait_ms (connection->visitor, settings, self->now_ms)};
    int64_t wait_ms = waits_ms[0] > waits_ms[1] ? waits_ms[0] : waits_ms[1];
    return wait_ms > waits_ms[2] ? wait_ms : waits_ms[2];
}

//  Puts the connection, which is not there, among the paused ones if it must wait. Returns whether
//  it must.

static bool
s_postpone (self_t *self, connection_t *connection)
{
    int64_t wait_ms = s_wait_ms (self, connection);
    connection->paused = wait_ms > 0;
    if (connection->paused) {
        zlistx_add_end (self->paused, connection);
        if (self->resume_ms > self->now_ms + wait_ms)
            self->resume_ms = self->now_ms + wait_ms;
    }
    return connection->paused;
}

//  Whether the connection must not be read from for a while; it is then among the paused ones.

static bool
s_pause (self_t *self, connection_t *connection)
{
    if (!connection->paused && s_postpone (self, connection))
        metrics_add (METRICS_CONNECTIONS_PAUSED, 1);
    return connection->paused;
}

//  Whether the message asks for a sign of life. Scripts in a browser see no PONG, and who speaks
//  breadboard.1 may ask for one so, byte for byte; it is answered here, whatever the database does.

static bool
s_is_ping (const connection_t *connection, const reassembly_event_t *event)
{
    return connection->speaks_breadboard_1 && event->size == strlen (PING) &&
           memcmp (event->payload, PING, event->size) == 0;
}

//  Takes one message; returns whether to go on.

static bool
s_handle_message (const reassembly_event_t *event, void *arg)
{
    const sender_t *sender = (const sender_t *) arg;
    self_t *self = sender->self;
    connection_t *connection = sender->connection;
    if (event->opcode == FRAME_TEXT) {
        connection->unfinished_ms = 0;
        if (s_is_ping (connection, event))
            s_owe_frame (self, connection, frame_new (FRAME_TEXT, PONG, strlen (PONG)));
        else
            s_gather (self, connection, (database_command_t){.size = (uint32_t) event->size},
                      event->payload);
    }
    else if (event->opcode == FRAME_PING)
        s_owe_frame (self, connection, frame_new (FRAME_PONG, event->payload, event->size));
    else if (event->opcode == FRAME_CLOSE)
        s_close (self, connection, frame_new_close (event->close_code, ""));
    if (event->opcode != FRAME_TEXT && event->opcode != FRAME_PING)
        return true;
    s_count (self, connection, 1, 0);
    return !s_pause (self, connection) && !connection->closing_ms && !connection->gone;
}

static void
s_feed (self_t *self, connection_t *connection, size_t size)
{
    sender_t sender = {self, connection};
    int code = reassembly_feed (&connection->reassembly, self->buffer, size,
                                (size_t) site_settings (self->site)->limits_max_message_bytes,
                                s_handle_message, &sender);
    if (code)
        s_cut (self, connection, code, "");
    if (!reassembly_pending (connection->reassembly))
        connection->unfinished_ms = 0;
    else if (!connection->unfinished_ms)
        connection->unfinished_ms = self->now_ms;
}

static void
s_read (self_t *self, connection_t *connection)
{
    ssize_t size = recv (connection->descriptor, self->buffer, BUFFER_BYTES, MSG_DONTWAIT);
    if (size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR))
        connection->gone = true;
    else if (size > 0 && !connection->closing_ms) {
        s_count (self, connection, 0, size);
        s_feed (self, connection, (size_t) size);
        s_pause (self, connection);
    }
}

static void
s_handle_event (self_t *self, connection_t *connection, uint32_t events)
{
    if (connection->gone)
        return;
    if (events & EPOLLOUT)
        s_flush (self, connection);
    if (events & EPOLLIN)
        s_read (self, connection);
    else if (events & (EPOLLHUP | EPOLLERR))
        connection->gone = true;
    s_settle (self, connection);
}

//  Goes on with a client whose rates allow it more. What it could not end while it was not read
//  from, it has its whole time for from now on. What waited here may use up its rate again.

static void
s_resume (self_t *self, connection_t *connection)
{
    connection->unfinished_ms = 0;
    if (!connection->gone && !connection->closing_ms && !self->quiet)
        s_feed (self, connection, 0);
    s_settle (self, connection);
}

//  Goes on with those whose time has come.

static void
s_resume_paused (self_t *self)
{
    if (self->now_ms < self->resume_ms)
        return;
    self->resume_ms = INT64_MAX;
    for (size_t count = zlistx_size (self->paused); count > 0; count--) {
        connection_t *connection = (connection_t *) zlistx_detach (self->paused, NULL);
        if (!s_postpone (self, connection))
            s_resume (self, connection);
    }
}

//  ------------------------------------------------------------------------
//  What is published

//  Those who look past the last page look at the last one from now on; its frame is on the way.

static void
s_clamp (self_t *self, int64_t pages)
{
    audience_t *past;
    do {
        past = (audience_t *) zhashx_first (self->audiences);
        while (past && past->page <= pages)
            past = (audience_t *) zhashx_next (self->audiences);
        audience_t *last = past ? s_audience (self, pages) : NULL;
        for (size_t left = past ? past->size : 0; left > 0; left--)
            s_move (self, past->connections[left - 1], last); //  The last move ends past
    } while (past);
}

static void
s_take_page (self_t *self, int64_t number, int64_t pages, uint64_t etag, parcel_t *parcel)
{
    if (pages < self->pages)
        s_clamp (self, pages);
    self->pages = pages;
    audience_t *audience = (audience_t *) zhashx_lookup (self->audiences, &number);
    if (audience)
        s_renew (self, audience, parcel, etag);
}

//  Takes an answer for one connection. One that shows a page moves the connection there, and is not
//  overtaken by a newer state of that page (connection_flush). Answers that wait before it come
//  behind the page that they are about, so if that is owed, it goes before the connection moves.

static void
s_take_answer (self_t *self, const database_answer_t *head, parcel_t *parcel)
{
    connection_t *connection = (connection_t *) zhashx_lookup (self->table, &head->connection);
    if (!connection || connection->gone) {
        parcel_destroy (&parcel);
        return;
    }
    if (connection->asked > 0)
        connection->asked--;
    bool owed = connection->seen != connection->audience->version;
    if (head->page > 0 && owed && connection->first && !(connection->events & EPOLLOUT))
        s_flush (self, connection);
    if (head->page > 0) { //  The frame shows it, so it has been seen
        s_move (self, connection, s_audience (self, head->page));
        connection->seen = connection->audience->version;
        parcel->shows_page = true;
    }
    if (parcel->size > 0 && (parcel->data[0] & 0x0F) == FRAME_CLOSE) {
        s_close (self, connection, zframe_new (parcel->data, parcel->size));
        parcel_destroy (&parcel);
    }
    else if (parcel->size > 0)
        s_owe (self, connection, parcel);
    else
        parcel_destroy (&parcel);
}

static void
s_take_answers (self_t *self, parcel_t *answers)
{
    const byte *data = answers->data;
    while (data < answers->data + answers->size) {
        database_answer_t head;
        memcpy (&head, data, sizeof (head));
        data += sizeof (head);
        s_take_answer (self, &head, parcel_new_part (answers, data, head.size));
        data += head.size;
    }
}

//  Takes one published zmsg; returns whether it is the answer to our HELLO.

static bool
s_take_published (self_t *self)
{
    char *topic = NULL;
    uint64_t pages = 0;
    uint64_t etag = 0;
    zframe_t *frame = NULL;
    zsock_recv (self->published, "s88f", &topic, &pages, &etag, &frame);
    bool hello = *topic == 't' && zframe_size (frame) == 0;
    parcel_t *parcel = parcel_new (&frame);
    if (*topic == 'p')
        s_take_page (self, strtoll (topic + strlen ("page/"), NULL, 10), (int64_t) pages, etag,
                     parcel);
    else
        s_take_answers (self, parcel);
    parcel_destroy (&parcel);
    zstr_free (&topic);
    return hello;
}

//  ------------------------------------------------------------------------
//  Arrivals, sweeping, draining

zframe_t *
connections_farewell (uint16_t code, const char *reason)
{
    int64_t spread_s = 1 + metrics_get (METRICS_CONNECTIONS_OPEN) / RETURNS_PER_S;
    char text[FRAME_REASON_MAX_BYTES + 1];
    snprintf (text, sizeof (text), "%s; spread=%" PRId64, reason,
              spread_s < SPREAD_MAX_S ? spread_s : SPREAD_MAX_S);
    return frame_new_close (code, text);
}

static zframe_t *
s_going_away (void)
{
    return connections_farewell (FRAME_CLOSE_GOING_AWAY, "the server goes away");
}

//  Puts a new connection on the page that it opens on. Page 1 is here; what another one looks like
//  the database actor knows, which must hear of its viewers anyway.

static void
s_open (self_t *self, connection_t *connection, int64_t page, uint64_t etag)
{
    page = page < 1 ? 1 : page > self->pages ? self->pages : page;
    audience_t *audience = s_audience (self, page);
    audience_join (audience, connection);
    connection->seen = audience->version;
    if (page == 1) {
        connection->seen -= etag != audience->etag; //  Then it is owed the page
        return;
    }
    char json[120];
    int size = snprintf (json, sizeof (json),
                         "{\"action\":\"list messages\",\"data\":{\"page\":%" PRId64
                         ",\"etag\":\"%016" PRIx64 "\"}}",
                         page, etag);
    s_gather (self, connection, (database_command_t){.size = (uint32_t) size, .opens = true}, json);
}

static void
s_take_arrival (self_t *self)
{
    uint32_t descriptor = 0;
    uint8_t speaks_breadboard_1 = 0;
    uint64_t page = 0;
    uint64_t etag = 0;
    void *visitor = NULL;
    zsock_recv (self->arrivals, "4188p", &descriptor, &speaks_breadboard_1, &page, &etag, &visitor);
    uint64_t id = ++self->last_id * (CONNECTIONS_THREADS_MAX + 1) + (uint64_t) self->number;
    connection_t *connection = connection_new (id, (int) descriptor);
    connection->speaks_breadboard_1 = speaks_breadboard_1 != 0;
    connection->visitor = (visitor_t *) visitor;
    rate_limit_init (&connection->bucket, site_settings (self->site)->limits_burst, self->now_ms);
    zhashx_insert (self->table, &connection->id, connection);
    s_open (self, connection, (int64_t) page, etag);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    connection->events = EPOLLIN;
    if (epoll_ctl (self->epoll, EPOLL_CTL_ADD, connection->descriptor, &event) != 0)
        connection->gone = true; //  Out of watches: max_user_watches, in epoll (7)
    if (self->drained_ms)
        s_close (self, connection, s_going_away ());
    s_mark_dirty (self, connection);
}

//  Owes a connection the newest presence, unless it is behind: then it may get a newer one next
//  time.

static void
s_show_presence (self_t *self, connection_t *connection)
{
    if (!connection->speaks_breadboard_1 || connection->presence == self->presence->version ||
        connection->closing_ms || connection_behind (connection))
        return;
    connection->presence = self->presence->version;
    s_owe (self, connection, presence_parcel (self->presence));
}

static void
s_sweep_connection (self_t *self, connection_t *connection)
{
    s_show_presence (self, connection);
    bool cut = connection->unfinished_ms && !connection->paused &&
               self->now_ms - connection->unfinished_ms > UNFINISHED_MS;
    if (connection->closing_ms && self->now_ms - connection->closing_ms > CLOSING_MS)
        connection->gone = true;
    else if (cut)
        s_cut (self, connection, FRAME_CLOSE_POLICY, "message not finished in time");
    else if (!connection->closing_ms && !connection_behind (connection) &&
             (connection->id / (CONNECTIONS_THREADS_MAX + 1) + self->sweeps) % PING_EVERY_S == 0)
        s_owe_frame (self, connection, frame_new (FRAME_PING, "", 0));
    s_settle (self, connection);
}

//  Once a second: pings a twentieth of the connections, ends those that keep us waiting, and tells
//  how many there are.

static void
s_sweep (self_t *self)
{
    if (self->now_ms < self->sweep_ms)
        return;
    self->sweep_ms = self->now_ms + SWEEP_MS;
    self->sweeps++;
    presence_renew (self->presence, self->site, self->now_ms);
    for (connection_t *connection = (connection_t *) zhashx_first (self->table); connection;
         connection = (connection_t *) zhashx_next (self->table))
        s_sweep_connection (self, connection);
}

static void
s_settle_all (self_t *self)
{
    for (connection_t *connection = (connection_t *) zhashx_first (self->table); connection;
         connection = (connection_t *) zhashx_next (self->table))
        s_settle (self, connection);
}

static void
s_start_drain (self_t *self)
{
    while (zsock_events (self->published) & ZMQ_POLLIN)
        s_take_published (self);
    s_flush_all (self); //  A close frame would take the place of what is owed
    self->drained_ms = self->now_ms + DRAIN_MS;
    for (connection_t *connection = (connection_t *) zhashx_first (self->table); connection;
         connection = (connection_t *) zhashx_next (self->table)) {
        s_close (self, connection, s_going_away ());
        s_settle (self, connection);
    }
}

static void
s_end_drain (self_t *self)
{
    if (!self->drained_ms || (zhashx_size (self->table) > 0 && self->now_ms < self->drained_ms))
        return;
    self->drained_ms = 0;
    zsock_signal (self->pipe, 0);
}

static void
s_take_order (self_t *self)
{
    char *command = NULL;
    void *site = NULL;
    zsock_recv (self->pipe, "sp", &command, &site);
    if (streq (command, "SITE")) {
        site_destroy (&self->site);
        self->site = (site_t *) site;
        presence_outdate (self->presence);
    }
    else if (streq (command, "QUIET")) {
        self->quiet = true;
        s_settle_all (self);
        s_forward (self);
        s_refuse_gathered (self);
        zsock_signal (self->pipe, 0);
    }
    else if (streq (command, "DRAIN"))
        s_start_drain (self);
    else {
        assert (streq (command, "$TERM"));
        self->terminated = true;
    }
    zstr_free (&command);
}

//  ------------------------------------------------------------------------
//  The actor

static void
s_free_audience (void **audience_p)
{
    audience_destroy ((audience_t **) audience_p);
}

static void
s_self_destroy (self_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        self_t *self = *self_p;
        connection_t *connection;
        while ((connection = (connection_t *) zhashx_first (self->table))) {
            connection->known = false; //  The database actor ends, too
            s_bury (self, connection);
        }
        zhashx_destroy (&self->table);
        zhashx_destroy (&self->audiences);
        presence_destroy (&self->presence);
        zlistx_destroy (&self->renewed);
        zlistx_destroy (&self->dirty);
        zlistx_destroy (&self->doomed);
        zlistx_destroy (&self->paused);
        if (self->epoll >= 0)
            close (self->epoll);
        //  Closing gives the name back later, in libzmq's reaper thread; unbinding, now
        if (self->arrivals)
            zsock_unbind (self->arrivals, "%s", self->endpoint);
        zsock_destroy (&self->arrivals);
        zsock_destroy (&self->published);
        zsock_destroy (&self->commands);
        zchunk_destroy (&self->gathered);
        site_destroy (&self->site);
        freen (self->buffer);
        freen (*self_p);
    }
}

static void
s_watch_socket (self_t *self, zsock_t *socket)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl (self->epoll, EPOLL_CTL_ADD, zsock_fd (socket), &event);
}

static void
s_open_sockets (self_t *self)
{
    self->arrivals = zsock_new (ZMQ_PULL);
    zsock_set_rcvhwm (self->arrivals, ARRIVALS_QUEUE);
    if (zsock_bind (self->arrivals, "%s", self->endpoint) != 0)
        zsock_destroy (&self->arrivals);

    char own[16];
    snprintf (own, sizeof (own), "to/%d/", self->number);
    self->published = zsock_new (ZMQ_SUB);
    zsock_set_rcvhwm (self->published, PUBLISHED_QUEUE);
    zsock_set_subscribe (self->published, "page/");
    zsock_set_subscribe (self->published, own); //  Last: when this one works, both do
    zsock_connect (self->published, "%s", DATABASE_PUBLISHED);

    self->commands = zsock_new (ZMQ_DEALER);
    zsock_set_sndhwm (self->commands, COMMANDS_QUEUE);
    zsock_set_sndtimeo (self->commands, 0);
    zsock_set_linger (self->commands, 0);
    zsock_connect (self->commands, "%s", DATABASE_COMMANDS);
}

//  Asks the database actor to publish until we hear it: a subscription takes effect only some time
//  after it was made. Page 1 is published behind its answer. Returns 0, or -1 when it is silent.

static int
s_hear (self_t *self)
{
    bool heard = false;
    zpoller_t *poller = zpoller_new (self->published, NULL);
    zpoller_set_nonstop (poller, true);
    for (int tries = 0; tries < HELLO_TRIES && !self->first->newest; tries++) {
        if (!heard)
            zsock_send (self->commands, "18", DATABASE_HELLO, (uint64_t) self->number);
        if (zpoller_wait (poller, HELLO_WAIT_MS))
            heard = s_take_published (self) || heard;
    }
    zpoller_destroy (&poller);
    return self->first->newest ? 0 : -1;
}

typedef struct {
    int number;
    site_t *site;
} arguments_t;

//  Returns NULL, with nothing left behind, when the actor cannot work (logged).

static self_t *
s_self_new (zsock_t *pipe, const arguments_t *arguments)
{
    self_t *self = (self_t *) zmalloc (sizeof (self_t));
    self->pipe = pipe;
    self->number = arguments->number;
    self->site = arguments->site;
    self->now_ms = zclock_mono ();
    self->resume_ms = INT64_MAX;
    self->patient_ms = INT64_MAX;
    self->buffer = (byte *) zmalloc (BUFFER_BYTES);
    self->table = table_new (NULL);
    self->audiences = table_new (s_free_audience);
    self->first = s_audience (self, 1);
    self->presence = presence_new ();
    self->renewed = zlistx_new ();
    self->dirty = zlistx_new ();
    self->gathered = zchunk_new (NULL, 2 * COMMANDS_BYTES);
    self->doomed = zlistx_new ();
    self->paused = zlistx_new ();
    self->epoll = epoll_create1 (EPOLL_CLOEXEC);
    snprintf (self->endpoint, sizeof (self->endpoint), CONNECTIONS_ENDPOINT, self->number);
    s_open_sockets (self);
    if (self->epoll < 0 || !self->arrivals) {
        log_error ("connections: could not bind %s: already in use", self->endpoint);
        s_self_destroy (&self);
    }
    else if (s_hear (self) != 0) {
        log_error ("connections: the database actor is silent");
        s_self_destroy (&self);
    }
    else {
        s_watch_socket (self, self->pipe);
        s_watch_socket (self, self->arrivals);
        s_watch_socket (self, self->published);
        self->stirred = self->listens = true;
    }
    return self;
}

//  Empties our sockets, as far as one turn may; what is left is for the next. What was published
//  goes first: who arrives has perhaps just read the page over HTTP, and must not get an older one.

static void
s_take_messages (self_t *self)
{
    while (!self->terminated && (zsock_events (self->pipe) & ZMQ_POLLIN))
        s_take_order (self);
    int taken = 0;
    while (taken < PUBLISHED_MAX && (zsock_events (self->published) & ZMQ_POLLIN)) {
        s_take_published (self);
        taken++;
    }
    self->stirred = taken == PUBLISHED_MAX;
    self->heard = taken > 0;
    while (!self->stirred && (zsock_events (self->arrivals) & ZMQ_POLLIN))
        s_take_arrival (self);
}

//  Watches for what is published, unless we have no connection, and are told much.

static void
s_listen (self_t *self)
{
    bool listens = zhashx_size (self->table) > 0 || !self->heard;
    struct epoll_event event = {.events = listens ? EPOLLIN : 0, .data.ptr = NULL};
    if (listens != self->listens)
        epoll_ctl (self->epoll, EPOLL_CTL_MOD, zsock_fd (self->published), &event);
    self->listens = listens;
}

static int
s_timeout_ms (const self_t *self)
{
    if (self->stirred || self->terminated)
        return 0;
    if (zlistx_size (self->doomed) > 0)
        return 10; //  The database actor's queue is full; it is tried again soon
    if (zchunk_size (self->gathered) > 0)
        return FULL_MS;

    int64_t until_ms = self->sweep_ms < self->resume_ms ? self->sweep_ms : self->resume_ms;
    if (self->patient_ms < until_ms)
        until_ms = self->patient_ms;
    if (!self->listens && self->now_ms + LOOK_MS < until_ms)
        until_ms = self->now_ms + LOOK_MS;
    if (self->drained_ms && self->drained_ms < until_ms)
        until_ms = self->drained_ms;
    return until_ms > self->now_ms ? (int) (until_ms - self->now_ms) : 0;
}

static void
s_turn (self_t *self)
{
    struct epoll_event events[EVENTS_MAX];
    self->now_ms = zclock_mono ();
    if (self->stirred)
        s_take_messages (self);
    s_resume_paused (self);
    s_sweep (self);
    s_forward (self);
    s_flush_all (self);
    s_bury_doomed (self);
    s_end_drain (self);
    s_listen (self);
    int count = epoll_wait (self->epoll, events, EVENTS_MAX, s_timeout_ms (self));
    self->now_ms = zclock_mono ();
    self->heard = false;
    self->stirred = self->stirred || !self->listens;
    for (int index = 0; index < count; index++)
        if (!events[index].data.ptr)
            self->stirred = true;
        else
            s_handle_event (self, (connection_t *) events[index].data.ptr, events[index].events);
    s_forward (self);
    s_flush_all (self);
    s_bury_doomed (self);
}

//  Has this thread interrupt nobody when it wakes (SCHED_BATCH, in sched (7)): not the database
//  actor above all, when both have one processor. Where that is not allowed, it works as well, only
//  slower.

static void
s_set_policy (void)
{
    pthread_setschedparam (pthread_self (), SCHED_BATCH, &(struct sched_param){0});
}

static void
s_run (zsock_t *pipe, void *args)
{
    zsock_signal (pipe, 0); //  Releases zactor_new (), which cannot report failure
    s_set_policy ();
    self_t *self = s_self_new (pipe, (const arguments_t *) args);
    zsock_signal (pipe, self ? 0 : 1); //  Releases connections_new (), which can
    while (self && !self->terminated)
        s_turn (self);
    s_self_destroy (&self);
}

zactor_t *
connections_new (int number, site_t *site)
{
    arguments_t arguments = {number, site};
    zactor_t *self = zactor_new (s_run, &arguments);
    if (zsock_wait (self) != 0)
        zactor_destroy (&self);
    return self;
}

void
connections_reload (zactor_t *self, site_t *site)
{
    zsock_send (self, "sp", "SITE", site_ref (site));
}

void
connections_quiet (zactor_t *self)
{
    zstr_send (self, "QUIET");
    zsock_wait (self);
}

void
connections_drain (zactor_t **actors, int count)
{
    for (int number = 0; number < count; number++)
        zstr_send (actors[number], "DRAIN");
    for (int number = 0; number < count; number++)
        zsock_wait (actors[number]);
}

//  ------------------------------------------------------------------------
//  Self test

//  A client at the other end of a socket that is handed to the actor
typedef struct {
    int descriptor;
    byte data[65536]; //  Received and not looked at yet
    size_t size;
} client_t;

static client_t *
s_client_new (zsock_t *handing_over)
{
    client_t *self = (client_t *) zmalloc (sizeof (client_t));
    int ends[2];
    int rc = socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends);
    assert (rc == 0);
    self->descriptor = ends[0];
    metrics_add (METRICS_CONNECTIONS_OPEN, 1);
    zsock_send (handing_over, "4188p", (uint32_t) ends[1], 0, (uint64_t) 1, (uint64_t) 0, NULL);
    return self;
}

static void
s_client_destroy (client_t **self_p)
{
    close ((*self_p)->descriptor);
    freen (*self_p);
}

//  Sends a masked frame of less than 126 bytes; the mask is zero, so the payload goes as it is.

static void
s_client_send (client_t *self, int opcode, const char *payload)
{
    byte frame[140] = {(byte) (0x80 | opcode), (byte) (0x80 | strlen (payload))};
    memcpy (frame + 6, payload, strlen (payload));
    ssize_t rc = send (self->descriptor, frame, 6 + strlen (payload), MSG_NOSIGNAL);
    assert (rc > 0);
}

//  Waits until the text has come, and forgets what came before it. Returns whether it did, before
//  the end of the connection.

static bool
s_client_expect (client_t *self, const char *text, size_t size)
{
    for (;;) {
        byte *found = (byte *) memmem (self->data, self->size, text, size);
        if (found) {
            self->size -= (size_t) (found + size - self->data);
            memmove (self->data, found + size, self->size);
            return true;
        }
        ssize_t rc = recv (self->descriptor, self->data + self->size,
                           sizeof (self->data) - self->size, 0);
        if (rc <= 0)
            return false;
        self->size += (size_t) rc;
    }
}

static bool
s_client_sees (client_t *self, const char *text)
{
    return s_client_expect (self, text, strlen (text));
}

static void
s_test_clients (zsock_t *handing_over)
{
    client_t *ann = s_client_new (handing_over);
    client_t *bob = s_client_new (handing_over);
    assert (s_client_sees (ann, "#messages__list") && s_client_sees (bob, "#messages__list"));

    s_client_send (
        ann, FRAME_TEXT,
        "{\"action\":\"add message\",\"data\":{\"author\":\"Ann\",\"text\":\"hi all\"}}");
    assert (s_client_sees (ann, "hi all") && s_client_sees (bob, "hi all"));

    s_client_send (bob, FRAME_TEXT, "no JSON");
    assert (s_client_sees (bob, "malformed"));
    s_client_send (bob, FRAME_PING, "are you there");
    assert (s_client_sees (bob, "are you there"));

    s_client_send (bob, FRAME_CLOSE, "\x03\xE8"); //  1000
    assert (s_client_expect (bob, "\x88\x02\x03\xE8", 4));
    assert (!s_client_sees (bob, "anything more"));
    s_client_destroy (&bob);

    s_client_send (ann, FRAME_BINARY, "");
    assert (s_client_expect (ann, "\x88\x02\x03\xEB", 4)); //  1003
    s_client_destroy (&ann);
    while (metrics_get (METRICS_CONNECTIONS_OPEN) > 0)
        zclock_sleep (5);
}

void
connections_test (bool verbose)
{
    printf (" * connections: ");
    if (verbose)
        printf ("\n");
    scratch_t *scratch = scratch_new ();
    char *error = NULL;
    zactor_t *database = database_new (scratch_site (), scratch_url (scratch), &error);
    assert (database);
    zactor_t *self = connections_new (3, scratch_site ());
    assert (self);
    assert (!connections_new (3, scratch_site ())); //  A second one is refused
    zsock_t *handing_over = zsock_new_push (">inproc://connections/3");

    s_test_clients (handing_over);
    client_t *client = s_client_new (handing_over);
    assert (s_client_sees (client, "#messages__list"));
    site_t *site = scratch_site ();
    connections_reload (self, site);
    site_destroy (&site);
    connections_quiet (self);
    connections_drain (&self, 1);
    assert (s_client_expect (client, "\x03\xE9", 2)); //  1001
    assert (s_client_sees (client, "; spread=1"));
    s_client_destroy (&client);

    metrics_set (METRICS_CONNECTIONS_OPEN, 18000);
    zframe_t *farewell = connections_farewell (FRAME_CLOSE_TRY_LATER, "busy");
    assert (memmem (zframe_data (farewell), zframe_size (farewell), "busy; spread=19", 15));
    zframe_destroy (&farewell);
    metrics_set (METRICS_CONNECTIONS_OPEN, 0);

    zsock_destroy (&handing_over);
    zactor_destroy (&self);
    zactor_destroy (&database);
    scratch_destroy (&scratch);
    printf ("OK\n");
}
