//  The handshake is ours and not civetweb's. civetweb 1.15 upgrades POST, HTTP/1.0, a missing Host,
//  "Upgrade: websocket-evil" and a short key; it answers a wrong version without naming the right
//  one; of a list that stands on several lines it sees the first; and it remembers the subprotocol
//  from one connection of a thread to the next. So nothing of it would be left but the answer,
//  which is one hash. By begin_request we see each request first, and answer it there.
//
//  The socket is taken over before it is answered, so a failure still is an ordinary HTTP error.
//
//  A client may send nothing behind its handshake before it has got the answer (RFC 6455, 4.1).
//  What one sends all the same lies partly in civetweb's buffer and cannot be had, so such a
//  connection is closed rather than continued in the middle of a frame.

#include "http/websocket.h"

#include <czmq.h>

#include "actors/metrics.h"
#include "config/log.h"
#include "http/answer.h"
#include "http/form.h"
#include "http/request.h"
#include "http/worker.h"

#include <netinet/tcp.h>

//  RFC 6455, 1.3
#define ACCEPT_GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

//  The kernel's send buffer of a client that does not read
#define SEND_BUFFER_BYTES (128 * 1024)
//  After so long without an acknowledgement the kernel gives a client up. There is something to
//  acknowledge every 20 s, a PING, so a dead peer is gone within a minute
#define USER_TIMEOUT_MS 30000

bool
websocket_is_key (const char *text)
{
    //  16 bytes are 22 digits, the last of 2 bits only, and 2 characters of padding
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    return strlen (text) == 24 && strspn (text, digits) == 22 && strchr ("AQgw", text[21]) &&
           streq (text + 22, "==");
}

//  HTTP/1.0 knows no upgrade, so to such a client this address has nothing to say either.

int
websocket_check (const struct mg_request_info *info)
{
    if (!streq (info->request_method, "GET"))
        return 405;
    if (!streq (info->http_version, "1.1") || !request_has_token (info, "Upgrade", "websocket") ||
        !request_has_token (info, "Connection", "Upgrade"))
        return 426;
    const char *version = request_header (info, "Sec-WebSocket-Version");
    if (!version || !streq (version, "13"))
        return 426;
    const char *key = request_header (info, "Sec-WebSocket-Key");
    return key && websocket_is_key (key) && info->content_length <= 0 ? 0 : 400;
}

char *
websocket_accept (const char *key)
{
    zdigest_t *digest = zdigest_new (); //  SHA-1
    zdigest_update (digest, (const byte *) key, strlen (key));
    zdigest_update (digest, (const byte *) ACCEPT_GUID, strlen (ACCEPT_GUID));
    zarmour_t *base64 = zarmour_new ();
    char *accept = zarmour_encode (base64, zdigest_data (digest), zdigest_size (digest));
    zarmour_destroy (&base64);
    zdigest_destroy (&digest);
    return accept;
}

//  ------------------------------------------------------------------------
//  Taking over

static int
s_set_option (int descriptor, int level, int option, int value)
{
    return setsockopt (descriptor, level, option, &value, sizeof (value));
}

static int
s_prepare (int descriptor)
{
    int flags = fcntl (descriptor, F_GETFL);
    return flags >= 0 && fcntl (descriptor, F_SETFL, flags | O_NONBLOCK) == 0 &&
                   s_set_option (descriptor, IPPROTO_TCP, TCP_NODELAY, 1) == 0 &&
                   s_set_option (descriptor, IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS) == 0 &&
                   s_set_option (descriptor, SOL_SOCKET, SO_SNDBUF, SEND_BUFFER_BYTES) == 0
               ? 0
               : -1;
}

static int
s_send (int descriptor, const void *data, size_t size)
{
    return send (descriptor, data, size, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t) size ? 0 : -1;
}

//  Sends 101; it fits, since nothing else is on its way.

static int
s_send_accepted (int descriptor, const struct mg_request_info *info, bool subprotocol)
{
    char *accept = websocket_accept (request_header (info, "Sec-WebSocket-Key"));
    char *head = zsys_sprintf (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: %s\r\n%s\r\n",
        accept, subprotocol ? "Sec-WebSocket-Protocol: " WEBSOCKET_SUBPROTOCOL "\r\n" : "");
    int rc = s_send (descriptor, head, strlen (head));
    zstr_free (&head);
    zstr_free (&accept);
    return rc;
}

//  Closes a WebSocket on which nothing has been sent yet, with a code of RFC 6455, 7.4.1.

static void
s_refuse (int descriptor, uint16_t code)
{
    const byte frame[4] = {0x88, 2, (byte) (code >> 8), (byte) code};
    (void) !s_send (descriptor, frame, sizeof (frame));
    close (descriptor);
}

static bool
s_offers_subprotocol (const struct mg_request_info *info)
{
    return request_has_word (info, "Sec-WebSocket-Protocol", WEBSOCKET_SUBPROTOCOL);
}

//  The page that the client wants to open on, and the state of it that it has, as its query says:
//  page=N&etag=E. What is malformed counts as absent: page 1, and no state (0).

static void
s_read_opening (const struct mg_request_info *info, int64_t *page_p, uint64_t *etag_p)
{
    const char *query = info->query_string ? info->query_string : "";
    json_t *fields = form_parse (query, strlen (query));
    const char *page = fields ? form_get (fields, "page") : "";
    const char *etag = fields ? form_get (fields, "etag") : "";
    bool is_page = *page && page[strspn (page, "0123456789")] == '\0';
    bool is_etag = strlen (etag) == 16 && strspn (etag, "0123456789abcdef") == 16;
    *page_p = is_page ? strtoll (page, NULL, 10) : 1; //  INT64_MAX when it is more
    *etag_p = is_etag ? strtoull (etag, NULL, 16) : 0;
    json_decref (fields);
}

