//  One table drives everything: s_entries has a row for each key, and reading, checking, printing,
//  --help and comparing are loops over it. A new key is a row here and a field in settings_t.
//
//  Debian's inih splits the lines. Left as it comes, it cuts a line at 197 bytes, takes an indented
//  line for more of the value above, ends a value at " ;", and tells neither of an empty section
//  nor of text behind a section's bracket. Debian's build lets a program turn the first three off;
//  and we hand it the lines ourselves, so we see each section and know where we are.
//
//  Invariants: a value that is in settings_t has passed its row's check; what settings_print ()
//  wrote can be read again; no error and no print shows a password.

#include "config/settings.h"
#include "config/folder.h"
#include "http/address.h"
#include "http/utf8.h"

#include <arpa/inet.h>
#include <ini.h>
#include <libpq-fe.h>

#define LINE_MAX_BYTES  4096
#define VALUE_MAX_BYTES 4000 //  So that each value fits into a line, its key before it

//  What a request has beside author and text: braces, names, id, version, key and ref
#define ENVELOPE_MAX_BYTES 1000
//  JSON may write one code point as two escaped surrogates: \uD83D\uDE00
#define CODE_POINT_MAX_BYTES 12

#define STATE_DIR      "var"
#define STATE_DIR_ROOT "/var/lib/breadboard"

typedef enum { TYPE_TEXT, TYPE_NUMBER, TYPE_BOOLEAN, TYPE_WORD, TYPE_DATABASE } type_t;

typedef struct {
    const char *section;
    const char *key;
    type_t type;
    size_t offset;                     //  Of the field in settings_t
    const char *fallback;              //  The default, as text
    int64_t least;                     //  Of a number; of a text, in code points
    int64_t most;                      //  0 for a text: no limit but VALUE_MAX_BYTES
    const char *words[5];              //  Of TYPE_WORD; the last is NULL
    const char *form;                  //  What check or libpq demands, to follow "must be "
    bool (*check) (const char *value); //  NULL: any text
    bool (*each) (const char *text, size_t size); //  Its words; NULL: no list
    bool fixed;                                   //  Only a restart changes it
    const char *meaning;                          //  One sentence, with the unit
    const char *why;                              //  More of it, for the file; NULL: nothing
} entry_t;

//  ------------------------------------------------------------------------
//  Checks of single values

static bool
s_is_port (const char *text, size_t size, int least)
{
    long port = size > 0 && size <= 5 && strspn (text, "0123456789") >= size
                    ? strtol (text, NULL, 10)
                    : -1;
    return port >= least && port <= 65535;
}

static bool
s_is_listen (const char *value)
{
    char address[INET_ADDRSTRLEN];
    size_t size = strcspn (value, ":");
    snprintf (address, sizeof (address), "%.*s", (int) size, value);
    struct in_addr binary;
    return size < sizeof (address) && value[size] && inet_pton (AF_INET, address, &binary) == 1 &&
           s_is_port (value + size + 1, strlen (value + size + 1), 0);
}

//  The paths of the board's pages, as http/server routes them: these, and what lies below a folder

static bool
s_is_page (const char *path)
{
    static const char *const pages[] = {"/", "/messages", "/healthz", "/readyz", "/metrics"};
    static const char *const folders[] = {"/messages/", "/static/"};
    for (size_t at = 0; at < sizeof (pages) / sizeof (*pages); at++)
        if (streq (path, pages[at]))
            return true;
    for (size_t at = 0; at < sizeof (folders) / sizeof (*folders); at++)
        if (strncmp (path, folders[at], strlen (folders[at])) == 0)
            return true;
    return false;
}

//  civetweb gives "$", "*", "|" and "^" a meaning of their own, and compares paths after it has
//  decoded them and taken out what "//" and "/." stand for.

static bool
s_is_path (const char *value)
{
    return *value == '/' && !strpbrk (value, "?#$*|^%\\ ") && !strstr (value, "//") &&
           !strstr (value, "/.") && !s_is_page (value);
}

//  A name as browsers send it (so in ASCII), or an address, IPv6 in brackets

static bool
s_is_host (const char *text, size_t size)
{
    static const char *letters =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
    if (size > 2 && text[0] == '[' && text[size - 1] == ']')
        return strspn (text + 1, "0123456789abcdefABCDEF:.") == size - 2;
    return size > 0 && strspn (text, letters) >= size;
}

//  RFC 6454, 6.2: scheme, host and port, and nothing behind them

static bool
s_is_origin (const char *text, size_t size)
{
    const char *end = text + size;
    const char *host = strstr (text, "://");
    if (!host || host == text || host + 3 >= end || !isalpha ((byte) *text))
        return false;
    for (const char *at = text; at < host; at++)
        if (!isalnum ((byte) *at) && !strchr ("+-.", *at))
            return false;
    host += 3;
    const char *port = memrchr (host, ':', (size_t) (end - host));
    if (!port || end[-1] == ']')
        return s_is_host (host, (size_t) (end - host));
    return s_is_host (host, (size_t) (port - host)) &&
           s_is_port (port + 1, (size_t) (end - port) - 1, 1);
}

static bool
s_is_each (const char *list, bool (*is) (const char *text, size_t size))
{
    for (list += strspn (list, " "); *list; list += strspn (list, " ")) {
        size_t size = strcspn (list, " ");
        if (!is (list, size))
            return false;
        list += size;
    }
    return true;
}

//  ------------------------------------------------------------------------
//  The table

