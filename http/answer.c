//  Keeping a connection open costs a whole thread, since civetweb's threads wait for the next
//  request. So a connection is kept while at most half of the threads are taken, and closed with
//  its answer otherwise: few visitors get their assets without a new connection each, and many do
//  not wait for the idle ones.

#include "http/answer.h"

#include "http/request.h"
#include "http/worker.h"

//  Browsers count ws: and wss: to the same host as 'self'
#define SECURITY_HEADERS                                                                 \
    "Content-Security-Policy: default-src 'none'; style-src 'self'; script-src 'self'; " \
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "          \
    "frame-ancestors 'none'\r\n"                                                         \
    "X-Content-Type-Options: nosniff\r\n"                                                \
    "Referrer-Policy: same-origin\r\n"

//  What people are told where nobody knows better
static const struct {
    int status;
    const char *message;
} s_messages[] = {
    {400, "The request cannot be understood."},
    {403, "This request is not allowed from where it came from."},
    {404, "There is nothing at this address."},
    {405, "This address does not take such a request."},
    {408, "The request took too long to arrive."},
    {411, "The request must tell its length in advance."},
    {413, "That is more than the board takes at once."},
    {415, "The board takes forms only."},
    {426, "This address speaks WebSocket only."},
    {429, "Too much comes from your address. Please try again in a moment."},
    {431, "The request has too many headers."},
    {503, "The board cannot do this just now. Please try again in a moment."},
    {505, "The board speaks HTTP/1.1 only."},
};

//  Both sides must want it, and we do not when threads are becoming rare or we are about to stop,
//  nor when a body was not read: civetweb would read it to its end, however long that takes.

static bool
s_keeps_connection (const worker_t *worker, int status)
{
    const pool_t *pool = worker_pool (worker);
    const struct mg_request_info *info = worker_request (worker);
    if (!info || status == 400 || status == 408 || status == 411 || status == 413 ||
        status == 431 || sweeper_crowded (pool->sweeper) || atomic_load (&pool->draining))
        return false;
    if (info->content_length > 0 && !worker_has_body (worker))
        return false;
    if (request_has_token (info, "Connection", "close"))
        return false;
    return streq (info->http_version, "1.1") ||
           request_has_token (info, "Connection", "keep-alive");
}

static void s_append (zchunk_t *chunk, const char *format, ...) CHECK_PRINTF (2);

static void
s_append (zchunk_t *chunk, const char *format, ...)
{
    va_list arguments;
    va_start (arguments, format);
    char *text = zsys_vprintf (format, arguments);
    va_end (arguments);
    zchunk_extend (chunk, text, strlen (text));
    zstr_free (&text);
}

static zchunk_t *
s_head (const answer_t *answer, struct mg_connection *conn, bool keep)
{
    zchunk_t *head = zchunk_new (NULL, 1024 + answer->size);
    assert (head);
    time_t now = time (NULL);
    struct tm utc;
    char date[64];
    strftime (date, sizeof (date), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r (&now, &utc));
    s_append (head, "HTTP/1.1 %d %s\r\nDate: %s\r\n", answer->status,
              mg_get_response_code_text (conn, answer->status), date);
    if (answer->type)
        s_append (head, "Content-Type: %s\r\n", answer->type);
    if (answer->status != 304)
        s_append (head, "Content-Length: %zu\r\n", answer->size);
    s_append (head, "Cache-Control: %s\r\n%s%sConnection: %s%s\r\n\r\n",
              answer->cache ? answer->cache : "no-cache", SECURITY_HEADERS,
              answer->headers ? answer->headers : "", answer->status == 426 ? "Upgrade, " : "",
              keep ? "keep-alive" : "close");
    return head;
}

int
answer_send (struct mg_connection *conn, const answer_t *answer)
{
    const worker_t *worker = worker_of (conn);
    const struct mg_request_info *info = worker_request (worker);
    bool keep = s_keeps_connection (worker, answer->status);
    if (!keep)
        mg_disable_connection_keep_alive (conn);
    zchunk_t *chunk = s_head (answer, conn, keep);
    if (answer->size > 0 && !(info && streq (info->request_method, "HEAD")))
        zchunk_extend (chunk, answer->body, answer->size);
    mg_write (conn, zchunk_data (chunk),
              zchunk_size (chunk)); //  A client that is gone is no matter
    zchunk_destroy (&chunk);
    return answer->status;
}

