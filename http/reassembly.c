//  Frames are taken where they lie: a frame that is whole in the caller's bytes is unmasked and
//  delivered there, without a copy. Only a rest is copied:
//
//    kept     raw bytes: of a frame that has not ended, or, after a pause, whatever came behind the
//             message that the handler paused at. The first taken bytes of it are done with.
//    message  the joined payload of fragments whose last one has not come
//
//  A feed takes frames from kept first, then completes the frame at its end with just the bytes
//  that it lacks, then takes frames from the caller's bytes, and keeps what is left. A frame is
//  touched only once it is whole, so each byte is copied a bounded number of times (zchunk_extend
//  doubles), in pieces of any size.
//
//  Invariants between calls: not paused and not closed, kept holds less than one frame and taken is
//  0; message and the frame in kept come to max_bytes and one header at most, as each header is
//  checked before its payload is kept (zchunk may reserve twice that, untouched). *self_p is NULL
//  unless kept, message or closed is set.

#include "http/reassembly.h"

#include "http/frame.h"
#include "http/utf8.h"

struct reassembly {
    zchunk_t *kept;    //  Owned; NULL when there are no raw bytes
    size_t taken;      //  Bytes at the start of kept that were delivered
    zchunk_t *message; //  Owned; NULL when no message is in fragments, else valid though empty
    bool paused;       //  The last feed ended with a pause
    bool closed;       //  Deaf for good: a CLOSE or a violation has come
};

//  One call of reassembly_feed ()

typedef struct {
    reassembly_t *self; //  Made once something must be remembered
    size_t max_bytes;
    reassembly_handler_fn *handler;
    void *arg;
    int code;     //  Close code of a violation, else 0
    bool stopped; //  No frame may be taken any more in this call
} run_t;

static reassembly_t *
s_self (run_t *run)
{
    if (!run->self)
        run->self = (reassembly_t *) zmalloc (sizeof (reassembly_t));
    return run->self;
}

static void
s_close (run_t *run, int code)
{
    s_self (run)->closed = true;
    run->stopped = true;
    run->code = code;
}

static void
s_deliver (run_t *run, const reassembly_event_t *event)
{
    if (!run->handler (event, run->arg))
        run->stopped = true;
}

static void
s_deliver_text (run_t *run, const char *text, size_t size)
{
    if (utf8_valid (text, size))
        s_deliver (run, &(reassembly_event_t){.payload = text, .size = size, .opcode = FRAME_TEXT});
    else
        s_close (run, FRAME_CLOSE_INVALID_DATA);
}

//  RFC 6455, 5.5.1: nothing, or a code and a reason. Nothing follows a close, so a pause is moot.

static void
s_take_close (run_t *run, const byte *payload, size_t size)
{
    reassembly_event_t event = {
        .payload = "", .opcode = FRAME_CLOSE, .close_code = FRAME_CLOSE_NONE};
    if (size >= 2) {
        event.close_code = (uint16_t) (payload[0] << 8 | payload[1]);
        event.payload = (const char *) payload + 2;
        event.size = size - 2;
    }
    if (size == 1 || (size >= 2 && !frame_close_code_valid (event.close_code)))
        s_close (run, FRAME_CLOSE_PROTOCOL_ERROR);
    else if (!utf8_valid (event.payload, event.size))
        s_close (run, FRAME_CLOSE_INVALID_DATA);
    else {
        run->handler (&event, run->arg);
        s_close (run, 0);
    }
}

//  Joins a fragment to the message, and delivers that when it was the last.

static void
s_take_fragment (run_t *run, bool final, const byte *payload, size_t size)
{
    reassembly_t *self = s_self (run);
    if (!self->message)
        self->message = zchunk_new (payload, size);
    else
        zchunk_extend (self->message, payload, size);
    if (final) {
        zchunk_t *message = self->message;
        self->message = NULL;
        s_deliver_text (run, (const char *) zchunk_data (message), zchunk_size (message));
        zchunk_destroy (&message);
    }
}

