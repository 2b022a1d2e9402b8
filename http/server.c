//  civetweb's begin_request callback sees each request before civetweb does anything with it, and
//  we answer there; civetweb itself only reports through http_error what it could not parse. So
//  there is no document root, and nothing that civetweb would serve on its own.
//
//  Paths are compared as they came, without decoding: no address of ours needs an escape, and what
//  is never decoded cannot be decoded twice.
//
//  civetweb cannot stop accepting. To drain, its listening socket is shut down, and a socket that
//  is never ready takes its descriptor. To end, that socket's other end is closed, and idle
//  connections are shut down, because civetweb would otherwise find out only every 2 s.

#include "http/server.h"

#include "actors/connections.h"
#include "actors/database.h"
#include "actors/metrics.h"
#include "config/folder.h"
#include "config/log.h"
#include "http/answer.h"
#include "http/board.h"
#include "http/files.h"
#include "http/health.h"
#include "http/request.h"
#include "http/websocket.h"
#include "http/worker.h"

#include <arpa/inet.h>
#include <civetweb.h>
#include <netinet/tcp.h>

//  A connection is accepted when its first bytes are there. After so many seconds without them, in
//  which the kernel answers its handshake for the last time (tcp_synack_retries, in tcp (7), is 5),
//  it is forgotten. After less it would be accepted all the same, and silent crowds would come in
//  together
#define DEFER_ACCEPT_S 31
#define BACKLOG        4096
#define DRAIN_MS       1500
//  Descriptors below the base that each worker has, its client's among them, and some to spare
#define WORKER_DESCRIPTORS 5
#define SPARE_DESCRIPTORS  64
#define QUEUE_LEAST        64

struct server {
    site_t *site;                //  Our reference
    int threads;                 //  civetweb's
    pool_t pool;                 //  What its workers share
    takeover_t *takeover;        //  Owned
    sweeper_t *sweeper;          //  Owned
    atomic_int workers;          //  Made so far
    bool library;                //  civetweb's library is initialised
    struct mg_context *civetweb; //  Owned
    char *address;               //  "ADDRESS:PORT"
    int base;                    //  civetweb's descriptors lie below
    int port;
    int listener;  //  civetweb's descriptor, -1 when unknown
    int stopped;   //  What it was before it was made silent; owned, -1 before
    int silent[2]; //  The ends of a socket that is never ready; -1 when there is none
};

//  ------------------------------------------------------------------------
//  Requests

static bool
s_begins_with (const char *text, const char *prefix, const char **rest_p)
{
    *rest_p = text + strlen (prefix);
    return strncmp (text, prefix, strlen (prefix)) == 0;
}

static int
s_route (struct mg_connection *conn, const char *path)
{
    const char *rest;
    if (streq (path, worker_settings (worker_of (conn))->http_path))
        return websocket_answer (conn);
    if (streq (path, "/"))
        return board_answer_page (conn);
    if (streq (path, "/messages"))
        return board_answer_add (conn);
    if (s_begins_with (path, "/messages/", &rest))
        return board_answer_message (conn, rest);
    if (s_begins_with (path, "/static/", &rest))
        return files_answer (conn, rest);
    if (streq (path, "/healthz"))
        return health_answer_alive (conn);
    if (streq (path, "/readyz"))
        return health_answer_ready (conn);
    if (streq (path, "/metrics"))
        return health_answer_metrics (conn);
    return answer_error (conn, 404, NULL, NULL);
}

static int
s_begin_request (struct mg_connection *conn)
{
    worker_t *worker = worker_of (conn);
    const struct mg_request_info *info = mg_get_request_info (conn);
    worker_begin (worker, info);
    metrics_add (METRICS_REQUESTS, 1);
    int status = worker_has_head (worker) ? request_check (info) : 400;
    if (status)
        return answer_error (conn, status, NULL, NULL);
    if (!request_host_allowed (info, worker_settings (worker), worker_pool (worker)->loopback))
        return answer_error (conn, 403,
                             "This board does not answer to that host name. Whoever "
                             "runs it can allow it with http.allowed_hosts.",
                             NULL);
    return s_route (conn, info->local_uri_raw);
}

static void
s_end_request (const struct mg_connection *conn, int status)
{
    (void) status;
    worker_end (worker_of (conn), mg_get_request_info (conn));
}

static int
s_open_connection (const struct mg_connection *conn, void **data_p)
{
    *data_p = NULL;
    worker_open (worker_of (conn));
    return 0;
}

static void
s_connection_closed (const struct mg_connection *conn)
{
    worker_close (worker_of (conn));
}

//  What civetweb cannot parse, it reports here.

static int
s_http_error (struct mg_connection *conn, int status, const char *message)
{
    (void) message;
    answer_error (conn, status, NULL, NULL);
    return 0;
}

//  A message about a connection may quote the client, so only its address is told. One about the
//  start, before there are workers, says what server_new () says better.

static int
s_log_message (const struct mg_connection *conn, const char *message)
{
    const struct mg_request_info *info = mg_get_request_info (conn); //  NULL when it is about none
    const server_t *self = (const server_t *) mg_get_user_context_data (conn);
    if (info)
        log_debug ("server: civetweb complains about a request from %s", info->remote_addr);
    else if (self && atomic_load (&self->workers) > 0)
        log_warning ("server: civetweb: %s", message);
    else
        log_debug ("server: civetweb: %s", message);
    return 1;
}

