//  The board has threads when it starts a server again, so a child does nothing before its exec
//  that is not safe then.

#include "actors/programs.h"

#include "actors/postgres.h"

#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define SERVER_USER "postgres" //  Whom root's server runs as

//  Where distributions keep the programs out of $PATH: Debian's, and PostgreSQL's own RPMs
#define HOMES "{/usr/lib/postgresql/*,/usr/pgsql-*}/bin"

struct programs {
    uid_t user;
    gid_t group;
    char *folder; //  Owned; of initdb and postgres, NULL when there are none
    int major;    //  Their version
};

//  In the environment, PG* tells libpq and the programs of servers of the user's own, and this one
//  is the board's; and what the programs say is read, so it has to be in English.

static void
s_clean_environment (void)
{
    for (char **variable = environ; *variable;) {
        char *name = strndup (*variable, strcspn (*variable, "="));
        assert (name);
        if (strncmp (name, "PG", 2) != 0 || unsetenv (name) != 0)
            variable++;
        free (name);
    }
    setenv ("LC_ALL", "C", 1);
}

programs_t *
programs_new (char **error_p)
{
    assert (error_p);
    bool root = geteuid () == 0;
    const struct passwd *entry = root ? getpwnam (SERVER_USER) : NULL;
    if (root && !entry) {
        *error_p = strdup ("PostgreSQL does not run as root, and there is no user " SERVER_USER
                           " to run it as: install the package postgresql, which makes that user, "
                           "or run the board as an ordinary user");
        return NULL;
    }
    s_clean_environment ();
    programs_t *self = (programs_t *) zmalloc (sizeof (programs_t));
    self->user = entry ? entry->pw_uid : geteuid ();
    self->group = entry ? entry->pw_gid : getegid ();
    return self;
}

void
programs_destroy (programs_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        zstr_free (&(*self_p)->folder);
        freen (*self_p);
    }
}

uid_t
programs_user (const programs_t *self)
{
    assert (self);
    return self->user;
}

//  ------------------------------------------------------------------------
//  Running

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
    if (close_range (3, ~0U, 0) != 0) //  Linux before 5.9, and valgrind
        for (int descriptor = 3; descriptor < sysconf (_SC_OPEN_MAX); descriptor++)
            close (descriptor);
}

static bool
s_become_user (const programs_t *self)
{
    return (geteuid () != 0 || (setgroups (1, &self->group) == 0 && setgid (self->group) == 0 &&
                                setuid (self->user) == 0)) &&
           chdir ("/") == 0;
}

