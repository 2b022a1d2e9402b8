//  The page's rows become a JSON value, the template list.html makes HTML of that, and the HTML,
//  wrapped for the browser (swap), is the ready frame that every viewer of the page gets.
//
//  The etag is FNV-1a, 64 bits (Fowler, Noll, Vo; isthe.com/chongo/tech/comp/fnv): it only has to
//  tell two states of one page apart, and to be the same on each server. Clients see it, too.

#include "actors/page.h"
#include "actors/schema.h"
#include "actors/scratch.h"
#include "actors/swap.h"

const char page_query[] =
    "SELECT page, id, author, text, " SCHEMA_EPOCH
    " FROM unnest($1::bigint[], $2::timestamptz[], $3::bigint[], $4::bigint[])"
    " AS wanted (page, start, start_id, skip),"
    " LATERAL (SELECT id, author, text, created_at FROM messages"
    " WHERE (created_at, id) <= (start, start_id)"
    " ORDER BY created_at DESC, id DESC LIMIT $5 OFFSET skip) AS shown"
    " ORDER BY page DESC, created_at DESC, id DESC";

const char page_first_query[] = "SELECT 1, id, author, text, " SCHEMA_EPOCH
                                " FROM messages ORDER BY created_at DESC, id DESC LIMIT $1::bigint";

int64_t
page_row_number (const PGresult *result, int row)
{
    return strtoll (PQgetvalue (result, row, PAGE_NUMBER), NULL, 10);
}

//  Formats a time for machines (ISO 8601) and for people; the time is as SCHEMA_EPOCH gives it.
//  PostgreSQL has times that no calendar has, such as infinity: they are shown as they are.

static void
s_format_time (const char *epoch, char iso[64], char human[64])
{
    char *fraction;
    time_t seconds = (time_t) strtoll (epoch, &fraction, 10);
    struct tm utc;
    if (*fraction != '.' || *epoch == '-' || !gmtime_r (&seconds, &utc)) {
        snprintf (iso, 64, "%s", epoch);
        snprintf (human, 64, "%s", epoch);
        return;
    }
    size_t length = strftime (iso, 64, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf (iso + length, 64 - length, "%.7sZ", fraction);
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    snprintf (human, 64, "%d %s %d, %02d:%02d UTC", utc.tm_mday, months[utc.tm_mon],
              utc.tm_year + 1900, utc.tm_hour, utc.tm_min);
}

static json_t *
s_message (const PGresult *result, int row)
{
    char iso[64];
    char human[64];
    s_format_time (PQgetvalue (result, row, PAGE_CREATED_AT), iso, human);
    return json_pack ("{s:s, s:s, s:s, s:s, s:s}", "id", PQgetvalue (result, row, PAGE_ID),
                      "author", PQgetvalue (result, row, PAGE_AUTHOR), "text",
                      PQgetvalue (result, row, PAGE_TEXT), "created_at", iso, "created_at_text",
                      human);
}

//  {"page": N}, or false where a button to that page would lead nowhere, or where its neighbour
//  leads

static json_t *
s_target (bool leads, int64_t number)
{
    return leads ? json_pack ("{s:I}", "page", number) : json_false ();
}

//  The data for list.html; NULL when memory is out.

static json_t *
s_data (const page_t *self)
{
    int64_t number = self->number;
    int64_t pages = self->pages;
    bool empty = json_array_size (self->messages) == 0;
    return json_pack (
        "{s:I, s:I, s:b, s:b, s:o, s:o, s:o, s:o, s:b, s:O}", "page", number, "pages", pages,
        "many", pages > 1, "empty", empty, "first", s_target (number > 2, 1), "previous",
        s_target (number > 1, number - 1), "next", s_target (number < pages, number + 1), "last",
        s_target (number < pages - 1, pages), "jump", pages > 2, "messages", self->messages);
}

static uint64_t
s_hash (const char *text)
{
    uint64_t hash = 0xCBF29CE484222325u;
    for (; *text; text++)
        hash = (hash ^ (unsigned char) *text) * 0x100000001B3u;
    return hash;
}

//  Makes a page without a message, with room for so many, and for the key of one more.

static page_t *
s_new (int64_t number, int64_t pages, int64_t size)
{
    page_t *self = (page_t *) zmalloc (sizeof (page_t));
    self->number = number;
    self->pages = pages > 0 ? pages : 1;
    self->messages = json_array ();
    self->keys = (page_index_key_t *) zmalloc (((size_t) size + 1) * sizeof (page_index_key_t));
    return self;
}

static page_index_key_t
s_key (const PGresult *result, int row)
{
    return page_index_read (PQgetvalue (result, row, PAGE_CREATED_AT),
                            PQgetvalue (result, row, PAGE_ID));
}

//  Adds the row's message below those that are there, if there is room.

static void
s_add_row (page_t *self, int64_t size, const PGresult *result, int row)
{
    if ((int64_t) self->size < size)
        json_array_append_new (self->messages, s_message (result, row));
    if ((int64_t) self->size <= size)
        self->keys[self->size++] = s_key (result, row);
}

//  The same, a message of an older state.

static void
s_add_older (page_t *self, int64_t size, const page_t *older, size_t index)
{
    if ((int64_t) self->size < size)
        json_array_append (self->messages, json_array_get (older->messages, index));
    if ((int64_t) self->size <= size)
        self->keys[self->size++] = older->keys[index];
}

//  Renders the page, or destroys it when memory is out; then its messages may be fewer than its
//  keys.

static void
s_render (page_t **self_p, const site_t *site, int64_t size)
{
    page_t *self = *self_p;
    size_t shown = (int64_t) self->size < size ? self->size : (size_t) size;
    json_t *data = json_array_size (self->messages) == shown ? s_data (self) : NULL;
    if (data) {
        self->html = mustache_render (site_templates (site), "list.html", data, NULL);
        self->etag = s_hash (self->html);
        self->frame = swap_new_list (NULL, self->html, self->number, self->pages, self->etag);
        json_decref (data);
    }
    if (!self->frame)
        page_destroy (self_p);
}

page_t *
page_new (const site_t *site, int64_t number, int64_t pages, int64_t size, const PGresult *result,
          int *row_p)
{
    page_t *self = s_new (number, pages, size);
    while (*row_p < PQntuples (result) && page_row_number (result, *row_p) == number)
        s_add_row (self, size, result, (*row_p)++);
    s_render (&self, site, size);
    if (self && number != 1) { //  Never grows
        json_decref (self->messages);
        self->messages = NULL;
    }
    return self;
}

page_t *
page_new_grown (const site_t *site, const page_t *older, int64_t pages, int64_t size,
                const PGresult *result)
{
    assert (older->number == 1);
    page_t *self = s_new (1, pages, size);
    size_t newer = 0; //  Messages of the older state
    bool added = PQntuples (result) > 0 && page_row_number (result, 0) == 1;
    if (added) {
        page_index_key_t key = s_key (result, 0);
        while (newer < older->size && page_index_compare (older->keys[newer], key) > 0)
            s_add_older (self, size, older, newer++);
        s_add_row (self, size, result, 0);
    }
    while (newer < older->size)
        s_add_older (self, size, older, newer++);
    s_render (&self, site, size);
    return self;
}

void
page_destroy (page_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        page_t *self = *self_p;
        zstr_free (&self->html);
        zframe_destroy (&self->frame);
        json_decref (self->messages);
        freen (self->keys);
        freen (*self_p);
    }
}