static void
s_take_payload (run_t *run, const frame_header_t *header, const byte *payload)
{
    size_t size = (size_t) header->payload_size;
    if (header->opcode == FRAME_CLOSE)
        s_take_close (run, payload, size);
    else if (header->opcode > FRAME_CLOSE)
        s_deliver (run, &(reassembly_event_t){.payload = (const char *) payload,
                                              .size = size,
                                              .opcode = header->opcode});
    else if (header->opcode == FRAME_TEXT && header->final)
        s_deliver_text (run, (const char *) payload, size);
    else
        s_take_fragment (run, header->final, payload, size);
}

//  Returns the close code for a frame that may not come now, or 0. A limit that a reload lowered
//  may be below what fragments already hold.

static int
s_check_header (const run_t *run, const frame_header_t *header)
{
    if (header->opcode >= FRAME_CLOSE)
        return 0;
    if (header->opcode == FRAME_BINARY)
        return FRAME_CLOSE_UNSUPPORTED;
    zchunk_t *message = run->self ? run->self->message : NULL;
    bool continues = header->opcode == FRAME_CONTINUATION;
    if (continues != (message != NULL))
        return FRAME_CLOSE_PROTOCOL_ERROR;
    size_t joined = message ? zchunk_size (message) : 0;
    if (joined > run->max_bytes || header->payload_size > run->max_bytes - joined)
        return FRAME_CLOSE_TOO_LARGE;
    return 0;
}

//  Takes the frame at the start of data. Returns its size, or 0 when it is not whole or not
//  allowed.

static size_t
s_take_frame (run_t *run, byte *data, size_t size)
{
    frame_header_t header;
    int header_size = frame_parse_header (data, size, &header);
    if (header_size == 0 && header.opcode < 0)
        return 0;
    int code = header_size < 0 ? FRAME_CLOSE_PROTOCOL_ERROR : s_check_header (run, &header);
    if (code != 0) {
        s_close (run, code);
        return 0;
    }
    byte *payload = data + header_size;
    if (header_size == 0 || header.payload_size > size - (size_t) header_size)
        return 0;
    frame_unmask (payload, (size_t) header.payload_size, header.mask, 0);
    s_take_payload (run, &header, payload);
    return (size_t) header_size + (size_t) header.payload_size;
}

//  Takes the frames at the start of data, until a rest of less than one frame or a stop. Returns
//  how many bytes they had.

static size_t
s_take_frames (run_t *run, byte *data, size_t size)
{
    size_t taken = 0;
    while (!run->stopped) {
        size_t frame_size = s_take_frame (run, data + taken, size - taken);
        taken += frame_size;
        if (frame_size == 0)
            break;
    }
    return taken;
}

//  Takes the frames in kept. Frees it when nothing is left, and else, unless there was a stop,
//  moves the rest to the start, so that a frame that is long in coming does not hold what came
//  before it.

static void
s_take_kept (run_t *run)
{
    reassembly_t *self = run->self;
    byte *kept = zchunk_data (self->kept);
    size_t size = zchunk_size (self->kept);
    self->taken += s_take_frames (run, kept + self->taken, size - self->taken);
    if (self->taken > 0 && (self->taken == size || !run->stopped)) {
        zchunk_t *rest = self->taken < size ? zchunk_new (kept + self->taken, size - self->taken)
                                            : NULL;
        zchunk_destroy (&self->kept);
        self->kept = rest;
        self->taken = 0;
    }
}

//  How many bytes the frame in kept lacks, at least as far as its header tells.

static size_t
s_lacking (const reassembly_t *self)
{
    size_t size = zchunk_size (self->kept);
    frame_header_t header;
    int header_size = frame_parse_header (zchunk_data (self->kept), size, &header);
    return header_size == 0 ? 1 : (size_t) header_size + (size_t) header.payload_size - size;
}

//  Takes the frames in kept, the last of them completed from data. Returns how many bytes of data
//  that took.

static size_t
s_complete_kept (run_t *run, const byte *data, size_t size)
{
    size_t used = 0;
    s_take_kept (run);
    while (!run->stopped && run->self->kept && used < size) {
        size_t lacking = s_lacking (run->self);
        size_t piece = lacking < size - used ? lacking : size - used;
        zchunk_extend (run->self->kept, data + used, piece);
        used += piece;
        s_take_kept (run);
    }
    return used;
}

