//  rate_limit - a token bucket: so many events a second, and a burst of them at once
//
//  thread     its owner's; a plain struct of 16 bytes to embed, nothing to free
//  clock      the caller's, in milliseconds (zclock_mono)

#ifndef RATE_LIMIT_H_INCLUDED
#define RATE_LIMIT_H_INCLUDED

#include <czmq.h>

typedef struct {
    int64_t level;     //  Tokens in the bucket, in thousandths
    int64_t filled_ms; //  When the level was last brought up to date
} rate_limit_t;

//  Starts with a full bucket. A burst below 1 counts as 1, here and below.
void rate_limit_init (rate_limit_t *self, int64_t burst, int64_t now_ms);

//  Takes a token; returns false when there is none. rate_per_second 0 means no limit. Rate and
//  burst may change from one call to the next.
bool rate_limit_take (rate_limit_t *self, int64_t rate_per_second, int64_t burst, int64_t now_ms);

//  Milliseconds until there is a token to take; 0 when there is one now. Changes nothing.
int64_t rate_limit_wait_ms (const rate_limit_t *self, int64_t rate_per_second, int64_t burst,
                            int64_t now_ms);

void rate_limit_test (bool verbose);

#endif
