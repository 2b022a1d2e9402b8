//  An account that owes nothing and has nothing open says nothing, so it may go at any time. All
//  are looked at when the table has doubled since that was done last: a bounded part of the work of
//  those who made it grow, and the table is never more than twice what it must hold.
//
//  Invariant, under the lock: an account is in the table while its address has a WebSocket open, so
//  who holds a visitor may count on it without the lock.

#include "http/doorman.h"

#include "actors/metrics.h"
#include "actors/table.h"
#include "config/log.h"
#include "http/meter.h"

#include <pthread.h>

//  Fewer accounts than this are not worth looking at
#define ACCOUNTS_LEAST 1024
//  When who has too much open may ask again
#define FULL_RETRY_S 5
#define LOG_EVERY_MS 60000

struct doorman {
    pthread_mutex_t lock;
    zhashx_t *visitors; //  By key; owned, lock: lock
    size_t look_at;     //  Accounts at which to look for idle ones; lock: lock
    int64_t log_ms;     //  When a refusal may be logged again; lock: lock
};

struct visitor {
    uint64_t key;        //  Of its address
    doorman_t *doorman;  //  Borrowed
    int64_t connections; //  WebSockets open; lock: the doorman's
    meter_t handshakes;
    meter_t messages;
    meter_t bytes;
};

static void
s_free_visitor (void **visitor_p)
{
    freen (*visitor_p);
}

doorman_t *
doorman_new (void)
{
    doorman_t *self = (doorman_t *) zmalloc (sizeof (doorman_t));
    pthread_mutex_init (&self->lock, NULL);
    self->visitors = table_new (s_free_visitor);
    self->look_at = ACCOUNTS_LEAST;
    return self;
}

void
doorman_destroy (doorman_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        doorman_t *self = *self_p;
        zhashx_destroy (&self->visitors);
        pthread_mutex_destroy (&self->lock);
        freen (*self_p);
    }
}

//  ------------------------------------------------------------------------
//  Accounts; the caller has the lock

static bool
s_is_idle (const visitor_t *visitor, int64_t now_ms)
{
    return visitor->connections == 0 && meter_idle (&visitor->handshakes, now_ms) &&
           meter_idle (&visitor->messages, now_ms) && meter_idle (&visitor->bytes, now_ms);
}

static void
s_drop_idle (doorman_t *self, int64_t now_ms)
{
    if (zhashx_size (self->visitors) < self->look_at)
        return;
    zlistx_t *idle = zlistx_new ();
    for (visitor_t *visitor = (visitor_t *) zhashx_first (self->visitors); visitor;
         visitor = (visitor_t *) zhashx_next (self->visitors))
        if (s_is_idle (visitor, now_ms))
            zlistx_add_end (idle, visitor);
    visitor_t *visitor;
    while ((visitor = (visitor_t *) zlistx_detach (idle, NULL)))
        zhashx_delete (self->visitors, &visitor->key);
    zlistx_destroy (&idle);
    size_t left = zhashx_size (self->visitors);
    self->look_at = 2 * left > ACCOUNTS_LEAST ? 2 * left : ACCOUNTS_LEAST;
}

static visitor_t *
s_account (doorman_t *self, uint64_t key, int64_t now_ms)
{
    visitor_t *visitor = (visitor_t *) zhashx_lookup (self->visitors, &key);
    if (!visitor) {
        s_drop_idle (self, now_ms);
        visitor = (visitor_t *) zmalloc (sizeof (visitor_t));
        visitor->key = key;
        visitor->doorman = self;
        zhashx_insert (self->visitors, &visitor->key, visitor);
    }
    return visitor;
}

//  Refuses, and says so now and then. Returns the seconds after which to ask again.

static int
s_refuse (doorman_t *self, const address_t *address, const char *key, int64_t wait_ms,
          int64_t now_ms)
{
    metrics_add (METRICS_ADDRESS_REFUSED, 1);
    if (now_ms >= self->log_ms) {
        char text[ADDRESS_TEXT_BYTES];
        log_warning ("doorman: %s is over limits.%s; if that is a proxy, see http.trust_proxy",
                     address_text (address, text), key);
        self->log_ms = now_ms + LOG_EVERY_MS;
    }
    return (int) ((wait_ms + 999) / 1000);
}

