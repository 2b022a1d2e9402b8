//  civetweb hands us header lines as they came. Whatever decides about access is read here, and
//  where a request is ambiguous (a header twice, a number with a tail) it is refused rather than
//  guessed at: a proxy in front may have guessed otherwise.

#include "http/request.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <strings.h>

#define HOST_MAX 255

//  A host and port in parts
typedef struct {
    char name[HOST_MAX + 1]; //  Lower case; IPv6 with its brackets
    int port;                //  0 when there is none
    const char *scheme;      //  "http" or "https", of an origin
} host_t;

void
request_trim (const struct mg_request_info *info)
{
    for (int index = 0; index < info->num_headers; index++) {
        char *value = (char *) info->http_headers[index].value;
        size_t size = strlen (value);
        while (size > 0 && (value[size - 1] == ' ' || value[size - 1] == '\t'))
            value[--size] = '\0';
    }
}

static const char *
s_next (const struct mg_request_info *info, const char *name, int *index_p)
{
    while (*index_p < info->num_headers) {
        const struct mg_header *header = &info->http_headers[(*index_p)++];
        if (strcasecmp (header->name, name) == 0)
            return header->value;
    }
    return NULL;
}

int
request_count (const struct mg_request_info *info, const char *name)
{
    int count = 0;
    int index = 0;
    while (s_next (info, name, &index))
        count++;
    return count;
}

const char *
request_header (const struct mg_request_info *info, const char *name)
{
    int index = 0;
    const char *value = s_next (info, name, &index);
    return value && !s_next (info, name, &index) ? value : NULL;
}

//  Takes the next element off a list; returns its size without the space around it, or -1 at the
//  end.

static int
s_next_element (const char **list_p, const char **element_p)
{
    const char *list = *list_p;
    list += strspn (list, " \t,");
    if (*list == '\0')
        return -1;
    size_t size = strcspn (list, ",");
    *element_p = list;
    *list_p = list + size;
    while (size > 0 && (list[size - 1] == ' ' || list[size - 1] == '\t'))
        size--;
    return (int) size;
}

static bool
s_is_token (const char *text, int size, const char *token)
{
    return (size_t) size == strlen (token) && strncasecmp (text, token, (size_t) size) == 0;
}

//  Whether a list, on one line or several, has the token; compare is strncasecmp () or strncmp ().

static bool
s_has (const struct mg_request_info *info, const char *name, const char *token,
       int (*compare) (const char *left, const char *right, size_t size))
{
    int index = 0;
    const char *list;
    while ((list = s_next (info, name, &index))) {
        const char *element;
        int size;
        while ((size = s_next_element (&list, &element)) >= 0)
            if ((size_t) size == strlen (token) && compare (element, token, (size_t) size) == 0)
                return true;
    }
    return false;
}

bool
request_has_token (const struct mg_request_info *info, const char *name, const char *token)
{
    return s_has (info, name, token, strncasecmp);
}

bool
request_has_word (const struct mg_request_info *info, const char *name, const char *word)
{
    return s_has (info, name, word, strncmp);
}

//  Reads digits up to the end of text; -1 when there are none, others too, or too many.

static int
s_parse_port (const char *text)
{
    size_t size = strspn (text, "0123456789");
    if (size == 0 || size > 5 || text[size] != '\0')
        return -1;
    int port = atoi (text);
    return port >= 1 && port <= 65535 ? port : -1;
}

//  RFC 3986's host and port, without escapes: no client sends these.

static bool
s_parse_host (const char *text, host_t *host)
{
    size_t size = *text == '['
                      ? strspn (text, "[0123456789abcdefABCDEF:.")
                      : strspn (text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                      "0123456789-._~");
    if (*text == '[')
        size = text[size] == ']' ? size + 1 : 0;
    if (size == 0 || size > HOST_MAX)
        return false;
    for (size_t at = 0; at < size; at++)
        host->name[at] = (char) tolower ((unsigned char) text[at]);
    host->name[size] = '\0';
    host->port = 0;
    if (text[size] == ':' && text[size + 1] != '\0')
        host->port = s_parse_port (text + size + 1);
    else if (text[size] != '\0' && text[size] != ':')
        host->port = -1;
    return host->port >= 0;
}

