//  swap - what tells a browser to swap a piece of HTML in: {"selector": CSS, "html": HTML}
//
//  thread     any; it works on its arguments only
//  frames     each is a whole RFC 6455 text frame, header and all, the caller's; NULL when memory
//             is out

#ifndef SWAP_H_INCLUDED
#define SWAP_H_INCLUDED

#include <czmq.h>

#include "actors/command.h"
#include "config/site.h"

//  The frame that swaps html into the element that selector names. With a command it is the reply
//  to that: when the client speaks breadboard.1 it carries its ref, its status, and its error if
//  any.
zframe_t *swap_new (const command_t *command, const char *selector, const char *html);

//  The same for a page of the list: its html, its number, how many pages there are, and its etag.
zframe_t *swap_new_list (const command_t *command, const char *html, int64_t number, int64_t pages,
                         uint64_t etag);

//  The reply to a list command whose sender has the page just as it is: no html.
zframe_t *swap_new_unchanged (const command_t *command, int64_t number, int64_t pages);

//  The frame for a command that failed: what is wrong, in #notices; or after a conflict, to one who
//  speaks breadboard.1, the edit form with both texts.
zframe_t *swap_new_notice (const site_t *site, const command_t *command);

//  The frame that shows the edit form of the message that the command has read.
zframe_t *swap_new_form (const site_t *site, const command_t *edit);

//  The frame that tells that a write was committed; the command has a ref. It swaps nothing.
zframe_t *swap_new_ok (const command_t *command);

//  The HTML alone of the edit form that the command has read; or of one that met a conflict, with
//  what is stored beside what was sent. Caller frees; NULL when memory is out.
char *swap_form_html (const site_t *site, const command_t *command);

//  The HTML that asks whether to delete the message that the command has found. Caller frees; NULL
//  when memory is out.
char *swap_delete_html (const site_t *site, const command_t *find);

void swap_test (bool verbose);

#endif
