//  The actor works in rounds. A round takes the commands that wait, up to BATCH_SIZE, runs them as
//  one batch, reads the pages that it may have changed and those that it was asked for, publishes
//  the pages that did change, and answers each command in order of arrival. The writes and the read
//  are one transaction, so a round costs one round trip and one wake-up; only a read that may take
//  long, of pages deep in the board, is one of its own behind it.
//
//  PostgreSQL never waits for us. Commands that come while a round is under way are sent ahead, as
//  the next batch; its transaction is closed, with the read in it, when that round has ended and
//  its batch was answered. Should the round's batch turn out to have to run again, what was sent
//  ahead is taken back, because it must not come first. When DATABASE_QUEUE commands wait, no more
//  are taken, and the senders' own queues fill up.
//
//  Pages that have been read stay in memory until something is written, so a page that nobody
//  changed is not asked of PostgreSQL twice; and GET takes them from there without waiting for the
//  round under way, as nobody has seen a newer one. Page 1 is read again with each write, and so is
//  the page that a writer looks at; other pages that somebody looks at at most every DEEP_MS.
//  Whatever somebody else changed is announced on SCHEMA_CHANNEL: then a round runs even if no
//  command waits.
//
//  A single add has nobody to share the cost of that read with. So page 1 takes what PostgreSQL
//  says that it stored, and the rest of it from memory; it is read all the same within GROWN_MS,
//  since somebody may have changed it without a word, be it a trigger.
//
//  While PostgreSQL is away, pages that are in memory are still served, and every other command is
//  answered "unavailable". A batch that was under way when the connection broke is in doubt; it is
//  run again on the next connection (batch tells how) within DOUBT_MS. Whoever waits for what is
//  not settled then is told to come back and look: the connection is closed with 1013.
//
//  A message that somebody else keeps locked stays out of batches for LOCK_OUT_MS, so that one who
//  tries again and again does not make everybody wait each time.

#include "actors/database.h"
#include "actors/batch.h"
#include "actors/connections.h"
#include "actors/metrics.h"
#include "actors/pages.h"
#include "actors/postgres.h"
#include "actors/schema.h"
#include "actors/scratch.h"
#include "actors/surveyor.h"
#include "actors/swap.h"
#include "actors/viewers.h"
#include "config/log.h"
#include "http/frame.h"

#define PUBLISH_QUEUE  1000 //  zmsgs to each connection thread; then we wait, it never does
#define TAKE_MAX       64   //  zmsgs taken before other events have their turn
#define DEEP_MS        250
#define RETRY_MS       250 //  After a read that failed
#define GROWN_MS       250 //  Until a page that has grown in memory is read
#define DOUBT_MS       5000
#define DRAIN_MS       1000
#define LOCK_OUT_MS    1000
#define LOCK_OUTS      16 //  Messages locked out at the same time; more than anybody needs
#define STATEMENTS_MAX 32
#define SWEEP_MS       10000 //  Between two looks for what was deleted long enough ago
#define ROUND_LATE_MS  2000  //  A round that takes longer: PostgreSQL does not answer

//  A message that stays out of batches

typedef struct {
    int64_t id;
    int64_t until_ms;
} lock_out_t;

typedef struct {
    zsock_t *pipe;                                  //  To our parent; the zactor owns it
    zsock_t *commands;                              //  ROUTER; owned
    zsock_t *published;                             //  PUB; owned
    zchunk_t *answers[CONNECTIONS_THREADS_MAX + 1]; //  For each thread, not published yet; owned
    zloop_t *loop;                                  //  Owned
    postgres_t *postgres;                           //  Owned; dies before the loop
    site_t *site;                                   //  Our reference
    char *url;                                      //  Owned
    postgres_limits_t limits;                       //  As at the start
    postgres_statement_t *statements;               //  The batch's and the pages'; owned
    char origin[37];                                //  Names this server in announcements
    viewers_t *viewers;                             //  Owned
    surveyor_t *surveyor;                           //  Owned; dies after the pages
    pages_t *pages;                                 //  Owned
    zlistx_t *waiting;                              //  Of command_t, in order of arrival; owned
    bool paused;                                    //  Too many wait: none are taken
    bool draining; //  Our parent waits until nothing waits any more
    int deadline;  //  Timer: then a batch in doubt is given up; -1: none

    uint64_t round;   //  Counts rounds
    int64_t round_ms; //  When it began

    batch_t *batch;      //  Of the round under way, or in doubt; owned; NULL: none
    batch_state_t state; //  Of the batch; UNDERWAY while results are to come

    batch_t *next; //  Sent ahead, behind the round under way; owned; NULL: none

    int void_syncs; //  Results up to so many Syncs are of no use

    bool inside;      //  The pages are read in the batch's transaction
    bool grows;       //  Rather, what it adds goes on top of page 1
    bool reads_later; //  They are read once the batch is done
    bool reading;     //  A read of its own is under way
    bool surveying;   //  The surveyor's work is under way
    bool surveyed;    //  It was so in the last round
    bool read_failed; //  The round's

    bool stale;      //  Pages may have changed behind our back
    bool anew;       //  Pages look different from now on; stale as well
    bool deep_stale; //  Pages that somebody looks at were not read with the last write
    int64_t deep_ms; //  When they may be read again
    int deep_timer;  //  -1: none
    int grown_timer; //  Page 1 has grown, and is read then; -1: it has not
    int retry;       //  Timer: a read failed, and is tried again then; -1: none
    bool unreadable; //  Reading fails, and that has been logged

    lock_out_t lock_outs[LOCK_OUTS]; //  In a ring
    size_t locks;                    //  That were ever entered there

    bool started;  //  Our parent knows that we serve
    bool away;     //  The outage has been logged
    char *failure; //  Why we cannot start; owned
} self_t;