static void
s_keep (run_t *run, const byte *data, size_t size)
{
    reassembly_t *self = s_self (run);
    if (self->kept)
        zchunk_extend (self->kept, data, size);
    else
        self->kept = zchunk_new (data, size);
}

//  Frees whatever the outcome of the call leaves without use.

static void
s_tidy (run_t *run)
{
    reassembly_t *self = run->self;
    if (self && self->closed) {
        zchunk_destroy (&self->kept);
        zchunk_destroy (&self->message);
    }
    else if (self && !self->kept && !self->message)
        reassembly_destroy (&run->self);
}

int
reassembly_feed (reassembly_t **self_p, byte *data, size_t size, size_t max_bytes,
                 reassembly_handler_fn *handler, void *arg)
{
    assert (self_p);
    if (*self_p && (*self_p)->closed)
        return 0;
    run_t run = {.self = *self_p, .max_bytes = max_bytes, .handler = handler, .arg = arg};
    size_t used = 0;
    if (run.self && run.self->kept)
        used = s_complete_kept (&run, data, size);
    if (used < size) {
        used += s_take_frames (&run, data + used, size - used);
        if (used < size)
            s_keep (&run, data + used, size - used);
    }
    if (run.self)
        run.self->paused = run.stopped;
    s_tidy (&run);
    *self_p = run.self;
    return run.code;
}

bool
reassembly_pending (const reassembly_t *self)
{
    return self && !self->paused && !self->closed;
}

void
reassembly_destroy (reassembly_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        reassembly_t *self = *self_p;
        zchunk_destroy (&self->kept);
        zchunk_destroy (&self->message);
        freen (*self_p);
    }
}

//  ------------------------------------------------------------------------
//  Self test

#define TEST_MAX_BYTES 1000

//  Writes down what the handler is told, one line an event: opcode, code, payload.

typedef struct {
    zchunk_t *events;
    bool pausing; //  Pause at each event
    bool paused;
    bool closed; //  A close frame has come
} recorder_t;

static bool
s_record (const reassembly_event_t *event, void *arg)
{
    recorder_t *recorder = (recorder_t *) arg;
    assert (!recorder->paused && !recorder->closed);
    char line[32];
    int length = snprintf (line, sizeof (line), "%d %d ", event->opcode, event->close_code);
    zchunk_extend (recorder->events, line, (size_t) length);
    zchunk_extend (recorder->events, event->payload, event->size);
    zchunk_extend (recorder->events, "\n", 1);
    recorder->closed = event->opcode == FRAME_CLOSE;
    recorder->paused = recorder->pausing;
    return !recorder->pausing;
}

//  Feeds a copy that has the exact size, so that a memory checker sees a read past its end, and
//  that is gone after the call. Resumes as long as there is a pause.

static int
s_feed (reassembly_t **self_p, recorder_t *recorder, const byte *data, size_t size)
{
    byte *copy = (byte *) zmalloc (size + !size);
    if (size > 0)
        memcpy (copy, data, size);
    int code = reassembly_feed (self_p, copy, size, TEST_MAX_BYTES, s_record, recorder);
    freen (copy);
    while (recorder->paused && code == 0) {
        assert (!reassembly_pending (*self_p));
        recorder->paused = false;
        code = reassembly_feed (self_p, NULL, 0, TEST_MAX_BYTES, s_record, recorder);
    }
    return code;
}

//  Appends a client's frame to the stream.

static void
s_put (zchunk_t *stream, bool final, int opcode, const char *payload, size_t size)
{
    byte header[14];
    size_t header_size = frame_write_header (header, opcode, size);
    if (!final)
        header[0] &= 0x7F;
    header[1] |= 0x80;
    memcpy (header + header_size, "\x37\xFA\x21\x3D", 4);
    zchunk_extend (stream, header, header_size + 4);
    zchunk_extend (stream, payload, size);
    byte *masked = zchunk_data (stream) + zchunk_size (stream) - size;
    frame_unmask (masked, size, header + header_size, 0);
}

static void
s_puts (zchunk_t *stream, bool final, int opcode, const char *payload)
{
    s_put (stream, final, opcode, payload, strlen (payload));
}

//  Feeds the stream in one piece, in two cut anywhere, and a byte at a time, each with and without
//  pauses: events and code are as wanted. With code 0 and no close, nothing may be left.

