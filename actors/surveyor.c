//  page_index tells how counts stay right though others write at the same time; here is who asks
//  PostgreSQL for it. Its six rules are kept so:
//
//  1. The database actor gives surveyor_add () and surveyor_remove () what its batches committed.
//  2. A walk counts WALK_MESSAGES at most, which takes PostgreSQL 3 ms; so the commands that come
//     meanwhile wait no longer than that, and the database actor lets a batch go between two walks.
//  3. The announcements' payload is told in schema.h. One that is not understood puts all in doubt.
//  4. Once there is nothing more to walk, a word to ourselves on the channel comes back behind all
//     announcements of what the walks could see.
//  5. The database actor has pages read again after each announcement.
//  6. So does that word when a page did not fit: if no announcement came before it, then none will.

#include "actors/surveyor.h"
#include "actors/metrics.h"
#include "actors/schema.h"
#include "actors/scratch.h"
#include "config/log.h"

#define WALK_MESSAGES 10000

//  The numbers as SQL
#define TEXT_OF(number) #number
#define DIGITS(number)  TEXT_OF (number)
#define LIMIT           DIGITS (WALK_MESSAGES)
#define BLOCK           DIGITS (PAGE_INDEX_BLOCK_SIZE)

enum { COLUMN_SNAPSHOT, COLUMN_ESTIMATE, COLUMN_PLACE, COLUMN_CREATED_AT, COLUMN_ID };

//  One pass over the index: the keys at which blocks begin, and the last one
const postgres_statement_t surveyor_statements[] = {
    {"walk", "SELECT pg_current_snapshot(),"
             " (SELECT reltuples::bigint FROM pg_class WHERE oid = 'messages'::regclass),"
             " place, " SCHEMA_EPOCH ", id"
             " FROM (VALUES (true)) AS one LEFT JOIN"
             " (SELECT created_at, id, row_number() OVER newest - 1 AS place,"
             " lead(id) OVER newest IS NULL AS last"
             " FROM (SELECT created_at, id FROM messages"
             " WHERE (created_at, id) <= ($1::timestamptz, $2::bigint)"
             " AND (created_at, id) > ($3::timestamptz, $4::bigint)"
             " ORDER BY created_at DESC, id DESC LIMIT " LIMIT ") AS range"
             " WINDOW newest AS (ORDER BY created_at DESC, id DESC)) AS walked"
             " ON place % " BLOCK " = 0 OR last ORDER BY place"},
    {"word", "SELECT pg_notify('" SCHEMA_CHANNEL "', current_setting('" SCHEMA_ORIGIN "')"
             " || ' 0 @' || $1)"},
    {NULL, NULL},
};

typedef enum { NOTHING, WALK, WORD } sent_t;

struct surveyor {
    page_index_t *index; //  Owned
    int64_t messages;    //  The count, or an estimate; -1: none yet
    bool sure;           //  It was counted, and has been followed since
    uint64_t heard;      //  Announcements of others
    sent_t sent;         //  Results are to come
    bool failed;         //  PostgreSQL said no
    uint64_t walk;       //  Number of the last one that was sent
    uint64_t settled;    //  Of the last one that is settled

    uint64_t words;     //  To ourselves, sent so far
    bool listening;     //  The last one has not come back
    uint64_t word_walk; //  The last walk before it
    bool suspicious;    //  A page did not fit
    bool examined;      //  Before the last word was sent
    uint64_t suspicion; //  What was heard until then
    int64_t begun_ms;   //  When all was in doubt; 0: it has been walked since
};

surveyor_t *
surveyor_new (void)
{
    surveyor_t *self = (surveyor_t *) zmalloc (sizeof (surveyor_t));
    self->index = page_index_new (PAGE_INDEX_BLOCK_SIZE);
    self->messages = -1;
    return self;
}

void
surveyor_destroy (surveyor_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        surveyor_t *self = *self_p;
        page_index_destroy (&self->index);
        freen (*self_p);
    }
}

page_index_place_t
surveyor_find (const surveyor_t *self, int64_t rank)
{
    return page_index_find (self->index, rank);
}

page_index_place_t
surveyor_find_key (const surveyor_t *self, page_index_key_t key)
{
    return page_index_find_key (self->index, key);
}

int64_t
surveyor_messages (const surveyor_t *self)
{
    int64_t messages = page_index_messages (self->index);
    return messages >= 0 ? messages : self->messages;
}

bool
surveyor_is_sure (const surveyor_t *self)
{
    return self->sure || page_index_messages (self->index) >= 0;
}

//  Something does not fit: an announcement may explain it.

