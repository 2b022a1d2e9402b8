//  Compiling turns a template into an array of instructions, once. An instruction refers to the
//  template's own copy of the source, so nothing is copied or parsed again when it is rendered.
//  A section knows how far it is to its end, a partial points at the template that it names.
//  Rendering is one loop over instructions with a stack of frames: one for each section and each
//  partial that is entered, and a stack of contexts, one for each section. There is no recursion,
//  and no allocation but that of the text, which grows by doubling.
//
//  White space: a line that holds nothing but one tag that prints nothing leaves no trace, as the
//  specification asks. Such a partial's lines are all indented as the tag was. The specification
//  indents the partial's source, not what its values print; so an instruction that starts a line of
//  the source is marked fresh, and the current indentation, mostly none, is written before it.
//
//  Falsey are false, null, what is absent, and the empty list, as specified, and the empty string,
//  which the specification leaves open: {{#name}}by {{name}}{{/name}} then does what it says. Zero
//  and the empty object are true. Lists and objects print nothing.
//
//  Invariants
//  - Templates stay where they are until the set is destroyed, also those that are only named by a
//    partial (they have no instructions yet). So a partial may come before the template it names.
//  - A lookup changes nothing. (zhashx's moves a cursor, so threads could not share one.)
//  - A template that is broken changes nothing in the set.
//  - Whatever the templates are, rendering ends: see the limits.

#include "templates/mustache.h"

#define SOURCE_MAX_BYTES (1024 * 1024) //  Of one template
#define NESTED_MAX       64            //  Sections in each other, in one template
#define FRAMES_MAX       128           //  Sections and partials entered; deeper ones are nothing
#define STEPS_MAX        (1024 * 1024) //  Instructions and lookups; then rendering ends
#define OUTPUT_MAX_BYTES (64 * 1024 * 1024) //  Of one text; then rendering ends

typedef struct template template_t;

//  Bytes that somebody else owns
typedef struct {
    const char *text;
    size_t size;
} slice_t;

typedef enum {
    OP_TEXT,     //  Writes text
    OP_ESCAPED,  //  Writes the value that text names, escaped
    OP_RAW,      //  Writes the value that text names
    OP_SECTION,  //  Enters, or skips to behind its end
    OP_INVERTED, //  Goes on, or skips to behind its end
    OP_END,      //  Next element of the section's list, or leaves the section
    OP_PARTIAL,  //  Enters the partial; text is its indentation, NULL when it is inside a line
    OP_STOP      //  Leaves the template
} op_kind_t;

typedef struct {
    op_kind_t kind;
    bool fresh;          //  Starts a line of the source
    uint32_t line;       //  Where its tag starts, from 1
    uint32_t jump;       //  Sections: instructions from here to the end
    slice_t text;        //  Borrowed from the template's source
    template_t *partial; //  Borrowed from the set
} op_t;

struct template
{
    char *name;   //  Owned
    char *source; //  Owned
    op_t *ops;    //  Owned; NULL when a partial names the template and nobody has added it
};

struct mustache {
    template_t **templates; //  Owned, each; in the order of their names
    size_t count;
    char *error; //  Owned; NULL before any
};

//  ------------------------------------------------------------------------
//  A buffer that grows

typedef struct {
    char *data; //  Owned
    size_t size;
    size_t room;
} buffer_t;

static void
s_buffer_grow (buffer_t *self, size_t more)
{
    size_t room = self->room ? self->room : 2048;
    while (room < self->size + more)
        room *= 2;
    self->data = (char *) realloc (self->data, room);
    assert (self->data);
    self->room = room;
}

static inline void
s_buffer_append (buffer_t *self, const void *data, size_t size)
{
    if (size > self->room - self->size)
        s_buffer_grow (self, size);
    if (size > 0)
        memcpy (self->data + self->size, data, size);
    self->size += size;
}

//  ------------------------------------------------------------------------
//  The set

mustache_t *
mustache_new (void)
{
    return (mustache_t *) zmalloc (sizeof (mustache_t));
}

static void
s_template_destroy (template_t **self_p)
{
    template_t *self = *self_p;
    freen (self->name);
    freen (self->source);
    freen (self->ops);
    freen (*self_p);
}

void
mustache_destroy (mustache_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        mustache_t *self = *self_p;
        for (size_t index = 0; index < self->count; index++)
            s_template_destroy (&self->templates[index]);
        freen (self->templates);
        freen (self->error);
        freen (*self_p);
    }
}

//  Orders a template against a name as strcmp () does.

static int
s_compare (const template_t *template, slice_t name)
{
    int order = strncmp (template->name, name.text, name.size);
    return order ? order : template->name[name.size] != 0;
}

//  Returns where the name is, or where it belongs when it is not in the set.