static void
s_test_cut (zchunk_t *stream, size_t cut, bool each_byte, bool pausing, int wanted_code,
            const char *wanted)
{
    recorder_t recorder = {.events = zchunk_new (NULL, 4096), .pausing = pausing};
    const byte *data = zchunk_data (stream);
    size_t size = zchunk_size (stream);
    reassembly_t *self = NULL;
    int code = s_feed (&self, &recorder, data, cut);
    size_t at = cut;
    while (at < size && code == 0) {
        size_t piece = each_byte ? 1 : size - at;
        code = s_feed (&self, &recorder, data + at, piece);
        at += piece;
    }
    assert (code == wanted_code);
    assert (zchunk_streq (recorder.events, wanted));
    assert (!reassembly_pending (self));
    assert (code != 0 || recorder.closed || !self);
    reassembly_destroy (&self);
    zchunk_destroy (&recorder.events);
}

//  As above, and destroys the stream.

static void
s_test_stream (zchunk_t *stream, int wanted_code, const char *wanted)
{
    for (int pausing = 0; pausing < 2; pausing++) {
        for (size_t cut = 0; cut <= zchunk_size (stream); cut++)
            s_test_cut (stream, cut, false, pausing, wanted_code, wanted);
        s_test_cut (stream, 0, true, pausing, wanted_code, wanted);
    }
    zchunk_destroy (&stream);
}

static void
s_test_bytes (const char *data, size_t size, int wanted_code, const char *wanted)
{
    s_test_stream (zchunk_new (data, size), wanted_code, wanted);
}

static void
s_test_frame (bool final, int opcode, const char *payload, size_t size, int wanted_code,
              const char *wanted)
{
    zchunk_t *stream = zchunk_new (NULL, 0);
    s_put (stream, final, opcode, payload, size);
    s_test_stream (stream, wanted_code, wanted);
}

//  RFC 6455, 5.7. Its unmasked examples are a server's, so from a client they are violations.

static void
s_test_rfc_examples (void)
{
    s_test_bytes ("\x81\x85\x37\xFA\x21\x3D\x7F\x9F\x4D\x51\x58", 11, 0, "1 0 Hello\n");
    s_test_bytes ("\x8A\x85\x37\xFA\x21\x3D\x7F\x9F\x4D\x51\x58", 11, 0, "10 0 Hello\n");
    s_test_bytes ("\x81\x05Hello", 7, FRAME_CLOSE_PROTOCOL_ERROR, "");
    s_test_bytes ("\x89\x05Hello", 7, FRAME_CLOSE_PROTOCOL_ERROR, "");
    zchunk_t *stream = zchunk_new (NULL, 0); //  The fragmented one, masked
    s_puts (stream, false, FRAME_TEXT, "Hel");
    s_puts (stream, true, FRAME_CONTINUATION, "lo");
    s_test_stream (stream, 0, "1 0 Hello\n");
    char binary[256] = {0};
    s_test_frame (true, FRAME_BINARY, binary, 256, FRAME_CLOSE_UNSUPPORTED, "");
}

//  All that a client may do, in one stream.

static void
s_test_mixed (void)
{
    char large[301];
    memset (large, 'x', 300);
    large[300] = 0;
    zchunk_t *stream = zchunk_new (NULL, 0);
    s_puts (stream, true, FRAME_TEXT, "one");
    s_puts (stream, true, FRAME_TEXT, "");
    s_puts (stream, false, FRAME_TEXT, "tw\xE2"); //  A character may be cut by fragments
    s_puts (stream, true, FRAME_PING, "are you there");
    s_puts (stream, false, FRAME_CONTINUATION, "");
    s_puts (stream, true, FRAME_PONG, "");
    s_puts (stream, true, FRAME_CONTINUATION, "\x82\xAC");
    s_puts (stream, false, FRAME_TEXT, "");
    s_puts (stream, true, FRAME_CONTINUATION, "");
    s_puts (stream, true, FRAME_TEXT, large);
    s_puts (stream, true, FRAME_PING, "");
    s_puts (stream, false, FRAME_TEXT, "never ended");
    s_put (stream, true, FRAME_CLOSE, "\x03\xE9gone", 6);
    s_puts (stream, true, FRAME_TEXT, "ignored, as is an error:");
    s_puts (stream, true, 15, "");
    char wanted[400];
    snprintf (wanted, sizeof (wanted),
              "1 0 one\n1 0 \n9 0 are you there\n10 0 \n1 0 tw\u20AC\n1 0 \n1 0 %s\n9 0 \n"
              "8 1001 gone\n",
              large);
    s_test_stream (stream, 0, wanted);
}