//  A field of settings_t is named after section and key
//  NOLINTBEGIN(bugprone-macro-parentheses): names that are pasted take none
#define ENTRY(the_section, the_key, the_type)                     \
    .section = #the_section, .key = #the_key, .type = (the_type), \
    .offset = offsetof (settings_t, the_section##_##the_key)
//  NOLINTEND(bugprone-macro-parentheses)

static const entry_t s_entries[] = {
    {ENTRY (http, listen, TYPE_TEXT), .fallback = "127.0.0.1:8080",
     .form = "IPv4ADDRESS:PORT, such as 127.0.0.1:8080 (for IPv6 put a proxy in front)",
     .check = s_is_listen, .fixed = true,
     .meaning = "Where to listen; port 0 takes a free one, which the ready line names."},
    {ENTRY (http, path, TYPE_TEXT), .fallback = "/ws/social-network/",
     .form = "a path that starts with /, has none of ? # $ * | ^ % \\ // /. or a space, and is no "
             "page of the board's",
     .check = s_is_path, .fixed = true, .meaning = "The WebSocket's path."},
    {ENTRY (http, max_connections, TYPE_NUMBER), .fallback = "0", .most = 1000000, .fixed = true,
     .meaning = "How many WebSockets may be open at once; 0: as many as descriptors allow."},
    {ENTRY (http, threads, TYPE_NUMBER), .fallback = "32", .least = 1, .most = 256, .fixed = true,
     .meaning = "Threads for pages and handshakes; open WebSockets need none of them."},
    {ENTRY (http, allowed_hosts, TYPE_TEXT), .fallback = "",
     .form = "host names without scheme, port or path, separated by spaces", .each = s_is_host,
     .meaning = "Hosts to answer to; empty: any, or when we listen on loopback, its names only."},
    {ENTRY (http, metrics, TYPE_WORD), .fallback = "loopback", .words = {"loopback", "all", "off"},
     .meaning = "Who may read /metrics: this machine, everybody, or nobody."},
    {ENTRY (http, allowed_origins, TYPE_TEXT), .fallback = "",
     .form = "origins such as https://board.example:8443, separated by spaces", .each = s_is_origin,
     .meaning = "Foreign origins whose pages may write and open WebSockets; empty: none."},
    {ENTRY (http, trust_proxy, TYPE_BOOLEAN), .fallback = "no",
     .meaning = "Whether X-Forwarded-Proto and X-Forwarded-For are believed; only behind a proxy."},
    {ENTRY (http, templates, TYPE_TEXT), .fallback = "", .form = "a folder",
     .meaning = "A folder whose templates replace those inside the program; empty: none."},
    {ENTRY (http, static, TYPE_TEXT), .fallback = "", .form = "a folder",
     .meaning = "A folder whose files replace those inside the program; empty: none."},
    {ENTRY (database, url, TYPE_DATABASE), .fallback = "",
     .form = "a libpq connection string or URI, such as postgresql://user@host/dbname",
     .fixed = true,
     .meaning = "Your PostgreSQL; empty: a private one, which this program starts and stops."},
    {ENTRY (database, state_dir, TYPE_TEXT), .fallback = "", .form = "a folder", .fixed = true,
     .meaning = "Where the private one lives; empty: " STATE_DIR
                " under the working directory (root: " STATE_DIR_ROOT ")."},
    {ENTRY (database, connect_timeout_ms, TYPE_NUMBER), .fallback = "5000", .least = 100,
     .most = 60000, .fixed = true, .meaning = "How long one try to connect may take, in ms."},
    {ENTRY (database, statement_timeout_ms, TYPE_NUMBER), .fallback = "10000", .least = 100,
     .most = 600000, .fixed = true,
     .meaning = "How long a statement may take, and a second more how long PostgreSQL may be silent"
                " while we wait, in ms."},
    {ENTRY (database, lock_timeout_ms, TYPE_NUMBER), .fallback = "300", .least = 10, .most = 60000,
     .fixed = true,
     .meaning = "How long to wait for a message that somebody else keeps locked, in ms; at most "
                "statement_timeout_ms."},
    {ENTRY (board, title, TYPE_TEXT), .fallback = "Social Network", .least = 1, .most = 100,
     .meaning = "The board's name, over its page and in the browser's tab."},
    {ENTRY (board, page_size, TYPE_NUMBER), .fallback = "5", .least = 1, .most = 100,
     .meaning = "Messages on a page."},
    {ENTRY (board, author_max, TYPE_NUMBER), .fallback = "100", .least = 1, .most = 100,
     .meaning = "The longest author, in Unicode code points; the table's column holds 100."},
    {ENTRY (board, text_max, TYPE_NUMBER), .fallback = "200", .least = 1, .most = 10000,
     .meaning = "The longest text of a message, in Unicode code points."},
    {ENTRY (limits, max_message_bytes, TYPE_NUMBER), .fallback = "65536", .least = 1024,
     .most = 16777216, .meaning = "The longest WebSocket message, fragments joined, in bytes."},
    {ENTRY (limits, messages_per_second, TYPE_NUMBER), .fallback = "20", .most = 1000000,
     .meaning =
         "WebSocket messages that a connection may send each second on average; 0: no limit."},
    {ENTRY (limits, burst, TYPE_NUMBER), .fallback = "40", .least = 1, .most = 1000000,
     .meaning = "WebSocket messages that a connection may send at once after a rest."},
    {ENTRY (limits, bytes_per_second, TYPE_NUMBER), .fallback = "4194304", .most = 1000000000,
     .meaning = "Bytes that a connection may send each second on average; 0: no limit.",
     .why =
         "Twice as many at once. Empty fragments and the like, which are no messages, are bounded"
         " by this alone."},
    {ENTRY (limits, connections_per_address, TYPE_NUMBER), .fallback = "4000", .most = 1000000,
     .meaning =
         "WebSockets that one address (of IPv6: one /64 network) may have open; 0: no limit.",
     .why = "The limits of an address are high, so that a campus behind one address passes, or a"
            " proxy that trust_proxy does not make known."},
    {ENTRY (limits, handshakes_per_address, TYPE_NUMBER), .fallback = "1000", .most = 1000000,
     .meaning = "WebSockets that an address may open each second on average; 0: no limit.",
     .why = "Twice as many at once. After a restart up to 1000 clients a second come back."},
    {ENTRY (limits, messages_per_address, TYPE_NUMBER), .fallback = "2000", .most = 1000000,
     .meaning =
         "WebSocket messages and forms that an address may send each second on average; 0: no"
         " limit.",
     .why = "Twice as many at once."},
    {ENTRY (limits, bytes_per_address, TYPE_NUMBER), .fallback = "33554432", .most = 1000000000,
     .meaning = "Bytes of these that an address may send each second on average; 0: no limit.",
     .why = "Twice as many at once."},
    {ENTRY (limits, exempt_addresses, TYPE_TEXT), .fallback = "127.0.0.0/8 ::1",
     .form = "addresses and networks such as 10.0.0.0/8, separated by spaces",
     .each = address_is_network,
     .meaning = "Addresses to which the limits of an address do not apply; empty: none.",
     .why = "So a proxy on this machine is not taken for one client of many connections. In "
            "X-Forwarded-For, if that is"
            " trusted, these are passed over: they are proxies, too."},
    {ENTRY (log, level, TYPE_WORD), .fallback = "info",
     .words = {"debug", "info", "warning", "error"},
     .meaning = "The least important lines that are still logged."},
    {ENTRY (log, format, TYPE_WORD), .fallback = "text", .words = {"text", "json"},
     .meaning = "How lines are logged to stderr; json writes one object a line."},
};

#define ENTRIES (sizeof (s_entries) / sizeof (s_entries[0]))

//  Finds a key's row, or with NULL a section's first. size: of the section's name, which need not
//  end there.

static const entry_t *
s_find_in (const char *section, size_t size, const char *key)
{
    for (const entry_t *entry = s_entries; entry < s_entries + ENTRIES; entry++)
        if (strlen (entry->section) == size && memcmp (entry->section, section, size) == 0 &&
            (!key || streq (entry->key, key)))
            return entry;
    return NULL;
}

static const entry_t *
s_find (const char *section, const char *key)
{
    return s_find_in (section, strlen (section), key);
}

//  ------------------------------------------------------------------------
//  Values: what they may be, from text, to text

static char *
s_copy (const char *text)
{
    char *copy = strdup (text);
    assert (copy);
    return copy;
}

//  Returns "loopback, all or off", caller's to free

static char *
s_join_words (const entry_t *entry)
{
    char *text = s_copy (entry->words[0]);
    for (int at = 1; entry->words[at]; at++) {
        char *longer = zsys_sprintf ("%s%s%s", text, entry->words[at + 1] ? ", " : " or ",
                                     entry->words[at]);
        freen (text);
        text = longer;
    }
    return text;
}

//  Returns what the key's value may be, to follow "must be "; caller frees

static char *
s_allowed (const entry_t *entry)
{
    if (entry->form)
        return s_copy (entry->form);
    if (entry->type == TYPE_WORD)
        return s_join_words (entry);
    if (entry->type == TYPE_BOOLEAN)
        return s_copy ("yes or no");
    return zsys_sprintf (entry->type == TYPE_NUMBER ? "a number from %" PRId64 " to %" PRId64
                                                    : "%" PRId64 " to %" PRId64 " characters",
                         entry->least, entry->most);
}

//  Whether text is UTF-8 without control characters, C1's included

static bool
s_is_text (const char *text, size_t size, bool tabs)
{
    if (!utf8_valid (text, size))
        return false;
    for (size_t at = 0; at < size; at++) {
        byte this = (byte) text[at];
        if ((this < 0x20 && !(tabs && this == '\t')) || this == 0x7F)
            return false;
        if (this == 0xC2 && (byte) text[at + 1] < 0xA0)
            return false;
    }
    return true;
}

//  dispchar is libpq's own mark of what must not be shown

static bool
s_is_secret (const PQconninfoOption *option)
{
    return streq (option->dispchar, "*");
}

//  Returns libpq's complaint without what it quotes, as that can be a piece of a password: from the
//  first quote to the last, since a password can have quotes too.

static char *
s_without_quotes (const char *complaint)
{
    const char *first = strchr (complaint, '"');
    const char *last = strrchr (complaint, '"');
    int size = (int) strcspn (complaint, "\n");
    if (!first)
        return zsys_sprintf ("%.*s", size, complaint);
    return zsys_sprintf ("%.*s\"***\"%.*s", (int) (first - complaint), complaint,
                         (int) strcspn (last + 1, "\n"), last + 1);
}

//  Returns NULL, or what is wrong, caller's to free

static char *
s_check_database (const entry_t *entry, const char *value)
{
    if (!*value)
        return NULL;
    char *complaint = NULL;
    PQconninfoOption *options = PQconninfoParse (value, &complaint);
    if (!options) {
        char *safe = s_without_quotes (complaint ? complaint : "out of memory");
        char *wrong = zsys_sprintf ("must be %s (libpq: %s)", entry->form, safe);
        freen (safe);
        PQfreemem (complaint);
        return wrong;
    }
    char *wrong = NULL;
    for (PQconninfoOption *option = options; option->keyword && !wrong; option++)
        if (option->val && !s_is_secret (option) &&
            !s_is_text (option->val, strlen (option->val), false))
            wrong = zsys_sprintf ("must be UTF-8 without control characters in its %s",
                                  option->keyword);
    PQconninfoFree (options);
    return wrong;
}

static bool
s_parse_number (const entry_t *entry, const char *value, int64_t *number_p)
{
    if (!*value || value[strspn (value, "0123456789")])
        return false;
    errno = 0;
    *number_p = strtoll (value, NULL, 10);
    return errno == 0 && *number_p >= entry->least && *number_p <= entry->most;
}

static bool
s_parse_boolean (const char *value, bool *boolean_p)
{
    static const char *words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
    for (size_t at = 0; at < sizeof (words) / sizeof (words[0]); at++)
        if (strcasecmp (value, words[at]) == 0) {
            *boolean_p = at % 2 == 1;
            return true;
        }
    return false;
}

static bool
s_is_word (const entry_t *entry, const char *value)
{
    for (int at = 0; entry->words[at]; at++)
        if (streq (entry->words[at], value))
            return true;
    return false;
}

static bool
s_is_fitting_text (const entry_t *entry, const char *value)
{
    int64_t length = (int64_t) utf8_count (value, strlen (value));
    return (entry->most == 0 || (length >= entry->least && length <= entry->most)) &&
           (!entry->check || entry->check (value)) &&
           (!entry->each || s_is_each (value, entry->each));
}

static void *
s_field (const settings_t *self, const entry_t *entry)
{
    return (byte *) self + entry->offset;
}

static bool
s_is_string (const entry_t *entry)
{
    return entry->type != TYPE_NUMBER && entry->type != TYPE_BOOLEAN;
}

static void
s_assign_string (settings_t *self, const entry_t *entry, const char *value)
{
    char **field_p = (char **) s_field (self, entry);
    freen (*field_p);
    *field_p = s_copy (value);
}

//  Puts the value into its field. Returns NULL, or what is wrong with it, caller's to free.

static char *
s_assign (settings_t *self, const entry_t *entry, const char *value)
{
    if (strlen (value) > VALUE_MAX_BYTES)
        return zsys_sprintf ("must be at most %d bytes", VALUE_MAX_BYTES);
    if (!s_is_text (value, strlen (value), false))
        return s_copy ("must be UTF-8 without control characters");

    bool fits = true;
    if (entry->type == TYPE_NUMBER)
        fits = s_parse_number (entry, value, (int64_t *) s_field (self, entry));
    else if (entry->type == TYPE_BOOLEAN)
        fits = s_parse_boolean (value, (bool *) s_field (self, entry));
    else if (entry->type == TYPE_WORD)
        fits = s_is_word (entry, value);
    else if (entry->type == TYPE_TEXT)
        fits = s_is_fitting_text (entry, value);
    else {
        char *wrong = s_check_database (entry, value);
        if (wrong)
            return wrong;
    }
    if (!fits) {
        char *allowed = s_allowed (entry);
        char *wrong = zsys_sprintf ("must be %s", allowed);
        freen (allowed);
        return wrong;
    }
    if (s_is_string (entry))
        s_assign_string (self, entry, value);
    return NULL;
}

//  Returns the value as it is written in a file, caller's to free. With NULL self, the default.

static char *
s_value (const settings_t *self, const entry_t *entry)
{
    if (!self)
        return s_copy (entry->fallback);
    if (entry->type == TYPE_NUMBER)
        return zsys_sprintf ("%" PRId64, *(int64_t *) s_field (self, entry));
    if (entry->type == TYPE_BOOLEAN)
        return s_copy (*(bool *) s_field (self, entry) ? "yes" : "no");
    return s_copy (*(char **) s_field (self, entry));
}

//  ------------------------------------------------------------------------
//  Reading

typedef struct {
    settings_t *settings;   //  Being made; owned
    char *origins[ENTRIES]; //  "FILE:LINE" or "-s ...", which set the key; NULL: default; owned
    const char *file;       //  Borrowed from the caller
    FILE *stream;           //  Open while we read the file
    int line;               //  Of the line read last, from 1
    char *here;             //  "FILE:LINE" of that line; owned
    char *error;            //  The first; owned
} reader_t;

//  Sets a key from where origin says.

static void
s_set (reader_t *self, const char *section, const char *key, const char *value, const char *origin)
{
    const entry_t *entry = s_find (section, key);
    char *wrong = entry ? s_assign (self->settings, entry, value)
                        : s_copy ("no such key; see --print-config");
    if (wrong)
        self->error = zsys_sprintf ("%s: %s.%s: %s", origin, section, key, wrong);
    else {
        freen (self->origins[entry - s_entries]);
        self->origins[entry - s_entries] = s_copy (origin);
    }
    freen (wrong);
}

//  inih has a key and its value. Returns 0 to stop it.

static int
s_handle_pair (void *user, const char *section, const char *key, const char *value)
{
    reader_t *self = (reader_t *) user;
    const entry_t *entry = s_find (section, key);
    if (!*section)
        self->error = zsys_sprintf ("%s: %s: stands before the first [section]", self->here, key);
    else if (entry && self->origins[entry - s_entries])
        self->error = zsys_sprintf ("%s: %s.%s: already set at %s", self->here, section, key,
                                    self->origins[entry - s_entries]);
    else
        s_set (self, section, key, value, self->here);
    return self->error ? 0 : 1;
}

//  Checks a line for what inih lets pass: bytes that are no text, unknown sections, and text behind
//  a section's bracket. The line is trimmed at its end.

static void
s_check_line (reader_t *self, const char *line, size_t size)
{
    size_t indent = strspn (line, " \t");
    const char *text = line + indent;
    if (!s_is_text (line, size, true))
        self->error = zsys_sprintf ("%s: must be UTF-8 without control characters", self->here);
    else if (*text == '[' && (size - indent < 2 || line[size - 1] != ']' ||
                              !s_find_in (text + 1, size - indent - 2, NULL)))
        self->error = zsys_sprintf ("%s: %s: no such section; see --print-config", self->here,
                                    text);
}

//  Takes off a line's end what is white space, and off the file's start a byte order mark. Returns
//  the line's size.

static size_t
s_trim_line (char *line, size_t size, bool first)
{
    if (first && size >= 3 && memcmp (line, "\xEF\xBB\xBF", 3) == 0) {
        size -= 3;
        memmove (line, line + 3, size);
    }
    while (size > 0 && strchr ("\r\t ", line[size - 1]) && line[size - 1])
        size--;
    line[size] = 0;
    return size;
}

//  inih wants a line. Returns NULL at the file's end, or when the line is bad.

static char *
s_read_line (char *line, int capacity, void *stream)
{
    reader_t *self = (reader_t *) stream;
    size_t most = (size_t) capacity - 2; //  LF and NUL come behind it
    size_t size = 0;
    int next = getc (self->stream);
    if (next == EOF)
        return NULL;
    freen (self->here);
    self->here = zsys_sprintf ("%s:%d", self->file, ++self->line);
    for (; next != EOF && next != '\n'; next = getc (self->stream)) {
        if (size == most) {
            self->error = zsys_sprintf ("%s: the line is longer than %d bytes", self->here,
                                        LINE_MAX_BYTES);
            return NULL;
        }
        line[size++] = (char) next;
    }
    size = s_trim_line (line, size, self->line == 1);
    s_check_line (self, line, size);
    memcpy (line + size, "\n", 2);
    return self->error ? NULL : line;
}

static void
s_read_file (reader_t *self, const char *file)
{
    self->file = file;
    self->stream = fopen (file, "re");
    if (!self->stream) {
        self->error = zsys_sprintf ("%s: could not be opened: %s", file, strerror (errno));
        return;
    }
    ini_max_line = LINE_MAX_BYTES + 2;
    ini_allow_multiline = false;
    ini_allow_inline_comments = false;
    ini_stop_on_first_error = true;
    int rc = ini_parse_stream (s_read_line, self, s_handle_pair, self);
    if (!self->error && ferror (self->stream))
        self->error = zsys_sprintf ("%s: could not be read: %s", file, strerror (errno));
    else if (!self->error && rc != 0)
        self->error = zsys_sprintf ("%s: is not KEY = VALUE, nor a [section], nor a # comment",
                                    self->here);
    fclose (self->stream);
}

//  Returns the option as it was given, but shows no value of a key that is secret or that we do not
//  know, as it can be a password behind a slip, and none that is no text. Caller frees.

static char *
s_option (const entry_t *entry, const char *name, const char *value)
{
    bool shown = entry && entry->type != TYPE_DATABASE && s_is_text (value, strlen (value), false);
    return zsys_sprintf ("-s %s=%s", name, shown ? value : "...");
}

//  Cuts white space off both ends, as inih does; works in place.

static char *
s_trim (char *text)
{
    text += strspn (text, " \t");
    s_trim_line (text, strlen (text), false);
    return text;
}

static void
s_override (reader_t *self, const char *override)
{
    char *name = s_copy (override);
    char *equals = strchr (name, '=');
    char *dot = equals ? memchr (name, '.', (size_t) (equals - name)) : NULL;
    if (!dot || !s_is_text (name, (size_t) (equals - name), false))
        self->error = s_copy ("-s: must be followed by SECTION.KEY=VALUE");
    else {
        *equals = 0;
        *dot = 0;
        char *section = s_trim (name);
        char *key = s_trim (dot + 1);
        char *value = s_trim (equals + 1);
        char *full = zsys_sprintf ("%s.%s", section, key);
        char *origin = s_option (s_find (section, key), full, value);
        s_set (self, section, key, value, origin);
        freen (origin);
        freen (full);
    }
    freen (name);
}

typedef struct {
    const char *section;
    const char *key;
} name_t;

//  Where the first one of these was set that was; the defaults fit, so one of them was.

static const char *
s_culprit (const reader_t *self, const name_t *names)
{
    const char *origin = NULL;
    for (; !origin; names++) {
        assert (names->section);
        origin = self->origins[s_find (names->section, names->key) - s_entries];
    }
    return origin;
}

//  Each message that the board takes must fit into a WebSocket message, however a client writes its
//  JSON.

static void
s_check_sizes (reader_t *self)
{
    static const name_t names[] = {{"limits", "max_message_bytes"},
                                   {"board", "text_max"},
                                   {"board", "author_max"},
                                   {NULL, NULL}};
    const settings_t *settings = self->settings;
    int64_t needed = ENVELOPE_MAX_BYTES +
                     CODE_POINT_MAX_BYTES * (settings->board_author_max + settings->board_text_max);
    if (settings->limits_max_message_bytes < needed)
        self->error = zsys_sprintf ("%s: limits.max_message_bytes: must be at least %" PRId64
                                    " for messages of board.author_max and board.text_max",
                                    s_culprit (self, names), needed);
}

//  Who waits for a lock has to be told so before the statement is given up: only then is it known
//  which message is locked.

static void
s_check_timeouts (reader_t *self)
{
    static const name_t names[] = {
        {"database", "lock_timeout_ms"}, {"database", "statement_timeout_ms"}, {NULL, NULL}};
    const settings_t *settings = self->settings;
    if (settings->database_lock_timeout_ms > settings->database_statement_timeout_ms)
        self->error = zsys_sprintf ("%s: database.lock_timeout_ms: must be at most"
                                    " database.statement_timeout_ms",
                                    s_culprit (self, names));
}

static void
s_resolve_state_dir (settings_t *self)
{
    if (!*self->database_state_dir)
        s_assign_string (self, s_find ("database", "state_dir"),
                         geteuid () == 0 ? STATE_DIR_ROOT : STATE_DIR);
}

static settings_t *
s_defaults_new (void)
{
    settings_t *self = (settings_t *) zmalloc (sizeof (settings_t));
    for (size_t index = 0; index < ENTRIES; index++) {
        char *wrong = s_assign (self, &s_entries[index], s_entries[index].fallback);
        assert (!wrong);
    }
    return self;
}

settings_t *
settings_new (const char *file, zlistx_t *overrides, char **error_p)
{
    assert (error_p);
    reader_t reader = {.settings = s_defaults_new ()};
    if (file)
        s_read_file (&reader, file);
    char *override = overrides ? (char *) zlistx_first (overrides) : NULL;
    for (; override && !reader.error; override = (char *) zlistx_next (overrides))
        s_override (&reader, override);
    if (!reader.error)
        s_check_sizes (&reader);
    if (!reader.error)
        s_check_timeouts (&reader);
    if (!reader.error)
        s_resolve_state_dir (reader.settings);
    else
        settings_destroy (&reader.settings);
    for (size_t index = 0; index < ENTRIES; index++)
        freen (reader.origins[index]);
    freen (reader.here);
    *error_p = reader.error;
    return reader.settings;
}

void
settings_destroy (settings_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        for (size_t index = 0; index < ENTRIES; index++)
            if (s_is_string (&s_entries[index]))
                freen (*(char **) s_field (*self_p, &s_entries[index]));
        freen (*self_p);
    }
}

