//  What was sent is remembered as steps, one for each result that will come: a statement of a
//  command, or of several, a read of the caller's, or the Sync. It was committed if and only if no
//  error came before the Sync's result; an error at commit comes as an extra result where the
//  Sync's is expected. A statement that writes announces that to other servers by itself.
//
//  A statement that fails makes the transaction void, and so tells the outcome of its own command
//  for certain; the others are sent again. After RETRIES_MAX of that they are sent singly, one at a
//  time. A row, or the whole table, that somebody else keeps locked costs lock_timeout each time;
//  after LOCKS_MAX of those all writes that are left are "busy", so one batch never waits longer
//  than that.
//
//  In doubt. When a connection breaks, a transaction whose Sync was sent may have been committed.
//  The next connection first makes sure that the old one can commit no more (postgres). Then the
//  commands run again, singly, and the statements themselves find out: an add has a key, which is
//  stored once whoever tries; so has a delete that can be undone; any other that finds nothing has
//  done its work; an update that finds its own text has, too, when no version stands against it.
//  What cannot be told so is unsettled.

#include "actors/batch.h"
#include "actors/page.h"
#include "actors/schema.h"
#include "actors/scratch.h"
#include "actors/timestamp.h"
#include "actors/uuid.h"
#include "config/log.h"

//  How long a delete can be undone. People are offered 10 s; the rest is for slow networks
#define UNDO_TIME "interval '20 s'"

//  The deleted message $1 that can be restored with the key $2
#define RESTORABLE                                                           \
    "id = $1 AND deletion = $2 AND restored_at IS NULL AND text IS NOT NULL" \
    " AND deleted_at > now() - " UNDO_TIME

//  Ends an insertion of a deleted message: one that was restored and is deleted again is there
//  already
#define REPLACE                                                                        \
    " ON CONFLICT (id) DO UPDATE SET (key, deletion, deleted_at, restored_at,"         \
    " author, text, created_at, version) = (excluded.key, excluded.deletion,"          \
    " excluded.deleted_at, NULL, excluded.author, excluded.text, excluded.created_at," \
    " excluded.version))"

//  Whether the message's key is one that nobody comes back with
#define HAS_OWN_KEY UUID_SQL_IS_OWN ("key")

//  What a statement tells other servers
#define CAME      SCHEMA_ANNOUNCE ("'+' || " SCHEMA_KEY)
#define CAME_BACK SCHEMA_ANNOUNCE ("'+' || " SCHEMA_KEY SCHEMA_MARK)
#define WENT      SCHEMA_ANNOUNCE ("'-' || " SCHEMA_KEY SCHEMA_MARK)
#define STAYED    SCHEMA_ANNOUNCE ("'='")

//  The row of what was added, as page 1 takes it: as it is before AFTER triggers have seen it.
//  Where the key was stored before, the page is 0 instead
#define ADDED "1, id, author, text, " SCHEMA_EPOCH

//  All that were added together have one time, that of the transaction
#define NOW       TIMESTAMP_EPOCH ("now()")
#define ALL_CAME  SCHEMA_ANNOUNCE ("'+' || " NOW " || '/' || string_agg(id::text, ',')")
#define TELL_CAME "told AS (SELECT " ALL_CAME ", " NOW " AS epoch FROM added HAVING count(*) > 0)"

