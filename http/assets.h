//  assets - the files under /static/: from the binary, or from a folder that overrides them
//
//  thread     built by main; never changed once built, so any thread may read it
//  safety     the files are read at start, and a name is looked up among those: no path can leave

#ifndef ASSETS_H_INCLUDED
#define ASSETS_H_INCLUDED

#include <czmq.h>

typedef struct {
    const void *data;
    size_t size;
    const void *gzip; //  NULL where there is none
    size_t gzip_size;
    const char *type; //  Media type, "text/css; charset=utf-8"
    const char *etag; //  A hash of the data, without quotes
} asset_t;

typedef struct assets assets_t;

//  Reads each file of the folder ("": none); NAME.gz beside NAME is its gzipped copy. Assets that
//  the folder lacks are those in the binary; what is hidden, or in folders below, is passed over.
//  Returns NULL when the folder cannot be read, and then *error_p is a sentence, caller's to free.
assets_t *assets_new (const char *folder, char **error_p);

void assets_destroy (assets_t **self_p);

//  The asset called name, "breadboard.css"; NULL when there is none.
const asset_t *assets_find (const assets_t *self, const char *name);

//  "/static/NAME?v=ETAG", which may be cached for ever; caller frees. The name must exist.
char *assets_url (const assets_t *self, const char *name);

void assets_test (bool verbose);

#endif
