//  The server outlives us when we are killed: committed is committed, and the next run finds it.
//
//  It is known by its working directory, which is always its cluster: /proc/PID/cwd tells, even
//  while the server is busy with recovery, and says nothing for a zombie. When the pid that
//  postmaster.pid names is alive but something else's by now, PostgreSQL would refuse to start; it
//  is told so in the variable that pg_ctl uses for that, and still makes its other check, that no
//  process of the old server holds its shared memory.
//
//  Static functions that can fail return NULL, or the sentence for the user, caller's to free.

#include "actors/private_postgres.h"
#include "actors/cluster.h"
#include "config/folder.h"
#include "config/log.h"
#include "config/signals.h"

#include <libpq-fe.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define BOARD      "breadboard" //  The board's role and its database
#define SILENCE_MS 60000        //  A server that says nothing for so long never will
#define REMIND_MS  5000         //  How often a wait is logged
#define RESTART_MS 1000         //  From one start to the next, at least
#define STEADY_MS  10000        //  A server that has lived so long is no longer an outage
#define STOP_MS    2000         //  How long a server may take to stop, for who has the time
#define QUIT_MS    500          //  And to drop everything
#define TRIES_MOST 20           //  Each half a second

struct private_postgres {
    programs_t *programs; //  Owned
    cluster_t *cluster;   //  Owned; dies before the programs it borrows
    char *url;            //  Owned; the board's connection string
    pid_t server;         //  0 when there is none
    bool child;           //  It is our child; else an earlier run left it
    int64_t started_ms;   //  When the last start was tried
    bool outage;          //  It has died, which was logged, and is not steady again
};

static char *
s_conninfo (const private_postgres_t *self, const char *role, const char *database)
{
    const char *socket = cluster_socket (self->cluster);
    char *host = (char *) zmalloc (2 * strlen (socket) + 1);
    for (char *end = host; *socket; socket++) {
        if (*socket == '\'' || *socket == '\\')
            *end++ = '\\';
        *end++ = *socket;
    }
    char *conninfo = zsys_sprintf ("host='%s' port=" CLUSTER_PORT
                                   " user=%s dbname=%s connect_timeout=5",
                                   host, role, database);
    freen (host);
    return conninfo;
}

//  ------------------------------------------------------------------------
//  The server

//  Returns the pid that postmaster.pid names, or 0. It names a negative one for a server in
//  single-user mode, which is nothing that we could use.

static pid_t
s_recorded_pid (const private_postgres_t *self)
{
    char *path = zsys_sprintf ("%s/postmaster.pid", cluster_data (self->cluster));
    FILE *file = fopen (path, "re");
    int pid = 0;
    bool is_read = file && fscanf (file, "%d", &pid) == 1;
    if (file)
        fclose (file);
    zstr_free (&path);
    return is_read && pid > 0 ? pid : 0;
}

//  Whether the process lives and is a server of our cluster. In a container root may not look at
//  another user's processes; the server's user may.

static bool
s_is_server (const private_postgres_t *self, pid_t pid)
{
    const char *data = cluster_data (self->cluster);
    char *path = zsys_sprintf ("/proc/%d/cwd", (int) pid);
    char *argv[] = {"test", path, "-ef", (char *) data, NULL};
    struct stat here;
    struct stat there;
    bool is_server = false;
    if (stat (path, &here) == 0)
        is_server = stat (data, &there) == 0 && here.st_dev == there.st_dev &&
                    here.st_ino == there.st_ino;
    else if (errno == EACCES)
        is_server = programs_run (self->programs, argv, -1);
    zstr_free (&path);
    return is_server;
}

//  Takes over a server that runs already.

static bool
s_find_server (private_postgres_t *self)
{
    pid_t pid = s_recorded_pid (self);
    if (pid == 0 || !s_is_server (self, pid))
        return false;
    log_info ("private PostgreSQL: found the server that an earlier run left, process %d",
              (int) pid);
    self->server = pid;
    self->child = false;
    return true;
}

static bool
s_is_running (private_postgres_t *self)
{
    if (self->server > 0 && (self->child ? waitpid (self->server, NULL, WNOHANG) != 0
                                         : !s_is_server (self, self->server)))
        self->server = 0;
    return self->server > 0;
}

//  The command line has what must be so; the rest is for postgresql.conf and ALTER SYSTEM to say.

