//  form - the fields of an HTML form or a query string (application/x-www-form-urlencoded)
//
//  thread     any; pure functions

#ifndef FORM_H_INCLUDED
#define FORM_H_INCLUDED

#include <czmq.h>
#include <jansson.h>

//  Decodes size bytes of "name=value&name=value" to a JSON object of strings, caller's to decref.
//  Returns NULL when an escape is broken, a name or a value is not UTF-8, or a name comes twice.
//  A NUL is a character like any other.
json_t *form_parse (const char *text, size_t size);

//  A field's text, borrowed; "" when there is no such field.
const char *form_get (const json_t *form, const char *name);

void form_test (bool verbose);

#endif