//  ------------------------------------------------------------------------
//  Threads

static void *
s_init_thread (const struct mg_context *civetweb, int type)
{
    if (type != 1)
        return NULL; //  Not a worker
    server_t *self = (server_t *) mg_get_user_data (civetweb);
    return worker_new (&self->pool, atomic_fetch_add (&self->workers, 1), self->site);
}

static void
s_exit_thread (const struct mg_context *civetweb, int type, void *thread)
{
    (void) civetweb, (void) type;
    worker_t *worker = (worker_t *) thread;
    worker_destroy (&worker);
}

//  ------------------------------------------------------------------------
//  Start

//  Splits "ADDRESS:PORT"; returns 0, or -1. civetweb's own syntax for ports has more in it, which
//  is not for us. IPv6 is not in Debian's civetweb.

static int
s_parse_listen (const char *listen, struct sockaddr_in *address)
{
    const char *colon = strrchr (listen, ':');
    char host[64];
    if (!colon || (size_t) (colon - listen) >= sizeof (host))
        return -1;
    snprintf (host, sizeof (host), "%.*s", (int) (colon - listen), listen);
    size_t digits = strspn (colon + 1, "0123456789");
    if (digits == 0 || digits > 5 || colon[1 + digits] != '\0' || atoi (colon + 1) > 65535)
        return -1;
    *address = (struct sockaddr_in){.sin_family = AF_INET,
                                    .sin_port = htons ((uint16_t) atoi (colon + 1))};
    return inet_pton (AF_INET, streq (host, "localhost") ? "127.0.0.1" : host,
                      &address->sin_addr) == 1
               ? 0
               : -1;
}

//  civetweb does not say why it could not listen, so we try it ourselves.

static char *
s_why_not (const char *listen, const struct sockaddr_in *address)
{
    int descriptor = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    setsockopt (descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof (on));
    int reason = bind (descriptor, (const struct sockaddr *) address, sizeof (*address)) == 0
                     ? 0
                     : errno;
    close (descriptor);
    if (reason == EADDRINUSE)
        return zsys_sprintf ("http.listen: %s is in use by another program; stop it or choose "
                             "another with -s http.listen=127.0.0.1:0",
                             listen);
    if (reason == EACCES)
        return zsys_sprintf ("http.listen: %s needs rights that this user lacks; choose a port of "
                             "1024 or more with -s http.listen=ADDRESS:PORT",
                             listen);
    if (reason == EADDRNOTAVAIL)
        return zsys_sprintf ("http.listen: %s is no address of this machine; choose one with -s "
                             "http.listen=ADDRESS:PORT",
                             listen);
    return zsys_sprintf ("http.listen: could not listen on %s: %s", listen,
                         reason ? strerror (reason) : "civetweb did not start");
}

static void
s_take_back_sites (server_t *self)
{
    for (int number = 0; number < self->threads; number++) {
        site_t *site = atomic_exchange (&self->pool.sites[number], NULL);
        site_destroy (&site);
    }
}

//  How many connections may wait for a worker: whatever is accepted must get a descriptor below the
//  base, or it would not be found when it is to be taken over.

static int
s_queue_size (const server_t *self)
{
    int left = self->base - self->threads * WORKER_DESCRIPTORS - SPARE_DESCRIPTORS;
    for (int descriptor = 0; descriptor < self->base; descriptor++)
        if (fcntl (descriptor, F_GETFD) != -1)
            left--;
    if (left < QUEUE_LEAST)
        log_warning ("server: few descriptors below %d are left; raise ulimit -n", self->base);
    return left < QUEUE_LEAST ? QUEUE_LEAST : left;
}

static struct mg_context *
s_start_civetweb (server_t *self, const struct sockaddr_in *address)
{
    char host[INET_ADDRSTRLEN];
    inet_ntop (AF_INET, &address->sin_addr, host, sizeof (host));
    char *listening = zsys_sprintf ("%s:%d", host, ntohs (address->sin_port));
    char *threads = zsys_sprintf ("%d", self->threads);
    char *queue = zsys_sprintf ("%d", s_queue_size (self));
    char *backlog = zsys_sprintf ("%d", BACKLOG);
    const char *options[][2] = {
        {"listening_ports", listening},
        {"num_threads", threads},
        {"connection_queue", queue},
        {"listen_backlog", backlog},
        {"tcp_nodelay", "1"},
        {"request_timeout_ms", "10000"},
        {"enable_keep_alive", "yes"}, //  See answer.c about who is kept
        {"keep_alive_timeout_ms", "5000"},
        {"decode_url", "no"},
        {"enable_directory_listing", "no"},
        {"enable_auth_domain_check", "no"}, //  Else only its own domain may be in a whole URI
        {"access_control_allow_methods", ""},
        {NULL, NULL},
    };
    const struct mg_callbacks callbacks = {.begin_request = s_begin_request,
                                           .end_request = s_end_request,
                                           .log_message = s_log_message,
                                           .http_error = s_http_error,
                                           .init_thread = s_init_thread,
                                           .exit_thread = s_exit_thread,
                                           .init_connection = s_open_connection,
                                           .connection_closed = s_connection_closed};
    struct mg_init_data init = {
        .callbacks = &callbacks, .user_data = self, .configuration_options = options[0]};
    struct mg_context *civetweb = mg_start2 (&init, NULL);
    zstr_free (&backlog);
    zstr_free (&queue);
    zstr_free (&threads);
    zstr_free (&listening);
    return civetweb;
}

