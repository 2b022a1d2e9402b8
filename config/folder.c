#include "config/folder.h"

static int
s_read_file (zfile_t *file, const char *name, folder_reader_fn *reader, void *arg, char **error_p)
{
    const char *path = zfile_filename (file, NULL);
    zchunk_t *data = zchunk_slurp (path, 0);
    if (!data) {
        *error_p = zsys_sprintf ("%s cannot be read: %s", path, strerror (errno));
        return -1;
    }
    return reader (arg, name, path, &data, error_p);
}

int
folder_read (const char *path, const char *setting, folder_filter_fn *filter,
             folder_reader_fn *reader, void *arg, char **error_p)
{
    zdir_t *folder = zsys_file_mode (path) != -1 ? zdir_new (path, "-") : NULL;
    if (!folder) {
        *error_p = zsys_sprintf ("%s: folder %s cannot be read", setting, path);
        return -1;
    }
    int rc = 0;
    zlist_t *files = zdir_list (folder);
    for (zfile_t *file = (zfile_t *) zlist_first (files); file && rc == 0;
         file = (zfile_t *) zlist_next (files)) {
        const char *name = zfile_filename (file, path);
        if (filter (name))
            rc = s_read_file (file, name, reader, arg, error_p);
    }
    zlist_destroy (&files);
    zdir_destroy (&folder);
    return rc;
}

//  ------------------------------------------------------------------------
//  Self test

char *
folder_test_new (void)
{
    char *path = strdup (P_tmpdir "/breadboard-XXXXXX");
    char *made = path ? mkdtemp (path) : NULL;
    assert (made);
    chmod (path, 0711);
    return path;
}

void
folder_test_write (const char *folder, const char *name, const char *text)
{
    char *path = zsys_sprintf ("%s/%s", folder, name);
    FILE *stream = fopen (path, "w");
    assert (stream);
    fputs (text, stream);
    fclose (stream);
    zstr_free (&path);
}

static bool
s_test_filter (const char *name)
{
    return *name == 'a';
}

static int
s_test_reader (void *arg, const char *name, const char *path, zchunk_t **data_p, char **error_p)
{
    assert (streq (name, "a.txt") && strstr (path, "/a.txt"));
    *(size_t *) arg += zchunk_size (*data_p);
    bool refused = zchunk_size (*data_p) > 0 && *zchunk_data (*data_p) == '!';
    if (refused)
        *error_p = strdup ("it is refused");
    zchunk_destroy (data_p);
    return refused ? -1 : 0;
}

void
folder_test (bool verbose)
{
    printf (" * folder: ");
    if (verbose)
        printf ("\n");
    char *path = folder_test_new ();
    folder_test_write (path, "a.txt", "bread");
    folder_test_write (path, "b.txt", "not wanted");
    size_t size = 0;
    char *error = NULL;
    int rc = folder_read (path, "http.static", s_test_filter, s_test_reader, &size, &error);
    assert (rc == 0 && size == 5);

    folder_test_write (path, "a.txt", "!bad!");
    rc = folder_read (path, "http.static", s_test_filter, s_test_reader, &size, &error);
    assert (rc == -1 && streq (error, "it is refused"));
    zstr_free (&error);

    zdir_t *folder = zdir_new (path, "-");
    zdir_remove (folder, true);
    zdir_destroy (&folder);
    rc = folder_read (path, "http.static", s_test_filter, s_test_reader, &size, &error);
    assert (rc == -1 && strstr (error, "http.static: folder /tmp/") == error);
    zstr_free (&error);
    zstr_free (&path);
    printf ("OK\n");
}
