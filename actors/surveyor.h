//  surveyor - keeps the page index true: walks the table, and hears what others have changed
//
//  thread     the database actor's
//  work       a walk, or a word to ourselves, each a transaction of its own: surveyor_send () when
//             nothing else is under way, then surveyor_take () each result, up to the Sync's
//  count      of messages: sure once all is walked. Until then it is PostgreSQL's estimate, or what
//             it was before, with what has changed since

#ifndef SURVEYOR_H_INCLUDED
#define SURVEYOR_H_INCLUDED

#include <czmq.h>

#include "actors/page_index.h"
#include "actors/postgres.h"

typedef struct surveyor surveyor_t;

//  The statements that it uses, for postgres_new ().
extern const postgres_statement_t surveyor_statements[];

surveyor_t *surveyor_new (void);
void surveyor_destroy (surveyor_t **self_p);

//  Where to begin the scan for the message of a rank, or for the rank of a key: see page_index.
page_index_place_t surveyor_find (const surveyor_t *self, int64_t rank);
page_index_place_t surveyor_find_key (const surveyor_t *self, page_index_key_t key);

//  How many messages there are, as far as we know; -1: not at all.
int64_t surveyor_messages (const surveyor_t *self);

//  Whether that is so for certain.
bool surveyor_is_sure (const surveyor_t *self);

//  PostgreSQL has counted all messages, for somebody who could not wait.
void surveyor_counted (surveyor_t *self, int64_t messages);

//  One of our own messages is committed, or gone.
void surveyor_add (surveyor_t *self, page_index_key_t key);
void surveyor_remove (surveyor_t *self, page_index_key_t key);

//  Brings the metrics up to date, after some of these.
void surveyor_report (const surveyor_t *self);

//  What was announced, by us too. Returns whether pages may show something else now.
bool surveyor_hear (surveyor_t *self, const char *origin, const char *payload);

//  How many announcements of others were heard.
uint64_t surveyor_heard (const surveyor_t *self);

//  A page was read whose first message has this rank. When it does not fit the index, and no
//  announcement that is on its way explains that, somebody writes without a word: see
//  page_index_fits ().
void surveyor_check (surveyor_t *self, int64_t rank, const page_index_key_t *keys, size_t size,
                     bool last);

//  The connection is a new one, or so may be the whole table: announcements may have been missed.
void surveyor_lose (surveyor_t *self);

//  Whether there is something to do.
bool surveyor_is_due (const surveyor_t *self);

//  Queues it, with its Sync.
void surveyor_send (surveyor_t *self, postgres_t *postgres);

//  Takes the next result of that. Returns -1 when PostgreSQL said no: it is to be tried again
//  later.
int surveyor_take (surveyor_t *self, const PGresult *result);

void surveyor_test (bool verbose);

#endif