//  civetweb's descriptor for the port it listens on, or -1.

static int
s_find_listener (const server_t *self)
{
    for (int descriptor = 0; descriptor < self->base; descriptor++) {
        int listening = 0;
        socklen_t size = sizeof (listening);
        struct sockaddr_in address;
        if (getsockopt (descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 ||
            !listening)
            continue;
        size = sizeof (address);
        if (getsockname (descriptor, (struct sockaddr *) &address, &size) == 0 &&
            address.sin_family == AF_INET && ntohs (address.sin_port) == self->port)
            return descriptor;
    }
    return -1;
}

static void
s_note_listener (server_t *self, const char *listen)
{
    struct mg_server_port port = {0};
    int rc = mg_get_server_ports (self->civetweb, 1, &port);
    assert (rc == 1);
    self->port = port.port;
    self->address = zsys_sprintf ("%.*s:%d", (int) (strrchr (listen, ':') - listen), listen,
                                  self->port);
    self->listener = s_find_listener (self);
    int seconds = DEFER_ACCEPT_S;
    if (self->listener < 0 ||
        setsockopt (self->listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof (seconds)) != 0)
        log_warning ("server: silent connections are not held back: no listening socket found");
}

//  Makes what the workers share. Returns 0, or -1 when the system has no descriptors left.

static int
s_prepare (server_t *self, int connection_threads, int64_t max_connections, struct in_addr address)
{
    bool everywhere = address.s_addr == htonl (INADDR_ANY);
    self->takeover = takeover_new (self->base, everywhere);
    self->sweeper = sweeper_new (self->threads, self->base);
    self->pool.connection_threads = connection_threads;
    self->pool.max_connections = max_connections;
    self->pool.loopback = (ntohl (address.s_addr) >> 24) == 127;
    self->pool.takeover = self->takeover;
    self->pool.sweeper = self->sweeper;
    if (!self->takeover || socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, self->silent) != 0)
        return -1;
    mg_init_library (0);
    self->library = true;
    return 0;
}

server_t *
server_new (site_t *site, int connection_threads, int takeover_base, int64_t max_connections,
            doorman_t *doorman, char **error_p)
{
    const settings_t *settings = site_settings (site);
    struct sockaddr_in address;
    if (s_parse_listen (settings->http_listen, &address) != 0) {
        *error_p = zsys_sprintf ("http.listen: %s is not an IPv4 address and a port; write it as "
                                 "in 127.0.0.1:8080",
                                 settings->http_listen);
        return NULL;
    }
    server_t *self = (server_t *) zmalloc (sizeof (server_t));
    self->site = site_ref (site);
    self->threads = (int) settings->http_threads;
    self->base = takeover_base;
    self->pool.doorman = doorman;
    self->listener = self->stopped = self->silent[0] = self->silent[1] = -1;
    if (s_prepare (self, connection_threads, max_connections, address.sin_addr) != 0)
        *error_p = strdup ("http: the system has no descriptors left; raise ulimit -n");
    else if (!(self->civetweb = s_start_civetweb (self, &address)))
        *error_p = s_why_not (settings->http_listen, &address);
    else {
        s_note_listener (self, settings->http_listen);
        sweeper_start (self->sweeper, self->port);
        return self;
    }
    server_destroy (&self);
    return NULL;
}

const char *
server_address (const server_t *self)
{
    return self->address;
}

void
server_reload (server_t *self, site_t *site)
{
    for (int number = 0; number < self->threads; number++) {
        site_t *unseen = atomic_exchange (&self->pool.sites[number], site_ref (site));
        site_destroy (&unseen);
    }
    site_destroy (&self->site);
    self->site = site_ref (site);
}

//  ------------------------------------------------------------------------
//  Stop

static void
s_stop_listening (server_t *self)
{
    if (self->listener >= 0) {
        self->stopped = fcntl (self->listener, F_DUPFD_CLOEXEC, 0);
        shutdown (self->listener, SHUT_RDWR);
        dup3 (self->silent[0], self->listener, O_CLOEXEC);
    }
    self->listener = -1;
}

//  Lets civetweb's thread see the end of its silent socket. When it woke too late after the first
//  shutdown, it sleeps in poll on the silent socket's number, but in the queue of the old socket.

static void
s_wake_civetweb (server_t *self)
{
    close (self->silent[1]);
    self->silent[1] = -1;
    if (self->stopped >= 0) {
        shutdown (self->stopped, SHUT_RDWR);
        close (self->stopped);
    }
    self->stopped = -1;
}

//  Nobody is being answered, nor waits for a thread.

static bool
s_is_quiet (const server_t *self)
{
    return sweeper_answering (self->sweeper) == 0 && sweeper_busy (self->sweeper) < self->threads;
}

void
server_drain (server_t *self)
{
    atomic_store (&self->pool.draining, true);
    s_stop_listening (self);
    int64_t give_up = zclock_mono () + DRAIN_MS;
    int quiet = 0; //  Twice in a row, because a header may just be on its way through civetweb
    while (quiet < 2 && zclock_mono () < give_up) {
        zclock_sleep (10);
        quiet = s_is_quiet (self) ? quiet + 1 : 0;
    }
    if (quiet < 2)
        log_warning ("server: %d requests were not answered in time",
                     sweeper_answering (self->sweeper));
}

