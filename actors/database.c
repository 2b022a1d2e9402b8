//  The actor works in rounds. A round takes the commands that wait, up to BATCH_SIZE, runs them as
//  one batch, reads the pages that it may have changed and those that it was asked for, publishes
//  the pages that did change, and answers each command in order of arrival. The writes, their Sync,
//  the read and its Sync go to PostgreSQL together, so a round costs one round trip. While
//  PostgreSQL works, commands are collected for the next round; when DATABASE_QUEUE of them wait, no
//  more are taken, and the senders' own queues fill up.
//
//  Pages that have been read stay in memory until something is written, so a page that nobody
//  changed is not asked of PostgreSQL twice. Whatever somebody else changed is announced on
//  SCHEMA_CHANNEL: then a round runs even if no command waits.
//
//  While PostgreSQL is away, pages that are in memory are still served, and every other command is
//  answered "unavailable". A batch that was under way when the connection broke is in doubt; it is
//  run again on the next connection (batch tells how) within DOUBT_MS. Whoever waits for what is not
//  settled then is told to come back and look: the connection is closed with 1013.
//
//  A message that somebody else keeps locked stays out of batches for LOCK_OUT_MS, so that one who
//  tries again and again does not make everybody wait each time.

#include "actors/database.h"
#include "actors/batch.h"
#include "actors/connections.h"
#include "actors/metrics.h"
#include "actors/page.h"
#include "actors/postgres.h"
#include "actors/schema.h"
#include "actors/scratch.h"
#include "actors/swap.h"
#include "actors/table.h"
#include "actors/viewers.h"
#include "config/log.h"
#include "http/frame.h"

#define PUBLISH_QUEUE 1000 //  zmsgs to each connection thread; then we wait for it, it never for us
#define PAGES_MAX     4096 //  Pages kept in memory that nobody looks at
#define RETRY_MS      250  //  After a read that failed
#define DOUBT_MS      5000
#define DRAIN_MS      1000
#define LOCK_OUT_MS   1000
#define LOCK_OUTS     16   //  Messages locked out at the same time; more than anybody needs
#define ROUND_LATE_MS 2000 //  A round that takes longer: PostgreSQL does not answer

typedef struct {
    zsock_t *pipe;                    //  To our parent; the zactor owns it
    zsock_t *commands;                //  ROUTER; owned
    zsock_t *published;               //  PUB; owned
    zloop_t *loop;                    //  Owned
    postgres_t *postgres;             //  Owned; dies before the loop
    site_t *site;                     //  Our reference
    char *url;                        //  Owned
    postgres_statement_t *statements; //  The batch's, and the one that reads pages; owned
    char origin[37];                  //  Names this server in announcements
    viewers_t *viewers;               //  Owned
    zlistx_t *waiting;                //  Of command_t, in order of arrival; owned
    bool paused;                      //  Too many wait: none are taken
    bool draining;                    //  Our parent waits for a signal that nothing waits any more
    int deadline; //  Timer: until then a batch in doubt may be settled; -1: none

    uint64_t round;      //  Counts rounds
    int64_t round_ms;    //  When it began
    batch_t *batch;      //  Of the round under way, or in doubt; owned; NULL: none
    batch_state_t state; //  Of the batch; UNDERWAY while results are to come
    bool reading;        //  The round's read is under way
    bool reads_all;      //  The round may have changed any page
    PGresult *read;      //  The round's pages; owned; NULL: not there yet, or reading failed
    char read_error[512];

    zhashx_t *pages;    //  Of page_t by number, as PostgreSQL has them; owned
    int64_t page_count; //  How many the board has; 0: not known yet
    bool stale;         //  The pages may have changed behind our back
    bool unreadable;    //  Reading fails, and that has been logged
    int retry;          //  Timer: a read failed, and is tried again then; -1: none

    struct {
        int64_t id;
        int64_t until_ms;
    } locked[LOCK_OUTS]; //  Messages that stay out of batches, in a ring
    size_t locks;        //  That were ever entered

    bool started;  //  Our parent knows that we serve
    bool away;     //  The outage has been logged
    char *failure; //  Why we cannot start; owned
} self_t;

static void s_start_round (self_t *self);
static void s_set_deadline (self_t *self, int delay_ms, zloop_timer_fn *handler);

//  ------------------------------------------------------------------------
//  Pages in memory

//  The page in memory, one past the end being the last; NULL when it would have to be read.

static page_t *
s_page (self_t *self, int64_t number)
{
    if (number > self->page_count)
        number = self->page_count;
    return (page_t *) zhashx_lookup (self->pages, &number);
}

//  Puts the page among those in memory, in place of an older one.

static void
s_keep_page (zhashx_t *pages, page_t *page)
{
    zhashx_delete (pages, &page->number);
    zhashx_insert (pages, &page->number, page);
}

//  Forgets the pages that nobody looks at, when there are too many.