const postgres_statement_t batch_statements[] = {
    {"add", "INSERT INTO messages (author, text, created_at, key) VALUES ($1, $2, now(), $3)"
            " RETURNING " ADDED ", " CAME},
    {"add once", "WITH added AS (INSERT INTO messages (author, text, created_at, key)"
                 " SELECT $1, $2, now(), $3::uuid"
                 " WHERE NOT EXISTS (SELECT FROM messages WHERE key = $3)"
                 " AND NOT EXISTS (SELECT FROM breadboard_deleted WHERE key = $3)"
                 " ON CONFLICT (key) DO NOTHING RETURNING " ADDED ", " CAME ")"
                 " SELECT * FROM added"
                 " UNION ALL SELECT 0, id, NULL, NULL, NULL, NULL FROM messages WHERE key = $3"
                 " UNION ALL SELECT 0, id, NULL, NULL, NULL, NULL FROM breadboard_deleted"
                 " WHERE key = $3 LIMIT 1"},
    {"add many", "WITH added AS (INSERT INTO messages (author, text, created_at, key)"
                 " SELECT author, text, now(), key"
                 " FROM unnest($1::text[], $2::text[], $3::uuid[]) AS new (author, text, key)"
                 " RETURNING id), " TELL_CAME " SELECT 1, id, NULL, NULL, epoch FROM told, added"},
    {"add many once",
     "WITH new AS (SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[])"
     " WITH ORDINALITY AS new (author, text, key, place)),"
     " added AS (INSERT INTO messages (author, text, created_at, key)"
     " SELECT author, text, now(), key FROM new"
     " WHERE NOT EXISTS (SELECT FROM messages WHERE messages.key = new.key)"
     " AND NOT EXISTS (SELECT FROM breadboard_deleted AS gone WHERE gone.key = new.key)"
     " ORDER BY place ON CONFLICT (key) DO NOTHING RETURNING id, key), " TELL_CAME
     " SELECT (added.id IS NOT NULL)::integer, coalesce(added.id, messages.id,"
     " (SELECT gone.id FROM breadboard_deleted AS gone WHERE gone.key = new.key LIMIT 1)),"
     " NULL, NULL, " NOW ", (SELECT count(*) FROM told)"
     " FROM new LEFT JOIN added USING (key) LEFT JOIN messages USING (key)"
     " ORDER BY place"},
    {"edit", "SELECT author, text, version FROM messages WHERE id = $1"},
    {"update", "UPDATE messages SET author = $2, text = $3, version = version + 1"
               " WHERE id = $1 RETURNING true, true, " STAYED},
    {"compare", "SELECT false, author = $2 AND text = $3 FROM messages WHERE id = $1"},
    {"update version",
     "WITH changed AS (UPDATE messages SET author = $2, text = $3, version = version + 1"
     " WHERE id = $1 AND version = $4 RETURNING id, " STAYED ")"
     " SELECT EXISTS (SELECT FROM changed),"
     " author = $2 AND text = $3 AND version = $4::integer + 1, author, text, version"
     " FROM messages WHERE id = $1"},
    {"delete", "WITH gone AS (DELETE FROM messages WHERE id = $1"
               " RETURNING id, key, created_at, " WENT "),"
               " kept AS (INSERT INTO breadboard_deleted (id, key, deleted_at)"
               " SELECT id, key, now() FROM gone WHERE NOT " HAS_OWN_KEY REPLACE
               " SELECT id, true, " SCHEMA_EPOCH " FROM gone"},
    {"delete once",
     "WITH gone AS (DELETE FROM messages WHERE id = $1 AND NOT EXISTS"
     " (SELECT FROM breadboard_deleted WHERE id = $1 AND deletion = $2)"
     " RETURNING id, key, author, text, created_at, version, " WENT "),"
     " kept AS (INSERT INTO breadboard_deleted"
     " (id, key, deletion, deleted_at, author, text, created_at, version)"
     " SELECT id, key, $2, now(), author, text, created_at, version FROM gone" REPLACE
     " SELECT id, true, " SCHEMA_EPOCH " FROM gone"
     " UNION ALL SELECT id, false, NULL FROM breadboard_deleted WHERE id = $1 AND deletion = $2"
     " UNION ALL SELECT NULL, false, NULL FROM messages WHERE id = $1 LIMIT 1"},
    {"restore",
     "WITH back AS (UPDATE breadboard_deleted SET restored_at = now() WHERE " RESTORABLE
     " RETURNING id, author, text, created_at, key, version),"
     " restored AS (INSERT INTO messages (id, author, text, created_at, key, version)"
     " SELECT * FROM back RETURNING id, created_at, " CAME_BACK ")"
     " SELECT id, true, " SCHEMA_EPOCH " FROM restored"
     " UNION ALL SELECT id, false, NULL FROM breadboard_deleted"
     " WHERE id = $1 AND deletion = $2 AND restored_at IS NOT NULL"
     " UNION ALL SELECT NULL, false, NULL FROM breadboard_deleted WHERE " RESTORABLE " LIMIT 1"},
    {"find", "SELECT author, text, " SCHEMA_EPOCH " FROM messages WHERE id = $1"},
    {"rank", "SELECT count(*) FROM messages WHERE (created_at, id) > ($1, $2)"
             " AND (created_at, id) <= ($3, $4)"},
    {"sweep", "WITH forgotten AS (DELETE FROM breadboard_deleted"
              " WHERE deleted_at < now() - interval '1 day')"
              " UPDATE breadboard_deleted"
              " SET author = NULL, text = NULL, created_at = NULL, version = NULL"
              " WHERE text IS NOT NULL AND deleted_at <= now() - " UNDO_TIME
              " AND deleted_at >= now() - interval '1 day'"},
    {"take back", "SELECT $1::integer"}, //  Fails, as its parameter is no number

    {NULL, NULL},
};

//  How often the others are sent again together after one of them failed
#define RETRIES_MAX 3

//  How often a batch waits for somebody else's lock
#define LOCKS_MAX 3

//  Statements of the caller's in one transaction
#define READS_MAX 2

typedef enum { STATEMENT, READ, SYNC } step_kind_t;

typedef struct {
    step_kind_t kind;
    size_t first; //  Of the commands of a STATEMENT
    size_t count; //  Of these

} step_t;

struct batch {
    command_t *commands[BATCH_SIZE]; //  Owned
    size_t size;
    step_t steps[BATCH_SIZE + READS_MAX + 1]; //  What was sent
    size_t steps_sent;
    size_t steps_taken;
    size_t looked_at;   //  Commands that were sent, or need no statement
    bool open;          //  Statements were sent, the Sync was not
    bool singly;        //  One command at a time
    int failures;       //  Statements that failed
    int locks;          //  Of these, for a lock
    bool failed;        //  An error came since the last Sync's result
    char sqlstate[6];   //  The first one's
    command_t *culprit; //  Whose statement it was; borrowed; NULL: nobody's
};

batch_t *
batch_new (void)
{
    return (batch_t *) zmalloc (sizeof (batch_t));
}

void
batch_destroy (batch_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        batch_t *self = *self_p;
        for (size_t index = 0; index < self->size; index++)
            command_destroy (&self->commands[index]);
        freen (*self_p);
    }
}