static void
s_end_connections (const server_t *self)
{
    for (int descriptor = 0; descriptor < self->base; descriptor++) {
        struct sockaddr_in address;
        socklen_t size = sizeof (address);
        if (getsockname (descriptor, (struct sockaddr *) &address, &size) == 0 &&
            address.sin_family == AF_INET && ntohs (address.sin_port) == self->port)
            shutdown (descriptor, SHUT_RD);
    }
}

void
server_destroy (server_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        server_t *self = *self_p;
        if (self->civetweb) {
            atomic_store (&self->pool.draining, true);
            s_stop_listening (self);
            s_end_connections (self);
            s_wake_civetweb (self);
            mg_stop (self->civetweb);
        }
        if (self->library)
            mg_exit_library ();
        s_take_back_sites (self);
        sweeper_destroy (&self->sweeper);
        takeover_destroy (&self->takeover);
        for (int end = 0; end < 2; end++)
            if (self->silent[end] >= 0)
                close (self->silent[end]);
        zstr_free (&self->address);
        site_destroy (&self->site);
        freen (*self_p);
    }
}

//  ------------------------------------------------------------------------
//  Self test: a client with a plain socket, and a thread that stands in for the database actor

#define TEST_BASE    512
#define TEST_THREADS 4
#define HOST         "Host: localhost\r\n"
#define CLOSE        HOST "Connection: close\r\n\r\n"
#define FORM         HOST "Connection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n"
#define HANDSHAKE                                                                               \
    "GET /ws/social-network/ HTTP/1.1\r\n" HOST "Upgrade: websocket\r\nConnection: Upgrade\r\n" \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

//  What the stand-in answers, by action and one of the command's fields

static const struct {
    const char *action;
    const char *key;
    const char *value;
    const char *status;
    int page;
    const char *text;
} s_test_answers[] = {
    {"add message", "author", "Nobody", "invalid", 0, "author is wrong"},
    {"add message", "author", "Busy", "busy", 0, "too much to do"},
    {"add message", "author", "Ann", "ok", 1, ""},
    {"update message", "id", "404", "not-found", 0, ""},
    {"update message", "version", "old", "conflict", 0, "<both texts>"},
    {"update message", "author", "Nobody", "invalid", 0, "author is wrong"},
    {"update message", "author", "Ann", "ok", 3, ""},
    {"delete message", "id", "7", "ok", 1, ""},
    {"open edit page", "id", "7", "ok", 0, "<form of 7>"},
    {"list messages", "page", "1", "ok", 1, "<list 1>"},
    {"list messages", "page", "99999999999999999999999", "ok", 9, "<list 9>"},
};

static void
s_test_answer (zsock_t *router, zframe_t *sender, uint64_t sequence, json_t *command)
{
    const char *action = json_string_value (json_object_get (command, "action"));
    json_t *data = json_object_get (command, "data");
    for (size_t at = 0; at < sizeof (s_test_answers) / sizeof (s_test_answers[0]); at++) {
        const char *value = json_string_value (json_object_get (data, s_test_answers[at].key));
        if (streq (action, s_test_answers[at].action) && value &&
            streq (value, s_test_answers[at].value)) {
            zsock_send (router, "f8s8888s", sender, sequence, s_test_answers[at].status,
                        (uint64_t) 7, (uint64_t) s_test_answers[at].page, (uint64_t) 9,
                        (uint64_t) 0xABC, s_test_answers[at].text);
            return;
        }
    }
    //  Whatever is not in the table gets an answer, but a late one
    zclock_sleep (WORKER_PATIENCE_MS + 200);
    zsock_send (router, "f8s8888s", sender, sequence, "ok", (uint64_t) 0, (uint64_t) 0,
                (uint64_t) 0, (uint64_t) 0, "late");
}

static void
s_test_database (zsock_t *pipe, void *args)
{
    assert (!args);
    zsock_t *router = zsock_new_router ("@" DATABASE_COMMANDS);
    zpoller_t *poller = zpoller_new (pipe, router, NULL);
    zpoller_set_nonstop (poller, true);
    zsock_signal (pipe, 0);
    while (zpoller_wait (poller, -1) == router) {
        zframe_t *sender;
        uint8_t kind;
        uint64_t sequence;
        zmsg_t *rest;
        int rc = zsock_recv (router, "f18m", &sender, &kind, &sequence, &rest);
        assert (rc == 0);
        char *text = zmsg_popstr (rest);
        json_t *command = text ? json_loads (text, 0, NULL) : NULL;
        if (kind == DATABASE_READY)
            zsock_send (router, "f8s8888s", sender, sequence, "ok", (uint64_t) 0, (uint64_t) 0,
                        (uint64_t) 0, (uint64_t) 0, "");
        else if (kind == DATABASE_FIND)
            zsock_send (router, "f8s8888s", sender, sequence,
                        text && streq (text, "7") ? "ok" : "not-found", (uint64_t) 7, (uint64_t) 3,
                        (uint64_t) 0, (uint64_t) 0, "<delete 7>");
        else
            s_test_answer (router, sender, sequence, command);
        json_decref (command);
        zstr_free (&text);
        zmsg_destroy (&rest);
        zframe_destroy (&sender);
    }
    zpoller_destroy (&poller);
    zsock_unbind (router, DATABASE_COMMANDS);
    zsock_destroy (&router);
}

