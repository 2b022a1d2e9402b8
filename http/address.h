//  address - where a client comes from: IPv4 or IPv6, and the networks that it may lie in
//
//  thread     any; a plain struct, nothing to free
//  IPv4       is held as IPv6 holds it (::ffff:a.b.c.d), so an address that comes either way is one

#ifndef ADDRESS_H_INCLUDED
#define ADDRESS_H_INCLUDED

#include <czmq.h>

//  An address as text, its end included
#define ADDRESS_TEXT_BYTES 46

typedef struct {
    byte bytes[16];
} address_t;

//  Reads an address that is all of the text; returns whether it was one.
bool address_parse (address_t *self, const char *text, size_t size);

//  Writes it to a buffer of ADDRESS_TEXT_BYTES, and returns that.
const char *address_text (const address_t *self, char *buffer);

//  Whether the text is an address, or a network as in 10.0.0.0/8.
bool address_is_network (const char *text, size_t size);

//  Whether it lies in one of the networks of a list that is separated by spaces.
bool address_is_in (const address_t *self, const char *networks);

//  A number for whom we count as one: an address of IPv4, or the first half of one of IPv6, because
//  who has one of these has the rest of its half, too (RFC 6177).
uint64_t address_key (const address_t *self);

void address_test (bool verbose);

#endif
