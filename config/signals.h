//  signals - SIGTERM, SIGINT and SIGHUP, which main () alone takes
//
//  thread     signals_block () is the first thing that main () does, so that every thread inherits
//             it. Nothing is interrupted then: signals wait until main () fetches them.

#ifndef SIGNALS_H_INCLUDED
#define SIGNALS_H_INCLUDED

#include <stdbool.h>

//  Blocks the three, and ignores SIGPIPE.
void signals_block (void);

//  Waits for one of them, a second at most; returns it, or 0.
int signals_wait (void);

//  Whether SIGTERM or SIGINT waits: for what takes long at the start, before main () fetches any.
bool signals_end_pending (void);

void signals_test (bool verbose);

#endif