static void
s_test_close_frames (void)
{
    s_test_frame (true, FRAME_CLOSE, "", 0, 0, "8 1005 \n");
    s_test_frame (true, FRAME_CLOSE, "\x03\xE8", 2, 0, "8 1000 \n");
    s_test_frame (true, FRAME_CLOSE, "\x0F\xA0\xC3\xA9", 4, 0, "8 4000 \u00E9\n");
    s_test_frame (true, FRAME_CLOSE, "\x03", 1, FRAME_CLOSE_PROTOCOL_ERROR, "");
    s_test_frame (true, FRAME_CLOSE, "\x03\xED", 2, FRAME_CLOSE_PROTOCOL_ERROR, ""); //  1005
    s_test_frame (true, FRAME_CLOSE, "\x03\xE8\xC3", 3, FRAME_CLOSE_INVALID_DATA, "");
}

//  Two frames of a stream, and the code that the second one is refused with.

static void
s_test_refused_second (bool first_final, bool second_final, int second_opcode, int wanted_code,
                       const char *wanted)
{
    zchunk_t *stream = zchunk_new (NULL, 0);
    s_puts (stream, first_final, FRAME_TEXT, "ok");
    s_puts (stream, second_final, second_opcode, "\xC3");
    s_test_stream (stream, wanted_code, wanted);
}

static void
s_test_violations (void)
{
    static const char *const headers[] = {
        "\xC1\x80mask",         //  Reserved bits
        "\x83\x80mask",         //  Reserved opcodes
        "\x8B\x80mask",         //
        "\x09\x80mask",         //  A control frame in fragments
        "\x81\x01mask",         //  Not masked
        "\x89\xFE\x01\x01mask", //  A control frame of more than 125 bytes
    };
    for (size_t i = 0; i < sizeof (headers) / sizeof (headers[0]); i++)
        s_test_bytes (headers[i], strlen (headers[i]), FRAME_CLOSE_PROTOCOL_ERROR, "");
    s_test_bytes ("\x81\xFE\x00\x05mask", 8, FRAME_CLOSE_PROTOCOL_ERROR, ""); //  Not minimal
    s_test_frame (true, FRAME_CONTINUATION, "", 0, FRAME_CLOSE_PROTOCOL_ERROR, "");
    s_test_frame (false, FRAME_CONTINUATION, "", 0, FRAME_CLOSE_PROTOCOL_ERROR, "");
    s_test_frame (false, FRAME_BINARY, "", 0, FRAME_CLOSE_UNSUPPORTED, "");
    s_test_frame (true, FRAME_TEXT, "\xED\xA0\x80", 3, FRAME_CLOSE_INVALID_DATA, "");

    s_test_refused_second (false, true, FRAME_TEXT, FRAME_CLOSE_PROTOCOL_ERROR, "");
    s_test_refused_second (false, false, FRAME_TEXT, FRAME_CLOSE_PROTOCOL_ERROR, "");
    s_test_refused_second (false, true, FRAME_BINARY, FRAME_CLOSE_UNSUPPORTED, "");
    s_test_refused_second (false, true, FRAME_CONTINUATION, FRAME_CLOSE_INVALID_DATA, "");
    s_test_refused_second (true, true, FRAME_CONTINUATION, FRAME_CLOSE_PROTOCOL_ERROR, "1 0 ok\n");
}

//  A text of exactly the limit passes; a byte more is refused at the header, before the payload.