//  0, or the status of what is wrong with the request's length.

static int
s_check_length (const struct mg_request_info *info)
{
    if (request_count (info, "Transfer-Encoding") > 0)
        return 411;
    const char *length = request_header (info, "Content-Length");
    if (!length)
        return request_count (info, "Content-Length") > 0 ? 400 : 0;
    size_t digits = strspn (length, "0123456789");
    if (digits == 0 || length[digits] != '\0')
        return 400;
    return digits > 18 ? 413 : 0;
}

//  Whether a request line with a whole URI, as proxies get it, and the Host header agree.

static bool
s_is_for_host (const char *uri, const char *host)
{
    const char *authority = strstr (uri, "://");
    if (*uri == '/' || !authority)
        return true;
    size_t size = strlen (host);
    return strncasecmp (authority + 3, host, size) == 0 && authority[3 + size] == '/';
}

int
request_check (const struct mg_request_info *info)
{
    //  civetweb keeps MG_MAX_HEADERS and drops the rest without a word: a full table is suspect
    if (info->num_headers >= MG_MAX_HEADERS)
        return 431;
    const char *text = request_header (info, "Host");
    host_t host;
    if (text && !s_parse_host (text, &host))
        return 400;
    if (text && !s_is_for_host (info->request_uri, text))
        return 400;
    if (!text && (request_count (info, "Host") > 0 || !streq (info->http_version, "1.0")))
        return 400;
    return s_check_length (info);
}

static bool
s_is_loopback_name (const char *name)
{
    size_t size = strlen (name);
    const char *suffix = ".localhost";
    return streq (name, "localhost") || streq (name, "127.0.0.1") ||
           (size > strlen (suffix) && streq (name + size - strlen (suffix), suffix));
}

//  Whether a word of a setting names the host: with the port, if the word has one.

static bool
s_names_host (const char *word, const host_t *host)
{
    host_t named;
    return s_parse_host (word, &named) && streq (named.name, host->name) &&
           (named.port == 0 || named.port == host->port);
}

//  Whether one of the words in a list does so.

static bool
s_list_names (const char *list, bool (*names) (const char *word, const host_t *host),
              const host_t *host)
{
    char *copy = strdup (list);
    assert (copy);
    bool found = false;
    char *rest = copy;
    char *word;
    while (!found && (word = strtok_r (rest, " ", &rest)))
        found = names (word, host);
    zstr_free (&copy);
    return found;
}

bool
request_host_allowed (const struct mg_request_info *info, const settings_t *settings, bool loopback)
{
    host_t host;
    const char *text = request_header (info, "Host");
    if (!text)
        return true; //  HTTP/1.0; a browser, which alone can be led astray, always sends it
    if (!s_parse_host (text, &host))
        return false;
    if (s_is_loopback_name (host.name))
        return true;
    if (*settings->http_allowed_hosts)
        return s_list_names (settings->http_allowed_hosts, s_names_host, &host);
    return !loopback;
}

const char *
request_scheme (const struct mg_request_info *info, const settings_t *settings)
{
    const char *scheme = request_header (info, "X-Forwarded-Proto");
    return settings->http_trust_proxy && scheme && strcasecmp (scheme, "https") == 0 ? "https"
                                                                                     : "http";
}

//  Splits "https://host:port" and fills the scheme's own port in. Returns whether it is one.

static bool
s_parse_origin (const char *text, host_t *origin)
{
    origin->scheme = strncasecmp (text, "http://", 7) == 0    ? "http"
                     : strncasecmp (text, "https://", 8) == 0 ? "https"
                                                              : NULL;
    if (!origin->scheme || !s_parse_host (text + strlen (origin->scheme) + 3, origin))
        return false;
    if (origin->port == 0)
        origin->port = streq (origin->scheme, "http") ? 80 : 443;
    return true;
}

