//  The level is kept in thousandths of a token, so a rate in tokens a second is also the
//  thousandths that flow in each millisecond: integers, and nothing is ever rounded. 0 <= level <=
//  burst always. A clock that steps back adds nothing, takes nothing, and is believed from then on;
//  one that steps forward fills the bucket at most.

#include "http/rate_limit.h"

#define TOKEN 1000

_Static_assert(sizeof (rate_limit_t) == 16, "each connection embeds one");

static int64_t
s_capacity (int64_t burst)
{
    if (burst < 1)
        burst = 1;
    return burst > INT64_MAX / TOKEN ? INT64_MAX : burst * TOKEN;
}

//  Brings the level up to date. Whether the bucket is full is found by division, as the product
//  could overflow.

static void
s_fill (rate_limit_t *self, int64_t rate_per_second, int64_t burst, int64_t now_ms)
{
    int64_t capacity = s_capacity (burst);
    int64_t elapsed_ms = now_ms > self->filled_ms ? now_ms - self->filled_ms : 0;
    if (self->level >= capacity || elapsed_ms > (capacity - self->level) / rate_per_second)
        self->level = capacity;
    else
        self->level += elapsed_ms * rate_per_second;
    self->filled_ms = now_ms;
}

void
rate_limit_init (rate_limit_t *self, int64_t burst, int64_t now_ms)
{
    self->level = s_capacity (burst);
    self->filled_ms = now_ms;
}

bool
rate_limit_take (rate_limit_t *self, int64_t rate_per_second, int64_t burst, int64_t now_ms)
{
    if (rate_per_second <= 0)
        return true;
    s_fill (self, rate_per_second, burst, now_ms);
    if (self->level < TOKEN)
        return false;
    self->level -= TOKEN;
    return true;
}

int64_t
rate_limit_wait_ms (const rate_limit_t *self, int64_t rate_per_second, int64_t burst,
                    int64_t now_ms)
{
    if (rate_per_second <= 0)
        return 0;
    rate_limit_t filled = *self;
    s_fill (&filled, rate_per_second, burst, now_ms);
    int64_t missing = TOKEN - filled.level;
    return missing <= 0 ? 0 : (missing - 1) / rate_per_second + 1;
}

//  ------------------------------------------------------------------------
//  Self test

//  Tokens that come out when asked for every step_ms during 10 s at 20 a second, burst 40.

static int
s_taken_in_10_s (int64_t step_ms)
{
    rate_limit_t limit;
    rate_limit_init (&limit, 40, 5);
    int taken = 0;
    for (int64_t now_ms = 5; now_ms <= 10005; now_ms += step_ms)
        while (rate_limit_take (&limit, 20, 40, now_ms))
            taken++;
    return taken;
}

//  The wait is exact at any rate: a token is there when it is over, and not a millisecond before.

static void
s_test_wait (int64_t rate)
{
    rate_limit_t limit;
    rate_limit_init (&limit, 1, 0);
    int64_t now_ms = 0;
    for (int turn = 0; turn < 100; turn++) {
        assert (rate_limit_wait_ms (&limit, rate, 1, now_ms) == 0);
        bool taken = rate_limit_take (&limit, rate, 1, now_ms);
        assert (taken);
        int64_t wait_ms = rate_limit_wait_ms (&limit, rate, 1, now_ms);
        assert (wait_ms == (1000 + rate - 1) / rate);
        taken = rate_limit_take (&limit, rate, 1, now_ms + wait_ms - 1);
        assert (!taken);
        now_ms += wait_ms;
    }
}

static void
s_test_clock_steps (void)
{
    rate_limit_t limit;
    rate_limit_init (&limit, 2, 1000000);
    bool taken = rate_limit_take (&limit, 1, 2, 1000000);
    assert (taken);
    taken = rate_limit_take (&limit, 1, 2, 0); //  Back: nothing flows in or out
    assert (taken);
    taken = rate_limit_take (&limit, 1, 2, 0);
    assert (!taken);
    assert (rate_limit_wait_ms (&limit, 1, 2, 0) == 1000);
    assert (rate_limit_wait_ms (&limit, 1, 2, -5000) == 1000);
    taken = rate_limit_take (&limit, 1, 2, 1000); //  Time goes on from there
    assert (taken);
    for (int turn = 0; turn < 2; turn++) { //  Far forward: a full bucket, no more
        taken = rate_limit_take (&limit, 1, 2, INT64_MAX);
        assert (taken);
    }
    taken = rate_limit_take (&limit, 1, 2, INT64_MAX);
    assert (!taken);
}

static void
s_test_extremes (void)
{
    rate_limit_t limit;
    rate_limit_init (&limit, INT64_MAX, 0);
    bool taken = rate_limit_take (&limit, INT64_MAX, INT64_MAX, INT64_MAX);
    assert (taken);
    rate_limit_init (&limit, 0, 0); //  A burst of nothing would never let anyone in
    taken = rate_limit_take (&limit, 1, 0, 0);
    assert (taken);
    taken = rate_limit_take (&limit, 1, 0, 0);
    assert (!taken);
    assert (rate_limit_wait_ms (&limit, INT64_MAX, 1, 0) == 1);
}

void
rate_limit_test (bool verbose)
{
    printf (" * rate_limit: ");
    if (verbose)
        printf ("\n");
    rate_limit_t limit;
    rate_limit_init (&limit, 3, 0);
    for (int turn = 0; turn < 3; turn++) {
        bool taken = rate_limit_take (&limit, 10, 3, 0);
        assert (taken);
    }
    bool taken = rate_limit_take (&limit, 10, 3,
                                  99); //  The burst is gone, and a token takes 100 ms
    assert (!taken);
    assert (rate_limit_wait_ms (&limit, 10, 3, 99) == 1);
    taken = rate_limit_take (&limit, 10, 3, 100);
    assert (taken);

    taken = rate_limit_take (&limit, 0, 3, 100); //  No limit
    assert (taken);
    assert (rate_limit_wait_ms (&limit, 0, 3, 100) == 0);

    for (int64_t rate = 10; rate <= 1000000; rate *= 10) { //  A reload that lowers the burst
        rate_limit_init (&limit, 40, 0);
        taken = rate_limit_take (&limit, rate, 1, 0);
        assert (taken);
        taken = rate_limit_take (&limit, rate, 1, 0);
        assert (!taken);
    }

    //  However often one asks, it is the burst and the rate, exactly
    assert (s_taken_in_10_s (1) == 240);
    assert (s_taken_in_10_s (5) == 240);
    assert (s_taken_in_10_s (1000) == 240);
    for (int64_t rate = 1; rate <= 2000; rate++)
        s_test_wait (rate);
    s_test_clock_steps ();
    s_test_extremes ();
    printf ("OK\n");
}
