//  scratch - a database for a class test: a private PostgreSQL in a folder that goes with it
//
//  thread     the test's; its calls block
//  failure    asserts: without a database there is nothing to test

#ifndef SCRATCH_H_INCLUDED
#define SCRATCH_H_INCLUDED

#include <czmq.h>
#include <libpq-fe.h>

#include "actors/postgres.h"
#include "config/site.h"

typedef struct scratch scratch_t;

scratch_t *scratch_new (void);
//  The same, with the board's tables in it.
scratch_t *scratch_new_board (void);

void scratch_destroy (scratch_t **self_p);

//  Limits that suit a test's connection.
extern const postgres_limits_t scratch_limits;

//  The database's libpq connection string; borrowed.
const char *scratch_url (const scratch_t *self);

//  Runs SQL on a connection of its own, as somebody else would; returns the first value, "" for
//  none or NULL. Caller frees.
char *scratch_sql (const scratch_t *self, const char *sql);

//  The same, for what gives no value worth looking at.
void scratch_run (const scratch_t *self, const char *sql);

//  A timer's handler that ends its loop.
int scratch_end_loop (zloop_t *loop, int timer, void *arg);

//  A site with the settings' defaults and the templates in the binary; caller owns it.
site_t *scratch_site (void);

#endif
