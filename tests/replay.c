//  replay - gives files to a fuzz target, one after the other, without libFuzzer
//
//  usage      fuzz_X FOLDER...: each file in them, by name
//  result     "N passed, 0 failed"; what fails ends the process, so the file named last is the one

#include <czmq.h>

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

//  A copy of exact size, so that a read past its end shows under ASan.

static void
s_play (const char *path)
{
    zchunk_t *chunk = zchunk_slurp (path, 0);
    assert (chunk);
    size_t size = zchunk_size (chunk);
    byte *copy = (byte *) malloc (size ? size : 1);
    assert (copy);
    memcpy (copy, zchunk_data (chunk), size);
    LLVMFuzzerTestOneInput (copy, size);
    free (copy);
    zchunk_destroy (&chunk);
}

static int
s_play_folder (const char *name)
{
    struct dirent **entries = NULL;
    int count = scandir (name, &entries, NULL, alphasort);
    int played = 0;
    for (int at = 0; at < count; at++) {
        if (*entries[at]->d_name != '.') {
            char *path = zsys_sprintf ("%s/%s", name, entries[at]->d_name);
            printf (" * %s\n", path);
            fflush (stdout);
            s_play (path);
            zstr_free (&path);
            played++;
        }
        free (entries[at]);
    }
    free (entries);
    return played;
}

int
main (int argc, char *argv[])
{
    int played = 0;
    for (int at = 1; at < argc; at++)
        played += s_play_folder (argv[at]);
    if (played == 0) {
        fprintf (stderr, "usage: %s FOLDER...\n", argv[0]);
        return 2;
    }
    printf ("%d passed, 0 failed\n", played);
    fflush (stdout);
    return 0;
}