void
batch_add (batch_t *self, command_t **command_p)
{
    assert (self->size < BATCH_SIZE);
    self->commands[self->size++] = *command_p;
    *command_p = NULL;
}

size_t
batch_size (const batch_t *self)
{
    return self->size;
}

command_t *
batch_command (const batch_t *self, size_t index)
{
    assert (index < self->size);
    return self->commands[index];
}

command_t *
batch_take_back (batch_t *self)
{
    return self->size > 0 ? self->commands[--self->size] : NULL;
}

bool
batch_writes (const batch_t *self)
{
    for (size_t index = 0; index < self->size; index++)
        if (self->commands[index]->code == COMMAND_OK && command_writes (self->commands[index]))
            return true;
    return false;
}

bool
batch_adds_one (const batch_t *self)
{
    return self->size == 1 && self->commands[0]->code == COMMAND_OK &&
           self->commands[0]->action == COMMAND_ADD;
}

//  ------------------------------------------------------------------------
//  Sending

static bool
s_is_left (const command_t *command)
{
    return !command->settled && command->code == COMMAND_OK && command->action != COMMAND_LIST;
}

static void
s_add_step (batch_t *self, step_kind_t kind, size_t first, size_t count)
{
    self->steps[self->steps_sent++] = (step_t){kind, first, count};
}

//  The values as an array in PostgreSQL's text format; caller frees.

static char *
s_array (const char *const *values, size_t count)
{
    size_t size = sizeof ("{}");
    for (size_t index = 0; index < count; index++)
        size += 2 * strlen (values[index]) + strlen ("\"\",");
    char *array = (char *) zmalloc (size);
    char *to = array;
    for (size_t index = 0; index < count; index++) {
        *to++ = index ? ',' : '{';
        *to++ = '"';
        for (const char *from = values[index]; *from; *to++ = *from++)
            if (*from == '"' || *from == '\\')
                *to++ = '\\';
        *to++ = '"';
    }
    *to = '}';
    return array;
}

//  Whether nobody but us can have stored the command's key.

static bool
s_is_new (const command_t *command)
{
    return command->own_key && !command->doubtful;
}

//  How many adds from the first one on go into one statement.

static size_t
s_count_adds (const batch_t *self, size_t first)
{
    const command_t *command = self->commands[first];
    size_t last = first + 1;
    while (!self->singly && last < self->size && s_is_left (self->commands[last]) &&
           self->commands[last]->action == COMMAND_ADD &&
           s_is_new (self->commands[last]) == s_is_new (command))
        last++;
    return last - first;
}

static void
s_send_add (postgres_t *postgres, const command_t *command)
{
    postgres_query (postgres, s_is_new (command) ? "add" : "add once", 3,
                    (const char *const[]){command->author, command->text, command->key});
}

static void
s_send_adds (const batch_t *self, postgres_t *postgres, size_t first, size_t count)
{
    const char *authors[BATCH_SIZE];
    const char *texts[BATCH_SIZE];
    const char *keys[BATCH_SIZE];
    for (size_t index = 0; index < count; index++) {
        const command_t *command = self->commands[first + index];
        authors[index] = command->author;
        texts[index] = command->text;
        keys[index] = command->key;
    }
    char *arrays[] = {s_array (authors, count), s_array (texts, count), s_array (keys, count)};
    postgres_query (postgres, s_is_new (self->commands[first]) ? "add many" : "add many once", 3,
                    (const char *const *) arrays);
    for (size_t index = 0; index < 3; index++)
        zstr_free (&arrays[index]);
}

//  Counts the messages between the place where the page index begins, and the message.

static void
s_send_rank (postgres_t *postgres, const command_t *command)
{
    page_index_text_t key = page_index_print ((page_index_key_t){command->created_at, command->id});
    page_index_text_t start = page_index_print (command->start);
    postgres_query (postgres, "rank", 4,
                    (const char *const[]){key.created_at, key.id, start.created_at, start.id});
}

static void
s_send_by_id (postgres_t *postgres, const command_t *command)
{
    char id[24];
    char version[24];
    snprintf (id, sizeof (id), "%" PRId64, command->id);
    snprintf (version, sizeof (version), "%" PRId64, command->version);
    const char *const values[] = {id, command->author, command->text, version};
    const char *const keyed[] = {id, command->key};
    if (command->action == COMMAND_EDIT)
        postgres_query (postgres, "edit", 1, values);
    else if (command->action == COMMAND_FIND)
        postgres_query (postgres, "find", 1, values);
    else if (command->action == COMMAND_RANK)
        s_send_rank (postgres, command);
    else if (command->action == COMMAND_SWEEP)
        postgres_query (postgres, "sweep", 0, NULL);
    else if (command->action == COMMAND_RESTORE)
        postgres_query (postgres, "restore", 2, keyed);
    else if (command->action == COMMAND_DELETE)
        postgres_query (postgres, *command->key ? "delete once" : "delete", *command->key ? 2 : 1,
                        keyed);
    else if (command->version > 0)
        postgres_query (postgres, "update version", 4, values);
    else
        postgres_query (postgres, command->doubtful ? "compare" : "update", 3, values);
}