//  ------------------------------------------------------------------------
//  Writing

static void
s_write_option (const PQconninfoOption *option, FILE *stream)
{
    fprintf (stream, "%s%s='", ftell (stream) > 0 ? " " : "", option->keyword);
    for (const char *at = s_is_secret (option) ? "***" : option->val; *at; at++) {
        if (*at == '\'' || *at == '\\')
            fputc ('\\', stream);
        fputc (*at, stream);
    }
    fputc ('\'', stream);
}

//  Returns the URL as it is when it has no secret; else, what libpq understood by it, as a
//  connection string, each secret as ***. So no way to write a password escapes us. Caller frees.

static char *
s_masked (const char *url)
{
    PQconninfoOption *options = PQconninfoParse (url, NULL);
    assert (options); //  It has been checked
    bool secret = false;
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream (&text, &size);
    assert (stream);
    for (PQconninfoOption *option = options; option->keyword; option++)
        if (option->val) {
            s_write_option (option, stream);
            secret = secret || s_is_secret (option);
        }
    fclose (stream);
    PQconninfoFree (options);
    if (!secret) {
        freen (text);
        text = s_copy (url);
    }
    return text;
}

static void
s_print_entry (const settings_t *self, const entry_t *entry, FILE *stream)
{
    char *allowed = s_allowed (entry);
    char *value = s_value (self, entry);
    if (entry->type == TYPE_DATABASE) {
        char *masked = s_masked (value);
        freen (value);
        value = masked;
    }
    fprintf (stream, "\n#  %s\n", entry->meaning);
    if (entry->why)
        fprintf (stream, "#  %s\n", entry->why);
    fprintf (stream, "#  Allowed: %s.%s\n", allowed,
             entry->fixed ? "\n#  Read at start only." : "");
    fprintf (stream, "%s =%s%s\n", entry->key, *value ? " " : "", value);
    freen (value);
    freen (allowed);
}

