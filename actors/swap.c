#include "actors/swap.h"
#include "actors/scratch.h"
#include "http/frame.h"

//  A full queue or a lock: both are gone soon
#define SWAP_RETRY_AFTER_MS 1000

//  Adds what a reply carries beside the piece of HTML. Returns 0, or -1 when memory is out.

static int
s_add_reply (json_t *object, const command_t *command)
{
    int rc = 0;
    if (!command || !command->speaks_breadboard_1)
        return 0;
    bool ok = command->code == COMMAND_OK;
    if (command->ref)
        rc |= json_object_set_new (object, "ref", json_string (command->ref));
    if (command->ref || !ok)
        rc |= json_object_set_new (object, "status", json_string (ok ? "ok" : "error"));
    if (!ok)
        rc |= json_object_set_new (object, "error",
                                   json_pack ("{s:s, s:s}", "code",
                                              command_code_name (command->code), "message",
                                              command->reason));
    if (command->code == COMMAND_BUSY)
        rc |= json_object_set_new (object, "retry_after_ms", json_integer (SWAP_RETRY_AFTER_MS));
    return rc;
}

//  The object as a frame; takes it. NULL when memory is out.

static zframe_t *
s_frame (json_t *object)
{
    char *json = object ? json_dumps (object, JSON_COMPACT) : NULL;
    json_decref (object);
    zframe_t *frame = json ? frame_new (FRAME_TEXT, json, strlen (json)) : NULL;
    free (json);
    return frame;
}

zframe_t *
swap_new (const command_t *command, const char *selector, const char *html)
{
    json_t *object = json_pack ("{s:s, s:s}", "selector", selector, "html", html);
    if (object && s_add_reply (object, command) != 0) {
        json_decref (object);
        object = NULL;
    }
    return s_frame (object);
}

zframe_t *
swap_new_ok (const command_t *command)
{
    return s_frame (
        json_pack ("{s:s, s:s, s:I}", "ref", command->ref, "status", "ok", "id", command->id));
}

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
    command_t ok = {.ref = "r\"1", .speaks_breadboard_1 = true, .id = 7};
    s_expect (swap_new_ok (&ok), "{\"ref\":\"r\\\"1\",\"status\":\"ok\",\"id\":7}");
    s_expect (swap_new (&ok, "#a", ""), "\"ref\":\"r\\\"1\",\"status\":\"ok\"}");

    site_t *site = scratch_site ();
    command_t busy = {.code = COMMAND_BUSY, .reason = "Come <back>"};
    s_expect (swap_new_notice (site, &busy), "Come &lt;back&gt;");
    busy.speaks_breadboard_1 = true;
    s_expect (swap_new_notice (site, &busy),
              "\"status\":\"error\",\"error\":{\"code\":\"busy\",\"message\":\"Come <back>\"},"
              "\"retry_after_ms\":1000}");

    command_t edit = {.action = COMMAND_EDIT, .id = 12, .author = "Ann", .text = "1 < 2"};
    s_expect (swap_new_form (site, &edit), "{\"selector\":\"#message--12\"");
    char *html = swap_form_html (site, &edit);
    assert (strstr (html, "1 &lt; 2") && strstr (html, "data-id=\"12\""));
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