static void
s_bound_pages (self_t *self)
{
    if (zhashx_size (self->pages) < PAGES_MAX)
        return;
    zlistx_t *unwanted = zlistx_new (); //  A table must not change while it is walked
    page_t *page = (page_t *) zhashx_first (self->pages);
    for (; page; page = (page_t *) zhashx_next (self->pages))
        if (!viewers_any (self->viewers, page->number))
            zlistx_add_end (unwanted, page);
    while ((page = (page_t *) zlistx_detach (unwanted, NULL)))
        zhashx_delete (self->pages, &page->number);
    zlistx_destroy (&unwanted);
}

//  ------------------------------------------------------------------------
//  Publishing and answering

static void
s_publish (self_t *self, const char *topic, uint64_t first, uint64_t second, zframe_t *frame)
{
    zsock_send (self->published, "s88f", topic, first, second, frame);
}

static void
s_publish_page (self_t *self, page_t *page)
{
    char topic[32];
    snprintf (topic, sizeof (topic), "page/%" PRId64 "/", page->number);
    s_publish (self, topic, page->etag, (uint64_t) page->pages, page->frame);
    page->round = self->round;
}

static void
s_publish_to (self_t *self, uint64_t connection, int64_t page, zframe_t *frame)
{
    char topic[16];
    snprintf (topic, sizeof (topic), "to/%d/", CONNECTIONS_THREAD (connection));
    s_publish (self, topic, connection, (uint64_t) page, frame);
}

//  Takes the frame.

static void
s_tell (self_t *self, const command_t *command, zframe_t *frame)
{
    if (frame)
        s_publish_to (self, command->connection, 0, frame);
    zframe_destroy (&frame);
}

//  Shows a connection the page that it is on from now on, unless it got that page just now.

static void
s_show (self_t *self, const command_t *command, int64_t number)
{
    page_t *page = s_page (self, number);
    if (!page)
        return; //  Reading failed: it gets what changed as soon as that works again
    bool moves = viewers_page (self->viewers, command->connection) != page->number;
    viewers_move (self->viewers, command->connection, page->number);
    if (moves || command->action == COMMAND_LIST || page->round != self->round)
        s_publish_to (self, command->connection, page->number, page->frame);
}

static void
s_answer_connection (self_t *self, const command_t *command)
{
    if (command->code != COMMAND_OK)
        s_tell (self, command, swap_new_notice (self->site, command->code, command->reason));
    else if (command->action == COMMAND_EDIT)
        s_tell (self, command, swap_new_form (self->site, command));
    else if (command->action == COMMAND_LIST)
        s_show (self, command, command->page);
    else if (command->action == COMMAND_ADD)
        s_show (self, command, 1);
    else
        s_show (self, command, viewers_page (self->viewers, command->connection));
}

static void
s_answer_request (self_t *self, const command_t *command)
{
    page_t *page = NULL;
    char *form = NULL;
    const char *text = command->reason;
    if (command->code == COMMAND_OK && command->action == COMMAND_LIST) {
        page = s_page (self, command->page);
        text = page->html;
    }
    else if ((command->code == COMMAND_OK && command->action == COMMAND_EDIT) ||
             command->code == COMMAND_CONFLICT)
        text = form = swap_form_html (self->site, command);
    zsock_send (self->commands, "f8s888s", command->requester, command->sequence,
                command_code_name (command->code), (uint64_t) command->id,
                (uint64_t) (page ? page->number : 0), (uint64_t) (page ? page->pages : 0),
                text ? text : "");
    zstr_free (&form);
}

//  Answers the command, once.

static void
s_answer (self_t *self, command_t *command)
{
    if (command->code == COMMAND_OK && command->action == COMMAND_LIST &&
        !s_page (self, command->page))
        command_fail (command, COMMAND_UNAVAILABLE, "The database is away; try again soon.");
    metrics_add (METRICS_COMMANDS, 1);
    if (command->code != COMMAND_OK)
        metrics_add (METRICS_COMMANDS_FAILED, 1);
    if (command->requester)
        s_answer_request (self, command);
    else if (!command->left)
        s_answer_connection (self, command);
}

//  Nobody knows whether the command was carried out: whoever asked is to come back and look. A
//  civetweb thread does not wait so long; it has said so already.

static void
s_send_away (self_t *self, const command_t *command)
{
    if (!command->requester && !command->left)
        s_tell (self, command, frame_new_close (FRAME_CLOSE_TRY_LATER, "not known whether saved"));
}

//  Ends a command that PostgreSQL has seen.

static void
s_end_command (self_t *self, command_t *command)
{
    if (command->unsettled)
        s_send_away (self, command);
    else
        s_answer (self, command);
}

//  Answers a command that is not sent to PostgreSQL, because that is away.

static void
s_answer_without (self_t *self, command_t *command)
{
    if (command->code == COMMAND_OK && command->action != COMMAND_LIST)
        command_fail (command, COMMAND_UNAVAILABLE,
                      "The database is away; nothing was saved. Try again soon.");
    s_answer (self, command);
}

