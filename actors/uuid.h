//  uuid - keys by which clients and servers know what they have stored or deleted: RFC 9562's UUIDs
//
//  thread     any

#ifndef UUID_H_INCLUDED
#define UUID_H_INCLUDED

#include <czmq.h>

//  A UUID as text, with the NUL behind it
#define UUID_SIZE 37

//  What makes it one of a kind. No client has learned of a key that we made for ourselves, so
//  nobody comes back with it; SQL that has to tell them apart looks for the 8.
typedef enum {
    UUID_RANDOM = 4, //  To be given to a client
    UUID_OWN = 8     //  For ourselves; random as well
} uuid_version_t;

void uuid_make (char uuid[UUID_SIZE], uuid_version_t version);

//  Makes a UUID of another one and of size bytes of data: the same of the same (version 5).
void uuid_make_from (char uuid[UUID_SIZE], const char *from, const void *data, size_t size);

//  Whether the text is a UUID in the form of RFC 9562, section 4.
bool uuid_is (const char *text, size_t size);

void uuid_test (bool verbose);

#endif
