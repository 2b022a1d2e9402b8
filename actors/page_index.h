//  page_index - which message a page begins with, and how many there are, without counting them
//
//  thread     the database actor's; asks PostgreSQL nothing, but tells what has to be asked
//  order      as pages show messages: created_at descending, then id descending. A rank counts from
//             the newest message on, which has 0
//  blocks     the order is cut into blocks of about block_size messages. Kept are each block's
//             upper end, a key that need not be a message's any more, and how many messages are in
//             it
//  doubt      a block whose count is not known is in doubt, as all is at first. What lies before
//             the first such block is exact, so page_index_find () is right at any time; what lies
//             behind takes a longer scan until walks have counted the block
//
//  How the counts stay right, though others write at the same time:
//
//  1. Own writes: add and remove, with the keys that their statements return, once the result of
//     their Sync has come without an error. What is not known (a commit in doubt, a connection that
//     broke and so has missed announcements) is page_index_doubt_all ().
//  2. Walks: a walk counts one range by one statement, which also tells its snapshot. It runs on
//     the connection that writes, in a transaction of its own, and results are taken in the order
//     of the statements: so a walk has seen the own writes reported before its result, and no
//     others.
//  3. Others' writes are announced after their commit, with their transaction's id and either keys
//     or the range of them. Announcements and results come in no order that could be relied upon: a
//     walk may have seen a write whose announcement comes later (it must not count twice), or not
//     have seen one whose announcement came before its result (it must not be lost). The snapshot
//     tells which. This holds if LISTEN was committed before the first walk was sent.
//  4. A snapshot is of use until everything that it could see has been announced. Announcements
//     come in the order of their commits, so one of our own, made after the walk, tells that: then
//     page_index_settle (). Without it the counts stay right, but blocks merge less.
//  5. A page whose scan saw a write before its announcement came may be off by so many messages.
//     The announcement makes all pages out of date, so it is read again with the right counts.
//  6. What nobody announces (triggers switched off, a table put in the place of another) cannot be
//     known. page_index_fits () compares each page that was read with the counts. If it does not
//     fit, and no announcement comes before one of our own does that was made after the read:
//     page_index_doubt_all ().

#ifndef PAGE_INDEX_H_INCLUDED
#define PAGE_INDEX_H_INCLUDED

#include <czmq.h>

#include "actors/timestamp.h"

#define PAGE_INDEX_BLOCK_SIZE 256

typedef struct page_index page_index_t;

//  A message's place in the order
typedef struct {
    int64_t
        created_at; //  Microseconds since 2000, UTC, as PostgreSQL keeps it; infinity is the most
    int64_t id;
} page_index_key_t;

//  No message comes before the first of these, or behind the second
#define PAGE_INDEX_NEWEST ((page_index_key_t){INT64_MAX, INT64_MAX})
#define PAGE_INDEX_OLDEST ((page_index_key_t){INT64_MIN, INT64_MIN})

//  A key as PostgreSQL reads it
typedef struct {
    char created_at[TIMESTAMP_SIZE];
    char id[24];
} page_index_text_t;

//  Where to begin a scan: with the first message whose key is start or below
typedef struct {
    page_index_key_t start;
    int64_t before; //  Messages before that one; exact
} page_index_place_t;

//  What a walk has to count: the messages from the key from on, to the last one above the key to
typedef struct {
    page_index_key_t from;
    page_index_key_t to;
    uint64_t number; //  Of the walk, from 1 on
} page_index_walk_t;

//  A message at which a block is to begin
typedef struct {
    int64_t place; //  In the walk; its first message has 0
    page_index_key_t key;
} page_index_mark_t;

//  What a walk found
typedef struct {
    uint64_t number;                //  Of the walk
    const char *snapshot;           //  pg_current_snapshot () of the statement: "xmin:xmax:xip,xip"
    const page_index_mark_t *marks; //  Ascending; the first one has place 0
    size_t size;                    //  Of marks; 0: the range is empty
    int64_t messages;               //  Seen
    bool complete; //  Up to the end of the range; if not, the last message seen is the last mark
} page_index_walked_t;

//  Reads a key: created_at as TIMESTAMP_EPOCH () gives it, and the id.
page_index_key_t page_index_read (const char *epoch, const char *id);

page_index_text_t page_index_print (page_index_key_t key);

//  Below 0: left is the older one; above 0: the newer one.
int page_index_compare (page_index_key_t left, page_index_key_t right);

//  Returns an index in which all is in doubt. Caller owns it.
page_index_t *page_index_new (uint32_t block_size);
void page_index_destroy (page_index_t **self_p);

//  Where to begin the scan for the message of a rank: skip rank - before messages from there. Past
//  the end, it is the last block, or the first one in doubt.
page_index_place_t page_index_find (const page_index_t *self, int64_t rank);

//  Where to begin counting for the rank of a key: before, and the messages from start on that are
//  above the key.
page_index_place_t page_index_find_key (const page_index_t *self, page_index_key_t key);

//  How many messages there are, or -1 while anything is in doubt.
int64_t page_index_messages (const page_index_t *self);

//  One of our own messages is committed, or gone.
void page_index_add (page_index_t *self, page_index_key_t key);
void page_index_remove (page_index_t *self, page_index_key_t key);

//  Somebody else's transaction has added a message (change is 1) or deleted it (-1). One that was
//  moved in the order has been deleted, and added elsewhere.
void page_index_announce (page_index_t *self, uint64_t xid, page_index_key_t key, int change);

//  Somebody else's transaction has changed any number of messages between two keys, both included.
void page_index_doubt (page_index_t *self, uint64_t xid, page_index_key_t newest,
                       page_index_key_t oldest);

//  Nothing is known any more. A walk that is under way is void.
void page_index_doubt_all (page_index_t *self);

//  Tells what is to be walked next: first what is in doubt, then blocks that have grown too large.
//  Returns false when there is nothing, or a walk is under way.
bool page_index_walk (page_index_t *self, page_index_walk_t *walk);

//  Whether page_index_walk () would tell of one.
bool page_index_wants_walk (const page_index_t *self);

//  Takes what the walk found; that of a void one is ignored. Returns -1, and the range is to be
//  walked again, when it makes no sense, such as keys out of order.
int page_index_walked (page_index_t *self, const page_index_walked_t *walked);

//  All that the walks up to this number could see has been announced.
void page_index_settle (page_index_t *self, uint64_t number);

//  Whether a page that was read, its first message having this rank, fits the counts, as far as
//  these are exact. last: no message comes behind it.
bool page_index_fits (const page_index_t *self, int64_t rank, const page_index_key_t *keys,
                      size_t size, bool last);

//  Memory taken, in bytes.
size_t page_index_memory (const page_index_t *self);

void page_index_test (bool verbose);

#endif
