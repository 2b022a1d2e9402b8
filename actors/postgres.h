//  postgres - a connection to PostgreSQL that never blocks, and comes back by itself
//
//  names      but for one thing: libpq resolves a host name by getaddrinfo (3), which waits. Where
//             name service may be away, give an address as hostaddr in database.url
//  thread     the database actor's; works inside its zloop
//  set-up     each new connection first ends the backend of the one that broke, and waits until it
//             is gone, so that nothing in doubt can still be committed; then it prepares the
//             statements and listens to SCHEMA_CHANNEL
//  retry      after 100 ms, then doubled up to 0.8 s, each with jitter
//  silence    a connection that owes us a result and sends nothing for statement_ms and a second
//             more is ended: PostgreSQL stands still, or the network swallows everything

#ifndef POSTGRES_H_INCLUDED
#define POSTGRES_H_INCLUDED

#include <czmq.h>
#include <libpq-fe.h>

//  The oldest major release that will do: it brought pg_terminate_backend () with a timeout, by
//  which the set-up waits for the end of the connection before
#define POSTGRES_MAJOR_LEAST 14

typedef struct postgres postgres_t;

typedef struct {
    const char *name;
    const char *sql;
} postgres_statement_t;

//  What may take how long
typedef struct {
    int connect_ms;   //  A try to connect, set-up included
    int statement_ms; //  A statement
    int lock_ms;      //  Waiting for somebody else's lock
} postgres_limits_t;

//  What the connection tells its owner. A result is the owner's from then on; a payload is lent.
typedef struct {
    void (*up) (void *arg);                                //  Ready for statements
    void (*down) (void *arg, const char *reason);          //  It broke, or could not be made
    void (*result) (void *arg, PGresult *result);          //  Of what the owner has sent
    void (*notification) (void *arg, const char *payload); //  On SCHEMA_CHANNEL
} postgres_handler_t;

//  Starts to connect, inside the loop. url is a libpq connection string; origin names this server;
//  statements end with one whose name is NULL. url, origin and statements are borrowed for as long
//  as the object lives. Caller owns it.
postgres_t *postgres_new (zloop_t *loop, const char *url, const char *origin,
                          const postgres_statement_t *statements, postgres_limits_t limits,
                          const postgres_handler_t *handler, void *arg);

void postgres_destroy (postgres_t **self_p);

//  Whether statements can be sent.
bool postgres_is_up (const postgres_t *self);

//  Queues a prepared statement with text parameters.
void postgres_query (postgres_t *self, const char *name, int count, const char *const *values);

//  Asks for the results of what was queued so far as soon as they are there, ahead of the Sync.
void postgres_hurry (postgres_t *self);

//  Queues a Sync: what was queued since the last one is one transaction. Its result, of status
//  PGRES_PIPELINE_SYNC, comes after theirs.
void postgres_sync (postgres_t *self);

//  Ends the connection for a reason of the owner's, who hears of it by down () before this returns.
void postgres_break (postgres_t *self, const char *reason);

//  Sends what was queued, as far as PostgreSQL takes it now; the rest follows by itself.
void postgres_flush (postgres_t *self);

//  Opens a connection and waits for it, so many ms for each address (in whole seconds, and 2 at
//  least), for start-up alone. Returns NULL when that fails, and then *error_p is a sentence,
//  caller's to free. Caller ends it with PQfinish ().
PGconn *postgres_connect_blocking (const char *url, int timeout_ms, char **error_p);

void postgres_test (bool verbose);

#endif
