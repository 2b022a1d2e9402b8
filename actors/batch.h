//  batch - the commands that share one transaction, and how each of them ended
//
//  thread     the database actor's
//  together   all statements, then one Sync: one transaction, one flush to disk for all. A command
//             whose statement fails has its outcome, and the others run again without it
//  singly     when that has happened too often, or the commit failed: one command, one Sync, and
//             only then the next

#ifndef BATCH_H_INCLUDED
#define BATCH_H_INCLUDED

#include <czmq.h>

#include "actors/command.h"
#include "actors/postgres.h"

#define BATCH_SIZE 256

typedef struct batch batch_t;

typedef enum {
    BATCH_UNDERWAY, //  More results are to come
    BATCH_DONE,     //  Each command has its outcome
    BATCH_AGAIN     //  Commands are left that must be sent again
} batch_state_t;

//  The statements that batches use, for postgres_new ().
extern const postgres_statement_t batch_statements[];

batch_t *batch_new (void);
void batch_destroy (batch_t **self_p);

//  Adds a command, and takes it. At most BATCH_SIZE.
void batch_add (batch_t *self, command_t **command_p);

size_t batch_size (const batch_t *self);

//  Command number index, from 0 on, in order of arrival; borrowed.
command_t *batch_command (const batch_t *self, size_t index);

//  Whether any command changes a message, if all goes well.
bool batch_writes (const batch_t *self);

//  Whether the batch is one add and nothing else.
bool batch_adds_one (const batch_t *self);

//  Takes the last command back out of the batch; caller owns it. NULL: there is none.
command_t *batch_take_back (batch_t *self);

//  Queues the statements of the commands that need one and have none in this transaction yet: so it
//  may be called again after more were added. Returns BATCH_DONE when none ever did, else
//  BATCH_UNDERWAY: then batch_sync () must follow.
batch_state_t batch_send (batch_t *self, postgres_t *postgres);

//  Queues the end of the transaction. Before it the caller may have queued so many statements of
//  its own, which read: they see what the batch wrote, and save a round trip. Where it is in a
//  hurry all results come before the commit, and are true only with it.

void batch_sync (batch_t *self, postgres_t *postgres, int reads, bool hurry);

//  Queues an error, and a Sync in place of batch_sync (): nothing of what was sent takes effect,
//  and its results are of no use, up to the Sync's.
void batch_void (batch_t *self, postgres_t *postgres);

//  Whether the next result is one of those reads; batch_take () has to see it, too.
bool batch_expects_read (const batch_t *self);

//  Whether the transaction that is under way is the last one, if nothing fails.
bool batch_sent_all (const batch_t *self);

//  Takes the next result of what was sent.
batch_state_t batch_take (batch_t *self, const PGresult *result);

//  The message that somebody else keeps locked, as the last batch_take () found out; 0: none.
int64_t batch_locked_id (const batch_t *self);

//  The connection broke while results were to come: nobody knows what was committed. The commands
//  sent are marked as doubtful, and the batch can be sent again on the next connection.
void batch_doubt (batch_t *self);

void batch_test (bool verbose);

#endif
