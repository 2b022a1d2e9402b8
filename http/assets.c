//  Everything is read once, at start, into a table by name. So a request can name nothing else, a
//  file that changes under us is never served in part, and its hash is known before anyone asks.
//  The table is a sorted array in the end: a lookup in a zhashx moves a cursor, and may even move
//  items, so threads could not share one.

#include "http/assets.h"

#include "config/embedded.h"
#include "config/folder.h"

#include <ctype.h>

#define FOLDER_IN_BINARY "static/"
//  Characters of the hash; 64 bits tell the versions of a file apart
#define ETAG_SIZE 16

//  An asset and what it owns
typedef struct {
    asset_t asset;
    const char *name; //  Borrowed from the table; NULL until that is complete
    zchunk_t *data;   //  Owned; NULL where the bytes are in the binary
    zchunk_t *gzip;   //  The same
    char etag[ETAG_SIZE + 1];
} entry_t;

struct assets {
    zhashx_t *entries;      //  Name to entry_t, which it owns
    const entry_t **sorted; //  By name; owned
    size_t size;
};

static void
s_entry_destroy (void **entry_p)
{
    entry_t *entry = (entry_t *) *entry_p;
    zchunk_destroy (&entry->data);
    zchunk_destroy (&entry->gzip);
    freen (*entry_p);
}

static const char *
s_type (const char *name)
{
    static const struct {
        const char *ending;
        const char *type;
    } types[] = {
        {".css", "text/css; charset=utf-8"},
        {".js", "text/javascript; charset=utf-8"},
        {".svg", "image/svg+xml"},
        {".png", "image/png"},
        {".jpg", "image/jpeg"},
        {".webp", "image/webp"},
        {".ico", "image/x-icon"},
        {".woff2", "font/woff2"},
        {".json", "application/json"},
        {".txt", "text/plain; charset=utf-8"},
    };
    const char *ending = strrchr (name, '.');
    for (size_t at = 0; ending && at < sizeof (types) / sizeof (types[0]); at++)
        if (streq (ending, types[at].ending))
            return types[at].type;
    return "application/octet-stream";
}

static void
s_set_etag (entry_t *entry)
{
    zdigest_t *digest = zdigest_new ();
    zdigest_update (digest, (const byte *) entry->asset.data, entry->asset.size);
    const char *hash = zdigest_string (digest);
    for (int at = 0; at < ETAG_SIZE; at++)
        entry->etag[at] = (char) tolower ((unsigned char) hash[at]);
    entry->asset.etag = entry->etag;
    zdigest_destroy (&digest);
}

//  Adds an asset to the table, in the place of one of that name.

static void
s_add (assets_t *self, const char *name, entry_t *entry)
{
    entry->asset.type = s_type (name);
    s_set_etag (entry);
    zhashx_update (self->entries, name, entry);
}

static void
s_add_embedded (assets_t *self)
{
    size_t prefix = strlen (FOLDER_IN_BINARY);
    for (const embedded_t *file = embedded_files; file->path; file++)
        if (strncmp (file->path, FOLDER_IN_BINARY, prefix) == 0) {
            entry_t *entry = (entry_t *) zmalloc (sizeof (entry_t));
            entry->asset.data = file->data;
            entry->asset.size = file->size;
            entry->asset.gzip = file->gzip;
            entry->asset.gzip_size = file->gzip_size;
            s_add (self, file->path + prefix, entry);
        }
}

static int
s_add_file (void *arg, const char *name, const char *path, zchunk_t **data_p, char **error_p)
{
    (void) error_p;
    assets_t *self = (assets_t *) arg;
    zchunk_t *data = *data_p;
    *data_p = NULL;
    entry_t *entry = (entry_t *) zmalloc (sizeof (entry_t));
    entry->data = data;
    entry->asset.data = zchunk_data (data);
    entry->asset.size = zchunk_size (data);
    char *gzip = zsys_sprintf ("%s.gz", path);
    if (zsys_file_exists (gzip) && (entry->gzip = zchunk_slurp (gzip, 0))) {
        entry->asset.gzip = zchunk_data (entry->gzip);
        entry->asset.gzip_size = zchunk_size (entry->gzip);
    }
    zstr_free (&gzip);
    s_add (self, name, entry);
    return 0;
}

//  Hidden files and folders are no assets, nor is what a name in an address could not hold.

