//  log - one line a time to stderr, as text or as JSON
//
//  thread     any; each line is one write (2), so lines never mix
//  privacy    ids and sizes, never what a client sent

#ifndef LOG_H_INCLUDED
#define LOG_H_INCLUDED

#include <czmq.h>

typedef enum { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARNING, LOG_LEVEL_ERROR } log_level_t;

//  Which lines are written, and whether each is a JSON object. Takes effect at once, for every
//  thread.
void log_setup (log_level_t least, bool json);

//  Writes a line; style: "database: could not connect: REASON".
void log_write (log_level_t level, const char *format, ...) CHECK_PRINTF (2);

#define log_debug(...)   log_write (LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_info(...)    log_write (LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warning(...) log_write (LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_error(...)   log_write (LOG_LEVEL_ERROR, __VA_ARGS__)

void log_test (bool verbose);

#endif
