//  The generic cell rate algorithm (ITU-T I.371, A.1), with time as its only state: each unit takes
//  1 / rate seconds to pay off. One number is all that threads would have to agree on, so comparing
//  and swapping it suffices, and no thread ever waits.

#include "http/meter.h"

#define NS_IN_S  INT64_C (1000000000)
#define NS_IN_MS INT64_C (1000000)

#define AMOUNT_MAX (INT64_C (1) << 32) //  Of which the nanoseconds still have room

void
meter_count (meter_t *self, int64_t amount, int64_t rate, int64_t now_ms)
{
    if (rate <= 0)
        return;
    assert (amount >= 0);
    amount = amount < AMOUNT_MAX ? amount : AMOUNT_MAX;
    int64_t now_ns = now_ms * NS_IN_MS;
    int64_t cost_ns = amount * NS_IN_S / rate;
    int64_t paid_ns = atomic_load_explicit (&self->paid_ns, memory_order_relaxed);
    int64_t later_ns;
    do
        later_ns = (paid_ns > now_ns ? paid_ns : now_ns) + cost_ns;
    while (!atomic_compare_exchange_weak_explicit (&self->paid_ns, &paid_ns, later_ns,
                                                   memory_order_relaxed, memory_order_relaxed));
}

int64_t
meter_wait_ms (const meter_t *self, int64_t rate, int64_t now_ms)
{
    if (rate <= 0)
        return 0;
    int64_t paid_ns = atomic_load_explicit (&self->paid_ns, memory_order_relaxed);
    int64_t over_ns = paid_ns + NS_IN_S / rate - now_ms * NS_IN_MS - METER_BURST_S * NS_IN_S;
    return over_ns <= 0 ? 0 : (over_ns - 1) / NS_IN_MS + 1;
}

bool
meter_idle (const meter_t *self, int64_t now_ms)
{
    return atomic_load_explicit (&self->paid_ns, memory_order_relaxed) <= now_ms * NS_IN_MS;
}

//  ------------------------------------------------------------------------
//  Self test

//  Units that come out in 10 s when whoever may takes amount, and looks every step_ms.

static int64_t
s_taken_in_10_s (int64_t amount, int64_t rate, int64_t step_ms)
{
    meter_t meter = {0};
    int64_t taken = 0;
    for (int64_t now_ms = 7000; now_ms < 17000; now_ms += step_ms)
        while (meter_wait_ms (&meter, rate, now_ms) == 0) {
            meter_count (&meter, amount, rate, now_ms);
            taken += amount;
        }
    return taken;
}

static void *
s_test_thread (void *argument)
{
    for (int turn = 0; turn < 100000; turn++)
        meter_count ((meter_t *) argument, 1, 1000, 1);
    return NULL;
}

void
meter_test (bool verbose)
{
    printf (" * meter: ");
    if (verbose)
        printf ("\n");
    meter_t meter = {0};
    assert (meter_idle (&meter, 1) && meter_wait_ms (&meter, 1, 1) == 0);
    meter_count (&meter, 1000000, 0, 1); //  No limit: nothing is owed
    assert (meter_idle (&meter, 1));

    meter_count (&meter, 1, 1, 1000); //  One a second, two at once
    assert (meter_wait_ms (&meter, 1, 1000) == 0 && !meter_idle (&meter, 1000));
    meter_count (&meter, 1, 1, 1000);
    assert (meter_wait_ms (&meter, 1, 1000) == 1000); //  Two are owed, and one may be
    assert (meter_wait_ms (&meter, 1, 1999) == 1 && meter_wait_ms (&meter, 1, 2000) == 0);
    meter_count (&meter, 10, 1, 2000); //  What has come has come
    assert (meter_wait_ms (&meter, 1, 2000) == 10000);
    assert (meter_wait_ms (&meter, 1, 12000) == 0);
    assert (meter_wait_ms (&meter, 0, 2000) == 0);
    assert (!meter_idle (&meter, 12999) && meter_idle (&meter, 13000));

    for (int64_t rate = 1; rate <= 1000000;
         rate *= 10) { //  The burst and the rate, up to the last ms
        int64_t taken = s_taken_in_10_s (1, rate, 1);
        assert (taken >= (10 + METER_BURST_S) * rate - rate / 1000 - 1);
        assert (taken <= (10 + METER_BURST_S) * rate);
    }
    assert (s_taken_in_10_s (65536, 100000, 10) <= 12 * 100000 + 65536);

    meter_t much = {0};
    meter_count (&much, INT64_MAX, INT64_C (1) << 32, 1000); //  Counts as the most, one second
    assert (meter_idle (&much, 2000) && !meter_idle (&much, 1999));

    meter_t shared = {0}; //  Threads lose nothing to each other
    pthread_t threads[4];
    for (int index = 0; index < 4; index++) {
        int rc = pthread_create (&threads[index], NULL, s_test_thread, &shared);
        assert (rc == 0);
    }
    for (int index = 0; index < 4; index++)
        pthread_join (threads[index], NULL);
    assert (meter_idle (&shared, 400001) && !meter_idle (&shared, 400000));
    printf ("OK\n");
}
