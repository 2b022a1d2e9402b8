//  Each operation is a command of the contract, sent to the database actor as a WebSocket client's
//  would be; so fields are checked there and nowhere else. What is checked here is HTTP: the origin
//  of a write, the media type, the length.
//
//  Whatever goes wrong with a write, its form comes back with what was typed: nobody types twice.

#include "http/board.h"

#include "actors/metrics.h"
#include "actors/uuid.h"
#include "http/answer.h"
#include "http/form.h"
#include "http/request.h"
#include "http/worker.h"

//  A body that is too large is read all the same, up to so many times the limit, because a client
//  that is still sending would not see the answer.
#define LARGE_BODY_FACTOR 16

//  ------------------------------------------------------------------------
//  From the database actor's words to HTTP's

static int
s_status (const reply_t *reply)
{
    static const struct {
        const char *code;
        int status;
    } codes[] = {{"ok", 200},       {"malformed", 400}, {"not-found", 404},
                 {"conflict", 409}, {"too-large", 413}, {"invalid", 422}};
    for (size_t at = 0; at < sizeof (codes) / sizeof (codes[0]); at++)
        if (streq (reply->status, codes[at].code))
            return codes[at].status;
    return 503; //  busy, unavailable
}

//  Whether the answer is best given as the form again; the others have nothing to do with what was
//  typed, or leave nothing to send it to.

static bool
s_wants_form (int status)
{
    return status == 422 || status == 503;
}

static int
s_answer_refusal (struct mg_connection *conn, int status, const reply_t *reply)
{
    const char *text = status == 404 ? "There is no such message. Perhaps somebody deleted it."
                                     : reply->text;
    return answer_error (conn, status, *text ? text : NULL, NULL);
}

//  ------------------------------------------------------------------------
//  Pages

//  What both pages need beside what answer_page () adds.

static json_t *
s_page_data (struct mg_connection *conn)
{
    const struct mg_request_info *info = mg_get_request_info (conn);
    const settings_t *settings = worker_settings (worker_of (conn));
    const char *host = request_header (info, "Host");
    json_t *data = json_pack ("{s:s, s:s, s:s, s:I, s:I}", "host", host ? host : "", "scheme",
                              request_scheme (info, settings), "socket_path", settings->http_path,
                              "author_max", (json_int_t) settings->board_author_max, "text_max",
                              (json_int_t) settings->board_text_max);
    assert (data);
    return data;
}

static void
s_set_text (json_t *data, const char *key, const char *text)
{
    json_t *string = json_string (text);
    json_object_set_new (data, key, string ? string : json_string (""));
}

//  The page number that a query asks for, digits however many, with the blanks that somebody typed
//  around them; what is none asks for page 1. Caller frees.

static char *
s_wanted_page (const char *query)
{
    json_t *fields = form_parse (query ? query : "", query ? strlen (query) : 0);
    const char *page = fields ? form_get (fields, "page") : "";
    page += strspn (page, " \t");
    size_t digits = strspn (page, "0123456789");
    bool is_number = digits > 0 && page[digits + strspn (page + digits, " \t")] == '\0';
    char *wanted = is_number ? strndup (page, digits) : strdup ("1");
    assert (wanted);
    json_decref (fields);
    return wanted;
}

//  Where the list is: what the script needs to tell whether its frames are older or newer.

static void
s_set_place (json_t *data, const reply_t *list)
{
    char etag[17] = "";
    if (list->etag)
        snprintf (etag, sizeof (etag), "%016" PRIx64, list->etag);
    json_object_set_new (data, "page", json_integer (list->page ? (json_int_t) list->page : 1));
    json_object_set_new (data, "pages", json_integer (list->pages ? (json_int_t) list->pages : 1));
    json_object_set_new (data, "etag", json_string (etag));
}

//  The key of the form to add a message: of the one that comes back, or a fresh one.

static void
s_set_key (json_t *data, const json_t *typed)
{
    char key[UUID_SIZE];
    uuid_make (key);
    const char *old = form_get (typed, "key");
    json_object_set_new (data, "key", json_string (uuid_is (old, strlen (old)) ? old : key));
}

