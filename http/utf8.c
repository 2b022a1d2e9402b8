//  Validity is table 3-7 of the Unicode standard: a lead byte fixes how many bytes follow, and four
//  leads narrow the range of the second byte, which is what keeps out overlong forms (E0, F0),
//  surrogates (ED) and what lies past U+10FFFF (F4). Most text is ASCII, so eight bytes at a time
//  are tried for that first.

#include "http/utf8.h"

//  Returns the size of the character at text, 0 when it is not valid. size is at least 1.

static size_t
s_character_size (const byte *text, size_t size)
{
    byte lead = text[0];
    if (lead < 0x80)
        return 1;
    size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (lead < 0xC2 || lead > 0xF4 || length > size)
        return 0;
    byte least = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    byte most = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (text[1] < least || text[1] > most)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((text[i] & 0xC0) != 0x80)
            return 0;
    return length;
}

static bool
s_is_ascii_word (const byte *text)
{
    uint64_t word;
    memcpy (&word, text, sizeof (word));
    return (word & 0x8080808080808080u) == 0;
}

bool
utf8_valid (const char *text, size_t size)
{
    const byte *bytes = (const byte *) text;
    size_t at = 0;
    while (at < size) {
        if (size - at >= sizeof (uint64_t) && s_is_ascii_word (bytes + at))
            at += sizeof (uint64_t);
        else {
            size_t length = s_character_size (bytes + at, size - at);
            if (length == 0)
                return false;
            at += length;
        }
    }
    return true;
}

static bool
s_is_continuation (char character)
{
    return ((byte) character & 0xC0) == 0x80;
}

size_t
utf8_count (const char *text, size_t size)
{
    size_t count = 0;
    for (size_t i = 0; i < size; i++)
        count += !s_is_continuation (text[i]);
    return count;
}

//  The code point of a valid character, up to U+FFFF. White space has none beyond, so a longer
//  character may answer anything that is not white space.

static uint32_t
s_code_point (const char *text)
{
    const byte *bytes = (const byte *) text;
    if (bytes[0] < 0x80)
        return bytes[0];
    if (bytes[0] < 0xE0)
        return (bytes[0] & 0x1Fu) << 6 | (bytes[1] & 0x3Fu);
    if (bytes[0] < 0xF0)
        return (bytes[0] & 0x0Fu) << 12 | (bytes[1] & 0x3Fu) << 6 | (bytes[2] & 0x3Fu);
    return UINT32_MAX;
}

static bool
s_is_white_space (uint32_t code)
{
    return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
           code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

static size_t
s_join_line_ends (char *text, size_t size)
{
    size_t kept = 0;
    for (size_t i = 0; i < size; i++)
        if (text[i] != '\r' || i + 1 == size || text[i + 1] != '\n')
            text[kept++] = text[i];
    return kept;
}

static size_t
s_next (const char *text, size_t at, size_t size)
{
    do
        at++;
    while (at < size && s_is_continuation (text[at]));
    return at;
}

static size_t
s_previous (const char *text, size_t at)
{
    do
        at--;
    while (at > 0 && s_is_continuation (text[at]));
    return at;
}

size_t
utf8_trim (char *text, size_t size)
{
    size_t end = s_join_line_ends (text, size);
    size_t start = 0;
    while (start < end && s_is_white_space (s_code_point (text + start)))
        start = s_next (text, start, end);
    while (end > start && s_is_white_space (s_code_point (text + s_previous (text, end))))
        end = s_previous (text, end);
    size_t trimmed = end - start;
    if (start > 0)
        memmove (text, text + start, trimmed);
    if (trimmed < size)
        text[trimmed] = 0;
    return trimmed;
}

//  ------------------------------------------------------------------------
//  Self test

//  Writes code in the form of length bytes, whether that is allowed or not.

static void
s_encode (uint32_t code, size_t length, char *text)
{
    static const byte leads[] = {0, 0x00, 0xC0, 0xE0, 0xF0};
    for (size_t i = length - 1; i > 0; i--) {
        text[i] = (char) (0x80 | (code & 0x3F));
        code >>= 6;
    }
    text[0] = (char) (leads[length] | code);
}

static size_t
s_shortest (uint32_t code)
{
    return code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
}

//  Every code point that four bytes can hold: valid in its shortest form, unless it is a surrogate
//  or too large, and in no other.

static void
s_test_all_code_points (void)
{
    for (uint32_t code = 0; code < 0x200000; code++) {
        char text[4];
        bool allowed = code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
        size_t shortest = s_shortest (code);
        for (size_t length = shortest; length <= 4; length++) {
            s_encode (code, length, text);
            assert (utf8_valid (text, length) == (allowed && length == shortest));
        }
    }
}

//  Each prefix of a character is invalid, alone and before other text, on either side of the word.

static void
s_test_cut_characters (void)
{
    static const char *const characters[] = {"\u00E9", "\u20AC", "\U0001F600"};
    for (size_t i = 0; i < 3; i++)
        for (size_t length = 1; length < strlen (characters[i]); length++)
            for (size_t before = 0; before <= 9; before++) {
                char text[32] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
                memcpy (text + before, characters[i], length);
                assert (!utf8_valid (text, before + length));
                assert (!utf8_valid (text, 30));
            }
}

static void
s_test_trim_one (const char *text, const char *wanted)
{
    char *copy = strdup (text);
    assert (copy);
    size_t size = utf8_trim (copy, strlen (text));
    assert (size == strlen (wanted) && streq (copy, wanted));
    freen (copy);
}

//  Each code point of the basic plane on both sides of a letter: cut if and only if it is one of
//  the 25 that are white.

static void
s_test_white_space (void)
{
    size_t white = 0;
    for (uint32_t code = 0; code < 0x10000; code++) {
        size_t length = s_shortest (code);
        char text[8];
        s_encode (code, length, text);
        text[length] = 'a';
        s_encode (code, length, text + length + 1);
        if ((code < 0xD800 || code > 0xDFFF) && utf8_trim (text, 2 * length + 1) == 1) {
            assert (text[0] == 'a' && text[1] == 0);
            white++;
        }
    }
    assert (white == 25);
}

void
utf8_test (bool verbose)
{
    printf (" * utf8: ");
    if (verbose)
        printf ("\n");
    assert (utf8_valid ("", 0));
    assert (utf8_valid ("plain text of two words", 23));
    assert (utf8_valid ("a\0b", 3)); //  NUL is a character
    assert (!utf8_valid ("\x80", 1));
    assert (!utf8_valid ("\xC0\x80", 2)); //  Java's NUL is overlong
    assert (!utf8_valid ("\xFE", 1));
    assert (!utf8_valid ("\xFF", 1));
    s_test_all_code_points ();
    s_test_cut_characters ();

    assert (utf8_count ("", 0) == 0);
    assert (utf8_count ("na\u00EFve \u20AC \U0001F600", 15) == 9);

    s_test_trim_one ("", "");
    s_test_trim_one ("a", "a");
    s_test_trim_one (" \t\r\n\u3000 ", "");
    s_test_trim_one ("\u00A0a b\u2029", "a b");
    s_test_trim_one ("\U0001F600 ", "\U0001F600");
    s_test_trim_one ("a\r\nb\rc\n\r\r\nd", "a\nb\rc\n\r\nd"); //  A CR alone stays
    s_test_trim_one ("\u200Ba\uFEFF", "\u200Ba\uFEFF");       //  No width is not white
    s_test_white_space ();

    char exact[3] = {'a', 'b', 'c'}; //  Nothing to cut: no NUL is written past the end
    assert (utf8_trim (exact, 3) == 3);
    printf ("OK\n");
}
