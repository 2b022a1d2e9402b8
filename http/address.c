#include "http/address.h"

#include <arpa/inet.h>

_Static_assert(ADDRESS_TEXT_BYTES == INET6_ADDRSTRLEN, "inet_ntop () writes as much");

//  What stands before an address of IPv4
static const byte s_mapped[12] = {[10] = 0xFF, [11] = 0xFF};

bool
address_parse (address_t *self, const char *text, size_t size)
{
    char copy[ADDRESS_TEXT_BYTES];
    if (size >= sizeof (copy) || memchr (text, '\0', size))
        return false;
    memcpy (copy, text, size);
    copy[size] = '\0';
    memcpy (self->bytes, s_mapped, sizeof (s_mapped));
    return inet_pton (AF_INET, copy, self->bytes + sizeof (s_mapped)) == 1 ||
           inet_pton (AF_INET6, copy, self->bytes) == 1;
}

static bool
s_is_ipv4 (const address_t *self)
{
    return memcmp (self->bytes, s_mapped, sizeof (s_mapped)) == 0;
}

const char *
address_text (const address_t *self, char *buffer)
{
    bool ipv4 = s_is_ipv4 (self);
    const char *text = inet_ntop (ipv4 ? AF_INET : AF_INET6,
                                  self->bytes + (ipv4 ? sizeof (s_mapped) : 0), buffer,
                                  ADDRESS_TEXT_BYTES);
    assert (text);
    return text;
}

//  Reads "ADDRESS" or "ADDRESS/BITS"; returns how many bits of all 128 count, or -1.

static int
s_parse_network (address_t *network, const char *text, size_t size)
{
    const char *slash = memchr (text, '/', size);
    size_t length = slash ? (size_t) (slash - text) : size;
    if (!address_parse (network, text, length))
        return -1;
    int most = memchr (text, ':', length) ? 128 : 32;
    int bits = slash ? 0 : most;
    for (size_t at = length + 1; at < size; at++) {
        if (!isdigit ((byte) text[at]) || size - length > 4)
            return -1;
        bits = 10 * bits + text[at] - '0';
    }
    if (bits > most || size == length + 1)
        return -1;
    return bits + 128 - most;
}

bool
address_is_network (const char *text, size_t size)
{
    address_t network;
    return s_parse_network (&network, text, size) >= 0;
}

static bool
s_lies_in (const address_t *self, const address_t *network, int bits)
{
    size_t whole = (size_t) bits / 8;
    if (memcmp (self->bytes, network->bytes, whole) != 0)
        return false;
    int rest = 8 -
               bits % 8; //  Bits of the next byte that do not count; 8: there is none to look at
    return rest == 8 || self->bytes[whole] >> rest == network->bytes[whole] >> rest;
}

bool
address_is_in (const address_t *self, const char *networks)
{
    for (networks += strspn (networks, " "); *networks; networks += strspn (networks, " ")) {
        size_t size = strcspn (networks, " ");
        address_t network;
        int bits = s_parse_network (&network, networks, size);
        if (bits >= 0 && s_lies_in (self, &network, bits))
            return true;
        networks += size;
    }
    return false;
}

//  No IPv6 host has an address whose first half is below 2^32 (RFC 4291, 2.4), so the two kinds of
//  number do not meet.

uint64_t
address_key (const address_t *self)
{
    uint64_t key = 0;
    size_t first = s_is_ipv4 (self) ? 12 : 0;
    for (size_t at = first; at < (first ? 16 : 8); at++)
        key = key << 8 | self->bytes[at];
    return key;
}

//  ------------------------------------------------------------------------
//  Self test

static address_t
s_test_address (const char *text)
{
    address_t self;
    bool parsed = address_parse (&self, text, strlen (text));
    assert (parsed);
    return self;
}

static bool
s_test_in (const char *text, const char *networks)
{
    address_t self = s_test_address (text);
    return address_is_in (&self, networks);
}

static uint64_t
s_test_key (const char *text)
{
    address_t self = s_test_address (text);
    return address_key (&self);
}

static void
s_test_networks (void)
{
    static const char *const good[] = {"10.0.0.0/8",    "10.0.0.0/0", "10.1.2.3", "::/0",
                                       "2001:db8::/29", "::1/128",    "::1",      "10.1.2.3/32"};
    for (size_t at = 0; at < sizeof (good) / sizeof (good[0]); at++)
        assert (address_is_network (good[at], strlen (good[at])));
    static const char *const bad[] = {
        "",          "/8",       "10.0.0.0/",    "10.0.0.0/33", "10/8",
        "::1/129",   "::1/",     "10.0.0.0/8/8", "10.0.0.0/-1", "[::1]",
        "localhost", "1.2.3.4x", "10.0.0.0/0008"};
    for (size_t at = 0; at < sizeof (bad) / sizeof (bad[0]); at++)
        assert (!address_is_network (bad[at], strlen (bad[at])));

    assert (s_test_in ("127.0.0.1", "127.0.0.0/8 ::1"));
    assert (s_test_in ("::1", "127.0.0.0/8 ::1"));
    assert (s_test_in ("::ffff:127.9.9.9", "127.0.0.0/8"));
    assert (!s_test_in ("128.0.0.1", "127.0.0.0/8 ::1"));
    assert (!s_test_in ("::2", "127.0.0.0/8 ::1"));
    assert (!s_test_in ("127.0.0.1", ""));
    assert (s_test_in ("10.1.2.131", "10.1.2.128/25"));
    assert (!s_test_in ("10.1.2.127", "10.1.2.128/25"));
    assert (s_test_in ("2001:db8:7::1", "2001:db8::/29"));
    assert (!s_test_in ("2001:dc0::1", "2001:db8::/29"));
    assert (s_test_in ("192.0.2.1", "0.0.0.0/0") && !s_test_in ("::1", "0.0.0.0/0"));
}

void
address_test (bool verbose)
{
    printf (" * address: ");
    if (verbose)
        printf ("\n");
    char buffer[ADDRESS_TEXT_BYTES];
    address_t self = s_test_address ("::ffff:192.0.2.1");
    assert (streq (address_text (&self, buffer), "192.0.2.1"));
    self = s_test_address ("2001:DB8:0:0::1");
    assert (streq (address_text (&self, buffer), "2001:db8::1"));
    assert (address_parse (&self, "192.0.2.1, and more", 9));
    assert (!address_parse (&self, "192.0.2.1:80", 12));
    assert (!address_parse (&self, "192.0.2.1\0", 10));
    assert (!address_parse (&self, "unknown", 7) && !address_parse (&self, "", 0));
    char *longer = zsys_sprintf ("%060d", 1);
    assert (!address_parse (&self, longer, strlen (longer)));
    freen (longer);

    assert (s_test_key ("192.0.2.1") == 0xC0000201 &&
            s_test_key ("::ffff:192.0.2.1") == 0xC0000201);
    assert (s_test_key ("2001:db8::1") == s_test_key ("2001:db8::ffff:0:0:1"));
    assert (s_test_key ("2001:db8::1") != s_test_key ("2001:db8:0:1::1"));
    s_test_networks ();
    printf ("OK\n");
}
