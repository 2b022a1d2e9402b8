//  Each page knows the version of the board that it shows; a write makes a new version, and so all
//  pages out of date at once, without a walk through them. One that is out of date stays, to tell
//  whether what is read in its place differs, and to be shown while PostgreSQL is away.
//
//  Pages are numbered from the newest message on. The surveyor tells where the scan for a page
//  begins, and how many messages it skips from there: few, or without the surveyor's help, as many
//  as are before the page. How many messages there are may be a guess for a while. When the answer
//  does not fit it (a page below the last one without a row), PostgreSQL counts them, once, and
//  everything is read again without that help; ATTEMPTS_MAX times at most.

#include "actors/pages.h"
#include "actors/scratch.h"
#include "actors/table.h"

#define ATTEMPTS_MAX  5
#define NEAR_PAGES    20
#define NEAR_MESSAGES 1000
#define PAGES_MAX     4096               //  Kept though nobody looks at them
#define BYTES_MAX     (64 * 1024 * 1024) //  The same

const postgres_statement_t pages_statements[] = {
    {"count", "SELECT count(*) FROM messages"},
    {"pages", page_query},
    {"first page", page_first_query},
    {NULL, NULL},
};

//  A list of page numbers

typedef struct {
    int64_t *numbers; //  Owned
    size_t size;
    size_t capacity;
} numbers_t;

struct pages {
    zhashx_t *table;      //  Of page_t by number; owned
    zlistx_t *fresh;      //  Of page_t, read in a transaction that may still be void; owned
    surveyor_t *surveyor; //  Borrowed
    int64_t more;         //  Messages than the surveyor knows of
    int64_t counted; //  Messages, by PostgreSQL, in this version of the board; -1: it was not asked
    int64_t page_size; //  As of the last read
    size_t bytes;      //  Of all pages in the table
    uint64_t version;  //  Of the board
    uint64_t settled;  //  The one that it shows; 0: none
    numbers_t wanted;  //  As they were asked for
    numbers_t asked;   //  Of PostgreSQL; descending, each once
    numbers_t read;    //  And not looked at by pages_next_changed ()
    int attempts;      //  To read what is wanted
    bool counting;     //  The next result is a count
    bool growing;      //  The next one is an add's
    bool plain;        //  Scans begin at the newest message
    bool unfit;        //  What was read does not fit the count
    uint64_t heard;    //  What the surveyor had heard when it was asked for
    char error[512];   //  PostgreSQL's; "": none
};

static void
s_numbers_add (numbers_t *self, int64_t number)
{
    if (self->size == self->capacity) {
        self->capacity = self->capacity ? 2 * self->capacity : 64;
        self->numbers = (int64_t *) realloc (self->numbers, self->capacity * sizeof (int64_t));
        assert (self->numbers); //  As zmalloc does
    }
    self->numbers[self->size++] = number;
}

static int
s_compare_descending (const void *left, const void *right)
{
    int64_t difference = *(const int64_t *) left - *(const int64_t *) right;
    return difference < 0 ? 1 : difference > 0 ? -1 : 0;
}

//  Sorts, the largest first, and drops what stands twice.

static void
s_numbers_sort (numbers_t *self)
{
    if (self->size == 0)
        return;
    qsort (self->numbers, self->size, sizeof (int64_t), s_compare_descending);
    size_t kept = 1;
    for (size_t index = 1; index < self->size; index++)
        if (self->numbers[index] != self->numbers[kept - 1])
            self->numbers[kept++] = self->numbers[index];
    self->size = kept;
}

pages_t *
pages_new (surveyor_t *surveyor)
{
    pages_t *self = (pages_t *) zmalloc (sizeof (pages_t));
    self->surveyor = surveyor;
    self->table = table_new ((zhashx_destructor_fn *) page_destroy);
    self->fresh = zlistx_new ();
    zlistx_set_destructor (self->fresh, (zlistx_destructor_fn *) page_destroy);
    self->counted = -1;
    self->page_size = 1;
    self->version = 1;
    return self;
}

void
pages_destroy (pages_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        pages_t *self = *self_p;
        zhashx_destroy (&self->table);
        zlistx_destroy (&self->fresh);
        zlistx_destroy (&self->fresh);
        freen (self->wanted.numbers);
        freen (self->asked.numbers);
        freen (self->read.numbers);
        freen (*self_p);
    }
}