static size_t
s_place (const mustache_t *self, slice_t name)
{
    size_t low = 0;
    size_t high = self->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (s_compare (self->templates[middle], name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static template_t *
s_find (const mustache_t *self, slice_t name)
{
    size_t place = s_place (self, name);
    bool found = place < self->count && s_compare (self->templates[place], name) == 0;
    return found ? self->templates[place] : NULL;
}

//  Finds the template, or makes one without instructions.

static template_t *
s_require (mustache_t *self, slice_t name)
{
    template_t *template = s_find (self, name);
    if (template)
        return template;

    size_t place = s_place (self, name);
    template_t **grown = (template_t **) realloc (self->templates,
                                                  (self->count + 1) * sizeof (template_t *));
    assert (grown);
    memmove (grown + place + 1, grown + place, (self->count - place) * sizeof (template_t *));
    self->templates = grown;
    self->count++;
    template = (template_t *) zmalloc (sizeof (template_t));
    template->name = (char *) zmalloc (name.size + 1);
    memcpy (template->name, name.text, name.size);
    grown[place] = template;
    return template;
}

const char *
mustache_error (const mustache_t *self)
{
    assert (self);
    return self->error ? self->error : "";
}

bool
mustache_has (const mustache_t *self, const char *name)
{
    assert (self && name);
    const template_t *template = s_find (self, (slice_t){name, strlen (name)});
    return template && template->ops;
}

//  Always returns -1, for the caller to pass on.

static int
s_fail (mustache_t *self, const char *name, uint32_t line, const char *format, ...)
{
    va_list arguments;
    va_start (arguments, format);
    char *reason = zsys_vprintf (format, arguments);
    va_end (arguments);
    freen (self->error);
    self->error = zsys_sprintf ("%s:%u: %s", name, line, reason);
    zstr_free (&reason);
    return -1;
}

int
mustache_check (mustache_t *self)
{
    assert (self);
    for (size_t index = 0; index < self->count; index++) {
        const template_t *template = self->templates[index];
        for (const op_t *op = template->ops; op && op->kind != OP_STOP; op++)
            if (op->kind == OP_PARTIAL && !op->partial->ops)
                return s_fail (self, template->name, op->line, "there is no template \"%s\"",
                               op->partial->name);
    }
    return 0;
}

//  ------------------------------------------------------------------------
//  Compiling

typedef struct {
    mustache_t *set;             //  Borrowed
    const char *name;            //  Borrowed; of the template
    const char *source;          //  Borrowed; what is compiled
    const char *end;             //  Behind the source
    const char *cursor;          //  Up to here it is compiled
    const char *counted;         //  Up to here lines are counted
    uint32_t line;               //  Line at counted
    slice_t open;                //  Delimiters; borrowed from the source, or constant
    slice_t close;               //
    bool fresh;                  //  A line has begun, and no instruction yet stands for that
    buffer_t ops;                //  Owned; array of op_t
    size_t open_ops[NESTED_MAX]; //  Sections not closed yet, as indices into ops
    size_t nested;               //
} compiler_t;

typedef struct {
    char sigil;          //  '{', '&', '#', '^', '/', '>', '!', '=', or 0 for a plain name
    slice_t content;     //  What follows the sigil, without white space around it
    uint32_t line;       //  Where the tag starts
    const char *start;   //  What the tag takes: itself, or its whole line when it stands alone
    const char *end;     //
    bool alone;          //
    slice_t indentation; //  Blanks before a tag that stands alone
} tag_t;

static bool
s_is_blank (char byte)
{
    return byte == ' ' || byte == '\t';
}

static bool
s_is_white (char byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

static slice_t
s_trim (slice_t slice)
{
    while (slice.size && s_is_white (slice.text[0])) {
        slice.text++;
        slice.size--;
    }
    while (slice.size && s_is_white (slice.text[slice.size - 1]))
        slice.size--;
    return slice;
}

//  Takes a word off the start of a trimmed text; empty when none is left.

static slice_t
s_take_word (slice_t *text)
{
    slice_t word = {text->text, 0};
    while (word.size < text->size && !s_is_white (word.text[word.size]))
        word.size++;
    *text = s_trim ((slice_t){word.text + word.size, text->size - word.size});
    return word;
}

//  Arguments for "%.*s": names in errors are cut, a broken template's may be of any length.

#define SHOWN(slice) (int) ((slice).size < 64 ? (slice).size : 64), (slice).text

static op_t *
s_op (const compiler_t *self, size_t index)
{
    return (op_t *) self->ops.data + index;
}

static size_t
s_ops_count (const compiler_t *self)
{
    return self->ops.size / sizeof (op_t);
}

//  Returns the new instruction, which stays in its place until the next one is made.

static op_t *
s_emit (compiler_t *self, op_kind_t kind, slice_t text, uint32_t line)
{
    op_t op = {.kind = kind, .fresh = self->fresh, .line = line, .text = text};
    s_buffer_append (&self->ops, &op, sizeof (op));
    self->fresh = false;
    return s_op (self, s_ops_count (self) - 1);
}

static bool
s_starts_line (const compiler_t *self, const char *where)
{
    return where == self->source || where[-1] == '\n';
}

static void
s_compile_text (compiler_t *self, const char *until)
{
    slice_t text = {self->cursor, (size_t) (until - self->cursor)};
    if (text.size > 0) {
        self->fresh = self->fresh || s_starts_line (self, text.text);
        s_emit (self, OP_TEXT, text, self->line);
    }
}

static uint32_t
s_count_lines (compiler_t *self, const char *until)
{
    for (; self->counted < until; self->counted++)
        if (*self->counted == '\n')
            self->line++;
    return self->line;
}

//  Finds the closing delimiter that has the byte last before it; 0 stands for any byte. Returns
//  where last, or else the delimiter, is; or NULL.

static const char *
s_find_close (const compiler_t *self, const char *text, char last)
{
    const char *from = text;
    const char *found;
    while (
        (found = memmem (from, (size_t) (self->end - from), self->close.text, self->close.size))) {
        if (!last)
            return found;
        if (found > text && found[-1] == last)
            return found - 1;
        from = found + 1;
    }
    return NULL;
}

//  A tag stands alone when blanks are all that its first and last line hold beside it. Then its
//  line is its own, line end included.

static void
s_claim_line (const compiler_t *self, tag_t *tag)
{
    const char *start = tag->start;
    while (start > self->source && s_is_blank (start[-1]))
        start--;
    const char *end = tag->end;
    while (end < self->end && s_is_blank (*end))
        end++;
    if (self->end - end >= 2 && end[0] == '\r' && end[1] == '\n')
        end++;
    if (s_starts_line (self, start) && (end == self->end || *end == '\n')) {
        tag->alone = true;
        tag->indentation = (slice_t){start, (size_t) (tag->start - start)};
        tag->start = start;
        tag->end = end == self->end ? end : end + 1;
    }
}

static int
s_parse_tag (compiler_t *self, const char *start, tag_t *tag)
{
    const char *text = start + self->open.size;
    while (text < self->end && s_is_white (*text))
        text++;
    *tag = (tag_t){.start = start, .line = s_count_lines (self, start)};
    if (text < self->end && memchr ("{&#^/>!=", *text, 8))
        tag->sigil = *text++;

    char last = (char) (tag->sigil == '{' ? '}' : tag->sigil == '=' ? '=' : 0);
    const char *close = s_find_close (self, text, last);
    if (!close)
        return s_fail (self->set, self->name, tag->line, "tag is not closed");
    tag->content = s_trim ((slice_t){text, (size_t) (close - text)});
    tag->end = close + (last ? 1 : 0) + self->close.size;
    if (tag->sigil && memchr ("#^/>!=", tag->sigil, 6))
        s_claim_line (self, tag);
    return 0;
}

//  A name is one word. That of a value is "." or words with dots between them; that of a partial is
//  a file's, where dots mean nothing.

static int
s_check_name (compiler_t *self, const tag_t *tag)
{
    slice_t name = tag->content;
    if (name.size == 0)
        return s_fail (self->set, self->name, tag->line, "tag has no name");
    bool empty_part = name.text[0] == '.' || name.text[name.size - 1] == '.';
    for (size_t index = 0; index < name.size; index++) {
        unsigned char byte = (unsigned char) name.text[index];
        if (byte <= ' ' || byte == 0x7F)
            return s_fail (self->set, self->name, tag->line, "name has white space in it");
        if (byte == '.' && index > 0 && name.text[index - 1] == '.')
            empty_part = true;
    }
    if (empty_part && name.size > 1 && tag->sigil != '>')
        return s_fail (self->set, self->name, tag->line, "name \"%.*s\" has an empty part",
                       SHOWN (name));
    return 0;
}

static int
s_compile_delimiters (compiler_t *self, const tag_t *tag)
{
    slice_t rest = tag->content;
    slice_t open = s_take_word (&rest);
    slice_t close = s_take_word (&rest);
    if (close.size == 0 || rest.size > 0 || memchr (open.text, '=', open.size) ||
        memchr (close.text, '=', close.size))
        return s_fail (self->set, self->name, tag->line,
                       "delimiters are not two words without \"=\"");
    self->open = open;
    self->close = close;
    return 0;
}

static int
s_open_section (compiler_t *self, const tag_t *tag)
{
    if (self->nested == NESTED_MAX)
        return s_fail (self->set, self->name, tag->line, "sections are nested deeper than %d",
                       NESTED_MAX);
    self->open_ops[self->nested++] = s_ops_count (self);
    s_emit (self, tag->sigil == '#' ? OP_SECTION : OP_INVERTED, tag->content, tag->line);
    return 0;
}

static int
s_close_section (compiler_t *self, const tag_t *tag)
{
    slice_t name = tag->content;
    if (self->nested == 0)
        return s_fail (self->set, self->name, tag->line, "\"/%.*s\" closes nothing", SHOWN (name));
    size_t index = self->open_ops[--self->nested];
    op_t *section = s_op (self, index);
    if (name.size != section->text.size || memcmp (name.text, section->text.text, name.size) != 0)
        return s_fail (self->set, self->name, tag->line,
                       "\"/%.*s\" where section \"%.*s\" of line %u is open", SHOWN (name),
                       SHOWN (section->text), section->line);

    section->jump = (uint32_t) (s_ops_count (self) - index);
    //  An inverted section was not entered, so there is nothing to leave
    op_kind_t kind = section->kind == OP_SECTION ? OP_END : OP_TEXT;
    s_emit (self, kind, (slice_t){name.text, 0}, tag->line);
    return 0;
}

static int
s_compile_partial (compiler_t *self, const tag_t *tag)
{
    op_t *op = s_emit (self, OP_PARTIAL, tag->indentation, tag->line);
    op->partial = s_require (self->set, tag->content);
    return 0;
}

static int
s_compile_tag (compiler_t *self, const tag_t *tag)
{
    s_compile_text (self, tag->start);
    self->cursor = tag->end;
    if (!tag->alone && s_starts_line (self, tag->start))
        self->fresh = true;
    if (tag->sigil == '!')
        return 0;
    if (tag->sigil == '=')
        return s_compile_delimiters (self, tag);
    if (s_check_name (self, tag) != 0)
        return -1;
    if (tag->sigil == '#' || tag->sigil == '^')
        return s_open_section (self, tag);
    if (tag->sigil == '/')
        return s_close_section (self, tag);
    if (tag->sigil == '>')
        return s_compile_partial (self, tag);
    s_emit (self, tag->sigil ? OP_RAW : OP_ESCAPED, tag->content, tag->line);
    return 0;
}

static int
s_compile (compiler_t *self)
{
    const char *start;
    while ((start = memmem (self->cursor, (size_t) (self->end - self->cursor), self->open.text,
                            self->open.size))) {
        tag_t tag;
        if (s_parse_tag (self, start, &tag) != 0 || s_compile_tag (self, &tag) != 0)
            return -1;
    }
    s_compile_text (self, self->end);
    if (self->nested > 0) {
        const op_t *section = s_op (self, self->open_ops[self->nested - 1]);
        return s_fail (self->set, self->name, section->line, "section \"%.*s\" is not closed",
                       SHOWN (section->text));
    }
    s_emit (self, OP_STOP, (slice_t){self->end, 0}, self->line);
    return 0;
}

int
mustache_add (mustache_t *self, const char *name, const char *source, size_t size)
{
    assert (self && name && (source || size == 0));
    if (size > SOURCE_MAX_BYTES)
        return s_fail (self, name, 1, "template is larger than %d bytes", SOURCE_MAX_BYTES);
    char *copy = (char *) zmalloc (size + 1);
    if (size > 0)
        memcpy (copy, source, size);
    compiler_t compiler = {.set = self,
                           .name = name,
                           .source = copy,
                           .end = copy + size,
                           .cursor = copy,
                           .counted = copy,
                           .line = 1,
                           .open = {"{{", 2},
                           .close = {"}}", 2}};
    if (s_compile (&compiler) != 0) {
        freen (compiler.ops.data);
        freen (copy);
        return -1;
    }
    template_t *template = s_require (self, (slice_t){name, strlen (name)});
    freen (template->source);
    freen (template->ops);
    template->source = copy;
    template->ops = (op_t *) compiler.ops.data;
    return 0;
}

//  ------------------------------------------------------------------------
//  Rendering

//  A section or a partial that was entered
typedef struct {
    const op_t *op;         //  Which
    json_t *list;           //  Section: what it goes through, NULL for a single value
    size_t index;           //  Section: of the element that is the context now
    size_t indentation;     //  Partial: what to go back to
    size_t indentation_end; //
} frame_t;

typedef struct {
    buffer_t output;       //  Owned until it is returned
    buffer_t indents;      //  Owned; the indentations of all partials entered, one behind the other
    size_t indentation;    //  The current one is indents from here to their end
    size_t steps;          //  Taken so far
    bool ended;            //  The output is full
    size_t depth;          //  Frames in use
    size_t contexts_count; //
    frame_t frames[FRAMES_MAX];
    json_t *contexts[FRAMES_MAX + 1]; //  Borrowed; the first is the data
} render_t;

static inline void
s_write (render_t *self, const char *text, size_t size)
{
    if (size <= OUTPUT_MAX_BYTES - self->output.size)
        s_buffer_append (&self->output, text, size);
    else
        self->ended = true;
}

static const char s_entities[256][8] = {
    ['&'] = "&amp;", ['<'] = "&lt;", ['>'] = "&gt;", ['"'] = "&quot;", ['\''] = "&#39;",
};

//  Copies what lies between two bytes to escape in one piece.

static void
s_write_escaped (render_t *self, slice_t text)
{
    const char *start = text.text;
    const char *end = start + text.size;
    for (const char *byte = start; byte < end; byte++) {
        const char *entity = s_entities[(unsigned char) *byte];
        if (*entity) {
            s_write (self, start, (size_t) (byte - start));
            s_write (self, entity, strlen (entity));
            start = byte + 1;
        }
    }
    s_write (self, start, (size_t) (end - start));
}

static void
s_write_indentation (render_t *self)
{
    size_t size = self->indents.size - self->indentation;
    if (size > 0)
        s_write (self, self->indents.data + self->indentation, size);
}

//  Writes a template's own text. Its first line was indented if it is fresh; a line that begins at
//  its very end belongs to the next instruction.

static void
s_write_text (render_t *self, slice_t text)
{
    const char *end = text.text + text.size;
    const char *line_end = NULL;
    while (self->indents.size > self->indentation &&
           (line_end = (const char *) memchr (text.text, '\n', text.size)) && line_end + 1 < end) {
        s_write (self, text.text, (size_t) (line_end + 1 - text.text));
        s_write_indentation (self);
        text.text = line_end + 1;
        text.size = (size_t) (end - text.text);
    }
    s_write (self, text.text, text.size);
}

//  The least digits that give the same number again. The program never leaves the C locale, so the
//  decimal point is one.

static slice_t
s_print_real (double value, char *scratch, size_t size)
{
    int length = 0;
    for (int digits = 15; digits <= 17; digits++) {
        length = snprintf (scratch, size, "%.*g", digits, value);
        if (strtod (scratch, NULL) == value)
            break;
    }
    return (slice_t){scratch, (size_t) length};
}

//  What a value looks like; numbers are printed into scratch.

static slice_t
s_print (const json_t *value, char *scratch, size_t size)
{
    if (json_is_string (value))
        return (slice_t){json_string_value (value), json_string_length (value)};
    if (json_is_integer (value)) {
        int length = snprintf (scratch, size, "%" JSON_INTEGER_FORMAT, json_integer_value (value));
        return (slice_t){scratch, (size_t) length};
    }
    if (json_is_real (value))
        return s_print_real (json_real_value (value), scratch, size);
    if (json_is_true (value))
        return (slice_t){"true", 4};
    if (json_is_false (value))
        return (slice_t){"false", 5};
    return (slice_t){"", 0};
}

//  Returns the value, or NULL. The first part of a name is looked for from the innermost context
//  outwards, the others only in what that gave.

static json_t *
s_lookup (render_t *self, slice_t name)
{
    if (name.size == 1 && name.text[0] == '.')
        return self->contexts[self->contexts_count - 1];
    const char *end = name.text + name.size;
    const char *dot = (const char *) memchr (name.text, '.', name.size);
    size_t size = (size_t) ((dot ? dot : end) - name.text);
    json_t *value = NULL;
    for (size_t index = self->contexts_count; index > 0 && !value; index--) {
        value = json_object_getn (self->contexts[index - 1], name.text, size);
        self->steps++;
    }
    while (dot && value) {
        const char *part = dot + 1;
        dot = (const char *) memchr (part, '.', (size_t) (end - part));
        value = json_object_getn (value, part, (size_t) ((dot ? dot : end) - part));
    }
    return value;
}

static bool
s_is_true (const json_t *value)
{
    return value && !json_is_null (value) && !json_is_false (value) &&
           !(json_is_array (value) && json_array_size (value) == 0) &&
           !(json_is_string (value) && json_string_length (value) == 0);
}

static void
s_write_value (render_t *self, const op_t *op)
{
    char scratch[32];
    slice_t text = s_print (s_lookup (self, op->text), scratch, sizeof (scratch));
    if (op->kind == OP_ESCAPED)
        s_write_escaped (self, text);
    else
        s_write (self, text.text, text.size);
}

//  The following return the instruction to go on with.

static const op_t *
s_enter_section (render_t *self, const op_t *op)
{
    json_t *value = s_lookup (self, op->text);
    if (!s_is_true (value) || self->depth == FRAMES_MAX)
        return op + op->jump + 1;
    json_t *list = json_is_array (value) ? value : NULL;
    self->frames[self->depth++] = (frame_t){.op = op, .list = list};
    self->contexts[self->contexts_count++] = list ? json_array_get (list, 0) : value;
    return op + 1;
}

static const op_t *
s_end_section (render_t *self, const op_t *op)
{
    frame_t *frame = &self->frames[self->depth - 1];
    if (frame->list && ++frame->index < json_array_size (frame->list)) {
        self->contexts[self->contexts_count - 1] = json_array_get (frame->list, frame->index);
        return frame->op + 1;
    }
    self->depth--;
    self->contexts_count--;
    return op + 1;
}

//  On a line of its own a partial is indented as its line is, by what surrounds it and by its own
//  blanks; inside a line it is not indented.

static const op_t *
s_enter_partial (render_t *self, const op_t *op)
{
    if (!op->partial->ops || self->depth == FRAMES_MAX)
        return op + 1;
    self->frames[self->depth++] = (frame_t){
        .op = op, .indentation = self->indentation, .indentation_end = self->indents.size};
    if (op->text.text)
        s_buffer_append (&self->indents, op->text.text, op->text.size);
    else
        self->indentation = self->indents.size;
    return op->partial->ops;
}

//  NULL when the template that ends is the one that was asked for.

static const op_t *
s_leave_template (render_t *self)
{
    if (self->depth == 0)
        return NULL;
    const frame_t *frame = &self->frames[--self->depth];
    self->indentation = frame->indentation;
    self->indents.size = frame->indentation_end;
    return frame->op + 1;
}

static const op_t *
s_step (render_t *self, const op_t *op)
{
    if (op->fresh)
        s_write_indentation (self);
    switch (op->kind) {
    case OP_TEXT:
        s_write_text (self, op->text);
        return op + 1;
    case OP_ESCAPED:
    case OP_RAW:
        s_write_value (self, op);
        return op + 1;
    case OP_SECTION:
        return s_enter_section (self, op);
    case OP_INVERTED:
        return s_is_true (s_lookup (self, op->text)) ? op + op->jump + 1 : op + 1;
    case OP_END:
        return s_end_section (self, op);
    case OP_PARTIAL:
        return s_enter_partial (self, op);
    case OP_STOP:
        break;
    }
    return s_leave_template (self);
}

char *
mustache_render (const mustache_t *self, const char *name, json_t *data, size_t *size_p)
{
    assert (self && name);
    const template_t *template = s_find (self, (slice_t){name, strlen (name)});
    assert (template && template->ops);

    render_t
        render; //  Not zeroed as a whole: the stacks are large, and written before they are read
    render.output = (buffer_t){NULL, 0, 0};
    render.indents = (buffer_t){NULL, 0, 0};
    render.indentation = 0;
    render.steps = 0;
    render.ended = false;
    render.depth = 0;
    render.contexts[0] = data;
    render.contexts_count = 1;
    const op_t *op = template->ops;
    while (op && !render.ended && render.steps++ < STEPS_MAX)
        op = s_step (&render, op);

    if (size_p)
        *size_p = render.output.size;
    s_buffer_append (&render.output, "", 1);
    freen (render.indents.data);
    return render.output.data;
}

//  ------------------------------------------------------------------------
//  Self test

//  What a template renders to with data given as JSON text; caller frees.

static char *
s_render (mustache_t *self, const char *source, const char *data_text)
{
    json_t *data = json_loads (data_text, JSON_DECODE_ANY, NULL);
    assert (data);
    int rc = mustache_add (self, "page.html", source, strlen (source));
    assert (rc == 0);
    size_t size = 0;
    char *text = mustache_render (self, "page.html", data, &size);
    assert (strlen (text) == size);
    json_decref (data);
    return text;
}

static void
s_test_language (bool verbose)
{
    static const struct {
        const char *source;
        const char *data;
        const char *expected;
    } cases[] = {
        {"", "{}", ""},
        {"{{a}} {{{a}}} {{&a}}", "{\"a\":\"&<>\\\"'.\"}",
         "&amp;&lt;&gt;&quot;&#39;. &<>\"'. &<>\"'."},
        {"{{a}}|{{b}}|{{c}}", "{\"a\":\"<b>\",\"b\":\"x>y\",\"c\":\"\"}", "&lt;b&gt;|x&gt;y|"},
        {"{{a}}{{{a}}}", "{\"a\":\"\xC3\xA9\xE2\x82\xAC\"}",
         "\xC3\xA9\xE2\x82\xAC\xC3\xA9\xE2\x82\xAC"},
        //  Numbers, and what prints nothing
        {"{{.}}", "-9223372036854775808", "-9223372036854775808"},
        {"{{.}}", "1.1", "1.1"},
        {"{{.}}", "0.30000000000000004", "0.30000000000000004"},
        {"{{.}}", "2.0", "2"},
        {"{{.}}", "1e300", "1e+300"},
        {"{{t}} {{f}}", "{\"t\":true,\"f\":false}", "true false"},
        {"<{{n}}{{o}}{{l}}{{absent}}{{n.x}}>", "{\"n\":null,\"o\":{},\"l\":[1]}", "<>"},
        //  What is falsey
        {"{{#v}}+{{/v}}{{^v}}-{{/v}}", "{\"v\":false}", "-"},
        {"{{#v}}+{{/v}}{{^v}}-{{/v}}", "{\"v\":null}", "-"},
        {"{{#v}}+{{/v}}{{^v}}-{{/v}}", "{\"v\":[]}", "-"},
        {"{{#v}}+{{/v}}{{^v}}-{{/v}}", "{\"v\":\"\"}", "-"},
        {"{{#v}}+{{/v}}{{^v}}-{{/v}}", "{}", "-"},
        {"{{#v}}+{{/v}}{{^v}}-{{/v}}", "{\"v\":0}", "+"},
        {"{{#v}}+{{/v}}{{^v}}-{{/v}}", "{\"v\":0.0}", "+"},
        {"{{#v}}+{{/v}}{{^v}}-{{/v}}", "{\"v\":{}}", "+"},
        {"{{#v}}+{{/v}}{{^v}}-{{/v}}", "{\"v\":[null,null]}", "++"},
        //  Contexts: innermost first, null hides, only the first part of a name looks outwards
        {"{{#a}}{{x}}{{y}}{{z}}{{/a}}{{x}}", "{\"x\":1,\"y\":2,\"z\":3,\"a\":{\"x\":4,\"z\":null}}",
         "421"},
        {"{{#a}}{{b.c}}{{/a}}", "{\"a\":{\"b\":{}},\"b\":{\"c\":1}}", ""},
        {"{{#a.b}}{{.}}{{c}},{{/a.b}}", "{\"c\":0,\"a\":{\"b\":[\"x\",\"y\"]}}", "x0,y0,"},
        {"{{#.}}[{{#.}}{{.}}{{/.}}]{{/.}}", "[[1,2],[],[3]]", "[12][][3]"},
        //  Tags on lines of their own, and others
        {"a\n {{#v}} \nb\n\t{{/v}}\r\nc", "{\"v\":[1,2]}", "a\nb\nb\nc"},
        {"a\n{{! two\nlines }}\nb {{!}}\n", "{}", "a\nb \n"},
        {"{{#v}}{{/v}}\n", "{}", "\n"},
        {" {{v}}\n", "{\"v\":1}", " 1\n"},
        {"{{ # v }}{{ & v }}{{{ v }}}{{ / v }}", "{\"v\":\"<\"}", "<<"},
        {"{{=| |=}}{{v}}|v||={{ }}=|{{v}}", "{\"v\":1}", "{{v}}11"},
        //  Partials: indented when on a line of their own, their values and inner partials not
        {"{{>row.html}}", "{\"v\":1}", "<1>\n"},
        {"  {{> row.html}}\n.", "{\"v\":\"a\\nb\"}", "  <a\nb>\n."},
        {"  {{> row.html}} .", "{\"v\":1}", "  <1>\n ."},
        {" {{> outer.html}}\n", "{\"v\":1,\"l\":[1,2]}", " x\n  <1>\n 1\n 2\n y <1>\n\n"},
        {" {{> inline.html}}\n", "{\"v\":1}", " 1\n\n end"},
        {"{{> missing.html}}.", "{}", "."},
    };
    mustache_t *set = mustache_new ();
    static const char row[] = "<{{v}}>\n";
    static const char outer[] = "x\n {{> row.html}}\n{{#l}}\n{{.}}\n{{/l}}\ny {{> row.html}}\n";
    static const char inside[] = "{{! kept }}{{v}}\n{{^v}}\n?{{/v}}\n{{#v}}end{{/v}}";
    int rc = mustache_add (set, "row.html", row, strlen (row));
    assert (rc == 0);
    rc = mustache_add (set, "outer.html", outer, strlen (outer));
    assert (rc == 0);
    rc = mustache_add (set, "inline.html", inside, strlen (inside));
    assert (rc == 0);
    for (size_t index = 0; index < sizeof (cases) / sizeof (cases[0]); index++) {
        char *text = s_render (set, cases[index].source, cases[index].data);
        if (verbose || !streq (text, cases[index].expected))
            printf ("\n%s\n-> %s", cases[index].source, text);
        assert (streq (text, cases[index].expected));
        freen (text);
    }
    mustache_destroy (&set);
}

static void
s_test_broken (void)
{
    static const struct {
        const char *source;
        const char *error;
    } cases[] = {
        {"one\n{{two", "page.html:2: tag is not closed"},
        {"{{{a}}", "page.html:1: tag is not closed"},
        {"{{=a b}}", "page.html:1: tag is not closed"},
        {"\n\n{{}}", "page.html:3: tag has no name"},
        {"{{# }}", "page.html:1: tag has no name"},
        {"{{>}}", "page.html:1: tag has no name"},
        {"{{a b}}", "page.html:1: name has white space in it"},
        {"{{a..b}}", "page.html:1: name \"a..b\" has an empty part"},
        {"{{.a}}", "page.html:1: name \".a\" has an empty part"},
        {"{{#a}}\n{{#b}}{{/b}}", "page.html:1: section \"a\" is not closed"},
        {"{{#a}}\n{{/b}}", "page.html:2: \"/b\" where section \"a\" of line 1 is open"},
        {"{{! x\n}}{{/a}}", "page.html:2: \"/a\" closes nothing"},
        {"{{=<% =}}", "page.html:1: delimiters are not two words without \"=\""},
        {"{{=a b c=}}", "page.html:1: delimiters are not two words without \"=\""},
        {"{{=a= b=}}", "page.html:1: delimiters are not two words without \"=\""},
    };
    mustache_t *set = mustache_new ();
    assert (streq (mustache_error (set), ""));
    int rc = mustache_add (set, "page.html", "stays", 5);
    assert (rc == 0);
    for (size_t index = 0; index < sizeof (cases) / sizeof (cases[0]); index++) {
        const char *source = cases[index].source;
        rc = mustache_add (set, "page.html", source, strlen (source));
        assert (rc == -1 && streq (mustache_error (set), cases[index].error));
    }
    char *text = mustache_render (set, "page.html", NULL, NULL); //  No data is no value at all
    assert (streq (text, "stays"));
    freen (text);
    mustache_destroy (&set);
}

static void
s_test_set (void)
{
    mustache_t *set = mustache_new ();
    assert (!mustache_has (set, "page.html"));
    static const char page[] = "a\n{{> row.html}}";
    int rc = mustache_add (set, "page.html", page, strlen (page));
    assert (rc == 0);
    assert (mustache_has (set, "page.html") && !mustache_has (set, "page"));
    assert (!mustache_has (set, "row.html")); //  Named is not there yet
    rc = mustache_check (set);
    assert (rc == -1);
    assert (streq (mustache_error (set), "page.html:2: there is no template \"row.html\""));

    rc = mustache_add (set, "row.html", "1", 1);
    assert (rc == 0 && mustache_check (set) == 0);
    rc = mustache_add (set, "row.html", "2", 1); //  Replaced, for those that name it too
    assert (rc == 0);
    char *text = mustache_render (set, "page.html", NULL, NULL);
    assert (streq (text, "a\n2"));
    freen (text);
    mustache_destroy (&set);
    mustache_destroy (&set); //  Takes NULL
}

//  Compiles and renders source as page.html; returns the size of the text.

static size_t
s_rendered_size (mustache_t *set, const char *source, json_t *data)
{
    int rc = mustache_add (set, "page.html", source, strlen (source));
    assert (rc == 0);
    size_t size = 0;
    char *text = mustache_render (set, "page.html", data, &size);
    freen (text);
    return size;
}

//  Sections in each other around an x; caller frees.

static char *
s_nest (size_t depth)
{
    char *source = (char *) zmalloc (depth * 12 + 2);
    for (size_t index = 0; index < depth; index++) {
        memcpy (source + index * 6, "{{#a}}", 6);
        memcpy (source + depth * 6 + 1 + index * 6, "{{/a}}", 6);
    }
    source[depth * 6] = 'x';
    return source;
}

//  Recursion, depth, work and text are bounded.

static void
s_test_limits (void)
{
    mustache_t *set = mustache_new ();
    size_t size = s_rendered_size (set, "x{{> page.html}}", NULL);
    assert (size == FRAMES_MAX + 1);
    size = s_rendered_size (set, "{{> page.html}}{{> page.html}}", NULL); //  2^128 of them
    assert (size == 0);

    json_t *data = json_object ();
    char *large = (char *) zmalloc (OUTPUT_MAX_BYTES / 4 + 1);
    memset (large, 'x', OUTPUT_MAX_BYTES / 4);
    json_object_set_new (data, "large", json_string (large));
    size = s_rendered_size (set, "{{large}}{{large}}{{large}}{{large}}", data);
    assert (size == OUTPUT_MAX_BYTES);
    size = s_rendered_size (set, ".{{large}}{{large}}{{large}}{{large}}", data);
    assert (size == OUTPUT_MAX_BYTES / 4 * 3 + 1);
    freen (large);

    json_object_set_new (data, "a", json_true ());
    char *source = s_nest (NESTED_MAX);
    size = s_rendered_size (set, source, data);
    assert (size == 1);
    freen (source);
    source = s_nest (NESTED_MAX + 1);
    int rc = mustache_add (set, "page.html", source, strlen (source));
    assert (rc == -1);
    assert (streq (mustache_error (set), "page.html:1: sections are nested deeper than 64"));
    freen (source);
    json_decref (data);

    char *zeros = (char *) zmalloc (SOURCE_MAX_BYTES + 1); //  Any bytes are text
    rc = mustache_add (set, "page.html", zeros, SOURCE_MAX_BYTES);
    assert (rc == 0);
    rc = mustache_add (set, "page.html", zeros, SOURCE_MAX_BYTES + 1);
    assert (rc == -1);
    assert (streq (mustache_error (set), "page.html:1: template is larger than 1048576 bytes"));
    freen (zeros);
    mustache_destroy (&set);
}

static void
s_test_specified_case (const char *module, json_t *test)
{
    mustache_t *set = mustache_new ();
    const char *name;
    json_t *partial;
    json_object_foreach (json_object_get (test, "partials"), name, partial)
    {
        int rc = mustache_add (set, name, json_string_value (partial),
                               json_string_length (partial));
        assert (rc == 0);
    }
    const char *source = json_string_value (json_object_get (test, "template"));
    int rc = mustache_add (set, "", source, strlen (source));
    assert (rc == 0);
    char *text = mustache_render (set, "", json_object_get (test, "data"), NULL);
    const char *expected = json_string_value (json_object_get (test, "expected"));
    if (!streq (text, expected))
        printf ("\n%s: %s\ntemplate: %s\nexpected: %s\nrendered: %s\n", module,
                json_string_value (json_object_get (test, "name")), source, expected, text);
    assert (streq (text, expected));
    freen (text);
    mustache_destroy (&set);
}

//  Runs the cases of the official specification (github.com/mustache/spec, folder specs), in the
//  folder that the environment names or beside the repository.

static void
s_test_specification (void)
{
    static const char *const modules[] = {"comments", "delimiters", "interpolation",
                                          "inverted", "partials",   "sections"};
    const char *folder = getenv ("BREADBOARD_MUSTACHE_SPEC");
    if (!folder || !*folder)
        folder = "../shared/mustache-spec";
    if (!zsys_file_exists (folder)) {
        printf ("specification cases skipped: no folder %s, ", folder);
        return;
    }
    size_t count = 0;
    for (size_t index = 0; index < sizeof (modules) / sizeof (modules[0]); index++) {
        char *path = zsys_sprintf ("%s/%s.json", folder, modules[index]);
        json_error_t error;
        json_t *module = json_load_file (path, 0, &error);
        if (!module)
            printf ("%s: %s\n", path, error.text);
        assert (module);
        size_t number;
        json_t *test;
        json_array_foreach (json_object_get (module, "tests"), number, test)
        {
            s_test_specified_case (modules[index], test);
            count++;
        }
        json_decref (module);
        zstr_free (&path);
    }
    assert (count > 0);
    printf ("%zu specification cases, ", count);
}

void
mustache_test (bool verbose)
{
    printf (" * mustache: ");
    s_test_language (verbose);
    s_test_broken ();
    s_test_set ();
    s_test_limits ();
    s_test_specification ();
    printf ("OK\n");
}
