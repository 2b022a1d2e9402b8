//  RFC 6455, 5.2. A header is 2 bytes, then 0, 2 or 8 of extended length in network order, then in
//  a client's frame 4 of mask. Parsing starts afresh on each call and never reads past size. What
//  is a violation for some bytes is one for whatever follows them, so a stream has the same verdict
//  however it was cut.

#include "http/frame.h"

static bool
s_opcode_known (int opcode)
{
    return opcode <= FRAME_BINARY || (opcode >= FRAME_CLOSE && opcode <= FRAME_PONG);
}

//  Reads the payload's length. Returns where in the header it ends, 0 or -1 as frame_parse_header
//  does. Bytes still to come count as FF: when even that is less than what a shorter form holds,
//  the length is not minimal.

static int
s_parse_length (const byte *data, size_t size, uint64_t *length)
{
    byte marker = data[1] & 0x7F;
    *length = marker;
    if (marker < 126)
        return 2;
    size_t end = marker == 126 ? 4 : 10;
    uint64_t least = marker == 126 ? 126 : 0x10000;
    *length = 0;
    for (size_t i = 2; i < end; i++)
        *length = *length << 8 | (i < size ? data[i] : 0xFF);
    bool top_bit = marker == 127 && size > 2 && (data[2] & 0x80);
    if (*length < least || top_bit)
        return -1;
    return size < end ? 0 : (int) end;
}

int
frame_parse_header (const byte *data, size_t size, frame_header_t *header)
{
    header->opcode = -1;
    if (size < 1)
        return 0;
    bool final = data[0] & 0x80;
    int opcode = data[0] & 0x0F;
    bool control = opcode >= FRAME_CLOSE;
    if ((data[0] & 0x70) || !s_opcode_known (opcode) || (control && !final))
        return -1;
    if (size < 2)
        return 0;
    bool masked = data[1] & 0x80;
    if (!masked || (control && (data[1] & 0x7F) > FRAME_CONTROL_MAX_BYTES))
        return -1;
    uint64_t length;
    int end = s_parse_length (data, size, &length);
    if (end <= 0)
        return end;
    *header = (frame_header_t){.payload_size = length, .opcode = opcode, .final = final};
    if (size < (size_t) end + 4)
        return 0;
    memcpy (header->mask, data + end, 4);
    return end + 4;
}

size_t
frame_write_header (byte out[10], int opcode, uint64_t payload_size)
{
    size_t extended = payload_size < 126 ? 0 : payload_size < 0x10000 ? 2 : 8;
    out[0] = (byte) (0x80 | opcode);
    out[1] = extended == 0 ? (byte) payload_size : extended == 2 ? 126 : 127;
    for (size_t i = 0; i < extended; i++)
        out[2 + i] = (byte) (payload_size >> 8 * (extended - 1 - i));
    return 2 + extended;
}

void
frame_unmask (byte *payload, size_t size, const byte mask[4], size_t offset)
{
    byte key[8];
    for (size_t i = 0; i < 8; i++)
        key[i] = mask[(offset + i) % 4];
    uint64_t key_word;
    memcpy (&key_word, key, 8);
    size_t at = 0;
    for (; size - at >= 8; at += 8) {
        uint64_t word;
        memcpy (&word, payload + at, 8);
        word ^= key_word;
        memcpy (payload + at, &word, 8);
    }
    for (; at < size; at++)
        payload[at] ^= key[at % 8];
}

