//  fuzz_command - any bytes as a client's request: a command that can be run, or a reason why not
//
//  input      what a WebSocket message holds; limits of 10 and 20 characters
//  aborts     when a command breaks what command.h promises, when the same JSON in another layout
//             means something else, or when the reply does not carry the request's ref

#include "actors/command.h"
#include "actors/swap.h"
#include "http/frame.h"
#include "http/utf8.h"

#include <jansson.h>

static const settings_t s_limits = {.board_author_max = 10, .board_text_max = 20};

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

//  A field as it is stored: text that cannot be trimmed further, of 1 to limit characters.

static void
s_check_text (const char *text, size_t limit)
{
    assert (text);
    size_t size = strlen (text);
    assert (utf8_valid (text, size));
    size_t count = utf8_count (text, size);
    assert (count >= 1 && count <= limit);
    if (!strchr (text, '\r')) { //  "\r\r\n" shows a new CRLF
        char *copy = strdup (text);
        assert (utf8_trim (copy, size) == size && streq (copy, text));
        freen (copy);
    }
}

static void
s_check_good (const command_t *self)
{
    bool has_texts = self->action == COMMAND_ADD || self->action == COMMAND_UPDATE;
    assert (self->action <= COMMAND_RESTORE && !*self->reason && !self->field);
    assert (!!self->author == has_texts && !!self->text == has_texts);
    if (has_texts) {
        s_check_text (self->author, 10);
        s_check_text (self->text, 20);
    }
    if (self->action == COMMAND_LIST)
        assert (self->page >= 1);
    else if (self->action != COMMAND_ADD)
        assert (self->id >= 1 && self->id < INT64_MAX);
    assert (self->version >= 0 && self->version < INT32_MAX);
    bool has_key = uuid_is (self->key, strlen (self->key));
    assert (has_key == (*self->key && !self->own_key));
    assert (has_key || self->action != COMMAND_RESTORE);
    assert (self->own_key == (self->action == COMMAND_ADD && !has_key));
}

static void
s_check_bad (const command_t *self)
{
    assert (self->code == COMMAND_MALFORMED || self->code == COMMAND_INVALID ||
            self->code == COMMAND_NOT_FOUND);
    assert (*self->reason && !self->text);
    assert (!self->field || strncmp (self->reason, self->field, strlen (self->field)) == 0);
}

static bool
s_same_text (const char *left, const char *right)
{
    return left && right ? streq (left, right) : left == right;
}

static void
s_check_same (const command_t *left, const command_t *right)
{
    assert (left->code == right->code && left->action == right->action);
    assert (left->id == right->id && left->page == right->page);
    assert (left->version == right->version && left->etag == right->etag);
    assert (left->own_key == right->own_key);
    assert (left->own_key || streq (left->key, right->key));
    assert (streq (left->reason, right->reason) && s_same_text (left->field, right->field));
    assert (s_same_text (left->ref, right->ref));
    assert (s_same_text (left->author, right->author) && s_same_text (left->text, right->text));
}

//  The same request, written otherwise, means the same.

static void
s_check_layout (const command_t *self, const json_t *root)
{
    char *json = json_dumps (root, JSON_INDENT (3) | JSON_ENSURE_ASCII | JSON_SORT_KEYS);
    assert (json);
    command_t *again = command_new (json, strlen (json), &s_limits);
    s_check_same (self, again);
    command_destroy (&again);
    freen (json);
}

//  The reply is JSON behind a whole header, and names the request.

static void
s_check_reply (command_t *self)
{
    self->speaks_breadboard_1 = true;
    const char *html = self->text ? self->text : "<p>";
    zframe_t *frame = swap_new (self, "#notices", html);
    assert (frame);
    const byte *data = zframe_data (frame);
    size_t header = data[1] < 126 ? 2 : data[1] == 126 ? 4 : 10;
    json_t *reply = json_loadb ((const char *) data + header, zframe_size (frame) - header, 0,
                                NULL);
    assert (reply);
    assert (streq (json_string_value (json_object_get (reply, "html")), html));
    assert (s_same_text (json_string_value (json_object_get (reply, "ref")), self->ref));
    json_decref (reply);
    zframe_destroy (&frame);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    const char *json = (const char *) data;
    command_t *self = command_new (json, size, &s_limits);
    assert (self);
    if (self->code == COMMAND_OK)
        s_check_good (self);
    else
        s_check_bad (self);
    assert (!self->ref || (*self->ref && utf8_count (self->ref, strlen (self->ref)) <= 64));
    if (!utf8_valid (json, size))
        assert (self->code == COMMAND_MALFORMED);
    json_t *root = json_loadb (json, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    if (json_is_object (root)) //  An integer of more than 64 bits, too, is none to jansson
        s_check_layout (self, root);
    json_decref (root);
    s_check_reply (self);
    command_destroy (&self);
    return 0;
}