static void
s_test_limit (size_t first, size_t second, bool fits)
{
    char text[TEST_MAX_BYTES + 1];
    memset (text, 'x', sizeof (text));
    char wanted[TEST_MAX_BYTES + 16];
    snprintf (wanted, sizeof (wanted), "1 0 %.*s\n", TEST_MAX_BYTES, text);
    zchunk_t *stream = zchunk_new (NULL, 0);
    if (first > 0)
        s_put (stream, false, FRAME_TEXT, text, first);
    s_put (stream, true, first > 0 ? FRAME_CONTINUATION : FRAME_TEXT, text, second);
    if (fits)
        s_test_stream (stream, 0, wanted);
    else { //  The frame's payload is cut off, and not missed
        zchunk_set (stream, NULL, zchunk_size (stream) - second);
        s_test_stream (stream, FRAME_CLOSE_TOO_LARGE, "");
    }
}

//  The life of the object over a message that comes in parts, and a pause with bytes behind it.

static void
s_test_life (void)
{
    recorder_t recorder = {.events = zchunk_new (NULL, 256)};
    zchunk_t *stream = zchunk_new (NULL, 0);
    s_puts (stream, false, FRAME_TEXT, "a");
    s_puts (stream, true, FRAME_CONTINUATION, "b");
    byte *data = zchunk_data (stream);
    reassembly_t *self = NULL;
    assert (!reassembly_pending (self));
    int code = s_feed (&self, &recorder, data, 0);
    assert (code == 0 && !self);
    code = s_feed (&self, &recorder, data, 7); //  The first fragment, whole
    assert (code == 0 && reassembly_pending (self));
    code = s_feed (&self, &recorder, data + 7, 3); //  Half a header
    assert (code == 0 && reassembly_pending (self));
    code = s_feed (&self, &recorder, data + 10, 4);
    assert (code == 0 && !self && zchunk_streq (recorder.events, "1 0 ab\n"));

    recorder.pausing = true; //  At a ping, with two messages behind it that nobody shall see yet
    zchunk_set (recorder.events, NULL, 0);
    zchunk_set (stream, NULL, 0);
    s_puts (stream, true, FRAME_PING, "");
    s_puts (stream, true, FRAME_TEXT, "c");
    s_puts (stream, true, FRAME_TEXT, "d");
    code = reassembly_feed (&self, zchunk_data (stream), zchunk_size (stream), TEST_MAX_BYTES,
                            s_record, &recorder);
    assert (code == 0 && self && !reassembly_pending (self));
    assert (zchunk_streq (recorder.events, "9 0 \n"));
    recorder.paused = false; //  Resumed with more bytes: the order holds
    zchunk_set (stream, NULL, 0);
    s_puts (stream, true, FRAME_TEXT, "e");
    code = s_feed (&self, &recorder, zchunk_data (stream), zchunk_size (stream));
    assert (code == 0 && !self);
    assert (zchunk_streq (recorder.events, "9 0 \n1 0 c\n1 0 d\n1 0 e\n"));

    recorder.pausing = false; //  A limit that sinks below what fragments hold already
    zchunk_set (stream, NULL, 0);
    s_puts (stream, false, FRAME_TEXT, "long");
    code = s_feed (&self, &recorder, zchunk_data (stream), zchunk_size (stream));
    assert (code == 0);
    zchunk_set (stream, NULL, 0);
    s_puts (stream, true, FRAME_CONTINUATION, "");
    code = reassembly_feed (&self, zchunk_data (stream), zchunk_size (stream), 3, s_record,
                            &recorder);
    assert (code == FRAME_CLOSE_TOO_LARGE && !reassembly_pending (self));
    zchunk_destroy (&stream);
    zchunk_destroy (&recorder.events);
    reassembly_destroy (&self);
    reassembly_destroy (&self);
}

void
reassembly_test (bool verbose)
{
    printf (" * reassembly: ");
    if (verbose)
        printf ("\n");
    s_test_rfc_examples ();
    s_test_mixed ();
    s_test_close_frames ();
    s_test_violations ();
    s_test_limit (0, TEST_MAX_BYTES, true);
    s_test_limit (0, TEST_MAX_BYTES + 1, false);
    s_test_limit (300, TEST_MAX_BYTES - 300, true);
    s_test_limit (300, TEST_MAX_BYTES - 299, false);
    s_test_limit (TEST_MAX_BYTES, 1, false);
    s_test_life ();
    printf ("OK\n");
}
