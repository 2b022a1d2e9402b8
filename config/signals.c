#include "config/signals.h"

#include <czmq.h>
#include <signal.h>

static sigset_t
s_signals (void)
{
    sigset_t signals;
    sigemptyset (&signals);
    sigaddset (&signals, SIGTERM);
    sigaddset (&signals, SIGINT);
    sigaddset (&signals, SIGHUP);
    return signals;
}

void
signals_block (void)
{
    sigset_t signals = s_signals ();
    sigprocmask (SIG_BLOCK, &signals, NULL);
    signal (SIGPIPE, SIG_IGN);
}

int
signals_wait (void)
{
    sigset_t signals = s_signals ();
    const struct timespec second = {.tv_sec = 1};
    int received = sigtimedwait (&signals, NULL, &second);
    return received > 0 ? received : 0;
}

bool
signals_end_pending (void)
{
    sigset_t pending;
    sigemptyset (&pending);
    sigpending (&pending);
    return sigismember (&pending, SIGTERM) == 1 || sigismember (&pending, SIGINT) == 1;
}

//  ------------------------------------------------------------------------
//  Self test

void
signals_test (bool verbose)
{
    printf (" * signals: ");
    if (verbose)
        printf ("\n");
    signals_block ();
    assert (!signals_end_pending ());
    raise (SIGHUP);
    assert (!signals_end_pending ()); //  That one is no end
    assert (signals_wait () == SIGHUP);
    raise (SIGTERM);
    assert (signals_end_pending () && signals_wait () == SIGTERM);
    assert (!signals_end_pending ());
    printf ("OK\n");
}