static void s_start_round (self_t *self);

//  ------------------------------------------------------------------------
//  Publishing and answering

//  Tells how many pages there are, so that whoever looks past the end is moved; but not by a guess.

static void
s_publish_page (self_t *self, page_t *page)
{
    char topic[32];
    int64_t end = pages_are_counted (self->pages) ? page->pages : INT64_MAX;
    snprintf (topic, sizeof (topic), "page/%" PRId64 "/", page->number);
    zsock_send (self->published, "s88f", topic, (uint64_t) end, page->etag, page->frame);
    page->round = self->round;
}

static void
s_publish_to (self_t *self, int thread, const void *data, size_t size)
{
    char topic[16];
    snprintf (topic, sizeof (topic), "to/%d/", thread);
    zframe_t *frame = zframe_new (data, size);
    zsock_send (self->published, "s88f", topic, (uint64_t) 0, (uint64_t) 0, frame);
    zframe_destroy (&frame);
}

//  Publishes the answers gathered so far, one zmsg for each thread.

static void
s_publish_answers (self_t *self)
{
    for (int thread = 0; thread <= CONNECTIONS_THREADS_MAX; thread++) {
        zchunk_t *answers = self->answers[thread];
        if (answers && zchunk_size (answers) > 0) {
            s_publish_to (self, thread, zchunk_data (answers), zchunk_size (answers));
            zchunk_set (answers, NULL, 0);
        }
    }
}

//  Gathers an answer: the frame (NULL: none), and the page that the connection is on from now on
//  (0: where it was).

static void
s_tell (self_t *self, const command_t *command, int64_t page, const zframe_t *frame)
{
    zchunk_t **answers_p = &self->answers[CONNECTIONS_THREAD (command->connection)];
    if (!*answers_p)
        *answers_p = zchunk_new (NULL, 4096);
    database_answer_t head = {command->connection, page,
                              frame ? zframe_size ((zframe_t *) frame) : 0};
    zchunk_extend (*answers_p, &head, sizeof (head));
    if (frame)
        zchunk_extend (*answers_p, zframe_data ((zframe_t *) frame), head.size);
}

//  The same, takes the frame.

static void
s_tell_frame (self_t *self, const command_t *command, int64_t page, zframe_t *frame)
{
    s_tell (self, command, page, frame);
    zframe_destroy (&frame);
}

//  The page to show for a number: what the last round left, or while nothing can be read the last
//  one known.

static page_t *
s_page (self_t *self, int64_t number)
{
    page_t *page = pages_find_settled (self->pages, number);
    bool blind = self->read_failed || !postgres_is_up (self->postgres);
    return page || !blind ? page : pages_last_known (self->pages, number);
}

//  Shows a connection the page that it asked for.

static void
s_answer_list (self_t *self, const command_t *command)
{
    page_t *page = s_page (self, command->page);
    viewers_move (self->viewers, command->connection, page->number);
    if (command->etag == page->etag && command->ref)
        s_tell_frame (self, command, page->number,
                      swap_new_unchanged (command, page->number, page->pages));
    else if (command->etag == page->etag)
        s_tell (self, command, page->number, NULL); //  It has just this
    else if (command->ref)
        s_tell_frame (self, command, page->number,
                      swap_new_list (command, page->html, page->number, page->pages, page->etag));
    else
        s_tell (self, command, page->number, page->frame);
}

//  Shows a writer the page that it is on from now on, unless it got that page just now, and then
//  tells that the write is committed.

static void
s_answer_write (self_t *self, const command_t *command)
{
    int64_t from = viewers_page (self->viewers, command->connection);
    //  NULL when reading failed: then the page comes as soon as that works again
    page_t *page = pages_find (self->pages, command->action == COMMAND_ADD ? 1 : from);
    if (page && (page->number != from || page->round != self->round)) {
        viewers_move (self->viewers, command->connection, page->number);
        s_tell (self, command, page->number, page->frame);
    }
    if (command->ref)
        s_tell_frame (self, command, 0, swap_new_ok (command));
}

static void
s_answer_connection (self_t *self, const command_t *command)
{
    if (command->code != COMMAND_OK && command->opens) //  It gets the page once that can be read
        viewers_move (self->viewers, command->connection, command->page);
    if (command->code != COMMAND_OK)
        s_tell_frame (self, command, 0, swap_new_notice (self->site, command));
    else if (command->action == COMMAND_EDIT)
        s_tell_frame (self, command, 0, swap_new_form (self->site, command));
    else if (command->action == COMMAND_LIST)
        s_answer_list (self, command);
    else
        s_answer_write (self, command);
}

//  The text of an answer to a civetweb thread, caller's to free, or the page whose list it is.

static char *
s_request_text (const self_t *self, const command_t *command, const page_t *page)
{
    if (command->code == COMMAND_CONFLICT)
        return swap_form_html (self->site, command);
    if (command->code != COMMAND_OK)
        return strdup (command->reason);
    if (command->action == COMMAND_EDIT)
        return swap_form_html (self->site, command);
    if (command->action == COMMAND_RANK)
        return swap_delete_html (self->site, command);
    return strdup (page ? page->html : "");
}

static void
s_answer_request (self_t *self, const command_t *command)
{
    bool list = command->code == COMMAND_OK && command->action == COMMAND_LIST;
    const page_t *page = list ? s_page (self, command->page) : NULL;
    int64_t number = page ? page->number : 0;
    if (command->code == COMMAND_OK && command->action == COMMAND_RANK)
        number = command->newer / site_settings (self->site)->board_page_size + 1;
    char *text = s_request_text (self, command, page);
    zsock_send (self->commands, "f8s8888s", command->requester, command->sequence,
                command_code_name (command->code), (uint64_t) command->id, (uint64_t) number,
                (uint64_t) (page ? page->pages : 0), page ? page->etag : 0, text ? text : "");
    zstr_free (&text);
}

