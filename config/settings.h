//  settings - every key that the program has, read from an ini file and -s options
//
//  source     one table in settings.c: key, type, default, limits and a sentence for each; --help,
//             --print-config, config/breadboard.ini and all checks come from it
//  thread     made by main; never changed once made, so any thread may read it

#ifndef SETTINGS_H_INCLUDED
#define SETTINGS_H_INCLUDED

#include <czmq.h>

//  Lists are space separated; an empty string means that the key is not set.

typedef struct {
    char *http_listen; //  "ADDRESS:PORT"
    char *http_path;
    int64_t http_max_connections; //  0: as many as descriptors allow
    int64_t http_threads;
    char *http_allowed_hosts;
    char *http_metrics; //  "loopback", "all" or "off"
    char *http_allowed_origins;
    bool http_trust_proxy;
    char *http_templates;
    char *http_static;

    char *database_url;
    char *database_state_dir;
    int64_t database_connect_timeout_ms;
    int64_t database_statement_timeout_ms;
    int64_t database_lock_timeout_ms;

    char *board_title;
    int64_t board_page_size;
    int64_t board_author_max; //  Code points
    int64_t board_text_max;   //  Code points

    int64_t limits_max_message_bytes;
    int64_t limits_messages_per_second; //  0: no limit
    int64_t limits_burst;
    int64_t limits_bytes_per_second; //  0: no limit, here and below
    int64_t limits_connections_per_address;
    int64_t limits_handshakes_per_address; //  A second
    int64_t limits_messages_per_address;   //  A second
    int64_t limits_bytes_per_address;      //  A second
    char *limits_exempt_addresses;         //  Addresses and networks

    char *log_level;  //  "debug", "info", "warning" or "error"
    char *log_format; //  "text" or "json"
} settings_t;

//  Reads file (NULL: none), then each of the overrides "SECTION.KEY=VALUE" in turn (a list of
//  strings, NULL: none). Returns the settings, or NULL when something is wrong, and then *error_p
//  is a sentence with file, line and key, caller's to free.
settings_t *settings_new (const char *file, zlistx_t *overrides, char **error_p);

void settings_destroy (settings_t **self_p);

//  Writes an ini file with every key, its sentence and its value to stream. With NULL settings the
//  values are the defaults, and the text is config/breadboard.ini's, to the letter.
void settings_print (const settings_t *self, FILE *stream);

//  Writes a table of the keys and their defaults, for --help.
void settings_help (FILE *stream);

//  For a reload: gives self the values of running for each key that only a restart can change.
//  Returns the names of those that differed, space separated, "" when none did; caller frees.
char *settings_keep_fixed (settings_t *self, const settings_t *running);

void settings_test (bool verbose);

#endif