static bool
s_is_asset_name (const char *name)
{
    size_t size = strlen (name);
    return *name != '.' && !(size > 3 && streq (name + size - 3, ".gz")) &&
           strspn (name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") ==
               size;
}

static int
s_compare (const void *left, const void *right)
{
    return strcmp ((*(const entry_t *const *) left)->name, (*(const entry_t *const *) right)->name);
}

static void
s_sort (assets_t *self)
{
    self->sorted = (const entry_t **) zmalloc ((zhashx_size (self->entries) + 1) *
                                               sizeof (const entry_t *));
    entry_t *entry = (entry_t *) zhashx_first (self->entries);
    for (; entry; entry = (entry_t *) zhashx_next (self->entries)) {
        entry->name = (const char *) zhashx_cursor (self->entries);
        self->sorted[self->size++] = entry;
    }
    qsort (self->sorted, self->size, sizeof (const entry_t *), s_compare);
}

assets_t *
assets_new (const char *folder, char **error_p)
{
    assets_t *self = (assets_t *) zmalloc (sizeof (assets_t));
    self->entries = zhashx_new ();
    zhashx_set_destructor (self->entries, s_entry_destroy);
    s_add_embedded (self);
    if (*folder &&
        folder_read (folder, "http.static", s_is_asset_name, s_add_file, self, error_p) != 0)
        assets_destroy (&self);
    else
        s_sort (self);
    return self;
}

void
assets_destroy (assets_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        zhashx_destroy (&(*self_p)->entries);
        freen ((*self_p)->sorted);
        freen (*self_p);
    }
}

const asset_t *
assets_find (const assets_t *self, const char *name)
{
    const entry_t *wanted = &(entry_t){.name = name};
    const entry_t **found = (const entry_t **) bsearch (&wanted, self->sorted, self->size,
                                                        sizeof (const entry_t *), s_compare);
    return found ? &(*found)->asset : NULL;
}

char *
assets_url (const assets_t *self, const char *name)
{
    const asset_t *asset = assets_find (self, name);
    assert (asset);
    return zsys_sprintf ("/static/%s?v=%s", name, asset->etag);
}

//  ------------------------------------------------------------------------
//  Self test

static char *
s_test_folder (void)
{
    char *folder = folder_test_new ();
    folder_test_write (folder, "page.css", "body {}");
    folder_test_write (folder, "page.css.gz", "gzipped");
    folder_test_write (folder, "empty.bin", "");
    folder_test_write (folder, ".hidden", "secret");
    zsys_dir_create ("%s/deep", folder);
    folder_test_write (folder, "deep/file.js", "deep");
    return folder;
}

//  Removes the folder; zdir_remove () would leave what is hidden, and what is deep.

static void
s_test_remove (const char *folder)
{
    static const char *const names[] = {"page.css",     "page.css.gz", "empty.bin", ".hidden",
                                        "deep/file.js", "deep",        ""};
    for (size_t at = 0; at < sizeof (names) / sizeof (names[0]); at++) {
        char *path = zsys_sprintf ("%s/%s", folder, names[at]);
        int rc = remove (path);
        assert (rc == 0);
        zstr_free (&path);
    }
}

void
assets_test (bool verbose)
{
    printf (" * assets: ");
    char *folder = s_test_folder ();
    char *error = NULL;
    assets_t *assets = assets_new (folder, &error);
    assert (assets && !error);

    const asset_t *asset = assets_find (assets, "page.css");
    assert (asset && asset->size == 7 && memcmp (asset->data, "body {}", 7) == 0);
    assert (asset->gzip_size == 7 && memcmp (asset->gzip, "gzipped", 7) == 0);
    assert (streq (asset->type, "text/css; charset=utf-8"));
    assert (strlen (asset->etag) == ETAG_SIZE);
    char *url = assets_url (assets, "page.css");
    if (verbose)
        printf ("%s ", url);
    assert (strncmp (url, "/static/page.css?v=", 19) == 0 && streq (url + 19, asset->etag));
    zstr_free (&url);

    asset = assets_find (assets, "empty.bin");
    assert (asset && asset->size == 0 && !asset->gzip);
    assert (streq (asset->type, "application/octet-stream"));
    assert (!assets_find (assets, "page.css.gz")); //  Only as page.css, when gzip is accepted
    assert (!assets_find (assets, ".hidden"));
    assert (!assets_find (assets, "deep/file.js"));
    assert (!assets_find (assets, "file.js"));
    assert (!assets_find (assets, "../assets.c"));
    assert (!assets_find (assets, ""));
    assets_destroy (&assets);
    assets_destroy (&assets);

    s_test_remove (folder);
    assert (!assets_new (folder, &error)); //  The folder is gone
    assert (strstr (error, "http.static") && strstr (error, folder));
    zstr_free (&error);
    zstr_free (&folder);

    //  From the binary; whatever it holds must be found again
    assets = assets_new ("", &error);
    assert (assets);
    for (const embedded_t *file = embedded_files; file->path; file++)
        if (strncmp (file->path, FOLDER_IN_BINARY, 7) == 0)
            assert (assets_find (assets, file->path + 7)->data == file->data);
    assets_destroy (&assets);
    printf ("OK\n");
}