//  Sends the statement of a command, or of as many adds as can share one. Returns of how many.

static size_t
s_send_statement (batch_t *self, postgres_t *postgres, size_t first)
{
    const command_t *command = self->commands[first];
    size_t count = 1;
    if (command->action == COMMAND_ADD) {
        count = s_count_adds (self, first);
        if (count == 1)
            s_send_add (postgres, command);
        else
            s_send_adds (self, postgres, first, count);
    }
    else
        s_send_by_id (postgres, command);
    s_add_step (self, STATEMENT, first, count);
    return count;
}

static void
s_begin_transaction (batch_t *self)
{
    self->open = true;
    self->steps_sent = 0;
    self->steps_taken = 0;
    self->looked_at = 0;
    self->failed = false;
}

batch_state_t
batch_send (batch_t *self, postgres_t *postgres)
{
    if (!self->open)
        s_begin_transaction (self);
    while (self->looked_at < self->size) {
        bool now = s_is_left (self->commands[self->looked_at]) &&
                   (!self->singly || self->steps_sent == 0);
        self->looked_at += now ? s_send_statement (self, postgres, self->looked_at) : 1;
    }

    return self->steps_sent > 0 ? BATCH_UNDERWAY : BATCH_DONE;
}

void
batch_sync (batch_t *self, postgres_t *postgres, int reads, bool hurry)
{
    assert (self->open && reads <= READS_MAX);
    for (int read = 0; read < reads; read++)
        s_add_step (self, READ, 0, 0);
    if (hurry)
        postgres_hurry (postgres);
    postgres_sync (postgres);
    s_add_step (self, SYNC, 0, 0);
    self->open = false;
}

void
batch_void (batch_t *self, postgres_t *postgres)
{
    static const char *const reason[] = {"statements sent ahead are taken back, not in error"};
    postgres_query (postgres, "take back", 1, reason);
    postgres_sync (postgres);
    self->open = false;
}

bool
batch_expects_read (const batch_t *self)
{
    return self->steps_taken < self->steps_sent && self->steps[self->steps_taken].kind == READ;
}

bool
batch_sent_all (const batch_t *self)
{
    return !self->singly;
}

//  ------------------------------------------------------------------------
//  Taking results

static void
s_not_found (command_t *command)
{
    command_fail (command, COMMAND_NOT_FOUND,
                  "There is no such message; it may have been deleted.");
}

//  The message as it is stored, for a form; the third column is what the action wants beside it.

static void
s_take_message (command_t *command, const PGresult *result)
{
    if (PQntuples (result) == 0) {
        s_not_found (command);
        return;
    }
    zstr_free (&command->author);
    zstr_free (&command->text);
    command->author = strdup (PQgetvalue (result, 0, 0));
    command->text = strdup (PQgetvalue (result, 0, 1));
    if (command->action == COMMAND_EDIT)
        command->version = strtoll (PQgetvalue (result, 0, 2), NULL, 10);
    else
        command->created_at = timestamp_read (PQgetvalue (result, 0, 2));
    if (!command->author || !command->text)
        command_fail_memory (command);
}

//  Keeps what is stored, so that people can compare.

static void
s_take_conflict (command_t *command, const PGresult *result)
{
    command_fail (command, COMMAND_CONFLICT, "Somebody else has changed this message meanwhile.");
    zstr_free (&command->stored_author);
    zstr_free (&command->stored_text);
    command->stored_author = strdup (PQgetvalue (result, 0, 2));
    command->stored_text = strdup (PQgetvalue (result, 0, 3));
    command->version = strtoll (PQgetvalue (result, 0, 4), NULL, 10);
}

//  A row tells whether the message was changed now, and whether it is as this command makes it.

static void
s_take_update (command_t *command, const PGresult *result)
{
    bool changed = PQntuples (result) > 0 && *PQgetvalue (result, 0, 0) == 't';
    bool as_wanted = PQntuples (result) > 0 && *PQgetvalue (result, 0, 1) == 't';
    bool before = as_wanted && (command->doubtful || command->version > 0); //  It is a retry
    if (changed || before)
        return;
    if (command->doubtful)
        command->unsettled = true; //  It was not done, or somebody else came after it
    else if (PQntuples (result) == 0)
        s_not_found (command);
    else
        s_take_conflict (command, result);
}

//  A row for each; a key that comes twice has the same id twice.

static void
s_take_adds (command_t *const *commands, size_t count, const PGresult *result)
{
    int64_t last_id = 0;
    for (size_t index = 0; index < count; index++) {
        command_t *command = commands[index];
        int row = (int) index;
        if (row >= PQntuples (result) || PQgetisnull (result, row, PAGE_ID)) {
            //  Another server stored the same key at this very moment
            command_fail (command, COMMAND_BUSY, "The message is being stored; try again.");
            continue;
        }
        command->id = strtoll (PQgetvalue (result, row, PAGE_ID), NULL, 10);
        command->stored = page_row_number (result, row) == 1 && command->id > last_id;
        command->created_at = timestamp_read (PQgetvalue (result, row, PAGE_CREATED_AT));
        last_id = command->id > last_id ? command->id : last_id;
    }
}

//  A delete, or what undoes one: a row tells whether that was done now, or before. A delete without
//  a key that is in doubt and finds nothing has done its work.