static void
s_suspect (surveyor_t *self)
{
    if (!self->suspicious)
        self->suspicion = self->heard;
    self->suspicious = true;
}

void
surveyor_counted (surveyor_t *self, int64_t messages)
{
    int64_t walked = page_index_messages (self->index);
    if (walked >= 0 && walked != messages)
        s_suspect (self);
    else {
        self->messages = messages;
        self->sure = true;
    }
}

uint64_t
surveyor_heard (const surveyor_t *self)
{
    return self->heard;
}

//  ------------------------------------------------------------------------
//  What was written

void
surveyor_report (const surveyor_t *self)
{
    metrics_set (METRICS_INDEX_MESSAGES, page_index_messages (self->index));
    metrics_set (METRICS_INDEX_BYTES, (int64_t) page_index_memory (self->index));
}

//  The count follows, whether it is the index's or not.

static void
s_count (surveyor_t *self, int change)
{
    self->messages = self->messages + change >= 0 ? self->messages + change : 0;
}

void
surveyor_add (surveyor_t *self, page_index_key_t key)
{
    page_index_add (self->index, key);
    s_count (self, 1);
}

void
surveyor_remove (surveyor_t *self, page_index_key_t key)
{
    page_index_remove (self->index, key);
    s_count (self, -1);
}

//  Reads "EPOCH/ID", and moves *text_p behind it.

static page_index_key_t
s_read_key (const char **text_p)
{
    page_index_key_t key = {timestamp_read (*text_p), 0};
    const char *id = strchr (*text_p, '/');
    char *end = (char *) *text_p;
    if (id)
        key.id = strtoll (id + 1, &end, 10);
    *text_p = end;
    return key;
}

//  Reads "~KEY KEY"; returns -1 and leaves the range alone when it is something else.

static int
s_read_range (const char *text, page_index_key_t *newest, page_index_key_t *oldest)
{
    if (*text != '~')
        return -1;
    text++;
    page_index_key_t first = s_read_key (&text);
    text += *text == ' ';
    page_index_key_t last = s_read_key (&text);
    if (page_index_compare (first, last) < 0)
        return -1;
    *newest = first;
    *oldest = last;
    return 0;
}

//  Applies "+EPOCH/ID,ID -EPOCH/ID ..."; returns how many messages more there are by it.

static int
s_hear_keys (surveyor_t *self, uint64_t xid, const char *text)
{
    int more = 0;
    while (*text == '+' || *text == '-') {
        int change = *text++ == '+' ? 1 : -1;
        page_index_key_t key = s_read_key (&text);
        page_index_announce (self->index, xid, key, change);
        more += change;
        while (*text == ',') {
            key.id = strtoll (text + 1, (char **) &text, 10);
            page_index_announce (self->index, xid, key, change);
            more += change;
        }
        text += *text == ' ';
    }
    return more;
}

//  What all was in doubt, is so again.

static void
s_doubt_all (surveyor_t *self)
{
    page_index_doubt_all (self->index);
    self->sure = false;
    self->suspicious = false;
    if (self->begun_ms == 0 && self->messages >= 0)
        metrics_add (METRICS_INDEX_REBUILDS, 1);
    self->begun_ms = 0;
}

static void
s_hear_other (surveyor_t *self, uint64_t xid, const char *changes)
{
    self->messages = surveyor_messages (self);
    page_index_key_t newest = PAGE_INDEX_NEWEST;
    page_index_key_t oldest = PAGE_INDEX_OLDEST;
    self->heard++;
    if (*changes == '=')
        return;
    if (*changes == '+' || *changes == '-') {
        s_count (self, s_hear_keys (self, xid, changes));
        return;
    }
    if (s_read_range (changes, &newest, &oldest) != 0)
        metrics_add (METRICS_INDEX_REBUILDS, 1);
    page_index_doubt (self->index, xid, newest, oldest);
    self->sure = false;
}

//  Our own word is back: whatever came before it has been heard. Returns whether all is in doubt
//  now.

static bool
s_hear_word (surveyor_t *self, uint64_t number)
{
    if (number != self->words || !self->listening)
        return false;
    self->listening = false;
    self->settled = self->word_walk;
    page_index_settle (self->index, self->word_walk);
    if (!self->examined)
        return false;
    self->suspicious = false;
    bool explained = self->heard != self->suspicion;
    if (!explained) {
        log_warning ("database: somebody changes messages without a word; counting them anew");
        s_doubt_all (self);
    }
    return !explained;
}