static bool
s_names_origin (const char *word, const host_t *origin)
{
    host_t named;
    return s_parse_origin (word, &named) && streq (named.scheme, origin->scheme) &&
           streq (named.name, origin->name) && named.port == origin->port;
}

//  The page's own origin. Its scheme is known only where a proxy tells it: without one that we
//  trust, a page of https://board and the request's "Host: board" are the same host.

static bool
s_is_same_host (const struct mg_request_info *info, const settings_t *settings,
                const host_t *origin)
{
    host_t host;
    const char *text = request_header (info, "Host");
    if (!text || !s_parse_host (text, &host))
        return false;
    if (settings->http_trust_proxy && !streq (origin->scheme, request_scheme (info, settings)))
        return false;
    if (host.port == 0)
        host.port = streq (origin->scheme, "http") ? 80 : 443;
    return streq (host.name, origin->name) && host.port == origin->port;
}

bool
request_origin_allowed (const struct mg_request_info *info, const settings_t *settings)
{
    int count = request_count (info, "Origin");
    if (count == 0)
        return true;
    host_t origin;
    const char *text = request_header (info, "Origin");
    if (!text || !s_parse_origin (text, &origin)) //  "null" is none
        return false;
    return s_is_same_host (info, settings, &origin) ||
           s_list_names (settings->http_allowed_origins, s_names_origin, &origin);
}

bool
request_is_local (const struct mg_request_info *info)
{
    return strncmp (info->remote_addr, "127.", 4) == 0 &&
           request_count (info, "X-Forwarded-For") == 0 && request_count (info, "Forwarded") == 0;
}

//  Goes on to the next hop of a list. The last one is what our proxy vouches for; where that is
//  another proxy of ours, an exempt address, the one before it counts, and so on. What is no
//  address, such as "unknown", ends that: what stands before it is hearsay. Returns whether the
//  address is a hop's.

static bool
s_take_hop (address_t *address, bool found, const char *text, size_t size,
            const settings_t *settings)
{
    address_t hop;
    if (!address_parse (&hop, text, size))
        return false;
    if (!found || !address_is_in (&hop, settings->limits_exempt_addresses))
        *address = hop;
    return true;
}

//  A proxy appends the address that it sees to the list, or a line to the lines.

address_t
request_address (const struct mg_request_info *info, const settings_t *settings)
{
    address_t own;
    bool found = address_parse (&own, info->remote_addr, strlen (info->remote_addr));
    assert (found); //  It is civetweb's writing
    address_t address = own;
    found = false;
    int index = 0;
    const char *list;
    while (settings->http_trust_proxy && (list = s_next (info, "X-Forwarded-For", &index))) {
        const char *element;
        int size;
        while ((size = s_next_element (&list, &element)) >= 0)
            found = s_take_hop (&address, found, element, (size_t) size, settings);
    }
    return found ? address : own;
}

//  Whether parameters after a coding ("; q=0.0") give it weight 0.

static bool
s_weighs_nothing (const char *parameters, size_t size)
{
    char text[32];
    if (size >= sizeof (text))
        return true; //  No client sends that
    memcpy (text, parameters, size);
    text[size] = '\0';
    const char *weight = strcasestr (text, "q=");
    return weight && strtod (weight + 2, NULL) <= 0.0;
}

bool
request_takes_gzip (const struct mg_request_info *info)
{
    bool any = false;
    int index = 0;
    const char *list;
    while ((list = s_next (info, "Accept-Encoding", &index))) {
        const char *element;
        int size;
        while ((size = s_next_element (&list, &element)) >= 0) {
            int name = (int) strcspn (element, "; \t,");
            name = name < size ? name : size;
            bool taken = !s_weighs_nothing (element + name, (size_t) (size - name));
            if (s_is_token (element, name, "gzip") || s_is_token (element, name, "x-gzip"))
                return taken;
            if (s_is_token (element, name, "*"))
                any = taken;
        }
    }
    return any;
}