static pid_t
s_spawn_server (const private_postgres_t *self, int log)
{
    char *postgres = programs_path (self->programs, "postgres");
    //  Whoever has that pid now, it is no server of ours
    char *stale = zsys_sprintf ("PG_GRANDPARENT_PID=%d", (int) s_recorded_pid (self));
    char *argv[] = {"env",
                    stale,
                    postgres,
                    "-D",
                    (char *) cluster_data (self->cluster),
                    "--unix_socket_directories=../socket", //  Seen from the data
                    "--unix_socket_permissions=0700",
                    "--listen_addresses=",
                    "--port=" CLUSTER_PORT,
                    "--max_connections=20",
                    "--cluster_name=" BOARD,
                    "--log_destination=stderr",
                    "--logging_collector=off",
                    "--log_checkpoints=off",
                    NULL};
    pid_t pid = programs_start (self->programs, argv, log);
    zstr_free (&stale);
    zstr_free (&postgres);
    return pid;
}

//  Starts the server; does not wait for it. Only to be called when s_find_server () found none.

static char *
s_start_server (private_postgres_t *self)
{
    self->started_ms = zclock_mono ();
    char *wrong = NULL;
    int log = cluster_open_log (self->cluster, &wrong);
    if (log < 0)
        return wrong;
    pid_t pid = s_spawn_server (self, log);
    if (pid < 0)
        wrong = zsys_sprintf ("could not start PostgreSQL: %s", strerror (errno));
    else {
        self->server = pid;
        self->child = true;
    }
    close (log);
    return wrong;
}

//  "Fast" ends the sessions and writes a checkpoint; "immediate" leaves that to the next start.

void
private_postgres_stop (private_postgres_t *self, int64_t patience_ms)
{
    if (!s_is_running (self))
        return;
    log_info ("private PostgreSQL: stopping");
    const struct {
        int signal;
        int64_t patience_ms;
        const char *otherwise;
    } steps[] = {{SIGINT, patience_ms, "does not stop fast; the next start will need recovery"},
                 {SIGQUIT, QUIT_MS, "does not end; the next run will find it"}};
    for (int step = 0; step < 2 && s_is_running (self); step++) {
        int64_t deadline = zclock_mono () + steps[step].patience_ms;
        kill (self->server, steps[step].signal);
        while (s_is_running (self) && zclock_mono () < deadline)
            zclock_sleep (20);
        if (self->server)
            log_warning ("private PostgreSQL: process %d %s", (int) self->server,
                         steps[step].otherwise);
    }
    self->server = 0;
}

//  ------------------------------------------------------------------------
//  Until it answers

static PGPing
s_ping (const private_postgres_t *self)
{
    char *conninfo = s_conninfo (self, "postgres", "postgres");
    PGPing answer = PQping (conninfo);
    zstr_free (&conninfo);
    return answer;
}

//  Returns NULL when the server answers, or why we do not wait any longer. Recovery may take as
//  long as it needs: the server says "not yet" meanwhile. Each such answer is a line in its log, so
//  we ask less often after the first second.

static const char *
s_await_answer (private_postgres_t *self)
{
    int64_t start = zclock_mono ();
    int64_t heard = start;
    int64_t reminded = start;
    while (s_is_running (self)) {
        PGPing answer = s_ping (self);
        int64_t now = zclock_mono ();
        if (answer == PQPING_OK)
            return NULL;
        if (answer == PQPING_REJECT)
            heard = now;
        if (now - heard > SILENCE_MS)
            return "it does not answer";
        if (signals_end_pending ())
            return "asked to stop meanwhile";
        if (now - reminded >= REMIND_MS) {
            reminded = now;
            log_info ("private PostgreSQL: waiting since %d s: %s", (int) ((now - start) / 1000),
                      answer == PQPING_REJECT ? "the server recovers what was not in its files yet"
                                              : "the server does not answer");
        }
        zclock_sleep (now - start < 1000 ? 50 : 500);
    }
    return "it has ended";
}

//  Waiting may help when a server has ended: processes of a killed one live on for a moment, and
//  while they do no new one starts; or one of an earlier run was faster than ours.

static char *
s_bring_up (private_postgres_t *self)
{
    for (int tries = 1;; tries++) {
        bool found = s_find_server (self);
        if (!found && tries == 1)
            log_info ("private PostgreSQL: starting, waiting until it answers");
        char *wrong = found ? NULL : s_start_server (self);
        if (wrong)
            return wrong;
        const char *reason = s_await_answer (self);
        if (!reason)
            return NULL;
        char *words = cluster_last_words (self->cluster);
        bool may_pass = found || strstr (words, "still in use") || strstr (words, "already exists");
        if (self->server || tries == TRIES_MOST || !may_pass)
            wrong = zsys_sprintf ("PostgreSQL did not start: %s: %s", reason, words);
        zstr_free (&words);
        if (wrong)
            return wrong;
        if (tries % 10 == 1) //  Every 5 s
            log_info ("private PostgreSQL: waiting until an earlier server's processes end");
        zclock_sleep (500);
    }
}