bool
surveyor_hear (surveyor_t *self, const char *origin, const char *payload)
{
    size_t length = strlen (origin);
    bool ours = strncmp (payload, origin, length) == 0 && payload[length] == ' ';
    const char *xid = strchr (payload, ' ');
    const char *changes = xid ? strchr (xid + 1, ' ') : NULL;
    changes = changes ? changes + 1 : "";
    if (*changes == '@')
        return ours && s_hear_word (self, strtoull (changes + 1, NULL, 10));
    if (!ours)
        s_hear_other (self, xid ? strtoull (xid, NULL, 10) : 0, changes);
    surveyor_report (self);
    return !ours;
}

void
surveyor_check (surveyor_t *self, int64_t rank, const page_index_key_t *keys, size_t size,
                bool last)
{
    if (!page_index_fits (self->index, rank, keys, size, last))
        s_suspect (self);
}

void
surveyor_lose (surveyor_t *self)
{
    self->messages = surveyor_messages (self);
    self->sent = NOTHING;
    self->listening = false;
    s_doubt_all (self);
}

//  ------------------------------------------------------------------------
//  Asking PostgreSQL

bool
surveyor_is_due (const surveyor_t *self)
{
    bool word = !self->listening && (self->suspicious || self->settled != self->walk);
    return self->sent == NOTHING && (word || page_index_wants_walk (self->index));
}

static void
s_send_walk (surveyor_t *self, postgres_t *postgres)
{
    page_index_walk_t walk;
    bool due = page_index_walk (self->index, &walk);
    assert (due);
    page_index_text_t from = page_index_print (walk.from);
    page_index_text_t to = page_index_print (walk.to);
    postgres_query (postgres, "walk", 4,
                    (const char *const[]){from.created_at, from.id, to.created_at, to.id});
    self->walk = walk.number;
    self->sent = WALK;
    if (self->begun_ms == 0)
        self->begun_ms = zclock_mono ();
}

static void
s_send_word (surveyor_t *self, postgres_t *postgres)
{
    char number[24];
    snprintf (number, sizeof (number), "%" PRIu64, ++self->words);
    postgres_query (postgres, "word", 1, (const char *const[]){number});
    self->listening = true;
    self->word_walk = self->walk;
    self->examined = self->suspicious;
    self->sent = WORD;
}

void
surveyor_send (surveyor_t *self, postgres_t *postgres)
{
    self->failed = false;
    if (page_index_wants_walk (self->index))
        s_send_walk (self, postgres);
    else
        s_send_word (self, postgres);
    postgres_sync (postgres);
}

//  What a walk found. One that found nothing has a row without a place.

static page_index_walked_t
s_read_walk (const PGresult *result, page_index_mark_t *marks)
{
    page_index_walked_t walked = {.snapshot = PQgetvalue (result, 0, COLUMN_SNAPSHOT),
                                  .marks = marks};
    for (int row = 0; row < PQntuples (result) && !PQgetisnull (result, row, COLUMN_PLACE); row++) {
        page_index_mark_t mark = {strtoll (PQgetvalue (result, row, COLUMN_PLACE), NULL, 10),
                                  page_index_read (PQgetvalue (result, row, COLUMN_CREATED_AT),
                                                   PQgetvalue (result, row, COLUMN_ID))};
        marks[walked.size++] = mark;
        walked.messages = mark.place + 1;
    }
    walked.complete = walked.messages < WALK_MESSAGES;
    bool extra = walked.size > 0 && marks[walked.size - 1].place % PAGE_INDEX_BLOCK_SIZE != 0;
    walked.size -= walked.complete && extra; //  The last message begins no block
    return walked;
}

//  All that was in doubt has been walked.

static void
s_end_doubt (surveyor_t *self)
{
    self->messages = page_index_messages (self->index);
    if (self->messages > WALK_MESSAGES && self->begun_ms > 0)
        log_info ("database: counted %" PRId64 " messages in %" PRId64 " ms", self->messages,
                  zclock_mono () - self->begun_ms);
    self->begun_ms = 0;
}

static void
s_take_walk (surveyor_t *self, const PGresult *result)
{
    page_index_mark_t marks[WALK_MESSAGES / PAGE_INDEX_BLOCK_SIZE + 2];
    page_index_walked_t walked = s_read_walk (result, marks);
    walked.number = self->walk;
    self->failed = page_index_walked (self->index, &walked) != 0;
    if (page_index_messages (self->index) >= 0)
        s_end_doubt (self);
    else if (self->messages < 0) { //  A first guess
        int64_t estimate = strtoll (PQgetvalue (result, 0, COLUMN_ESTIMATE), NULL, 10);
        self->messages = estimate > walked.messages ? estimate : walked.messages + 1;
    }
}

