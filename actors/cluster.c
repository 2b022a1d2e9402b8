//  What can go wrong here is mostly what an earlier run left behind, so each step is made such that
//  kill -9 at any moment leaves a state that the next run understands:
//
//  - The lock is flock'ed, so it ends with its holder; the pid in it serves the refusal's sentence.
//  - initdb works in cluster.new, which is renamed when complete: a folder named cluster is whole.
//    initdb dies with us, so that no orphan writes into the next run's cluster.new.
//
//  Who may connect is decided by the file system: the socket lies in a folder of mode 0700 that the
//  server's user owns, so that nobody else comes near it but root; pg_hba.conf says trust. Peer
//  would add nothing but a map of names that must follow whoever runs the board (root's board is
//  not the user of root's server). For root, state_dir itself stays root's (0711), so that the
//  server's user cannot put anything in the way of what root does there, and what root must do in
//  that user's folders, a child does after it has become that user.
//
//  Static functions that can fail return NULL, or the sentence for the user, caller's to free.

#include "actors/cluster.h"
#include "config/folder.h"
#include "config/log.h"

#include <fcntl.h>
#include <libgen.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

struct cluster {
    programs_t *programs; //  Borrowed
    char *folder;         //  Owned; state_dir, absolute
    char *data;           //  Owned; folder/cluster
    char *socket;         //  Owned; folder/socket
    char *log;            //  Owned; folder/postgres.log
    off_t log_start;      //  Its size when it was opened last
    int lock;             //  Descriptor, -1 when there is none
};

//  ------------------------------------------------------------------------
//  The log

