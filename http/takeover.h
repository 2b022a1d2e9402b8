//  takeover - takes an accepted socket out of civetweb's hands, so that no thread need wait on it
//
//  thread     made and destroyed by the server; civetweb's threads share it, it never changes
//  descriptors  civetweb's lie below the base, the sockets taken over at the base and above

#ifndef TAKEOVER_H_INCLUDED
#define TAKEOVER_H_INCLUDED

#include <civetweb.h>
#include <czmq.h>

typedef struct takeover takeover_t;

//  The server listens on all of the machine's addresses, or on one. Returns NULL when the system
//  has no descriptor to spare (logged).
takeover_t *takeover_new (int base, bool everywhere);

//  Takes NULL.
void takeover_destroy (takeover_t **self_p);

//  Moves the socket that the request came in on to a descriptor of at least the base,
//  close-on-exec, and puts a dead socket in its place: when the handler returns, civetweb reads the
//  end of the connection and cleans up. To be called by the request's own handler. Returns the
//  descriptor, the caller's to close, or -1 with errno: ENOTCONN when there is no such socket, most
//  likely because the client is gone; ENOTUNIQ when there are two; otherwise no descriptor is left.
//  Then civetweb still has it.
int takeover_steal (takeover_t *self, const struct mg_request_info *info);

//  The bytes that came in on a TCP socket and were read, by whomever, or fewer when more came in
//  just now; -1 when the kernel does not tell. *received_p: all that came in.
int64_t takeover_taken (int descriptor, int64_t *received_p);

//  The bytes of the request's line and headers, counted in civetweb's buffer. Only for a request of
//  fewer headers than MG_MAX_HEADERS. Returns -1 when civetweb stopped at a line that is no header,
//  so that it has not seen the lines behind it, or read anything else as others may not.
int64_t takeover_header_size (const struct mg_request_info *info);

//  How many bytes came in on the socket, were read by civetweb and do not belong to the first
//  consumed bytes: they lie in civetweb's buffer and are lost. -1 when that cannot be told.
int64_t takeover_unread (int descriptor, int64_t consumed);

void takeover_test (bool verbose);

#endif