//  The walk's range stays in doubt.

static void
s_fail_walk (surveyor_t *self)
{
    page_index_walked (self->index, &(page_index_walked_t){.number = self->walk, .messages = -1});
}

int
surveyor_take (surveyor_t *self, const PGresult *result)
{
    ExecStatusType status = PQresultStatus (result);
    if (status == PGRES_FATAL_ERROR && !self->failed) {
        self->failed = true;
        if (self->sent == WALK)
            s_fail_walk (self);
        self->listening = false;
    }
    else if (status == PGRES_TUPLES_OK && self->sent == WALK)
        s_take_walk (self, result);
    if (status == PGRES_PIPELINE_SYNC)
        self->sent = NOTHING;
    surveyor_report (self);
    return self->failed ? -1 : 0;
}

//  ------------------------------------------------------------------------
//  Self test: on a real server, against what SQL says

typedef struct {
    scratch_t *scratch;   //  Owned
    zloop_t *loop;        //  Owned
    postgres_t *postgres; //  Owned
    surveyor_t *surveyor; //  Owned
    int walks;            //  And words
} test_t;

#define TEST_ORIGIN "8f14e45f-ceea-467f-9e53-0a5d5b7c1c01"

static int
s_test_continue (zloop_t *loop, int timer, void *arg)
{
    (void) loop;
    (void) timer;
    test_t *test = (test_t *) arg;
    if (test->surveyor->listening || test->surveyor->sent != NOTHING)
        return 0;
    if (!surveyor_is_due (test->surveyor))
        return -1;
    test->walks++;
    surveyor_send (test->surveyor, test->postgres);
    postgres_flush (test->postgres);
    return 0;
}

//  Lets the surveyor work until nothing is due. Ends by itself, or else by the suite's patience.

static void
s_test_work (test_t *test)
{
    int timer = zloop_timer (test->loop, 5, 0, s_test_continue, test);
    zloop_start (test->loop);
    zloop_timer_end (test->loop, timer);
}

static void
s_test_up (void *arg)
{
    test_t *test = (test_t *) arg;
    surveyor_lose (test->surveyor);
    zloop_timer (test->loop, 0, 1, scratch_end_loop, NULL);
}

static void
s_test_down (void *arg, const char *reason)
{
    (void) arg;
    printf ("\n%s\n", reason);
    assert (false);
}

static void
s_test_result (void *arg, PGresult *result)
{
    test_t *test = (test_t *) arg;
    int rc = surveyor_take (test->surveyor, result);
    assert (rc == 0);
    PQclear (result);
}

static void
s_test_notification (void *arg, const char *payload)
{
    test_t *test = (test_t *) arg;
    surveyor_hear (test->surveyor, TEST_ORIGIN, payload);
}

//  Asserts that the message of a rank is found where the surveyor says, and the count.

static void
s_test_expect (const test_t *test, int64_t messages, int64_t rank)
{
    assert (surveyor_is_sure (test->surveyor));
    if (surveyor_messages (test->surveyor) != messages)
        printf ("\n%" PRId64 " messages\n", surveyor_messages (test->surveyor));
    assert (surveyor_messages (test->surveyor) == messages);
    page_index_place_t place = surveyor_find (test->surveyor, rank);
    assert (rank - place.before < 4 * PAGE_INDEX_BLOCK_SIZE);
    page_index_text_t start = page_index_print (place.start);
    char *sql = zsys_sprintf (
        "SELECT (SELECT id FROM messages WHERE (created_at, id) <= ('%s', %s)"
        " ORDER BY created_at DESC, id DESC LIMIT 1 OFFSET %" PRId64 ") IS NOT DISTINCT FROM"
        " (SELECT id FROM messages ORDER BY created_at DESC, id DESC LIMIT 1 OFFSET %" PRId64 ")",
        start.created_at, start.id, rank - place.before, rank);
    char *same = scratch_sql (test->scratch, sql);
    assert (streq (same, "t"));
    zstr_free (&same);
    zstr_free (&sql);
}

//  What somebody else does, and then the surveyor's work.

static void
s_test_change (test_t *test, const char *sql)
{
    uint64_t heard = test->surveyor->heard;
    scratch_run (test->scratch, sql);
    while (test->surveyor->heard == heard) {
        zloop_timer (test->loop, 5, 1, scratch_end_loop, NULL);
        zloop_start (test->loop);
    }
    s_test_work (test);
}

#define INSERT "INSERT INTO messages (author, text, created_at) SELECT 'Ann', 'x', "

