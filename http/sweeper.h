//  sweeper - cuts off clients that hold civetweb's threads with half a request
//
//  table      what each of civetweb's threads is doing; each thread writes its own row, any thread
//             may read the counts (C11 atomics)
//  thread     one actor of its own, that looks at the table every SWEEPER_TICK_MS
//  cuts       while nearly all threads are taken: who waits for a thread and has not sent a whole
//             request, or has one and has not sent a whole header, or the next request of a kept
//             connection, within SWEEPER_HEADER_MS; and who has not sent a whole body within
//             SWEEPER_BODY_MS. At any time: who has not sent a whole body within
//             SWEEPER_BODY_MAX_MS
//  never cuts a request that we are answering

#ifndef SWEEPER_H_INCLUDED
#define SWEEPER_H_INCLUDED

#include <civetweb.h>
#include <czmq.h>

#define SWEEPER_TICK_MS     50
#define SWEEPER_HEADER_MS   100
#define SWEEPER_BODY_MS     500
#define SWEEPER_BODY_MAX_MS 10000

typedef enum { SWEEPER_IDLE, SWEEPER_HEADER, SWEEPER_BODY, SWEEPER_ANSWER } sweeper_state_t;

typedef struct sweeper sweeper_t;

//  Makes the table for so many threads. civetweb's descriptors lie below base.
sweeper_t *sweeper_new (int threads, int base);

//  Ends the actor. Takes NULL.
void sweeper_destroy (sweeper_t **self_p);

//  Starts the actor, for the clients of the port.
void sweeper_start (sweeper_t *self, int port);

//  Writes a thread's row: what it does from now on, and with whose request; NULL when there is
//  none, or none yet.
void sweeper_set (sweeper_t *self, int thread, sweeper_state_t state,
                  const struct mg_request_info *info);

//  How many threads have a connection, and how many of them have a request to answer.
int sweeper_busy (const sweeper_t *self);
int sweeper_answering (const sweeper_t *self);

//  Whether more than half of the threads have a connection: no time to keep idle ones.
bool sweeper_crowded (const sweeper_t *self);

void sweeper_test (bool verbose);

#endif
