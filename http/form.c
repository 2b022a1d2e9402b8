//  The decoder of URLs in civetweb lets broken escapes pass and stops at NUL; this one refuses what
//  is not to the letter. Whether text is UTF-8 is for jansson to tell, which checks whatever string
//  it takes. What a field may hold is for the database actor to tell, in one place for all clients.

#include "http/form.h"

static int
s_hex (char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    return -1;
}

//  Decodes into buffer, which has room for size bytes. Returns the decoded size, or -1.

static ssize_t
s_decode (char *buffer, const char *text, size_t size)
{
    size_t decoded = 0;
    for (size_t at = 0; at < size; at++) {
        char byte = text[at];
        if (byte == '%') {
            if (size - at < 3 || s_hex (text[at + 1]) < 0 || s_hex (text[at + 2]) < 0)
                return -1;
            byte = (char) (s_hex (text[at + 1]) * 16 + s_hex (text[at + 2]));
            at += 2;
        }
        else if (byte == '+')
            byte = ' ';
        buffer[decoded++] = byte;
    }
    return (ssize_t) decoded;
}

//  Adds one "name=value"; returns 0, or -1 when it is not to the letter. buffer has room for size.

static int
s_add_field (json_t *form, char *buffer, const char *text, size_t size)
{
    const char *equals = (const char *) memchr (text, '=', size);
    size_t name_size = equals ? (size_t) (equals - text) : size;
    ssize_t name = s_decode (buffer, text, name_size);
    if (name < 0 || json_object_getn (form, buffer, (size_t) name))
        return -1;
    char *value_buffer = buffer + name;
    ssize_t value = equals ? s_decode (value_buffer, equals + 1, size - name_size - 1) : 0;
    if (value < 0)
        return -1;
    //  Each of the two refuses what is not UTF-8; setting takes the value in any case
    json_t *string = json_stringn (value_buffer, (size_t) value);
    return string ? json_object_setn_new (form, buffer, (size_t) name, string) : -1;
}

json_t *
form_parse (const char *text, size_t size)
{
    json_t *form = json_object ();
    assert (form);
    char *buffer = (char *) zmalloc (size + 1);
    while (form && size > 0) {
        const char *end = (const char *) memchr (text, '&', size);
        size_t field = end ? (size_t) (end - text) : size;
        if (field > 0 && s_add_field (form, buffer, text, field) != 0) {
            json_decref (form);
            form = NULL;
        }
        size_t passed = end ? field + 1 : field;
        text += passed;
        size -= passed;
    }
    freen (buffer);
    return form;
}

const char *
form_get (const json_t *form, const char *name)
{
    const char *text = json_string_value (json_object_get (form, name));
    return text ? text : "";
}

//  ------------------------------------------------------------------------
//  Self test

static json_t *
s_test_parse (const char *text)
{
    return form_parse (text, strlen (text));
}

void
form_test (bool verbose)
{
    printf (" * form: ");
    if (verbose)
        printf ("\n");
    json_t *form = s_test_parse ("author=Ann+B%C3%A9&message=1%2B1%3D2%26more&&empty=&bare");
    assert (json_object_size (form) == 4);
    assert (streq (form_get (form, "author"), "Ann Bé"));
    assert (streq (form_get (form, "message"), "1+1=2&more"));
    assert (streq (form_get (form, "empty"), "") && json_object_get (form, "empty"));
    assert (streq (form_get (form, "bare"), ""));
    assert (streq (form_get (form, "absent"), "") && !json_object_get (form, "absent"));
    json_decref (form);

    form = form_parse ("", 0);
    assert (json_object_size (form) == 0);
    json_decref (form);

    form = s_test_parse ("a=x%00y"); //  Not cut: whoever checks fields will see it
    assert (json_string_length (json_object_get (form, "a")) == 3);
    json_decref (form);

    assert (!s_test_parse ("a=%"));
    assert (!s_test_parse ("a=%4"));
    assert (!s_test_parse ("a=%4g"));
    assert (!s_test_parse ("a=%-1"));
    assert (!s_test_parse ("a=%FF"));       //  Not UTF-8
    assert (!s_test_parse ("a=%ED%A0%80")); //  A surrogate
    assert (!s_test_parse ("%C0%80=a"));
    assert (!s_test_parse ("a=1&a=2"));
    assert (!s_test_parse ("a=1&%61=2"));
    printf ("OK\n");
}