//  ------------------------------------------------------------------------
//  Self test

//  A result as the query gives it, without a server: rows of page, id, author, text.

static PGresult *
s_result_new (const char *rows[][4], int count)
{
    PGresult *result = PQmakeEmptyPGresult (NULL, PGRES_TUPLES_OK);
    PGresAttDesc columns[5] = {
        {.name = "page"}, {.name = "id"}, {.name = "author"}, {.name = "text"}, {.name = "time"}};
    PQsetResultAttrs (result, 5, columns);
    for (int row = 0; row < count; row++)
        for (int column = 0; column < 5; column++) {
            const char *value = column < 4 ? rows[row][column] : "1795615392.000125";
            PQsetvalue (result, row, column, (char *) value, value ? (int) strlen (value) : -1);
        }
    return result;
}

static void
s_test_pages (const site_t *site)
{
    const char *rows[][4] = {
        {"2", "1", "Ann", "<b>first</b>"}, {"1", "3", "Bob", "third"}, {"1", "2", "Ann", "second"}};
    PGresult *result = s_result_new (rows, 3);
    int row = 0;
    assert (page_row_number (result, row) == 2);
    page_t *last = page_new (site, 2, 2, 10, result, &row);
    assert (last && row == 1 && last->number == 2 && last->pages == 2);
    assert (last->size == 1 && last->keys[0].id == 1);
    assert (last->keys[0].created_at == 848930592000125);
    assert (strstr (last->html, "&lt;b&gt;first&lt;/b&gt;"));
    assert (strstr (last->html, "2026-11-25T14:03:12.000125Z"));
    assert (strstr (last->html, "25 Nov 2026, 14:03 UTC"));
    assert (strstr (last->html, "messages__previous-page"));
    assert (!strstr (last->html, "messages__next-page"));

    page_t *first = page_new (site, 1, 2, 10, result, &row);
    assert (first && row == 3 && first->number == 1);
    assert (strstr (first->html, "id=\"message--3\"") && strstr (first->html, "id=\"message--2\""));
    assert (first->etag != last->etag);

    row = 1;
    page_t *again = page_new (site, 1, 2, 10, result, &row); //  The same rows have the same etag
    assert (again->etag == first->etag);
    row = 1;
    page_t *small = page_new (site, 1, 2, 1, result, &row); //  The message behind it is only a key
    assert (small && row == 3 && small->size == 2 && small->keys[1].id == 2);
    assert (!strstr (small->html, "message--2"));
    page_destroy (&small);

    page_t *empty = page_new (site, 1, 0, 10, result, &row); //  No row is left
    assert (empty && row == 3 && empty->number == 1 && empty->pages == 1);
    assert (!strstr (empty->html, "paginator") && !strstr (empty->html, "<article"));
    page_destroy (&empty);
    page_destroy (&again);
    page_destroy (&first);
    page_destroy (&last);
    page_destroy (&last);
    PQclear (result);
}

