//  bench_wire - what the load generator and the bare loop have in common: the clock, the fixed
//  handshake, RFC 6455 frames, and marks.
//
//  A mark is "~" and 16 digits and "~" in a message's text; whoever receives a frame with it in
//  knows which write it shows. Marks grow from write to write and, as they count microseconds, from
//  run to run. No template changes a tilde, so the first one in a list frame begins the newest
//  message's mark.

#ifndef BENCH_WIRE_H_INCLUDED
#define BENCH_WIRE_H_INCLUDED

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef unsigned char byte;

//  RFC 6455, 1.3: the example's key and its answer. All our clients send it, so neither side
//  hashes.
#define WIRE_KEY    "dGhlIHNhbXBsZSBub25jZQ=="
#define WIRE_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

enum { WIRE_TEXT = 1, WIRE_CLOSE = 8, WIRE_PING = 9, WIRE_PONG = 10 };

#define WIRE_HEADER_MAX 14
#define WIRE_MARK_SIZE  18

typedef struct {
    int opcode;
    bool masked;
    byte *payload;
    size_t payload_size;
    size_t size; //  Header and payload
} wire_frame_t;

static inline int64_t
wire_now_ns (void)
{
    struct timespec now;
    clock_gettime (CLOCK_MONOTONIC, &now);
    return (int64_t) now.tv_sec * 1000000000 + now.tv_nsec;
}

//  Writes the header of a final frame, masked with zeros or not at all; returns its size.

static inline size_t
wire_put_header (byte *header, int opcode, bool masked, size_t payload_size)
{
    byte mask_bit = masked ? 0x80 : 0;
    size_t size = 2;
    header[0] = (byte) (0x80 | opcode);
    if (payload_size < 126)
        header[1] = (byte) (mask_bit | payload_size);
    else if (payload_size < 65536) {
        header[1] = mask_bit | 126;
        header[size++] = (byte) (payload_size >> 8);
        header[size++] = (byte) payload_size;
    }
    else {
        header[1] = mask_bit | 127;
        for (int shift = 56; shift >= 0; shift -= 8)
            header[size++] = (byte) (payload_size >> shift);
    }
    if (masked) {
        memset (header + size, 0, 4);
        size += 4;
    }
    return size;
}

//  Finds the frame at the start of data, and unmasks it. Returns false when it is not all there
//  yet.

static inline bool
wire_parse (byte *data, size_t size, wire_frame_t *frame)
{
    if (size < 2)
        return false;
    size_t length = data[1] & 0x7F;
    size_t extra = length == 126 ? 2 : length == 127 ? 8 : 0;
    frame->opcode = data[0] & 0x0F;
    frame->masked = data[1] & 0x80;
    size_t header = 2 + extra + (frame->masked ? 4 : 0);
    if (size < header)
        return false;
    if (extra)
        length = 0;
    for (size_t index = 0; index < extra; index++)
        length = length << 8 | data[2 + index];
    if (size - header < length)
        return false;
    frame->payload = data + header;
    frame->payload_size = length;
    frame->size = header + length;
    const byte *mask = frame->payload - 4;
    if (frame->masked && (mask[0] | mask[1] | mask[2] | mask[3]))
        for (size_t index = 0; index < length; index++)
            frame->payload[index] ^= mask[index % 4];
    return true;
}

//  Returns where the first mark begins, or NULL.

static inline const byte *
wire_find_mark (const byte *data, size_t size)
{
    const byte *mark = (const byte *) memchr (data, '~', size);
    return mark && size - (size_t) (mark - data) >= WIRE_MARK_SIZE ? mark : NULL;
}

//  Returns the first mark, or 0.

static inline uint64_t
wire_mark (const byte *data, size_t size)
{
    const byte *mark = wire_find_mark (data, size);
    uint64_t value = 0;
    for (int index = 1; mark && index < WIRE_MARK_SIZE - 1; index++)
        value = value * 10 + (uint64_t) (mark[index] - '0');
    return value;
}

#endif
