//  fuzz_form - foreign bytes to form_parse (), for libFuzzer or any driver of LLVMFuzzerTestOneInput
//
//  holds      whatever is parsed can be written as JSON and read again as the same object

#include "http/form.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    json_t *form = form_parse ((const char *) data, size);
    if (form) {
        char *text = json_dumps (form, JSON_COMPACT);
        assert (text);
        json_t *again = json_loads (text, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
        assert (!again || json_equal (form, again));
        json_decref (again);
        freen (text);
        json_decref (form);
    }
    return 0;
}