//  How many messages there are, as far as we know; -1: not at all.

static int64_t
s_messages (const pages_t *self)
{
    if (self->counted >= 0)
        return self->counted;
    int64_t messages = surveyor_messages (self->surveyor);
    if (messages < 0)
        return -1;
    return messages + self->more > 0 ? messages + self->more : 0;
}

int64_t
pages_count (const pages_t *self)
{
    int64_t messages = s_messages (self);
    if (messages < 0)
        return 0;
    return messages == 0 ? 1 : (messages + self->page_size - 1) / self->page_size;
}

bool
pages_are_counted (const pages_t *self)
{
    return self->counted >= 0 || surveyor_is_sure (self->surveyor);
}

//  A page past the end is the last one, if we know the end.

static int64_t
s_clamp (const pages_t *self, int64_t number)
{
    int64_t count = pages_are_counted (self) ? pages_count (self) : number;
    return number > count ? count : number;
}

page_t *
pages_last_known (pages_t *self, int64_t number)
{
    number = s_clamp (self, number);
    return (page_t *) zhashx_lookup (self->table, &number);
}

page_t *
pages_find (pages_t *self, int64_t number)
{
    page_t *page = pages_last_known (self, number);
    return page && page->version == self->version ? page : NULL;
}

page_t *
pages_find_settled (pages_t *self, int64_t number)
{
    page_t *page = pages_last_known (self, number);
    bool shown = page && (page->version == self->version || page->version == self->settled);
    return shown ? page : NULL;
}

void
pages_settle (pages_t *self)
{
    self->settled = self->version;
}

void
pages_unsettle (pages_t *self)
{
    self->settled = 0;
}

void
pages_outdate (pages_t *self)
{
    self->version++;
    self->counted = -1;
}

void
pages_expect (pages_t *self, int64_t messages)
{
    self->more = messages;
}

void
pages_want (pages_t *self, int64_t number)
{
    if (!pages_find (self, number))
        s_numbers_add (&self->wanted, number);
}

bool
pages_wanted (const pages_t *self)
{
    return self->wanted.size > 0;
}

//  ------------------------------------------------------------------------
//  Reading

//  Decides what to ask for.

static void
s_prepare (pages_t *self, bool after_writes)
{
    bool unfit = self->unfit;
    self->attempts++;
    self->unfit = false;
    *self->error = 0;
    self->growing = false;
    self->counting = unfit || surveyor_messages (self->surveyor) < 0;
    self->plain = unfit || after_writes;
    self->heard = surveyor_heard (self->surveyor);
    self->asked.size = 0;
    for (size_t index = 0; index < self->wanted.size; index++) {
        int64_t number = self->wanted.numbers[index];
        s_numbers_add (&self->asked, self->counting ? number : s_clamp (self, number));
    }
    s_numbers_sort (&self->asked);
}

//  Where the scan for a page begins, and how many messages it skips. A page whose number is beyond
//  all bounds has none.

static page_index_key_t
s_place (const pages_t *self, int64_t number, int64_t *skip)
{
    int64_t rank = number - 1 > INT64_MAX / self->page_size ? INT64_MAX
                                                            : (number - 1) * self->page_size;
    page_index_place_t place = {PAGE_INDEX_NEWEST, 0};
    if (!self->plain)
        place = surveyor_find (self->surveyor, rank);
    *skip = rank - place.before;
    return place.start;
}

//  The arrays that the query wants, as PostgreSQL writes them
enum { NUMBERS, STARTS, IDS, SKIPS, ARRAYS };

static void
s_send_query (pages_t *self, postgres_t *postgres, const char *size)
{
    char *values[ARRAYS + 1];
    char *ends[ARRAYS];
    for (size_t array = 0; array < ARRAYS; array++)
        ends[array] = values[array] = (char *) zmalloc (self->asked.size * (TIMESTAMP_SIZE + 4) +
                                                        3);
    for (size_t index = 0; index < self->asked.size; index++) {
        int64_t skipped;
        page_index_text_t start = page_index_print (
            s_place (self, self->asked.numbers[index], &skipped));
        char number[24];
        char skip[24];
        snprintf (number, sizeof (number), "%" PRId64, self->asked.numbers[index]);
        snprintf (skip, sizeof (skip), "%" PRId64, skipped);
        const char *const texts[ARRAYS] = {number, start.created_at, start.id, skip};
        for (size_t array = 0; array < ARRAYS; array++)
            ends[array] += sprintf (ends[array], "%c\"%s\"", index ? ',' : '{', texts[array]);
    }
    for (size_t array = 0; array < ARRAYS; array++)
        *ends[array] = '}';
    values[ARRAYS] = (char *) size;
    postgres_query (postgres, "pages", ARRAYS + 1, (const char *const *) values);
    for (size_t array = 0; array < ARRAYS; array++)
        freen (values[array]);
}

