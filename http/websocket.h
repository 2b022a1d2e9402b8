//  websocket - the handshake of RFC 6455: who may come in, and the socket's way to a connection thread
//
//  thread     civetweb's
//  steps      websocket_begin () checks all that there is to check, since civetweb checks little of
//             it; then civetweb's handlers, which websocket_register () sets, do the handshake; then
//             the socket is taken over and given to a connection thread

#ifndef WEBSOCKET_H_INCLUDED
#define WEBSOCKET_H_INCLUDED

#include <civetweb.h>
#include <stdbool.h>

//  The subprotocol of our own page
#define WEBSOCKET_SUBPROTOCOL "breadboard.1"

void websocket_register (struct mg_context *civetweb);

//  Looks at a request for the WebSocket's path. Returns 0 when civetweb shall go on with the
//  handshake, or the status that it has answered with.
int websocket_begin (struct mg_connection *conn);

//  0 when the request is an opening handshake as RFC 6455, 4.2.1 wants it, or the status to answer.
int websocket_check (const struct mg_request_info *info);

//  Whether the text is 16 bytes in base64.
bool websocket_is_key (const char *text);

void websocket_test (bool verbose);

#endif
