//  fuzz_mustache - libFuzzer target: any bytes as a template
//
//  Whatever comes compiles or is refused with a reason, and what compiles renders, in bounded time,
//  to bytes with a NUL behind them. Beside it are a partial and data with one value of each kind.
//  build      clang -fsanitize=fuzzer,address,undefined with templates/mustache.c

#include "templates/mustache.h"

static const char s_data[] =
    "{\"a\":{\"b\":{\"c\":\"<&>\"}},\"b\":true,\"f\":false,\"i\":-7,\"n\":null,"
    "\"l\":[{\"b\":1},\"x\\ny\",[1,2],null],\"o\":{},\"r\":1.5,\"s\":\"'\"}";
static const char s_row[] = "-\n{{#l}}\n{{b}}{{.}}\n{{/l}}\n=";

int LLVMFuzzerTestOneInput (const uint8_t *bytes, size_t size);

int
LLVMFuzzerTestOneInput (const uint8_t *bytes, size_t size)
{
    static json_t *data;
    if (!data)
        data = json_loads (s_data, 0, NULL);
    assert (data);
    mustache_t *set = mustache_new ();
    int rc = mustache_add (set, "row", s_row, strlen (s_row));
    assert (rc == 0);
    if (mustache_add (set, "page", (const char *) bytes, size) == 0) {
        size_t text_size = 0;
        char *text = mustache_render (set, "page", data, &text_size);
        assert (text && text[text_size] == 0);
        freen (text);
        mustache_check (set);
    }
    else
        assert (strncmp (mustache_error (set), "page:", 5) == 0);
    mustache_destroy (&set);
    return 0;
}
