//  schema - makes the board's table and trigger, and upgrades those of an earlier version
//
//  thread     the database actor's, before it serves; its calls block

#ifndef SCHEMA_H_INCLUDED
#define SCHEMA_H_INCLUDED

#include <czmq.h>
#include <libpq-fe.h>

#include "actors/timestamp.h"

//  The channel on which each statement that changed messages is announced, with its commit. The
//  payload is "ORIGIN XID CHANGES": the server that wrote ("-": somebody else), its transaction,
//  and what became of the order of messages. A KEY is "EPOCH/ID": created_at as extract (epoch FROM
//  ...) gives it, and the id. CHANGES are one of
//
//      =                           The order is what it was; authors or texts are not
//      +KEY -KEY +EPOCH/ID,ID ...  Messages that came or went; several may share their created_at
//      ~KEY KEY                    Many between these two, the newest one and the oldest
//      *                           Anything
//      @NUMBER                     Nothing: a server's word to itself, which it waits for
//
//  KEYs may have " #LSN" behind them, a place in the write-ahead log. It means nothing, but it is
//  another one each time: NOTIFY delivers one of the announcements of a transaction that are the
//  same, and a message can be deleted, restored and deleted again in one.
//
//  What a server does not understand it takes for "*".
#define SCHEMA_CHANNEL "breadboard"

//  The setting of a session that names its origin; a session that has it announces by itself.
#define SCHEMA_ORIGIN "breadboard.origin"

//  SQL for a message's created_at as timestamp_read () takes it, and for its KEY.
#define SCHEMA_EPOCH TIMESTAMP_EPOCH ("created_at")
#define SCHEMA_KEY   SCHEMA_EPOCH " || '/' || id"

//  SQL to append to CHANGES that may come twice in one transaction, and count each time.
#define SCHEMA_MARK " || ' #' || pg_current_wal_insert_lsn()"

//  SQL that announces CHANGES, an expression, in a session that has an origin.
#define SCHEMA_ANNOUNCE(changes)                                                  \
    "pg_notify('" SCHEMA_CHANNEL "', current_setting('" SCHEMA_ORIGIN "') || ' '" \
    " || pg_current_xact_id() || ' ' || " changes ")"

//  Brings the database behind the connection to the schema that this program needs, one server at a
//  time, and in one transaction; but where the table is big, its indexes are built before that,
//  while others write. url is for a second connection, which looks how far that has come. Returns
//  0, or -1 with nothing changed, and then *error_p is a sentence, caller's to free.
int schema_upgrade (PGconn *connection, const char *url, char **error_p);

void schema_test (bool verbose);

#endif
