#include "actors/scratch.h"
#include "actors/private_postgres.h"
#include "actors/schema.h"
#include "config/folder.h"

const postgres_limits_t scratch_limits = {5000, 10000, 300};

struct scratch {
    char *folder;                 //  Owned
    private_postgres_t *postgres; //  Owned
};

scratch_t *
scratch_new (void)
{
    scratch_t *self = (scratch_t *) zmalloc (sizeof (scratch_t));
    self->folder = folder_test_new (); //  For root the server is another user's
    char *error = NULL;
    self->postgres = private_postgres_new (self->folder, &error);
    if (!self->postgres)
        printf ("%s\n", error);
    assert (self->postgres);
    return self;
}

scratch_t *
scratch_new_board (void)
{
    scratch_t *self = scratch_new ();
    char *error = NULL;
    PGconn *connection = PQconnectdb (scratch_url (self));
    int rc = schema_upgrade (connection, scratch_url (self), &error);
    if (rc != 0)
        printf ("%s\n", error);
    assert (rc == 0);
    PQfinish (connection);
    return self;
}

void
scratch_destroy (scratch_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        scratch_t *self = *self_p;
        private_postgres_destroy (&self->postgres);
        zdir_t *folder = zdir_new (self->folder, NULL);
        zdir_remove (folder, true);
        zdir_destroy (&folder);
        zstr_free (&self->folder);
        freen (*self_p);
    }
}

const char *
scratch_url (const scratch_t *self)
{
    return private_postgres_url (self->postgres);
}

char *
scratch_sql (const scratch_t *self, const char *sql)
{
    PGconn *connection = PQconnectdb (scratch_url (self));
    PGresult *result = PQexec (connection, sql);
    ExecStatusType status = PQresultStatus (result);
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
        printf ("%s: %s\n", sql, PQerrorMessage (connection));
    assert (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK);
    char *value = strdup (PQntuples (result) > 0 ? PQgetvalue (result, 0, 0) : "");
    PQclear (result);
    PQfinish (connection);
    return value;
}

void
scratch_run (const scratch_t *self, const char *sql)
{
    char *value = scratch_sql (self, sql);
    zstr_free (&value);
}

int
scratch_end_loop (zloop_t *loop, int timer, void *arg)
{
    (void) loop;
    (void) timer;
    (void) arg;
    return -1;
}

site_t *
scratch_site (void)
{
    char *error = NULL;
    settings_t *settings = settings_new (NULL, NULL, &error);
    assert (settings);
    site_t *site = site_new (&settings, &error);
    if (!site)
        printf ("%s\n", error);
    assert (site);
    return site;
}
