//  civetweb 1.15 upgrades POST, HTTP/1.0, a missing Host, "Upgrade: websocket-evil" and a short key,
//  and answers a wrong version without naming the right one. begin_request runs before all that and
//  may answer itself, so everything is checked there, and what comes through is a handshake that
//  civetweb cannot but accept.
//
//  In civetweb's words: the connect handler chooses the subprotocol (civetweb remembers it from one
//  connection of a thread to the next, so it is set each time), the ready handler runs when 101 has
//  been sent. Since the ready handler takes the socket away, no data ever come by civetweb, but for
//  what a client sent without waiting for 101 (RFC 6455, 4.1 forbids it): those bytes lie in
//  civetweb's buffer and cannot be had, so such a connection is closed.

#include "http/websocket.h"

#include <czmq.h>

#include "actors/metrics.h"
#include "config/log.h"
#include "http/answer.h"
#include "http/request.h"
#include "http/worker.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>

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
    //  RFC 6455 allows several lines, but civetweb looks at the first alone; nobody sends more
    if (!request_header (info, "Upgrade") || !request_header (info, "Connection"))
        return 400;
    const char *version = request_header (info, "Sec-WebSocket-Version");
    if (!version || !streq (version, "13"))
        return 426;
    const char *key = request_header (info, "Sec-WebSocket-Key");
    return key && websocket_is_key (key) && info->content_length <= 0 ? 0 : 400;
}

int
websocket_begin (struct mg_connection *conn)
{
    const struct mg_request_info *info = mg_get_request_info (conn);
    worker_t *worker = worker_of (conn);
    int status = websocket_check (info);
    if (status == 426)
        return answer_error (conn, 426, NULL,
                             "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                             "Sec-WebSocket-Version: 13\r\n");
    if (status)
        return answer_error (conn, status, NULL, status == 405 ? "Allow: GET\r\n" : NULL);
    if (!request_origin_allowed (info, worker_settings (worker)))
        status = 403;
    else if (atomic_load (&worker_pool (worker)->draining) || !worker_reserve (worker))
        status = 503;
    if (status) {
        metrics_add (METRICS_CONNECTIONS_REFUSED, 1);
        return answer_error (conn, status, NULL, NULL);
    }
    return 0;
}

//  ------------------------------------------------------------------------
//  civetweb's handlers

static bool
s_offers_subprotocol (const struct mg_request_info *info)
{
    return request_has_token (info, "Sec-WebSocket-Protocol", WEBSOCKET_SUBPROTOCOL);
}

static int
s_handle_connect (const struct mg_connection *conn, void *args)
{
    assert (!args);
    //  The field is ours to set, and civetweb has no other way to it
    struct mg_request_info *info = (struct mg_request_info *) mg_get_request_info (conn);
    info->acceptedWebSocketSubprotocol = s_offers_subprotocol (info) ? WEBSOCKET_SUBPROTOCOL : NULL;
    return 0;
}

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

//  Closes a connection with a status of RFC 6455, 7.4.1; nothing was sent on it yet, so it fits.

static void
s_refuse (int descriptor, uint16_t code)
{
    const unsigned char frame[4] = {0x88, 2, (unsigned char) (code >> 8), (unsigned char) code};
    (void) !send (descriptor, frame, sizeof (frame), MSG_DONTWAIT | MSG_NOSIGNAL);
    close (descriptor);
}

static void
s_handle_ready (struct mg_connection *conn, void *args)
{
    assert (!args);
    worker_t *worker = worker_of (conn);
    const struct mg_request_info *info = mg_get_request_info (conn);
    char buffer[INET6_ADDRSTRLEN];
    const char *address = request_address (info, worker_settings (worker), buffer);
    int64_t consumed = worker_consumed (worker);
    bool subprotocol = s_offers_subprotocol (info);

    int descriptor = takeover_steal (worker_pool (worker)->takeover, info);
    if (descriptor < 0) {
        if (errno == ENOTCONN)
            log_debug ("websocket: a client was gone right after its handshake");
        else
            log_warning ("websocket: could not take over a socket: %s", strerror (errno));
        mg_disable_connection_keep_alive (conn); //  Ends civetweb's own loop before it begins
    }
    else if (s_prepare (descriptor) != 0 || takeover_unread (descriptor, consumed) != 0)
        s_refuse (descriptor, 1002);
    else if (worker_hand_over (worker, descriptor, subprotocol, address) != 0)
        log_warning ("websocket: a connection thread's queue is full");
}

//  Only a socket that was not taken over comes here, or bytes that came too early; both end.

static int
s_handle_data (struct mg_connection *conn, int bits, char *data, size_t size, void *args)
{
    (void) conn, (void) bits, (void) data, (void) size;
    assert (!args);
    return 0;
}

void
websocket_register (struct mg_context *civetweb)
{
    //  websocket_begin () has seen the path already
    mg_set_websocket_handler (civetweb, "**", s_handle_connect, s_handle_ready, s_handle_data, NULL,
                              NULL);
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
    info.num_headers = 6;
    assert (websocket_check (&info) == 400);
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

    struct mg_request_info info = s_test_handshake ();
    assert (!s_offers_subprotocol (&info));
    info.http_headers[info.num_headers++] = (struct mg_header){"Sec-WebSocket-Protocol",
                                                               "chat, breadboard.1"};
    assert (s_offers_subprotocol (&info));
    info.http_headers[info.num_headers - 1].value = "breadboard.10";
    assert (!s_offers_subprotocol (&info));
    printf ("OK\n");
}