//  Answers with the page: the list as the database actor has it, and the form with what was typed
//  (NULL: nothing yet) and what is wrong with it. A status of 0 is the list's own.

static int
s_answer_index (struct mg_connection *conn, int status, const char *page, const json_t *typed,
                const char *error)
{
    json_t *wanted = json_pack ("{s:s}", "page", page);
    reply_t *list = worker_ask (worker_of (conn), "list messages", &wanted);
    bool unavailable = !streq (list->status, "ok");
    json_t *data = s_page_data (conn);
    s_set_place (data, list);
    json_object_set_new (data, "unavailable", json_boolean (unavailable));
    json_object_set_new (data, "away", json_boolean (!metrics_get (METRICS_DATABASE_UP)));
    s_set_text (data, "list", unavailable ? "" : list->text);
    s_set_text (data, "author", form_get (typed, "author"));
    s_set_text (data, "text", form_get (typed, "message"));
    s_set_key (data, typed);
    json_object_set_new (data, "error", error ? json_string (error) : json_false ());
    if (status == 0)
        status = unavailable ? 503 : 200;
    reply_destroy (&list);
    return answer_page (conn, status, "index.html", &data);
}

int
board_answer_page (struct mg_connection *conn)
{
    if (!answer_allows (conn, "GET, HEAD"))
        return 405;
    char *page = s_wanted_page (mg_get_request_info (conn)->query_string);
    int status = s_answer_index (conn, 0, page, NULL, NULL);
    zstr_free (&page);
    return status;
}

static int
s_answer_edit (struct mg_connection *conn, int status, const char *id, const char *form)
{
    json_t *data = s_page_data (conn);
    s_set_text (data, "id", id);
    s_set_text (data, "form", form);
    return answer_page (conn, status, "edit.html", &data);
}

//  The edit form again, with what was typed and what is wrong with it.

static int
s_answer_edit_again (struct mg_connection *conn, int status, const char *id, const json_t *typed,
                     const char *error)
{
    const site_t *site = worker_site (worker_of (conn));
    json_t *data = s_page_data (conn);
    s_set_text (data, "id", id);
    s_set_text (data, "author", form_get (typed, "author"));
    s_set_text (data, "text", form_get (typed, "message"));
    s_set_text (data, "version", form_get (typed, "version"));
    s_set_text (data, "error", error);
    char *form = mustache_render (site_templates (site), "update-form.html", data, NULL);
    json_decref (data);
    status = s_answer_edit (conn, status, id, form);
    zstr_free (&form);
    return status;
}

//  ------------------------------------------------------------------------
//  Forms

//  Reads exactly size bytes of the body into buffer (NULL: to nowhere). Returns 0, or -1 when the
//  client stopped before that.

