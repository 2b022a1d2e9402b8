//  uuid - keys by which clients and servers know what they have stored or deleted: RFC 9562's UUIDs
//
//  thread     any

#ifndef UUID_H_INCLUDED
#define UUID_H_INCLUDED

#include <czmq.h>

//  A UUID as text, with the NUL behind it
#define UUID_SIZE 37

//  Makes a UUID to be given to a client; random (version 4).
void uuid_make (char uuid[UUID_SIZE]);

//  Makes one for ourselves; random as well, but of a variant that RFC 9562, 4.1, reserves. No
//  client can send it, as uuid_is () knows no such variant, so nobody comes back with it.
void uuid_make_own (char uuid[UUID_SIZE]);

//  SQL that tells whether a value of type uuid is one of our own.
#define UUID_SQL_IS_OWN(value) "substr(" value "::text, 20, 1) IN ('e', 'f')"

//  Makes a UUID of another one and of size bytes of data: the same of the same (version 5).
void uuid_make_from (char uuid[UUID_SIZE], const char *from, const void *data, size_t size);

//  Whether the text is a UUID as RFC 9562, section 4, has it: of any version, and of a variant that
//  is in use.
bool uuid_is (const char *text, size_t size);

void uuid_test (bool verbose);

#endif
