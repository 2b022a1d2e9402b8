//  selftest - runs the class tests, in czmq's manner
//
//  usage      breadboard_selftest [--verbose] [--list] [--test CLASS]
//  process    each test is a process of its own, so that one that fails costs no other its run
//  result     a line for each test, then "N passed, M failed"; exit status 1 when one failed

#include "actors/audience.h"
#include "actors/batch.h"
#include "actors/cluster.h"
#include "actors/command.h"
#include "actors/connection.h"
#include "actors/connections.h"
#include "actors/database.h"
#include "actors/metrics.h"
#include "actors/page.h"
#include "actors/page_index.h"
#include "actors/pages.h"
#include "actors/parcel.h"
#include "actors/postgres.h"
#include "actors/presence.h"
#include "actors/private_postgres.h"
#include "actors/programs.h"
#include "actors/schema.h"
#include "actors/surveyor.h"
#include "actors/swap.h"
#include "actors/table.h"
#include "actors/timestamp.h"
#include "actors/uuid.h"
#include "actors/viewers.h"
#include "config/folder.h"
#include "config/log.h"
#include "config/settings.h"
#include "config/signals.h"
#include "config/site.h"
#include "http/address.h"
#include "http/assets.h"
#include "http/doorman.h"
#include "http/form.h"
#include "http/frame.h"
#include "http/meter.h"
#include "http/rate_limit.h"
#include "http/reassembly.h"
#include "http/request.h"
#include "http/server.h"
#include "http/sweeper.h"
#include "http/takeover.h"
#include "http/utf8.h"
#include "http/websocket.h"
#include "templates/mustache.h"

#include <sys/wait.h>

typedef struct {
    const char *name;
    void (*test) (bool verbose);
} class_t;

//  In the order in which they rest on each other
static const class_t s_classes[] = {
    {"log", log_test},
    {"signals", signals_test},
    {"folder", folder_test},
    {"settings", settings_test},
    {"utf8", utf8_test},
    {"rate_limit", rate_limit_test},
    {"meter", meter_test},
    {"address", address_test},
    {"frame", frame_test},
    {"reassembly", reassembly_test},
    {"mustache", mustache_test},
    {"metrics", metrics_test},
    {"table", table_test},
    {"doorman", doorman_test},
    {"page_index", page_index_test},
    {"parcel", parcel_test},
    {"connection", connection_test},
    {"audience", audience_test},
    {"viewers", viewers_test},
    {"uuid", uuid_test},
    {"assets", assets_test},
    {"site", site_test},
    {"command", command_test},
    {"swap", swap_test},
    {"presence", presence_test},
    {"page", page_test},
    {"pages", pages_test},
    {"form", form_test},
    {"request", request_test},
    {"takeover", takeover_test},
    {"websocket", websocket_test},
    {"sweeper", sweeper_test},
    {"server", server_test},
    {"programs", programs_test},
    {"cluster", cluster_test},
    {"private_postgres", private_postgres_test},
    {"schema", schema_test},
    {"postgres", postgres_test},
    {"batch", batch_test},
    {"timestamp", timestamp_test},
    {"surveyor", surveyor_test},
    {"database", database_test},
    {"connections", connections_test},
    {NULL, NULL},
};

static bool
s_passes (const class_t *class, bool verbose)
{
    fflush (stdout);
    pid_t child = fork ();
    assert (child >= 0);
    if (child == 0) {
        zsys_init ();
        zsys_handler_set (NULL);
        log_setup (verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR, false);
        class->test (verbose);
        exit (0);
    }
    int status = 0;
    waitpid (child, &status, 0);
    bool passed = WIFEXITED (status) && WEXITSTATUS (status) == 0;
    if (!passed)
        printf ("\n * %s: FAILED (%s %d)\n", class->name,
                WIFSIGNALED (status) ? "signal" : "exit status",
                WIFSIGNALED (status) ? WTERMSIG (status) : WEXITSTATUS (status));
    return passed;
}

int
main (int argc, char *argv[])
{
    bool verbose = false;
    const char *only = NULL;
    for (int arg = 1; arg < argc; arg++) {
        if (streq (argv[arg], "--verbose") || streq (argv[arg], "-v"))
            verbose = true;
        else if (streq (argv[arg], "--list") || streq (argv[arg], "-l")) {
            for (const class_t *class = s_classes; class->name; class ++)
                puts (class->name);
            return 0;
        }
        else if ((streq (argv[arg], "--test") || streq (argv[arg], "-t")) && arg + 1 < argc)
            only = argv[++arg];
        else {
            fprintf (stderr, "usage: %s [--verbose] [--list] [--test CLASS]\n", argv[0]);
            return 2;
        }
    }
    int passed = 0;
    int failed = 0;
    for (const class_t *class = s_classes; class->name; class ++) {
        if (only && !streq (only, class->name))
            continue;
        if (s_passes (class, verbose))
            passed++;
        else
            failed++;
    }
    if (passed + failed == 0) {
        fprintf (stderr, "%s: no class %s; see --list\n", argv[0], only);
        return 2;
    }
    printf ("%d passed, %d failed\n", passed, failed);
    return failed ? 1 : 0;
}