bool
frame_close_code_valid (uint16_t code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

zframe_t *
frame_new (int opcode, const char *payload, size_t size)
{
    byte header[10];
    size_t header_size = frame_write_header (header, opcode, size);
    zframe_t *self = zframe_new (NULL, header_size + size);
    assert (self);
    memcpy (zframe_data (self), header, header_size);
    if (size > 0)
        memcpy (zframe_data (self) + header_size, payload, size);
    return self;
}

zframe_t *
frame_new_close (uint16_t code, const char *reason)
{
    if (code == FRAME_CLOSE_NONE)
        return frame_new (FRAME_CLOSE, NULL, 0);
    size_t reason_size = strlen (reason);
    assert (frame_close_code_valid (code) && reason_size <= FRAME_REASON_MAX_BYTES);
    char payload[FRAME_CONTROL_MAX_BYTES] = {(char) (code >> 8), (char) (code & 0xFF)};
    memcpy (payload + 2, reason, reason_size);
    return frame_new (FRAME_CLOSE, payload, 2 + reason_size);
}

//  ------------------------------------------------------------------------
//  Self test

//  data is a header with a verdict of wanted; each prefix of it shorter than known must still be
//  open, each longer one must have the verdict. The copies have exact sizes, so a memory checker
//  sees a read past the end.

static void
s_test_verdict (const char *data, size_t size, size_t known, int wanted)
{
    for (size_t length = 1; length <= size; length++) {
        byte *copy = (byte *) zmalloc (length);
        memcpy (copy, data, length);
        frame_header_t header;
        int verdict = frame_parse_header (copy, length, &header);
        assert (verdict == (length < known ? 0 : wanted));
        freen (copy);
    }
}

static void
s_test_violations (void)
{
    s_test_verdict ("\xC1\x80mask", 6, 1, -1); //  Reserved bits
    s_test_verdict ("\xA1\x80mask", 6, 1, -1);
    s_test_verdict ("\x91\x80mask", 6, 1, -1);
    for (int opcode = 0; opcode < 16; opcode++) //  Reserved opcodes
        if ((opcode > 2 && opcode < 8) || opcode > 10) {
            char data[] = {(char) (0x80 | opcode), (char) 0x80, 0, 0, 0, 0};
            s_test_verdict (data, sizeof (data), 1, -1);
        }
    s_test_verdict ("\x08\x80mask", 6, 1, -1); //  Control frames in fragments
    s_test_verdict ("\x09\x80mask", 6, 1, -1);
    s_test_verdict ("\x0A\x80mask", 6, 1, -1);
    s_test_verdict ("\x81\x05Hello", 7, 2, -1);        //  Not masked
    s_test_verdict ("\x89\xFE\x00\x7Emask", 8, 2, -1); //  Control frames of 126 bytes and more
    s_test_verdict ("\x88\xFF\x00\x00\x00\x00\x00\x01\x00\x00mask", 14, 2, -1);
    s_test_verdict ("\x81\xFE\x00\x7Dmask", 8, 4, -1); //  Lengths that have a shorter form
    s_test_verdict ("\x81\xFE\x00\x00mask", 8, 4, -1);
    s_test_verdict ("\x81\xFF\x00\x00\x00\x00\x00\x00\xFF\xFFmask", 14, 8, -1);
    s_test_verdict ("\x81\xFF\x80\x00\x00\x00\x00\x01\x00\x00mask", 14, 3, -1); //  Top bit
}

//  What s_test_verdict takes as whole is parsed with these values.

static void
s_test_header (const char *data, size_t size, bool final, int opcode, uint64_t payload_size)
{
    s_test_verdict (data, size, size, (int) size);
    frame_header_t header;
    frame_parse_header ((const byte *) data, size - 5, &header);
    assert (header.opcode == -1);
    frame_parse_header ((const byte *) data, size - 4, &header); //  All but the mask
    assert (header.opcode == opcode && header.payload_size == payload_size);
    frame_parse_header ((const byte *) data, size, &header);
    assert (header.final == final && header.opcode == opcode);
    assert (header.payload_size == payload_size && memcmp (header.mask, "mask", 4) == 0);
}

static void
s_test_headers (void)
{
    s_test_header ("\x81\x80mask", 6, true, FRAME_TEXT, 0);
    s_test_header ("\x02\xFDmask", 6, false, FRAME_BINARY, 125);
    s_test_header ("\x88\xFDmask", 6, true, FRAME_CLOSE, 125);
    s_test_header ("\x00\xFE\x00\x7Emask", 8, false, FRAME_CONTINUATION, 126);
    s_test_header ("\x80\xFE\x01\x00mask", 8, true, FRAME_CONTINUATION, 256);
    s_test_header ("\x81\xFE\xFF\xFFmask", 8, true, FRAME_TEXT, 65535);
    s_test_header ("\x81\xFF\x00\x00\x00\x00\x00\x01\x00\x00mask", 14, true, FRAME_TEXT, 65536);
    s_test_header ("\x81\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFFmask", 14, true, FRAME_TEXT, INT64_MAX);
}

static void
s_test_mask (void)
{
    const byte mask[4] = {0x37, 0xFA, 0x21, 0x3D};
    byte hello[] = {0x7F, 0x9F, 0x4D, 0x51, 0x58}; //  RFC 6455, 5.7
    frame_unmask (hello, 5, mask, 0);
    assert (memcmp (hello, "Hello", 5) == 0);
    frame_unmask (hello, 0, mask, 0); //  Nothing is nothing
    assert (memcmp (hello, "Hello", 5) == 0);

    byte text[37]; //  In two parts, cut anywhere, as a byte at a time
    for (size_t cut = 0; cut <= sizeof (text); cut++) {
        for (size_t i = 0; i < sizeof (text); i++)
            text[i] = (byte) (i ^ mask[i % 4]);
        frame_unmask (text, cut, mask, 0);
        frame_unmask (text + cut, sizeof (text) - cut, mask, cut);
        for (size_t i = 0; i < sizeof (text); i++)
            assert (text[i] == i);
    }
}

static void
s_test_written (uint64_t payload_size, const char *wanted, size_t wanted_size)
{
    byte header[10];
    size_t size = frame_write_header (header, FRAME_TEXT, payload_size);
    assert (size == wanted_size && memcmp (header, wanted, size) == 0);
}

static void
s_test_frame (zframe_t *frame, const char *wanted, size_t wanted_size)
{
    assert (zframe_size (frame) == wanted_size);
    assert (memcmp (zframe_data (frame), wanted, wanted_size) == 0);
    zframe_destroy (&frame);
}

static void
s_test_close_codes (void)
{
    size_t valid = 0;
    for (uint32_t code = 0; code <= UINT16_MAX; code++)
        valid += frame_close_code_valid ((uint16_t) code);
    assert (valid == 4 + 8 + 2000);
    assert (!frame_close_code_valid (999) && !frame_close_code_valid (1004));
    assert (!frame_close_code_valid (1005) && !frame_close_code_valid (1006));
    assert (!frame_close_code_valid (1015) && !frame_close_code_valid (2999));
    assert (!frame_close_code_valid (5000));
}

void
frame_test (bool verbose)
{
    printf (" * frame: ");
    if (verbose)
        printf ("\n");
    frame_header_t header;
    assert (frame_parse_header (NULL, 0, &header) == 0);
    s_test_headers ();
    s_test_violations ();
    s_test_mask ();
    s_test_close_codes ();

    s_test_written (0, "\x81\x00", 2);
    s_test_written (125, "\x81\x7D", 2);
    s_test_written (126, "\x81\x7E\x00\x7E", 4);
    s_test_written (65535, "\x81\x7E\xFF\xFF", 4);
    s_test_written (65536, "\x81\x7F\x00\x00\x00\x00\x00\x01\x00\x00", 10);

    s_test_frame (frame_new (FRAME_TEXT, "Hello", 5), "\x81\x05Hello", 7); //  RFC 6455, 5.7
    s_test_frame (frame_new (FRAME_PONG, "", 0), "\x8A\x00", 2);
    s_test_frame (frame_new_close (FRAME_CLOSE_GOING_AWAY, "bye"),
                  "\x88\x05\x03\xE9"
                  "bye",
                  7);
    s_test_frame (frame_new_close (FRAME_CLOSE_TRY_LATER, ""), "\x88\x02\x03\xF5", 4);
    s_test_frame (frame_new_close (FRAME_CLOSE_NONE, ""), "\x88\x00", 2);
    printf ("OK\n");
}
