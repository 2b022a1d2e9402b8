//  site - settings, templates and assets as one unchanging whole
//
//  thread     made by main; never changed once made, so any thread may read it. Each thread that
//             keeps it holds a reference of its own; the count is atomic. A reload makes a new site
//             and sends it to each thread, and the old one goes with its last reader.

#ifndef SITE_H_INCLUDED
#define SITE_H_INCLUDED

#include "config/settings.h"
#include "http/assets.h"
#include "templates/mustache.h"

typedef struct site site_t;

//  Reads templates (NAME.html) and assets from the folders that the settings name; what these lack
//  comes from the binary. Takes the settings in any case. Returns NULL when a template or a folder
//  is broken, and then *error_p is a sentence with file and line, caller's to free.
site_t *site_new (settings_t **settings_p, char **error_p);

//  Another reference to the same site; each ends with site_destroy ().
site_t *site_ref (site_t *self);

void site_destroy (site_t **self_p);

const settings_t *site_settings (const site_t *self);
const mustache_t *site_templates (const site_t *self);
const assets_t *site_assets (const site_t *self);

void site_test (bool verbose);

#endif
