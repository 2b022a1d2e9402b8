//  failing - each allocation of libpq and strdup fails once, and the board answers all the same
//
//  usage      build/failing [--verbose]; prints "N passed, M failed" as selftest does
//  how        the functions of the C library that allocate are replaced by ours, which pass on to
//             them, but for the one call that is to fail. Whether a call counts is told by who
//             makes it: czmq and jansson abort when memory is out, and are let alone, as is the C
//             library itself
//  what       a database actor with a real PostgreSQL gets a command, and the n-th allocation
//             fails, for each n until there are no more: what was answered "ok" must be in the
//             table then, and nothing else

#include "actors/batch.h"
#include "actors/database.h"
#include "actors/schema.h"
#include "actors/scratch.h"
#include "config/log.h"

#include <dlfcn.h>
#include <link.h>
#include <stdatomic.h>

//  ------------------------------------------------------------------------
//  Allocations

typedef struct {
    uintptr_t from;
    uintptr_t to;
} range_t;

static range_t s_libpq;
static range_t s_ours;
static atomic_int s_left = 0; //  Allocations until one fails; 0: none does

static bool
s_is_in (const range_t *range, const void *caller)
{
    return (uintptr_t) caller >= range->from && (uintptr_t) caller < range->to;
}

//  Whether the allocation that the caller asks for is to fail.

static bool
s_fails (const void *caller, bool ours)
{
    bool counts = atomic_load (&s_left) > 0 &&
                  (s_is_in (&s_libpq, caller) || (ours && s_is_in (&s_ours, caller)));
    return counts && atomic_fetch_sub (&s_left, 1) == 1;
}

void *
malloc (size_t size)
{
    static void *(*next) (size_t);
    if (!next)
        *(void **) &next = dlsym (RTLD_NEXT, "malloc");
    return s_fails (__builtin_return_address (0), false) ? NULL : next (size);
}

void *
realloc (void *old, size_t size)
{
    static void *(*next) (void *, size_t);
    if (!next)
        *(void **) &next = dlsym (RTLD_NEXT, "realloc");
    return s_fails (__builtin_return_address (0), false) ? NULL : next (old, size);
}

char *
strdup (const char *text)
{
    static char *(*next) (const char *);
    if (!next)
        *(void **) &next = dlsym (RTLD_NEXT, "strdup");
    return s_fails (__builtin_return_address (0), true) ? NULL : next (text);
}

static int
s_find_range (struct dl_phdr_info *info, size_t size, void *arg)
{
    (void) size;
    (void) arg;
    range_t *range = strstr (info->dlpi_name, "libpq") ? &s_libpq
                     : !*info->dlpi_name               ? &s_ours
                                                       : NULL;
    for (int at = 0; range && at < info->dlpi_phnum; at++)
        if (info->dlpi_phdr[at].p_type == PT_LOAD && (info->dlpi_phdr[at].p_flags & PF_X)) {
            range->from = info->dlpi_addr + info->dlpi_phdr[at].p_vaddr;
            range->to = range->from + info->dlpi_phdr[at].p_memsz;
        }
    return 0;
}

//  ------------------------------------------------------------------------
//  A database actor that is asked things

typedef struct {
    scratch_t *scratch;
    zactor_t *database;
    zsock_t *commands;
    uint64_t sequence;
    char *id; //  Of a message that is there
} board_t;

//  Asks; returns the code of the answer, caller's to free.

static char *
s_ask (board_t *self, database_message_t kind, const char *json)
{
    zsock_send (self->commands, "18s", kind, ++self->sequence, json);
    uint64_t sequence = 0;
    char *code = NULL;
    do {
        zstr_free (&code);
        int rc = zsock_recv (self->commands, "8s", &sequence, &code);
        assert (rc == 0);
    } while (sequence != self->sequence);
    return code;
}

static void
s_wait_ready (board_t *self)
{
    char *code = s_ask (self, DATABASE_READY, "");
    while (!streq (code, "ok")) {
        zstr_free (&code);
        zclock_sleep (10);
        code = s_ask (self, DATABASE_READY, "");
    }
    zstr_free (&code);
}

static bool
s_is_stored (const board_t *self, const char *text)
{
    char *sql = zsys_sprintf ("SELECT count(*) FROM messages WHERE text = '%s'", text);
    char *count = scratch_sql (self->scratch, sql);
    bool stored = streq (count, "1");
    assert (stored || streq (count, "0"));
    zstr_free (&count);
    zstr_free (&sql);
    return stored;
}

//  A command whose n-th allocation fails; its text is unique. Returns whether one has failed.

static bool
s_fail_one (board_t *self, const char *action, int n, bool verbose)
{
    char text[64];
    snprintf (text, sizeof (text), "%s %d", action, n);
    char *json = zsys_sprintf ("{\"action\":\"%s\",\"data\":{\"id\":\"%s\",\"page\":1,"
                               "\"author\":\"Ann\",\"text\":\"%s\"}}",
                               action, self->id, text);
    atomic_store (&s_left, n);
    char *code = s_ask (self, DATABASE_REQUEST, json);
    bool failed = atomic_exchange (&s_left, 0) == 0;
    if (verbose)
        printf (" * %s, allocation %d: %s\n", action, n, code);
    assert (failed || streq (code, "ok"));
    s_wait_ready (self);
    if (streq (action, "add message") || streq (action, "update message"))
        assert (s_is_stored (self, text) == streq (code, "ok"));
    zstr_free (&code);
    zstr_free (&json);
    return failed;
}

static void
s_fail_each (board_t *self, const char *action, bool verbose)
{
    int n = 1;
    while (s_fail_one (self, action, n, verbose))
        n++;
    printf (" * %s: %d allocations: OK\n", action, n - 1);
    assert (n > 5);
}

//  What libpq loses for lack of memory shows as silence, which must not take long here.

static site_t *
s_site (void)
{
    zlistx_t *overrides = zlistx_new ();
    zlistx_add_end (overrides, "database.statement_timeout_ms=500");
    char *error = NULL;
    settings_t *settings = settings_new (NULL, overrides, &error);
    zlistx_destroy (&overrides);
    site_t *site = site_new (&settings, &error);
    assert (site);
    return site;
}

int
main (int argc, char *argv[])
{
    zsys_init ();
    zsys_handler_set (NULL);
    log_setup (argc > 1 ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR, false);
    setvbuf (stdout, NULL, _IOLBF, 0);
    dl_iterate_phdr (s_find_range, NULL);
    assert (s_libpq.to && s_ours.to);
    board_t self = {.scratch = scratch_new (), .commands = zsock_new (ZMQ_DEALER)};
    char *error = NULL;
    self.database = database_new (s_site (), scratch_url (self.scratch), &error);
    assert (self.database);
    zsock_set_rcvtimeo (self.commands, 20000);
    zsock_connect (self.commands, "%s", DATABASE_COMMANDS);
    scratch_run (self.scratch, "INSERT INTO messages (author, text, created_at)"
                               " VALUES ('Ann', 'there', now())");
    self.id = scratch_sql (self.scratch, "SELECT max(id) FROM messages");
    static const char *const actions[] = {"add message", "update message", "open edit page"};
    for (size_t at = 0; at < sizeof (actions) / sizeof (actions[0]); at++)
        s_fail_each (&self, actions[at], argc > 1 && streq (argv[1], "--verbose"));
    zsock_destroy (&self.commands);
    zactor_destroy (&self.database);
    scratch_destroy (&self.scratch);
    zstr_free (&self.id);
    puts ("1 passed, 0 failed");
    return 0;
}
