//  The page's rows become a JSON value, the template list.html makes HTML of that, and the HTML,
//  wrapped for the browser (swap), is the ready frame that every viewer of the page gets.
//
//  The etag is FNV-1a, 64 bits (Fowler, Noll, Vo; isthe.com/chongo/tech/comp/fnv): it only has to tell
//  two states of one page apart, and to be the same on each server. Clients see it, too.

#include "actors/page.h"
#include "actors/schema.h"
#include "actors/scratch.h"
#include "actors/swap.h"

enum { COLUMN_PAGE, COLUMN_ID, COLUMN_AUTHOR, COLUMN_TEXT, COLUMN_CREATED_AT };

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
    return strtoll (PQgetvalue (result, row, COLUMN_PAGE), NULL, 10);
}

//  Formats a time for machines (ISO 8601) and for people; the time is as SCHEMA_EPOCH gives it. PostgreSQL
//  has times that no calendar has, such as infinity: they are shown as they are.

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
    s_format_time (PQgetvalue (result, row, COLUMN_CREATED_AT), iso, human);
    return json_pack ("{s:s, s:s, s:s, s:s, s:s}", "id", PQgetvalue (result, row, COLUMN_ID),
                      "author", PQgetvalue (result, row, COLUMN_AUTHOR), "text",
                      PQgetvalue (result, row, COLUMN_TEXT), "created_at", iso, "created_at_text",
                      human);
}

//  {"page": N}, or false where a button to that page would lead nowhere, or where its neighbour leads

static json_t *
s_target (bool leads, int64_t number)
{
    return leads ? json_pack ("{s:I}", "page", number) : json_false ();
}

//  The data for list.html; NULL when memory is out.

static json_t *
s_data (const page_t *self, const PGresult *result, int row, int end)
{
    json_t *messages = json_array ();
    for (; row < end; row++)
        if (json_array_append_new (messages, s_message (result, row)) != 0) {
            json_decref (messages);
            return NULL;
        }
    int64_t number = self->number;
    int64_t pages = self->pages;
    bool empty = json_array_size (messages) == 0;
    return json_pack (
        "{s:I, s:I, s:b, s:b, s:o, s:o, s:o, s:o, s:b, s:o}", "page", number, "pages", pages,
        "many", pages > 1, "empty", empty, "first", s_target (number > 2, 1), "previous",
        s_target (number > 1, number - 1), "next", s_target (number < pages, number + 1), "last",
        s_target (number < pages - 1, pages), "jump", pages > 2, "messages", messages);
}

static uint64_t
s_hash (const char *text)
{
    uint64_t hash = 0xCBF29CE484222325u;
    for (; *text; text++)
        hash = (hash ^ (unsigned char) *text) * 0x100000001B3u;
    return hash;
}

static void
s_keep_keys (page_t *self, const PGresult *result, int row, int end)
{
    self->size = (size_t) (end - row);
    self->keys = (page_index_key_t *) zmalloc ((self->size + 1) * sizeof (page_index_key_t));
    for (size_t index = 0; row < end; row++, index++)
        self->keys[index] = page_index_read (PQgetvalue (result, row, COLUMN_CREATED_AT),
                                             PQgetvalue (result, row, COLUMN_ID));
}

page_t *
page_new (const site_t *site, int64_t number, int64_t pages, int64_t size, const PGresult *result,
          int *row_p)
{
    page_t *self = (page_t *) zmalloc (sizeof (page_t));
    self->number = number;
    self->pages = pages > 0 ? pages : 1;
    int end = *row_p;
    while (end < PQntuples (result) && page_row_number (result, end) == number)
        end++;
    s_keep_keys (self, result, *row_p, end);
    int shown = end - *row_p < size ? end : *row_p + (int) size;
    json_t *data = s_data (self, result, *row_p, shown);
    *row_p = end;
    if (data) {
        self->html = mustache_render (site_templates (site), "list.html", data, NULL);
        self->etag = s_hash (self->html);
        self->frame = swap_new_list (NULL, self->html, number, self->pages, self->etag);
        json_decref (data);
    }
    if (!self->frame)
        page_destroy (&self);
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
            PQsetvalue (result, row, column, (char *) value, (int) strlen (value));
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
    s_test_paginator (site);
    site_destroy (&site);
    printf ("OK\n");
}