int
answer_text (struct mg_connection *conn, int status, const char *text)
{
    return answer_send (conn, &(answer_t){.status = status,
                                          .type = "text/plain; charset=utf-8",
                                          .cache = "no-store",
                                          .body = text,
                                          .size = strlen (text)});
}

static void
s_add_url (json_t *data, const char *key, const assets_t *assets, const char *name)
{
    char *url = assets_url (assets, name);
    json_object_set_new (data, key, json_string (url));
    zstr_free (&url);
}

static int
s_send_page (struct mg_connection *conn, int status, const char *headers, const char *template,
             json_t **data_p)
{
    const worker_t *worker = worker_of (conn);
    const site_t *site = worker_site (worker);
    const assets_t *assets = site_assets (site);
    json_t *data = *data_p;
    json_object_set_new (data, "title", json_string (site_settings (site)->board_title));
    s_add_url (data, "style_url", assets, "breadboard.css");
    s_add_url (data, "script_url", assets, "breadboard.js");
    s_add_url (data, "icon_url", assets, "favicon.svg");
    size_t size;
    char *text = mustache_render (site_templates (site), template, data, &size);
    answer_send (conn, &(answer_t){.status = status,
                                   .type = "text/html; charset=utf-8",
                                   .headers = headers,
                                   .body = text,
                                   .size = size});
    zstr_free (&text);
    json_decref (data);
    *data_p = NULL;
    return status;
}

int
answer_page (struct mg_connection *conn, int status, const char *template, json_t **data_p)
{
    return s_send_page (conn, status, status == 503 ? "Retry-After: 2\r\n" : NULL, template,
                        data_p);
}

static const char *
s_usual_message (int status)
{
    for (size_t at = 0; at < sizeof (s_messages) / sizeof (s_messages[0]); at++)
        if (s_messages[at].status == status)
            return s_messages[at].message;
    return "Something went wrong.";
}

int
answer_error (struct mg_connection *conn, int status, const char *message, const char *headers)
{
    json_t *data = json_pack ("{s:i, s:s, s:s}", "status", status, "reason",
                              mg_get_response_code_text (conn, status), "message",
                              message ? message : s_usual_message (status));
    assert (data);
    if (!headers && status == 503)
        headers = "Retry-After: 2\r\n";
    return s_send_page (conn, status, headers, "error.html", &data);
}

int
answer_too_many (struct mg_connection *conn, int seconds)
{
    char headers[64];
    snprintf (headers, sizeof (headers), "Retry-After: %d\r\n", seconds);
    return answer_error (conn, 429, NULL, headers);
}

static int
s_redirect (struct mg_connection *conn, int status, const char *path)
{
    char headers[128];
    int size = snprintf (headers, sizeof (headers), "Location: %s\r\n", path);
    assert (size > 0 && (size_t) size < sizeof (headers));
    return answer_send (conn,
                        &(answer_t){.status = status, .cache = "no-store", .headers = headers});
}

int
answer_found (struct mg_connection *conn, const char *path)
{
    return s_redirect (conn, 302, path);
}

int
answer_see_other (struct mg_connection *conn, const char *path)
{
    return s_redirect (conn, 303, path);
}

bool
answer_allows (struct mg_connection *conn, const char *methods)
{
    const char *method = mg_get_request_info (conn)->request_method;
    size_t size = strlen (method);
    for (const char *at = methods; (at = strstr (at, method)); at += size)
        if ((at == methods || at[-1] == ' ') && (at[size] == ',' || at[size] == '\0'))
            return true;
    char headers[64];
    snprintf (headers, sizeof (headers), "Allow: %s\r\n", methods);
    answer_error (conn, 405, NULL, headers);
    return false;
}