void
settings_print (const settings_t *self, FILE *stream)
{
    assert (stream);
    fputs (self ? "#  Settings of breadboard, as they are in force; passwords are shown as ***.\n"
                : "#  Settings of breadboard, each at its default; breadboard -c FILE reads such a "
                  "file.\n",
           stream);
    fputs ("#  One key a line; a comment has a line of its own. SIGHUP reads the file anew.\n"
           "#  breadboard -s SECTION.KEY=VALUE overrides a key.\n",
           stream);
    const char *section = "";
    for (size_t index = 0; index < ENTRIES; index++) {
        if (!streq (section, s_entries[index].section))
            fprintf (stream, "\n[%s]\n", s_entries[index].section);
        section = s_entries[index].section;
        s_print_entry (self, &s_entries[index], stream);
    }
}

void
settings_help (FILE *stream)
{
    assert (stream);
    for (size_t index = 0; index < ENTRIES; index++) {
        const entry_t *entry = &s_entries[index];
        char *name = zsys_sprintf ("%s.%s", entry->section, entry->key);
        fprintf (stream, "  %-31s%s\n      %s\n", name,
                 *entry->fallback ? entry->fallback : "(empty)", entry->meaning);
        freen (name);
    }
}

char *
settings_keep_fixed (settings_t *self, const settings_t *running)
{
    char *names = NULL;
    size_t size = 0;
    FILE *stream = open_memstream (&names, &size);
    assert (stream);
    for (size_t index = 0; index < ENTRIES; index++) {
        const entry_t *entry = &s_entries[index];
        char *mine = s_value (self, entry);
        char *kept = s_value (running, entry);
        if (entry->fixed && !streq (mine, kept)) {
            fprintf (stream, "%s%s.%s", ftell (stream) > 0 ? " " : "", entry->section, entry->key);
            char *wrong = s_assign (self, entry, kept);
            assert (!wrong); //  It was right when running was made
        }
        freen (mine);
        freen (kept);
    }
    fclose (stream);
    return names;
}

