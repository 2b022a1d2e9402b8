//  fuzz_request - any bytes as the headers of a request: who is let in is who should be
//
//  input      [flags] METHOD \n VERSION \n URI \n then NAME ":" VALUE \n for each header
//  flags      1: we listen on loopback; 2: a proxy is trusted; 4: other hosts and origins are
//             allowed
//  aborts     when a foreign host or origin is let in, when an answer is none of request.h's, or
//             when the order of the headers or the case of their names makes a difference

#include "http/request.h"
#include "http/websocket.h"

#define ETAG "0123456789abcdef"

//  What request.h and websocket.h tell of one request, where it does not depend on the order
typedef struct {
    int check;
    int websocket;
    bool host;
    bool origin;
    bool local;
    bool etag;
    const char *scheme;
} verdict_t;

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

//  Takes a part of the text up to the mark, which becomes a NUL; "" when none is left.

static char *
s_take (char **text_p, char mark)
{
    char *part = *text_p;
    char *end = strchr (part, mark);
    *text_p = end ? end + 1 : part + strlen (part);
    if (end)
        *end = '\0';
    return part;
}

static void
s_read (char *text, struct mg_request_info *info)
{
    info->request_method = s_take (&text, '\n');
    info->http_version = s_take (&text, '\n');
    info->request_uri = s_take (&text, '\n');
    strcpy (info->remote_addr, "127.0.0.1");
    while (*text && info->num_headers < MG_MAX_HEADERS) {
        char *value = s_take (&text, '\n');
        struct mg_header *header = &info->http_headers[info->num_headers++];
        header->name = s_take (&value, ':');
        header->value = value + strspn (value, " \t"); //  As civetweb does
    }
}

static verdict_t
s_judge (const struct mg_request_info *info, const settings_t *settings, bool loopback)
{
    return (verdict_t){.check = request_check (info),
                       .websocket = websocket_check (info),
                       .host = request_host_allowed (info, settings, loopback),
                       .origin = request_origin_allowed (info, settings),
                       .local = request_is_local (info),
                       .etag = request_has_etag (info, ETAG),
                       .scheme = request_scheme (info, settings)};
}

static void
s_check_same (const struct mg_request_info *info, const settings_t *settings, bool loopback,
              const verdict_t *first)
{
    verdict_t again = s_judge (info, settings, loopback);
    assert (again.check == first->check && again.websocket == first->websocket);
    assert (again.host == first->host && again.origin == first->origin);
    assert (again.local == first->local && again.etag == first->etag);
    assert (streq (again.scheme, first->scheme));
}

//  The same headers from last to first, their names in capitals.

static struct mg_request_info
s_turn (const struct mg_request_info *info)
{
    struct mg_request_info turned = *info;
    for (int at = 0; at < info->num_headers; at++) {
        turned.http_headers[at] = info->http_headers[info->num_headers - 1 - at];
        for (char *byte = (char *) turned.http_headers[at].name; *byte; byte++)
            *byte = (char) toupper ((unsigned char) *byte);
    }
    return turned;
}

//  Whether the text begins with the host, in any case of letters, and no longer one.

static bool
s_names (const char *text, const char *host)
{
    size_t size = strlen (host);
    return strncasecmp (text, host, size) == 0 && strchr (":", text[size]);
}

//  Whether the text is a name for this machine: read from its end, unlike there.

static bool
s_is_loopback (const char *text)
{
    size_t size = strcspn (text, ":");
    if (s_names (text, "localhost") || s_names (text, "127.0.0.1"))
        return true;
    return size > 10 && strncasecmp (text + size - 10, ".localhost", 10) == 0;
}

static void
s_check_host (const struct mg_request_info *info, const settings_t *settings, bool loopback)
{
    const char *host = request_header (info, "Host");
    if (!host || !request_host_allowed (info, settings, loopback))
        return;
    bool listed = *settings->http_allowed_hosts != '\0';
    assert (s_is_loopback (host) ||
            (listed && (s_names (host, "board.example") || s_names (host, "other.example"))) ||
            (!listed && !loopback));
}

static void
s_check_origin (const struct mg_request_info *info, const settings_t *settings)
{
    if (request_count (info, "Origin") == 0 || !request_origin_allowed (info, settings))
        return;
    const char *origin = request_header (info, "Origin");
    assert (origin);
    const char *authority = strstr (origin, "://");
    assert (authority);
    const char *host = request_header (info, "Host");
    char name[300] = "";
    if (host)
        snprintf (name, sizeof (name), "%.*s",
                  (int) (*host == '[' ? strcspn (host, "]") + 1 : strcspn (host, ":")), host);
    assert ((*name && s_names (authority + 3, name)) ||
            (*settings->http_allowed_origins && streq (origin, "https://other.example:81")) ||
            (*settings->http_allowed_origins && s_names (authority + 3, "other.example")));
}

//  Without a proxy that is trusted, nobody tells us another address than his own.

static void
s_check_address (const struct mg_request_info *info, const settings_t *settings)
{
    address_t address = request_address (info, settings);
    char text[ADDRESS_TEXT_BYTES];
    assert (settings->http_trust_proxy || streq (address_text (&address, text), info->remote_addr));
}

static void
s_check_handshake (const struct mg_request_info *info, int status)
{
    assert (status == 0 || status == 400 || status == 405 || status == 426);
    if (status == 0) {
        char *accept = websocket_accept (request_header (info, "Sec-WebSocket-Key"));
        assert (strlen (accept) == 28);
        zstr_free (&accept);
        assert (request_has_token (info, "Upgrade", "WEBSOCKET"));
        assert (streq (request_header (info, "Sec-WebSocket-Version"), "13"));
    }
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    bool loopback = data[0] & 1;
    settings_t settings = {.http_trust_proxy = data[0] & 2,
                           .http_allowed_hosts = data[0] & 4 ? "board.example other.example:81"
                                                             : "",
                           .limits_exempt_addresses = "127.0.0.0/8 ::1",
                           .http_allowed_origins = data[0] & 4 ? "https://other.example:81" : ""};
    char *text = strndup ((const char *) data + 1, size - 1);
    assert (text);
    struct mg_request_info info = {0};
    s_read (text, &info);
    request_trim (&info);
    verdict_t verdict = s_judge (&info, &settings, loopback);
    assert (verdict.check == 0 || verdict.check == 400 || verdict.check == 411 ||
            verdict.check == 413 || verdict.check == 431);
    s_check_host (&info, &settings, loopback);
    s_check_origin (&info, &settings);
    s_check_address (&info, &settings);
    s_check_handshake (&info, verdict.websocket);
    request_takes_gzip (&info);
    assert (request_has_word (&info, "Accept", "a") <= request_has_token (&info, "Accept", "A"));
    struct mg_request_info turned = s_turn (&info);
    s_check_same (&turned, &settings, loopback, &verdict);
    freen (text);
    return 0;
}