static void
s_test_announced (test_t *test)
{
    test->walks = 0;
    s_test_change (test, INSERT "'infinity' FROM generate_series(1, 3)");
    s_test_change (test, INSERT "'2026-01-01'::timestamptz + '1 hour'");
    s_test_change (test, "DELETE FROM messages WHERE created_at = 'infinity'");
    s_test_change (test, "UPDATE messages SET text = 'y' WHERE id < 9000");
    assert (test->walks == 0); //  All that was known without asking
    s_test_expect (test, 25001, 12345);
    s_test_change (test, "DELETE FROM messages WHERE id BETWEEN 11001 AND 12000");
    s_test_change (test, "UPDATE messages SET created_at = '2026-01-01' WHERE id < 301");
    assert (test->walks > 0);
    s_test_expect (test, 24001, 24000);
    s_test_change (test, "TRUNCATE messages");
    s_test_expect (test, 0, 0);
}

//  Who writes without a word is found out when a page does not fit.

static void
s_test_secret (test_t *test)
{
    s_test_change (test, INSERT "now() FROM generate_series(1, 25)");
    scratch_run (test->scratch, "ALTER TABLE messages DISABLE TRIGGER breadboard_deleted;"
                                " DELETE FROM messages WHERE id % 2 = 0;"
                                " ALTER TABLE messages ENABLE TRIGGER breadboard_deleted");
    page_index_key_t key = {0, 1};
    int64_t rebuilds = metrics_get (METRICS_INDEX_REBUILDS);
    surveyor_check (test->surveyor, 24, &key, 1, true); //  The last one, as far as was heard
    assert (!surveyor_is_due (test->surveyor));
    surveyor_check (test->surveyor, 11, &key, 1, true); //  It may be on its way,
    s_test_change (test, INSERT "now()");               //  as this one was
    assert (metrics_get (METRICS_INDEX_REBUILDS) == rebuilds);
    surveyor_check (test->surveyor, 11, &key, 1, true);
    assert (surveyor_is_due (test->surveyor));
    s_test_work (test);
    assert (metrics_get (METRICS_INDEX_REBUILDS) == rebuilds + 1);
    char *count = scratch_sql (test->scratch, "SELECT count(*) FROM messages");
    s_test_expect (test, atoi (count), 3);
    zstr_free (&count);
}

//  Payloads of nobody that we know are survived; what is not understood is looked at.

static void
s_test_nonsense (test_t *test)
{
    const char *const payloads[] = {"",         " ",          "- 1",        "- 1 ",
                                    "- x +",    "- 1 +1",     "- 1 +1/",    "- 1 ~",
                                    "- 1 ~1/2", "- 1 ~1/2 3", "- 1 -1/2,,", "- 1 BATCH many"};
    for (size_t index = 0; index < sizeof (payloads) / sizeof (*payloads); index++)
        surveyor_hear (test->surveyor, TEST_ORIGIN, payloads[index]);
    assert (!surveyor_is_sure (test->surveyor));
    bool changes = surveyor_hear (test->surveyor, TEST_ORIGIN, TEST_ORIGIN " 1 +1/2");
    assert (!changes);
    s_test_work (test);
    char *count = scratch_sql (test->scratch, "SELECT count(*) FROM messages");
    s_test_expect (test, atoi (count), 0);
    zstr_free (&count);
}

void
surveyor_test (bool verbose)
{
    static const postgres_handler_t handler = {s_test_up, s_test_down, s_test_result,
                                               s_test_notification};
    printf (" * surveyor: ");
    if (verbose)
        printf ("\n");
    test_t test = {
        .scratch = scratch_new_board (), .loop = zloop_new (), .surveyor = surveyor_new ()};
    scratch_run (test.scratch, INSERT "'2026-01-01'::timestamptz + number * '1 s'::interval"
                                      " FROM generate_series(1, 25000) AS number");
    test.postgres = postgres_new (test.loop, scratch_url (test.scratch), TEST_ORIGIN,
                                  surveyor_statements, scratch_limits, &handler, &test);
    zloop_start (test.loop);
    assert (surveyor_messages (test.surveyor) == -1 && !surveyor_is_sure (test.surveyor));
    s_test_work (&test);
    assert (test.walks == 4); //  Three, and the word that settles them
    s_test_expect (&test, 25000, 20000);
    s_test_announced (&test);
    s_test_secret (&test);
    s_test_nonsense (&test);
    postgres_destroy (&test.postgres);
    zloop_destroy (&test.loop);
    surveyor_destroy (&test.surveyor);
    surveyor_destroy (&test.surveyor);
    scratch_destroy (&test.scratch);
    printf ("OK\n");
}
