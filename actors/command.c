//  A client's JSON is read by jansson with its strict options: a key that stands twice, a lone
//  surrogate or a nesting beyond its limit is an error. Two things need care. A NUL inside a string
//  is read (JSON_ALLOW_NUL), so that the answer can name the field that has it. And jansson refuses
//  an integer beyond 64 bits, though the protocol allows one of any size as an id or a page: then
//  the integer is clamped in a copy of the text, which is parsed once more.

#include "actors/command.h"
#include "http/utf8.h"

#include <jansson.h>

//  The column is an integer of 32 bits, and PostgreSQL adds one to what we send
#define VERSION_MAX (INT32_MAX - 1)

//  Characters of a ref
#define REF_MAX 64

#define PARSE_FLAGS (JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL)

static const char *const s_code_names[] = {
    [COMMAND_OK] = "ok",
    [COMMAND_MALFORMED] = "malformed",
    [COMMAND_INVALID] = "invalid",
    [COMMAND_NOT_FOUND] = "not-found",
    [COMMAND_CONFLICT] = "conflict",
    [COMMAND_BUSY] = "busy",
    [COMMAND_UNAVAILABLE] = "unavailable",
};

static const char *const s_action_names[] = {
    [COMMAND_ADD] = "add message",       [COMMAND_LIST] = "list messages",
    [COMMAND_EDIT] = "open edit page",   [COMMAND_UPDATE] = "update message",
    [COMMAND_DELETE] = "delete message", [COMMAND_RESTORE] = "restore message",
};

void
command_fail_memory (command_t *self)
{
    command_fail (self, COMMAND_UNAVAILABLE, "The server is out of memory; nothing was saved.");
}

const char *
command_code_name (command_code_t code)
{
    return s_code_names[code];
}

bool
command_writes (const command_t *self)
{
    return self->action == COMMAND_ADD || self->action == COMMAND_UPDATE ||
           self->action == COMMAND_DELETE || self->action == COMMAND_RESTORE;
}

void
command_fail (command_t *self, command_code_t code, const char *format, ...)
{
    va_list arguments;
    va_start (arguments, format);
    vsnprintf (self->reason, sizeof (self->reason), format, arguments);
    va_end (arguments);
    self->code = code;
    self->field = NULL;
}

//  Fails for a field of data that is not as it must be; reason says how it must be, behind its
//  name.

static void
s_refuse (command_t *self, command_code_t code, const char *field, const char *reason)
{
    command_fail (self, code, "%s %s", field, reason);
    self->field = field;
}

//  ------------------------------------------------------------------------
//  Numbers of any size

//  Whether these digits are more than 64 bits hold. With a zero before them they are not JSON.

static bool
s_is_beyond (const char *digits, size_t count)
{
    return *digits != '0' &&
           (count > 19 || (count == 19 && strncmp (digits, "9223372036854775807", 19) > 0));
}

//  Returns a copy of the JSON text in which each integer that 64 bits do not hold is the largest,
//  or the smallest, that they do. The copy is never longer; caller frees.

static char *
s_clamp_integers (const char *json, size_t size, size_t *clamped_size_p)
{
    char *copy = (char *) zmalloc (size + 1);
    size_t length = 0;
    bool in_string = false;
    for (size_t at = 0; at < size;) {
        char byte = json[at];
        if (in_string && byte == '\\' && at + 1 < size)
            copy[length++] = json[at++];
        else if (byte == '"')
            in_string = !in_string;
        size_t digits = 0;
        while (!in_string && at + digits < size && isdigit ((unsigned char) json[at + digits]))
            digits++;
        if (digits > 0 && s_is_beyond (json + at, digits)) {
            bool negative = length > 0 && copy[length - 1] == '-';
            const char *limit = negative ? "9223372036854775808" : "9223372036854775807";
            memcpy (copy + length, limit, 19);
            length += 19;
            at += digits;
        }
        else
            do
                copy[length++] = json[at++];
            while (digits > 1 && --digits > 0);
    }
    *clamped_size_p = length;
    return copy;
}