int
pages_send (pages_t *self, postgres_t *postgres, int64_t page_size, bool after_writes)
{
    self->page_size = page_size;
    s_prepare (self, after_writes);
    if (self->counting)
        postgres_query (postgres, "count", 0, NULL);
    char size[24];
    snprintf (size, sizeof (size), "%" PRId64,
              page_size + 1); //  The next one tells the surveyor more
    if (self->asked.size == 1 && self->asked.numbers[0] == 1)
        postgres_query (postgres, "first page", 1, (const char *const[]){size});
    else
        s_send_query (self, postgres, size);
    return self->counting ? 2 : 1;
}

bool
pages_grow (pages_t *self, int64_t page_size)
{
    const page_t *first = pages_last_known (self, 1);
    bool lone = self->wanted.size == 1 && self->wanted.numbers[0] == 1;
    bool known = first && first->version == self->version - 1 && page_size == self->page_size &&
                 surveyor_messages (self->surveyor) >= 0;
    if (!lone || !known)
        return false;
    s_prepare (self, true);
    self->growing = true;
    return true;
}

//  A page is there twice, as HTML and in a frame.

static size_t
s_bytes (const page_t *page)
{
    return 2 * zframe_size (page->frame);
}

//  Takes a page out of the table, if it is there.

static void
s_drop (pages_t *self, const page_t *page)
{
    if (page) {
        self->bytes -= s_bytes (page);
        zhashx_delete (self->table, &page->number);
    }
}

//  Puts a page that was read in the place of an older one.

static void
s_keep (pages_t *self, page_t *page)
{
    const page_t *old = (const page_t *) zhashx_lookup (self->table, &page->number);
    page->version = self->version;
    page->shown_etag = old ? old->shown_etag : 0;
    page->shown_pages = old ? old->shown_pages : 0;
    s_drop (self, old);
    zhashx_insert (self->table, &page->number, page);
    self->bytes += s_bytes (page);
    s_numbers_add (&self->read, page->number);
}

//  Takes the rows of the pages asked for. Page 1 is a page even without rows; any other one that
//  has none is no page.

static void
s_take_rows (pages_t *self, const site_t *site, const PGresult *result)
{
    int64_t count = pages_count (self);
    bool counted = pages_are_counted (self);
    int row = 0;
    for (size_t index = 0; index < self->asked.size; index++) {
        int64_t number = self->asked.numbers[index];
        bool there = row < PQntuples (result) && page_row_number (result, row) == number;
        if (!there && (number <= count || !counted) && !(counted && s_messages (self) == 0))
            self->unfit = true;
        if (!there && number != 1)
            continue;
        page_t *page = page_new (site, number, count, self->page_size, result, &row);
        if (page)
            zlistx_add_end (self->fresh, page);
        else
            snprintf (self->error, sizeof (self->error), "out of memory");
    }
}

//  Takes the row of an add.

static void
s_take_add (pages_t *self, const site_t *site, const PGresult *result)
{
    page_t *page = page_new_grown (site, pages_last_known (self, 1), pages_count (self),
                                   self->page_size, result);
    if (page)
        zlistx_add_end (self->fresh, page);
    else
        snprintf (self->error, sizeof (self->error), "out of memory");
}

void
pages_take (pages_t *self, const site_t *site, PGresult *result)
{
    ExecStatusType status = PQresultStatus (result);
    if (status == PGRES_FATAL_ERROR && !*self->error)
        snprintf (self->error, sizeof (self->error), "%s", PQresultErrorMessage (result));
    else if (status == PGRES_TUPLES_OK && self->growing)
        s_take_add (self, site, result);
    else if (status == PGRES_TUPLES_OK && self->counting) {
        self->counted = strtoll (PQgetvalue (result, 0, 0), NULL, 10);
        surveyor_counted (self->surveyor, self->counted - self->more);
        self->counting = false;
    }
    else if (status == PGRES_TUPLES_OK)
        s_take_rows (self, site, result);
    PQclear (result);
}