static int
s_read_body (struct mg_connection *conn, char *buffer, size_t size)
{
    char nowhere[4096];
    worker_begin_body (worker_of (conn));
    if (request_has_token (mg_get_request_info (conn), "Expect", "100-continue"))
        mg_write (conn, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    int got = 1;
    for (size_t at = 0; at < size && got > 0; at += (size_t) got) {
        size_t want = !buffer && size - at > sizeof (nowhere) ? sizeof (nowhere) : size - at;
        got = mg_read (conn, buffer ? buffer + at : nowhere, want);
    }
    worker_end_body (worker_of (conn), got > 0);
    return got > 0 ? 0 : -1;
}

//  The status of what forbids to read the request's form; 0 when nothing does.

static int
s_check_form (const struct mg_request_info *info, const settings_t *settings)
{
    if (!request_origin_allowed (info, settings))
        return 403;
    const char *type = request_header (info, "Content-Type");
    static const char form[] = "application/x-www-form-urlencoded";
    if (!type || strncasecmp (type, form, strlen (form)) != 0 ||
        !strchr ("; \t", type[strlen (form)]))
        return 415;
    if (!request_header (info, "Content-Length"))
        return 411;
    return info->content_length > settings->limits_max_message_bytes ? 413 : 0;
}

//  0 when the client's address may send a form now, of whose body so many bytes will be read; else
//  it has answered, with this status.

static int
s_admit (struct mg_connection *conn, int64_t bytes)
{
    int seconds = worker_admit_form (worker_of (conn), bytes);
    return seconds > 0 ? answer_too_many (conn, seconds) : 0;
}

//  Reads and decodes the request's form. Returns NULL when that cannot be; then it has answered,
//  with *status_p.

static json_t *
s_read_form (struct mg_connection *conn, int *status_p)
{
    const struct mg_request_info *info = mg_get_request_info (conn);
    const settings_t *settings = worker_settings (worker_of (conn));
    *status_p = s_check_form (info, settings);
    bool swallow = *status_p == 413 &&
                   info->content_length <= LARGE_BODY_FACTOR * settings->limits_max_message_bytes;
    int refused = *status_p == 0 || swallow ? s_admit (conn, info->content_length) : 0;
    if (refused != 0) {
        *status_p = refused;
        return NULL;
    }
    if (swallow)
        s_read_body (conn, NULL, (size_t) info->content_length);
    json_t *form = NULL;
    if (*status_p == 0) {
        size_t size = (size_t) info->content_length;
        char *body = (char *) zmalloc (size + 1);
        if (s_read_body (conn, body, size) != 0)
            *status_p = 408;
        else if (!(form = form_parse (body, size)))
            *status_p = 400;
        freen (body);
    }
    if (*status_p != 0)
        answer_error (conn, *status_p,
                      *status_p == 400 ? "The form is not encoded as a form should be." : NULL,
                      NULL);
    return form;
}

//  The form's fields under the names that commands have for them; those that are absent stay so.

static json_t *
s_command_data (const json_t *form)
{
    json_t *data = json_object ();
    assert (data);
    static const char *const names[][2] = {
        {"author", "author"}, {"message", "text"}, {"version", "version"}};
    for (size_t at = 0; at < sizeof (names) / sizeof (names[0]); at++) {
        json_t *field = json_object_get (form, names[at][0]);
        if (field)
            json_object_set (data, names[at][1], field);
    }
    return data;
}

//  ------------------------------------------------------------------------
//  Writes

//  Makes the key of the message: the form's, and what was typed. So a form that is sent twice
//  stores one message; and who goes back to it and types something else, or has to mend it, stores
//  that.

static void
s_add_key (json_t *data, const json_t *form)
{
    const char *form_key = form_get (form, "key");
    if (!uuid_is (form_key, strlen (form_key))) {
        if (*form_key) //  It is refused as anybody's
            s_set_text (data, "key", form_key);
        return;
    }
    char *typed = zsys_sprintf ("%s\n%s", form_get (form, "author"), form_get (form, "message"));
    char key[UUID_SIZE];
    uuid_make_from (key, form_key, typed, strlen (typed));
    s_set_text (data, "key", key);
    zstr_free (&typed);
}

int
board_answer_add (struct mg_connection *conn)
{
    int status;
    if (!answer_allows (conn, "POST"))
        return 405;
    json_t *form = s_read_form (conn, &status);
    if (!form)
        return status;
    json_t *data = s_command_data (form);
    json_object_del (data, "version");
    s_add_key (data, form);
    reply_t *reply = worker_ask (worker_of (conn), "add message", &data);
    status = s_status (reply);
    if (status == 200)
        status = answer_see_other (conn, "/");
    else if (s_wants_form (status))
        status = s_answer_index (conn, status, "1", form, reply->text);
    else
        status = s_answer_refusal (conn, status, reply);
    reply_destroy (&reply);
    json_decref (form);
    return status;
}

//  Back to the list, to the page where the message is or was.

static int
s_answer_done (struct mg_connection *conn, const reply_t *reply)
{
    char path[40] = "/";
    if (reply->page > 1)
        snprintf (path, sizeof (path), "/?page=%" PRIu64, reply->page);
    return answer_see_other (conn, path);
}

static int
s_answer_update (struct mg_connection *conn, const char *id)
{
    int status;
    json_t *form = s_read_form (conn, &status);
    if (!form)
        return status;
    json_t *data = s_command_data (form);
    json_object_set_new (data, "id", json_string (id));
    reply_t *reply = worker_ask (worker_of (conn), "update message", &data);
    status = s_status (reply);
    if (status == 200)
        status = s_answer_done (conn, reply);
    else if (status == 409)
        status = s_answer_edit (conn, status, id, reply->text); //  Both texts, ready to be sent
    else if (s_wants_form (status))
        status = s_answer_edit_again (conn, status, id, form, reply->text);
    else
        status = s_answer_refusal (conn, status, reply);
    reply_destroy (&reply);
    json_decref (form);
    return status;
}

static int
s_answer_delete (struct mg_connection *conn, const char *id)
{
    const struct mg_request_info *info = mg_get_request_info (conn);
    if (!request_origin_allowed (info, worker_settings (worker_of (conn))))
        return answer_error (conn, 403, NULL, NULL);
    int status = s_admit (conn, 0);
    if (status != 0)
        return status;
    json_t *data = json_pack ("{s:s}", "id", id);
    reply_t *reply = worker_ask (worker_of (conn), "delete message", &data);
    status = s_status (reply);
    status = status == 200 ? s_answer_done (conn, reply) : s_answer_refusal (conn, status, reply);
    reply_destroy (&reply);
    return status;
}

//  Looks for the message, and if it is there answers.

static int
s_answer_found (struct mg_connection *conn, const char *id,
                int (*answer) (struct mg_connection *conn, const reply_t *found))
{
    reply_t *reply = worker_find (worker_of (conn), id);
    int status = s_status (reply);
    status = status == 200 ? answer (conn, reply) : s_answer_refusal (conn, status, reply);
    reply_destroy (&reply);
    return status;
}

//  The page that asks whether to delete, for a browser without script.

static int
s_answer_question (struct mg_connection *conn, const reply_t *found)
{
    json_t *data = s_page_data (conn);
    s_set_text (data, "form", found->text);
    return answer_page (conn, 200, "delete.html", &data);
}

static int
s_answer_delete_form (struct mg_connection *conn, const char *id)
{
    return s_answer_found (conn, id, s_answer_question);
}

//  Leads to the message, on the page that it is on.

static int
s_answer_place (struct mg_connection *conn, const reply_t *found)
{
    char path[80];
    snprintf (path, sizeof (path), "/?page=%" PRIu64 "#message--%" PRIu64, found->page, found->id);
    return answer_found (conn, path);
}

static int
s_answer_permalink (struct mg_connection *conn, const char *id)
{
    return s_answer_found (conn, id, s_answer_place);
}

static int
s_answer_edit_form (struct mg_connection *conn, const char *id)
{
    json_t *data = json_pack ("{s:s}", "id", id);
    reply_t *reply = worker_ask (worker_of (conn), "open edit page", &data);
    int status = s_status (reply);
    status = status == 200 ? s_answer_edit (conn, 200, id, reply->text)
                           : s_answer_refusal (conn, status, reply);
    reply_destroy (&reply);
    return status;
}

//  What can be done with a message: the path behind its number, the methods, what GET and HEAD
//  answer, and what POST does (NULL: nothing)
static const struct {
    const char *path;
    const char *methods;
    int (*get) (struct mg_connection *conn, const char *id);
    int (*post) (struct mg_connection *conn, const char *id);
} s_operations[] = {
    {"", "GET, HEAD, POST", s_answer_permalink, s_answer_update},
    {"/edit", "GET, HEAD", s_answer_edit_form, NULL},
    {"/delete", "GET, HEAD, POST", s_answer_delete_form, s_answer_delete},
};

int
board_answer_message (struct mg_connection *conn, const char *rest)
{
    size_t digits = strspn (rest, "0123456789");
    size_t at = 0;
    size_t count = sizeof (s_operations) / sizeof (s_operations[0]);
    while (at < count && !streq (rest + digits, s_operations[at].path))
        at++;
    if (digits == 0 || at == count)
        return answer_error (conn, 404, NULL, NULL);
    if (!answer_allows (conn, s_operations[at].methods))
        return 405;
    char *id = strndup (rest, digits);
    assert (id);
    bool posts = streq (mg_get_request_info (conn)->request_method, "POST");
    int status = posts ? s_operations[at].post (conn, id) : s_operations[at].get (conn, id);
    zstr_free (&id);
    return status;
}