static void
s_take_move (command_t *command, const PGresult *result)
{
    bool now = PQntuples (result) > 0 && *PQgetvalue (result, 0, 1) == 't';
    if (now)
        command->created_at = timestamp_read (PQgetvalue (result, 0, 2));
    if (PQntuples (result) == 0 && !*command->key && command->doubtful)
        return;
    if (PQntuples (result) == 0)
        s_not_found (command);
    else if (PQgetisnull (result, 0, 0)) //  Another server does it at this very moment
        command_fail (command, COMMAND_BUSY, "The message is being changed; try again.");
    else if (command->action == COMMAND_DELETE)
        command->deleted = now;
    else
        command->stored = now;
}

static void
s_take_rows (command_t *const *commands, size_t count, const PGresult *result)
{
    command_t *command = commands[0];
    if (command->action == COMMAND_ADD)
        s_take_adds (commands, count, result);
    else if (command->action == COMMAND_EDIT || command->action == COMMAND_FIND)
        s_take_message (command, result);
    else if (command->action == COMMAND_UPDATE)
        s_take_update (command, result);
    else if (command->action == COMMAND_RANK)
        command->newer += strtoll (PQgetvalue (result, 0, 0), NULL, 10);
    else
        s_take_move (command, result);
}

//  PostgreSQL's appendix A lists the states.

static bool
s_is_lock (const batch_t *self)
{
    return streq (self->sqlstate, "55P03") || streq (self->sqlstate, "40P01");
}

//  A new id that is taken already: the table's sequence is behind, as after a restore by hand. The
//  next number may be free.

static bool
s_is_id_taken (const batch_t *self)
{
    return streq (self->sqlstate, "23505");
}

//  Tells a command why its statement failed.

static void
s_fail_command (const batch_t *self, command_t *command)
{
    bool refused = strncmp (self->sqlstate, "22", 2) == 0 || strncmp (self->sqlstate, "23", 2) == 0;
    if (s_is_id_taken (self))
        command_fail (command, COMMAND_BUSY, "The message got no number; try again.");
    else if (refused)
        command_fail (command, COMMAND_INVALID, "The database does not take this text.");
    else if (s_is_lock (self))
        command_fail (command, COMMAND_BUSY, "Somebody else keeps this message locked; try again.");
    else
        command_fail (command, COMMAND_UNAVAILABLE, "Saving does not work at the moment.");
    if (!refused && !s_is_lock (self))
        log_warning ("database: a command failed with SQLSTATE %s", self->sqlstate);
    command->unsettled = command->doubtful && !refused;
    command->settled = true;
}

static void
s_forget_outcome (command_t *command)
{
    command->code = COMMAND_OK;
    command->unsettled = false;
    command->stored = false;
    command->deleted = false;
    if (command->action == COMMAND_ADD)
        command->id = 0;
}

static void
s_settle (command_t *command)
{
    command->settled = true;
}

static void
s_mark_doubtful (command_t *command)
{
    command->doubtful = true;
    command->stored = false;
    command->deleted = false;
}

//  Applies a change to each command that was sent and is not settled.

static void
s_apply (batch_t *self, void (*change) (command_t *command))
{
    for (size_t number = 0; number < self->steps_sent; number++) {
        const step_t *step = &self->steps[number];
        for (size_t index = step->first; index < step->first + step->count; index++)
            if (!self->commands[index]->settled)
                change (self->commands[index]);
    }
}

//  Fails those that would meet the same lock: all for the same message, and when there were too
//  many locks, whatever writes.

static void
s_fail_locked (batch_t *self, const command_t *culprit)
{
    for (size_t index = 0; index < self->size; index++) {
        command_t *command = self->commands[index];
        bool same = command->id == culprit->id && command->action != COMMAND_ADD;
        if (s_is_left (command) && command_writes (command) && (self->locks >= LOCKS_MAX || same))
            s_fail_command (self, command);
    }
}

static void
s_end_failed (batch_t *self)
{
    s_apply (self, s_forget_outcome); //  The transaction is void
    self->failures++;
    bool again = self->culprit && s_is_id_taken (self) && !self->singly;
    if (self->culprit && !again) {
        s_fail_command (self, self->culprit);
        if (s_is_lock (self)) {
            self->locks++;
            s_fail_locked (self, self->culprit);
        }
    }
    else if (self->singly) //  At commit
        s_fail_command (self, self->commands[self->steps[0].first]);
    self->singly = self->singly || again || !self->culprit || self->failures >= RETRIES_MAX;
}

//  The Sync's result has come.

static batch_state_t
s_end_transaction (batch_t *self)
{
    if (self->failed)
        s_end_failed (self);
    else
        s_apply (self, s_settle);
    for (size_t index = 0; index < self->size; index++)
        if (s_is_left (self->commands[index]))
            return BATCH_AGAIN;
    return BATCH_DONE;
}

//  A statement of several commands tells of none of them that it is to blame.

static void
s_take_error (batch_t *self, const PGresult *result, const step_t *step)
{
    const char *sqlstate = PQresultErrorField (result, PG_DIAG_SQLSTATE);
    if (!self->failed) {
        snprintf (self->sqlstate, sizeof (self->sqlstate), "%s", sqlstate ? sqlstate : "");
        self->culprit = step->count == 1 ? self->commands[step->first] : NULL;
    }
    self->failed = true;
}

