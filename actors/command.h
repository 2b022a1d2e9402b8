//  command - one request of a client, parsed and checked, and what became of it
//
//  thread     the database actor's, from parsing to answering
//  source     the JSON that a client sent: a WebSocket's message, or what a civetweb thread made of
//             a form. Both take the same way.

#ifndef COMMAND_H_INCLUDED
#define COMMAND_H_INCLUDED

#include <czmq.h>

#include "actors/page_index.h"
#include "actors/uuid.h"
#include "config/settings.h"

typedef enum {
    COMMAND_ADD,
    COMMAND_LIST,
    COMMAND_EDIT, //  Opens the edit form, changes nothing
    COMMAND_UPDATE,
    COMMAND_DELETE,
    COMMAND_RESTORE, //  Undoes a delete
    COMMAND_FIND,    //  Our own: what message is that, and which page is it on?
    COMMAND_RANK,    //  Our own, the second half of FIND: how many messages stand before it?
    COMMAND_SWEEP,   //  Our own: forgets what was deleted long enough ago
    COMMAND_NONE     //  Not one that we know
} command_action_t;

typedef enum {
    COMMAND_OK,
    COMMAND_MALFORMED,  //  Not JSON, or not a request
    COMMAND_INVALID,    //  A field is missing, empty, too long, ...
    COMMAND_NOT_FOUND,  //  No such message
    COMMAND_CONFLICT,   //  The message is not in the version that the client saw
    COMMAND_BUSY,       //  A queue is full, or somebody else keeps the row locked
    COMMAND_UNAVAILABLE //  The database is away; nothing was written, for certain
} command_code_t;

typedef struct {
    command_action_t action;
    int64_t id;             //  The message; ADD: the new one, once stored
    int64_t page;           //  LIST; never below 1
    int64_t newer;          //  RANK: how many messages stand before it, as far as counted
    int64_t created_at;     //  Of the message, once known: FIND, and what was stored or deleted
    page_index_key_t start; //  RANK: messages from here on are not counted yet
    int64_t version; //  UPDATE: that the client saw, 0: it did not say, after a conflict the stored
                     //  one; EDIT: the stored one
    char *author;    //  Owned; trimmed; NULL where the action has none
    char *text;      //  Owned; trimmed
    char *stored_author;      //  UPDATE that met a conflict: what is stored; owned
    char *stored_text;        //  The same
    char key[UUID_SIZE];      //  ADD: the client's or made here; DELETE: its own, ""; RESTORE: that
    bool own_key;             //  It was made here, so nobody has stored it yet
    bool stored;              //  ADD, RESTORE: it was not there before
    bool deleted;             //  DELETE: it was there before
    char *ref;                //  The client's name for this request; owned; NULL: none
    bool speaks_breadboard_1; //  The client, and so it gets replies
    bool opens;               //  LIST: its connection has just opened, on this page
    uint64_t etag;            //  LIST: what the client has of the page already; 0: nothing

    uint64_t connection; //  Who asked: a WebSocket, or 0
    bool left;           //  That connection is gone: nobody wants the answer
    zframe_t *requester; //  Who asked: a civetweb thread's routing id; owned; NULL for a WebSocket
    uint64_t sequence;   //  The civetweb thread's number for it

    command_code_t code;
    char reason[160]; //  For people, when the code is not COMMAND_OK
    const char
        *field;     //  The member of data that is wrong; static; NULL: none, or none in particular
    bool settled;   //  The outcome is certain, whatever becomes of the connection now
    bool doubtful;  //  May have been committed by a connection that broke; is run again
    bool unsettled; //  And that has not told: whoever asked must look for himself
} command_t;

//  Parses and checks size bytes of JSON, valid UTF-8, against the limits in settings. Always
//  returns a command; one that cannot be run has a code that is not COMMAND_OK. Caller owns it.
command_t *command_new (const char *json, size_t size, const settings_t *settings);

//  One that no client can ask for: FIND, RANK or SWEEP.
command_t *command_new_own (command_action_t action, int64_t id);

void command_destroy (command_t **self_p);

//  Whether it changes the board.
bool command_writes (const command_t *self);

//  Memory is out: nothing of the command was done, or will be.
void command_fail_memory (command_t *self);

//  Sets code and reason (a printf format); no field is to blame.
void command_fail (command_t *self, command_code_t code, const char *format, ...) CHECK_PRINTF (3);

//  "ok", "malformed", ...: the code's name in the protocol.
const char *command_code_name (command_code_t code);

void command_test (bool verbose);

#endif
