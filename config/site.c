//  A folder that the settings name need not hold everything: what it lacks comes from the binary,
//  so that one template or one asset can be replaced.

#include "config/site.h"

#include "config/embedded.h"
#include "config/folder.h"

#include <stdatomic.h>

#define FOLDER_IN_BINARY "templates/"

struct site {
    settings_t *settings;  //  Owned
    mustache_t *templates; //  Owned
    assets_t *assets;      //  Owned
    atomic_int references;
};

static int
s_add_template (site_t *self, const char *name, const void *source, size_t size, char **error_p)
{
    if (mustache_add (self->templates, name, (const char *) source, size) == 0)
        return 0;
    *error_p = zsys_sprintf ("template %s", mustache_error (self->templates));
    return -1;
}

static int
s_add_embedded (site_t *self, char **error_p)
{
    size_t prefix = strlen (FOLDER_IN_BINARY);
    int rc = 0;
    for (const embedded_t *file = embedded_files; file->path && rc == 0; file++)
        if (strncmp (file->path, FOLDER_IN_BINARY, prefix) == 0)
            rc = s_add_template (self, file->path + prefix, file->data, file->size, error_p);
    return rc;
}

static int
s_add_file (void *arg, const char *name, const char *path, zchunk_t **data_p, char **error_p)
{
    (void) path;
    int rc = s_add_template ((site_t *) arg, name, zchunk_data (*data_p), zchunk_size (*data_p),
                             error_p);
    zchunk_destroy (data_p);
    return rc;
}

static bool
s_is_template_name (const char *name)
{
    size_t size = strlen (name);
    return *name != '.' && !strchr (name, '/') && size > 5 && streq (name + size - 5, ".html");
}

static int
s_load_templates (site_t *self, char **error_p)
{
    const char *folder = self->settings->http_templates;
    self->templates = mustache_new ();
    if (s_add_embedded (self, error_p) != 0 ||
        (*folder && folder_read (folder, "http.templates", s_is_template_name, s_add_file, self,
                                 error_p) != 0))
        return -1;
    if (mustache_check (self->templates) == 0)
        return 0;
    *error_p = zsys_sprintf ("template %s", mustache_error (self->templates));
    return -1;
}

site_t *
site_new (settings_t **settings_p, char **error_p)
{
    site_t *self = (site_t *) zmalloc (sizeof (site_t));
    atomic_init (&self->references, 1);
    self->settings = *settings_p;
    *settings_p = NULL;
    if (s_load_templates (self, error_p) != 0 ||
        !(self->assets = assets_new (self->settings->http_static, error_p)))
        site_destroy (&self);
    return self;
}

site_t *
site_ref (site_t *self)
{
    atomic_fetch_add (&self->references, 1);
    return self;
}

void
site_destroy (site_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        site_t *self = *self_p;
        *self_p = NULL;
        if (atomic_fetch_sub (&self->references, 1) == 1) {
            assets_destroy (&self->assets);
            mustache_destroy (&self->templates);
            settings_destroy (&self->settings);
            freen (self);
        }
    }
}

const settings_t *
site_settings (const site_t *self)
{
    return self->settings;
}

const mustache_t *
site_templates (const site_t *self)
{
    return self->templates;
}

const assets_t *
site_assets (const site_t *self)
{
    return self->assets;
}

//  ------------------------------------------------------------------------
//  Self test

static settings_t *
s_test_settings (const char *key, const char *folder)
{
    char *error = NULL;
    zlistx_t *overrides = zlistx_new ();
    char *override = zsys_sprintf ("%s=%s", key, folder);
    zlistx_add_end (overrides, override);
    settings_t *settings = settings_new (NULL, overrides, &error);
    assert (settings);
    zlistx_destroy (&overrides);
    zstr_free (&override);
    return settings;
}

//  Expects that no site comes of it; the error must have the words in it.

static void
s_test_refusal (const char *key, const char *folder, const char *words)
{
    char *error = NULL;
    settings_t *settings = s_test_settings (key, folder);
    site_t *site = site_new (&settings, &error);
    assert (!site && !settings && error && strstr (error, words));
    zstr_free (&error);
}

void
site_test (bool verbose)
{
    printf (" * site: ");
    if (verbose)
        printf ("\n");
    char *folder = folder_test_new ();
    folder_test_write (folder, "own.html", "Hello {{name}}");
    folder_test_write (folder, "notes.txt", "{{#broken");

    char *error = NULL;
    settings_t *settings = s_test_settings ("http.templates", folder);
    site_t *site = site_new (&settings, &error);
    assert (site && !settings && !error);
    assert (mustache_has (site_templates (site), "own.html"));
    assert (!mustache_has (site_templates (site), "notes.txt"));
    assert (site_settings (site)->board_page_size == 5);
    assert (site_assets (site));

    //  The site lives until its last reference ends
    site_t *second = site_ref (site);
    assert (second == site);
    site_destroy (&site);
    site_destroy (&site);
    json_t *data = json_pack ("{s:s}", "name", "Ann");
    //  NOLINTNEXTLINE(clang-analyzer-unix.Malloc): it does not count references
    char *text = mustache_render (site_templates (second), "own.html", data, NULL);
    assert (streq (text, "Hello Ann"));
    zstr_free (&text);
    json_decref (data);
    site_destroy (&second);

    folder_test_write (folder, "own.html", "\n{{#open}}");
    s_test_refusal ("http.templates", folder, "own.html:");
    folder_test_write (folder, "own.html", "{{> absent.html}}");
    s_test_refusal ("http.templates", folder, "absent.html");
    zdir_t *rest = zdir_new (folder, "-");
    zdir_remove (rest, true);
    zdir_destroy (&rest);
    s_test_refusal ("http.templates", folder, "http.templates");
    s_test_refusal ("http.static", folder, "http.static");
    zstr_free (&folder);
    printf ("OK\n");
}