//  ------------------------------------------------------------------------
//  Reading pages

//  Adds a number to a PostgreSQL array literal under construction.

static void
s_append_number (zchunk_t *array, int64_t number)
{
    char text[24];
    int length = snprintf (text, sizeof (text), "%c%" PRId64, zchunk_size (array) ? ',' : '{',
                           number);
    zchunk_extend (array, text, (size_t) length);
}

static void
s_append_viewed (self_t *self, zchunk_t *array)
{
    size_t count = viewers_pages (self->viewers, NULL, 0);
    int64_t *pages = (int64_t *) zmalloc ((count + 1) * sizeof (int64_t));
    viewers_pages (self->viewers, pages, count);
    s_append_number (array, 1);
    for (size_t index = 0; index < count; index++)
        s_append_number (array, pages[index]);
    freen (pages);
}

static void
s_append_asked (self_t *self, zchunk_t *array)
{
    for (size_t index = 0; self->batch && index < batch_size (self->batch); index++) {
        const command_t *command = batch_command (self->batch, index);
        if (command->code == COMMAND_OK && command->action == COMMAND_LIST &&
            (self->reads_all || !s_page (self, command->page)))
            s_append_number (array, command->page);
    }
}

//  Queues the query for the pages that the round needs: all that somebody looks at when they may
//  have changed, and those that it was asked for and that are not in memory.

static void
s_send_read (self_t *self)
{
    self->reads_all = self->stale || (self->batch && batch_writes (self->batch));
    zchunk_t *array = zchunk_new (NULL, 256);
    if (self->reads_all)
        s_append_viewed (self, array);
    s_append_asked (self, array);
    self->reading = zchunk_size (array) > 0;
    if (self->reading) {
        self->stale = false; //  From here on: what changes now is announced after the read
        zchunk_extend (array, "}", 1);
        char *pages = zchunk_strdup (array);
        char size[24];
        snprintf (size, sizeof (size), "%" PRId64, site_settings (self->site)->board_page_size);
        const char *const values[] = {pages, size};
        postgres_query (self->postgres, "pages", 2, values);
        postgres_sync (self->postgres);
        zstr_free (&pages);
    }
    zchunk_destroy (&array);
}

//  Takes a page that was read into memory, and publishes it when it changed and is looked at. Pages
//  come last page first, so those who looked past the end are on it before it is published.

static void
s_take_page (self_t *self, zhashx_t *pages, page_t *page)
{
    const page_t *old = (const page_t *) zhashx_lookup (self->pages, &page->number);
    bool changed = !old || old->etag != page->etag || old->pages != page->pages;
    s_keep_page (pages, page);
    self->page_count = page->pages;
    bool moved = viewers_clamp (self->viewers, page->pages);
    if ((changed || moved) && viewers_any (self->viewers, page->number))
        s_publish_page (self, page);
}

static void
s_take_pages (self_t *self)
{
    zhashx_t *pages = self->reads_all ? table_new ((zhashx_destructor_fn *) page_destroy)
                                      : self->pages;
    for (int row = 0; row < PQntuples (self->read);) {
        page_t *page = page_new (self->site, self->read, &row);
        metrics_add (METRICS_PAGES_RENDERED, 1);
        if (page)
            s_take_page (self, pages, page);
        else
            self->stale = true; //  Out of memory: try again
    }
    if (pages != self->pages) {
        zhashx_destroy (&self->pages);
        self->pages = pages;
    }
}

//  ------------------------------------------------------------------------
//  Rounds

static int
s_handle_retry (zloop_t *loop, int timer, void *arg)
{
    (void) loop;
    (void) timer;
    self_t *self = (self_t *) arg;
    self->retry = -1;
    s_start_round (self);
    return 0;
}

//  Tells our parent that we serve, or that we never will.

static void
s_report_start (self_t *self)
{
    if (self->started)
        return;
    self->started = true;
    zstr_send (self->pipe, self->failure ? self->failure : "");
}

static void
s_handle_read_failure (self_t *self)
{
    self->read_error[strcspn (self->read_error, "\n")] = 0;
    if (!self->unreadable)
        log_error ("database: could not read messages: %s", self->read_error);
    self->unreadable = true;
    if (self->retry < 0)
        self->retry = zloop_timer (self->loop, RETRY_MS, 1, s_handle_retry, self);
    if (!self->started) {
        self->failure = zsys_sprintf ("database: could not read messages: %s", self->read_error);
        s_report_start (self);
    }
}

static void
s_report_drained (self_t *self)
{
    if (!self->draining || self->batch || zlistx_size (self->waiting) > 0 ||
        (zsock_events (self->commands) & ZMQ_POLLIN))
        return;
    self->draining = false;
    zsock_signal (self->pipe, 0);
}