void
pages_break (pages_t *self)
{
    zlistx_purge (self->fresh);
    self->attempts = 0;
    self->more = 0;
    self->unfit = false;
    self->wanted.size = 0;
    pages_outdate (self);
}

bool
pages_are_near (const pages_t *self, int64_t page_size)
{
    for (size_t index = 0; index < self->wanted.size; index++) {
        int64_t number = s_clamp (self, self->wanted.numbers[index]);
        if (number > 1 && (number > NEAR_PAGES || number * page_size > NEAR_MESSAGES))
            return false;
    }
    return self->wanted.size <= NEAR_PAGES;
}

//  Tells the surveyor of a page that was read, unless it has heard of something meanwhile. One that
//  has grown tells it nothing.

static void
s_check (const pages_t *self, const page_t *page)
{
    if (!self->growing && self->heard == surveyor_heard (self->surveyor))
        surveyor_check (self->surveyor, (page->number - 1) * self->page_size, page->keys,
                        page->size, (int64_t) page->size <= self->page_size);
}

pages_state_t
pages_finish (pages_t *self)
{
    page_t *page;
    while ((page = (page_t *) zlistx_detach (self->fresh, NULL))) {
        s_check (self, page);
        s_keep (self, page);
    }
    if (self->unfit)
        pages_outdate (self);
    bool missing = self->unfit;
    for (size_t index = 0; index < self->wanted.size && !missing; index++)
        missing = !pages_find (self, self->wanted.numbers[index]);
    if (!*self->error && missing && self->attempts < ATTEMPTS_MAX)
        return PAGES_AGAIN;
    self->attempts = 0;
    self->unfit = false;
    self->wanted.size = 0;
    if (missing && !*self->error)
        snprintf (self->error, sizeof (self->error), "the board changes too fast to be read");
    if (*self->error)
        pages_outdate (self);
    return *self->error ? PAGES_FAILED : PAGES_DONE;
}

page_t *
pages_next_changed (pages_t *self)
{
    s_numbers_sort (&self->read);
    for (size_t index = 0; index < self->read.size; index++) {
        page_t *page = (page_t *) zhashx_lookup (self->table, &self->read.numbers[index]);
        if (page && (page->etag != page->shown_etag || page->pages != page->shown_pages)) {
            page->shown_etag = page->etag;
            page->shown_pages = page->pages;
            return page;
        }
    }
    self->read.size = 0;
    return NULL;
}

void
pages_show_anew (pages_t *self, int64_t number)
{
    page_t *page = (page_t *) zhashx_lookup (self->table, &number);
    if (page)
        page->shown_pages = 0; //  As no page has
}

const char *
pages_error (const pages_t *self)
{
    return self->error;
}

void
pages_bound (pages_t *self, viewers_t *viewers)
{
    if (zhashx_size (self->table) < PAGES_MAX && self->bytes < BYTES_MAX)
        return;
    zlistx_t *unwanted = zlistx_new (); //  A table must not change while it is walked
    page_t *page = (page_t *) zhashx_first (self->table);
    for (; page; page = (page_t *) zhashx_next (self->table))
        if (!viewers_any (viewers, page->number))
            zlistx_add_end (unwanted, page);
    while ((page = (page_t *) zlistx_detach (unwanted, NULL)))
        s_drop (self, page);
    zlistx_destroy (&unwanted);
}

//  ------------------------------------------------------------------------
//  Self test: results as PostgreSQL gives them, without a server

static PGresult *
s_count_result (const char *count)
{
    PGresult *result = PQmakeEmptyPGresult (NULL, PGRES_TUPLES_OK);
    PGresAttDesc column = {.name = "count"};
    PQsetResultAttrs (result, 1, &column);
    PQsetvalue (result, 0, 0, (char *) count, (int) strlen (count));
    return result;
}

//  Pages with one message each.

static PGresult *
s_rows_result (const char *const *numbers)
{
    PGresult *rows = PQmakeEmptyPGresult (NULL, PGRES_TUPLES_OK);
    PGresAttDesc columns[5] = {
        {.name = "page"}, {.name = "id"}, {.name = "author"}, {.name = "text"}, {.name = "time"}};
    PQsetResultAttrs (rows, 5, columns);
    for (int row = 0; numbers[row]; row++)
        for (int column = 0; column < 5; column++)
            PQsetvalue (rows, row, column, (char *) numbers[row], (int) strlen (numbers[row]));
    return rows;
}

