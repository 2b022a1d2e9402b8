#include "actors/swap.h"
#include "actors/scratch.h"
#include "http/frame.h"

zframe_t *
swap_new (const char *selector, const char *html)
{
    json_t *object = json_pack ("{s:s, s:s}", "selector", selector, "html", html);
    char *json = json_dumps (object, JSON_COMPACT);
    json_decref (object);
    zframe_t *frame = json ? frame_new (FRAME_TEXT, json, strlen (json)) : NULL;
    free (json);
    return frame;
}

zframe_t *
swap_new_notice (const site_t *site, command_code_t code, const char *reason)
{
    json_t *data = json_pack ("{s:s, s:s}", "code", command_code_name (code), "message", reason);
    char *html = mustache_render (site_templates (site), "notice.html", data, NULL);
    json_decref (data);
    zframe_t *frame = swap_new ("#notices", html);
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
    zframe_t *frame = html ? swap_new (selector, html) : NULL;
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
    s_expect (swap_new ("#a", "<b>\"\n</b>"), "{\"selector\":\"#a\",\"html\":\"<b>\\\"\\n</b>\"}");

    site_t *site = scratch_site ();
    s_expect (swap_new_notice (site, COMMAND_BUSY, "Come <back>"), "Come &lt;back&gt;");

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