static void
s_finish_round (self_t *self)
{
    if (self->read) {
        self->unreadable = false;
        s_take_pages (self);
    }
    else if (self->reading) {
        self->stale = self->stale || self->reads_all;
        s_handle_read_failure (self);
    }
    for (size_t index = 0; self->batch && index < batch_size (self->batch); index++)
        s_end_command (self, batch_command (self->batch, index));
    batch_destroy (&self->batch);
    if (!self->draining)
        s_set_deadline (self, 0, NULL);
    PQclear (self->read);
    self->read = NULL;
    self->reading = false;
    s_bound_pages (self);
    if (self->page_count > 0)
        s_report_start (self);
    s_start_round (self);
}

//  Sends what is left of the batch, and with the last of it the read.

static void
s_send_round (self_t *self)
{
    PQclear (self->read);
    self->read = NULL;
    *self->read_error = 0;
    self->reading = false;
    self->state = self->batch ? batch_send (self->batch, self->postgres) : BATCH_DONE;
    if (self->state == BATCH_DONE || batch_sent_all (self->batch))
        s_send_read (self);
    postgres_flush (self->postgres);
    if (self->state == BATCH_DONE && !self->reading)
        s_finish_round (self);
}

//  Whether somebody else was found to keep the message locked, a moment ago.

static bool
s_is_locked_out (const self_t *self, const command_t *command)
{
    int64_t now_ms = zclock_mono ();
    for (size_t index = 0; index < LOCK_OUTS; index++)
        if (self->locked[index].id == command->id && self->locked[index].until_ms > now_ms)
            return command_writes (command) && command->action != COMMAND_ADD;
    return false;
}

static void
s_lock_out (self_t *self, int64_t id)
{
    size_t index = self->locks++ % LOCK_OUTS;
    self->locked[index].id = id;
    self->locked[index].until_ms = zclock_mono () + LOCK_OUT_MS;
}

static void
s_take_waiting (self_t *self)
{
    if (zlistx_size (self->waiting) == 0)
        return;
    self->batch = batch_new ();
    metrics_add (METRICS_BATCHES, 1);
    while (batch_size (self->batch) < BATCH_SIZE && zlistx_size (self->waiting) > 0) {
        command_t *command = (command_t *) zlistx_detach (self->waiting, NULL);
        if (command->code == COMMAND_OK && s_is_locked_out (self, command))
            command_fail (command, COMMAND_BUSY,
                          "Somebody else keeps this message locked; try again.");
        batch_add (self->batch, &command);
    }
}

static bool
s_round_under_way (const self_t *self)
{
    return self->batch || self->reading;
}

static int s_handle_commands (zloop_t *loop, zsock_t *reader, void *arg);

//  Takes commands, or stops taking them while too many wait.

static void
s_pause_commands (self_t *self, bool paused)
{
    if (paused == self->paused)
        return;
    self->paused = paused;
    if (paused)
        zloop_reader_end (self->loop, self->commands);
    else
        zloop_reader (self->loop, self->commands, s_handle_commands, self);
}

//  Starts a round when there is a reason for one and none is under way.

static void
s_start_round (self_t *self)
{
    if (!s_round_under_way (self) && postgres_is_up (self->postgres)) {
        s_take_waiting (self);
        if (self->batch || (self->stale && self->retry < 0)) {
            self->round++;
            self->round_ms = zclock_mono ();
            s_send_round (self);
        }
    }
    s_pause_commands (self, zlistx_size (self->waiting) >= DATABASE_QUEUE);
    s_report_drained (self);
}

//  ------------------------------------------------------------------------
//  What PostgreSQL tells

static void
s_set_deadline (self_t *self, int delay_ms, zloop_timer_fn *handler)
{
    if (self->deadline >= 0)
        zloop_timer_end (self->loop, self->deadline);
    self->deadline = handler ? zloop_timer (self->loop, (size_t) delay_ms, 1, handler, self) : -1;
}

static void
s_handle_up (void *arg)
{
    self_t *self = (self_t *) arg;
    if (self->away)
        log_info ("database: connected again");
    if (self->started)
        metrics_add (METRICS_DATABASE_RECONNECTS, 1);
    metrics_set (METRICS_DATABASE_UP, 1);
    self->away = false;
    self->stale = true; //  Announcements may have been missed
    if (self->batch)
        s_send_round (self); //  It was in doubt
    else
        s_start_round (self);
}

//  Gives up on a batch: what is certain is answered, what was not written is told so.

static void
s_abandon_batch (self_t *self)
{
    for (size_t index = 0; self->batch && index < batch_size (self->batch); index++) {
        command_t *command = batch_command (self->batch, index);
        if (command->settled)
            s_end_command (self, command);
        else if (command->doubtful && command_writes (command))
            s_send_away (self, command);
        else
            s_answer_without (self, command);
    }
    batch_destroy (&self->batch);
}