//  Templates and assets small enough to see through.

static char *
s_test_folder (void)
{
    char *folder = folder_test_new ();
    folder_test_write (folder, "index.html",
                       "{{title}}|{{host}}|{{scheme}}|{{page}}|{{{list}}}|{{#error}}{{error}}{{/"
                       "error}}|{{author}}|{{text}}|"
                       "{{#unavailable}}away{{/unavailable}}");
    folder_test_write (folder, "delete.html", "delete {{{form}}}");
    folder_test_write (folder, "edit.html", "edit {{id}} {{{form}}}");
    folder_test_write (folder, "update-form.html",
                       "again {{author}} {{text}} {{version}} {{error}}");
    folder_test_write (folder, "error.html", "{{status}} {{reason}}: {{message}}");
    folder_test_write (folder, "breadboard.css", "body {}");
    folder_test_write (folder, "breadboard.css.gz", "zipped!");
    folder_test_write (folder, "breadboard.js", ";");
    folder_test_write (folder, "favicon.svg", "<svg/>");
    return folder;
}

static site_t *
s_test_site (const char *folder, const char *listen, const char *title)
{
    zlistx_t *overrides = zlistx_new ();
    zlistx_set_destructor (overrides, (zlistx_destructor_fn *) zstr_free);
    zlistx_add_end (overrides, zsys_sprintf ("http.listen=%s", listen));
    zlistx_add_end (overrides, zsys_sprintf ("http.threads=%d", TEST_THREADS));
    zlistx_add_end (overrides, zsys_sprintf ("http.templates=%s", folder));
    zlistx_add_end (overrides, zsys_sprintf ("http.static=%s", folder));
    zlistx_add_end (overrides, zsys_sprintf ("board.title=%s", title));
    zlistx_add_end (overrides, strdup ("limits.max_message_bytes=8192"));
    char *error = NULL;
    settings_t *settings = settings_new (NULL, overrides, &error);
    site_t *site = settings ? site_new (&settings, &error) : NULL;
    if (error)
        fprintf (stderr, "%s\n", error);
    assert (site);
    zlistx_destroy (&overrides);
    return site;
}

static int
s_test_connect (const server_t *server)
{
    int client = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address;
    int rc = s_parse_listen (server_address (server), &address);
    assert (rc == 0);
    rc = connect (client, (struct sockaddr *) &address, sizeof (address));
    assert (rc == 0);
    struct timeval patience = {.tv_sec = 15};
    setsockopt (client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof (patience));
    return client;
}

static void
s_test_send (int client, const char *text)
{
    ssize_t sent = send (client, text, strlen (text), MSG_NOSIGNAL);
    assert (sent == (ssize_t) strlen (text));
}

//  Reads until the text has come, or the end (NULL); returns all of it, caller's to free.

static char *
s_test_receive (int client, const char *until)
{
    zchunk_t *chunk = zchunk_new ("", 0);
    char *text = zchunk_strdup (chunk);
    char bytes[4096];
    ssize_t size = 1;
    while (size > 0 && !(until && strstr (text, until))) {
        size = recv (client, bytes, sizeof (bytes), 0);
        assert (size >= 0);
        zchunk_extend (chunk, bytes, (size_t) size);
        zstr_free (&text);
        text = zchunk_strdup (chunk);
    }
    zchunk_destroy (&chunk);
    return text;
}

//  Sends a request on a connection of its own; the answer must have each of the words in it, which
//  stand one behind the other, separated by "|".

static void
s_test_exchange (const server_t *server, const char *request, const char *words)
{
    int client = s_test_connect (server);
    s_test_send (client, request);
    char *answer = s_test_receive (client, NULL);
    close (client);
    char *copy = strdup (words);
    char *rest = copy;
    char *word;
    while ((word = strtok_r (rest, "|", &rest)))
        if (!strstr (answer, word)) {
            fprintf (stderr, "\n%s\nwas answered without \"%s\":\n%s\n", request, word, answer);
            assert (false);
        }
    zstr_free (&copy);
    zstr_free (&answer);
}

static void
s_test_post (const server_t *server, const char *path, const char *form, const char *words)
{
    char *request = zsys_sprintf ("POST %s HTTP/1.1\r\n" FORM "Content-Length: %zu\r\n\r\n%s", path,
                                  strlen (form), form);
    s_test_exchange (server, request, words);
    zstr_free (&request);
}

