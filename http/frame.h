//  frame - RFC 6455 frames: reads a client's headers, writes the server's frames
//
//  thread     any; pure functions
//  extensions none is ever agreed on, so every reserved bit is a violation

#ifndef FRAME_H_INCLUDED
#define FRAME_H_INCLUDED

#include <czmq.h>

enum {
    FRAME_CONTINUATION = 0,
    FRAME_TEXT = 1,
    FRAME_BINARY = 2,
    FRAME_CLOSE = 8,
    FRAME_PING = 9,
    FRAME_PONG = 10
};

enum {
    FRAME_CLOSE_NORMAL = 1000,
    FRAME_CLOSE_GOING_AWAY = 1001,
    FRAME_CLOSE_PROTOCOL_ERROR = 1002,
    FRAME_CLOSE_UNSUPPORTED = 1003,
    FRAME_CLOSE_NONE = 1005, //  Stands for "no code was sent"; never on the wire
    FRAME_CLOSE_INVALID_DATA = 1007,
    FRAME_CLOSE_POLICY = 1008,
    FRAME_CLOSE_TOO_LARGE = 1009,
    FRAME_CLOSE_TRY_LATER = 1013
};

//  Payload of a control frame, at most; a reason is two bytes less (5.5)
#define FRAME_CONTROL_MAX_BYTES 125
#define FRAME_REASON_MAX_BYTES  123

typedef struct {
    uint64_t payload_size;
    byte mask[4];
    int opcode;
    bool final;
} frame_header_t;

//  Reads the header of a client's frame. Returns its size in bytes, 0 when data ends within it, or
//  -1 for a violation of RFC 6455, which is told as soon as the bytes at hand prove it. header is
//  set once the payload's length is there, but for a mask that is not; its opcode is -1 before
//  that.
int frame_parse_header (const byte *data, size_t size, frame_header_t *header);

//  Writes the header of a server's frame: final, not masked. Returns its size in bytes.
size_t frame_write_header (byte out[10], int opcode, uint64_t payload_size);

//  Takes the mask off payload, or puts it on. offset: where in the frame's payload it starts.
void frame_unmask (byte *payload, size_t size, const byte mask[4], size_t offset);

//  Whether a client may send this code in a close frame (7.4; 1012 to 1014 are IANA's).
bool frame_close_code_valid (uint16_t code);

//  A whole server frame, ready to send; caller owns it.
zframe_t *frame_new (int opcode, const char *payload, size_t size);

//  A whole close frame; caller owns it. reason has at most FRAME_REASON_MAX_BYTES.
//  FRAME_CLOSE_NONE makes a frame without code and reason.
zframe_t *frame_new_close (uint16_t code, const char *reason);

void frame_test (bool verbose);

#endif