//  ------------------------------------------------------------------------
//  Self test

//  Calls settings_new () with a file of these bytes, NULL for none, and these overrides, up to the
//  first NULL.

static settings_t *
s_try_bytes (const char *bytes, size_t size, const char *const *overrides, char **error_p)
{
    if (bytes) {
        FILE *file = fopen ("breadboard.ini", "we");
        assert (file);
        size_t written = fwrite (bytes, 1, size, file);
        assert (written == size);
        fclose (file);
    }
    zlistx_t *list = zlistx_new ();
    for (; *overrides; overrides++)
        zlistx_add_end (list, (void *) *overrides);
    settings_t *self = settings_new (bytes ? "breadboard.ini" : NULL, list, error_p);
    assert (!self == !!*error_p);
    zlistx_destroy (&list);
    return self;
}

static settings_t *
s_try (const char *text, const char *override, char **error_p)
{
    const char *overrides[] = {override, NULL};
    return s_try_bytes (text, text ? strlen (text) : 0, overrides, error_p);
}

static settings_t *
s_accepted (const char *text, const char *override)
{
    char *error = NULL;
    settings_t *self = s_try (text, override, &error);
    if (error)
        printf ("%s\n", error);
    assert (self);
    return self;
}

static void
s_test_refused (const char *text, const char *override, const char *expected, bool verbose)
{
    char *error = NULL;
    settings_t *self = s_try (text, override, &error);
    assert (!self);
    if (verbose || !streq (error, expected))
        printf ("\n   %s", error);
    assert (streq (error, expected));
    freen (error);
}