static int
s_handle_deadline (zloop_t *loop, int timer, void *arg)
{
    (void) loop;
    (void) timer;
    self_t *self = (self_t *) arg;
    self->deadline = -1;
    if (self->batch)
        log_error ("database: gave up on %zu commands", batch_size (self->batch));
    if (self->batch && postgres_is_up (self->postgres))
        postgres_break (self->postgres, "no answer in time"); //  Ends in s_handle_down ()
    s_set_deadline (self, 0, NULL);
    s_abandon_batch (self);
    s_report_drained (self);
    return 0;
}

//  Ends the round that was under way when the connection broke.

static void
s_break_round (self_t *self)
{
    self->reading = false;
    PQclear (self->read);
    self->read = NULL;
    if (!self->batch)
        return;
    if (self->state == BATCH_DONE)
        s_finish_round (self); //  Committed, only not read
    else if (!batch_writes (self->batch))
        s_abandon_batch (self); //  Nothing can be in doubt
    else {
        if (self->state == BATCH_UNDERWAY)
            batch_doubt (self->batch);
        if (self->deadline < 0)
            s_set_deadline (self, self->draining ? DRAIN_MS : DOUBT_MS, s_handle_deadline);
    }
}

static void
s_handle_down (void *arg, const char *reason)
{
    self_t *self = (self_t *) arg;
    if (!self->away)
        log_error ("database: %s", reason);
    self->away = true;
    self->stale = true;
    metrics_set (METRICS_DATABASE_UP, 0);
    if (!self->started) {
        self->failure = zsys_sprintf ("database: %s", reason);
        s_report_start (self);
        return;
    }
    s_break_round (self);
    command_t *command;
    while ((command = (command_t *) zlistx_detach (self->waiting, NULL))) {
        s_answer_without (self, command);
        command_destroy (&command);
    }
    s_pause_commands (self, false);
    s_report_drained (self);
}

//  Takes a result of the read, and keeps what is worth keeping.

static void
s_take_read (self_t *self, PGresult *result)
{
    ExecStatusType status = PQresultStatus (result);
    if (status == PGRES_TUPLES_OK)
        self->read = result;
    else {
        if (status == PGRES_FATAL_ERROR)
            snprintf (self->read_error, sizeof (self->read_error), "%s",
                      PQresultErrorMessage (result));
        PQclear (result);
    }
    if (status != PGRES_PIPELINE_SYNC)
        return;
    if (self->state == BATCH_AGAIN) {
        self->stale = self->stale || self->reads_all;
        s_send_round (self); //  What was read is as old as the transaction that is void
    }
    else
        s_finish_round (self);
}

static void
s_handle_result (void *arg, PGresult *result)
{
    self_t *self = (self_t *) arg;
    if (self->state != BATCH_UNDERWAY) {
        s_take_read (self, result);
        return;
    }
    self->state = batch_take (self->batch, result);
    PQclear (result);
    if (self->state == BATCH_AGAIN && batch_locked_id (self->batch) > 0)
        s_lock_out (self, batch_locked_id (self->batch));
    if (self->state == BATCH_UNDERWAY || self->reading)
        return;
    if (self->state == BATCH_AGAIN) {
        s_send_round (self);
        return;
    }
    s_send_read (self); //  The last of those that were sent singly
    postgres_flush (self->postgres);
    if (!self->reading)
        s_finish_round (self);
}

static void
s_handle_notification (void *arg, const char *payload)
{
    self_t *self = (self_t *) arg;
    size_t length = strlen (self->origin);
    if (strncmp (payload, self->origin, length) == 0 && payload[length] == ' ')
        return; //  Our own
    self->stale = true;
    s_start_round (self);
}

//  ------------------------------------------------------------------------
//  What others send

static void
s_take_command (self_t *self, command_t *command)
{
    if (postgres_is_up (self->postgres))
        zlistx_add_end (self->waiting, command);
    else {
        s_answer_without (self, command);
        command_destroy (&command);
    }
}

//  The connection is gone: what it still waits for must not bring it back.

static void
s_forget_connection (self_t *self, uint64_t connection)
{
    viewers_leave (self->viewers, connection);
    for (size_t index = 0; self->batch && index < batch_size (self->batch); index++)
        if (batch_command (self->batch, index)->connection == connection)
            batch_command (self->batch, index)->left = true;
    command_t *command = (command_t *) zlistx_first (self->waiting);
    for (; command; command = (command_t *) zlistx_next (self->waiting))
        if (command->connection == connection)
            command->left = true;
}

static void
s_answer_hello (self_t *self, uint64_t thread)
{
    char topic[16];
    snprintf (topic, sizeof (topic), "to/%d/", (int) thread);
    zframe_t *nothing = zframe_new_empty ();
    s_publish (self, topic, 0, 0, nothing);
    zframe_destroy (&nothing);
    page_t *page = s_page (self, 1);
    if (page)
        s_publish_page (self, page);
}

static void
s_answer_ready (self_t *self, zframe_t *requester, uint64_t sequence)
{
    bool up = postgres_is_up (self->postgres) &&
              (!s_round_under_way (self) || zclock_mono () - self->round_ms < ROUND_LATE_MS);
    zsock_send (self->commands, "f8s888s", requester, sequence,
                command_code_name (up ? COMMAND_OK : COMMAND_UNAVAILABLE), (uint64_t) 0,
                (uint64_t) 0, (uint64_t) 0, "");
}

