//  page - one page of the board, read from PostgreSQL and rendered
//
//  thread     the database actor's

#ifndef PAGE_H_INCLUDED
#define PAGE_H_INCLUDED

#include <czmq.h>
#include <libpq-fe.h>

#include "config/site.h"

typedef struct {
    int64_t number;  //  From 1 on
    int64_t pages;   //  How many there were when it was read, at least 1
    uint64_t etag;   //  A hash of the HTML: the same on each server that shows the same
    char *html;      //  Of the inside of #messages__list; owned
    zframe_t *frame; //  That swaps it in; owned
    uint64_t round;  //  Of the database actor, in which it was published; 0: never
} page_t;

//  The query for page_new (): $1 the pages wanted, a bigint array; $2 the messages on a page. Its
//  rows are the messages of each page wanted, the last page first; a page past the last one is the
//  last one, and a board without messages has one page with one row, whose message is null.
extern const char page_query[];

//  Makes the page that begins at row *row_p of the query's result, and moves *row_p behind it.
//  Returns NULL when memory is out; caller owns it.
page_t *page_new (const site_t *site, const PGresult *result, int *row_p);

void page_destroy (page_t **self_p);

void page_test (bool verbose);

#endif
