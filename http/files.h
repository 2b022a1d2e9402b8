//  files - GET /static/NAME: the assets, cached by clients as long as their address tells the
//  version
//
//  thread     civetweb's

#ifndef FILES_H_INCLUDED
#define FILES_H_INCLUDED

#include <civetweb.h>

//  Answers a request whose path is /static/ and name; returns the status.
int files_answer (struct mg_connection *conn, const char *name);

#endif