//  What settings_print () writes, and settings_help ()

static char *
s_written (const settings_t *self, bool help)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream (&text, &size);
    assert (stream);
    if (help)
        settings_help (stream);
    else
        settings_print (self, stream);
    fclose (stream);
    return text;
}

static void
s_test_defaults (void)
{
    settings_t *self = s_accepted (NULL, NULL);
    assert (streq (self->http_listen, "127.0.0.1:8080") && streq (self->database_url, ""));
    assert (streq (self->http_path, "/ws/social-network/") && !self->http_trust_proxy);
    assert (streq (self->database_state_dir, geteuid () == 0 ? STATE_DIR_ROOT : STATE_DIR));
    assert (self->board_page_size == 5 && self->limits_max_message_bytes == 65536);
    assert (self->board_author_max == 100 && self->board_text_max == 200);
    settings_destroy (&self);
    settings_destroy (&self); //  Safe twice

    char *error = NULL;
    self = settings_new (NULL, NULL, &error); //  No list is no overrides
    assert (self && !error);
    settings_destroy (&self);
}

static void
s_test_file (void)
{
    //  A byte order mark, CRLF, tabs, indented lines, a comment sign inside a value, a section that
    //  comes twice, and no line end at the end
    settings_t *self = s_accepted (
        "\xEF\xBB\xBF[http]\r\nlisten = 0.0.0.0:0\r\n\t threads\t=\t4\r\n"
        "; a comment\n  # another\n\n[board]\ntitle = Fish ; Chips # 1\n"
        "[http]\nallowed_hosts = board.example [2001:db8::1]\n"
        "allowed_origins = https://a.example  http://[::1]:80\n"
        "trust_proxy = True\n[log]\nlevel=debug\n[database]\nstate_dir =",
        NULL);
    assert (streq (self->http_listen, "0.0.0.0:0") && self->http_threads == 4);
    assert (streq (self->board_title, "Fish ; Chips # 1"));
    assert (streq (self->http_allowed_hosts, "board.example [2001:db8::1]"));
    assert (streq (self->http_allowed_origins, "https://a.example  http://[::1]:80"));
    assert (self->http_trust_proxy && streq (self->log_level, "debug"));
    assert (*self->database_state_dir);
    settings_destroy (&self);

    self = s_accepted ("", NULL);
    settings_destroy (&self);
}

static void
s_test_order (void)
{
    //  The command line wins over the file, and there the last
    const char *overrides[] = {"http.threads=5", "http.threads = 6 ", "board.title=a = b", NULL};
    const char *text = "[http]\nthreads = 4\nmetrics = off\n";
    char *error = NULL;
    settings_t *self = s_try_bytes (text, strlen (text), overrides, &error);
    assert (self && self->http_threads == 6 && streq (self->http_metrics, "off"));
    assert (streq (self->board_title, "a = b"));
    settings_destroy (&self);
}

//  Whole sentences: of files, and of options

