//  programs - the programs of PostgreSQL's server: where they are, and how the board runs them
//
//  user       for root they run as user postgres, otherwise as whoever runs the board
//  children   have none of the board's signals, descriptors, terminal and working directory
//  process    new takes PG* out of the environment, which serves for libpq too, and sets LC_ALL=C
//  thread     main's alone, with SIGCHLD at its default

#ifndef PROGRAMS_H_INCLUDED
#define PROGRAMS_H_INCLUDED

#include <czmq.h>

typedef struct programs programs_t;

//  Returns NULL when there is nobody to run them as; *error_p then says what to do, caller's to
//  free.
programs_t *programs_new (char **error_p);
void programs_destroy (programs_t **self_p);

uid_t programs_user (const programs_t *self);

//  Looks for initdb and postgres of this major version (0: of any that will do, rather the newer).
//  Returns their version, or 0 when there are none.
int programs_find (programs_t *self, int wanted);

//  The path of one of them, once they were found; caller frees.
char *programs_path (const programs_t *self, const char *name);

//  Both run a command line with the rights of the programs' user; a name without a slash is looked
//  up in $PATH, so the system's tools can be run too. Its output goes to a descriptor, -1 for
//  nowhere, and there it is told when it could not be run.

//  Waits for its end, and takes it along when we die; returns whether it was a success.
bool programs_run (const programs_t *self, char *const argv[], int output);

//  Returns the pid of a child that outlives us, or -1 with errno.
pid_t programs_start (const programs_t *self, char *const argv[], int output);

void programs_test (bool verbose);

#endif