//  What grows in memory is, to the byte, what would have been read; also where nothing comes to it.

static void
s_test_growth (const site_t *site)
{
    const char *rows[][4] = {
        {"1", "4", "Eve", "fourth"}, {"1", "3", "Bob", "third"}, {"1", "2", "Ann", "second"}};
    const char *before[][4] = {{"0", "3", NULL, NULL}}; //  Its key was stored before
    PGresult *result = s_result_new (rows, 3);
    PGresult *newest = s_result_new (rows, 1);
    PGresult *second = s_result_new (rows + 1, 1);
    const char *first[][4] = {{"1", "1", "Ann", "first"}};
    PGresult *oldest = s_result_new (first, 1);
    const char *without[][4] = {{"1", "4", "Eve", "fourth"}, {"1", "2", "Ann", "second"}};
    PGresult *gap = s_result_new (without, 2);
    PGresult *none = s_result_new (before, 1);
    int row = 0;
    page_t *read = page_new (site, 1, 1, 2, result, &row);
    row = 0;
    page_t *ends = page_new (site, 1, 1, 2, gap, &row);
    row = 1;
    page_t *older = page_new (site, 1, 1, 2, result, &row);
    page_t *grown = page_new_grown (site, older, 1, 2, newest);
    assert (older->size == 2 && grown->etag == read->etag && grown->etag != older->etag);
    assert (grown->size == 3 && grown->keys[0].id == 4 && grown->keys[2].id == 2);
    page_t *same = page_new_grown (site, older, 1, 2, none);
    assert (same->etag == older->etag && same->size == 2 && same->keys[0].id == 3);
    page_t *again = page_new_grown (site, grown, 2, 2, none);
    assert (again->size == 3 && again->pages == 2);
    page_t *below = page_new_grown (site, grown, 1, 2, oldest); //  Clocks differ
    assert (below->size == 3 && below->keys[2].id == 2 && below->etag == grown->etag);
    page_t *between = page_new_grown (site, ends, 1, 2, second);
    assert (between->size == 3 && between->keys[1].id == 3 && between->etag == read->etag);
    page_destroy (&between);
    page_destroy (&below);
    page_destroy (&ends);
    page_destroy (&again);
    page_destroy (&same);
    page_destroy (&grown);
    page_destroy (&older);
    page_destroy (&read);
    PQclear (gap);
    PQclear (oldest);
    PQclear (second);
    PQclear (none);
    PQclear (newest);
    PQclear (result);
}

//  The paginator of a page; caller frees.

static char *
s_paginator_new (const site_t *site, const char *number, int64_t pages)
{
    const char *rows[][4] = {{number, "1", "Ann", "text"}};
    PGresult *result = s_result_new (rows, 1);
    int row = 0;
    page_t *page = page_new (site, page_row_number (result, 0), pages, 10, result, &row);
    char *paginator = strdup (strstr (page->html, "id=\"paginator\""));
    page_destroy (&page);
    PQclear (result);
    return paginator;
}

//  First and Last are there where Previous and Next lead somewhere else, the field with them.

static void
s_test_paginator (const site_t *site)
{
    static const struct {
        const char *number;
        int64_t pages;
        bool first, last;
        const char *place;
    } cases[] = {{"1", 1, false, false, "data-page=\"1\""},
                 {"1", 2, false, false, ">Page 1 of 2<"},
                 {"2", 2, false, false, ">Page 2 of 2<"},
                 {"1", 3, false, true, "value=\"1\""},
                 {"2", 3, false, false, "value=\"2\""},
                 {"3", 3, true, false, "value=\"3\""},
                 {"500000", 1000000, true, true, "value=\"500000\""}};
    for (size_t at = 0; at < sizeof (cases) / sizeof (cases[0]); at++) {
        char *paginator = s_paginator_new (site, cases[at].number, cases[at].pages);
        assert (!strstr (paginator, "messages__first-page") == !cases[at].first);
        assert (!strstr (paginator, "messages__last-page") == !cases[at].last);
        assert (!strstr (paginator, "messages__page-number") == (cases[at].pages < 3));
        assert (strstr (paginator, cases[at].place));
        zstr_free (&paginator);
    }
}

void
page_test (bool verbose)
{
    printf (" * page: ");
    if (verbose)
        printf ("\n");
    site_t *site = scratch_site ();
    s_test_pages (site);
    s_test_growth (site);
    s_test_paginator (site);
    site_destroy (&site);
    printf ("OK\n");
}
