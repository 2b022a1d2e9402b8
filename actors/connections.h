//  connections - the actor, one of K, that owns a share of the open WebSockets: only it reads them
//                and writes to them
//
//  thread     its own; started and ended by main
//  takes      CONNECTIONS_ENDPOINT  PULL, from civetweb threads
//             [4: descriptor][1: speaks breadboard.1][s: remote address]   the socket, given away,
//             counted in METRICS_CONNECTIONS_OPEN by whoever sends it, counted out by the actor
//             DATABASE_PUBLISHED    SUB to page/ and to/K/
//  sends      DATABASE_COMMANDS     see there
//  full       a civetweb thread's send fails with EAGAIN: it closes the socket
//  pipe       [SITE][p: site_t reference]   a reload; the actor owns the reference
//             [DRAIN]                       close all with 1001; signals 0 when all are gone

#ifndef CONNECTIONS_H_INCLUDED
#define CONNECTIONS_H_INCLUDED

#include <czmq.h>

#include "config/site.h"

//  A printf format for the thread's number, 0 to K - 1
#define CONNECTIONS_ENDPOINT "inproc://connections/%d"
#define CONNECTIONS_THREADS_MAX 255

