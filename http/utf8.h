//  utf8 - checks, counts and trims text in UTF-8
//
//  thread     any; pure functions
//  text       pointer and size; NUL is a character like any other

#ifndef UTF8_H_INCLUDED
#define UTF8_H_INCLUDED

#include <czmq.h>

//  Whether text is UTF-8 as RFC 3629 has it: shortest forms only, no surrogates, at most U+10FFFF.
bool utf8_valid (const char *text, size_t size);

//  Code points of text, which must be valid.
size_t utf8_count (const char *text, size_t size);

//  Makes each CRLF of text a LF, then cuts Unicode's white space (property White_Space) off both
//  ends. text must be valid. Works in place; returns the new size, and when that is less than size,
//  a NUL stands behind the text.
size_t utf8_trim (char *text, size_t size);

void utf8_test (bool verbose);

#endif