static json_t *
s_parse (const char *json, size_t size)
{
    json_error_t error;
    json_t *root = json_loadb (json, size, PARSE_FLAGS, &error);
    if (!root && json_error_code (&error) == json_error_numeric_overflow) {
        size_t clamped_size = 0;
        char *clamped = s_clamp_integers (json, size, &clamped_size);
        root = json_loadb (clamped, clamped_size, PARSE_FLAGS, &error);
        zstr_free (&clamped);
    }
    return root;
}

//  Reads a JSON integer, or a string of decimal digits; one too large is INT64_MAX. Returns 0, or
//  -1 when the value is anything else.

static int
s_read_integer (const json_t *value, int64_t *integer_p)
{
    if (json_is_integer (value)) {
        *integer_p = json_integer_value (value);
        return 0;
    }
    const char *text = json_string_value (value);
    size_t size = json_string_length (value);
    if (!text || size == 0 || strspn (text, "0123456789") != size)
        return -1;
    *integer_p = strtoll (text, NULL, 10); //  Says INT64_MAX when it is more
    return 0;
}

//  ------------------------------------------------------------------------
//  Fields

//  Takes the text of a field, trimmed; NULL, and the command failed, when it is not acceptable.

static char *
s_read_text (command_t *self, const json_t *data, const char *name, int64_t limit)
{
    const json_t *value = json_object_get (data, name);
    if (!json_is_string (value)) {
        s_refuse (self, COMMAND_INVALID, name, value ? "must be text." : "is missing.");
        return NULL;
    }
    size_t size = json_string_length (value);
    if (memchr (json_string_value (value), 0, size)) {
        s_refuse (self, COMMAND_INVALID, name, "must not contain a NUL character.");
        return NULL;
    }
    char *text = (char *) zmalloc (size + 1);
    memcpy (text, json_string_value (value), size);
    size = utf8_trim (text, size);
    size_t count = utf8_count (text, size);
    if (count == 0)
        s_refuse (self, COMMAND_INVALID, name, "must not be empty.");
    else if (count > (size_t) limit) {
        char reason[80];
        snprintf (reason, sizeof (reason), "is too long: %zu characters, at most %" PRId64 ".",
                  count, limit);
        s_refuse (self, COMMAND_INVALID, name, reason);
    }
    if (self->code != COMMAND_OK)
        zstr_free (&text);
    return text;
}

static void
s_read_texts (command_t *self, const json_t *data, const settings_t *settings)
{
    self->author = s_read_text (self, data, "author", settings->board_author_max);
    if (self->author)
        self->text = s_read_text (self, data, "text", settings->board_text_max);
}

static void
s_read_id (command_t *self, const json_t *data)
{
    const json_t *value = json_object_get (data, "id");
    if (!value)
        s_refuse (self, COMMAND_INVALID, "id", "is missing.");
    else if (s_read_integer (value, &self->id) != 0)
        s_refuse (self, COMMAND_MALFORMED, "id", "must be a whole number.");
    else if (self->id < 1 || self->id == INT64_MAX)
        command_fail (self, COMMAND_NOT_FOUND, "There is no such message.");
}

static void
s_read_page (command_t *self, const json_t *data)
{
    if (s_read_integer (json_object_get (data, "page"), &self->page) != 0)
        s_refuse (self, COMMAND_MALFORMED, "page", "must be a whole number.");
    else if (self->page < 1)
        self->page = 1;
}

//  What the client has of the page already; anything that is no etag of ours counts as nothing.

static void
s_read_etag (command_t *self, const json_t *data)
{
    const char *etag = json_string_value (json_object_get (data, "etag"));
    if (etag && strlen (etag) == 16 && strspn (etag, "0123456789abcdef") == 16)
        self->etag = strtoull (etag, NULL, 16);
}

static void
s_read_version (command_t *self, const json_t *data)
{
    const json_t *value = json_object_get (data, "version");
    if (value && (s_read_integer (value, &self->version) != 0 || self->version < 1))
        s_refuse (self, COMMAND_INVALID, "version", "must be a whole number above 0.");
    if (self->version > VERSION_MAX)
        self->version = VERSION_MAX; //  No message ever gets there, so it is a conflict
}