bool
request_has_etag (const struct mg_request_info *info, const char *etag)
{
    int index = 0;
    const char *list;
    while ((list = s_next (info, "If-None-Match", &index))) {
        const char *element;
        int size;
        while ((size = s_next_element (&list, &element)) >= 0) {
            if (s_is_token (element, size, "*"))
                return true;
            if (size > 2 && strncmp (element, "W/", 2) == 0) {
                element += 2;
                size -= 2;
            }
            size_t length = strlen (etag);
            if (size >= 2 && element[0] == '"' && element[size - 1] == '"' &&
                strncmp (element + 1, etag, length) == 0 &&
                (s_is_token (element + 1 + length, size - 2 - (int) length, "") ||
                 s_is_token (element + 1 + length, size - 2 - (int) length, "-gzip")))
                return true;
        }
    }
    return false;
}

//  ------------------------------------------------------------------------
//  Self test

//  A request of HTTP/1.1 from 127.0.0.1 with the headers, name and value in turn.

static struct mg_request_info
s_test_info (const char *const headers[])
{
    struct mg_request_info info = {
        .http_version = "1.1", .request_uri = "/", .remote_addr = "127.0.0.1"};
    for (int at = 0; headers[at]; at += 2) {
        info.http_headers[info.num_headers].name = headers[at];
        info.http_headers[info.num_headers++].value = headers[at + 1];
    }
    return info;
}

#define HEADERS(...) s_test_info ((const char *const[]){__VA_ARGS__, NULL})

static bool
s_test_origin (const settings_t *settings, const char *host, const char *origin)
{
    struct mg_request_info info = HEADERS ("Host", host, "Origin", origin);
    return request_origin_allowed (&info, settings);
}

static bool
s_test_host (const settings_t *settings, const char *host, bool loopback)
{
    struct mg_request_info info = HEADERS ("Host", host);
    return request_check (&info) == 0 && request_host_allowed (&info, settings, loopback);
}

static bool
s_test_gzip (const char *list)
{
    struct mg_request_info info = HEADERS ("Accept-Encoding", list);
    return request_takes_gzip (&info);
}

static bool
s_test_etag (const char *list)
{
    struct mg_request_info info = HEADERS ("If-None-Match", list);
    return request_has_etag (&info, "AB");
}

static int
s_test_check (const char *name, const char *value)
{
    struct mg_request_info info = HEADERS ("host", "localhost:80", name, value);
    return request_check (&info);
}

static void
s_test_hosts (settings_t *settings)
{
    assert (s_test_host (settings, "localhost", true));
    assert (s_test_host (settings, "LocalHost:8080", true));
    assert (s_test_host (settings, "board.localhost:8080", true));
    assert (s_test_host (settings, "127.0.0.1", true));
    assert (!s_test_host (settings, "evil.example", true)); //  DNS rebinding
    assert (!s_test_host (settings, "localhost.evil.example", true));
    assert (!s_test_host (settings, "notlocalhost", true));
    assert (!s_test_host (settings, "127.0.0.1.evil.example", true));
    assert (s_test_host (settings, "board.example", false)); //  Listening to the world
    settings->http_allowed_hosts = "board.example other.example:81";
    assert (s_test_host (settings, "board.example:8080", true));
    assert (s_test_host (settings, "other.example:81", false));
    assert (!s_test_host (settings, "other.example", false));
    assert (!s_test_host (settings, "evil.example", false));
    settings->http_allowed_hosts = "";
    struct mg_request_info old = {.http_version = "1.0"};
    assert (request_check (&old) == 0 && request_host_allowed (&old, settings, true));
}