batch_state_t
batch_take (batch_t *self, const PGresult *result)
{
    assert (self->steps_taken < self->steps_sent);
    const step_t *step = &self->steps[self->steps_taken];
    ExecStatusType status = PQresultStatus (result);
    if (status == PGRES_FATAL_ERROR)
        s_take_error (self, result, step);
    else if (status == PGRES_TUPLES_OK && step->kind == STATEMENT)
        s_take_rows (self->commands + step->first, step->count, result);
    if (step->kind == SYNC && status != PGRES_PIPELINE_SYNC)
        return BATCH_UNDERWAY; //  An error at commit, before the Sync's own result
    self->steps_taken++;
    return step->kind == SYNC ? s_end_transaction (self) : BATCH_UNDERWAY;
}

int64_t
batch_locked_id (const batch_t *self)
{
    return self->failed && self->culprit && s_is_lock (self) && self->culprit->action != COMMAND_ADD
               ? self->culprit->id
               : 0;
}

void
batch_doubt (batch_t *self)
{
    s_apply (self, s_mark_doubtful);
    s_apply (self, s_forget_outcome);
    self->singly = true;
    self->open = false;
}

//  ------------------------------------------------------------------------
//  Self test

//  Runs a batch on a connection, and ends the loop when it is done
typedef struct {
    zloop_t *loop;
    postgres_t *postgres;
    batch_t *batch;
    int sends; //  How often it was sent
} runner_t;

static void
s_runner_send (void *arg)
{
    runner_t *self = (runner_t *) arg;
    self->sends++;
    batch_state_t state = batch_send (self->batch, self->postgres);
    assert (state == BATCH_UNDERWAY && !batch_expects_read (self->batch));
    batch_sync (self->batch, self->postgres, 0, false);
    postgres_flush (self->postgres);
}

static void
s_runner_result (void *arg, PGresult *result)
{
    runner_t *self = (runner_t *) arg;
    batch_state_t state = batch_take (self->batch, result);
    PQclear (result);
    if (state == BATCH_AGAIN)
        s_runner_send (self);
    else if (state == BATCH_DONE)
        zloop_timer (self->loop, 0, 1, scratch_end_loop, NULL);
}

static void
s_runner_down (void *arg, const char *reason)
{
    (void) arg;
    printf ("%s\n", reason);
    assert (false);
}

static void
s_runner_notification (void *arg, const char *payload)
{
    (void) arg;
    (void) payload;
}

//  Hands the batch to a connection with this handler; returns how often it was sent.

static int
s_run_with (const scratch_t *scratch, batch_t *batch, const postgres_handler_t *handler)
{
    runner_t runner = {.loop = zloop_new (), .batch = batch};
    zloop_set_nonstop (runner.loop, true);
    runner.postgres = postgres_new (runner.loop, scratch_url (scratch), "us", batch_statements,
                                    scratch_limits, handler, &runner);
    zloop_start (runner.loop);
    postgres_destroy (&runner.postgres);
    zloop_destroy (&runner.loop);
    return runner.sends;
}

static int
s_run_batch (const scratch_t *scratch, batch_t *batch)
{
    static const postgres_handler_t handler = {s_runner_send, s_runner_down, s_runner_result,
                                               s_runner_notification};
    return s_run_with (scratch, batch, &handler);
}

static void
s_add_json (batch_t *batch, const char *json)
{
    static const settings_t limits = {.board_author_max = 200, .board_text_max = 200};
    command_t *command = command_new (json, strlen (json), &limits);
    batch_add (batch, &command);
}

static void
s_add_message (batch_t *batch, const char *text, const char *key)
{
    char json[200];
    snprintf (json, sizeof (json),
              "{\"action\":\"add message\",\"data\":{\"author\":\"Ann\",\"text\":\"%s\","
              "\"key\":\"%s\"}}",
              text, key);
    s_add_json (batch, json);
}

static void
s_add_change (batch_t *batch, const char *action, int64_t id, const char *more)
{
    char json[500];
    snprintf (json, sizeof (json), "{\"action\":\"%s\",\"data\":{\"id\":%" PRId64 "%s}}", action,
              id, more);
    s_add_json (batch, json);
}

#define KEY_1 "8f14e45f-ceea-467f-9e53-0a5d5b7c1c01"
#define KEY_2 "8f14e45f-ceea-467f-9e53-0a5d5b7c1c02"
#define KEY_3 "8f14e45f-ceea-467f-9e53-0a5d5b7c1c03"
#define KEY_4 "8f14e45f-ceea-467f-9e53-0a5d5b7c1c04"
#define KEY_5 "8f14e45f-ceea-467f-9e53-0a5d5b7c1c05"
#define KEY_6 "8f14e45f-ceea-467f-9e53-0a5d5b7c1c06"

//  A batch without a failure is one transaction; a key is stored once, inside of one too.

