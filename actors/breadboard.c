//  breadboard - main (): reads the settings, starts everything, heeds signals, ends everything
//
//  order      site, private PostgreSQL, database actor, connection threads, server; ended in
//             reverse
//  signals    are blocked in every thread and taken here alone: SIGTERM and SIGINT end the board in
//             order, SIGHUP reads settings, templates and assets anew
//  exit       0 after a signal; 2 for usage and configuration; 1 when something else is wrong

#include "actors/connections.h"
#include "actors/database.h"
#include "actors/private_postgres.h"
#include "config/log.h"
#include "config/signals.h"
#include "config/site.h"
#include "http/server.h"

#include <jansson.h>

#include <getopt.h>
#include <signal.h>
#include <sys/resource.h>

#define EXIT_USAGE 2

//  Descriptors that are neither a civetweb thread's nor an open WebSocket: standard streams,
//  epolls, ZeroMQ's own, PostgreSQL, connections that civetweb has accepted and not yet served
#define SPARE_DESCRIPTORS 512

//  ZeroMQ sockets, each with a descriptor, of a civetweb thread beside one for each connection
//  thread
#define WORKER_SOCKETS 4

//  The board ends within 5 s: requests get 1.5 s (server_drain), what is in doubt 1 s
//  (database_drain), clients that are told 1 s (connections_drain); what is left of 3.5 s, and
//  half a second more, is the private PostgreSQL's
#define ENDING_MS 3500

typedef struct {
    const char *file;    //  -c; borrowed from argv; NULL: none
    zlistx_t *overrides; //  -s, in order; borrowed from argv; owned list
    bool check;          //  --check-config
    bool print;          //  --print-config

    site_t *site;                 //  Our reference
    private_postgres_t *postgres; //  Owned; NULL when database.url is set
    zactor_t *database;           //  Owned
    zactor_t *connections[CONNECTIONS_THREADS_MAX];
    int threads;        //  How many of those there are
    doorman_t *doorman; //  Owned
    int64_t ending_ms;  //  When it was told to end; 0: it serves
    server_t *server;   //  Owned
    int takeover_base;  //  The first descriptor for open WebSockets
    int64_t max_connections;
} board_t;

//  ------------------------------------------------------------------------
//  Arguments

static void
s_print_help (void)
{
    puts ("breadboard - a live message board\n"
          "\n"
          "usage: breadboard [-c FILE] [-s SECTION.KEY=VALUE]... [--check-config]\n"
          "                  [--print-config] [--version] [--help]\n"
          "\n"
          "  -c, --config FILE            reads settings from an ini file\n"
          "  -s, --set SECTION.KEY=VALUE  overrides one setting; may stand many times\n"
          "      --check-config           checks the settings and templates, and ends\n"
          "      --print-config           prints all settings as an ini file, and ends\n"
          "      --version                prints the version, and ends\n"
          "      --help                   prints this, and ends\n"
          "\n"
          "Without options it serves http://127.0.0.1:8080/ on a PostgreSQL of its own.\n"
          "SIGTERM and SIGINT end it in order; SIGHUP reads settings, templates and assets anew.\n"
          "\n"
          "Settings:");
    settings_help (stdout);
}

//  Values of the options that have no letter
enum { CHECK = 1000, PRINT, VERSION, HELP };

//  Says which word getopt_long () does not understand: it has returned '?', or ':' for an option
//  that ends the line where its value should follow. It steps over a word only behind its last
//  letter.

static int
s_refuse_word (int returned, int argc, char *argv[])
{
    char letter[] = {'-', (char) optopt, 0};
    if (returned == ':')
        fprintf (stderr, "breadboard: %s needs a value behind it; see --help\n", argv[argc - 1]);
    else
        fprintf (stderr, "breadboard: %s is no option; see --help for those there are\n",
                 optopt > 0 && optopt < CHECK ? letter : argv[optind - 1]);
    return EXIT_USAGE;
}

//  Returns -1 to go on, or the exit status.