//  Each add has a key: by it alone can be told whether one that was in doubt had been stored. A
//  delete has one when its client may want to undo it, and so has whatever undoes it.

static void
s_read_key (command_t *self, const json_t *data)
{
    const json_t *value = json_object_get (data, "key");
    if (!value) {
        self->own_key = self->action == COMMAND_ADD;
        if (self->own_key)
            uuid_make_own (self->key);
        else if (self->action == COMMAND_RESTORE)
            s_refuse (self, COMMAND_INVALID, "key", "is missing.");
    }
    else if (json_is_string (value) &&
             uuid_is (json_string_value (value), json_string_length (value)))
        snprintf (self->key, sizeof (self->key), "%s", json_string_value (value));
    else
        s_refuse (self, COMMAND_INVALID, "key", "must be a UUID.");
}

static bool
s_may_have_key (const command_t *self)
{
    return self->action == COMMAND_ADD || self->action == COMMAND_DELETE ||
           self->action == COMMAND_RESTORE;
}

static command_action_t
s_read_action (const json_t *root)
{
    const json_t *value = json_object_get (root, "action");
    const char *name = json_string_value (value);
    if (!name || strlen (name) != json_string_length (value))
        return COMMAND_NONE; //  A NUL in it must not hide what follows
    for (int action = COMMAND_ADD; action <= COMMAND_RESTORE; action++)
        if (streq (name, s_action_names[action]))
            return (command_action_t) action;
    return COMMAND_NONE;
}

//  Keeps the ref, so that also a request that is wrong otherwise can be answered by it.

static void
s_read_ref (command_t *self, const json_t *root)
{
    const json_t *value = json_object_get (root, "ref");
    const char *text = json_string_value (value);
    size_t size = json_string_length (value);
    if (!value)
        return;
    if (!text || memchr (text, 0, size) || size == 0 || utf8_count (text, size) > REF_MAX)
        command_fail (self, COMMAND_MALFORMED, "ref must be text of 1 to %d characters.", REF_MAX);
    else if (!(self->ref = strdup (text)))
        command_fail_memory (self);
}

static void
s_read_request (command_t *self, const json_t *root, const settings_t *settings)
{
    s_read_ref (self, root);
    if (self->code != COMMAND_OK)
        return;
    self->action = s_read_action (root);
    const json_t *data = json_object_get (root, "data");
    if (self->action == COMMAND_NONE)
        command_fail (self, COMMAND_MALFORMED, "action must be one that the board knows.");
    else if (!json_is_object (data))
        command_fail (self, COMMAND_MALFORMED, "data must be an object.");
    else if (self->action == COMMAND_LIST) {
        s_read_page (self, data);
        s_read_etag (self, data);
    }
    else if (self->action != COMMAND_ADD)
        s_read_id (self, data);
    if (self->code == COMMAND_OK && self->action == COMMAND_UPDATE)
        s_read_version (self, data);
    if (self->code == COMMAND_OK && s_may_have_key (self))
        s_read_key (self, data);
    if (self->code == COMMAND_OK && (self->action == COMMAND_ADD || self->action == COMMAND_UPDATE))
        s_read_texts (self, data, settings);
}

command_t *
command_new (const char *json, size_t size, const settings_t *settings)
{
    command_t *self = (command_t *) zmalloc (sizeof (command_t));
    self->action = COMMAND_NONE;
    json_t *root = s_parse (json, size);
    if (!json_is_object (root))
        command_fail (self, COMMAND_MALFORMED, "The request must be one JSON object.");
    else
        s_read_request (self, root, settings);
    json_decref (root);
    return self;
}

command_t *
command_new_own (command_action_t action, int64_t id)
{
    assert (action == COMMAND_FIND || action == COMMAND_RANK || action == COMMAND_SWEEP);
    command_t *self = (command_t *) zmalloc (sizeof (command_t));
    self->action = action;
    self->id = id;
    self->left = action == COMMAND_SWEEP; //  Nobody asks
    return self;
}

