//  czmq's zuuid_new () seeds rand () anew each time. Here random bytes are taken from the kernel
//  for many at once, so that a key costs less than a system call.

#include "actors/uuid.h"

#include <sys/random.h>

#define BYTES 16

//  The digit that begins with the variant
#define VARIANT 19

//  Whether a dash stands before byte number index (or behind the one before it)

static bool
s_has_dash (size_t index)
{
    return index == 4 || index == 6 || index == 8 || index == 10;
}

//  Writes the bytes, marked with version and variant (RFC 9562, 4.1 and 4.2).

static void
s_write (char uuid[UUID_SIZE], const byte bytes[BYTES], int version)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t index = 0; index < BYTES; index++) {
        int value = bytes[index];
        if (index == 6)
            value = (value & 0x0F) | version << 4;
        else if (index == 8)
            value = (value & 0x3F) | 0x80;
        if (s_has_dash (index))
            *uuid++ = '-';
        *uuid++ = digits[value >> 4];
        *uuid++ = digits[value & 15];
    }
    *uuid = 0;
}

void
uuid_make (char uuid[UUID_SIZE])
{
    static _Thread_local byte pool[16 * BYTES];
    static _Thread_local size_t used = sizeof (pool);
    if (used == sizeof (pool)) {
        ssize_t rc = getrandom (pool, sizeof (pool), 0);
        assert (rc == sizeof (pool)); //  Up to 256 bytes it cannot fail, nor be cut short
        used = 0;
    }
    s_write (uuid, pool + used, 4);
    used += BYTES;
}

void
uuid_make_own (char uuid[UUID_SIZE])
{
    uuid_make (uuid);
    uuid[VARIANT] = 'e';
}

void
uuid_make_from (char uuid[UUID_SIZE], const char *from, const void *data, size_t size)
{
    zdigest_t *digest = zdigest_new (); //  SHA-1
    zdigest_update (digest, (const byte *) from, strlen (from));
    zdigest_update (digest, (const byte *) data, size);
    s_write (uuid, zdigest_data (digest), 5);
    zdigest_destroy (&digest);
}

bool
uuid_is (const char *text, size_t size)
{
    if (size != UUID_SIZE - 1)
        return false;
    for (size_t at = 0; at < size; at++) {
        bool dash = at == 8 || at == 13 || at == 18 || at == 23;
        if (dash ? text[at] != '-' : !isxdigit ((unsigned char) text[at]))
            return false;
    }
    return !strchr ("eEfF", text[VARIANT]);
}

//  ------------------------------------------------------------------------
//  Self test

void
uuid_test (bool verbose)
{
    printf (" * uuid: ");
    char first[UUID_SIZE];
    char second[UUID_SIZE];
    for (int count = 0; count < 40; count++) { //  More than one pool has
        uuid_make (first);
        assert (uuid_is (first, strlen (first)));
        assert (first[14] == '4' && strchr ("89ab", first[19]));
        uuid_make_own (second);
        assert (!uuid_is (second, strlen (second)) && strchr ("ef", second[19]));
        second[19] = '8'; //  All else is as it should be
        assert (uuid_is (second, strlen (second)) && !streq (first, second));
    }
    if (verbose)
        printf ("\n%s\n", first);
    uuid_make_from (first, "f", "rom", 3);
    uuid_make_from (second, "f", "rom", 3);
    assert (uuid_is (first, strlen (first)) && streq (first, second) && first[14] == '5');
    uuid_make_from (second, "f", "rum", 3);
    assert (!streq (first, second));

    assert (uuid_is ("8F14E45F-ceea-467f-9e53-0a5d5b7c1c01", 36));
    assert (!uuid_is ("8f14e45fcceea-467f-9e53-0a5d5b7c1c01", 36));
    assert (!uuid_is ("8f14e45f-ceea-467f-9e53-0a5d5b7c1c0g", 36));
    assert (!uuid_is ("8f14e45f-ceea-467f-9e53-0a5d5b7c1c0", 35));
    printf ("OK\n");
}