static int
s_read_arguments (board_t *self, int argc, char *argv[])
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"set", required_argument, NULL, 's'},
        {"check-config", no_argument, NULL, CHECK},
        {"print-config", no_argument, NULL, PRINT},
        {"version", no_argument, NULL, VERSION},
        {"help", no_argument, NULL, HELP},
        {NULL, 0, NULL, 0},
    };
    opterr = 0; //  We say ourselves what is wrong
    int option;
    while ((option = getopt_long (argc, argv, ":c:s:", options, NULL)) != -1) {
        if (option == 'c')
            self->file = optarg;
        else if (option == 's')
            zlistx_add_end (self->overrides, optarg);
        else if (option == CHECK)
            self->check = true;
        else if (option == PRINT)
            self->print = true;
        else if (option == VERSION)
            return puts ("breadboard " BREADBOARD_VERSION) < 0;
        else if (option == HELP) {
            s_print_help ();
            return 0;
        }
        else
            return s_refuse_word (option, argc, argv);
    }
    if (optind == argc)
        return -1;
    fprintf (stderr, "breadboard: %s is no option; see --help for those there are\n", argv[optind]);
    return EXIT_USAGE;
}

//  Says what is wrong, in one sentence; takes the error.

static int
s_complain (int status, char **error_p)
{
    fprintf (stderr, "breadboard: %s\n", *error_p ? *error_p : "it could not start");
    zstr_free (error_p);
    return status;
}

//  ------------------------------------------------------------------------
//  Settings

static void
s_set_up_log (const settings_t *settings)
{
    log_level_t level = streq (settings->log_level, "debug")     ? LOG_LEVEL_DEBUG
                        : streq (settings->log_level, "info")    ? LOG_LEVEL_INFO
                        : streq (settings->log_level, "warning") ? LOG_LEVEL_WARNING
                                                                 : LOG_LEVEL_ERROR;
    log_setup (level, streq (settings->log_format, "json"));
}

static int
s_read_site (board_t *self)
{
    char *error = NULL;
    settings_t *settings = settings_new (self->file, self->overrides, &error);
    if (settings && self->print) {
        settings_print (settings, stdout);
        settings_destroy (&settings);
        return 0;
    }
    if (settings)
        self->site = site_new (&settings, &error);
    if (!self->site)
        return s_complain (EXIT_USAGE, &error);
    s_set_up_log (site_settings (self->site));
    return self->check ? 0 : -1;
}

//  Reads everything anew. What is broken is logged, and the old site stays.

static void
s_reload (board_t *self)
{
    char *error = NULL;
    settings_t *settings = settings_new (self->file, self->overrides, &error);
    char *fixed = settings ? settings_keep_fixed (settings, site_settings (self->site)) : NULL;
    site_t *site = settings ? site_new (&settings, &error) : NULL;
    if (!site) {
        log_error ("reload: %s; nothing was changed", error);
        zstr_free (&error);
        zstr_free (&fixed);
        return;
    }
    if (*fixed)
        log_warning ("reload: only a restart changes %s", fixed);
    zstr_free (&fixed);
    site_destroy (&self->site);
    self->site = site;
    s_set_up_log (site_settings (site));
    database_reload (self->database, site);
    for (int number = 0; number < self->threads; number++)
        connections_reload (self->connections[number], site);
    server_reload (self->server, site);
    log_info ("reload: settings, templates and assets read anew");
}

//  ------------------------------------------------------------------------
//  Starting

//  Raises the limit of descriptors, and shares them out: those below takeover_base are everybody's,
//  those from there on are open WebSockets.