void
command_destroy (command_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        command_t *self = *self_p;
        zstr_free (&self->ref);
        zstr_free (&self->author);
        zstr_free (&self->text);
        zstr_free (&self->stored_author);
        zstr_free (&self->stored_text);
        zframe_destroy (&self->requester);
        freen (*self_p);
    }
}

//  ------------------------------------------------------------------------
//  Self test

static const settings_t s_limits = {.board_author_max = 10, .board_text_max = 20};

//  Asserts that the JSON gets the code; returns the command when the caller wants to look.

static command_t *
s_expect (const char *json, command_code_t code)
{
    command_t *self = command_new (json, strlen (json), &s_limits);
    if (self->code != code)
        printf ("\n%s: %s, %s\n", json, command_code_name (self->code), self->reason);
    assert (self->code == code);
    return self;
}

static void
s_expect_only (const char *json, command_code_t code)
{
    command_t *self = s_expect (json, code);
    command_destroy (&self);
}

static void
s_test_good (void)
{
    command_t *self = s_expect ("{\"action\": \"add message\", \"data\": {\"author\": \" "
                                "Ann\\u3000\", \"text\": \"a\\r\\nb\"}}",
                                COMMAND_OK);
    assert (self->action == COMMAND_ADD && command_writes (self));
    assert (streq (self->author, "Ann") && streq (self->text, "a\nb"));
    assert (self->own_key && *self->key);
    command_destroy (&self);

    self = s_expect ("{\"action\":\"list messages\",\"data\":{\"page\":7,"
                     "\"etag\":\"00000000000000ff\"}}",
                     COMMAND_OK);
    assert (self->page == 7 && self->etag == 0xFF);
    command_destroy (&self);

    self = s_expect ("{\"action\":\"restore message\",\"data\":{\"id\":7,"
                     "\"key\":\"8f14e45f-ceea-467f-9e53-0a5d5b7c1c01\"}}",
                     COMMAND_OK);
    assert (self->action == COMMAND_RESTORE && command_writes (self) && !self->own_key);
    assert (self->id == 7 && streq (self->key, "8f14e45f-ceea-467f-9e53-0a5d5b7c1c01"));
    command_destroy (&self);

    self = s_expect ("{\"action\":\"delete message\",\"data\":{\"id\":7}}", COMMAND_OK);
    assert (!*self->key && !self->own_key);
    command_destroy (&self);

    self = command_new_own (COMMAND_FIND, 7);
    assert (self->code == COMMAND_OK && self->id == 7 && !command_writes (self));
    command_destroy (&self);

    self = s_expect ("{\"ref\":\"r1\",\"action\":\"delete message\",\"data\":{}}", COMMAND_INVALID);
    assert (streq (self->ref, "r1"));
    command_destroy (&self);

    self = s_expect ("{\"action\":\"update message\",\"data\":{\"id\":\"12\",\"version\":3,"
                     "\"author\":\"B\",\"text\":\"\xF0\x9F\x98\x80\"}}",
                     COMMAND_OK);
    assert (self->id == 12 && self->version == 3);
    command_destroy (&self);

    self = s_expect ("{\"action\":\"list messages\",\"data\":{\"page\":-3}}", COMMAND_OK);
    assert (self->page == 1 && !command_writes (self));
    command_destroy (&self);

    self = s_expect ("{\"action\":\"list messages\",\"data\":{\"page\":"
                     "123456789012345678901234567890}}",
                     COMMAND_OK);
    assert (self->page == INT64_MAX);
    command_destroy (&self);

    self = s_expect ("{\"action\":\"list messages\",\"data\":{\"page\":"
                     "\"123456789012345678901234567890\"}}",
                     COMMAND_OK);
    assert (self->page == INT64_MAX);
    command_destroy (&self);
}