static int64_t
s_test_together (const scratch_t *scratch)
{
    batch_t *batch = batch_new ();
    s_add_message (batch, "one", KEY_1);
    s_add_message (batch, "two", KEY_2);
    s_add_message (batch, "one", KEY_1);
    s_add_json (batch, "{\"action\":\"list messages\",\"data\":{\"page\":1}}");
    s_add_json (batch, "no JSON");
    assert (batch_size (batch) == 5 && batch_writes (batch) && !batch_adds_one (batch));
    int sends = s_run_batch (scratch, batch);
    assert (sends == 1);
    int64_t id = batch_command (batch, 0)->id;
    assert (id > 0 && batch_command (batch, 2)->id == id);
    assert (batch_command (batch, 1)->id != id);
    assert (batch_command (batch, 4)->code == COMMAND_MALFORMED);
    batch_destroy (&batch);
    char *count = scratch_sql (scratch, "SELECT count(DISTINCT xmin::text) FROM messages");
    assert (streq (count, "1"));
    zstr_free (&count);
    return id;
}

//  One that fails (an author longer than the column) costs the others nothing.

static void
s_test_failure (const scratch_t *scratch, int64_t id)
{
    char author[160];
    snprintf (author, sizeof (author), ",\"author\":\"%0110d\",\"text\":\"t\"", 0);
    batch_t *batch = batch_new ();
    s_add_change (batch, "update message", id, ",\"author\":\"Bob\",\"text\":\"new\"");
    s_add_change (batch, "update message", id, author);
    s_add_change (batch, "delete message", 999999, "");
    s_add_change (batch, "open edit page", id, "");
    int sends = s_run_batch (scratch, batch);
    assert (sends == 2); //  The second time without the one that failed
    assert (batch_command (batch, 0)->code == COMMAND_OK);
    assert (batch_command (batch, 1)->code == COMMAND_INVALID);
    assert (batch_command (batch, 2)->code == COMMAND_NOT_FOUND);
    command_t *edit = batch_command (batch, 3);
    assert (streq (edit->author, "Bob") && streq (edit->text, "new") && edit->version == 2);
    batch_destroy (&batch);
}

//  Each command that fails has its own outcome, however many there are.

static void
s_test_many_failures (const scratch_t *scratch)
{
    char author[160];
    snprintf (author, sizeof (author), ",\"author\":\"%0110d\",\"text\":\"t\"", 0);
    batch_t *batch = batch_new ();
    for (int64_t id = 1; id <= 6; id++)
        s_add_change (batch, "update message", id, author);
    s_add_message (batch, "three", KEY_3);
    s_run_batch (scratch, batch);
    for (size_t index = 0; index < 2; index++) //  Those that exist
        assert (batch_command (batch, index)->code == COMMAND_INVALID);
    assert (batch_command (batch, 6)->code == COMMAND_OK && batch_command (batch, 6)->id > 0);
    batch_destroy (&batch);
}

//  Somebody else's lock costs one wait, whatever the number of commands for the row.

static void
s_test_lock (const scratch_t *scratch, int64_t id)
{
    PGconn *other = PQconnectdb (scratch_url (scratch));
    PQclear (PQexec (other, "BEGIN; SELECT * FROM messages FOR UPDATE"));
    batch_t *batch = batch_new ();
    for (int count = 0; count < 20; count++)
        s_add_change (batch, "update message", id, ",\"author\":\"Bob\",\"text\":\"new\"");
    s_add_message (batch, "four", KEY_4);
    int sends = s_run_batch (scratch, batch);
    assert (sends == 2 && batch_command (batch, 20)->code == COMMAND_OK);
    for (size_t index = 0; index < 20; index++)
        assert (batch_command (batch, index)->code == COMMAND_BUSY);
    batch_destroy (&batch);
    PQfinish (other);
}

//  What was committed by a connection that broke is found, not done twice.

static void
s_test_doubt (const scratch_t *scratch, int64_t id)
{
    batch_t *batch = batch_new ();
    s_add_message (batch, "one", KEY_1);
    s_add_change (batch, "update message", id,
                  ",\"author\":\"Bob\",\"text\":\"new\",\"version\":1");
    s_add_change (batch, "update message", id, ",\"author\":\"Bob\",\"text\":\"later\"");
    s_add_change (batch, "update message", id, ",\"author\":\"Bob\",\"text\":\"new\"");
    s_add_change (batch, "delete message", 999999, "");
    for (size_t index = 0; index < batch_size (batch); index++)
        batch_command (batch, index)->doubtful = true;
    s_run_batch (scratch, batch);
    assert (batch_command (batch, 0)->id == id);
    assert (!batch_command (batch, 1)->unsettled); //  The version that it makes is there
    assert (batch_command (batch, 2)->unsettled);  //  Nobody can tell, and nothing is overwritten
    assert (!batch_command (batch, 3)->unsettled);
    assert (!batch_command (batch, 4)->unsettled && batch_command (batch, 4)->code == COMMAND_OK);
    batch_destroy (&batch);
    batch_destroy (&batch);
}

//  A delete with a key can be undone with it, each of the two is done once, and a key of an add
//  that was deleted since is not stored again.

#define UNDO  ",\"key\":\"8f14e45f-ceea-467f-9e53-0a5d5b7c1d01\""
#define OTHER ",\"key\":\"8f14e45f-ceea-467f-9e53-0a5d5b7c1d02\""

