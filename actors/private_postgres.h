//  private_postgres - the board's own PostgreSQL, for those who name no database
//
//  rests on   cluster (its folder) and programs (how its programs run)
//  reached    over a UNIX socket alone
//  thread     main's alone, with SIGCHLD at its default; new and destroy block, revive does not
//  libpq      the variables that it reads (PGHOST, PGSERVICE, ...) are gone from our environment
//             then

#ifndef PRIVATE_POSTGRES_H_INCLUDED
#define PRIVATE_POSTGRES_H_INCLUDED

#include <czmq.h>

typedef struct private_postgres private_postgres_t;

//  Makes the cluster where there is none, starts its server, or finds the one that an earlier crash
//  of the board left running, and waits until it answers; logs what it does and what it waits for.
//  A blocked SIGINT or SIGTERM that comes meanwhile ends the wait, and stays pending for main.
//  Returns NULL, with nothing left running that it started, when that cannot be done; then *error_p
//  is a sentence that says what to do, caller's to free.
private_postgres_t *private_postgres_new (const char *state_dir, char **error_p);

//  Stops the server: fast, and after 2 s immediate. Takes NULL.
void private_postgres_destroy (private_postgres_t **self_p);

//  Stops the server if it runs: with a checkpoint, or when that takes longer than patience_ms,
//  without one, in half a second more. Nothing is lost then, but the next start takes longer.
void private_postgres_stop (private_postgres_t *self, int64_t patience_ms);

//  The libpq connection string of the board's database; borrowed. Its role owns that database and
//  is no superuser; that is role postgres, over the same socket.
const char *private_postgres_url (const private_postgres_t *self);

//  Starts the server again when it has died. To be called every second or so; does not wait for it
//  to answer.
void private_postgres_revive (private_postgres_t *self);

void private_postgres_test (bool verbose);

#endif
