//  A line is made in one buffer on the stack and written with one write (2): the kernel keeps lines
//  apart, so no lock is needed. Whatever is not printable is escaped, in text as in JSON, so
//  nothing that found its way into a line can forge another one. When the disk that holds the log
//  is full, the line is lost and the board goes on.

#include "config/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4096

static const char *const s_names[] = {"debug", "info", "warning", "error"};

static atomic_int s_least = LOG_LEVEL_INFO;
static atomic_bool s_json = false;

void
log_setup (log_level_t least, bool json)
{
    atomic_store (&s_least, (int) least);
    atomic_store (&s_json, json);
}

//  Appends text to the line, control characters as \uXXXX, and in JSON quotes and backslashes
//  escaped too. Leaves room for the line's end.

static size_t
s_append_escaped (char *line, size_t size, const char *text, bool json)
{
    for (; *text && size < LINE_MAX_BYTES - 16; text++) {
        unsigned char byte = (unsigned char) *text;
        if (byte < 0x20 || byte == 0x7F)
            size += (size_t) snprintf (line + size, 8, "\\u%04x", byte);
        else {
            if (json && (byte == '"' || byte == '\\'))
                line[size++] = '\\';
            line[size++] = (char) byte;
        }
    }
    return size;
}

void
log_write (log_level_t level, const char *format, ...)
{
    if ((int) level < atomic_load (&s_least))
        return;
    char text[LINE_MAX_BYTES];
    va_list arguments;
    va_start (arguments, format);
    vsnprintf (text, sizeof (text), format, arguments);
    va_end (arguments);

    struct timespec now;
    clock_gettime (CLOCK_REALTIME, &now);
    struct tm utc;
    gmtime_r (&now.tv_sec, &utc);
    char stamp[32];
    strftime (stamp, sizeof (stamp), "%Y-%m-%dT%H:%M:%S", &utc);
    int ms = (int) (now.tv_nsec / 1000000);

    bool json = atomic_load (&s_json);
    char line[LINE_MAX_BYTES];
    size_t size = (size_t) snprintf (line, sizeof (line),
                                     json ? "{\"time\":\"%s.%03dZ\",\"level\":\"%s\",\"message\":\""
                                          : "%s.%03dZ %s ",
                                     stamp, ms, s_names[level]);
    size = s_append_escaped (line, size, text, json);
    size += (size_t) snprintf (line + size, sizeof (line) - size, json ? "\"}\n" : "\n");
    ssize_t written;
    do
        written = write (STDERR_FILENO, line, size);
    while (written < 0 && errno == EINTR);
}

//  ------------------------------------------------------------------------
//  Self test

//  Runs log_write () with stderr turned into a pipe; returns what it wrote, caller's to free.

static char *
s_capture (log_level_t level, const char *text)
{
    int ends[2];
    int rc = pipe (ends);
    assert (rc == 0);
    int saved = dup (STDERR_FILENO);
    dup2 (ends[1], STDERR_FILENO);
    log_write (level, "%s", text);
    dup2 (saved, STDERR_FILENO);
    close (saved);
    close (ends[1]);
    char *line = (char *) zmalloc (LINE_MAX_BYTES + 1);
    ssize_t size = read (ends[0], line, LINE_MAX_BYTES);
    assert (size >= 0);
    close (ends[0]);
    return line;
}

void
log_test (bool verbose)
{
    printf (" * log: ");
    log_setup (LOG_LEVEL_INFO, false);
    char *line = s_capture (LOG_LEVEL_WARNING, "disk: nearly full");
    if (verbose)
        printf ("%s", line);
    assert (strstr (line, "Z warning disk: nearly full\n"));
    freen (line);

    line = s_capture (LOG_LEVEL_DEBUG, "not wanted"); //  Below the level
    assert (streq (line, ""));
    freen (line);

    line = s_capture (LOG_LEVEL_INFO, "two\nlines"); //  Nobody forges a line
    assert (strstr (line, "two\\u000alines\n"));
    freen (line);

    log_setup (LOG_LEVEL_DEBUG, true);
    line = s_capture (LOG_LEVEL_DEBUG, "a \"quoted\" word");
    assert (strstr (line, "\"level\":\"debug\",\"message\":\"a \\\"quoted\\\" word\"}\n"));
    freen (line);

    char *large = (char *) zmalloc (3 * LINE_MAX_BYTES);
    memset (large, 'x', 3 * LINE_MAX_BYTES - 1);
    line = s_capture (LOG_LEVEL_ERROR, large); //  Cut, and still one whole line
    assert (strlen (line) < LINE_MAX_BYTES && strstr (line, "x\"}\n"));
    freen (line);
    freen (large);
    log_setup (LOG_LEVEL_INFO, false);
    printf ("OK\n");
}
