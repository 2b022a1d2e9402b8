//  server - civetweb: starts it, routes requests, stops it
//
//  thread     server_* calls are main's; handlers run on civetweb's threads
//  needs      the database actor and the connection threads must run before it starts, and outlive
//             it, and the doorman must be there as long

#ifndef SERVER_H_INCLUDED
#define SERVER_H_INCLUDED

#include <czmq.h>

#include "config/site.h"
#include "http/doorman.h"

typedef struct server server_t;

//  Starts to listen where the site's settings say. connection_threads is K: a socket is handed to
//  one of CONNECTIONS_ENDPOINT 0 to K - 1. takeover_base is the first descriptor for handed-over
//  sockets, max_connections how many there may be at once. Returns NULL when it cannot listen, and
//  then *error_p is a sentence that says what to do, caller's to free.
server_t *server_new (site_t *site, int connection_threads, int takeover_base,
                      int64_t max_connections, doorman_t *doorman, char **error_p);

//  "ADDRESS:PORT" that it listens on, the port taken where the settings say 0; borrowed.
const char *server_address (const server_t *self);

//  Sends each civetweb thread a reference to the site; it serves it from its next request on.
void server_reload (server_t *self, site_t *site);

//  Lets nobody new in, and waits for the requests in flight, 1.5 s at most.
void server_drain (server_t *self);

void server_destroy (server_t **self_p);

void server_test (bool verbose);

#endif