//  Answers on a socket that is ours now.

static void
s_welcome (worker_t *worker, int descriptor, const struct mg_request_info *info)
{
    bool subprotocol = s_offers_subprotocol (info);
    int64_t page;
    uint64_t etag;
    s_read_opening (info, &page, &etag);
    if (s_prepare (descriptor) != 0 || s_send_accepted (descriptor, info, subprotocol) != 0) {
        worker_dismiss (worker);
        close (descriptor);
    }
    else if (takeover_unread (descriptor, worker_consumed (worker)) != 0) {
        worker_dismiss (worker);
        s_refuse (descriptor, 1002);
    }
    else if (worker_hand_over (worker, descriptor, subprotocol, page, etag) != 0)
        log_warning ("websocket: a connection thread's queue is full");
}

static int
s_refuse_request (struct mg_connection *conn, int status)
{
    worker_dismiss (worker_of (conn));
    metrics_add (METRICS_CONNECTIONS_REFUSED, 1);
    return answer_error (conn, status, NULL, NULL);
}

int
websocket_answer (struct mg_connection *conn)
{
    const struct mg_request_info *info = mg_get_request_info (conn);
    worker_t *worker = worker_of (conn);
    int status = websocket_check (info);
    if (status == 426)
        return answer_error (conn, 426, NULL,
                             "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
    if (status)
        return answer_error (conn, status, NULL, status == 405 ? "Allow: GET\r\n" : NULL);
    if (!request_origin_allowed (info, worker_settings (worker)))
        return s_refuse_request (conn, 403);
    int seconds = worker_admit (worker);
    if (seconds > 0) {
        metrics_add (METRICS_CONNECTIONS_REFUSED, 1);
        return answer_too_many (conn, seconds);
    }
    if (atomic_load (&worker_pool (worker)->draining) || !worker_reserve (worker))
        return s_refuse_request (conn, 503);
    int descriptor = takeover_steal (worker_pool (worker)->takeover, info);
    if (descriptor < 0) {
        log_warning ("websocket: could not take over a socket: %s", strerror (errno));
        return s_refuse_request (conn, 503);
    }
    s_welcome (worker, descriptor, info);
    mg_disable_connection_keep_alive (conn); //  What civetweb has left is a dead socket
    return 101;
}

//  ------------------------------------------------------------------------
//  Self test

static struct mg_request_info
s_test_handshake (void)
{
    return (struct mg_request_info){
        .request_method = "GET",
        .http_version = "1.1",
        .content_length = -1,
        .num_headers = 5,
        .http_headers = {{"Host", "localhost"},
                         {"Upgrade", "h2c, WebSocket"},
                         {"Connection", "keep-alive, UPGRADE"},
                         {"Sec-WebSocket-Version", "13"},
                         {"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}}};
}

//  The status for a handshake whose header at the index has another value.

static int
s_test_with (int index, const char *value)
{
    struct mg_request_info info = s_test_handshake ();
    info.http_headers[index].value = value;
    return websocket_check (&info);
}

static void
s_test_checks (void)
{
    struct mg_request_info info = s_test_handshake ();
    assert (websocket_check (&info) == 0);
    assert (s_test_with (1, "websocket-evil") == 426);
    assert (s_test_with (1, "") == 426);
    assert (s_test_with (2, "close") == 426);
    assert (s_test_with (3, "8") == 426);
    assert (s_test_with (3, "13, 8") == 426);
    assert (s_test_with (4, "short") == 400);
    info.request_method = "POST";
    assert (websocket_check (&info) == 405);
    info.request_method = "GET";
    info.http_version = "1.0";
    assert (websocket_check (&info) == 426);
    info.http_version = "1.1";
    info.content_length = 1;
    assert (websocket_check (&info) == 400);
    info.content_length = -1;
    info.http_headers[5] = (struct mg_header){"Connection", "keep-alive"};
    info.num_headers = 6; //  A list may stand on several lines
    assert (websocket_check (&info) == 0);
    info.num_headers = 4; //  No key
    assert (websocket_check (&info) == 400);
}

void
websocket_test (bool verbose)
{
    printf (" * websocket: ");
    if (verbose)
        printf ("\n");
    assert (websocket_is_key ("AAAAAAAAAAAAAAAAAAAAAA=="));
    assert (!websocket_is_key ("AAAAAAAAAAAAAAAAAAAAAB==")); //  More than 16 bytes' bits
    assert (!websocket_is_key ("AAAAAAAAAAAAAAAAAAAAAA="));
    assert (!websocket_is_key ("AAAAAAAAAAAAAAAAAAAAAAAA"));
    assert (!websocket_is_key ("AAAA AAAAAAAAAAAAAAAAA=="));
    assert (!websocket_is_key (""));
    s_test_checks ();
    char *accept = websocket_accept ("dGhlIHNhbXBsZSBub25jZQ=="); //  RFC 6455's example
    assert (streq (accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    zstr_free (&accept);

    struct mg_request_info info = s_test_handshake ();
    assert (!s_offers_subprotocol (&info));
    info.http_headers[info.num_headers++] = (struct mg_header){"Sec-WebSocket-Protocol",
                                                               "chat, breadboard.1"};
    assert (s_offers_subprotocol (&info));
    info.http_headers[info.num_headers - 1].value = "breadboard.10, BREADBOARD.1";
    assert (!s_offers_subprotocol (&info));
    printf ("OK\n");
}
