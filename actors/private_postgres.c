//  What can go wrong here is mostly what an earlier run left behind, so each step is made such that
//  kill -9 at any moment leaves a state that the next run understands:
//
//  - The lock is flock'ed, so it ends with its holder; the pid in it serves the refusal's sentence.
//  - initdb works in cluster.new, which is renamed when complete: a folder named cluster is whole.
//    initdb dies with us, so that no orphan writes into the next run's cluster.new.
//  - The server, on the contrary, outlives us: committed is committed, and the next run finds it.
//
//  A server is known by its working directory, which is always its cluster: /proc/PID/cwd tells, even
//  while the server is busy with recovery, and says nothing for a zombie. When the pid that
//  postmaster.pid names is alive but something else's by now, PostgreSQL would refuse to start; it
//  is told so in the variable that pg_ctl uses for that, and still makes its other check, that no
//  process of the old server holds its shared memory.
//
//  Who may connect is decided by the file system: the socket lies in a folder of mode 0700 that the
//  server's user owns, so that nobody else comes near it but root; pg_hba.conf says trust. Peer would
//  add nothing but a map of names that must follow whoever runs the board (root's board is not the
//  user of root's server). For root, state_dir itself stays root's (0711), so that the server's user
//  cannot put anything in the way of what root does there, and what root must do in that user's
//  folders, a child does after it has become that user.

#include "actors/private_postgres.h"
#include "config/log.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <libgen.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SERVER_USER       "postgres"   //  Whom root's server runs as
#define SUPERUSER         "postgres"   //  The role that initdb makes
#define BOARD             "breadboard" //  The board's role and its database
#define PORT              "5432"       //  Part of the socket's name, nothing more
#define MAJOR_LEAST       13           //  The oldest release for a new cluster
#define SILENCE_MS        60000        //  A server that says nothing for so long never will
#define REMIND_MS         5000         //  How often a wait is logged
#define FAST_STOP_MS      2000
#define IMMEDIATE_STOP_MS 3000
#define STEADY_MS         10000 //  A server that has lived so long is no longer an outage
#define DELAY_LEAST_MS    1000  //  Between two starts; doubles while they fail
#define DELAY_MOST_MS     16000
#define LOG_MOST_BYTES    (1024 * 1024) //  From there on a start puts the log aside

//  Where distributions keep the server's programs out of $PATH: Debian's, and PostgreSQL's own RPMs
static const char *const s_homes[] = {"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", NULL};

struct private_postgres {
    char *error;        //  Owned; why the last step failed
    char *folder;       //  Owned; state_dir, absolute
    char *cluster;      //  Owned; folder/cluster
    char *socket;       //  Owned; folder/socket
    char *log;          //  Owned; folder/postgres.log
    char *programs;     //  Owned; the folder of initdb and postgres
    char *url;          //  Owned; the board's connection string
    int major;          //  Of the programs
    int newest;         //  Major of the newest programs seen, 0 when there are none
    int lock;           //  Descriptor, -1 while we do not hold it
    bool root;          //  We are root, and the server's user is somebody else
    uid_t user;         //  The server's
    gid_t group;        //  The server's
    pid_t server;       //  0 when there is none
    bool child;         //  It is our child; else an earlier run left it
    bool outage;        //  It has died, and is not steady again
    int64_t started_ms; //  When the last start was tried
    int64_t delay_ms;   //  From that to the next one
    off_t log_start;    //  Size of the log at that start
};

//  Keeps the sentence that says what failed and what to do; returns -1.

static int s_fail (private_postgres_t *self, const char *format, ...) CHECK_PRINTF (2);

static int
s_fail (private_postgres_t *self, const char *format, ...)
{
    va_list arguments;
    va_start (arguments, format);
    zstr_free (&self->error);
    self->error = zsys_vprintf (format, arguments);
    va_end (arguments);
    size_t size = strlen (self->error);
    if (size > 0 && self->error[size - 1] == '\n') //  libpq ends its sentences so
        self->error[size - 1] = 0;
    return -1;
}

//  Returns the text between quotes, each special character in it behind an escape; caller frees.

static char *
s_quote (const char *text, char quote, const char *special, char escape)
{
    char *quoted = (char *) zmalloc (2 * strlen (text) + 3);
    size_t size = 0;
    quoted[size++] = quote;
    for (; *text; text++) {
        if (strchr (special, *text))
            quoted[size++] = escape;
        quoted[size++] = *text;
    }
    quoted[size] = quote;
    return quoted;
}

static char *
s_conninfo (const private_postgres_t *self, const char *role, const char *database)
{
    char *host = s_quote (self->socket, '\'', "'\\", '\\');
    char *conninfo = zsys_sprintf ("host=%s port=" PORT " user=%s dbname=%s connect_timeout=5",
                                   host, role, database);
    zstr_free (&host);
    return conninfo;
}

//  ------------------------------------------------------------------------
//  Processes. The board has threads when it revives a server, so a child does nothing before its
//  exec that is not safe then.

static void
s_become_server_user (const private_postgres_t *self)
{
    if (self->root && (setgroups (1, &self->group) != 0 || setgid (self->group) != 0 ||
                       setuid (self->user) != 0)) {
        static const char text[] = "error: could not become user " SERVER_USER "\n";
        (void) !write (STDERR_FILENO, text, sizeof (text) - 1);
        _exit (126);
    }
}

//  Undoes what a program inherits from us: signals blocked or ignored, descriptors, the terminal
//  (Ctrl+C is for the board alone), a working directory that its user may be unable to enter.

