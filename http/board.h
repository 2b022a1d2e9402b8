//  board - the page, and the operations for a browser without script
//
//  thread     civetweb's; asks the database actor and waits for its answer, 2 s at most
//  routes     GET /?page=N              the page
//             POST /messages            adds a message
//             POST /messages/ID         updates it
//             GET /messages/ID          leads to the page that it is on
//             GET /messages/ID/delete   asks whether to delete it
//             POST /messages/ID/delete  deletes it
//             GET /messages/ID/edit     the form to update it
//  result     the status; after a write 303 back to the list, 422 with the form when a field is
//             wrong

#ifndef BOARD_H_INCLUDED
#define BOARD_H_INCLUDED

#include <civetweb.h>
#include <stdbool.h>

int board_answer_page (struct mg_connection *conn);

int board_answer_add (struct mg_connection *conn);

//  rest is what comes behind "/messages/" in the path.
int board_answer_message (struct mg_connection *conn, const char *rest);

#endif