static int
s_share_descriptors (board_t *self, char **error_p)
{
    const settings_t *settings = site_settings (self->site);
    struct rlimit limit;
    getrlimit (RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit (RLIMIT_NOFILE, &limit);
    int64_t descriptors = limit.rlim_cur < INT32_MAX ? (int64_t) limit.rlim_cur : INT32_MAX;
    int64_t workers = settings->http_threads * (self->threads + WORKER_SOCKETS);
    self->takeover_base = (int) (SPARE_DESCRIPTORS + workers);
    int64_t room = descriptors - self->takeover_base;
    self->max_connections = settings->http_max_connections;
    if (self->max_connections == 0)
        self->max_connections = room;
    if (room < 1 || self->max_connections > room) {
        *error_p = zsys_sprintf ("http.max_connections: %" PRId64 " descriptors are allowed, which"
                                 " leaves room for %" PRId64 " connections: raise the limit"
                                 " (ulimit -n) or lower http.max_connections or http.threads",
                                 descriptors, room > 0 ? room : 0);
        return -1;
    }
    log_info ("breadboard: room for %" PRId64 " connections (%" PRId64 " descriptors are allowed)",
              self->max_connections, descriptors);
    return 0;
}

static int
s_start_database (board_t *self, char **error_p)
{
    const settings_t *settings = site_settings (self->site);
    const char *url = settings->database_url;
    if (!*url) {
        self->postgres = private_postgres_new (settings->database_state_dir, error_p);
        if (!self->postgres)
            return -1;
        url = private_postgres_url (self->postgres);
    }
    self->database = database_new (site_ref (self->site), url, error_p);
    return self->database ? 0 : -1;
}

static int
s_start_connections (board_t *self)
{
    for (int number = 0; number < self->threads; number++) {
        self->connections[number] = connections_new (number, site_ref (self->site));
        if (!self->connections[number])
            return -1; //  It has logged why
    }
    return 0;
}

static int
s_start (board_t *self, char **error_p)
{
    long processors = sysconf (_SC_NPROCESSORS_ONLN);
    self->threads = processors < 1                         ? 1
                    : processors > CONNECTIONS_THREADS_MAX ? CONNECTIONS_THREADS_MAX
                                                           : (int) processors;
    if (s_share_descriptors (self, error_p) != 0)
        return -1;
    zsys_set_max_sockets ((size_t) self->takeover_base);
    self->doorman = doorman_new ();
    if (s_start_database (self, error_p) != 0 || s_start_connections (self) != 0)
        return -1;
    self->server = server_new (self->site, self->threads, self->takeover_base,
                               self->max_connections, self->doorman, error_p);
    return self->server ? 0 : -1;
}

//  ------------------------------------------------------------------------
//  Serving and ending

//  Serves until SIGTERM or SIGINT comes.

static void
s_serve (board_t *self)
{
    printf ("breadboard " BREADBOARD_VERSION " ready on http://%s/\n",
            server_address (self->server));
    fflush (stdout);
    int received;
    do {
        received = signals_wait ();
        if (received == SIGHUP)
            s_reload (self);
        if (self->postgres)
            private_postgres_revive (self->postgres);
    } while (received != SIGTERM && received != SIGINT);
}

//  Nobody new comes in; what was received is answered; then clients are told.

static void
s_drain (board_t *self)
{
    log_info ("breadboard: ending");
    self->ending_ms = zclock_mono ();
    server_drain (self->server);
    for (int number = 0; number < self->threads; number++)
        connections_quiet (self->connections[number]);
    database_drain (self->database);
    connections_drain (self->connections, self->threads);
}

static void
s_end (board_t *self)
{
    server_destroy (&self->server);
    for (int number = 0; number < self->threads; number++)
        zactor_destroy (&self->connections[number]);
    doorman_destroy (&self->doorman);
    zactor_destroy (&self->database);
    if (self->postgres && self->ending_ms)
        private_postgres_stop (self->postgres, self->ending_ms + ENDING_MS - zclock_mono ());
    private_postgres_destroy (&self->postgres);
    site_destroy (&self->site);
    zlistx_destroy (&self->overrides);
}

static int
s_run (board_t *self)
{
    char *error = NULL;
    if (s_start (self, &error) == 0) {
        s_serve (self);
        s_drain (self);
        return 0;
    }
    if (signals_end_pending ()) {
        zstr_free (&error);
        return 0; //  It was told to end while it started
    }
    return s_complain (1, &error);
}

//  jansson 2.14 writes past the end of its buffer when that cannot grow. So it ends as czmq does.

static void *
s_allocate_json (size_t size)
{
    return zmalloc (size);
}

int
main (int argc, char *argv[])
{
    json_set_alloc_funcs (s_allocate_json, free); //  Before anybody uses jansson
    signals_block ();                             //  For all threads to come
    zsys_handler_set (NULL);

    board_t self = {.overrides = zlistx_new ()};
    int status = s_read_arguments (&self, argc, argv);
    if (status < 0)
        status = s_read_site (&self);
    if (status < 0)
        status = s_run (&self);
    s_end (&self);
    return status;
}