static void
s_test_checks (void)
{
    assert (s_test_check ("Accept", "*/*") == 0);
    assert (s_test_check ("Host", "localhost:80") == 400); //  Twice
    assert (s_test_check ("Content-Length", "12") == 0);
    assert (s_test_check ("Content-Length", "12, 12") == 400);
    assert (s_test_check ("Content-Length", "-1") == 400);
    assert (s_test_check ("Content-Length", "+1") == 400);
    assert (s_test_check ("Content-Length", "99999999999999999999") == 413);
    assert (s_test_check ("Transfer-Encoding", "chunked") == 411);
    struct mg_request_info info = HEADERS ("Accept", "*/*");
    assert (request_check (&info) == 400); //  No Host
    const char *broken[] = {"",     "a b", "a:b",    "a:0",     "a:65536",
                            "[::1", "a/b", "user@a", "a:80:80", "[::1]x"};
    for (size_t at = 0; at < sizeof (broken) / sizeof (broken[0]); at++) {
        info.http_headers[0] = (struct mg_header){"Host", broken[at]};
        assert (request_check (&info) == 400);
    }
    info.http_headers[0].value = "[::1]:80";
    assert (request_check (&info) == 0);
    info.request_uri = "http://[::1]:80/";
    assert (request_check (&info) == 0);
    info.request_uri = "http://[::1]:800/";
    assert (request_check (&info) == 400);
    info.num_headers = MG_MAX_HEADERS;
    assert (request_check (&info) == 431);
}

static void
s_test_origins (settings_t *settings)
{
    struct mg_request_info none = HEADERS ("Host", "a");
    assert (request_origin_allowed (&none, settings)); //  Tools send none
    assert (s_test_origin (settings, "a", "http://a"));
    assert (s_test_origin (settings, "a", "http://A:80"));
    assert (s_test_origin (settings, "a", "https://a")); //  TLS ended at a proxy
    assert (s_test_origin (settings, "a:8080", "http://a:8080"));
    assert (s_test_origin (settings, "[::1]:8080", "http://[::1]:8080"));
    assert (!s_test_origin (settings, "a:8080", "http://a"));
    assert (!s_test_origin (settings, "a:8080", "http://a:8081"));
    assert (!s_test_origin (settings, "a", "null"));
    assert (!s_test_origin (settings, "a", ""));
    assert (!s_test_origin (settings, "a", "http://a.evil"));
    assert (!s_test_origin (settings, "a", "http://evil"));
    assert (!s_test_origin (settings, "a", "ftp://a"));
    assert (!s_test_origin (settings, "a", "http://a/"));
    assert (!s_test_origin (settings, "a", "http://a, http://a"));
    struct mg_request_info twice = HEADERS ("Host", "a", "Origin", "http://a", "Origin",
                                            "http://a");
    assert (!request_origin_allowed (&twice, settings));

    settings->http_trust_proxy = true;
    struct mg_request_info proxied = HEADERS ("Host", "a", "Origin", "https://a",
                                              "X-Forwarded-Proto", "HTTPS");
    assert (request_origin_allowed (&proxied, settings));
    assert (streq (request_scheme (&proxied, settings), "https"));
    assert (!s_test_origin (settings, "a", "https://a")); //  The proxy says nothing: http
    settings->http_trust_proxy = false;
    assert (streq (request_scheme (&proxied, settings), "http"));

    settings->http_allowed_origins = "https://one.example http://two.example:81";
    assert (s_test_origin (settings, "a", "https://one.example"));
    assert (s_test_origin (settings, "a", "http://two.example:81"));
    assert (!s_test_origin (settings, "a", "http://one.example"));
    assert (s_test_origin (settings, "a", "http://a")); //  Our own page stays welcome
    settings->http_allowed_origins = "";
}

static void
s_test_address (const struct mg_request_info *info, const settings_t *settings,
                const char *expected)
{
    char buffer[ADDRESS_TEXT_BYTES];
    address_t address = request_address (info, settings);
    assert (streq (address_text (&address, buffer), expected));
}

