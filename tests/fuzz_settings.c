//  fuzz_settings - any bytes as an ini file: settings or a sentence, and what is printed reads back
//
//  build      clang -D_GNU_SOURCE -I. -isystem `pg_config --includedir` -O1 -g
//             -fsanitize=fuzzer,address,undefined tests/fuzz_settings.c config/settings.c
//             http/utf8.c -lczmq -lpq -linih -o fuzz_settings
//  input      an ini file; start from config/breadboard.ini
//  file       a memfd, so that the bytes come in through settings_new () as a user's file does

#include "config/settings.h"

#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

//  The file that settings_new () opens by name; made once

static int s_handle = -1;
static char s_path[64];

static void
s_prepare (void)
{
    if (s_handle < 0) {
        s_handle = memfd_create ("settings", MFD_CLOEXEC);
        assert (s_handle >= 0);
        snprintf (s_path, sizeof (s_path), "/proc/self/fd/%d", s_handle);
    }
}

//  Returns NULL, with a sentence of one line that has been looked at, when the bytes are refused.

static settings_t *
s_read (const void *bytes, size_t size)
{
    int rc = ftruncate (s_handle, 0);
    assert (rc == 0);
    ssize_t written = pwrite (s_handle, bytes, size, 0);
    assert (written == (ssize_t) size);
    char *error = NULL;
    settings_t *self = settings_new (s_path, NULL, &error);
    assert (!self == !!error);
    if (error) {
        assert (strncmp (error, s_path, strlen (s_path)) == 0 && !strchr (error, '\n'));
        freen (error);
    }
    return self;
}

static char *
s_print (const settings_t *self)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream (&text, &size);
    assert (stream);
    settings_print (self, stream);
    fclose (stream);
    return text;
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    s_prepare ();
    settings_t *self = s_read (data, size);
    if (!self)
        return 0;
    char *text = s_print (self);
    settings_t *again = s_read (text, strlen (text));
    //  A URL with a masked password is written anew, and can grow past the longest value by that
    assert (again || strstr (text, "'***'"));
    if (again) {
        char *copy = s_print (again);
        assert (streq (copy, text));
        freen (copy);
        char *names = settings_keep_fixed (again, self);
        assert (streq (names, "") || strstr (text, "'***'"));
        freen (names);
    }
    freen (text);
    settings_destroy (&again);
    settings_destroy (&self);
    return 0;
}