static void
s_test_undo (const scratch_t *scratch, int64_t id)
{
    batch_t *batch = batch_new ();
    s_add_change (batch, "delete message", id, UNDO);
    s_add_change (batch, "delete message", id, UNDO);
    s_add_change (batch, "delete message", id, OTHER);
    s_add_message (batch, "one", KEY_1); //  Whose it was
    s_add_change (batch, "restore message", id, OTHER);
    s_add_change (batch, "restore message", id, UNDO);
    s_add_change (batch, "restore message", id, UNDO);
    s_add_change (batch, "delete message", id, UNDO); //  A late copy: it has been done
    s_run_batch (scratch, batch);
    assert (batch_command (batch, 0)->deleted && batch_command (batch, 0)->code == COMMAND_OK);
    assert (!batch_command (batch, 1)->deleted && batch_command (batch, 1)->code == COMMAND_OK);
    assert (batch_command (batch, 2)->code == COMMAND_NOT_FOUND);
    assert (batch_command (batch, 3)->id == id && !batch_command (batch, 3)->stored);
    assert (batch_command (batch, 4)->code == COMMAND_NOT_FOUND);
    assert (batch_command (batch, 5)->stored && batch_command (batch, 5)->code == COMMAND_OK);
    assert (!batch_command (batch, 6)->stored && batch_command (batch, 6)->code == COMMAND_OK);
    assert (!batch_command (batch, 7)->deleted && batch_command (batch, 7)->code == COMMAND_OK);
    batch_destroy (&batch);
    char *message = scratch_sql (scratch, "SELECT author || text || version FROM messages"
                                          " WHERE key = '" KEY_1 "'");
    assert (streq (message, "Bobnew2"));
    zstr_free (&message);
}

//  What was deleted long enough ago is forgotten: first its text, then that it ever was.

static void
s_test_sweep (const scratch_t *scratch, int64_t id)
{
    batch_t *batch = batch_new ();
    s_add_change (batch, "delete message", id, OTHER);
    s_run_batch (scratch, batch);
    batch_destroy (&batch);
    for (int times = 0; times < 2; times++) {
        char *left = scratch_sql (scratch, "SELECT count(text) || ' ' || count(*)"
                                           " FROM breadboard_deleted");
        assert (streq (left, times == 0 ? "1 1" : "0 1"));
        zstr_free (&left);
        scratch_run (scratch,
                     times == 0
                         ? "UPDATE breadboard_deleted SET deleted_at = now() - '20 s'::interval"
                         : "UPDATE breadboard_deleted SET deleted_at = now() - '25 h'::interval");
        batch = batch_new ();
        command_t *sweep = command_new_own (COMMAND_SWEEP, 0);
        batch_add (batch, &sweep);
        s_add_change (batch, "restore message", id, OTHER);
        s_run_batch (scratch, batch);
        assert (batch_command (batch, 0)->code == COMMAND_OK);
        assert (batch_command (batch, 1)->code == COMMAND_NOT_FOUND);
        batch_destroy (&batch);
    }
    char *left = scratch_sql (scratch, "SELECT count(*) FROM breadboard_deleted");
    assert (streq (left, "0"));
    zstr_free (&left);
}

//  What was sent and then voided has no effect, and its commands can be sent in another batch.

static void
s_runner_void (void *arg)
{
    runner_t *self = (runner_t *) arg;
    if (self->sends++ > 0)
        return;
    batch_send (self->batch, self->postgres);
    batch_void (self->batch, self->postgres);
    postgres_flush (self->postgres);
}

static void
s_runner_voided (void *arg, PGresult *result)
{
    runner_t *self = (runner_t *) arg;
    if (PQresultStatus (result) == PGRES_PIPELINE_SYNC)
        zloop_timer (self->loop, 0, 1, scratch_end_loop, NULL);
    PQclear (result);
}

static void
s_test_void (const scratch_t *scratch)
{
    static const postgres_handler_t handler = {s_runner_void, s_runner_down, s_runner_voided,
                                               s_runner_notification};
    batch_t *batch = batch_new ();
    s_add_message (batch, "void", KEY_5);
    assert (batch_adds_one (batch));
    s_add_message (batch, "void", KEY_6);
    s_run_with (scratch, batch, &handler);
    batch_t *again = batch_new ();
    command_t *command = batch_take_back (batch);
    assert (command && streq (command->key, KEY_6));
    batch_add (again, &command);
    assert (batch_size (batch) == 1);
    batch_destroy (&batch);
    s_run_batch (scratch, again);
    batch_destroy (&again);
    char *keys = scratch_sql (scratch, "SELECT string_agg(key::text, ' ') FROM messages"
                                       " WHERE text = 'void'");
    assert (streq (keys, KEY_6));
    zstr_free (&keys);
}

void
batch_test (bool verbose)
{
    printf (" * batch: ");
    if (verbose)
        printf ("\n");
    scratch_t *scratch = scratch_new_board ();
    int64_t id = s_test_together (scratch);
    s_test_failure (scratch, id);
    s_test_many_failures (scratch);
    s_test_lock (scratch, id);
    s_test_doubt (scratch, id);
    s_test_void (scratch);
    s_test_undo (scratch, id);
    s_test_sweep (scratch, id);
    scratch_destroy (&scratch);
    printf ("OK\n");
}
