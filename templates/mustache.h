//  mustache - the template language, compiled once, rendered often
//
//  language   the Mustache specification's required modules: interpolation, sections, inverted
//             sections, comments, partials, delimiters; {{name}} escapes HTML, {{{name}}} does not
//  thread     build in one thread; once built it never changes, so any thread may render from it
//  data       jansson values, only read
//  limits     rendering always ends: partials and sections go 128 deep, a text is at most 64 MiB;
//             what would be more is left out

#ifndef MUSTACHE_H_INCLUDED
#define MUSTACHE_H_INCLUDED

#include <czmq.h>
#include <jansson.h>

//  A set of named templates that may include each other as partials
typedef struct mustache mustache_t;

mustache_t *mustache_new (void);

//  Takes NULL and half-built sets.
void mustache_destroy (mustache_t **self_p);

//  Compiles source, size bytes, as the template name; a template of that name is replaced.
//  Returns 0, or -1 when it is broken: then mustache_error () tells where and why.
int mustache_add (mustache_t *self, const char *name, const char *source, size_t size);

//  Returns 0 when every partial that a template names is in the set, or -1, see mustache_error ().
//  (The language itself renders an absent partial as nothing.)
int mustache_check (mustache_t *self);

//  The last failure as "NAME:LINE: REASON", borrowed until the next call; "" before any.
const char *mustache_error (const mustache_t *self);

//  Whether the set has a template of that name.
bool mustache_has (const mustache_t *self, const char *name);

//  Renders a template of the set (one that is missing is a bug) with data. Returns the text with a
//  NUL behind it, caller's to free, its length in *size_p (NULL: not wanted).
char *mustache_render (const mustache_t *self, const char *name, json_t *data, size_t *size_p);

void mustache_test (bool verbose);

#endif
