//  selftest - runs the class tests, in czmq's manner
//
//  usage      breadboard_selftest [--verbose] [--list] [--test CLASS]
//  process    each test is a process of its own, so that one that fails costs no other its run
//  result     a line for each test, then "N passed, M failed"; exit status 1 when one failed

#include "config/log.h"

#include <sys/wait.h>

typedef struct {
    const char *name;
    void (*test) (bool verbose);
} class_t;

//  In the order in which they rest on each other
static const class_t s_classes[] = {
    {"log", log_test},
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