//  Answers the command, once.

static void
s_answer (self_t *self, command_t *command)
{
    if (command->action == COMMAND_SWEEP)
        return;
    if (command->code == COMMAND_OK && command->action == COMMAND_LIST &&
        !s_page (self, command->page))
        command_fail (command, COMMAND_UNAVAILABLE,
                      "The page cannot be read at the moment; try again soon.");
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
        s_tell_frame (self, command, 0,
                      connections_farewell (FRAME_CLOSE_TRY_LATER, "not known whether saved"));
}

//  A message was found. Which page it is on takes another question, which the index makes a small
//  one: the command goes on as that.

static void
s_rank (self_t *self, command_t *found)
{
    page_index_key_t key = {found->created_at, found->id};
    page_index_place_t place = surveyor_find_key (self->surveyor, key);
    command_t *command = command_new_own (COMMAND_RANK, found->id);
    command->created_at = found->created_at;
    command->start = place.start;
    command->newer = place.before;
    command->sequence = found->sequence;
    command->author = found->author;
    command->text = found->text;
    command->requester = found->requester;
    found->author = found->text = NULL;
    found->requester = NULL;
    zlistx_add_end (self->waiting, command);
}

//  Ends a command that PostgreSQL has seen.

static void
s_end_command (self_t *self, command_t *command)
{
    if (command->unsettled)
        s_send_away (self, command);
    else if (command->action == COMMAND_FIND && command->code == COMMAND_OK)
        s_rank (self, command);
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
//  Reporting to our parent

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
s_report_drained (self_t *self)
{
    if (!self->draining || self->batch || self->next || zlistx_size (self->waiting) > 0 ||
        (zsock_events (self->commands) & ZMQ_POLLIN))
        return;
    self->draining = false;
    zsock_signal (self->pipe, 0);
}

//  ------------------------------------------------------------------------
//  Reading

//  Starts a round when a timer says so.

static int
s_handle_timer (zloop_t *loop, int timer, void *arg)
{
    (void) loop;
    self_t *self = (self_t *) arg;
    if (timer == self->retry)
        self->retry = -1;
    else if (timer == self->deep_timer)
        self->deep_timer = -1;
    else {
        self->grown_timer = -1;
        self->stale = true;
    }
    s_start_round (self);
    return 0;
}

//  Pages that somebody looks at and that may have changed: at once after a rest, else in a while.

static void
s_want_deep (self_t *self)
{
    size_t count = viewers_pages (self->viewers, NULL, 0);
    int64_t now_ms = zclock_mono ();
    self->deep_stale = count > 0;
    if (count == 0)
        return;
    if (now_ms < self->deep_ms) {
        if (self->deep_timer < 0)
            self->deep_timer = zloop_timer (self->loop, (size_t) (self->deep_ms - now_ms), 1,
                                            s_handle_timer, self);
        return;
    }
    int64_t *numbers = (int64_t *) zmalloc ((count + 1) * sizeof (int64_t));
    viewers_pages (self->viewers, numbers, count);
    for (size_t index = 0; index < count; index++)
        pages_want (self->pages, numbers[index]);
    freen (numbers);
    self->deep_stale = false;
    self->deep_ms = now_ms + DEEP_MS;
}

//  The pages that the commands themselves need.

static void
s_want_asked (self_t *self)
{
    for (size_t index = 0; self->batch && index < batch_size (self->batch); index++) {
        const command_t *command = batch_command (self->batch, index);
        if (command->code != COMMAND_OK)
            continue;
        if (command->action == COMMAND_LIST)
            pages_want (self->pages, command->page);
        else if (command->action != COMMAND_ADD && command_writes (command) && !command->requester)
            pages_want (self->pages, viewers_page (self->viewers, command->connection));
    }
}

//  Decides what the round has to read.

static void
s_want_pages (self_t *self)
{
    bool changes = self->stale || (self->batch && batch_writes (self->batch));
    if (self->anew)
        pages_unsettle (self->pages);
    self->anew = false;
    if (changes) {
        pages_outdate (self->pages);
        pages_want (self->pages, 1);
        self->stale = false; //  From here on: what changes now is announced after the read
    }
    if (changes || self->deep_stale)
        s_want_deep (self);
    s_want_asked (self);
}

static int64_t
s_page_size (const self_t *self)
{
    return site_settings (self->site)->board_page_size;
}

//  Queues it as a transaction of its own, if anything is wanted. Its Sync would commit what was
//  sent ahead, so nothing was, or it was taken back.

static void
s_send_read (self_t *self)
{
    assert (!self->next);
    self->reading = pages_wanted (self->pages);
    if (self->reading) {
        pages_send (self->pages, self->postgres, s_page_size (self), false);
        postgres_sync (self->postgres);
    }
}

static void
s_handle_read_failure (self_t *self)
{
    self->read_failed = true;
    self->stale = true;
    char *reason = zsys_sprintf ("database: could not read messages: %.*s",
                                 (int) strcspn (pages_error (self->pages), "\n"),
                                 pages_error (self->pages));
    if (!self->unreadable)
        log_error ("%s", reason);
    self->unreadable = true;
    if (self->retry < 0)
        self->retry = zloop_timer (self->loop, RETRY_MS, 1, s_handle_timer, self);
    if (!self->started) {
        self->failure = reason;
        s_report_start (self);
    }
    else
        zstr_free (&reason);
}

//  Publishes the pages that changed and that somebody looks at, the last page first: those who
//  looked past the end are on it before it comes. Where it was not read in this round, it comes as
//  soon as it is, though it be what it was when it was shown before, to others.

static void
s_publish_changed (self_t *self)
{
    int64_t count = pages_count (self->pages);
    bool moved = pages_are_counted (self->pages) && viewers_clamp (self->viewers, count);
    page_t *last = moved ? pages_find (self->pages, count) : NULL;
    if (moved && !last)
        pages_show_anew (self->pages, count);
    page_t *page;
    while ((page = pages_next_changed (self->pages))) {
        metrics_add (METRICS_PAGES_RENDERED, 1);
        if (last && page->number < last->number && last->round != self->round)
            s_publish_page (self, last);
        if (viewers_any (self->viewers, page->number))
            s_publish_page (self, page);
    }
    if (last && last->round != self->round)
        s_publish_page (self, last);
}

//  ------------------------------------------------------------------------
//  Rounds

static bool
s_round_under_way (const self_t *self)
{
    return self->batch || self->reading || self->surveying;
}

static void
s_set_deadline (self_t *self, int delay_ms, zloop_timer_fn *handler)
{
    if (self->deadline >= 0)
        zloop_timer_end (self->loop, self->deadline);
    self->deadline = handler ? zloop_timer (self->loop, (size_t) delay_ms, 1, handler, self) : -1;
}

static void
s_finish_round (self_t *self)
{
    if (!self->read_failed) {
        s_publish_changed (self);
        pages_settle (self->pages);
    }
    for (size_t index = 0; self->batch && index < batch_size (self->batch); index++)
        s_end_command (self, batch_command (self->batch, index));

    batch_destroy (&self->batch);
    self->reading = false;
    if (!self->draining)
        s_set_deadline (self, 0, NULL);
    s_publish_answers (self);
    pages_bound (self->pages, self->viewers);
    if (pages_count (self->pages) > 0)
        s_report_start (self);
    s_start_round (self);
}

//  Whether the batch is one add, which page 1 takes as it is returned; then that is read later.

static bool
s_let_grow (self_t *self)
{
    bool grows = batch_adds_one (self->batch) && pages_grow (self->pages, s_page_size (self));
    if (grows && self->grown_timer < 0)
        self->grown_timer = zloop_timer (self->loop, GROWN_MS, 1, s_handle_timer, self);
    return grows;
}

//  Closes the batch's transaction. Pages are read in it, if it is the last one and they are near;
//  where others are wanted, the surveyor has to know first what the batch has written. For a single
//  add nothing need be read.

static void
s_close_batch (self_t *self)
{
    bool last = self->state == BATCH_DONE || batch_sent_all (self->batch);
    bool open = self->state == BATCH_UNDERWAY;
    bool stale = self->stale;
    if (last)
        s_want_pages (self);
    self->inside = last && open && pages_wanted (self->pages) &&
                   pages_are_near (self->pages, s_page_size (self));
    self->reads_later = open && last && !self->inside && batch_writes (self->batch);
    self->grows = self->inside && !stale && s_let_grow (self);
    int reads = 0;
    if (self->inside && !self->grows)
        reads = pages_send (self->pages, self->postgres, s_page_size (self),
                            batch_writes (self->batch));
    if (open)
        batch_sync (self->batch, self->postgres, reads, self->inside);
    if (last && !self->inside && !self->reads_later)
        s_send_read (self);
    postgres_flush (self->postgres);
    if (self->state == BATCH_DONE && !self->reading && postgres_is_up (self->postgres))
        s_finish_round (self);
}

//  Whether somebody else was found to keep the message locked, a moment ago.

static bool
s_is_locked_out (const self_t *self, const command_t *command)
{
    if (command->action != COMMAND_UPDATE && command->action != COMMAND_DELETE)
        return false;
    int64_t now_ms = zclock_mono ();
    for (size_t index = 0; index < LOCK_OUTS; index++)
        if (self->lock_outs[index].id == command->id && self->lock_outs[index].until_ms > now_ms)
            return true;
    return false;
}

static void
s_lock_out (self_t *self, int64_t id)
{
    self->lock_outs[self->locks++ % LOCK_OUTS] = (lock_out_t){id, zclock_mono () + LOCK_OUT_MS};
}

//  Moves commands that wait into the batch, which is made if there is none, and sends their
//  statements.

static batch_state_t
s_fill (self_t *self, batch_t **batch_p)
{
    if (!*batch_p) {
        *batch_p = batch_new ();
        metrics_add (METRICS_BATCHES, 1);
    }
    while (batch_size (*batch_p) < BATCH_SIZE && zlistx_size (self->waiting) > 0) {
        command_t *command = (command_t *) zlistx_detach (self->waiting, NULL);
        if (command->code == COMMAND_OK && s_is_locked_out (self, command))
            command_fail (command, COMMAND_BUSY,
                          "Somebody else keeps this message locked; try again.");
        batch_add (*batch_p, &command);
    }
    return batch_send (*batch_p, self->postgres);
}

//  Whether the next round is the surveyor's: each second one may be.

static bool
s_is_surveyors_turn (const self_t *self)
{
    return !self->surveyed && self->retry < 0 && surveyor_is_due (self->surveyor);
}

//  Sends the commands that wait behind the round under way, unless something of that is to be sent
//  yet, or the surveyor comes first.

static void
s_send_ahead (self_t *self)
{
    bool sent_all = (!self->batch || batch_sent_all (self->batch)) && !self->reads_later;
    if (!sent_all || s_is_surveyors_turn (self) || zlistx_size (self->waiting) == 0)
        return;
    s_fill (self, &self->next);
    postgres_flush (self->postgres);
}

//  Makes a batch of the commands that were sent ahead and those that wait, if there are any.

static void
s_fill_batch (self_t *self)
{
    self->batch = self->next;
    self->next = NULL;
    self->state = BATCH_DONE;
    if (self->batch || zlistx_size (self->waiting) > 0)
        self->state = s_fill (self, &self->batch);
}

//  Puts the commands of a batch back where they waited.

static void
s_empty (self_t *self, batch_t **batch_p)
{
    command_t *command;
    while ((command = batch_take_back (*batch_p)))
        zlistx_add_start (self->waiting, command);
    batch_destroy (batch_p);
}

//  Takes back what was sent ahead: the round before it is not over yet, as it turns out.

static void
s_take_back_next (self_t *self)
{
    if (self->next) {
        batch_void (self->next, self->postgres);
        self->void_syncs++;
        s_empty (self, &self->next);
    }
}

//  Sends the batch again, or what is left of it.

static void
s_send_again (self_t *self)
{
    s_take_back_next (self);
    self->state = batch_send (self->batch, self->postgres);
    s_close_batch (self);
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

//  A round of the surveyor's; the commands that wait come behind it.

static void
s_start_survey (self_t *self)
{
    self->surveying = self->surveyed = true;
    self->round_ms = zclock_mono ();
    surveyor_send (self->surveyor, self->postgres);
    s_send_ahead (self);
    postgres_flush (self->postgres);
}

//  A batch, with the pages that it changes, or only those.

static void
s_start_batch (self_t *self)
{
    s_fill_batch (self);
    bool deep = self->deep_stale && zclock_mono () >= self->deep_ms;
    if (self->batch || ((self->stale || deep) && self->retry < 0)) {
        self->surveyed = false;
        self->round++;
        self->round_ms = zclock_mono ();
        self->read_failed = false;
        s_close_batch (self);
    }
    else if (surveyor_is_due (self->surveyor) && self->retry < 0)
        s_start_survey (self);
}

//  Sends what waits, and starts a round when there is a reason for one and none is under way.

static void
s_start_round (self_t *self)
{
    bool up = postgres_is_up (self->postgres);
    if (up && s_round_under_way (self))
        s_send_ahead (self);
    else if (up && !self->next && s_is_surveyors_turn (self))
        s_start_survey (self);
    else if (up)
        s_start_batch (self);
    s_pause_commands (self, zlistx_size (self->waiting) >= DATABASE_QUEUE);
    s_report_drained (self);
}

//  ------------------------------------------------------------------------
//  What PostgreSQL tells

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
    self->surveyed = false;
    surveyor_lose (self->surveyor);
    if (self->batch)
        s_send_again (self); //  It was in doubt
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
    s_publish_answers (self);
}

static int
s_handle_deadline (zloop_t *loop, int timer, void *arg)
{
    (void) loop;
    self_t *self = (self_t *) arg;
    if (timer != self->deadline)
        return 0; //  Ended in this turn of the loop, and called all the same
    self->deadline = -1;
    if (self->batch)
        log_error ("database: gave up on %zu commands", batch_size (self->batch));
    if ((self->next || s_round_under_way (self)) && postgres_is_up (self->postgres))
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
    self->reading = self->surveying = self->reads_later = false;
    self->void_syncs = 0;
    pages_break (self->pages);
    if (self->next)
        s_empty (self, &self->next);
    if (!self->batch)
        return;
    if (self->state == BATCH_DONE || !batch_writes (self->batch)) {
        s_abandon_batch (self); //  Committed, only not read; or nothing can be in doubt
        if (!self->draining)
            s_set_deadline (self, 0, NULL); //  It may have been in doubt before
    }
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
    s_publish_answers (self);
    s_pause_commands (self, false);
    s_report_drained (self);
}

//  Tells the pages what the batch adds and deletes, before it is committed.

static void
s_expect (self_t *self)
{
    int64_t messages = 0;
    for (size_t index = 0; index < batch_size (self->batch); index++) {
        const command_t *command = batch_command (self->batch, index);
        if (command->code == COMMAND_OK)
            messages += command->stored - command->deleted;
    }
    pages_expect (self->pages, messages);
}

//  The batch is committed: the surveyor is to know of what it added and deleted.

static void
s_count_batch (self_t *self)
{
    for (size_t index = 0; index < batch_size (self->batch); index++) {
        const command_t *command = batch_command (self->batch, index);
        page_index_key_t key = {command->created_at, command->id};
        if (command->code == COMMAND_OK && command->stored)
            surveyor_add (self->surveyor, key);
        if (command->code == COMMAND_OK && command->deleted)
            surveyor_remove (self->surveyor, key);
    }
    surveyor_report (self->surveyor);
    pages_expect (self->pages, 0);
}

//  What is wanted has been read, or is not to be had.

static void
s_finish_read (self_t *self)
{
    pages_state_t state = pages_finish (self->pages);
    self->reading = false;
    if (state == PAGES_AGAIN) {
        s_take_back_next (self);
        s_send_read (self);
        postgres_flush (self->postgres);
        return;
    }
    if (state == PAGES_FAILED)
        s_handle_read_failure (self);
    else
        self->unreadable = false;
    s_finish_round (self);
}

//  The batch's transaction is void: so is what was read in it or behind it.

static void
s_retry_batch (self_t *self)
{
    pages_break (self->pages);
    self->stale = true;
    s_send_again (self);
}

//  The batch is done; what it has read is there, or comes, or is to be sent yet.

static void
s_finish_batch (self_t *self)
{
    s_count_batch (self);
    if (self->reading)
        return;
    if (self->inside) {
        s_finish_read (self);
        return;
    }
    if (!self->next) { //  Else what is to be read by now is for the next round
        if (!self->reads_later)
            s_want_pages (self);
        s_send_read (self);
    }
    self->reads_later = false;
    postgres_flush (self->postgres);
    if (self->reading)
        s_send_ahead (self);
    else if (postgres_is_up (self->postgres))
        s_finish_round (self);
}

static void
s_take_batch_result (self_t *self, PGresult *result)
{
    bool read = batch_expects_read (self->batch) ||
                (self->grows && PQresultStatus (result) == PGRES_TUPLES_OK);
    self->state = batch_take (self->batch, result);
    if (self->state != BATCH_UNDERWAY && batch_locked_id (self->batch) > 0)
        s_lock_out (self, batch_locked_id (self->batch));
    if (read) {
        s_expect (self);
        pages_take (self->pages, self->site, result);
    }
    else
        PQclear (result);
    if (self->state == BATCH_AGAIN && !self->reading)
        s_retry_batch (self);
    else if (self->state == BATCH_DONE)
        s_finish_batch (self);
}

static void
s_take_read_result (self_t *self, PGresult *result)
{
    if (PQresultStatus (result) != PGRES_PIPELINE_SYNC) {
        pages_take (self->pages, self->site, result);
        return;
    }
    PQclear (result);
    if (self->state == BATCH_AGAIN) {
        self->reading = false;
        s_retry_batch (self);
    }
    else
        s_finish_read (self);
}

//  Takes what the surveyor asked for. What it found out may change how many pages there are; when
//  that fails, so does reading, and it is tried again with that.

static void
s_take_survey_result (self_t *self, PGresult *result)
{
    bool sure = surveyor_is_sure (self->surveyor);
    int64_t messages = surveyor_messages (self->surveyor);
    int rc = surveyor_take (self->surveyor, result);
    bool done = PQresultStatus (result) == PGRES_PIPELINE_SYNC;
    PQclear (result);
    self->stale = self->stale || sure != surveyor_is_sure (self->surveyor) ||
                  messages != surveyor_messages (self->surveyor);
    if (rc != 0 && self->retry < 0)
        self->retry = zloop_timer (self->loop, RETRY_MS, 1, s_handle_timer, self);
    if (done) {
        self->surveying = false;
        s_start_round (self);
    }
}

static void
s_handle_result (void *arg, PGresult *result)
{
    self_t *self = (self_t *) arg;
    if (self->void_syncs > 0) {
        self->void_syncs -= PQresultStatus (result) == PGRES_PIPELINE_SYNC;
        PQclear (result);
    }
    else if (self->surveying)
        s_take_survey_result (self, result);
    else if (self->state == BATCH_UNDERWAY)
        s_take_batch_result (self, result);
    else
        s_take_read_result (self, result);
}

//  Somebody else has written, or a word of the surveyor's has come back.

static void
s_handle_notification (void *arg, const char *payload)
{
    self_t *self = (self_t *) arg;
    if (surveyor_hear (self->surveyor, self->origin, payload))
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

//  Takes the commands of a connection thread.

static void
s_take_commands (self_t *self, zframe_t *records)
{
    const byte *data = zframe_data (records);
    const byte *end = data + zframe_size (records);
    while (data < end) {
        database_command_t head;
        memcpy (&head, data, sizeof (head));
        data += sizeof (head);
        command_t *command = command_new ((const char *) data, head.size,
                                          site_settings (self->site));
        command->connection = head.connection;
        command->speaks_breadboard_1 = head.speaks_breadboard_1;
        command->opens = head.opens;
        if (!head.speaks_breadboard_1)
            zstr_free (&command->ref); //  The plain protocol has no replies
        s_take_command (self, command);
        data += head.size;
    }
}

//  Takes the command of a civetweb thread, and the sender. Such a thread has no other command here,
//  so one that only wants a page that is in memory need not wait for its turn: however long the
//  round under way takes, it gets what the board shows until that ends.

static void
s_take_request (self_t *self, zframe_t **sender_p, uint64_t sequence, zframe_t *json)
{
    command_t *command = command_new ((const char *) zframe_data (json), zframe_size (json),
                                      site_settings (self->site));
    command->sequence = sequence;
    command->requester = *sender_p;
    *sender_p = NULL;
    bool lists = command->code == COMMAND_OK && command->action == COMMAND_LIST;
    if (lists && !self->anew && pages_find_settled (self->pages, command->page)) {
        s_answer (self, command);
        command_destroy (&command);
    }
    else
        s_take_command (self, command);
}

static void
s_forget_in_batch (const batch_t *batch, uint64_t connection)
{
    for (size_t index = 0; batch && index < batch_size (batch); index++)
        if (batch_command (batch, index)->connection == connection)
            batch_command (batch, index)->left = true;
}

//  Takes a civetweb thread's question about a message, and the sender. An id beyond all numbers is
//  the largest one, which no message has.

static void
s_take_find (self_t *self, zframe_t **sender_p, uint64_t sequence, zframe_t *id)
{
    char *digits = zframe_strdup (id);
    command_t *command = command_new_own (COMMAND_FIND, strtoll (digits, NULL, 10));
    zstr_free (&digits);
    command->sequence = sequence;
    command->requester = *sender_p;
    *sender_p = NULL;
    s_take_command (self, command);
}

//  The connection is gone: what it still waits for must not bring it back.

static void
s_forget_connection (self_t *self, uint64_t connection)
{
    viewers_leave (self->viewers, connection);
    s_forget_in_batch (self->batch, connection);
    s_forget_in_batch (self->next, connection);

    command_t *command = (command_t *) zlistx_first (self->waiting);
    for (; command; command = (command_t *) zlistx_next (self->waiting))
        if (command->connection == connection)
            command->left = true;
}

static void
s_answer_hello (self_t *self, uint64_t thread)
{
    s_publish_to (self, (int) thread, NULL, 0);
    page_t *page = pages_last_known (self->pages, 1);
    if (page)
        s_publish_page (self, page);
}

static void
s_answer_ready (self_t *self, zframe_t *requester, uint64_t sequence)
{
    bool up = postgres_is_up (self->postgres) &&
              (!s_round_under_way (self) || zclock_mono () - self->round_ms < ROUND_LATE_MS);
    zsock_send (self->commands, "f8s8888s", requester, sequence,
                command_code_name (up ? COMMAND_OK : COMMAND_UNAVAILABLE), (uint64_t) 0,
                (uint64_t) 0, (uint64_t) 0, (uint64_t) 0, "");
}

//  Takes one zmsg from the ROUTER.

static void
s_take_message (self_t *self)
{
    zframe_t *sender = NULL;
    zframe_t *data = NULL;
    uint8_t kind = 0;
    uint64_t number = 0;
    zsock_recv (self->commands, "f18f", &sender, &kind, &number, &data);
    if (kind == DATABASE_COMMANDS_SENT)
        s_take_commands (self, data);
    else if (kind == DATABASE_REQUEST)
        s_take_request (self, &sender, number, data);
    else if (kind == DATABASE_FIND)
        s_take_find (self, &sender, number, data);
    else if (kind == DATABASE_LEFT)
        s_forget_connection (self, number);
    else if (kind == DATABASE_HELLO)
        s_answer_hello (self, number);
    else {
        assert (kind == DATABASE_READY);
        s_answer_ready (self, sender, number);
    }
    zframe_destroy (&sender);
    zframe_destroy (&data);
}

static int
s_handle_commands (zloop_t *loop, zsock_t *reader, void *arg)
{
    (void) loop;
    (void) reader;
    self_t *self = (self_t *) arg;
    for (int taken = 0; taken < TAKE_MAX && (zsock_events (self->commands) & ZMQ_POLLIN) &&
                        zlistx_size (self->waiting) < DATABASE_QUEUE;
         taken++)
        s_take_message (self);
    s_start_round (self);
    s_publish_answers (self);
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
        self->stale = self->anew = true; //  Templates and page size may be others
        surveyor_lose (self->surveyor);  //  So may be all messages: a backup restored
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
    batch_destroy (&self->next);
    zlistx_destroy (&self->waiting);
    viewers_destroy (&self->viewers);
    pages_destroy (&self->pages);
    surveyor_destroy (&self->surveyor);
    for (int thread = 0; thread <= CONNECTIONS_THREADS_MAX; thread++)
        zchunk_destroy (&self->answers[thread]);
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
s_prepare_schema (const self_t *self, char **error_p)
{
    PGconn *connection = postgres_connect_blocking (self->url, self->limits.connect_ms, error_p);
    int rc = connection ? schema_upgrade (connection, self->url, error_p) : -1;
    PQfinish (connection);
    return rc;
}

static void
s_free_command (void **command_p)
{
    command_destroy ((command_t **) command_p);
}

//  The statements of batches and pages in one list.

static postgres_statement_t *
s_statements_new (void)
{
    const postgres_statement_t *lists[] = {batch_statements, pages_statements, surveyor_statements};
    postgres_statement_t *statements = (postgres_statement_t *) zmalloc (
        STATEMENTS_MAX * sizeof (postgres_statement_t));
    size_t count = 0;
    for (size_t list = 0; list < 3; list++)
        for (const postgres_statement_t *next = lists[list]; next->name; next++) {
            assert (count < STATEMENTS_MAX - 1);
            statements[count++] = *next;
        }
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
    const settings_t *settings = site_settings (self->site);
    self->limits = (postgres_limits_t){(int) settings->database_connect_timeout_ms,
                                       (int) settings->database_statement_timeout_ms,
                                       (int) settings->database_lock_timeout_ms};
    self->statements = s_statements_new ();
    self->deadline = self->retry = self->deep_timer = self->grown_timer = -1;
    self->stale = true;
    self->state = BATCH_DONE;
    self->viewers = viewers_new ();
    self->surveyor = surveyor_new ();
    self->pages = pages_new (self->surveyor);
    self->waiting = zlistx_new ();
    zlistx_set_destructor (self->waiting, s_free_command);
    zuuid_t *uuid = zuuid_new ();
    snprintf (self->origin, sizeof (self->origin), "%s", zuuid_str_canonical (uuid));
    zuuid_destroy (&uuid);

    self->commands = s_bind (ZMQ_ROUTER, DATABASE_COMMANDS, DATABASE_SENT);
    self->published = s_bind (ZMQ_PUB, DATABASE_PUBLISHED, PUBLISH_QUEUE);
    if (!self->url || !self->commands || !self->published)
        self->failure = strdup ("database: could not bind: already in use");
    else
        s_prepare_schema (self, &self->failure);
    return self;
}

//  What was deleted is forgotten in the batches, like anything else that PostgreSQL is to do.

static int
s_handle_sweep (zloop_t *loop, int timer, void *arg)
{
    (void) loop;
    (void) timer;
    self_t *self = (self_t *) arg;
    if (postgres_is_up (self->postgres)) {
        zlistx_add_end (self->waiting, command_new_own (COMMAND_SWEEP, 0));
        s_start_round (self);
        s_publish_answers (self);
    }
    return 0;
}

static void
s_serve (self_t *self)
{
    self->loop = zloop_new ();
    zloop_set_nonstop (self->loop, true); //  Only main () heeds signals
    zloop_reader (self->loop, self->pipe, s_handle_pipe, self);
    zloop_reader (self->loop, self->commands, s_handle_commands, self);
    zloop_timer (self->loop, SWEEP_MS, 0, s_handle_sweep, self);
    self->postgres = postgres_new (self->loop, self->url, self->origin, self->statements,
                                   self->limits, &s_handler, self);
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
    peer_t self = {zsock_new (ZMQ_SUB), zsock_new (ZMQ_DEALER)};
    zsock_set_rcvhwm (self.published, 1);
    zsock_connect (self.published, "%s", DATABASE_PUBLISHED);
    zsock_set_subscribe (self.published, "page/");
    zsock_set_subscribe (self.published, "to/5/");
    zsock_set_rcvtimeo (self.published, 5000);
    zsock_set_sndhwm (self.commands, 1);
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

//  Sends a client's command as connection thread 5 does.

static void
s_peer_send_command (peer_t *self, uint64_t connection, const char *json)
{
    database_command_t head = {.connection = connection, .size = (uint32_t) strlen (json)};
    zchunk_t *records = zchunk_new (&head, sizeof (head));
    zchunk_extend (records, json, strlen (json));
    zsock_send (self->commands, "18b", DATABASE_COMMANDS_SENT, (uint64_t) 5, zchunk_data (records),
                zchunk_size (records));
    zchunk_destroy (&records);
}

//  Asserts what is published next: a page, or one answer. Returns the number of pages, or the page
//  that the connection is on from then on.

static uint64_t
s_peer_take (peer_t *self, const char *topic, const char *text)
{
    char *heard = NULL;
    uint64_t pages = 0;
    zframe_t *frame = NULL;
    int rc = zsock_recv (self->published, "s88f", &heard, &pages, NULL, &frame);
    assert (rc == 0 && streq (heard, topic));
    if (*topic == 't') {
        database_answer_t head;
        memcpy (&head, zframe_data (frame), sizeof (head));
        assert (zframe_size (frame) == sizeof (head) + head.size);
        pages = (uint64_t) head.page;
    }
    assert (memmem (zframe_data (frame), zframe_size (frame), text, strlen (text)));
    zstr_free (&heard);
    zframe_destroy (&frame);
    return pages;
}

static void
s_peer_expect (peer_t *self, const char *topic, uint64_t number, const char *text)
{
    uint64_t pages = s_peer_take (self, topic, text);
    assert (pages == number);
}

//  Asserts the answer to a REQUEST or READY.

static void
s_peer_expect_reply (peer_t *self, uint64_t sequence, const char *code, const char *text)
{
    uint64_t numbers[5] = {0, 0, 0, 0, 0};
    char *heard = NULL;
    char *html = NULL;
    int rc = zsock_recv (self->commands, "8s8888s", &numbers[0], &heard, &numbers[1], &numbers[2],
                         &numbers[3], &numbers[4], &html);
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
    s_peer_send_command (self, connection, json);
}

static void
s_test_commands (peer_t *peer)
{
    const uint64_t connection = 256 + 5; //  Of thread 5
    s_peer_add (peer, connection, "first");
    s_peer_expect (peer, "page/1/", 1, "first"); //  For the sender as well, who is on page 1
    s_peer_send_command (peer, connection, "no JSON");
    s_peer_expect (peer, "to/5/", 0, "#notices");
    for (int count = 2; count <= 6; count++) {
        s_peer_add (peer, connection, "more");
        s_peer_expect (peer, "page/1/", count > 5 ? 2 : 1, "more");
    }
    s_peer_send_command (peer, connection,
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
    s_peer_send (peer, DATABASE_FIND, 4, "1");
    s_peer_expect_reply (peer, 4, "ok", "first");
    s_peer_send (peer, DATABASE_FIND, 5, "99999999999999999999");
    s_peer_expect_reply (peer, 5, "not-found", "no such message");
}

//  What somebody else does shows up, and the end of our backend costs nothing but time.

static void
s_test_outside (peer_t *peer, const scratch_t *scratch)
{
    scratch_run (scratch, "UPDATE messages SET text = 'by hand' WHERE id ="
                          " (SELECT max(id) FROM messages)");
    s_peer_expect (peer, "page/1/", 2, "by hand");
    int64_t reconnects = metrics_get (METRICS_DATABASE_RECONNECTS);
    scratch_run (scratch, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                          " WHERE application_name = 'breadboard'");
    for (int turn = 0; turn < 500 && metrics_get (METRICS_DATABASE_RECONNECTS) == reconnects;
         turn++)
        zclock_sleep (20);
    s_peer_send (peer, DATABASE_READY, 6, "");
    s_peer_expect_reply (peer, 6, "ok", "");
    s_peer_add (peer, 512 + 5, "again");
    uint64_t pages = s_peer_take (peer, "page/1/", "again");
    assert (pages == 2 || pages == INT64_MAX); //  A guess, if it comes before the count
}

//  Whoever does not listen makes the actor wait, and then the senders: nothing piles up without a
//  bound, and nothing is lost.

static void
s_test_full (peer_t *peer)
{
    zsock_set_sndtimeo (peer->commands, 100);
    database_command_t head = {.connection = 512 + 5, .size = 1};
    byte record[sizeof (head) + 1];
    memcpy (record, &head, sizeof (head));
    record[sizeof (head)] = '!'; //  Is answered without PostgreSQL
    size_t sent = 0;
    while (zsock_send (peer->commands, "18b", DATABASE_COMMANDS_SENT, (uint64_t) 5, record,
                       sizeof (record)) == 0)
        sent++;
    //  At most: published, each the answers of one turn; in the actor; on their way to it
    assert (sent > PUBLISH_QUEUE);
    assert (sent <= (PUBLISH_QUEUE + 2) * TAKE_MAX + DATABASE_QUEUE + DATABASE_SENT + 2);
    for (size_t answered = 0; answered < sent;) {
        zframe_t *frame = NULL;
        int rc = zsock_recv (peer->published, "s88f", NULL, NULL, NULL, &frame);
        assert (rc == 0);
        for (size_t at = 0; at < zframe_size (frame); answered++) {
            database_answer_t answer;
            memcpy (&answer, zframe_data (frame) + at, sizeof (answer));
            at += sizeof (answer) + answer.size;
        }
        zframe_destroy (&frame);
    }
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
    s_test_full (&peer);
    site_t *site = scratch_site ();
    database_reload (self, site);
    site_destroy (&site);
    database_drain (self);
    zactor_destroy (&self);
    s_peer_destroy (&peer);
    scratch_destroy (&scratch);
    printf ("OK\n");
}