//  Takes a count (NULL: none was asked for), pages, and the Sync.

static pages_state_t
s_take_all (pages_t *self, const site_t *site, const char *count, const char *const *numbers)
{
    if (count)
        pages_take (self, site, s_count_result (count));
    pages_take (self, site, s_rows_result (numbers));
    return pages_finish (self);
}

static void
s_test_reading (pages_t *self, const site_t *site)
{
    assert (pages_count (self) == 0 && !pages_find (self, 1));
    pages_want (self, 1);
    pages_want (self, 9);
    s_prepare (self, false);
    pages_state_t state = s_take_all (self, site, "3", (const char *const[]){"1", NULL});
    assert (state == PAGES_AGAIN && pages_count (self) == 3); //  Page 9 is page 3
    s_prepare (self, false);
    state = s_take_all (self, site, NULL, (const char *const[]){"3", "1", NULL});
    assert (state == PAGES_DONE && !pages_wanted (self));
    assert (pages_find (self, 9)->number == 3 && pages_find (self, 1)->pages == 3);
    assert (pages_next_changed (self)->number == 3); //  The last page first
    assert (pages_next_changed (self)->number == 1);
    assert (!pages_next_changed (self));
    pages_want (self, 1);
    assert (!pages_wanted (self)); //  It is up to date
}

//  Somebody deleted behind our back: page 3 has no rows, though the count says so.

static void
s_test_unfit (pages_t *self, const site_t *site)
{
    pages_outdate (self);
    assert (!pages_find (self, 1) && pages_last_known (self, 1));
    pages_want (self, 3);
    s_prepare (self, false);
    pages_state_t state = s_take_all (self, site, NULL, (const char *const[]){NULL});
    assert (state == PAGES_AGAIN);
    s_prepare (self, false);
    state = s_take_all (self, site, "1", (const char *const[]){NULL});
    assert (state == PAGES_AGAIN && pages_count (self) == 1);
    s_prepare (self, false);
    state = s_take_all (self, site, NULL, (const char *const[]){"1", NULL});
    assert (state == PAGES_DONE && pages_next_changed (self)->pages == 1);
    assert (!pages_next_changed (self));
}

//  While messages are being counted, a page is shown for its rows, whatever the guess says; and
//  what the transaction under way has added counts.

static void
s_test_guess (pages_t *self, const site_t *site)
{
    surveyor_hear (self->surveyor, "us", "- 1 *");
    pages_outdate (self);
    assert (!pages_are_counted (self) && pages_count (self) == 1);
    pages_want (self, 5);
    pages_want (self, 1);
    s_prepare (self, true);
    assert (!self->counting && self->plain);
    pages_expect (self, 1);
    pages_state_t state = s_take_all (self, site, NULL, (const char *const[]){"5", "1", NULL});
    assert (state == PAGES_DONE && pages_find (self, 5)->pages == 2);
    pages_expect (self, 0);
    surveyor_counted (self->surveyor, 1);
    assert (pages_find (self, 5)->number == 1);
    assert (pages_next_changed (self)->number == 5);
    assert (pages_next_changed (self)->number == 1);
    assert (!pages_next_changed (self));
}

//  What is read again as it was has not changed, unless somebody has come to it.

static bool
s_changes (pages_t *self, const site_t *site)
{
    pages_outdate (self);
    pages_want (self, 1);
    s_prepare (self, false);
    pages_state_t state = s_take_all (self, site, NULL, (const char *const[]){"1", NULL});
    assert (state == PAGES_DONE);
    bool changes = pages_next_changed (self);
    assert (!pages_next_changed (self));
    return changes;
}

static void
s_test_show_anew (pages_t *self, const site_t *site)
{
    s_changes (self, site);
    assert (!s_changes (self, site));
    pages_show_anew (self, 99); //  Nobody has read that one
    assert (!s_changes (self, site));
    pages_show_anew (self, 1);
    assert (s_changes (self, site) && !s_changes (self, site));
}

//  What the board shows is what was up to date, until it is to look different.

