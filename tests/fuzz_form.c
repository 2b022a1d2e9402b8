//  fuzz_form - any bytes as a form's body or a query string: fields that mean what was written
//
//  aborts     when a field is not UTF-8, or when the same fields with each byte escaped, or as
//             JSON, are others

#include "http/form.h"
#include "http/utf8.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

//  Appends the text, each byte as %XX.

static char *
s_escape (char *to, const char *text, size_t size)
{
    for (size_t at = 0; at < size; at++)
        to += sprintf (to, at % 2 ? "%%%02x" : "%%%02X", (byte) text[at]);
    return to;
}

//  Writes the fields as a form again; caller frees.

static char *
s_write (json_t *form, size_t room)
{
    char *text = (char *) zmalloc (3 * room + 2 * json_object_size (form) + 1);
    char *to = text;
    for (void *at = json_object_iter (form); at; at = json_object_iter_next (form, at)) {
        const json_t *value = json_object_iter_value (at);
        to = s_escape (to, json_object_iter_key (at), json_object_iter_key_len (at));
        *to++ = '=';
        to = s_escape (to, json_string_value (value), json_string_length (value));
        *to++ = '&';
    }
    *to = '\0';
    return text;
}

//  Returns whether a name has a NUL, which JSON's reader, unlike a form's, takes in no name.

static bool
s_check_fields (json_t *form)
{
    bool has_nul = false;
    for (void *at = json_object_iter (form); at; at = json_object_iter_next (form, at)) {
        const json_t *value = json_object_iter_value (at);
        size_t size = json_object_iter_key_len (at);
        assert (utf8_valid (json_object_iter_key (at), size));
        assert (utf8_valid (json_string_value (value), json_string_length (value)));
        has_nul = has_nul || memchr (json_object_iter_key (at), 0, size);
    }
    return has_nul;
}

//  jansson's own comparison looks names up as far as their first NUL.

static bool
s_same (json_t *left, json_t *right)
{
    if (json_object_size (left) != json_object_size (right))
        return false;
    for (void *at = json_object_iter (left); at; at = json_object_iter_next (left, at)) {
        const json_t *value = json_object_getn (right, json_object_iter_key (at),
                                                json_object_iter_key_len (at));
        if (!json_equal (json_object_iter_value (at), value))
            return false;
    }
    return true;
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    json_t *form = form_parse ((const char *) data, size);
    if (!form)
        return 0;
    bool has_nul = s_check_fields (form);
    char *text = s_write (form, size);
    json_t *again = form_parse (text, strlen (text));
    assert (again && s_same (form, again));
    json_decref (again);
    freen (text);

    text = json_dumps (form, JSON_COMPACT);
    assert (text);
    again = json_loads (text, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    assert (has_nul ? !again : again && s_same (form, again));
    json_decref (again);
    freen (text);
    json_decref (form);
    return 0;
}
