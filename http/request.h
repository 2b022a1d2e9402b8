//  request - what a client's headers say, read strictly
//
//  thread     any; functions of civetweb's request info and our settings, pure but for the first
//  trust      nothing that comes from here may be put into a header or a log line of ours

#ifndef REQUEST_H_INCLUDED
#define REQUEST_H_INCLUDED

#include <civetweb.h>
#include <czmq.h>

#include "config/settings.h"
#include "http/address.h"

//  Cuts the white space behind each header's value off, which is no part of it (RFC 9110, 5.5) and
//  which civetweb leaves, in civetweb's own buffer, so that civetweb too sees it no more.
void request_trim (const struct mg_request_info *info);

//  The value of a header that comes exactly once; NULL when it is absent or comes again.
const char *request_header (const struct mg_request_info *info, const char *name);

//  How often a header comes.
int request_count (const struct mg_request_info *info, const char *name);

//  Whether the header, a comma-separated list over one or more lines, holds the token, in any case
//  of letters; or the word, in this case only.
bool request_has_token (const struct mg_request_info *info, const char *name, const char *token);
bool request_has_word (const struct mg_request_info *info, const char *name, const char *word);

//  0, or the status of what is wrong with the request as such: too many headers, Host missing,
//  repeated or not a host, a length that is not a number, or a transfer encoding.
int request_check (const struct mg_request_info *info);

//  Whether we answer to the request's Host. loopback: we listen on a loopback address.
bool request_host_allowed (const struct mg_request_info *info, const settings_t *settings,
                           bool loopback);

//  Whether a write or a handshake may come from the request's Origin; absent is allowed.
bool request_origin_allowed (const struct mg_request_info *info, const settings_t *settings);

//  "http" or "https".
const char *request_scheme (const struct mg_request_info *info, const settings_t *settings);

//  Whether the client is on this machine, and is not a proxy that speaks for another.
bool request_is_local (const struct mg_request_info *info);

//  The client's address, as the proxy gives it if that is trusted.
address_t request_address (const struct mg_request_info *info, const settings_t *settings);

//  Whether the client takes gzip.
bool request_takes_gzip (const struct mg_request_info *info);

//  Whether If-None-Match names the entity tag (without quotes; its gzipped copy has "-gzip"
//  behind).
bool request_has_etag (const struct mg_request_info *info, const char *etag);

void request_test (bool verbose);

#endif