static void
s_test_pages (const server_t *server)
{
    s_test_exchange (server, "GET / HTTP/1.1\r\n" CLOSE,
                     "HTTP/1.1 200 OK\r\n|text/html; charset=utf-8|Content-Security-Policy: "
                     "default-src 'none';|X-Content-Type-Options: nosniff|Referrer-Policy: "
                     "same-origin|Cache-Control: no-cache|Connection: close\r\n");
    s_test_exchange (server, "GET / HTTP/1.1\r\n" CLOSE,
                     "\r\n\r\nBoard|localhost|http|1|<list 1>|||");
    s_test_exchange (server, "GET /?page=99999999999999999999999 HTTP/1.1\r\n" CLOSE, "9|<list 9>");
    s_test_exchange (server, "GET /?page=-1&%zz HTTP/1.1\r\n" CLOSE, "1|<list 1>");
    s_test_exchange (server, "GET / HTTP/1.0\r\n\r\n", "200 OK|<list 1>");
    s_test_exchange (server, "GET /?page=2 HTTP/1.1\r\n" CLOSE, "503 |Retry-After: 2|away");
    s_test_exchange (server, "GET / HTTP/1.1\r\n" CLOSE, "<list 1>"); //  Not the late answer
    s_test_exchange (server, "DELETE / HTTP/1.1\r\n" CLOSE, "405 |Allow: GET, HEAD\r\n");
    s_test_exchange (server, "GET /absent HTTP/1.1\r\n" CLOSE, "404 Not Found: There is nothing");
    s_test_exchange (server, "GET /messages/7/edit HTTP/1.1\r\n" CLOSE,
                     "200 OK|edit 7 <form of 7>");
    s_test_exchange (server, "GET /messages/x/edit HTTP/1.1\r\n" CLOSE, "404 ");
    s_test_exchange (server, "GET /messages/7 HTTP/1.1\r\n" CLOSE,
                     "302 Found|Location: /?page=3#message--7\r\n");
    s_test_exchange (server, "GET /messages/404 HTTP/1.1\r\n" CLOSE, "404 |no such message");
    s_test_exchange (server, "GET /messages/7/delete HTTP/1.1\r\n" CLOSE,
                     "200 OK|delete <delete 7>");
    s_test_exchange (server, "GET /messages/404/delete HTTP/1.1\r\n" CLOSE, "404 |no such message");
    s_test_exchange (server, "PUT /messages/7 HTTP/1.1\r\n" CLOSE,
                     "405 |Allow: GET, HEAD, POST\r\n");
    s_test_exchange (server, "GET /healthz HTTP/1.1\r\n" CLOSE, "200 OK|no-store|ok\n");
    s_test_exchange (server, "GET /readyz HTTP/1.1\r\n" CLOSE, "200 OK|ready\n");
    s_test_exchange (server, "GET /metrics HTTP/1.1\r\n" CLOSE, "200 OK|version=0.0.4");
    s_test_exchange (server, "GET /metrics HTTP/1.1\r\nX-Forwarded-For: 1.2.3.4\r\n" CLOSE, "403 ");

    //  HEAD: the length of the page, and nothing behind the headers
    int client = s_test_connect (server);
    s_test_send (client, "HEAD /healthz HTTP/1.1\r\n" CLOSE);
    char *answer = s_test_receive (client, NULL);
    assert (strstr (answer, "Content-Length: 3\r\n"));
    assert (streq (answer + strlen (answer) - 4, "\r\n\r\n"));
    zstr_free (&answer);
    close (client);
}