//  Takes one zmsg from the ROUTER.

static void
s_take_message (self_t *self)
{
    zframe_t *sender = NULL;
    zframe_t *json = NULL;
    uint8_t kind = 0;
    uint64_t number = 0;
    zsock_recv (self->commands, "f18f", &sender, &kind, &number, &json);
    if (kind == DATABASE_COMMAND || kind == DATABASE_REQUEST) {
        command_t *command = command_new ((const char *) zframe_data (json), zframe_size (json),
                                          site_settings (self->site));
        if (kind == DATABASE_COMMAND)
            command->connection = number;
        else {
            command->sequence = number;
            command->requester = sender;
            sender = NULL;
        }
        s_take_command (self, command);
    }
    else if (kind == DATABASE_LEFT)
        s_forget_connection (self, number);
    else if (kind == DATABASE_HELLO)
        s_answer_hello (self, number);
    else {
        assert (kind == DATABASE_READY);
        s_answer_ready (self, sender, number);
    }
    zframe_destroy (&sender);
    zframe_destroy (&json);
}

static int
s_handle_commands (zloop_t *loop, zsock_t *reader, void *arg)
{
    (void) loop;
    (void) reader;
    self_t *self = (self_t *) arg;
    for (int taken = 0; taken < BATCH_SIZE && (zsock_events (self->commands) & ZMQ_POLLIN); taken++)
        s_take_message (self);
    s_start_round (self);
    return 0;
}

static int
s_handle_pipe (zloop_t *loop, zsock_t *reader, void *arg)
{
    (void) loop;
    self_t *self = (self_t *) arg;
    char *command = NULL;
    void *site = NULL;
    zsock_recv (reader, "sp", &command, &site);
    bool terminated = streq (command, "$TERM");
    if (streq (command, "SITE")) {
        site_destroy (&self->site);
        self->site = (site_t *) site;
        self->stale = true; //  Templates and page size may be others
        s_start_round (self);
    }
    else if (streq (command, "DRAIN")) {
        self->draining = true;
        s_set_deadline (self, DRAIN_MS, s_handle_deadline);
        s_report_drained (self);
    }
    else
        assert (terminated);
    zstr_free (&command);
    return terminated ? -1 : 0;
}

//  ------------------------------------------------------------------------
//  The actor

static const postgres_handler_t s_handler = {
    .up = s_handle_up,
    .down = s_handle_down,
    .result = s_handle_result,
    .notification = s_handle_notification,
};

typedef struct {
    site_t *site;
    const char *url;
} arguments_t;

static void
s_self_destroy (self_t **self_p)
{
    assert (self_p);
    self_t *self = *self_p;
    postgres_destroy (&self->postgres);
    zloop_destroy (&self->loop);
    //  Closing gives the names back later, in libzmq's reaper thread; unbinding, now
    if (self->commands)
        zsock_unbind (self->commands, DATABASE_COMMANDS);
    if (self->published)
        zsock_unbind (self->published, DATABASE_PUBLISHED);
    zsock_destroy (&self->commands);
    zsock_destroy (&self->published);
    batch_destroy (&self->batch);
    zlistx_destroy (&self->waiting);
    viewers_destroy (&self->viewers);
    zhashx_destroy (&self->pages);
    PQclear (self->read);
    site_destroy (&self->site);
    freen (self->statements);
    freen (self->url);
    zstr_free (&self->failure);
    freen (*self_p);
}

//  A socket bound to the endpoint, its queues bounded beforehand; NULL when the name is taken.

static zsock_t *
s_bind (int type, const char *endpoint, int queue)
{
    zsock_t *socket = zsock_new (type);
    zsock_set_sndhwm (socket, queue);
    zsock_set_rcvhwm (socket, queue);
    zsock_set_linger (socket, 0);
    if (type == ZMQ_PUB)
        zsock_set_xpub_nodrop (socket, 1); //  Waits for a slow thread rather than dropping
    if (zsock_bind (socket, "%s", endpoint) != 0)
        zsock_destroy (&socket);
    return socket;
}

static int
s_prepare_schema (const char *url, char **error_p)
{
    PGconn *connection = postgres_connect_blocking (url, error_p);
    int rc = connection ? schema_upgrade (connection, error_p) : -1;
    PQfinish (connection);
    return rc;
}

static void
s_free_command (void **command_p)
{
    command_destroy ((command_t **) command_p);
}

//  The statements of batches, and the one that reads pages.

static postgres_statement_t *
s_statements_new (void)
{
    size_t count = 0;
    while (batch_statements[count].name)
        count++;
    postgres_statement_t *statements = (postgres_statement_t *) zmalloc (
        (count + 2) * sizeof (postgres_statement_t));
    memcpy (statements, batch_statements, count * sizeof (postgres_statement_t));
    statements[count] = (postgres_statement_t){"pages", page_query};
    return statements;
}