static void
s_test_sentences (bool verbose)
{
    static const char *const files[][2] = {
        {"[http]\nport = 80\n", "breadboard.ini:2: http.port: no such key; see --print-config"},
        {"\n[web]\n", "breadboard.ini:2: [web]: no such section; see --print-config"},
        {"[http] x\n", "breadboard.ini:1: [http] x: no such section; see --print-config"},
        {"[http\n", "breadboard.ini:1: [http: no such section; see --print-config"},
        {"listen = x\n", "breadboard.ini:1: listen: stands before the first [section]"},
        {"[http]\nthreads = 4\n\nthreads = 4\n",
         "breadboard.ini:4: http.threads: already set at breadboard.ini:2"},
        {"[http]\nthreads\n",
         "breadboard.ini:2: is not KEY = VALUE, nor a [section], nor a # comment"},
        {"[http]\nthreads = 4 ; four\n",
         "breadboard.ini:2: http.threads: must be a number from 1 to 256"},
        {"[http]\npath = /a\n  /b\n",
         "breadboard.ini:3: is not KEY = VALUE, nor a [section], nor a # comment"},
        {"# \xFF\n", "breadboard.ini:1: must be UTF-8 without control characters"},
        {"[board]\ntitle = a\x1B[2J\n",
         "breadboard.ini:2: must be UTF-8 without control characters"},
        {"[board]\ntitle = \xC2\x9B\n",
         "breadboard.ini:2: must be UTF-8 without control characters"},
        {"[board]\ntitle = a\tb\n",
         "breadboard.ini:2: board.title: must be UTF-8 without control characters"},
        {"[board]\ntitle =\n", "breadboard.ini:2: board.title: must be 1 to 100 characters"},
        {"[board]\nauthor_max = 1\ntext_max = 10000\n",
         "breadboard.ini:3: limits.max_message_bytes: must be at least 121012 for messages of "
         "board.author_max and board.text_max"},
    };
    for (size_t at = 0; at < sizeof (files) / sizeof (files[0]); at++)
        s_test_refused (files[at][0], NULL, files[at][1], verbose);
    static const char *const options[][2] = {
        {"http.threads=0", "-s http.threads=0: http.threads: must be a number from 1 to 256"},
        {"http.listen=[::1]:80",
         "-s http.listen=[::1]:80: http.listen: must be IPv4ADDRESS:PORT, such as 127.0.0.1:8080 "
         "(for IPv6 put a proxy in front)"},
        {"http.metrics=", "-s http.metrics=: http.metrics: must be loopback, all or off"},
        {"log.format=xml", "-s log.format=xml: log.format: must be text or json"},
        {"http.trust_proxy=2", "-s http.trust_proxy=2: http.trust_proxy: must be yes or no"},
        {"http.port=80", "-s http.port=...: http.port: no such key; see --print-config"},
        {"=", "-s: must be followed by SECTION.KEY=VALUE"},
        {"http.threads", "-s: must be followed by SECTION.KEY=VALUE"},
        {"threads=4.5", "-s: must be followed by SECTION.KEY=VALUE"},
        {"board.title=a\nb",
         "-s board.title=...: board.title: must be UTF-8 without control characters"},
        {"limits.max_message_bytes=4599",
         "-s limits.max_message_bytes=4599: limits.max_message_bytes: must be at least 4600 for "
         "messages of board.author_max and board.text_max"},
        {"database.statement_timeout_ms=200",
         "-s database.statement_timeout_ms=200: database.lock_timeout_ms: must be at most "
         "database.statement_timeout_ms"},
    };
    for (size_t at = 0; at < sizeof (options) / sizeof (options[0]); at++)
        s_test_refused (NULL, options[at][0], options[at][1], verbose);
}

static void
s_test_bad_bytes (void)
{
    const char *none[] = {NULL};
    char *error = NULL;
    settings_t *self = s_try_bytes ("#\n#\0\n", 5, none, &error);
    assert (!self);
    assert (streq (error, "breadboard.ini:2: must be UTF-8 without control characters"));
    freen (error);

    //  The longest line and the longest value, and one byte more of each
    static const struct {
        const char *format;
        int width;
        const char *refusal;
    } cases[] = {
        {"#%*s\n", LINE_MAX_BYTES, "breadboard.ini:1: the line is longer than 4096 bytes"},
        {"[http]\nstatic = a%*s\n", VALUE_MAX_BYTES,
         "breadboard.ini:2: http.static: must be at most 4000 bytes"},
    };
    for (size_t at = 0; at < sizeof (cases) / sizeof (cases[0]); at++) {
        char *text = zsys_sprintf (cases[at].format, cases[at].width - 1, "x");
        self = s_accepted (text, NULL);
        settings_destroy (&self);
        freen (text);
        text = zsys_sprintf (cases[at].format, cases[at].width, "x");
        s_test_refused (text, NULL, cases[at].refusal, false);
        freen (text);
    }

    self = settings_new ("/no/such.ini", NULL, &error);
    assert (!self);
    assert (streq (error, "/no/such.ini: could not be opened: No such file or directory"));
    freen (error);
    self = settings_new ("/", NULL, &error);
    assert (!self && streq (error, "/: could not be read: Is a directory"));
    freen (error);
}

//  Each is refused with "-s KEY=VALUE: KEY: must be ..."

static void
s_test_bad_value (const char *key, const char *value)
{
    char *option = zsys_sprintf ("%s=%s", key, value);
    char *expected = zsys_sprintf ("-s %s: %s: must be ", option, key);
    char *error = NULL;
    settings_t *self = s_try (NULL, option, &error);
    if (self || strncmp (error, expected, strlen (expected)) != 0)
        printf ("\n   %s: %s\n", option, self ? "accepted" : error);
    assert (!self && strncmp (error, expected, strlen (expected)) == 0);
    freen (option);
    freen (expected);
    freen (error);
}

static void
s_test_bad_values (void)
{
    static const char *const cases[][14] = {
        {"http.listen", "8080", "localhost:80", "[::1]:80", "::1:80",
         "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:8o", "127.0.0.1.1.1.1.1:80", "127.1:80"},
        {"http.path", "", "ws", "/a?b", "/a#", "/a$", "/**", "/a|b", "/^", "/a b", "//a", "/../a",
         "/%41", "/"},
        {"http.path", "/messages", "/messages/", "/messages/7/edit", "/static/style.css",
         "/healthz", "/readyz", "/metrics"},
        {"http.max_connections", "-1", "1000001"},
        {"http.threads", "0", "257", "", "4x", "0x4", "99999999999999999999"},
        {"http.allowed_hosts", "https://a.example", "a.example b.example:80"},
        {"http.metrics", "none", ""},
        {"http.allowed_origins", "a.example", "https://", "://a.example", "https://a.example/",
         "https://a.example:0", "https://a.example:", "https://:80", "ht_tp://a",
         "null https://b.example"},
        {"http.trust_proxy", "maybe"},
        {"board.page_size", "0", "101"},
        {"board.author_max", "0", "101"},
        {"board.text_max", "0", "10001"},
        {"limits.max_message_bytes", "1023", "16777217"},
        {"limits.messages_per_second", "1000001"},
        {"limits.burst", "0", "1000001"},
        {"limits.bytes_per_second", "-1", "1000000001"},
        {"limits.connections_per_address", "-1", "1000001"},
        {"limits.handshakes_per_address", "-1", "1000001"},
        {"limits.messages_per_address", "-1", "1000001"},
        {"limits.bytes_per_address", "-1", "1000000001"},
        {"limits.exempt_addresses", "localhost", "10.0.0.0/33", "10.0.0.0/8,::1", "[::1]"},
        {"log.level", "loud"},
        {"log.format", "xml"},
    };
    for (size_t at = 0; at < sizeof (cases) / sizeof (cases[0]); at++)
        for (const char *const *value = cases[at] + 1; *value; value++)
            s_test_bad_value (cases[at][0], *value);
}

