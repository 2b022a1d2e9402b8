#include "actors/table.h"

//  The multiplicative hash (Knuth, The Art of Computer Programming, 6.4): the high bits of the
//  product depend on all bits of the number.

static size_t
s_hash (const void *key)
{
    return (size_t) (*(const uint64_t *) key * 0x9E3779B97F4A7C15u >> 32);
}

static int
s_compare (const void *left, const void *right)
{
    return memcmp (left, right, sizeof (uint64_t));
}

zhashx_t *
table_new (zhashx_destructor_fn *destructor)
{
    zhashx_t *self = zhashx_new ();
    zhashx_set_key_hasher (self, s_hash);
    zhashx_set_key_comparator (self, s_compare);
    zhashx_set_key_duplicator (self, NULL);
    zhashx_set_key_destructor (self, NULL);
    zhashx_set_destructor (self, destructor);
    return self;
}

//  ------------------------------------------------------------------------
//  Self test

void
table_test (bool verbose)
{
    printf (" * table: ");
    if (verbose)
        printf ("\n");
    enum { COUNT = 10000 };
    int64_t *numbers = (int64_t *) zmalloc (COUNT * sizeof (int64_t));
    zhashx_t *self = table_new (NULL);
    for (int index = 0; index < COUNT; index++) {
        numbers[index] = (int64_t) index << (index % 40);
        zhashx_delete (self, &numbers[index]); //  Some are there already
        int rc = zhashx_insert (self, &numbers[index], &numbers[index]);
        assert (rc == 0);
    }
    for (int index = 0; index < COUNT; index++) {
        int64_t *item = (int64_t *) zhashx_lookup (self, &numbers[index]);
        assert (item && *item == numbers[index]);
    }
    int64_t absent = -1;
    assert (!zhashx_lookup (self, &absent));
    zhashx_destroy (&self);
    freen (numbers);
    printf ("OK\n");
}