//  Fills in a self; what fails is told by its failure.

static self_t *
s_self_new (zsock_t *pipe, const arguments_t *arguments)
{
    self_t *self = (self_t *) zmalloc (sizeof (self_t));
    self->pipe = pipe;
    self->site = arguments->site;
    self->url = strdup (arguments->url);
    self->statements = s_statements_new ();
    self->deadline = self->retry = -1;
    self->stale = true;
    self->state = BATCH_DONE;
    self->viewers = viewers_new ();
    self->pages = table_new ((zhashx_destructor_fn *) page_destroy);
    self->waiting = zlistx_new ();
    zlistx_set_destructor (self->waiting, s_free_command);
    zuuid_t *uuid = zuuid_new ();
    snprintf (self->origin, sizeof (self->origin), "%s", zuuid_str_canonical (uuid));
    zuuid_destroy (&uuid);

    self->commands = s_bind (ZMQ_ROUTER, DATABASE_COMMANDS, DATABASE_QUEUE);
    self->published = s_bind (ZMQ_PUB, DATABASE_PUBLISHED, PUBLISH_QUEUE);
    if (!self->url || !self->commands || !self->published)
        self->failure = strdup ("database: could not bind: already in use");
    else
        s_prepare_schema (self->url, &self->failure);
    return self;
}

static void
s_serve (self_t *self)
{
    self->loop = zloop_new ();
    zloop_set_nonstop (self->loop, true); //  Only main () heeds signals
    zloop_reader (self->loop, self->pipe, s_handle_pipe, self);
    zloop_reader (self->loop, self->commands, s_handle_commands, self);
    self->postgres = postgres_new (self->loop, self->url, self->origin, self->statements,
                                   &s_handler, self);
    zloop_start (self->loop);
}

static void
s_run (zsock_t *pipe, void *args)
{
    zsock_signal (pipe, 0); //  Releases zactor_new (), which cannot report failure
    self_t *self = s_self_new (pipe, (const arguments_t *) args);
    if (self->failure) {
        s_report_start (self); //  Releases database_new (), which can
        char *command = zstr_recv (pipe);
        assert (streq (command, "$TERM"));
        zstr_free (&command);
    }
    else
        s_serve (self);
    s_self_destroy (&self);
}

zactor_t *
database_new (site_t *site, const char *url, char **error_p)
{
    arguments_t arguments = {site, url};
    zactor_t *self = zactor_new (s_run, &arguments);
    char *failure = zstr_recv (self);
    if (*failure) {
        zactor_destroy (&self);
        *error_p = failure;
    }
    else
        zstr_free (&failure);
    return self;
}

void
database_reload (zactor_t *self, site_t *site)
{
    zsock_send (self, "sp", "SITE", site_ref (site));
}

void
database_drain (zactor_t *self)
{
    zstr_send (self, "DRAIN");
    zsock_wait (self);
}

//  ------------------------------------------------------------------------
//  Self test

//  A connection thread, K = 5, and a civetweb thread, as the actor sees them
typedef struct {
    zsock_t *published; //  SUB
    zsock_t *commands;  //  DEALER
} peer_t;

static peer_t
s_peer_new (void)
{
    peer_t self = {zsock_new_sub (DATABASE_PUBLISHED, "page/"), zsock_new (ZMQ_DEALER)};
    zsock_set_subscribe (self.published, "to/5/");
    zsock_set_rcvtimeo (self.published, 5000);
    zsock_connect (self.commands, "%s", DATABASE_COMMANDS);
    zsock_set_rcvtimeo (self.commands, 5000);
    return self;
}

static void
s_peer_destroy (peer_t *self)
{
    zsock_destroy (&self->published);
    zsock_destroy (&self->commands);
}

static void
s_peer_send (peer_t *self, database_message_t kind, uint64_t number, const char *json)
{
    zsock_send (self->commands, "18s", kind, number, json);
}

//  Asserts what is published next.

static void
s_peer_expect (peer_t *self, const char *topic, uint64_t second, const char *text)
{
    char *heard = NULL;
    uint64_t numbers[2] = {0, 0};
    zframe_t *frame = NULL;
    int rc = zsock_recv (self->published, "s88f", &heard, &numbers[0], &numbers[1], &frame);
    assert (rc == 0 && streq (heard, topic) && numbers[1] == second);
    assert (memmem (zframe_data (frame), zframe_size (frame), text, strlen (text)));
    zstr_free (&heard);
    zframe_destroy (&frame);
}

//  Asserts the answer to a REQUEST or READY.

static void
s_peer_expect_reply (peer_t *self, uint64_t sequence, const char *code, const char *text)
{
    uint64_t numbers[4] = {0, 0, 0, 0};
    char *heard = NULL;
    char *html = NULL;
    int rc = zsock_recv (self->commands, "8s888s", &numbers[0], &heard, &numbers[1], &numbers[2],
                         &numbers[3], &html);
    assert (rc == 0 && numbers[0] == sequence && streq (heard, code) && strstr (html, text));
    zstr_free (&heard);
    zstr_free (&html);
}