static int
s_admit (doorman_t *self, const address_t *address, const settings_t *settings, int64_t now_ms,
         visitor_t **visitor_p)
{
    visitor_t *visitor = s_account (self, address_key (address), now_ms);
    int64_t rate = settings->limits_handshakes_per_address;
    int64_t wait_ms = meter_wait_ms (&visitor->handshakes, rate, now_ms);
    if (wait_ms > 0)
        return s_refuse (self, address, "handshakes_per_address", wait_ms, now_ms);
    meter_count (&visitor->handshakes, 1, rate, now_ms);
    int64_t most = settings->limits_connections_per_address;
    if (most > 0 && visitor->connections >= most)
        return s_refuse (self, address, "connections_per_address", FULL_RETRY_S * 1000, now_ms);
    visitor->connections++;
    *visitor_p = visitor;
    return 0;
}

static int
s_admit_form (doorman_t *self, const address_t *address, const settings_t *settings, int64_t bytes,
              int64_t now_ms)
{
    visitor_t *visitor = s_account (self, address_key (address), now_ms);
    int64_t wait_ms = visitor_wait_ms (visitor, settings, now_ms);
    if (wait_ms > 0)
        return s_refuse (self, address, "messages_per_address or bytes_per_address", wait_ms,
                         now_ms);
    visitor_count (visitor, settings, 1, bytes, now_ms);
    return 0;
}

//  ------------------------------------------------------------------------
//  Coming and going

int
doorman_enter (doorman_t *self, const address_t *address, const settings_t *settings,
               visitor_t **visitor_p)
{
    *visitor_p = NULL;
    if (address_is_in (address, settings->limits_exempt_addresses))
        return 0;
    pthread_mutex_lock (&self->lock);
    int seconds = s_admit (self, address, settings, zclock_mono (), visitor_p);
    pthread_mutex_unlock (&self->lock);
    return seconds;
}

int
doorman_take_form (doorman_t *self, const address_t *address, const settings_t *settings,
                   int64_t bytes)
{
    if (address_is_in (address, settings->limits_exempt_addresses))
        return 0;
    pthread_mutex_lock (&self->lock);
    int seconds = s_admit_form (self, address, settings, bytes, zclock_mono ());
    pthread_mutex_unlock (&self->lock);
    return seconds;
}

void
visitor_leave (visitor_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        doorman_t *doorman = (*self_p)->doorman;
        pthread_mutex_lock (&doorman->lock);
        assert ((*self_p)->connections > 0);
        (*self_p)->connections--;
        pthread_mutex_unlock (&doorman->lock);
        *self_p = NULL;
    }
}

void
visitor_count (visitor_t *self, const settings_t *settings, int64_t messages, int64_t bytes,
               int64_t now_ms)
{
    if (!self)
        return;
    meter_count (&self->messages, messages, settings->limits_messages_per_address, now_ms);
    meter_count (&self->bytes, bytes, settings->limits_bytes_per_address, now_ms);
}

int64_t
visitor_wait_ms (const visitor_t *self, const settings_t *settings, int64_t now_ms)
{
    if (!self)
        return 0;
    int64_t messages_ms = meter_wait_ms (&self->messages, settings->limits_messages_per_address,
                                         now_ms);
    int64_t bytes_ms = meter_wait_ms (&self->bytes, settings->limits_bytes_per_address, now_ms);
    return messages_ms > bytes_ms ? messages_ms : bytes_ms;
}

//  ------------------------------------------------------------------------
//  Self test

static int
s_test_enter (doorman_t *self, const char *text, const settings_t *settings, visitor_t **visitor_p)
{
    address_t address;
    bool parsed = address_parse (&address, text, strlen (text));
    assert (parsed);
    return doorman_enter (self, &address, settings, visitor_p);
}

static void
s_test_connections (doorman_t *self)
{
    settings_t settings = {.limits_exempt_addresses = "127.0.0.0/8",
                           .limits_connections_per_address = 2};
    visitor_t *first;
    visitor_t *second;
    visitor_t *other;
    assert (s_test_enter (self, "192.0.2.1", &settings, &first) == 0 && first);
    assert (s_test_enter (self, "192.0.2.1", &settings, &second) == 0 && second == first);
    int64_t refused = metrics_get (METRICS_ADDRESS_REFUSED);
    assert (s_test_enter (self, "192.0.2.1", &settings, &other) == FULL_RETRY_S && !other);
    assert (metrics_get (METRICS_ADDRESS_REFUSED) == refused + 1);
    assert (s_test_enter (self, "192.0.2.2", &settings, &other) == 0 && other != first);
    visitor_leave (&other);
    visitor_leave (&other); //  NULL by now
    visitor_leave (&second);
    assert (s_test_enter (self, "::ffff:192.0.2.1", &settings, &second) == 0 && second == first);
    visitor_leave (&second);
    visitor_leave (&first);
    for (int count = 0; count < 10; count++) //  Who is exempt has no account
        assert (s_test_enter (self, "127.0.0.1", &settings, &other) == 0 && !other);
}

