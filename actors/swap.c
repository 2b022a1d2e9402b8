#include "actors/swap.h"
#include "actors/scratch.h"
#include "http/frame.h"

//  A full queue or a lock: both are gone soon
#define RETRY_AFTER_MS "1000"

//  ------------------------------------------------------------------------
//  JSON, written straight into the frame. A page is some kilobytes of HTML, rendered for each
//  batch, and jansson's dump looks at each character of it several times.

//  How many bytes JSON (RFC 8259, 7) needs for a byte inside a string: itself; a backslash before
//  it; or \u00XX. 0: none, the string ends

static const uint8_t s_width[256] = {
    [0] = 0,   [1 ... 9] = 6,     ['\n'] = 2, [11 ... 31] = 6,   [' ' ... '!'] = 1,
    ['"'] = 2, ['#' ... '['] = 1, ['\\'] = 2, [']' ... 255] = 1,
};

static size_t
s_escaped_size (const char *text)
{
    size_t size = 0;
    for (const byte *from = (const byte *) text; *from; from++)
        size += s_width[*from];
    return size;
}

//  Writes text, which is valid UTF-8, escaped; returns the end of what it wrote. Runs of bytes that
//  stand for themselves are copied as they are.

static char *
s_escape (char *to, const char *text)
{
    static const char digits[] = "0123456789abcdef";
    const byte *from = (const byte *) text;
    while (true) {
        const byte *run = from;
        while (s_width[*from] == 1)
            from++;
        to = mempcpy (to, run, (size_t) (from - run));
        if (!*from)
            return to;
        if (s_width[*from] == 2) {
            *to++ = '\\';
            *to++ = *from == '\n' ? 'n' : (char) *from;
        }
        else {
            to = mempcpy (to, "\\u00", 4);
            *to++ = digits[*from >> 4];
            *to++ = digits[*from & 15];
        }
        from++;
    }
}

//  A frame whose payload is made of count pieces, the odd ones escaped: JSON, text, JSON, text, ...

static zframe_t *
s_frame (const char *const *pieces, size_t count)
{
    size_t size = 0;
    for (size_t index = 0; index < count; index++)
        size += index % 2 ? s_escaped_size (pieces[index]) : strlen (pieces[index]);
    byte header[10];
    size_t header_size = frame_write_header (header, FRAME_TEXT, size);
    zframe_t *frame = zframe_new (NULL, header_size + size);
    char *to = (char *) zframe_data (frame);
    memcpy (to, header, header_size);
    to += header_size;
    for (size_t index = 0; index < count; index++)
        to = index % 2 ? s_escape (to, pieces[index])
                       : mempcpy (to, pieces[index], strlen (pieces[index]));
    assert (to == (char *) zframe_data (frame) + header_size + size);
    return frame;
}

//  place stands behind the html, up to the quote before etag; "": it is no page of the list.

static zframe_t *
s_swap (const command_t *command, const char *selector, const char *html, const char *place,
        const char *etag)
{
    static const command_t none = {.code = COMMAND_OK};
    command = command ? command : &none;
    bool replies = command->speaks_breadboard_1;
    bool failed = replies && command->code != COMMAND_OK;
    bool names = failed && command->field;
    bool busy = failed && command->code == COMMAND_BUSY;
    const char *ref = replies && command->ref ? command->ref : NULL;
    const char *const pieces[] = {
        "{\"selector\":\"",
        selector,
        "\",\"html\":\"",
        html,
        place,
        etag,
        ref ? "\",\"ref\":\"" : "",
        ref ? ref : "",
        failed ? "\",\"status\":\"error\",\"error\":{\"code\":\""
        : ref  ? "\",\"status\":\"ok\"}"
               : "\"}",
        failed ? command_code_name (command->code) : "",
        failed ? "\",\"message\":\"" : "",
        failed ? command->reason : "",
        names ? "\",\"field\":\"" : "",
        names ? command->field : "",
        busy     ? "\"},\"retry_after_ms\":" RETRY_AFTER_MS "}"
        : failed ? "\"}}"
                 : "",
    };
    return s_frame (pieces, sizeof (pieces) / sizeof (pieces[0]));
}

