//  schema - makes the board's table and trigger, and upgrades those of an earlier version
//
//  thread     the database actor's, before it serves; its calls block

#ifndef SCHEMA_H_INCLUDED
#define SCHEMA_H_INCLUDED

#include <czmq.h>
#include <libpq-fe.h>

//  The channel on which each transaction that changed messages is announced. The payload is
//  "ORIGIN XID OPERATION IDS": the server that wrote ("-": somebody else), its transaction,
//  INSERT, UPDATE, DELETE or TRUNCATE, and the ids, comma separated, or "many".
#define SCHEMA_CHANNEL "breadboard"

//  The setting of a session that names its origin; a session that has it announces by itself.
#define SCHEMA_ORIGIN "breadboard.origin"

//  Brings the database behind the connection to the schema that this program needs, in one
//  transaction, one server at a time. Returns 0, or -1 with nothing changed, and then *error_p is a
//  sentence, caller's to free.
int schema_upgrade (PGconn *connection, char **error_p);

void schema_test (bool verbose);

#endif