static void
s_test_rates (doorman_t *self)
{
    settings_t settings = {.limits_exempt_addresses = "",
                           .limits_handshakes_per_address = 1,
                           .limits_messages_per_address = 10,
                           .limits_bytes_per_address = 1000};
    visitor_t *visitor;
    for (int count = 0; count < METER_BURST_S; count++) {
        int seconds = s_test_enter (self, "2001:db8::1", &settings, &visitor);
        assert (seconds == 0);
        visitor_leave (&visitor);
    }
    assert (s_test_enter (self, "2001:db8::2", &settings, &visitor) == 1); //  The same network

    visitor_count (NULL, &settings, 1000, 1000, 1);
    assert (visitor_wait_ms (NULL, &settings, 1) == 0);
    int seconds = s_test_enter (self, "192.0.2.3", &settings, &visitor);
    assert (seconds == 0);
    visitor_count (visitor, &settings, 21, 1, 1000);
    assert (visitor_wait_ms (visitor, &settings, 1000) == 200);
    visitor_count (visitor, &settings, 0, 3000, 1000);
    assert (visitor_wait_ms (visitor, &settings, 1000) == 1002);
    visitor_leave (&visitor);

    address_t address;
    address_parse (&address, "192.0.2.4", 9);
    assert (doorman_take_form (self, &address, &settings, 2500) == 0);
    assert (doorman_take_form (self, &address, &settings, 1) == 1);
}

//  What is idle does not stay for ever.

static void
s_test_table (void)
{
    doorman_t *self = doorman_new ();
    settings_t settings = {.limits_exempt_addresses = "", .limits_connections_per_address = 1};
    visitor_t *stays;
    int seconds = s_test_enter (self, "192.0.2.1", &settings, &stays);
    assert (seconds == 0);
    for (int count = 0; count < 10 * ACCOUNTS_LEAST; count++) {
        char text[ADDRESS_TEXT_BYTES];
        snprintf (text, sizeof (text), "10.0.%d.%d", count / 256, count % 256);
        visitor_t *visitor;
        seconds = s_test_enter (self, text, &settings, &visitor);
        assert (seconds == 0);
        visitor_leave (&visitor);
        assert (zhashx_size (self->visitors) <= ACCOUNTS_LEAST);
    }
    visitor_t *visitor;
    assert (s_test_enter (self, "192.0.2.1", &settings, &visitor) == FULL_RETRY_S);
    doorman_destroy (&self); //  And stays with it
    doorman_destroy (&self);
}

//  Comes and goes all the time; argument is the doorman.

static void *
s_test_thread (void *argument)
{
    settings_t settings = {.limits_exempt_addresses = "", .limits_connections_per_address = 3};
    for (int turn = 0; turn < 20000; turn++) {
        visitor_t *visitor;
        if (s_test_enter ((doorman_t *) argument, turn % 2 ? "192.0.2.1" : "192.0.2.2", &settings,
                          &visitor) == 0)
            visitor_count (visitor, &settings, 1, 100, 1);
        visitor_leave (&visitor);
    }
    return NULL;
}

//  Threads lose no place to each other.

static void
s_test_threads (doorman_t *self)
{
    pthread_t threads[4];
    for (int index = 0; index < 4; index++) {
        int rc = pthread_create (&threads[index], NULL, s_test_thread, self);
        assert (rc == 0);
    }
    for (int index = 0; index < 4; index++)
        pthread_join (threads[index], NULL);
    uint64_t key = 0xC0000201; //  192.0.2.1
    const visitor_t *visitor = (const visitor_t *) zhashx_lookup (self->visitors, &key);
    assert (visitor && visitor->connections == 0);
}

void
doorman_test (bool verbose)
{
    printf (" * doorman: ");
    log_setup (verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR, false);
    doorman_t *self = doorman_new ();
    s_test_connections (self);
    s_test_rates (self);
    s_test_threads (self);
    doorman_destroy (&self);
    s_test_table ();
    log_setup (LOG_LEVEL_INFO, false);
    printf ("OK\n");
}
