//  fuzz_wire - foreign bytes on a connection: however they are cut, they mean the same
//
//  build      clang -D_GNU_SOURCE -I. -O1 -g -fsanitize=fuzzer,address,undefined tests/fuzz_wire.c
//             http/reassembly.c http/frame.c http/utf8.c -lczmq -o fuzz_wire
//  input      [limit in 16 bytes][pauses, a bit an event][piece sizes, 2 of 4 bits][mode] stream
//  modes      odd: the stream as it is; even: a list of [first byte][size][payload], made frames
//  aborts     when one piece and many tell different events or results, or when an event is not
//             what reassembly.h promises

#include "http/frame.h"
#include "http/reassembly.h"
#include "http/utf8.h"

#include <stdlib.h>

//  One way of feeding the stream, and what came of it

typedef struct {
    zchunk_t *events;
    size_t max_bytes;
    byte pauses;  //  Bit N set: pause at each event whose number is N modulo 8
    size_t count; //  Events so far
    bool paused;
    bool closed;
} reader_t;

static void
s_require (bool holds)
{
    if (!holds)
        abort ();
}

static bool
s_note (const reassembly_event_t *event, void *arg)
{
    reader_t *reader = (reader_t *) arg;
    s_require (!reader->paused && !reader->closed);
    if (event->opcode == FRAME_TEXT || event->opcode == FRAME_CLOSE)
        s_require (utf8_valid (event->payload, event->size));
    if (event->opcode == FRAME_TEXT)
        s_require (event->size <= reader->max_bytes);
    else
        s_require (event->size <= FRAME_CONTROL_MAX_BYTES && event->opcode >= FRAME_CLOSE);
    size_t facts[] = {(size_t) event->opcode, event->close_code, event->size};
    zchunk_extend (reader->events, facts, sizeof (facts));
    zchunk_extend (reader->events, event->payload, event->size);
    reader->closed = event->opcode == FRAME_CLOSE;
    reader->paused = reader->pauses >> (reader->count++ % 8) & 1;
    return !reader->paused;
}

//  Feeds a copy of exact size, so that reads past its end show, and resumes until nothing is
//  paused.

static int
s_feed (reassembly_t **self_p, reader_t *reader, const byte *data, size_t size)
{
    zchunk_t *copy = zchunk_new (data, size);
    int code = reassembly_feed (self_p, zchunk_data (copy), size, reader->max_bytes, s_note,
                                reader);
    zchunk_destroy (&copy);
    while (reader->paused && code == 0) {
        s_require (!reassembly_pending (*self_p));
        reader->paused = false;
        code = reassembly_feed (self_p, NULL, 0, reader->max_bytes, s_note, reader);
    }
    s_require (code == 0 || !reassembly_pending (*self_p));
    return code;
}

//  pieces: two sizes in turns, 4 bits each, 0 for the whole rest.

static int
s_read (reader_t *reader, const byte *data, size_t size, byte pieces, bool *pending)
{
    reassembly_t *self = NULL;
    int code = 0;
    size_t at = 0;
    for (size_t turn = 0; at < size && code == 0; turn++) {
        size_t piece = turn % 2 ? pieces >> 4 : pieces & 15;
        if (piece == 0 || piece > size - at)
            piece = size - at;
        code = s_feed (&self, reader, data + at, piece);
        at += piece;
    }
    *pending = reassembly_pending (self);
    reassembly_destroy (&self);
    return code;
}

static zchunk_t *
s_make_frames (const byte *data, size_t size)
{
    zchunk_t *stream = zchunk_new (NULL, size);
    while (size >= 2) {
        size_t payload_size = data[1] < size - 2 ? data[1] : size - 2;
        byte header[14];
        size_t header_size = frame_write_header (header, 0, payload_size);
        header[0] = data[0];
        header[1] |= 0x80;
        memcpy (header + header_size, "mask", 4);
        zchunk_extend (stream, header, header_size + 4);
        zchunk_extend (stream, data + 2, payload_size);
        frame_unmask (zchunk_data (stream) + zchunk_size (stream) - payload_size, payload_size,
                      (const byte *) "mask", 0);
        data += 2 + payload_size;
        size -= 2 + payload_size;
    }
    return stream;
}

//  Trimming leaves valid text that cannot be trimmed further.

static void
s_trim (const byte *data, size_t size)
{
    if (!utf8_valid ((const char *) data, size))
        return;
    zchunk_t *text = zchunk_new (data, size);
    char *start = (char *) zchunk_data (text);
    size_t trimmed = utf8_trim (start, size);
    s_require (trimmed <= size && utf8_valid (start, trimmed));
    s_require (utf8_count (start, trimmed) <= trimmed);
    if (trimmed > 0 && !memchr (start, '\r', trimmed)) //  "\r\r\n" shows a new CRLF
        s_require (utf8_trim (start, trimmed) == trimmed);
    zchunk_destroy (&text);
}

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    reader_t whole = {.max_bytes = (size_t) data[0] * 16, .pauses = 0};
    reader_t parts = {.max_bytes = whole.max_bytes, .pauses = data[1]};
    zchunk_t *stream = data[3] % 2 ? zchunk_new (data + 4, size - 4)
                                   : s_make_frames (data + 4, size - 4);
    whole.events = zchunk_new (NULL, 4096);
    parts.events = zchunk_new (NULL, 4096);

    bool whole_pending;
    bool parts_pending;
    int whole_code = s_read (&whole, zchunk_data (stream), zchunk_size (stream), 0, &whole_pending);
    int parts_code = s_read (&parts, zchunk_data (stream), zchunk_size (stream), data[2],
                             &parts_pending);
    s_require (whole_code == parts_code && whole_pending == parts_pending);
    s_require (zchunk_size (whole.events) == zchunk_size (parts.events));
    s_require (memcmp (zchunk_data (whole.events), zchunk_data (parts.events),
                       zchunk_size (whole.events)) == 0);
    s_trim (data + 4, size - 4);

    zchunk_destroy (&parts.events);
    zchunk_destroy (&whole.events);
    zchunk_destroy (&stream);
    return 0;
}