//  Runs the statement unless the query finds a row.

static char *
s_ensure (PGconn *connection, const char *query, const char *statement)
{
    PGresult *result = PQexec (connection, query);
    bool is_good = PQresultStatus (result) == PGRES_TUPLES_OK;
    if (is_good && PQntuples (result) == 0) {
        PQclear (result);
        result = PQexec (connection, statement);
        is_good = PQresultStatus (result) == PGRES_COMMAND_OK;
    }
    PQclear (result);
    return is_good ? NULL
                   : zsys_sprintf ("PostgreSQL did not do %s: %s", statement,
                                   PQerrorMessage (connection));
}

//  A crash may have come between any two of these statements.

static char *
s_prepare_database (const private_postgres_t *self)
{
    char *conninfo = s_conninfo (self, "postgres", "postgres");
    PGconn *connection = PQconnectdb (conninfo);
    zstr_free (&conninfo);
    char *wrong = s_ensure (connection, "SELECT 1 FROM pg_roles WHERE rolname = '" BOARD "'",
                            "CREATE ROLE " BOARD " LOGIN");
    if (!wrong)
        wrong = s_ensure (connection, "SELECT 1 FROM pg_database WHERE datname = '" BOARD "'",
                          "CREATE DATABASE " BOARD " OWNER " BOARD);
    PQfinish (connection);
    return wrong;
}

//  ------------------------------------------------------------------------
//  The class

private_postgres_t *
private_postgres_new (const char *state_dir, char **error_p)
{
    assert (state_dir && error_p);
    private_postgres_t *self = (private_postgres_t *) zmalloc (sizeof (private_postgres_t));
    char *wrong = NULL;
    self->programs = programs_new (&wrong);
    if (self->programs)
        self->cluster = cluster_new (state_dir, self->programs, &wrong);
    if (self->cluster)
        wrong = s_bring_up (self);
    if (!wrong)
        wrong = s_prepare_database (self);
    if (wrong) {
        if (!self->child)
            self->server = 0; //  One that was found stays as it was
        wrong[strcspn (wrong, "\n")] = 0;
        private_postgres_destroy (&self);
    }
    else
        self->url = s_conninfo (self, BOARD, BOARD);
    *error_p = wrong;
    return self;
}

void
private_postgres_destroy (private_postgres_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        private_postgres_t *self = *self_p;
        private_postgres_stop (self, STOP_MS);
        zstr_free (&self->url);
        cluster_destroy (&self->cluster);
        programs_destroy (&self->programs);
        freen (*self_p);
    }
}

const char *
private_postgres_url (const private_postgres_t *self)
{
    assert (self);
    return self->url;
}

void
private_postgres_revive (private_postgres_t *self)
{
    assert (self);
    int64_t lived_ms = zclock_mono () - self->started_ms;
    if (s_is_running (self)) {
        self->outage = self->outage && lived_ms < STEADY_MS;
        return;
    }
    if (lived_ms < RESTART_MS || s_find_server (self))
        return;
    char *wrong = s_start_server (self);
    if (!self->outage)
        log_warning ("private PostgreSQL: the server has died; starting it again%s%s",
                     wrong ? ": " : " (see postgres.log in database.state_dir)",
                     wrong ? wrong : "");
    self->outage = true;
    zstr_free (&wrong);
}

//  ------------------------------------------------------------------------
//  Self test

//  Whether the board's database answers a query so; a statement answers "".

static bool
s_answers (const char *url, const char *query, const char *expected)
{
    PGconn *connection = PQconnectdb (url);
    PGresult *result = PQexec (connection, query);
    ExecStatusType status = PQresultStatus (result);
    bool is_expected = (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) &&
                       streq (PQntuples (result) ? PQgetvalue (result, 0, 0) : "", expected);
    PQclear (result);
    PQfinish (connection);
    return is_expected;
}

static private_postgres_t *
s_must_start (const char *state_dir)
{
    char *error = NULL;
    private_postgres_t *self = private_postgres_new (state_dir, &error);
    if (error)
        fprintf (stderr, "%s\n", error);
    assert (self && !error);
    return self;
}

