//  timestamp - a moment as PostgreSQL keeps it: microseconds since 2000, UTC
//
//  thread     any
//  infinity   "infinity" is the largest number, "-infinity" the smallest

#ifndef TIMESTAMP_H_INCLUDED
#define TIMESTAMP_H_INCLUDED

#include <czmq.h>

#define TIMESTAMP_SIZE 96 //  Of its text, the final NUL included; more than there ever is

//  SQL for a timestamptz as timestamp_read () takes it: the cheapest that PostgreSQL has, and exact
//  but for the last 30 years of its calendar, after 294,246
#define TIMESTAMP_EPOCH(column) "extract(epoch FROM " column ")"

//  Reads seconds since 1970 with up to six decimals, or "Infinity", or "-Infinity".
int64_t timestamp_read (const char *epoch);

//  Writes it as PostgreSQL reads a timestamptz.
void timestamp_print (int64_t timestamp, char text[TIMESTAMP_SIZE]);

void timestamp_test (bool verbose);

#endif
