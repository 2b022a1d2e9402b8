//  pages - the pages of the board in memory: which are wanted, read, up to date, changed
//
//  thread     the database actor's
//  order      which messages are on a page, and how many pages there are, the surveyor tells
//  reading    pages_want () some, pages_send (), pages_take () each result, pages_finish (). What
//             was read may show that others are needed (a page that vanished): then send again

#ifndef PAGES_H_INCLUDED
#define PAGES_H_INCLUDED

#include <czmq.h>

#include "actors/page.h"
#include "actors/postgres.h"
#include "actors/surveyor.h"
#include "actors/viewers.h"

typedef struct pages pages_t;

typedef enum {
    PAGES_DONE,  //  All that were wanted are in memory
    PAGES_AGAIN, //  Some have to be read yet: pages_send ()
    PAGES_FAILED //  PostgreSQL says no: pages_error ()
} pages_state_t;

//  The statements that pages use, for postgres_new ().
extern const postgres_statement_t pages_statements[];

//  The surveyor is borrowed, for as long as the object lives.
pages_t *pages_new (surveyor_t *surveyor);
void pages_destroy (pages_t **self_p);

//  How many pages the board has, as far as we know; 0: not counted yet.
int64_t pages_count (const pages_t *self);

//  Whether that is so for certain.
bool pages_are_counted (const pages_t *self);

//  The page, one past the end being the last; NULL when it is not in memory, or out of date.
page_t *pages_find (pages_t *self, int64_t number);

//  The same, even if it is out of date.
page_t *pages_last_known (pages_t *self, int64_t number);

//  The same as pages_find (), or what that was when pages_settle () was called last.
page_t *pages_find_settled (pages_t *self, int64_t number);

//  What is up to date is what the board shows, until this is called again.
void pages_settle (pages_t *self);

//  Nothing is, for all pages are to look different.
void pages_unsettle (pages_t *self);

//  Something is being written: all pages are out of date.
void pages_outdate (pages_t *self);

//  The transaction that is under way has made it so many messages more, or fewer, than the surveyor
//  knows yet. Once it does: 0.
void pages_expect (pages_t *self, int64_t messages);

//  The page is needed. Nothing happens when it is in memory and up to date.
void pages_want (pages_t *self, int64_t number);

//  Whether any is wanted.
bool pages_wanted (const pages_t *self);

//  Queues the read of what is wanted. after_writes: the transaction has written before, so that the
//  surveyor cannot know the order yet. Returns how many results will come, before the Sync's.
int pages_send (pages_t *self, postgres_t *postgres, int64_t page_size, bool after_writes);

//  In place of that, where only page 1 is wanted, and the transaction writes nothing but one add:
//  page 1 takes the add's row, and the rest of it from memory. Returns whether it will, because it
//  was up to date; then that row is what pages_take () takes.
bool pages_grow (pages_t *self, int64_t page_size);

//  Takes the next of these, and the result itself.
void pages_take (pages_t *self, const site_t *site, PGresult *result);

//  The Sync's result has come, without an error before it.
pages_state_t pages_finish (pages_t *self);

//  What was read is void, or will not come: nothing is wanted any more.
void pages_break (pages_t *self);

//  Whether everything wanted is near the newest message, so that reading it is cheap wherever the
//  scan begins.
bool pages_are_near (const pages_t *self, int64_t page_size);

//  Once all is done: the pages that differ from what they were, the last page first, one a call;
//  then NULL.
page_t *pages_next_changed (pages_t *self);

//  Somebody has come to the page who was not shown it: once read, it has changed, whatever it was.
void pages_show_anew (pages_t *self, int64_t number);

//  PostgreSQL's words when a read failed; borrowed.
const char *pages_error (const pages_t *self);

//  Forgets pages that nobody looks at, when there are many.
void pages_bound (pages_t *self, viewers_t *viewers);

void pages_test (bool verbose);

#endif