int
cluster_open_log (cluster_t *self, char **error_p)
{
    assert (self && error_p);
    int log = open (self->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (log < 0)
        *error_p = zsys_sprintf ("could not write %s: %s: see who owns it, and whether the disk is"
                                 " full",
                                 self->log, strerror (errno));
    else
        self->log_start = lseek (log, 0, SEEK_END);
    return log;
}

//  That is the last error, since initdb and postgres say more after it; else the last line.

char *
cluster_last_words (const cluster_t *self)
{
    assert (self);
    char *words = NULL;
    bool is_error = false;
    char *line = NULL;
    size_t size = 0;
    FILE *log = fopen (self->log, "re");
    if (log)
        fseeko (log, self->log_start, SEEK_SET);
    while (log && getline (&line, &size, log) > 0) {
        bool error = strstr (line, "FATAL:") || strstr (line, "PANIC:") || strstr (line, "error:");
        if (error || !is_error) {
            zstr_free (&words);
            words = zsys_sprintf ("%.*s (see %s)", (int) strcspn (line, "\n"), line, self->log);
            is_error = error;
        }
    }
    free (line);
    if (log)
        fclose (log);
    return words ? words : zsys_sprintf ("no reason given (see %s)", self->log);
}

//  ------------------------------------------------------------------------
//  The folder and the lock

//  A socket's path has a limit that nothing lifts, and libpq takes a comma for the end of a host.

static char *
s_check_socket_path (const cluster_t *self)
{
    size_t most = sizeof (((struct sockaddr_un *) NULL)->sun_path) - 1;
    size_t needed = strlen (self->socket) + strlen ("/.s.PGSQL." CLUSTER_PORT);
    if (needed > most)
        return zsys_sprintf ("the path of the socket in %s would have %zu bytes, and the system "
                             "allows %zu: give database.state_dir a path shorter by %zu",
                             self->socket, needed, most, needed - most);
    if (strchr (self->socket, ','))
        return zsys_sprintf ("%s has a comma in its path, which PostgreSQL's clients cannot use: "
                             "give database.state_dir another path",
                             self->folder);
    return NULL;
}

static char *
s_check_folder (const cluster_t *self)
{
    struct stat status;
    if (stat (self->folder, &status) != 0 || !S_ISDIR (status.st_mode))
        return zsys_sprintf ("%s is not a folder: give database.state_dir another path",
                             self->folder);
    if (status.st_mode & S_IWOTH)
        return zsys_sprintf ("everybody may write to %s, so it is no place for a database: give "
                             "database.state_dir a folder in it",
                             self->folder);
    char *argv[] = {"test", "-x", self->folder, NULL};
    if (!programs_run (self->programs, argv, -1))
        return zsys_sprintf ("the server would run as user %d, who cannot enter %s: allow that "
                             "(chmod o+x) on it and each folder above it, or give "
                             "database.state_dir another path",
                             (int) programs_user (self->programs), self->folder);
    return NULL;
}

//  Makes state_dir, parents included, and derives our paths from it.

static char *
s_open_folder (cluster_t *self, const char *state_dir)
{
    char *copy = strdup (state_dir);
    assert (copy);
    zsys_dir_create ("%s", dirname (copy)); //  When that fails, so does the next call
    free (copy);
    if (mkdir (state_dir, 0700) == 0 ? chmod (state_dir, geteuid () == 0 ? 0711 : 0700) == 0
                                     : errno == EEXIST)
        self->folder = realpath (state_dir, NULL);
    if (!self->folder)
        return zsys_sprintf ("could not make the folder %s: %s: make it, or give "
                             "database.state_dir another path",
                             state_dir, strerror (errno));
    self->data = zsys_sprintf ("%s/cluster", self->folder);
    self->socket = zsys_sprintf ("%s/socket", self->folder);
    self->log = zsys_sprintf ("%s/postgres.log", self->folder);
    char *wrong = s_check_socket_path (self);
    return wrong ? wrong : s_check_folder (self);
}

static char *
s_name_holder (const cluster_t *self)
{
    char holder[32] = "";
    (void) !pread (self->lock, holder, sizeof (holder) - 1, 0);
    return zsys_sprintf ("another board (process %s) holds %s: stop it, or give this one another "
                         "database.state_dir",
                         holder, self->folder);
}

static char *
s_lock (cluster_t *self)
{
    char *path = zsys_sprintf ("%s/lock", self->folder);
    char *wrong = NULL;
    self->lock = open (path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (self->lock < 0 || flock (self->lock, LOCK_EX | LOCK_NB) != 0 ||
        ftruncate (self->lock, 0) != 0 || dprintf (self->lock, "%d", (int) getpid ()) < 0)
        wrong = errno == EWOULDBLOCK
                    ? s_name_holder (self)
                    : zsys_sprintf ("could not lock %s: %s: run the board as the user who owns "
                                    "that folder, or give database.state_dir another path",
                                    path, strerror (errno));
    zstr_free (&path);
    return wrong;
}

//  Makes a folder, or takes the one that is there, for the server's user alone.

static char *
s_own_folder (const cluster_t *self, const char *path)
{
    char *wrong = NULL;
    int folder = -1;
    if (mkdir (path, 0700) == 0 || errno == EEXIST)
        folder = open (path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0 || fchown (folder, programs_user (self->programs), (gid_t) -1) != 0 ||
        fchmod (folder, 0700) != 0)
        wrong = zsys_sprintf ("could not make the folder %s: %s: if something else is there, move "
                              "it away",
                              path, strerror (errno));
    if (folder >= 0)
        close (folder);
    return wrong;
}

//  ------------------------------------------------------------------------
//  The data

//  Sets *major_p to the major version of the data, or to 0 when there is none yet.

static char *
s_read_major (const cluster_t *self, int *major_p)
{
    assert (self->data);
    *major_p = 0;
    struct stat status;
    if (stat (self->data, &status) != 0)
        return NULL;
    uid_t user = programs_user (self->programs);
    if (status.st_uid != user)
        return zsys_sprintf ("%s belongs to user %d, but its server would run as user %d: run the "
                             "board as its owner, or as root after chown -R",
                             self->data, (int) status.st_uid, (int) user);
    char *path = zsys_sprintf ("%s/PG_VERSION", self->data);
    FILE *file = fopen (path, "re");
    bool is_read = file && fscanf (file, "%d", major_p) == 1 && *major_p > 0;
    if (file)
        fclose (file);
    zstr_free (&path);
    return is_read ? NULL
                   : zsys_sprintf ("%s is there, but is no PostgreSQL cluster: move it away, or "
                                   "give database.state_dir another path",
                                   self->data);
}

static char *
s_no_programs (const cluster_t *self, int major)
{
    if (major == 0)
        return strdup ("no PostgreSQL server, version 14 or newer, is in $PATH or "
                       "/usr/lib/postgresql: install the package postgresql, or set database.url "
                       "to a server that you have");
    return zsys_sprintf ("%s was made by PostgreSQL %d, whose server is not installed: install the "
                         "package postgresql-%d; or move the data to another version: pg_dump it "
                         "with the old server, move the folder aside, start the board, and restore "
                         "with psql over the socket in %s; or use pg_upgrade, while both are "
                         "installed",
                         self->data, major, major, self->socket);
}

//  Removes what an initdb that was cut short has left. A process of PostgreSQL's that it had
//  started may still be writing for a moment, hence the tries. As the server's user rm can empty
//  the folder, and where that lies in root's, not remove it.

static char *
s_remove_leftover (const cluster_t *self, char *path)
{
    char *argv[] = {"rm", "-rf", "--", path, NULL};
    for (int tries = 0; tries < 20; tries++) {
        programs_run (self->programs, argv, -1);
        if (remove (path) == 0 || errno == ENOENT)
            return NULL;
        zclock_sleep (100);
    }
    return zsys_sprintf ("could not remove %s, which an earlier start left: %s: remove it", path,
                         strerror (errno));
}

static char *
s_run_initdb (cluster_t *self, char *path)
{
    char *wrong = NULL;
    int log = cluster_open_log (self, &wrong);
    if (log < 0)
        return wrong;
    char *initdb = programs_path (self->programs, "initdb");
    char *argv[] = {initdb,
                    "--pgdata",
                    path,
                    "--username=postgres",
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                    "--data-checksums",
                    "--auth-local=trust",
                    "--auth-host=reject",
                    NULL};
    if (!programs_run (self->programs, argv, log)) {
        char *words = cluster_last_words (self);
        wrong = zsys_sprintf ("could not make a cluster in %s: %s", self->folder, words);
        zstr_free (&words);
    }
    close (log);
    zstr_free (&initdb);
    return wrong;
}

//  Gives the finished data its name, so that it lasts.

static char *
s_rename_data (const cluster_t *self, const char *path)
{
    int folder = open (self->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char *wrong = NULL;
    if (folder < 0 || rename (path, self->data) != 0 || fsync (folder) != 0)
        wrong = zsys_sprintf ("could not name the new cluster %s: %s", self->data,
                              strerror (errno));
    if (folder >= 0)
        close (folder);
    return wrong;
}

static char *
s_fill (cluster_t *self, char *path)
{
    char *wrong = s_remove_leftover (self, path);
    if (!wrong)
        wrong = s_own_folder (self, path);
    return wrong ? wrong : s_run_initdb (self, path);
}

//  A process that an initdb had started before it was killed may come so late that it enters the
//  new folder, and there is in the way of ours. It does not stay, hence the second try.

static char *
s_make_data (cluster_t *self)
{
    log_info ("private PostgreSQL: making a cluster in %s, which takes some seconds", self->data);
    char *path = zsys_sprintf ("%s.new", self->data);
    char *wrong = s_fill (self, path);
    if (wrong) {
        zstr_free (&wrong);
        wrong = s_fill (self, path);
    }
    if (!wrong)
        wrong = s_rename_data (self, path);
    zstr_free (&path);
    return wrong;
}

//  ------------------------------------------------------------------------
//  The class

cluster_t *
cluster_new (const char *state_dir, programs_t *programs, char **error_p)
{
    assert (state_dir && programs && error_p);
    cluster_t *self = (cluster_t *) zmalloc (sizeof (cluster_t));
    self->programs = programs;
    self->lock = -1;
    int major = 0;
    char *wrong = s_open_folder (self, state_dir);
    if (!wrong)
        wrong = s_lock (self);
    if (!wrong)
        wrong = s_read_major (self, &major);
    if (!wrong && programs_find (programs, major) == 0)
        wrong = s_no_programs (self, major);
    if (!wrong)
        wrong = s_own_folder (self, self->socket);
    if (!wrong && major == 0)
        wrong = s_make_data (self);
    if (wrong)
        cluster_destroy (&self);
    *error_p = wrong;
    return self;
}

void
cluster_destroy (cluster_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        cluster_t *self = *self_p;
        //  The file stays: were it removed, two boards could hold locks on two files of one name
        if (self->lock >= 0)
            close (self->lock);
        zstr_free (&self->log);
        zstr_free (&self->socket);
        zstr_free (&self->data);
        zstr_free (&self->folder);
        freen (*self_p);
    }
}

const char *
cluster_data (const cluster_t *self)
{
    assert (self);
    return self->data;
}

const char *
cluster_socket (const cluster_t *self)
{
    assert (self);
    return self->socket;
}

//  ------------------------------------------------------------------------
//  Self test

static cluster_t *
s_must_open (const char *state_dir, programs_t *programs)
{
    char *error = NULL;
    cluster_t *self = cluster_new (state_dir, programs, &error);
    if (error)
        fprintf (stderr, "%s\n", error);
    assert (self && !error);
    return self;
}

//  Asserts that the folder is refused for the reason given.

static void
s_must_refuse (const char *state_dir, programs_t *programs, const char *reason)
{
    char *error = NULL;
    cluster_t *self = cluster_new (state_dir, programs, &error);
    assert (!self);
    if (!strstr (error, reason))
        fprintf (stderr, "%s\n", error);
    assert (strstr (error, reason));
    zstr_free (&error);
}

static void
s_write_file (const char *path, const char *text)
{
    FILE *file = fopen (path, "w");
    assert (file);
    fputs (text, file);
    fclose (file);
}

//  Of an initdb that is killed in the middle, with the board, nothing is used.

static void
s_test_cut_short (const char *state_dir, programs_t *programs)
{
    pid_t board = fork ();
    assert (board >= 0);
    if (board == 0) {
        cluster_t *cut = s_must_open (state_dir, programs);
        pause ();
        _exit (cut ? 0 : 1);
    }
    char *begun = zsys_sprintf ("%s/cluster.new/base", state_dir);
    for (int tries = 0; tries < 500 && access (begun, F_OK) != 0; tries++)
        zclock_sleep (20);
    assert (access (begun, F_OK) == 0);
    kill (board, SIGKILL);
    waitpid (board, NULL, 0);
    cluster_t *self = s_must_open (state_dir, programs);
    assert (access (begun, F_OK) != 0 && access (cluster_data (self), F_OK) == 0);
    cluster_destroy (&self);
    zstr_free (&begun);
}

static mode_t
s_mode (const char *path, uid_t owner)
{
    struct stat status;
    int rc = stat (path, &status);
    assert (rc == 0 && status.st_uid == owner);
    return status.st_mode & 0777;
}

static void
s_test_made (const char *state_dir, programs_t *programs)
{
    cluster_t *self = s_must_open (state_dir, programs);
    uid_t user = programs_user (programs);
    assert (s_mode (state_dir, geteuid ()) == (geteuid () == 0 ? 0711 : 0700));
    assert (s_mode (cluster_data (self), user) == 0700);
    assert (s_mode (cluster_socket (self), user) == 0700);
    assert (s_mode (self->log, geteuid ()) == 0600);
    char *holder = zsys_sprintf ("another board (process %d) holds", (int) getpid ());
    s_must_refuse (state_dir, programs, holder);
    zstr_free (&holder);
    cluster_destroy (&self);
    assert (!self);
    cluster_destroy (&self); //  NULL is fine
}

static void
s_check_words (cluster_t *self, const char *written, const char *expected)
{
    char *error = NULL;
    int log = cluster_open_log (self, &error);
    assert (log >= 0 && !error);
    ssize_t size = write (log, written, strlen (written));
    assert (size == (ssize_t) strlen (written));
    close (log);
    char *words = cluster_last_words (self);
    assert (strncmp (words, expected, strlen (expected)) == 0 && strstr (words, self->log));
    zstr_free (&words);
}

static void
s_test_log (const char *state_dir, programs_t *programs)
{
    cluster_t *self = s_must_open (state_dir, programs);
    s_check_words (self, "FATAL:  it is cold\nLOG:  down\n", "FATAL:  it is cold");
    s_check_words (self, "initdb: error: no room\nremoving\n", "initdb: error: no room");
    s_check_words (self, "postgres: sorry\n", "postgres: sorry"); //  Of that start alone
    s_check_words (self, "", "no reason given");
    cluster_destroy (&self);
}

//  Data that cannot be used is refused, and left as it is.

static void
s_test_foreign_data (const char *state_dir, programs_t *programs)
{
    cluster_t *self = s_must_open (state_dir, programs);
    char *version = zsys_sprintf ("%s/PG_VERSION", cluster_data (self));
    char *kept = zsys_sprintf ("%s/kept", state_dir);
    char *words = s_no_programs (self, 0);
    assert (strstr (words, "install the package postgresql,"));
    zstr_free (&words);
    cluster_destroy (&self);

    rename (version, kept);
    s_must_refuse (state_dir, programs, "is no PostgreSQL cluster");
    s_write_file (version, "9\n");
    s_must_refuse (state_dir, programs, "install the package postgresql-9; or move the data");
    rename (kept, version);
    self = s_must_open (state_dir, programs);
    if (geteuid () == 0) {
        int rc = chown (cluster_data (self), 0, 0);
        assert (rc == 0);
        cluster_destroy (&self);
        s_must_refuse (state_dir, programs, "belongs to user 0");
    }
    cluster_destroy (&self);
    zstr_free (&version);
    zstr_free (&kept);
}

static void
s_test_bad_folders (programs_t *programs)
{
    mkdir ("closed", 0600);
    s_write_file ("file", "");
    mkdir ("blocked", 0711);
    s_write_file ("blocked/socket", "");
    s_must_refuse ("closed", programs, "who cannot enter");
    s_must_refuse ("file", programs, "is not a folder");
    s_must_refuse ("blocked", programs, "move it away");
    s_must_refuse ("a,b", programs, "has a comma");
    char *path = zsys_sprintf ("%0100d", 0);
    s_must_refuse (path, programs, "a path shorter by");
    zstr_free (&path);
    s_must_refuse ("/tmp", programs, "everybody may write");
    s_must_refuse ("/proc/breadboard", programs, "could not make the folder");
}

void
cluster_test (bool verbose)
{
    printf (" * cluster: ");
    if (verbose)
        printf ("\n");
    else
        log_setup (LOG_LEVEL_ERROR, false);
    umask (022);
    char *parent = folder_test_new (); //  For root's server too
    int rc = chdir (parent);
    assert (rc == 0);
    char *error = NULL;
    programs_t *programs = programs_new (&error);
    assert (programs && !error);
    const char *state_dir = "its/board"; //  Neither is there yet
    s_test_cut_short (state_dir, programs);
    s_test_made (state_dir, programs);
    s_test_log (state_dir, programs);
    s_test_foreign_data (state_dir, programs);
    s_test_bad_folders (programs);
    programs_destroy (&programs);
    zdir_t *folder = zdir_new (parent, NULL);
    zdir_remove (folder, true);
    zdir_destroy (&folder);
    assert (access (parent, F_OK) != 0);
    zstr_free (&parent);
    printf ("OK\n");
}