static void
s_test_malformed (void)
{
    s_expect_only ("", COMMAND_MALFORMED);
    s_expect_only ("{", COMMAND_MALFORMED);
    s_expect_only ("[]", COMMAND_MALFORMED);
    s_expect_only ("7", COMMAND_MALFORMED);
    s_expect_only ("{}", COMMAND_MALFORMED);
    s_expect_only ("{\"action\": 7, \"data\": {}}", COMMAND_MALFORMED);
    s_expect_only ("{\"action\": \"drop table\", \"data\": {}}", COMMAND_MALFORMED);
    s_expect_only ("{\"action\": \"list messages\"}", COMMAND_MALFORMED);
    s_expect_only ("{\"action\": \"list messages\\u0000\", \"data\": {\"page\": 1}}",
                   COMMAND_MALFORMED);
    s_expect_only ("{\"action\": \"list messages\", \"data\": []}", COMMAND_MALFORMED);
    s_expect_only ("{\"action\": \"list messages\", \"data\": {\"page\": 1.5}}", COMMAND_MALFORMED);
    s_expect_only ("{\"action\": \"list messages\", \"data\": {\"page\": \"-1\"}}",
                   COMMAND_MALFORMED);
    s_expect_only ("{\"action\": \"list messages\", \"data\": {\"page\": 1, \"page\": 2}}",
                   COMMAND_MALFORMED);
    s_expect_only (
        "{\"action\": \"add message\", \"data\": {\"author\": \"\\ud800\", \"text\": \"b\"}}",
        COMMAND_MALFORMED);
    s_expect_only ("{\"action\": \"delete message\", \"data\": {\"id\": {}}}", COMMAND_MALFORMED);

    char *deep = (char *) zmalloc (50001);
    memset (deep, '[', 50000);
    s_expect_only (deep, COMMAND_MALFORMED);
    freen (deep);
}

static void
s_test_invalid (void)
{
    s_expect_only ("{\"action\": \"delete message\", \"data\": {}}", COMMAND_INVALID);
    s_expect_only ("{\"action\": \"add message\", \"data\": {\"author\": \"a\"}}", COMMAND_INVALID);
    s_expect_only ("{\"action\": \"add message\", \"data\": {\"author\": 1, \"text\": \"b\"}}",
                   COMMAND_INVALID);
    s_expect_only ("{\"action\": \"add message\", \"data\": {\"author\": \"a\\u0000\", "
                   "\"text\": \"b\"}}",
                   COMMAND_INVALID);
    s_expect_only (
        "{\"action\": \"add message\", \"data\": {\"author\": \"a\", \"text\": \" \\u2028 \"}}",
        COMMAND_INVALID);
    s_expect_only ("{\"action\": \"add message\", \"data\": {\"author\": \"a\", \"text\": \"b\", "
                   "\"key\": \"no-uuid\"}}",
                   COMMAND_INVALID);
    s_expect_only ("{\"action\": \"restore message\", \"data\": {\"id\": 1}}", COMMAND_INVALID);
    s_expect_only ("{\"action\": \"delete message\", \"data\": {\"id\": 1, \"key\": 1}}",
                   COMMAND_INVALID);
    command_t *self = s_expect ("{\"action\": \"add message\", \"data\": "
                                "{\"author\": \"elevenchars\", \"text\": \"b\"}}",
                                COMMAND_INVALID);
    assert (streq (self->reason, "author is too long: 11 characters, at most 10."));
    assert (streq (self->field, "author"));
    command_destroy (&self);
}

void
command_test (bool verbose)
{
    printf (" * command: ");
    if (verbose)
        printf ("\n");
    s_test_good ();
    s_test_malformed ();
    s_test_invalid ();
    s_expect_only ("{\"action\": \"delete message\", \"data\": {\"id\": 0}}", COMMAND_NOT_FOUND);
    s_expect_only ("{\"action\": \"delete message\", \"data\": {\"id\": -99999999999999999999}}",
                   COMMAND_NOT_FOUND);
    s_expect_only ("{\"action\": \"delete message\", \"data\": {\"id\": \"9223372036854775808\"}}",
                   COMMAND_NOT_FOUND);
    assert (streq (command_code_name (COMMAND_NOT_FOUND), "not-found"));
    printf ("OK\n");
}