static void
s_leave_board (int output)
{
    struct sigaction standard = {.sa_handler = SIG_DFL};
    for (int number = 1; number < NSIG; number++)
        sigaction (number, &standard, NULL);
    sigset_t none;
    sigemptyset (&none);
    sigprocmask (SIG_SETMASK, &none, NULL);
    setsid ();
    int nothing = open ("/dev/null", O_RDWR);
    dup2 (output < 0 ? nothing : output, STDOUT_FILENO);
    dup2 (output < 0 ? nothing : output, STDERR_FILENO);
    dup2 (nothing, STDIN_FILENO);
    close_range (3, ~0U, 0);
    umask (077);
    if (chdir ("/") != 0)
        _exit (126);
}

static bool
s_concerns_postgres (const char *variable)
{
    return strncmp (variable, "PG", 2) == 0 || strncmp (variable, "LC_", 3) == 0 ||
           strncmp (variable, "LANG", 4) == 0;
}

//  Returns our environment without what the user's own psql is told by it (PGDATA, PGPORT), in
//  English, which s_last_words () reads; extra is NULL or one more variable. The array is caller's.

static char **
s_environment (char *extra)
{
    size_t count = 0;
    while (environ[count])
        count++;
    char **environment = (char **) zmalloc ((count + 3) * sizeof (char *));
    size_t kept = 0;
    for (size_t index = 0; index < count; index++)
        if (!s_concerns_postgres (environ[index]))
            environment[kept++] = environ[index];
    environment[kept++] = "LC_ALL=C";
    environment[kept] = extra;
    return environment;
}

//  Runs a program as the server's user, its output to the descriptor (-1: nowhere); returns its pid,
//  or -1. A helper dies with us: we wait for its end, so only our own death can leave it behind.

