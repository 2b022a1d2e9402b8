//  table - a zhashx_t whose keys are 64-bit numbers that lie inside its items
//
//  thread     its owner's

#ifndef TABLE_H_INCLUDED
#define TABLE_H_INCLUDED

#include <czmq.h>

//  Returns an empty table; caller owns it and ends it with zhashx_destroy (). The destructor, when
//  there is one, is called for each item that is deleted. Keys are pointers to int64_t or uint64_t;
//  the one that is inserted with an item must live, unchanged, as long as the item is in the table.
zhashx_t *table_new (zhashx_destructor_fn *destructor);

void table_test (bool verbose);

#endif
