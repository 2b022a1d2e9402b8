//  embedded - the files that scripts/embed put into the binary: templates and assets
//
//  Constant data, so any thread may read it at any time.

#ifndef EMBEDDED_H_INCLUDED
#define EMBEDDED_H_INCLUDED

#include <stddef.h>

typedef struct {
    const char *path;          //  As in the source tree: "static/breadboard.css"
    const unsigned char *data; //  The file's bytes
    size_t size;
    const unsigned char *gzip; //  The same, gzipped; NULL where that is not smaller
    size_t gzip_size;
} embedded_t;

//  Sorted by path; ends with an entry whose path is NULL
extern const embedded_t embedded_files[];

#endif