static pid_t
s_spawn (const private_postgres_t *self, char *const argv[], char *extra, int output, bool helper)
{
    char **environment = s_environment (extra);
    pid_t board = getpid ();
    pid_t pid = fork ();
    if (pid == 0) {
        s_leave_board (output);
        s_become_server_user (self);
        //  Behind the change of user, which would undo it; we may have died before
        if (helper && (prctl (PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid () != board))
            _exit (126);
        execvpe (argv[0], argv, environment);
        static const char text[] = "error: could not run the program\n";
        (void) !write (STDERR_FILENO, text, sizeof (text) - 1);
        _exit (127);
    }
    freen (environment);
    return pid;
}

//  Waits for a child's end; true when it was a success.

static bool
s_succeeds (pid_t pid)
{
    if (pid < 0)
        return false; //  There was none
    int status = 0;
    pid_t ended;
    do
        ended = waitpid (pid, &status, 0);
    while (ended < 0 && errno == EINTR);
    return ended == pid && WIFEXITED (status) && WEXITSTATUS (status) == 0;
}

//  Runs one of the system's tools with the rights of the server's user, silently; true on success.

static bool
s_run_tool (const private_postgres_t *self, char *const argv[])
{
    return s_succeeds (s_spawn (self, argv, NULL, -1, true));
}

//  ------------------------------------------------------------------------
//  The server's log

static int
s_open_log (private_postgres_t *self)
{
    int output = open (self->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct stat status;
    if (output < 0 || fstat (output, &status) != 0)
        return s_fail (self,
                       "could not write %s: %s: see who owns it, and whether the disk is full",
                       self->log, strerror (errno));
    self->log_start = status.st_size;
    return output;
}

//  Puts a log that has grown long aside, as postgres.log.old.

static void
s_rotate_log (const private_postgres_t *self)
{
    struct stat status;
    if (stat (self->log, &status) == 0 && status.st_size > LOG_MOST_BYTES) {
        char *old = zsys_sprintf ("%s.old", self->log);
        rename (self->log, old);
        zstr_free (&old);
    }
}

//  Returns the line that tells why a program ended, as far as the log knows: the last error since
//  the start, since initdb and postgres say more after it; else the last line. Caller frees.

static char *
s_last_words (const private_postgres_t *self)
{
    char *words = strdup ("no reason given");
    bool is_error = false;
    FILE *file = fopen (self->log, "re");
    char *line = NULL;
    size_t size = 0;
    if (file && fseeko (file, self->log_start, SEEK_SET) == 0)
        while (getline (&line, &size, file) > 0) {
            line[strcspn (line, "\n")] = 0;
            bool error = strstr (line, "FATAL:") || strstr (line, "PANIC:") ||
                         strstr (line, "error:");
            if (*line && (error || !is_error)) {
                free (words);
                words = strdup (line);
                is_error = error;
            }
        }
    if (file)
        fclose (file);
    free (line);
    assert (words);
    return words;
}

//  ------------------------------------------------------------------------
//  The folder and the lock

static int
s_choose_user (private_postgres_t *self)
{
    self->root = geteuid () == 0;
    self->user = geteuid ();
    self->group = getegid ();
    if (!self->root)
        return 0;
    const struct passwd *entry = getpwnam (SERVER_USER);
    if (!entry)
        return s_fail (self,
                       "PostgreSQL does not run as root, and there is no user " SERVER_USER
                       " to run it as: install the package postgresql, which makes that user, "
                       "or run the board as an ordinary user");
    self->user = entry->pw_uid;
    self->group = entry->pw_gid;
    return 0;
}

static int
s_check_folder (private_postgres_t *self)
{
    struct stat status;
    if (stat (self->folder, &status) != 0 || !S_ISDIR (status.st_mode))
        return s_fail (self, "%s is not a folder: give database.state_dir another path",
                       self->folder);
    if (status.st_mode & S_IWOTH)
        return s_fail (self,
                       "everybody may write to %s, so it is no place for a database: give "
                       "database.state_dir a folder in it",
                       self->folder);
    char *argv[] = {"test", "-x", self->folder, NULL};
    if (self->root && !s_run_tool (self, argv))
        return s_fail (self,
                       "the server would run as user " SERVER_USER ", who cannot enter %s: allow "
                       "that (chmod o+x) on it and each folder above it, or give "
                       "database.state_dir another path",
                       self->folder);
    return 0;
}

//  A socket's path has a limit that nothing lifts, and libpq takes a comma for the end of a host.

static int
s_check_socket_path (private_postgres_t *self)
{
    size_t most = sizeof (((struct sockaddr_un *) NULL)->sun_path) - 1;
    size_t needed = strlen (self->socket) + strlen ("/.s.PGSQL." PORT);
    if (needed > most)
        return s_fail (self,
                       "the path of the socket in %s would have %zu bytes, and the system allows "
                       "%zu: give database.state_dir a path shorter by %zu",
                       self->socket, needed, most, needed - most);
    for (const char *byte = self->folder; *byte; byte++)
        if (*byte == ',' || (unsigned char) *byte < 0x20)
            return s_fail (self,
                           "%s has a comma or a control character in its path, which PostgreSQL's "
                           "clients cannot use: give database.state_dir another path",
                           self->folder);
    return 0;
}

//  Makes state_dir, parents included, and derives our paths from it.

static int
s_open_folder (private_postgres_t *self, const char *state_dir)
{
    char *copy = strdup (state_dir);
    assert (copy);
    zsys_dir_create ("%s", dirname (copy)); //  When that fails, so does the next call
    free (copy);
    int rc = mkdir (state_dir, 0700);
    if (rc == 0 && self->root)
        rc = chmod (state_dir, 0711);
    if (rc == 0 || errno == EEXIST)
        self->folder = realpath (state_dir, NULL);
    if (!self->folder)
        return s_fail (self,
                       "could not make the folder %s: %s: make it, or give database.state_dir "
                       "another path",
                       state_dir, strerror (errno));
    self->cluster = zsys_sprintf ("%s/cluster", self->folder);
    self->socket = zsys_sprintf ("%s/socket", self->folder);
    self->log = zsys_sprintf ("%s/postgres.log", self->folder);
    return s_check_socket_path (self) == 0 ? s_check_folder (self) : -1;
}

static int
s_refuse_second_board (private_postgres_t *self, int lock)
{
    char text[32] = "";
    ssize_t size = pread (lock, text, sizeof (text) - 1, 0);
    return s_fail (self,
                   "another board%s%s%s holds %s: stop it, or give this one another "
                   "database.state_dir",
                   size > 0 ? " (process " : "", text, size > 0 ? ")" : "", self->folder);
}

static int
s_lock (private_postgres_t *self)
{
    char *path = zsys_sprintf ("%s/lock", self->folder);
    int lock = open (path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    int rc = 0;
    if (lock < 0)
        rc = s_fail (self,
                     "could not open %s: %s: run the board as the user who owns that folder, or "
                     "give database.state_dir another path",
                     path, strerror (errno));
    else if (flock (lock, LOCK_EX | LOCK_NB) == 0) {
        self->lock = lock;
        if (ftruncate (lock, 0) != 0 || dprintf (lock, "%d", (int) getpid ()) < 0)
            rc = s_fail (self, "could not write %s: %s", path, strerror (errno));
    }
    else {
        rc = errno == EWOULDBLOCK ? s_refuse_second_board (self, lock)
                                  : s_fail (self, "could not lock %s: %s", path, strerror (errno));
        close (lock);
    }
    zstr_free (&path);
    return rc;
}

//  Makes a folder, or takes the one that is there, for the server's user alone.

static int
s_own_folder (private_postgres_t *self, const char *path)
{
    int folder = -1;
    if (mkdir (path, 0700) == 0 || errno == EEXIST)
        folder = open (path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int rc = folder < 0 ? -1 : 0;
    if (rc == 0 && self->root)
        rc = fchown (folder, self->user, self->group);
    if (rc == 0)
        rc = fchmod (folder, 0700);
    if (rc != 0)
        s_fail (self, "could not make the folder %s: %s: if something else is there, move it away",
                path, strerror (errno));
    if (folder >= 0)
        close (folder);
    return rc;
}

//  ------------------------------------------------------------------------
//  The programs

//  Asks the server's program in a folder for its major version; 0 when there is none to run.

static int
s_ask_major (const private_postgres_t *self, const char *folder)
{
    char *postgres = zsys_sprintf ("%s/postgres", folder);
    char *initdb = zsys_sprintf ("%s/initdb", folder);
    int ends[2];
    int major = 0;
    if (access (postgres, X_OK) == 0 && access (initdb, X_OK) == 0 &&
        pipe2 (ends, O_CLOEXEC) == 0) {
        char *argv[] = {postgres, "--version", NULL};
        pid_t pid = s_spawn (self, argv, NULL, ends[1], true);
        close (ends[1]);
        char text[128] = "";
        if (read (ends[0], text, sizeof (text) - 1) <= 0 ||
            sscanf (text, "postgres (PostgreSQL) %d", &major) != 1)
            major = 0;
        close (ends[0]);
        s_succeeds (pid);
    }
    zstr_free (&postgres);
    zstr_free (&initdb);
    return major;
}

//  Takes the programs in a folder when they are the wanted ones, or, when any will do (wanted is 0),
//  newer than what we have.

static void
s_consider (private_postgres_t *self, const char *folder, int wanted)
{
    int major = s_ask_major (self, folder);
    if (major > self->newest)
        self->newest = major;
    if (wanted ? major == wanted && !self->programs : major > self->major && major >= MAJOR_LEAST) {
        zstr_free (&self->programs);
        self->programs = strdup (folder);
        assert (self->programs);
        self->major = major;
    }
}

//  The search path goes first: who put a server there wants that one.

static void
s_search_programs (private_postgres_t *self, const char *path, const char *const homes[],
                   int wanted)
{
    char *copy = strdup (path ? path : "");
    assert (copy);
    char *rest = NULL;
    for (char *folder = strtok_r (copy, ":", &rest); folder; folder = strtok_r (NULL, ":", &rest))
        if (*folder == '/')
            s_consider (self, folder, wanted);
    free (copy);
    for (; *homes && !self->programs; homes++) {
        glob_t found;
        if (glob (*homes, 0, NULL, &found) == 0)
            for (size_t index = 0; index < found.gl_pathc; index++)
                s_consider (self, found.gl_pathv[index], wanted);
        globfree (&found);
    }
}

//  Finds the programs that fit the cluster's major version, or any when there is no cluster (0).

static int
s_find_programs (private_postgres_t *self, const char *path, const char *const homes[], int wanted)
{
    s_search_programs (self, path, homes, wanted);
    if (self->programs)
        return 0;
    char *others = self->newest ? zsys_sprintf (" (the newest here is %d)", self->newest) : NULL;
    if (wanted)
        s_fail (
            self,
            "%s was made by PostgreSQL %d, whose server is not installed%s: install the package "
            "postgresql-%d; or move the data to another version: pg_dump it with the old "
            "server, move the folder aside, start the board, and restore with psql over the "
            "socket in %s; or use pg_upgrade, while both are installed",
            self->cluster, wanted, others ? others : "", wanted, self->socket);
    else
        s_fail (self,
                "no PostgreSQL server, version %d or newer, is in $PATH or /usr/lib/postgresql%s: "
                "install the package postgresql, or set database.url to a server that you have",
                MAJOR_LEAST, others ? others : "");
    zstr_free (&others);
    return -1;
}

//  ------------------------------------------------------------------------
//  The cluster

//  Sets *major_p to the major version of the cluster, or to 0 when there is none yet.

static int
s_read_major (private_postgres_t *self, int *major_p)
{
    *major_p = 0;
    struct stat status;
    if (stat (self->cluster, &status) != 0)
        return errno == ENOENT
                   ? 0
                   : s_fail (self, "could not look at %s: %s", self->cluster, strerror (errno));
    if (status.st_uid != self->user)
        return s_fail (self,
                       "%s belongs to user %d, but its server would run as user %d: run the board "
                       "as its owner, or as root after chown -R",
                       self->cluster, (int) status.st_uid, (int) self->user);
    char *path = zsys_sprintf ("%s/PG_VERSION", self->cluster);
    FILE *file = fopen (path, "re");
    bool is_read = file && fscanf (file, "%d", major_p) == 1 && *major_p > 0;
    if (file)
        fclose (file);
    zstr_free (&path);
    return is_read ? 0
                   : s_fail (self,
                             "%s is there, but is no PostgreSQL cluster: move it away, or give "
                             "database.state_dir another path",
                             self->cluster);
}

//  Removes what an initdb that was cut short has left. A process of PostgreSQL's that it had started
//  may still be writing for a moment, hence the tries. As the server's user rm can empty the folder,
//  and where that lies in root's, not remove it.

static int
s_remove_leftover (private_postgres_t *self, char *path)
{
    char *argv[] = {"rm", "-rf", "--", path, NULL};
    for (int tries = 0; tries < 20; tries++) {
        if (tries > 0)
            zclock_sleep (100);
        s_run_tool (self, argv);
        if (remove (path) == 0 || errno == ENOENT)
            return 0;
    }
    return s_fail (self, "could not remove %s, which an earlier start left: %s: remove it", path,
                   strerror (errno));
}

static int
s_run_initdb (private_postgres_t *self, char *path)
{
    int output = s_open_log (self);
    if (output < 0)
        return -1;
    char *initdb = zsys_sprintf ("%s/initdb", self->programs);
    char *argv[] = {initdb,
                    "--pgdata",
                    path,
                    "--username=" SUPERUSER,
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                    "--data-checksums",
                    "--auth-local=trust",
                    "--auth-host=reject",
                    NULL};
    bool succeeded = s_succeeds (s_spawn (self, argv, NULL, output, true));
    close (output);
    zstr_free (&initdb);
    if (succeeded)
        return 0;
    char *words = s_last_words (self);
    s_fail (self, "could not make a cluster in %s: %s (see %s)", self->folder, words, self->log);
    zstr_free (&words);
    return -1;
}

//  Gives the finished cluster its name, so that it lasts.

static int
s_rename_cluster (private_postgres_t *self, const char *path)
{
    int rc = rename (path, self->cluster);
    int folder = open (self->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (rc == 0)
        rc = folder >= 0 ? fsync (folder) : -1;
    if (rc != 0)
        s_fail (self, "could not name the new cluster %s: %s", self->cluster, strerror (errno));
    if (folder >= 0)
        close (folder);
    return rc;
}

static int
s_make_cluster (private_postgres_t *self)
{
    log_info ("private PostgreSQL: making a cluster in %s, which takes some seconds",
              self->cluster);
    char *path = zsys_sprintf ("%s.new", self->cluster);
    int rc = s_remove_leftover (self, path);
    if (rc == 0)
        rc = s_own_folder (self, path);
    if (rc == 0)
        rc = s_run_initdb (self, path);
    if (rc == 0)
        rc = s_rename_cluster (self, path);
    else
        rmdir (path); //  Which initdb has emptied
    zstr_free (&path);
    return rc;
}

static int
s_prepare_cluster (private_postgres_t *self)
{
    int major;
    if (s_read_major (self, &major) != 0 ||
        s_find_programs (self, getenv ("PATH"), s_homes, major) != 0 ||
        s_own_folder (self, self->socket) != 0)
        return -1;
    return major ? 0 : s_make_cluster (self);
}

//  ------------------------------------------------------------------------
//  The server

//  Returns the pid that postmaster.pid names, or 0. It names a negative one for a server in
//  single-user mode, which is nothing that we could use.

static pid_t
s_recorded_pid (const private_postgres_t *self)
{
    char *path = zsys_sprintf ("%s/postmaster.pid", self->cluster);
    FILE *file = fopen (path, "re");
    int pid = 0;
    if (file && fscanf (file, "%d", &pid) != 1)
        pid = 0;
    if (file)
        fclose (file);
    zstr_free (&path);
    return pid > 0 ? pid : 0;
}

//  Whether the process lives and is a server of our cluster. In a container root may not look at
//  another user's processes; the server's user may.

static bool
s_is_server (const private_postgres_t *self, pid_t pid)
{
    char *path = zsys_sprintf ("/proc/%d/cwd", (int) pid);
    char *argv[] = {"test", path, "-ef", self->cluster, NULL};
    struct stat here;
    struct stat cluster;
    bool is_server = false;
    if (stat (path, &here) == 0)
        is_server = stat (self->cluster, &cluster) == 0 && here.st_dev == cluster.st_dev &&
                    here.st_ino == cluster.st_ino;
    else if (errno == EACCES && self->root)
        is_server = s_run_tool (self, argv);
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
s_spawn_server (private_postgres_t *self, int output)
{
    char *postgres = zsys_sprintf ("%s/postgres", self->programs);
    char *folder = s_quote (self->socket, '"', "\"", '"'); //  The setting is a list
    char *sockets = zsys_sprintf ("--unix_socket_directories=%s", folder);
    //  Whoever has that pid now, it is no server of ours
    char *stale = zsys_sprintf ("PG_GRANDPARENT_PID=%d", (int) s_recorded_pid (self));
    char *argv[] = {postgres,
                    "-D",
                    self->cluster,
                    sockets,
                    "--unix_socket_permissions=0700",
                    "--listen_addresses=",
                    "--port=" PORT,
                    "--max_connections=20",
                    "--cluster_name=" BOARD,
                    "--log_destination=stderr",
                    "--logging_collector=off",
                    "--log_checkpoints=off",
                    NULL};
    pid_t pid = s_spawn (self, argv, stale, output, false);
    zstr_free (&stale);
    zstr_free (&sockets);
    zstr_free (&folder);
    zstr_free (&postgres);
    return pid;
}

//  Starts the server; does not wait for it. Only to be called when s_find_server () found none.

static int
s_start_server (private_postgres_t *self)
{
    self->started_ms = zclock_mono ();
    s_rotate_log (self);
    int output = s_open_log (self);
    if (output < 0)
        return -1;
    pid_t pid = s_spawn_server (self, output);
    close (output);
    if (pid < 0)
        return s_fail (self, "could not start PostgreSQL: %s", strerror (errno));
    self->server = pid;
    self->child = true;
    return 0;
}

//  Waits until the server has ended; false when it takes too long.

static bool
s_ends_within (private_postgres_t *self, int64_t limit_ms)
{
    int64_t deadline = zclock_mono () + limit_ms;
    while (s_is_running (self)) {
        if (zclock_mono () > deadline)
            return false;
        zclock_sleep (20);
    }
    return true;
}

//  "Fast" ends the sessions and writes a checkpoint; "immediate" leaves that to the next start.

static void
s_stop_server (private_postgres_t *self)
{
    if (!s_is_running (self))
        return;
    log_info ("private PostgreSQL: stopping");
    kill (self->server, SIGINT);
    if (s_ends_within (self, FAST_STOP_MS))
        return;
    log_warning ("private PostgreSQL: does not stop fast; the next start will need recovery");
    kill (self->server, SIGQUIT);
    if (!s_ends_within (self, IMMEDIATE_STOP_MS))
        log_warning ("private PostgreSQL: process %d does not end; the next run will find it",
                     (int) self->server);
}

//  ------------------------------------------------------------------------
//  Until it answers

typedef enum { READY, ENDED, SILENT, INTERRUPTED } outcome_t;

//  Main blocks signals and reads them once it serves, so here we can only look.

static bool
s_is_interrupted (void)
{
    sigset_t pending;
    sigemptyset (&pending);
    sigpending (&pending);
    return sigismember (&pending, SIGINT) == 1 || sigismember (&pending, SIGTERM) == 1;
}

static PGPing
s_ping (const private_postgres_t *self)
{
    char *conninfo = s_conninfo (self, SUPERUSER, "postgres");
    PGPing answer = PQping (conninfo);
    zstr_free (&conninfo);
    return answer;
}

//  Recovery may take as long as it needs: the server says "not yet" meanwhile. Each such answer is
//  a line in its log, so we ask less often after the first second.

static outcome_t
s_await_answer (private_postgres_t *self)
{
    int64_t start = zclock_mono ();
    int64_t heard = start;
    int64_t reminded = start;
    while (s_is_running (self)) {
        PGPing answer = s_ping (self);
        int64_t now = zclock_mono ();
        if (answer == PQPING_OK)
            return READY;
        if (answer == PQPING_REJECT)
            heard = now;
        if (now - heard > SILENCE_MS)
            return SILENT;
        if (now - reminded >= REMIND_MS) {
            reminded = now;
            log_info ("private PostgreSQL: waiting since %d s: %s", (int) ((now - start) / 1000),
                      answer == PQPING_REJECT ? "the server recovers what was not in its files yet"
                                              : "the server does not answer");
        }
        zclock_sleep (now - start < 1000 ? 50 : 500);
        if (s_is_interrupted ())
            return INTERRUPTED;
    }
    return ENDED;
}

//  Whether waiting may help: processes of a killed server live on for a moment, and while they do no
//  new one starts; or a server of an earlier run was faster than ours.

static bool
s_may_pass (const private_postgres_t *self)
{
    char *words = s_last_words (self);
    bool may_pass = strstr (words, "still in use") || strstr (words, "already exists");
    zstr_free (&words);
    return may_pass;
}

static int
s_fail_start (private_postgres_t *self, outcome_t outcome)
{
    if (outcome == INTERRUPTED)
        return s_fail (self, "asked to stop while PostgreSQL was starting");
    if (outcome == SILENT)
        return s_fail (self, "PostgreSQL, process %d, has not answered for %d s: see %s",
                       (int) self->server, SILENCE_MS / 1000, self->log);
    char *words = s_last_words (self);
    s_fail (self, "PostgreSQL did not start: %s (see %s)", words, self->log);
    zstr_free (&words);
    return -1;
}

static int
s_bring_up (private_postgres_t *self)
{
    for (int tries = 1;; tries++) {
        bool found = s_find_server (self);
        if (!found && tries == 1)
            log_info ("private PostgreSQL: starting version %d, waiting until it answers",
                      self->major);
        if (!found && s_start_server (self) != 0)
            return -1;
        outcome_t outcome = s_await_answer (self);
        if (outcome == READY)
            return 0;
        if (outcome != ENDED || tries == 20 || !(found || s_may_pass (self)))
            return s_fail_start (self, outcome);
        if (tries % 10 == 1) //  Every 5 s
            log_info ("private PostgreSQL: waiting until an earlier server's processes end");
        zclock_sleep (500);
    }
}

//  Runs the statement unless the query finds a row.

static int
s_ensure (private_postgres_t *self, PGconn *connection, const char *query, const char *statement)
{
    PGresult *result = PQexec (connection, query);
    bool is_good = PQresultStatus (result) == PGRES_TUPLES_OK;
    if (is_good && PQntuples (result) == 0) {
        PQclear (result);
        result = PQexec (connection, statement);
        is_good = PQresultStatus (result) == PGRES_COMMAND_OK;
    }
    PQclear (result);
    return is_good ? 0
                   : s_fail (self, "PostgreSQL did not do %s: %s", statement,
                             PQerrorMessage (connection));
}

//  A crash may have come between any two of these statements.

static int
s_prepare_database (private_postgres_t *self)
{
    char *conninfo = s_conninfo (self, SUPERUSER, "postgres");
    PGconn *connection = PQconnectdb (conninfo);
    zstr_free (&conninfo);
    int rc = 0;
    if (PQstatus (connection) != CONNECTION_OK)
        rc = s_fail (self, "could not connect to PostgreSQL: %s", PQerrorMessage (connection));
    if (rc == 0)
        rc = s_ensure (self, connection, "SELECT 1 FROM pg_roles WHERE rolname = '" BOARD "'",
                       "CREATE ROLE " BOARD " LOGIN");
    if (rc == 0)
        rc = s_ensure (self, connection, "SELECT 1 FROM pg_database WHERE datname = '" BOARD "'",
                       "CREATE DATABASE " BOARD " OWNER " BOARD);
    PQfinish (connection);
    return rc;
}

//  ------------------------------------------------------------------------
//  The class

//  Takes out of our environment what libpq would take for settings of ours: PGSERVICE, PGOPTIONS,
//  PGHOSTADDR and so on are meant for the user's own server, and not all can be overridden.

static void
s_forget_libpq_settings (void)
{
    for (char **variable = environ; *variable;) {
        char *name = strndup (*variable, strcspn (*variable, "="));
        assert (name);
        if (strncmp (name, "PG", 2) == 0 && unsetenv (name) == 0)
            variable = environ; //  The rest has moved
        else
            variable++;
        free (name);
    }
}

static int
s_set_up (private_postgres_t *self, const char *state_dir)
{
    if (s_choose_user (self) != 0 || s_open_folder (self, state_dir) != 0 || s_lock (self) != 0 ||
        s_prepare_cluster (self) != 0 || s_bring_up (self) != 0 || s_prepare_database (self) != 0)
        return -1;
    self->url = s_conninfo (self, BOARD, BOARD);
    return 0;
}

private_postgres_t *
private_postgres_new (const char *state_dir, char **error_p)
{
    assert (state_dir && error_p);
    private_postgres_t *self = (private_postgres_t *) zmalloc (sizeof (private_postgres_t));
    self->lock = -1;
    self->delay_ms = DELAY_LEAST_MS;
    s_forget_libpq_settings ();
    if (s_set_up (self, state_dir) != 0) {
        if (!self->child)
            self->server = 0; //  One that was found stays as it was
        *error_p = self->error;
        self->error = NULL;
        private_postgres_destroy (&self);
    }
    return self;
}

void
private_postgres_destroy (private_postgres_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        private_postgres_t *self = *self_p;
        s_stop_server (self);
        //  The file stays: were it removed, two boards could hold locks on two files of one name
        if (self->lock >= 0)
            close (self->lock);
        zstr_free (&self->url);
        zstr_free (&self->programs);
        zstr_free (&self->log);
        zstr_free (&self->socket);
        zstr_free (&self->cluster);
        zstr_free (&self->folder);
        zstr_free (&self->error);
        freen (*self_p);
    }
}

const char *
private_postgres_url (const private_postgres_t *self)
{
    assert (self);
    return self->url;
}

static void
s_report_death (private_postgres_t *self)
{
    self->outage = true;
    log_warning ("private PostgreSQL: the server has died; starting it again (see %s)", self->log);
}

void
private_postgres_revive (private_postgres_t *self)
{
    assert (self);
    int64_t lived_ms = zclock_mono () - self->started_ms;
    if (s_is_running (self)) {
        if (self->outage && lived_ms > STEADY_MS) {
            log_info ("private PostgreSQL: the server runs again, process %d", (int) self->server);
            self->outage = false;
            self->delay_ms = DELAY_LEAST_MS;
        }
        return;
    }
    if (!self->outage)
        s_report_death (self);
    if (lived_ms < self->delay_ms || s_find_server (self))
        return;
    self->delay_ms = self->delay_ms * 2 < DELAY_MOST_MS ? self->delay_ms * 2 : DELAY_MOST_MS;
    if (s_start_server (self) != 0)
        log_error ("private PostgreSQL: %s", self->error);
}

//  ------------------------------------------------------------------------
//  Self test

//  Runs a query on the board's database and returns the one value that it answers, NULL when there
//  is no connection; caller frees. A statement answers "".

static char *
s_ask (const char *url, const char *query)
{
    PGconn *connection = PQconnectdb (url);
    char *value = NULL;
    if (PQstatus (connection) == CONNECTION_OK) {
        PGresult *result = PQexec (connection, query);
        assert (PQresultStatus (result) == PGRES_TUPLES_OK ||
                PQresultStatus (result) == PGRES_COMMAND_OK);
        value = strdup (PQntuples (result) ? PQgetvalue (result, 0, 0) : "");
        PQclear (result);
    }
    PQfinish (connection);
    return value;
}

static bool
s_answers (const char *url, const char *query, const char *expected)
{
    char *value = s_ask (url, query);
    bool is_expected = value && streq (value, expected);
    free (value);
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

//  Asserts that there is no start in this folder, for the reason given.

static void
s_must_refuse (const char *state_dir, const char *reason)
{
    char *error = NULL;
    private_postgres_t *self = private_postgres_new (state_dir, &error);
    assert (!self && error);
    if (!strstr (error, reason))
        fprintf (stderr, "%s\n", error);
    assert (strstr (error, reason));
    zstr_free (&error);
}

static void
s_write_file (const char *folder, const char *name, const char *text)
{
    char *path = zsys_sprintf ("%s/%s", folder, name);
    FILE *file = fopen (path, "w");
    assert (file);
    fputs (text, file);
    fclose (file);
    zstr_free (&path);
}

//  Starts a second process that makes the board's database, then sits; returns its pid. With *ready_p
//  one can read a byte as soon as it sits.

static pid_t
s_fork_board (const char *state_dir, int *ready_p)
{
    int ends[2];
    int rc = pipe (ends);
    assert (rc == 0);
    pid_t board = fork ();
    assert (board >= 0);
    if (board == 0) {
        s_must_start (state_dir);
        (void) !write (ends[1], "", 1);
        pause ();
    }
    close (ends[1]);
    *ready_p = ends[0];
    return board;
}

static void
s_kill_board (pid_t board, int ready)
{
    kill (board, SIGKILL);
    waitpid (board, NULL, 0);
    close (ready);
}

//  A board is killed in the middle of initdb.

static void
s_test_cut_short (const char *state_dir, const char *leftover)
{
    int ready;
    pid_t board = s_fork_board (state_dir, &ready);
    char *begun = zsys_sprintf ("%s/base", leftover);
    for (int tries = 0; tries < 500 && access (begun, F_OK) != 0; tries++)
        zclock_sleep (20);
    assert (access (begun, F_OK) == 0);
    s_kill_board (board, ready);
    zstr_free (&begun);
}

static void
s_test_cluster (const private_postgres_t *self)
{
    const char *url = private_postgres_url (self);
    assert (s_answers (url, "SHOW server_encoding", "UTF8"));
    assert (s_answers (url, "SHOW data_checksums", "on"));
    assert (s_answers (url, "SHOW listen_addresses", ""));
    assert (s_answers (url, "SHOW fsync", "on"));
    assert (s_answers (url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user", "f"));
    struct stat status;
    int rc = stat (self->folder, &status);
    assert (rc == 0 && (status.st_mode & 0777) == (self->root ? 0711 : 0700));
    rc = stat (self->cluster, &status);
    assert (rc == 0 && (status.st_mode & 0777) == 0700 && status.st_uid == self->user);
    rc = stat (self->socket, &status);
    assert (rc == 0 && (status.st_mode & 0777) == 0700 && status.st_uid == self->user);
    assert (s_answers (url, "CREATE TABLE kept (word text)", ""));
    assert (s_answers (url, "INSERT INTO kept VALUES ('still here')", ""));
}

static void
s_test_kept (const private_postgres_t *self)
{
    assert (s_answers (private_postgres_url (self), "SELECT word FROM kept", "still here"));
}

//  Kills the server and calls revive until it answers; it is another process then.

static void
s_test_revive (private_postgres_t *self)
{
    private_postgres_revive (self); //  Nothing to do
    pid_t killed = self->server;
    assert (killed > 0);
    kill (killed, SIGKILL);
    for (int tries = 0; tries < 100; tries++) {
        private_postgres_revive (self);
        if (self->server > 0 && self->server != killed && s_ping (self) == PQPING_OK)
            break;
        zclock_sleep (100);
    }
    assert (self->server > 0 && self->server != killed);
    s_test_kept (self);
}

//  A board that ends without a word leaves its server running, and the next one uses that.

static void
s_test_crash (const char *state_dir)
{
    int ready;
    pid_t board = s_fork_board (state_dir, &ready);
    char byte;
    ssize_t size = read (ready, &byte, 1);
    assert (size == 1);
    s_kill_board (board, ready);
    private_postgres_t *self = s_must_start (state_dir);
    assert (!self->child && self->server > 0);
    s_test_kept (self);
    s_test_revive (self);
    assert (self->child);
    private_postgres_destroy (&self);
}

//  After a crash of the machine the pid in postmaster.pid may be anybody's, even the server user's.

static void
s_test_reused_pid (const char *state_dir)
{
    private_postgres_t *self = s_must_start (state_dir);
    private_postgres_t user = {.root = self->root, .user = self->user, .group = self->group};
    char *cluster = strdup (self->cluster);
    private_postgres_destroy (&self);
    pid_t other = fork (); //  Not before: it would inherit the lock
    if (other == 0) {
        s_become_server_user (&user);
        pause ();
        _exit (0);
    }
    char *text = zsys_sprintf ("%d\n%s\n", (int) other, cluster);
    s_write_file (cluster, "postmaster.pid", text);
    self = s_must_start (state_dir);
    assert (self->child);
    s_test_kept (self);
    private_postgres_destroy (&self);
    zstr_free (&text);
    free (cluster);
    kill (other, SIGKILL);
    waitpid (other, NULL, 0);
}

static void
s_test_interrupt (const char *state_dir)
{
    sigset_t term;
    sigset_t before;
    sigemptyset (&term);
    sigaddset (&term, SIGTERM);
    sigprocmask (SIG_BLOCK, &term, &before);
    raise (SIGTERM);
    s_must_refuse (state_dir, "asked to stop");
    int number;
    sigwait (&term, &number); //  Still there for main
    assert (number == SIGTERM);
    sigprocmask (SIG_SETMASK, &before, NULL);
}

static void
s_test_no_programs (void)
{
    static const char *const nowhere[] = {"/nonexistent/*/bin", NULL};
    private_postgres_t *self = (private_postgres_t *) zmalloc (sizeof (private_postgres_t));
    self->lock = -1;
    int rc = s_find_programs (self, "relative:/nonexistent", nowhere, 0);
    assert (rc == -1 && strstr (self->error, "install the package postgresql"));
    private_postgres_destroy (&self);
}

//  What cannot be used is refused, and left as it is.

static void
s_test_refusals (const char *parent, const char *state_dir)
{
    char *cluster = zsys_sprintf ("%s/cluster", state_dir);
    char *kept = zsys_sprintf ("%s/cluster.kept", state_dir);
    char *version = zsys_sprintf ("%s/PG_VERSION", cluster);
    rename (version, kept);
    s_must_refuse (state_dir, "is no PostgreSQL cluster");
    s_write_file (cluster, "PG_VERSION", "9\n");
    s_must_refuse (state_dir, "install the package postgresql-9; or move the data");
    rename (kept, version);

    char *path = zsys_sprintf ("%s/%0100d", parent, 0);
    s_must_refuse (path, "a path shorter by");
    zstr_free (&path);
    path = zsys_sprintf ("%s/a,b", parent);
    s_must_refuse (path, "has a comma");
    zstr_free (&path);
    path = zsys_sprintf ("%s/file", parent);
    s_write_file (parent, "file", "");
    s_must_refuse (path, "is not a folder");
    zstr_free (&path);
    s_must_refuse ("/tmp", "everybody may write");
    s_must_refuse ("/proc/breadboard", "could not make the folder");
    if (geteuid () == 0) {
        path = zsys_sprintf ("%s/closed", parent);
        mkdir (path, 0700);
        zstr_free (&path);
        path = zsys_sprintf ("%s/closed/below", parent);
        s_must_refuse (path, "who cannot enter");
        zstr_free (&path);
    }
    zstr_free (&version);
    zstr_free (&kept);
    zstr_free (&cluster);
}

void
private_postgres_test (bool verbose)
{
    printf (" * private_postgres: ");
    if (verbose)
        printf ("\n");
    else
        log_setup (LOG_LEVEL_ERROR, false);
    umask (022);
    s_test_no_programs ();
    char parent[] = "/tmp/private_postgres_test_XXXXXX";
    char *made = mkdtemp (parent);
    assert (made);
    chmod (parent, 0711); //  For root's server too
    //  Whatever a path may hold, in folders that are not there yet
    char *state_dir = zsys_sprintf ("%s/its/b\\o'a\"r d", parent);
    char *leftover = zsys_sprintf ("%s/cluster.new", state_dir);

    s_test_cut_short (state_dir, leftover);
    private_postgres_t *self = s_must_start (state_dir);
    int rc = access (leftover, F_OK);
    assert (rc != 0);
    s_test_cluster (self);
    char *holder = zsys_sprintf ("another board (process %d) holds", (int) getpid ());
    s_must_refuse (state_dir, holder);
    zstr_free (&holder);
    private_postgres_destroy (&self);
    assert (!self);
    private_postgres_destroy (&self); //  NULL is fine

    self = s_must_start (state_dir);
    s_test_kept (self);
    s_test_revive (self);
    private_postgres_destroy (&self);
    s_test_crash (state_dir);
    s_test_reused_pid (state_dir);
    s_test_interrupt (state_dir);
    s_test_refusals (parent, state_dir);

    //  Nothing is left running, nor behind
    private_postgres_t nobody = {.cluster = zsys_sprintf ("%s/cluster", state_dir)};
    assert (s_recorded_pid (&nobody) == 0);
    zstr_free (&nobody.cluster);
    char *argv[] = {"rm", "-rf", "--", parent, NULL};
    bool removed = s_run_tool (&nobody, argv);
    assert (removed);
    zstr_free (&leftover);
    zstr_free (&state_dir);
    log_setup (LOG_LEVEL_INFO, false);
    printf ("OK\n");
}
