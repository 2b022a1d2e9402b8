//  cluster - the folder of the board's own PostgreSQL, and what lies in it
//
//  place      database.state_dir: cluster/ (data), socket/, postgres.log (the server's), lock
//  data       UTF-8, checksums; whole, or not there
//  folders    0700 and the server's user's; for root state_dir itself is root's, 0711
//  thread     main's alone; new blocks

#ifndef CLUSTER_H_INCLUDED
#define CLUSTER_H_INCLUDED

#include "actors/programs.h"

#define CLUSTER_PORT "5432" //  Part of the socket's name, nothing more

typedef struct cluster cluster_t;

//  Opens the folder and holds it, so that no other board can; finds the programs that fit its data,
//  and makes data where there is none. Borrows programs. Returns NULL when that cannot be done;
//  then *error_p is a sentence that says what to do, caller's to free.
cluster_t *cluster_new (const char *state_dir, programs_t *programs, char **error_p);
void cluster_destroy (cluster_t **self_p);

//  Paths, absolute; borrowed.
const char *cluster_data (const cluster_t *self);
const char *cluster_socket (const cluster_t *self);

//  Opens the log to be appended to, for a program's output. Returns a descriptor, caller's to
//  close, or -1 and a sentence.
int cluster_open_log (cluster_t *self, char **error_p);

//  The line that tells why a program ended, as far as the log knows it since it was opened last,
//  and where the log is; caller frees.
char *cluster_last_words (const cluster_t *self);

void cluster_test (bool verbose);

#endif