static pid_t
s_spawn (const programs_t *self, char *const argv[], int output, bool outlives)
{
    pid_t board = getpid ();
    pid_t pid = fork ();
    if (pid == 0) {
        s_leave_board (output);
        bool ready = s_become_user (self);
        if (!outlives) //  Behind the change of user, which would undo it; we may have died before
            ready = ready && prctl (PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid () == board;
        if (ready)
            execvp (argv[0], argv);
        static const char text[] = "error: could not run the program as the server's user\n";
        (void) !write (STDERR_FILENO, text, sizeof (text) - 1);
        _exit (127);
    }
    return pid;
}

bool
programs_run (const programs_t *self, char *const argv[], int output)
{
    assert (self && argv);
    pid_t pid = s_spawn (self, argv, output, false);
    int status = 0;
    return pid > 0 && TEMP_FAILURE_RETRY (waitpid (pid, &status, 0)) == pid && status == 0;
}

pid_t
programs_start (const programs_t *self, char *const argv[], int output)
{
    assert (self && argv);
    return s_spawn (self, argv, output, true);
}

//  ------------------------------------------------------------------------
//  Finding

//  Asks the postgres in a folder for its major version; 0 when that is no folder of the programs.

static int
s_ask_major (const programs_t *self, const char *folder)
{
    char *initdb = zsys_sprintf ("%s/initdb", folder);
    char *argv[] = {zsys_sprintf ("%s/postgres", folder), "--version", NULL};
    char answer[128] = ""; //  Less than a pipe holds
    int ends[2];
    if (access (initdb, X_OK) == 0 && access (argv[0], X_OK) == 0 && pipe2 (ends, O_CLOEXEC) == 0) {
        programs_run (self, argv, ends[1]);
        close (ends[1]);
        (void) !read (ends[0], answer, sizeof (answer) - 1);
        close (ends[0]);
    }
    zstr_free (&argv[0]);
    zstr_free (&initdb);
    int major = 0;
    return sscanf (answer, "postgres (PostgreSQL) %d", &major) == 1 ? major : 0;
}

static void
s_consider (programs_t *self, const char *folder, int wanted)
{
    int major = s_ask_major (self, folder);
    if (major > self->major && (wanted ? major == wanted : major >= POSTGRES_MAJOR_LEAST)) {
        zstr_free (&self->folder);
        self->folder = strdup (folder);
        assert (self->folder);
        self->major = major;
    }
}

//  The search path goes first: who put a server there wants that one.

static int
s_search (programs_t *self, const char *path, const char *homes, int wanted)
{
    char *copy = strdup (path ? path : "");
    assert (copy);
    char *rest = NULL;
    for (char *folder = strtok_r (copy, ":", &rest); folder; folder = strtok_r (NULL, ":", &rest))
        if (*folder == '/')
            s_consider (self, folder, wanted);
    free (copy);
    glob_t found;
    if (!self->folder && glob (homes, GLOB_BRACE, NULL, &found) == 0) {
        for (size_t index = 0; index < found.gl_pathc; index++)
            s_consider (self, found.gl_pathv[index], wanted);
        globfree (&found);
    }
    return self->major;
}

int
programs_find (programs_t *self, int wanted)
{
    assert (self);
    zstr_free (&self->folder);
    self->major = 0;
    return s_search (self, getenv ("PATH"), HOMES, wanted);
}

char *
programs_path (const programs_t *self, const char *name)
{
    assert (self && self->folder);
    return zsys_sprintf ("%s/%s", self->folder, name);
}

//  ------------------------------------------------------------------------
//  Self test

static void
s_test_find (programs_t *self)
{
    int major = programs_find (self, 0);
    assert (major >= POSTGRES_MAJOR_LEAST);
    char *path = programs_path (self, "initdb");
    assert (access (path, X_OK) == 0);
    zstr_free (&path);
    assert (programs_find (self, major) == major);
    assert (programs_find (self, 9) == 0);
    assert (s_search (self, "relative:/nonexistent", "/nonexistent/*/bin", 0) == 0);
    assert (s_search (self, NULL, "/nonexistent/*/bin", 0) == 0);
}

//  Runs a line of shell, and returns whether it succeeds.

static bool
s_shell (const programs_t *self, const char *line, int output)
{
    char *argv[] = {"sh", "-c", (char *) line, NULL};
    return programs_run (self, argv, output);
}

static void
s_test_run (const programs_t *self)
{
    assert (s_shell (self, "exit 0", -1));
    assert (!s_shell (self, "exit 1", -1));
    assert (!s_shell (self, "kill -9 $$", -1));
    char *missing[] = {"/nonexistent/postgres", NULL};
    assert (!programs_run (self, missing, -1));

    //  Whatever the board has blocked, ignored and open, at whatever place it is. Signals 32 and 33
    //  are the C library's own, which make ignores on the way, and of which TSan takes the second
    sigset_t term;
    sigemptyset (&term);
    sigaddset (&term, SIGTERM);
    sigprocmask (SIG_BLOCK, &term, NULL);
    signal (SIGPIPE, SIG_IGN);
    int ends[2];
    int rc = pipe (ends);
    assert (rc == 0);
    int high = fcntl (ends[0], F_DUPFD, 100); //  Where no shell has one of its own
    assert (high >= 100);
    char *line = zsys_sprintf (
        "test $(id -u) = %d -a $(id -G) = %d -a $PWD = / -a ! -t 0 &&"
        " ! test -e /proc/$$/fd/%d &&"
        " test $(grep -Ec '^Sig(Blk|Ign):.0+(1?80000000)?$' /proc/self/status) = 2 &&"
        " echo good",
        (int) self->user, (int) self->group, high);
    bool is_clean = s_shell (self, line, ends[1]);
    assert (is_clean);
    char answer[8] = "";
    ssize_t size = read (ends[0], answer, sizeof (answer) - 1);
    assert (size == 5 && streq (answer, "good\n"));
    zstr_free (&line);
    close (high);
    close (ends[0]);
    close (ends[1]);
    signal (SIGPIPE, SIG_DFL);
    sigprocmask (SIG_UNBLOCK, &term, NULL);
}

void
programs_test (bool verbose)
{
    printf (" * programs: ");
    if (verbose)
        printf ("\n");
    setenv ("PGSERVICE", "none", 1);
    setenv ("LC_ALL", "de_DE.UTF-8", 1);
    char *error = NULL;
    programs_t *self = programs_new (&error);
    assert (self && !error);
    const char *language = getenv ("LC_ALL");
    assert (!getenv ("PGSERVICE") && language && streq (language, "C"));
    assert (programs_user (self) != 0);
    s_test_find (self);
    s_test_run (self);
    char *argv[] = {"sleep", "600", NULL};
    pid_t pid = programs_start (self, argv, -1); //  Does not wait
    assert (pid > 0 && waitpid (pid, NULL, WNOHANG) == 0);
    kill (pid, SIGKILL);
    waitpid (pid, NULL, 0);
    programs_destroy (&self);
    assert (!self);
    programs_destroy (&self); //  NULL is fine
    printf ("OK\n");
}