static void
s_test_addresses (settings_t *settings)
{
    settings->limits_exempt_addresses = "127.0.0.0/8 10.0.0.0/8";
    struct mg_request_info info = HEADERS ("X-Forwarded-For", "203.0.113.7, 192.0.2.9");
    s_test_address (&info, settings, "127.0.0.1");
    assert (!request_is_local (&info)); //  Somebody speaks through a proxy here
    settings->http_trust_proxy = true;
    s_test_address (&info, settings, "192.0.2.9");
    info.http_headers[info.num_headers++] = (struct mg_header){"x-forwarded-for", "2001:db8::1"};
    s_test_address (&info, settings, "2001:db8::1"); //  Some proxies add a line
    info.http_headers[1].value = "10.0.0.1,, 10.0.0.2";
    s_test_address (&info, settings, "192.0.2.9"); //  Proxies of ours are passed over
    info.http_headers[0].value = "10.0.0.9";
    s_test_address (&info, settings, "10.0.0.9");
    static const char *const hearsay[] = {"192.0.2.9, unknown", "192.0.2.9, <script>",
                                          "192.0.2.9, 192.0.2.9:80", "192.0.2.9, x, 10.0.0.1"};
    info.num_headers = 1;
    for (size_t at = 0; at < sizeof (hearsay) / sizeof (hearsay[0]); at++) {
        info.http_headers[0].value = hearsay[at];
        s_test_address (&info, settings, strstr (hearsay[at], "10.0") ? "10.0.0.1" : "127.0.0.1");
    }
    settings->http_trust_proxy = false;
    info.num_headers = 0;
    assert (request_is_local (&info));
    strcpy (info.remote_addr, "192.0.2.1");
    assert (!request_is_local (&info));
}

void
request_test (bool verbose)
{
    printf (" * request: ");
    if (verbose)
        printf ("\n");
    settings_t settings = {.http_allowed_hosts = "", .http_allowed_origins = ""};

    struct mg_request_info info = HEADERS ("Connection", "keep-alive, Upgrade", "connection",
                                           " close ", "Accept", "x");
    assert (request_count (&info, "CONNECTION") == 2);
    assert (request_header (&info, "Connection") == NULL); //  Which one?
    assert (streq (request_header (&info, "accept"), "x"));
    assert (request_header (&info, "Absent") == NULL);
    assert (request_has_token (&info, "Connection", "upgrade"));
    assert (request_has_token (&info, "Connection", "close"));
    assert (!request_has_token (&info, "Connection", "keep"));
    info.http_headers[0].value = "upgrade-evil,,";
    assert (!request_has_token (&info, "Connection", "upgrade"));

    char spaced[] = "localhost \t";
    struct mg_request_info untrimmed = HEADERS ("Host", spaced, "Accept", "");
    request_trim (&untrimmed);
    assert (streq (request_header (&untrimmed, "Host"), "localhost"));

    s_test_checks ();
    s_test_hosts (&settings);
    s_test_origins (&settings);
    s_test_addresses (&settings);

    assert (s_test_gzip ("gzip") && s_test_gzip ("br, GZIP;q=0.5") && s_test_gzip ("*"));
    assert (!s_test_gzip ("gzip;q=0") && !s_test_gzip ("gzip; q=0.000, *"));
    assert (!s_test_gzip ("br") && !s_test_gzip ("") && !s_test_gzip ("gzipped"));

    assert (s_test_etag ("\"AB\"") && s_test_etag ("\"x\", W/\"AB-gzip\"") && s_test_etag ("*"));
    assert (!s_test_etag ("AB") && !s_test_etag ("\"ABC\"") && !s_test_etag ("\"A\""));
    assert (!s_test_etag ("\"") && !s_test_etag ("\"\""));
    printf ("OK\n");
}
