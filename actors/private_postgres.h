//  private_postgres - the board's own PostgreSQL, for those who name no database
//
//  place      a cluster under database.state_dir: UTF-8, checksums, UNIX socket only, folder 0700;
//             one board at a time holds it (a lock on a file in the folder)
//  user       for root the server runs as user postgres, otherwise as whoever runs the board
//  thread     main's alone; its calls block

#ifndef PRIVATE_POSTGRES_H_INCLUDED
#define PRIVATE_POSTGRES_H_INCLUDED

#include <czmq.h>

typedef struct private_postgres private_postgres_t;

//  Makes the cluster where there is none, starts its server, or finds the one that an earlier crash
//  of the board left running, and waits until it answers; logs what it does and what it waits for.
//  Returns NULL, with nothing left running that it started, when that cannot be done; then *error_p
//  is a sentence that says what to do, caller's to free.
private_postgres_t *private_postgres_new (const char *state_dir, char **error_p);

//  Stops the server: fast, and after 2 s immediate. Takes NULL.
void private_postgres_destroy (private_postgres_t **self_p);

//  The libpq connection string of the board's database; borrowed.
const char *private_postgres_url (const private_postgres_t *self);

//  Starts the server again when it has died. To be called every second or so; does not wait for it
//  to answer.
void private_postgres_revive (private_postgres_t *self);

void private_postgres_test (bool verbose);

#endif
