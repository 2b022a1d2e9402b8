//  reassembly - turns the bytes of one connection into whole, checked messages
//
//  thread     the connection's owner
//  at rest    nothing: the object is a pointer, NULL while the client owes no rest of a message
//  memory     a rest only; what a client announces costs nothing until it has sent it

#ifndef REASSEMBLY_H_INCLUDED
#define REASSEMBLY_H_INCLUDED

#include <czmq.h>

typedef struct reassembly reassembly_t;

typedef struct {
    const char *payload; //  Never NULL; borrowed for the call
    size_t size;         //  Of the payload, in bytes
    int opcode;          //  FRAME_TEXT, FRAME_PING, FRAME_PONG or FRAME_CLOSE
    uint16_t
        close_code; //  Of FRAME_CLOSE, whose payload is the reason; FRAME_CLOSE_NONE without one
} reassembly_event_t;

//  Is called for each message, in order, control frames at once though a message be in fragments.
//  Text and reasons are valid UTF-8, codes are valid. Returns true to go on, false to pause. Must
//  neither feed nor destroy the object.
typedef bool (reassembly_handler_fn) (const reassembly_event_t *event, void *arg);

//  Takes the next bytes of a connection and calls handler for each message that they complete. data
//  is changed in place (masks come off), and may be used again after the call. Each call goes on
//  after a pause; a call with size 0 goes on with the bytes kept so far. While paused, the caller
//  should not read its socket: all bytes it feeds are kept.
//
//  max_bytes bounds a text message, fragments joined. Returns 0, or the close code to send:
//    FRAME_CLOSE_PROTOCOL_ERROR  what RFC 6455 forbids
//    FRAME_CLOSE_UNSUPPORTED     binary data
//    FRAME_CLOSE_INVALID_DATA    a text or a reason that is not UTF-8
//    FRAME_CLOSE_TOO_LARGE       a header announced more than max_bytes, or fragments add up to it
//  After a code, and after a FRAME_CLOSE event, all further bytes are ignored.
int reassembly_feed (reassembly_t **self_p, byte *data, size_t size, size_t max_bytes,
                     reassembly_handler_fn *handler, void *arg);

//  Whether the client owes the rest of a frame or of a message in fragments, so that the caller can
//  cut one that does not end in time. False after a pause, when it is the caller who is awaited,
//  and after a close. self may be NULL.
bool reassembly_pending (const reassembly_t *self);

void reassembly_destroy (reassembly_t **self_p);

void reassembly_test (bool verbose);

#endif
