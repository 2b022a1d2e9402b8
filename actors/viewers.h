//  viewers - which connection looks at which page
//
//  thread     the database actor's
//  page 1     needs no entry: whoever is not here looks at page 1

#ifndef VIEWERS_H_INCLUDED
#define VIEWERS_H_INCLUDED

#include <czmq.h>

typedef struct viewers viewers_t;

viewers_t *viewers_new (void);
void viewers_destroy (viewers_t **self_p);

//  The connection now looks at the page.
void viewers_move (viewers_t *self, uint64_t connection, int64_t page);

//  The connection is gone; one that is not known is none of our business.
void viewers_leave (viewers_t *self, uint64_t connection);

//  The page that the connection looks at.
int64_t viewers_page (viewers_t *self, uint64_t connection);

//  Whether anybody looks at the page; at page 1, somebody always may.
bool viewers_any (viewers_t *self, int64_t page);

//  The pages above 1 with at least one viewer, into an array of size; returns how many there are,
//  which may be more than size.
size_t viewers_pages (viewers_t *self, int64_t *pages, size_t size);

//  There are only so many pages: whoever looks past the last one looks at the last one now. Returns
//  whether anybody did.
bool viewers_clamp (viewers_t *self, int64_t pages);

void viewers_test (bool verbose);

#endif
