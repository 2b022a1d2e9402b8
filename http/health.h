//  health - what machines ask: /healthz, /readyz, /metrics
//
//  thread     civetweb's

#ifndef HEALTH_H_INCLUDED
#define HEALTH_H_INCLUDED

#include <civetweb.h>

//  200 while the process lives. Returns the status, as do the others.
int health_answer_alive (struct mg_connection *conn);

//  200 when the database answers and we are not about to stop, 503 otherwise.
int health_answer_ready (struct mg_connection *conn);

//  The counters; 404 or 403 to those whom http.metrics does not name.
int health_answer_metrics (struct mg_connection *conn);

#endif