static void
s_test_server (const private_postgres_t *self)
{
    const char *url = private_postgres_url (self);
    assert (s_answers (url, "SHOW server_encoding", "UTF8"));
    assert (s_answers (url, "SHOW data_checksums", "on"));
    assert (s_answers (url, "SHOW listen_addresses", ""));
    assert (s_answers (url, "SHOW fsync", "on"));
    assert (s_answers (url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user", "f"));
    assert (s_answers (url, "CREATE TABLE kept (word text)", ""));
    assert (s_answers (url, "INSERT INTO kept VALUES ('still here')", ""));
}

static bool
s_has_kept (const private_postgres_t *self)
{
    return s_answers (private_postgres_url (self), "SELECT word FROM kept", "still here");
}

//  Kills the server and calls revive until it answers; it is another process then.

static void
s_test_revive (private_postgres_t *self)
{
    private_postgres_revive (self); //  Nothing to do
    pid_t killed = self->server;
    assert (killed > 0);
    kill (killed, SIGKILL);
    for (int tries = 0; tries < 200 && (self->server == killed || !s_has_kept (self)); tries++) {
        zclock_sleep (100);
        private_postgres_revive (self);
    }
    assert (self->child && self->server != killed && s_has_kept (self));
}

//  A board that ends without a word leaves its server running, and the next one uses that.

static void
s_test_crash (const char *state_dir)
{
    pid_t board = fork ();
    assert (board >= 0);
    if (board == 0) {
        private_postgres_t *killed = s_must_start (state_dir);
        raise (SIGKILL);
        _exit (killed ? 0 : 1);
    }
    waitpid (board, NULL, 0);
    private_postgres_t *self = s_must_start (state_dir);
    assert (!self->child && s_has_kept (self));
    s_test_revive (self);
    private_postgres_destroy (&self);
}

//  After a crash of the machine the pid in postmaster.pid may be anybody's, even the server user's.

static void
s_test_reused_pid (const char *state_dir)
{
    private_postgres_t *self = s_must_start (state_dir);
    char *path = zsys_sprintf ("%s/postmaster.pid", cluster_data (self->cluster));
    char *text = zsys_sprintf ("%s\n", cluster_data (self->cluster));
    private_postgres_destroy (&self);
    char *error = NULL;
    programs_t *programs = programs_new (&error);
    char *argv[] = {"sleep", "600", NULL};
    pid_t other = programs_start (programs, argv, -1);
    FILE *file = fopen (path, "w");
    assert (file);
    fprintf (file, "%d\n%s", (int) other, text);
    fclose (file);
    self = s_must_start (state_dir);
    assert (self->child && s_has_kept (self));
    private_postgres_destroy (&self);
    kill (other, SIGKILL);
    waitpid (other, NULL, 0);
    programs_destroy (&programs);
    zstr_free (&text);
    zstr_free (&path);
}

//  SIGTERM ends the wait, and is still there for main.

static void
s_test_interrupt (const char *state_dir)
{
    sigset_t term;
    sigset_t before;
    sigemptyset (&term);
    sigaddset (&term, SIGTERM);
    sigprocmask (SIG_BLOCK, &term, &before);
    raise (SIGTERM);
    char *error = NULL;
    private_postgres_t *self = private_postgres_new (state_dir, &error);
    assert (!self && strstr (error, "asked to stop meanwhile"));
    zstr_free (&error);
    int number;
    sigwait (&term, &number);
    assert (number == SIGTERM);
    sigprocmask (SIG_SETMASK, &before, NULL);
}

//  What the folder's class and the server say is passed on.

static void
s_test_refusals (const char *state_dir)
{
    char *error = NULL;
    private_postgres_t *self = private_postgres_new ("/proc/breadboard", &error);
    assert (!self && strstr (error, "could not make the folder"));
    zstr_free (&error);
    char *path = zsys_sprintf ("%s/cluster/postgresql.auto.conf", state_dir);
    FILE *file = fopen (path, "a");
    assert (file);
    fputs ("work_mem = 'a lot'\n", file);
    fclose (file);
    self = private_postgres_new (state_dir, &error);
    assert (!self && strstr (error, "PostgreSQL did not start: ") && strstr (error, "FATAL:"));
    zstr_free (&error);
    zstr_free (&path);
}

void
private_postgres_test (bool verbose)
{
    printf (" * private_postgres: ");
    if (verbose)
        printf ("\n");
    else
        log_setup (LOG_LEVEL_ERROR, false);
    char *parent = folder_test_new (); //  For root's server too
    //  Whatever a path may hold
    char *state_dir = zsys_sprintf ("%s/b\\o'a\"r d", parent);

    private_postgres_t *self = s_must_start (state_dir);
    s_test_server (self);
    s_test_revive (self);
    private_postgres_destroy (&self);
    assert (!self);
    private_postgres_destroy (&self); //  NULL is fine
    s_test_crash (state_dir);
    s_test_reused_pid (state_dir);
    s_test_interrupt (state_dir);
    s_test_refusals (state_dir);

    zstr_free (&state_dir);
    zdir_t *folder = zdir_new (parent, NULL);
    zdir_remove (folder, true);
    zdir_destroy (&folder);
    assert (access (parent, F_OK) != 0);
    zstr_free (&parent);
    printf ("OK\n");
}