static void
s_test_settled (pages_t *self, const site_t *site)
{
    s_changes (self, site);
    assert (pages_find (self, 1) && pages_find_settled (self, 1));
    pages_outdate (self);
    assert (!pages_find_settled (self, 1)); //  Another version was settled, or none
    s_changes (self, site);
    pages_settle (self);
    pages_outdate (self);
    assert (!pages_find (self, 1) && pages_find_settled (self, 1));
    s_changes (self, site);
    assert (pages_find_settled (self, 1)->version > self->settled);
    pages_settle (self);
    pages_outdate (self);
    pages_unsettle (self);
    assert (!pages_find_settled (self, 1) && pages_last_known (self, 1));
}

//  One add, which page 1 takes; rows as an add returns them.

static pages_state_t
s_grow (pages_t *self, const site_t *site, const char *const *numbers)
{
    pages_outdate (self);
    pages_want (self, 1);
    bool grows = pages_grow (self, self->page_size);
    assert (grows);
    return s_take_all (self, site, NULL, numbers);
}

//  Page 1 grows if it is up to date and nothing else is wanted; where no row comes, it is read.

static void
s_test_growth (pages_t *self, const site_t *site)
{
    s_changes (self, site);
    self->page_size = 2;
    pages_state_t state = s_grow (self, site, (const char *const[]){"1", NULL});
    assert (state == PAGES_DONE && pages_find (self, 1)->size == 2);
    assert (pages_next_changed (self)->number == 1);
    state = s_grow (self, site, (const char *const[]){"0", NULL}); //  It was stored before
    assert (state == PAGES_DONE && pages_find (self, 1)->size == 2 && !pages_next_changed (self));
    pages_outdate (self);
    pages_want (self, 1);
    bool grows = pages_grow (self, self->page_size);
    assert (grows && pages_finish (self) == PAGES_AGAIN); //  The add failed

    pages_break (self);
    pages_want (self, 1);
    assert (!pages_grow (self, self->page_size)); //  Something was written that it does not show
    pages_break (self);
    s_changes (self, site);
    pages_outdate (self);
    pages_want (self, 1);
    assert (!pages_grow (self, self->page_size + 1));
    pages_want (self, 2);
    assert (!pages_grow (self, self->page_size));
    pages_break (self);
    self->page_size = 1;
}

static void
s_test_empty (pages_t *self, const site_t *site)
{
    pages_outdate (self);
    surveyor_counted (self->surveyor, 0);
    pages_want (self, 1);
    s_prepare (self, false);
    pages_state_t state = s_take_all (self, site, NULL, (const char *const[]){NULL});
    assert (state == PAGES_DONE && pages_count (self) == 1);
    assert (!strstr (pages_find (self, 1)->html, "<article"));

    pages_outdate (self);
    pages_want (self, 1);
    s_prepare (self, false);
    assert (pages_are_near (self, 1));
    snprintf (self->error, sizeof (self->error), "no such table"); //  As a failing result sets it
    state = pages_finish (self);
    assert (state == PAGES_FAILED && streq (pages_error (self), "no such table"));
    pages_want (self, 1);
    s_prepare (self, false);
    pages_take (self, site, s_rows_result ((const char *const[]){"1", NULL}));
    pages_break (self); //  The transaction was void: what was read never was
    assert (!strstr (pages_last_known (self, 1)->html, "<article"));
    assert (!pages_find (self, 1));
}

void
pages_test (bool verbose)
{
    printf (" * pages: ");
    if (verbose)
        printf ("\n");
    site_t *site = scratch_site ();
    viewers_t *viewers = viewers_new ();
    surveyor_t *surveyor = surveyor_new ();
    pages_t *self = pages_new (surveyor);
    s_test_reading (self, site);
    s_test_unfit (self, site);
    s_test_guess (self, site);
    s_test_show_anew (self, site);
    s_test_settled (self, site);
    s_test_growth (self, site);
    s_test_empty (self, site);
    pages_bound (self, viewers); //  There are few: nothing happens
    assert (pages_last_known (self, 1));
    size_t before = zhashx_size (self->table);
    assert (self->bytes > 0);
    self->bytes += BYTES_MAX; //  As if they were large
    pages_bound (self, viewers);
    assert (before > 1 && zhashx_size (self->table) == 1 && pages_last_known (self, 1));
    self->bytes -= BYTES_MAX;
    assert (self->bytes == s_bytes (pages_last_known (self, 1)));
    pages_destroy (&self);
    pages_destroy (&self);
    surveyor_destroy (&surveyor);
    viewers_destroy (&viewers);
    site_destroy (&site);
    printf ("OK\n");
}
