//  meter - a rate that several threads count on, in events or bytes: what was taken is paid off by
//  time
//
//  thread     any; one C11 atomic, so nobody waits for a lock
//  clock      the caller's, in milliseconds (zclock_mono)
//  rate       units a second; 0 means no limit. METER_BURST_S times as much may be taken at once
//
//  rate_limit's bucket says beforehand whether one more may be taken. Here amounts differ, and are
//  known only once they have come; so they are counted, and whoever is in debt waits.

#ifndef METER_H_INCLUDED
#define METER_H_INCLUDED

#include <czmq.h>
#include <stdatomic.h>

#define METER_BURST_S 2

//  All zeros: nothing is owed
typedef struct {
    _Atomic int64_t paid_ns; //  When all that was taken so far is paid off
} meter_t;

//  Counts what was taken; amount is at most 2^32.
void meter_count (meter_t *self, int64_t amount, int64_t rate, int64_t now_ms);

//  Milliseconds until more may be taken; 0: now. Changes nothing.
int64_t meter_wait_ms (const meter_t *self, int64_t rate, int64_t now_ms);

//  Whether nothing is owed at all.
bool meter_idle (const meter_t *self, int64_t now_ms);

void meter_test (bool verbose);

#endif