zframe_t *
swap_new (const command_t *command, const char *selector, const char *html)
{
    return s_swap (command, selector, html, "", "");
}

zframe_t *
swap_new_list (const command_t *command, const char *html, int64_t number, int64_t pages,
               uint64_t etag)
{
    char place[80];
    char digits[17];
    snprintf (place, sizeof (place), "\",\"page\":%" PRId64 ",\"pages\":%" PRId64 ",\"etag\":\"",
              number, pages);
    snprintf (digits, sizeof (digits), "%016" PRIx64, etag);
    return s_swap (command, "#messages__list", html, place, digits);
}

zframe_t *
swap_new_ok (const command_t *command)
{
    char id[48];
    snprintf (id, sizeof (id), "\",\"status\":\"ok\",\"id\":%" PRId64 "}", command->id);
    const char *const pieces[] = {"{\"ref\":\"", command->ref, id};
    return s_frame (pieces, 3);
}

zframe_t *
swap_new_unchanged (const command_t *command, int64_t number, int64_t pages)
{
    char place[120];
    snprintf (place, sizeof (place),
              "\",\"status\":\"ok\",\"page\":%" PRId64 ",\"pages\":%" PRId64
              ",\"etag\":\"%016" PRIx64 "\"}",
              number, pages, command->etag);
    const char *const pieces[] = {"{\"ref\":\"", command->ref, place};
    return s_frame (pieces, 3);
}

//  ------------------------------------------------------------------------
//  From templates

zframe_t *
swap_new_notice (const site_t *site, const command_t *command)
{
    if (command->code == COMMAND_CONFLICT && command->speaks_breadboard_1)
        return swap_new_form (site, command);
    json_t *data = json_pack ("{s:s, s:s}", "code", command_code_name (command->code), "message",
                              command->reason);
    char *html = mustache_render (site_templates (site), "notice.html", data, NULL);
    json_decref (data);
    zframe_t *frame = swap_new (command, "#notices", html);
    zstr_free (&html);
    return frame;
}

//  What is stored, beside what the client wanted; false when the two do not differ.

static json_t *
s_stored (const command_t *command)
{
    return command->stored_author && command->stored_text
               ? json_pack ("{s:s, s:s}", "author", command->stored_author, "text",
                            command->stored_text)
               : json_false ();
}

char *
swap_form_html (const site_t *site, const command_t *command)
{
    const settings_t *settings = site_settings (site);
    json_t *error = command->code == COMMAND_OK ? json_false () : json_string (command->reason);
    json_t *data = json_pack ("{s:I, s:s, s:s, s:I, s:I, s:I, s:o, s:o}", "id", command->id,
                              "author", command->author, "text", command->text, "version",
                              command->version, "author_max", settings->board_author_max,
                              "text_max", settings->board_text_max, "error", error, "stored",
                              s_stored (command));
    char *html = data ? mustache_render (site_templates (site), "update-form.html", data, NULL)
                      : NULL;
    json_decref (data);
    return html;
}

char *
swap_delete_html (const site_t *site, const command_t *find)
{
    json_t *data = json_pack ("{s:I, s:s, s:s}", "id", find->id, "author", find->author, "text",
                              find->text);
    char *html = data ? mustache_render (site_templates (site), "delete-form.html", data, NULL)
                      : NULL;
    json_decref (data);
    return html;
}

zframe_t *
swap_new_form (const site_t *site, const command_t *edit)
{
    char *html = swap_form_html (site, edit);
    char selector[48];
    snprintf (selector, sizeof (selector), "#message--%" PRId64, edit->id);
    zframe_t *frame = html ? swap_new (edit, selector, html) : NULL;
    zstr_free (&html);
    return frame;
}

