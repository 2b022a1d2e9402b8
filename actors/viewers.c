#include "actors/viewers.h"
#include "actors/table.h"

typedef struct {
    uint64_t connection;
    int64_t page;
} viewer_t;

//  How many look at a page above 1

typedef struct {
    int64_t page;
    size_t count;
} crowd_t;

struct viewers {
    zhashx_t *viewers; //  Of viewer_t by connection; owned
    zhashx_t *crowds;  //  Of crowd_t by page; owned
};

static void
s_free (void **item_p)
{
    freen (*item_p);
}

viewers_t *
viewers_new (void)
{
    viewers_t *self = (viewers_t *) zmalloc (sizeof (viewers_t));
    self->viewers = table_new (s_free);
    self->crowds = table_new (s_free);
    return self;
}

void
viewers_destroy (viewers_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        viewers_t *self = *self_p;
        zhashx_destroy (&self->viewers);
        zhashx_destroy (&self->crowds);
        freen (*self_p);
    }
}

static void
s_crowd_join (viewers_t *self, int64_t page)
{
    crowd_t *crowd = (crowd_t *) zhashx_lookup (self->crowds, &page);
    if (!crowd) {
        crowd = (crowd_t *) zmalloc (sizeof (crowd_t));
        crowd->page = page;
        zhashx_insert (self->crowds, &crowd->page, crowd);
    }
    crowd->count++;
}

static void
s_crowd_leave (viewers_t *self, int64_t page)
{
    crowd_t *crowd = (crowd_t *) zhashx_lookup (self->crowds, &page);
    assert (crowd && crowd->count > 0);
    if (--crowd->count == 0)
        zhashx_delete (self->crowds, &page);
}

void
viewers_move (viewers_t *self, uint64_t connection, int64_t page)
{
    assert (page >= 1);
    viewers_leave (self, connection);
    if (page > 1) {
        viewer_t *viewer = (viewer_t *) zmalloc (sizeof (viewer_t));
        viewer->connection = connection;
        viewer->page = page;
        zhashx_insert (self->viewers, &viewer->connection, viewer);
        s_crowd_join (self, page);
    }
}

void
viewers_leave (viewers_t *self, uint64_t connection)
{
    viewer_t *viewer = (viewer_t *) zhashx_lookup (self->viewers, &connection);
    if (viewer) {
        s_crowd_leave (self, viewer->page);
        zhashx_delete (self->viewers, &connection);
    }
}

int64_t
viewers_page (viewers_t *self, uint64_t connection)
{
    viewer_t *viewer = (viewer_t *) zhashx_lookup (self->viewers, &connection);
    return viewer ? viewer->page : 1;
}

bool
viewers_any (viewers_t *self, int64_t page)
{
    return page == 1 || zhashx_lookup (self->crowds, &page);
}

size_t
viewers_pages (viewers_t *self, int64_t *pages, size_t size)
{
    size_t count = 0;
    for (crowd_t *crowd = (crowd_t *) zhashx_first (self->crowds); crowd;
         crowd = (crowd_t *) zhashx_next (self->crowds)) {
        if (count < size)
            pages[count] = crowd->page;
        count++;
    }
    return count;
}

static bool
s_looks_past (viewers_t *self, int64_t pages)
{
    for (crowd_t *crowd = (crowd_t *) zhashx_first (self->crowds); crowd;
         crowd = (crowd_t *) zhashx_next (self->crowds))
        if (crowd->page > pages)
            return true;
    return false;
}

bool
viewers_clamp (viewers_t *self, int64_t pages)
{
    if (!s_looks_past (self, pages))
        return false;
    zlistx_t *moved = zlistx_new (); //  Borrowed keys; the table is not changed while it is walked
    for (viewer_t *viewer = (viewer_t *) zhashx_first (self->viewers); viewer;
         viewer = (viewer_t *) zhashx_next (self->viewers))
        if (viewer->page > pages)
            zlistx_add_end (moved, viewer);
    for (viewer_t *viewer = (viewer_t *) zlistx_first (moved); viewer;
         viewer = (viewer_t *) zlistx_next (moved))
        viewers_move (self, viewer->connection, pages);
    zlistx_destroy (&moved);
    return true;
}

//  ------------------------------------------------------------------------
//  Self test

void
viewers_test (bool verbose)
{
    printf (" * viewers: ");
    if (verbose)
        printf ("\n");
    viewers_t *self = viewers_new ();
    int64_t pages[2];
    assert (viewers_page (self, 77) == 1);
    assert (viewers_pages (self, pages, 2) == 0);

    viewers_move (self, 1, 7);
    viewers_move (self, 2, 7);
    viewers_move (self, 3, 9);
    assert (viewers_page (self, 2) == 7);
    assert (viewers_any (self, 7) && viewers_any (self, 1) && !viewers_any (self, 8));
    assert (viewers_pages (self, pages, 2) == 2);
    assert (pages[0] + pages[1] == 16);

    viewers_move (self, 1, 1);
    viewers_leave (self, 2);
    viewers_leave (self, 2); //  Twice is once
    assert (viewers_pages (self, pages, 2) == 1 && pages[0] == 9);

    viewers_move (self, 1, 8);
    assert (viewers_pages (self, pages, 0) == 2); //  Tells how much room is wanted
    assert (!viewers_clamp (self, 9));
    assert (viewers_clamp (self, 4));
    assert (viewers_page (self, 3) == 4 && viewers_page (self, 1) == 4);
    assert (viewers_clamp (self, 1));
    assert (viewers_pages (self, pages, 2) == 0);
    viewers_destroy (&self);
    viewers_destroy (&self);
    printf ("OK\n");
}
