#include "actors/presence.h"
#include "actors/metrics.h"
#include "actors/scratch.h"
#include "actors/swap.h"

presence_t *
presence_new (void)
{
    presence_t *self = (presence_t *) zmalloc (sizeof (presence_t));
    self->open = -1;
    return self;
}

void
presence_destroy (presence_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        parcel_destroy (&(*self_p)->frame);
        freen (*self_p);
    }
}

//  NULL when memory is out.

static zframe_t *
s_frame (const site_t *site, int64_t open, bool away)
{
    json_t *data = json_pack ("{s:I, s:b}", "count", (json_int_t) open, "away", away);
    char *html = data ? mustache_render (site_templates (site), "presence.html", data, NULL) : NULL;
    zframe_t *frame = html ? swap_new (NULL, "#presence", html) : NULL;
    json_decref (data);
    zstr_free (&html);
    return frame;
}

void
presence_renew (presence_t *self, const site_t *site, int64_t now_ms)
{
    int64_t open = metrics_get (METRICS_CONNECTIONS_OPEN);
    bool missing = !metrics_get (METRICS_DATABASE_UP);
    bool away = missing && self->missed;
    self->missed = missing;
    if ((open == self->open && away == self->away) || now_ms < self->next_ms)
        return;
    zframe_t *frame = s_frame (site, open, away);
    if (!frame)
        return;
    parcel_destroy (&self->frame);
    self->frame = parcel_new (&frame);
    self->version = self->version == UINT16_MAX ? 1 : (uint16_t) (self->version + 1);
    self->open = open;
    self->away = away;
    self->next_ms = now_ms + open * 1000 / PRESENCE_FRAMES;
}

void
presence_outdate (presence_t *self)
{
    self->open = -1;
}

parcel_t *
presence_parcel (const presence_t *self)
{
    return parcel_new_part (self->frame, self->frame->data, self->frame->size);
}

//  ------------------------------------------------------------------------
//  Self test

void
presence_test (bool verbose)
{
    printf (" * presence: ");
    if (verbose)
        printf ("\n");
    site_t *site = scratch_site ();
    presence_t *self = presence_new ();
    metrics_set (METRICS_DATABASE_UP, 1);
    metrics_set (METRICS_CONNECTIONS_OPEN, 3);
    presence_renew (self, site, 1000);
    assert (self->version == 1 && memmem (self->frame->data, self->frame->size, ">3<", 3));
    presence_renew (self, site, 2000);
    assert (self->version == 1); //  Nobody came or went
    metrics_set (METRICS_DATABASE_UP, 0);
    presence_renew (self, site, 2100);
    metrics_set (METRICS_DATABASE_UP, 1);
    presence_renew (self, site, 2200);
    assert (self->version == 1); //  It was away for a moment only

    parcel_t *parcel = presence_parcel (self);
    metrics_set (METRICS_CONNECTIONS_OPEN, 5000);
    presence_renew (self, site, 3000);
    assert (self->version == 2 && memmem (self->frame->data, self->frame->size, ">5000<", 6));
    assert (memmem (parcel->data, parcel->size, ">3<", 3)); //  Still on its way
    parcel_destroy (&parcel);

    metrics_set (METRICS_CONNECTIONS_OPEN, 5001);
    presence_renew (self, site, 7000);
    assert (self->version == 2); //  There are many: not so soon
    presence_renew (self, site, 8000);
    assert (self->version == 3);
    presence_outdate (self);
    self->version = UINT16_MAX;
    presence_renew (self, site, 14000);
    assert (self->version == 1);

    metrics_set (METRICS_DATABASE_UP, 0);
    presence_renew (self, site, 20000);
    assert (self->version == 1);
    presence_renew (self, site, 21000);
    presence_renew (self, site, 30000);
    assert (self->version == 2 &&
            memmem (self->frame->data, self->frame->size, "saving is off", 13));
    metrics_set (METRICS_DATABASE_UP, 1);
    presence_renew (self, site, 40000);
    assert (self->version == 3 &&
            !memmem (self->frame->data, self->frame->size, "saving is off", 13));
    metrics_set (METRICS_DATABASE_UP, 0);
    metrics_set (METRICS_CONNECTIONS_OPEN, 0);
    presence_destroy (&self);
    presence_destroy (&self);
    site_destroy (&site);
    printf ("OK\n");
}
