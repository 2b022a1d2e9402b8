//  page - one page of the board, read from PostgreSQL and rendered
//
//  thread     the database actor's

#ifndef PAGE_H_INCLUDED
#define PAGE_H_INCLUDED

#include <czmq.h>
#include <libpq-fe.h>

#include "actors/page_index.h"
#include "config/site.h"

typedef struct {
    int64_t number;         //  From 1 on
    int64_t pages;          //  How many there were when it was read, at least 1
    uint64_t etag;          //  A hash of the HTML: the same on each server that shows the same
    char *html;             //  Of the inside of #messages__list; owned
    zframe_t *frame;        //  That swaps it in; owned
    page_index_key_t *keys; //  Of its messages, and of the one behind them, in order; owned
    size_t size;            //  How many these are
    json_t *messages; //  Of page 1, as the template takes them; owned; NULL: of any other page

    uint64_t version;    //  Of the board that it shows (pages)
    uint64_t shown_etag; //  Of the state that viewers were shown last (pages); 0: none
    int64_t shown_pages; //  The same
    uint64_t round;      //  Of the database actor, in which it was published; 0: never
} page_t;

//  The columns of rows for page_new (); that of the time is SCHEMA_EPOCH
enum { PAGE_NUMBER, PAGE_ID, PAGE_AUTHOR, PAGE_TEXT, PAGE_CREATED_AT };

//  The query for page_new (): $1 the pages wanted, an array as the next three are; $2 and $3 the
//  created_at and id where the scan for each begins, $4 how many messages it skips from there; $5
//  how many messages it takes: one more than are on a page. Its rows are those of each page wanted,
//  the last page first; a page past the end has none.
extern const char page_query[];

//  The same for page 1 alone, by far the most frequent case: $1 how many messages it takes.
//  PostgreSQL needs 8 µs for it, and 15 µs for the general one.
extern const char page_first_query[];

//  The page that a row of the result belongs to.
int64_t page_row_number (const PGresult *result, int row);

//  Makes a page of size messages, one of so many pages, of the rows from *row_p on that belong to
//  it, perhaps none, and moves *row_p behind them. Returns NULL when memory is out; caller owns it.
page_t *page_new (const site_t *site, int64_t number, int64_t pages, int64_t size,
                  const PGresult *result, int *row_p);

//  The same for page 1, of an older state of it, of the same size, and of the first row, if that
//  belongs to page 1: what an add returns. The row goes where its key belongs.
page_t *page_new_grown (const site_t *site, const page_t *older, int64_t pages, int64_t size,
                        const PGresult *result);

void page_destroy (page_t **self_p);

void page_test (bool verbose);

#endif
