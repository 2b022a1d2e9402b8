//  doorman - who is at the door: what each address has open, and how much it asks for
//
//  threads    any. One lock for the table of addresses, held for moments, and only while a
//             WebSocket or a form comes or a WebSocket goes; what comes over a WebSocket is counted
//             without it
//  visitor    an address's account, shared by all its WebSockets; each holds a reference
//  exempt     are the networks of limits.exempt_addresses: they have no account (NULL)
//  memory     an account of 48 bytes, and its place in the table, while its address has something
//             open or owes something

#ifndef DOORMAN_H_INCLUDED
#define DOORMAN_H_INCLUDED

#include "config/settings.h"
#include "http/address.h"

typedef struct doorman doorman_t;

typedef struct visitor visitor_t;

doorman_t *doorman_new (void);

//  Takes NULL. Visitors that were not returned end with it.
void doorman_destroy (doorman_t **self_p);

//  Asks for one more WebSocket of the address. Returns 0, and the visitor in *visitor_p, the
//  caller's to pass to visitor_leave () when it is closed; or after how many seconds to ask again
//  (refused, counted and, at most once a minute, logged).
int doorman_enter (doorman_t *self, const address_t *address, const settings_t *settings,
                   visitor_t **visitor_p);

//  The same for a form with a body of so many bytes; 0: it may be read.
int doorman_take_form (doorman_t *self, const address_t *address, const settings_t *settings,
                       int64_t bytes);

//  Counts a WebSocket out; takes NULL.
void visitor_leave (visitor_t **self_p);

//  Counts what came over a WebSocket; visitor may be NULL. Any thread, without a lock.
void visitor_count (visitor_t *self, const settings_t *settings, int64_t messages, int64_t bytes,
                    int64_t now_ms);

//  Milliseconds until the address may send more; 0: now.
int64_t visitor_wait_ms (const visitor_t *self, const settings_t *settings, int64_t now_ms);

void doorman_test (bool verbose);

#endif