//  Says hello until it is heard, as a subscription takes effect late.

static void
s_peer_hello (peer_t *self)
{
    char *topic = NULL;
    zsock_set_rcvtimeo (self->published, 50);
    while (!topic || !streq (topic, "to/5/")) {
        zstr_free (&topic);
        s_peer_send (self, DATABASE_HELLO, 5, "");
        zsock_recv (self->published, "s", &topic);
    }
    zstr_free (&topic);
    zsock_set_rcvtimeo (self->published, 5000);
    s_peer_expect (self, "page/1/", 1, "");
}

#define ADD "{\"action\":\"add message\",\"data\":{\"author\":\"Ann\",\"text\":\"%s\"}}"

static void
s_peer_add (peer_t *self, uint64_t connection, const char *text)
{
    char json[200];
    snprintf (json, sizeof (json), ADD, text);
    s_peer_send (self, DATABASE_COMMAND, connection, json);
}

static void
s_test_commands (peer_t *peer)
{
    const uint64_t connection = 256 + 5; //  Of thread 5
    s_peer_add (peer, connection, "first");
    s_peer_expect (peer, "page/1/", 1, "first"); //  For the sender as well, who is on page 1
    s_peer_send (peer, DATABASE_COMMAND, connection, "no JSON");
    s_peer_expect (peer, "to/5/", 0, "#notices");
    for (int count = 2; count <= 6; count++) {
        s_peer_add (peer, connection, "more");
        s_peer_expect (peer, "page/1/", count > 5 ? 2 : 1, "more");
    }
    s_peer_send (peer, DATABASE_COMMAND, connection,
                 "{\"action\":\"list messages\","
                 "\"data\":{\"page\":9}}");
    s_peer_expect (peer, "to/5/", 2, "first");
    s_peer_add (peer, 512 + 5, "of another"); //  Both pages have a viewer, the last goes first
    s_peer_expect (peer, "page/2/", 2, "first");
    s_peer_expect (peer, "page/1/", 2, "of another");
    s_peer_send (peer, DATABASE_LEFT, connection, "");
    s_peer_add (peer, 512 + 5, "nobody on page 2");
    s_peer_expect (peer, "page/1/", 2, "nobody on page 2");
}

static void
s_test_requests (peer_t *peer)
{
    s_peer_send (peer, DATABASE_READY, 1, "");
    s_peer_expect_reply (peer, 1, "ok", "");
    s_peer_send (peer, DATABASE_REQUEST, 2, "{\"action\":\"list messages\",\"data\":{\"page\":2}}");
    s_peer_expect_reply (peer, 2, "ok", "first");
    s_peer_send (peer, DATABASE_REQUEST, 3, "{\"action\":\"delete message\",\"data\":{\"id\":77}}");
    s_peer_expect_reply (peer, 3, "not-found", "no such message");
}

//  What somebody else does shows up, and the end of our backend costs nothing but time.

static void
s_test_outside (peer_t *peer, const scratch_t *scratch)
{
    scratch_run (scratch, "UPDATE messages SET text = 'by hand' WHERE id ="
                          " (SELECT max(id) FROM messages)");
    s_peer_expect (peer, "page/1/", 2, "by hand");
    scratch_run (scratch, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                          " WHERE application_name = 'breadboard'");
    char *code = NULL;
    do {
        zstr_free (&code);
        zclock_sleep (20);
        s_peer_send (peer, DATABASE_READY, 4, "");
        zsock_recv (peer->commands, "8s", NULL, &code);
    } while (!code || !streq (code, "ok"));
    zstr_free (&code);
    s_peer_add (peer, 512 + 5, "again");
    s_peer_expect (peer, "page/1/", 2, "again");
}

void
database_test (bool verbose)
{
    printf (" * database: ");
    if (verbose)
        printf ("\n");
    char *error = NULL;
    zactor_t *self = database_new (scratch_site (), "host=/nowhere", &error);
    assert (!self && error && strstr (error, "could not connect"));
    zstr_free (&error);

    scratch_t *scratch = scratch_new ();
    self = database_new (scratch_site (), scratch_url (scratch), &error);
    assert (self);
    zactor_t *second = database_new (scratch_site (), scratch_url (scratch), &error);
    assert (!second && error && strstr (error, "already in use"));
    zstr_free (&error);

    peer_t peer = s_peer_new ();
    s_peer_hello (&peer);
    s_test_commands (&peer);
    s_test_requests (&peer);
    s_test_outside (&peer, scratch);
    site_t *site = scratch_site ();
    database_reload (self, site);
    site_destroy (&site);
    database_drain (self);
    zactor_destroy (&self);
    s_peer_destroy (&peer);
    scratch_destroy (&scratch);
    printf ("OK\n");
}