//  No way of writing a password shows it, neither in a print nor in an error

static void
s_test_passwords (bool verbose)
{
    static const char *const good[] = {
        "database.url=postgresql://joe:hunter2@db.example:5433/board?sslmode=require",
        "database.url=postgresql://joe@db.example/board?password=hunter2",
        "database.url=postgresql://joe:%68unter2@a,b:5433/board?sslpassword=hunter2",
        "database.url=host=db.example user='j\\'oe' password = 'a \\'hunter2'",
    };
    for (size_t at = 0; at < sizeof (good) / sizeof (good[0]); at++) {
        settings_t *self = s_accepted (NULL, good[at]);
        char *text = s_written (self, false);
        assert (strstr (text, "password='***'") && !strstr (text, "unter2"));
        settings_t *again = s_accepted (text, NULL); //  What was printed can be read
        settings_destroy (&again);
        settings_destroy (&self);
        freen (text);
    }
    settings_t *self = s_accepted (NULL, "database.url=postgresql:///board"); //  Without one, as is
    char *text = s_written (self, false);
    assert (strstr (text, "\nurl = postgresql:///board\n"));
    settings_destroy (&self);
    freen (text);

#define LIBPQ                                                                               \
    "-s database.url=...: database.url: must be a libpq connection string or URI, such as " \
    "postgresql://user@host/dbname (libpq: "
    static const char *const bad[][2] = {
        {"database.url=hots=a password=hunter2", LIBPQ "invalid connection option \"***\")"},
        {"database.url=password=not hunter2", LIBPQ "missing \"***\" in connection info string)"},
        {"database.url=password='hunter2",
         LIBPQ "unterminated quoted string in connection info string)"},
        {"database.url=postgresql://joe:hunter2%zz@a/b",
         LIBPQ "invalid percent-encoded token: \"***\")"},
        {"database.url=postgresql://joe:hunter2@a/b%0Ac",
         "-s database.url=...: database.url: must be UTF-8 without control characters in its "
         "dbname"},
        {"database.ulr=postgresql://joe:hunter2@a/b",
         "-s database.ulr=...: database.ulr: no such key; see --print-config"},
    };
#undef LIBPQ
    for (size_t at = 0; at < sizeof (bad) / sizeof (bad[0]); at++)
        s_test_refused (NULL, bad[at][0], bad[at][1], verbose);
}

static void
s_test_print (void)
{
    //  Other values than the defaults, each of which comes back
    settings_t *self = s_accepted (
        "[http]\nlisten = 0.0.0.0:0\npath = /a\nmax_connections = 1000000\nthreads = 256\n"
        "allowed_hosts = a.example\nmetrics = all\ntrust_proxy = on\nstatic = static\n"
        "allowed_origins = https://a.example https://b.example:8443\ntemplates = /srv/my "
        "templates\n"
        "[database]\nurl = dbname=board\nstate_dir = /srv/board\n"
        "connect_timeout_ms = 100\nstatement_timeout_ms = 600000\nlock_timeout_ms = 10\n"
        "[board]\ntitle = Tr\xC3\xA4umerei = [\xE2\x99\xAA] ; #1\n"
        "page_size = 100\nauthor_max = 1\ntext_max = 1\n"
        "[limits]\nmax_message_bytes = 1024\nmessages_per_second = 0\nburst = 1000000\n"
        "bytes_per_second = 0\nconnections_per_address = 1\nhandshakes_per_address = 1\n"
        "messages_per_address = 1\nbytes_per_address = 1\nexempt_addresses =\n"
        "[log]\nlevel = error\nformat = json\n",
        NULL);
    char *text = s_written (self, false);
    settings_t *again = s_accepted (text, NULL);
    settings_t *defaults = s_accepted (NULL, NULL);
    for (size_t index = 0; index < ENTRIES; index++) {
        char *value = s_value (self, &s_entries[index]);
        char *copy = s_value (again, &s_entries[index]);
        char *fallback = s_value (defaults, &s_entries[index]);
        assert (streq (value, copy) && !streq (value, fallback));
        freen (value);
        freen (copy);
        freen (fallback);
    }
    freen (text);
    settings_destroy (&self);
    settings_destroy (&again);
    settings_destroy (&defaults);
}

static void
s_test_sample (zchunk_t *sample)
{
    char *text = s_written (NULL, false);
    assert (!sample || zchunk_streq (sample, text));
    settings_t *self = s_accepted (text, NULL);
    settings_destroy (&self);
    freen (text);
}

static void
s_test_help (bool verbose)
{
    char *text = s_written (NULL, true);
    if (verbose)
        printf ("\n%s", text);
    for (size_t index = 0; index < ENTRIES; index++) {
        char *name = zsys_sprintf ("  %s.%s ", s_entries[index].section, s_entries[index].key);
        assert (strstr (text, name) && strstr (text, s_entries[index].meaning));
        freen (name);
    }
    assert (strstr (text, "127.0.0.1:8080\n"));
    freen (text);
}

static void
s_test_keep_fixed (void)
{
    const char *overrides[] = {"http.threads=5", "log.level=debug", "database.url=dbname=a", NULL};
    char *error = NULL;
    settings_t *self = s_accepted (NULL, NULL);
    settings_t *other = s_try_bytes (NULL, 0, overrides, &error);
    char *names = settings_keep_fixed (other, self);
    assert (streq (names, "http.threads database.url"));
    assert (other->http_threads == self->http_threads && streq (other->database_url, ""));
    assert (streq (other->log_level, "debug")); //  Which may change at any time
    freen (names);
    names = settings_keep_fixed (other, self);
    assert (streq (names, ""));
    freen (names);
    settings_destroy (&self);
    settings_destroy (&other);
}

void
settings_test (bool verbose)
{
    printf (" * settings: ");
    zchunk_t *sample = zchunk_slurp ("config/breadboard.ini", 0); //  When run where the sources are
    char *folder = folder_test_new ();
    int rc = chdir (folder);
    assert (rc == 0);
    s_test_defaults ();
    s_test_file ();
    s_test_order ();
    s_test_sentences (verbose);
    s_test_bad_bytes ();
    s_test_bad_values ();
    s_test_passwords (verbose);
    s_test_print ();
    s_test_sample (sample);
    s_test_help (verbose);
    s_test_keep_fixed ();
    zchunk_destroy (&sample);
    unlink ("breadboard.ini");
    rmdir (folder);
    zstr_free (&folder);
    printf ("OK\n");
}
