//  websocket - the handshake of RFC 6455: who may come in, and the socket's way to a connection
//  thread
//
//  thread     civetweb's
//  steps      websocket_answer () checks the request, takes the socket over, answers 101 on it, and
//             gives it to a connection thread; to civetweb it was a request like any other, whose
//             client has gone

#ifndef WEBSOCKET_H_INCLUDED
#define WEBSOCKET_H_INCLUDED

#include <civetweb.h>
#include <stdbool.h>

//  The subprotocol of our own page
#define WEBSOCKET_SUBPROTOCOL "breadboard.1"

//  Answers a request for the WebSocket's path. Returns the status.
int websocket_answer (struct mg_connection *conn);

//  0 when the request is an opening handshake as RFC 6455, 4.2.1 wants it, or the status to answer.
int websocket_check (const struct mg_request_info *info);

//  Whether the text is 16 bytes in base64.
bool websocket_is_key (const char *text);

//  The answer to a key, RFC 6455, 4.2.2; caller frees.
char *websocket_accept (const char *key);

void websocket_test (bool verbose);

#endif