//  ------------------------------------------------------------------------
//  Self test

//  Asserts that the frame's payload has the text in it, and destroys the frame.

static void
s_expect (zframe_t *frame, const char *text)
{
    assert (frame && zframe_data (frame)[0] == (0x80 | FRAME_TEXT));
    assert (memmem (zframe_data (frame), zframe_size (frame), text, strlen (text)));
    zframe_destroy (&frame);
}

void
swap_test (bool verbose)
{
    printf (" * swap: ");
    if (verbose)
        printf ("\n");
    s_expect (swap_new (NULL, "#a", "<b>\"\n</b>"),
              "{\"selector\":\"#a\",\"html\":\"<b>\\\"\\n</b>\"}");
    s_expect (swap_new (NULL, "#\x01", "\\\xC3\xA9"),
              "{\"selector\":\"#\\u0001\",\"html\":\"\\\\\xC3\xA9\"}");
    command_t ok = {.ref = "r\"1", .speaks_breadboard_1 = true, .id = 7};
    s_expect (swap_new_ok (&ok), "{\"ref\":\"r\\\"1\",\"status\":\"ok\",\"id\":7}");
    s_expect (swap_new (&ok, "#a", ""), "\"ref\":\"r\\\"1\",\"status\":\"ok\"}");
    s_expect (swap_new_list (NULL, "<p>", 2, 3, 0xABC),
              "\"html\":\"<p>\",\"page\":2,\"pages\":3,\"etag\":\"0000000000000abc\"}");
    s_expect (swap_new_list (&ok, "", 2, 3, 1),
              "\"etag\":\"0000000000000001\",\"ref\":\"r\\\"1\",");

    command_t list = {.ref = "r", .etag = 0xABC};
    s_expect (swap_new_unchanged (&list, 2, 3),
              "{\"ref\":\"r\",\"status\":\"ok\",\"page\":2,\"pages\":3,"
              "\"etag\":\"0000000000000abc\"}");

    site_t *site = scratch_site ();
    command_t busy = {.code = COMMAND_BUSY, .reason = "Come <back>"};
    s_expect (swap_new_notice (site, &busy), "Come &lt;back&gt;");
    busy.speaks_breadboard_1 = true;
    s_expect (swap_new_notice (site, &busy),
              "\"status\":\"error\",\"error\":{\"code\":\"busy\",\"message\":\"Come <back>\"},"
              "\"retry_after_ms\":1000}");

    command_t invalid = {.code = COMMAND_INVALID,
                         .reason = "text is missing.",
                         .field = "text",
                         .speaks_breadboard_1 = true};
    s_expect (swap_new_notice (site, &invalid),
              "\"message\":\"text is missing.\",\"field\":\"text\"}}");

    command_t edit = {.action = COMMAND_EDIT, .id = 12, .author = "Ann", .text = "1 < 2"};
    s_expect (swap_new_form (site, &edit), "{\"selector\":\"#message--12\"");
    char *html = swap_form_html (site, &edit);
    assert (strstr (html, "1 &lt; 2") && strstr (html, "data-id=\"12\""));
    zstr_free (&html);
    html = swap_delete_html (site, &edit);
    assert (strstr (html, "1 &lt; 2") && strstr (html, "action=\"/messages/12/delete\""));
    zstr_free (&html);

    command_t conflict = {.action = COMMAND_UPDATE,
                          .id = 12,
                          .code = COMMAND_CONFLICT,
                          .author = "Ann",
                          .text = "mine",
                          .version = 3,
                          .reason = "Too late.",
                          .stored_author = "Bob",
                          .stored_text = "theirs"};
    html = swap_form_html (site, &conflict);
    assert (strstr (html, "mine") && strstr (html, "theirs") && strstr (html, "Too late."));
    assert (strstr (html, "value=\"3\""));
    zstr_free (&html);
    site_destroy (&site);
    printf ("OK\n");
}