static void
s_test_refusals (const server_t *server)
{
    s_test_exchange (server, "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
                     "403 |http.allowed_hosts|default-src 'none'");
    s_test_exchange (server, "GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "400 ");
    s_test_exchange (server, "nonsense\r\n\r\n", "400 |default-src 'none'|nosniff");
    s_test_exchange (server, "GET / HTTP/3.0\r\n" CLOSE, "505 |default-src 'none'");
    s_test_exchange (server, "GET /../../etc/passwd HTTP/1.1\r\n" CLOSE, "404 ");
    s_test_exchange (server, "GET /static/../server.c HTTP/1.1\r\n" CLOSE, "404 ");
    s_test_exchange (server, "GET /%0d%0aSet-Cookie:x HTTP/1.1\r\n" CLOSE, "404 ");

    zchunk_t *many = zchunk_new ("GET / HTTP/1.1\r\n", 16);
    for (int count = 0; count < 70; count++)
        zchunk_extend (many, "A: b\r\n", 6);
    zchunk_extend (many, CLOSE, strlen (CLOSE));
    char *request = zchunk_strdup (many);
    s_test_exchange (server, request, "431 |default-src 'none'");
    zstr_free (&request);
    zchunk_destroy (&many);

    char *large = zsys_sprintf ("GET / HTTP/1.1\r\nA: %020000d\r\n" CLOSE, 0);
    s_test_exchange (server, large, "400 |default-src 'none'");
    zstr_free (&large);
}

static void
s_test_forms (const server_t *server)
{
    s_test_post (server, "/messages", "author=Ann&message=Hi", "303 See Other|Location: /\r\n");
    s_test_post (server, "/messages", "author=Nobody&message=%3Cb%3E",
                 "422 |author is wrong|Nobody|&lt;b&gt;|<list 1>");
    s_test_post (server, "/messages", "author=Busy&message=kept", "503 |Retry-After|Busy|kept");
    s_test_post (server, "/messages", "author=%FF", "400 |not encoded as a form");
    s_test_post (server, "/messages/7", "author=Ann&message=Hi", "303 |Location: /?page=3\r\n");
    s_test_post (server, "/messages/7", "author=Nobody&message=kept&version=5",
                 "422 |edit 7 again Nobody kept 5 author is wrong");
    s_test_post (server, "/messages/7", "author=Ann&version=old", "409 |edit 7 <both texts>");
    s_test_post (server, "/messages/404", "author=Ann", "404 |no such message");
    s_test_post (server, "/messages/7/delete", "", "303 |Location: /\r\n");
    s_test_exchange (server, "GET /messages HTTP/1.1\r\n" CLOSE, "405 |Allow: POST\r\n");
    s_test_exchange (server, "POST /messages HTTP/1.1\r\n" FORM "\r\n", "411 ");
    s_test_exchange (server, "POST /messages HTTP/1.1\r\nContent-Length: 2\r\n" CLOSE "{}", "415 ");
    s_test_exchange (
        server, "POST /messages HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" FORM "\r\n0\r\n\r\n",
        "411 ");
    s_test_exchange (server,
                     "POST /messages HTTP/1.1\r\nOrigin: http://evil.example\r\n"
                     "Content-Length: 10\r\n" FORM "\r\nauthor=Ann",
                     "403 ");
    s_test_exchange (server,
                     "POST /messages HTTP/1.1\r\nOrigin: http://localhost\r\nContent-Length: 10\r\n"
                     "Expect: 100-continue\r\n" FORM "\r\nauthor=Ann",
                     "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 303 ");
    char *large = zsys_sprintf ("author=%09000d", 0);
    s_test_post (server, "/messages", large, "413 ");
    zstr_free (&large);
}

static void
s_test_assets (const server_t *server)
{
    const assets_t *assets = site_assets (server->site);
    char *url = assets_url (assets, "breadboard.css");
    char *request = zsys_sprintf ("GET %s HTTP/1.1\r\n" CLOSE, url);
    s_test_exchange (server, request,
                     "200 OK|text/css|max-age=31536000, immutable|Vary: Accept-Encoding|body {}");
    zstr_free (&request);
    request = zsys_sprintf ("GET %s HTTP/1.1\r\nAccept-Encoding: gzip\r\n" CLOSE, url);
    s_test_exchange (server, request, "-gzip\"|Content-Encoding: gzip|zipped!");
    zstr_free (&request);
    request = zsys_sprintf (
        "GET /static/breadboard.css HTTP/1.1\r\nIf-None-Match: \"%s\"\r\n" CLOSE,
        assets_find (assets, "breadboard.css")->etag);
    s_test_exchange (server, request, "304 Not Modified|Cache-Control: no-cache");
    zstr_free (&request);
    zstr_free (&url);
    s_test_exchange (server, "GET /static/absent.css HTTP/1.1\r\n" CLOSE, "404 ");
    s_test_exchange (server, "GET /static/ HTTP/1.1\r\n" CLOSE, "404 ");
    s_test_exchange (server, "PUT /static/breadboard.css HTTP/1.1\r\n" CLOSE, "405 ");
}

//  Receives a socket that was handed over; returns its descriptor.

static int
s_test_take (zsock_t *connections, bool subprotocol)
{
    uint32_t descriptor;
    uint8_t speaks;
    uint64_t page;
    uint64_t etag;
    void *visitor;
    int rc = zsock_recv (connections, "4188p", &descriptor, &speaks, &page, &etag, &visitor);
    assert (rc == 0);
    assert (descriptor >= TEST_BASE && speaks == subprotocol && !visitor); //  Loopback is exempt
    assert (page == 1 && etag == 0);
    assert (fcntl ((int) descriptor, F_GETFL) & O_NONBLOCK);
    return (int) descriptor;
}

//  A handshake of which civetweb's side must come out of the other end and work.

static void
s_test_handshake (int client, zsock_t *connections, bool subprotocol)
{
    s_test_send (client, HANDSHAKE);
    s_test_send (client, subprotocol ? "Sec-WebSocket-Protocol: x, breadboard.1\r\n\r\n" : "\r\n");
    char *answer = s_test_receive (client, "\r\n\r\n");
    assert (strstr (answer, "HTTP/1.1 101 Switching Protocols\r\n"));
    assert (strstr (answer, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    assert (!strstr (answer, "Sec-WebSocket-Protocol: breadboard.1\r\n") == !subprotocol);
    zstr_free (&answer);
    int descriptor = s_test_take (connections, subprotocol);
    s_test_send (descriptor, "x");
    answer = s_test_receive (client, "x");
    zstr_free (&answer);
    close (descriptor);
    metrics_add (METRICS_CONNECTIONS_OPEN, -1);
}

static void
s_test_websockets (const server_t *server, zsock_t *connections)
{
    //  The subprotocol of one connection does not stick to the next one of the same thread
    for (int count = 0; count < 4 * TEST_THREADS; count++) {
        int client = s_test_connect (server);
        s_test_handshake (client, connections, count % 2 == 0);
        close (client);
    }
    //  A connection that has served requests can still be taken over
    zclock_sleep (50);
    int client = s_test_connect (server);
    s_test_send (client, "GET /healthz HTTP/1.1\r\nHost:localhost \r\n\r\n");
    char *answer = s_test_receive (client, "ok\n");
    assert (strstr (answer, "Connection: keep-alive\r\n"));
    zstr_free (&answer);
    s_test_handshake (client, connections, true);
    close (client);

    //  A frame that did not wait for 101 cannot be had: 1002
    client = s_test_connect (server);
    s_test_send (client, HANDSHAKE "\r\n\x81\x80....");
    answer = s_test_receive (client, "\x88\x02\x03\xEA");
    assert (strstr (answer, "\r\n\r\n\x88\x02\x03\xEA"));
    zstr_free (&answer);
    close (client);
    zclock_sleep (50);
    assert (metrics_get (METRICS_CONNECTIONS_OPEN) == 0);
}

static void
s_test_refused_websockets (const server_t *server)
{
    s_test_exchange (server, HANDSHAKE "Origin: http://evil.example\r\n\r\n", "403 ");
    s_test_exchange (server, HANDSHAKE "Origin: null\r\n\r\n", "403 ");
    s_test_exchange (server, "GET /ws/social-network/ HTTP/1.1\r\n" CLOSE,
                     "426 |Upgrade: websocket|Sec-WebSocket-Version: 13");
    s_test_exchange (server, "POST /ws/social-network/ HTTP/1.1\r\n" CLOSE, "405 |Allow: GET\r\n");
    s_test_exchange (server, "GET /ws/social-network HTTP/1.1\r\n" CLOSE, "404 ");
    s_test_exchange (server, "GET /ws/social-network/x HTTP/1.1\r\n" CLOSE, "404 ");

    metrics_set (METRICS_CONNECTIONS_OPEN, server->pool.max_connections);
    s_test_exchange (server, HANDSHAKE "\r\n", "503 |Retry-After: 2");
    assert (metrics_get (METRICS_CONNECTIONS_OPEN) == server->pool.max_connections);
    metrics_set (METRICS_CONNECTIONS_OPEN, 0);
}

//  Many clients with half a request do not close the board to a whole one.

static void
s_test_half_requests (const server_t *server)
{
    int clients[10 * TEST_THREADS];
    for (int count = 0; count < 10 * TEST_THREADS; count++) {
        clients[count] = s_test_connect (server);
        s_test_send (clients[count], "GET / HTTP/1.1\r\n");
    }
    int64_t start = zclock_mono ();
    s_test_exchange (server, "GET /healthz HTTP/1.1\r\n" CLOSE, "200 OK");
    assert (zclock_mono () - start < 1000);
    for (int count = 0; count < 10 * TEST_THREADS; count++)
        close (clients[count]);
}

//  A request in flight is answered, and whoever comes later is not let in.

static void
s_test_drain (server_t *server)
{
    int client = s_test_connect (server);
    s_test_send (client, "GET /?page=3 HTTP/1.1\r\n" HOST "\r\n"); //  To be answered after 2 s
    zclock_sleep (1000);
    server_drain (server);
    char *answer = s_test_receive (client, NULL);
    assert (strstr (answer, "503 ") && strstr (answer, "Connection: close\r\n"));
    zstr_free (&answer);
    close (client);
    client = socket (AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address;
    s_parse_listen (server_address (server), &address);
    assert (connect (client, (struct sockaddr *) &address, sizeof (address)) == -1);
    close (client);
}

static void
s_test_bad_address (const char *folder, const char *listen, const char *words)
{
    site_t *site = s_test_site (folder, listen, "Nowhere");
    char *error = NULL;
    assert (!server_new (site, 1, TEST_BASE, 10, NULL, &error));
    if (!strstr (error, words))
        fprintf (stderr, "\n%s\n", error);
    assert (strstr (error, listen) && strstr (error, words));
    zstr_free (&error);
    site_destroy (&site);
}

static void
s_test_bad_addresses (const char *folder)
{
    int other = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl (INADDR_LOOPBACK);
    socklen_t size = sizeof (address);
    int rc = bind (other, (struct sockaddr *) &address, size);
    assert (rc == 0);
    listen (other, 1);
    getsockname (other, (struct sockaddr *) &address, &size);
    char *taken = zsys_sprintf ("127.0.0.1:%d", ntohs (address.sin_port));
    s_test_bad_address (folder, taken, "is in use by another program; stop it or choose another");
    s_test_bad_address (folder, "192.0.2.1:0", "is no address of this machine");
    zstr_free (&taken);
    close (other);
}

void
server_test (bool verbose)
{
    printf (" * server: ");
    if (verbose)
        log_setup (LOG_LEVEL_DEBUG, false);
    char *folder = s_test_folder ();
    zactor_t *database = zactor_new (s_test_database, NULL);
    zsock_t *connections = zsock_new (ZMQ_PULL);
    zsock_bind (connections, CONNECTIONS_ENDPOINT, 0);
    zsock_set_rcvtimeo (connections, 2000);

    s_test_bad_addresses (folder);
    char *error = NULL;
    site_t *site = s_test_site (folder, "127.0.0.1:0", "Board");
    doorman_t *doorman = doorman_new ();
    server_t *server = server_new (site, 1, TEST_BASE, 10, doorman, &error);
    assert (server && !error);
    assert (strncmp (server_address (server), "127.0.0.1:", 10) == 0);
    s_test_pages (server);
    s_test_refusals (server);
    s_test_forms (server);
    s_test_assets (server);
    s_test_websockets (server, connections);
    s_test_refused_websockets (server);
    s_test_half_requests (server);

    site_destroy (&site);
    site = s_test_site (folder, "127.0.0.1:0", "Renamed");
    server_reload (server, site);
    s_test_exchange (server, "GET / HTTP/1.1\r\n" CLOSE, "Renamed|");
    s_test_drain (server);

    int64_t start = zclock_mono ();
    server_destroy (&server);
    server_destroy (&server);
    assert (zclock_mono () - start < 1500);
    doorman_destroy (&doorman);
    site_destroy (&site);
    zsock_unbind (connections, CONNECTIONS_ENDPOINT, 0);
    zsock_destroy (&connections);
    zactor_destroy (&database);
    zdir_t *rest = zdir_new (folder, "-");
    zdir_remove (rest, true);
    zdir_destroy (&rest);
    zstr_free (&folder);
    log_setup (LOG_LEVEL_INFO, false);
    printf ("OK\n");
}
