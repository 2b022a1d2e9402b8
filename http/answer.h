//  answer - writes HTTP answers: status line, security headers, length, body
//
//  thread     civetweb's; each function writes one whole answer to the connection's request
//  result     the status, which civetweb's begin_request wants to have
//  HEAD       gets the headers that GET would get, and no body
//  safety     headers are made of our own constants, settings and hashes; no client text gets there

#ifndef ANSWER_H_INCLUDED
#define ANSWER_H_INCLUDED

#include <civetweb.h>
#include <czmq.h>
#include <jansson.h>

typedef struct {
    int status;
    const char *type;    //  Media type; NULL where there is no body to speak of
    const char *cache;   //  Cache-Control; NULL: no-cache
    const char *headers; //  More lines, each ended by CRLF; NULL: none
    const void *body;    //  Borrowed
    size_t size;
} answer_t;

int answer_send (struct mg_connection *conn, const answer_t *answer);

//  A line of plain text.
int answer_text (struct mg_connection *conn, int status, const char *text);

//  A page: renders the template with data, to which the title and the addresses of the assets are
//  added. Takes data in any case.
int answer_page (struct mg_connection *conn, int status, const char *template, json_t **data_p);

//  The error page; message in words, NULL for the usual ones, headers as in answer_t.
int answer_error (struct mg_connection *conn, int status, const char *message, const char *headers);

//  429, and after how many seconds to come again.
int answer_too_many (struct mg_connection *conn, int seconds);

//  302 and 303 to a path of ours.
int answer_found (struct mg_connection *conn, const char *path);
int answer_see_other (struct mg_connection *conn, const char *path);

//  Whether the request's method is one of the list, "GET, HEAD". Otherwise the answer is 405.
bool answer_allows (struct mg_connection *conn, const char *methods);

#endif
