//  folder - the files of a folder that a setting names, each handed to its reader
//
//  thread     main's, at the start and at a reload; its calls block

#ifndef FOLDER_H_INCLUDED
#define FOLDER_H_INCLUDED

#include <czmq.h>

//  Whether a file of this name is wanted.
typedef bool (folder_filter_fn) (const char *name);

//  Takes a file: its name, its path, its bytes (the reader's from then on). Returns 0, or -1 to
//  stop, and then *error_p is a sentence.
typedef int (folder_reader_fn) (void *arg, const char *name, const char *path, zchunk_t **data_p,
                                char **error_p);

//  Reads each wanted file of the folder at path, not of folders in it, and hands it to the reader.
//  Returns 0, or -1, and then *error_p is a sentence that names the setting or the file, caller's
//  to free.
int folder_read (const char *path, const char *setting, folder_filter_fn *filter,
                 folder_reader_fn *reader, void *arg, char **error_p);

//  For tests: makes an empty folder in which any user may have one. Returns its path, caller's to
//  free; the folder is the caller's to remove.
char *folder_test_new (void);

//  For tests: writes the text to a file of the folder.
void folder_test_write (const char *folder, const char *name, const char *text);

void folder_test (bool verbose);

#endif
