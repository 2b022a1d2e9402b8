//  The blocks are the nodes of a treap (Seidel and Aragon, Randomized search trees, 1996): a tree
//  in the order of the messages, and a heap by priorities drawn at random, so it is about 2 log n
//  deep whatever was done to it. Each node has the sum of its subtree, and whether anything in it
//  is in doubt, or too large; so finding, counting and changing cost O(log n). A range is replaced
//  by splitting it out.
//
//  A block has the messages from its start (included) to the start of the next older block
//  (excluded). The first block starts at the newest possible key, so there is a block for each key
//  at any time.
//
//  - It is split without asking where most messages come, at the newest end: when the first block
//    is full, and a message comes that is newer than all counted so far, that one begins a new
//    first block. Elsewhere a block of more than twice block_size has to be walked; it stays exact
//    until then. Newer also than all deleted: we may delete what somebody else has added before we
//    hear of it, and both must count in the same block.
//  - One of less than a quarter is joined with a neighbour, if both fit in one block; but not
//    during a walk, whose range must go on beginning and ending where blocks do.
//  - Each has the number of the walk that counted it. Somebody else's write that this walk has seen
//    is in the count already, and its announcement is passed over. Blocks with different walks are
//    not joined, unless both walks are settled.
//  - What is announced for the range of the walk under way is applied, and remembered as well: when
//    the counts are replaced by those that were walked, what the walk has not seen is applied
//    again.

#include "actors/page_index.h"

//  A walk takes so many adjacent blocks in doubt at most
#define WALK_BLOCKS 128

//  Announcements remembered during a walk; past that it is in vain
#define HEARD_MAX 4096

typedef struct block block_t;

struct block {
    block_t *newer; //  Owned; the subtree of blocks before this one
    block_t *older; //  Owned; of those behind it
    page_index_key_t start;
    uint64_t walk;     //  That counted it; 0: none
    int64_t sum;       //  Messages of the subtree, where nothing is in doubt
    uint32_t count;    //  Messages of the block
    uint32_t priority; //  None below has a higher one
    bool doubtful;
    bool large;
    bool any_doubtful; //  In the subtree
    bool any_large;
};

//  What a walk could see, until it is settled

typedef struct {
    uint64_t walk;
    uint64_t xmin;     //  Transactions below are seen
    uint64_t xmax;     //  From here on, not
    uint64_t *running; //  Owned; those between that are not seen, either
    size_t size;
} snapshot_t;

//  An announcement

typedef struct {
    uint64_t xid;
    page_index_key_t newest;
    page_index_key_t oldest;
    int change; //  0: anything between the two keys
} heard_t;

struct page_index {
    block_t *tree; //  Owned; never NULL
    uint32_t block_size;
    uint32_t random;         //  State of the generator
    size_t blocks;           //  In the tree
    page_index_key_t newest; //  Of all messages that were counted, added or deleted

    snapshot_t *snapshots; //  Owned, and what they own; ascending by walk
    size_t snapshots_size;

    page_index_walk_t walk; //  Under way, or the last one
    bool walking;
    heard_t *heard; //  Owned; during the walk, for its range
    size_t heard_size;
};

page_index_key_t
page_index_read (const char *epoch, const char *id)
{
    return (page_index_key_t){timestamp_read (epoch), strtoll (id, NULL, 10)};
}

page_index_text_t
page_index_print (page_index_key_t key)
{
    page_index_text_t text;
    timestamp_print (key.created_at, text.created_at);
    snprintf (text.id, sizeof (text.id), "%" PRId64, key.id);
    return text;
}

int
page_index_compare (page_index_key_t left, page_index_key_t right)
{
    if (left.created_at != right.created_at)
        return left.created_at < right.created_at ? -1 : 1;
    return left.id < right.id ? -1 : left.id > right.id;
}

//  ------------------------------------------------------------------------
//  The tree

//  Marsaglia, Xorshift RNGs, 2003.

static uint32_t
s_draw (page_index_t *self)
{
    self->random ^= self->random << 13;
    self->random ^= self->random >> 17;
    self->random ^= self->random << 5;
    return self->random;
}

static int64_t
s_sum (const block_t *tree)
{
    return tree ? tree->sum : 0;
}

//  Brings up to date what a block knows of its subtree; returns it.

static block_t *
s_gather (block_t *block)
{
    const block_t *newer = block->newer;
    const block_t *older = block->older;
    block->sum = s_sum (newer) + block->count + s_sum (older);
    block->any_doubtful = block->doubtful || (newer && newer->any_doubtful) ||
                          (older && older->any_doubtful);
    block->any_large = block->large || (newer && newer->any_large) || (older && older->any_large);
    return block;
}

static block_t *
s_block_new (page_index_t *self, page_index_key_t start, int64_t count, uint64_t walk)
{
    block_t *block = (block_t *) zmalloc (sizeof (block_t));
    block->start = start;
    block->count = (uint32_t) count;
    block->walk = walk;
    block->large = count > 2 * (int64_t) self->block_size;
    block->priority = s_draw (self);
    self->blocks++;
    return s_gather (block);
}

static block_t *
s_block_new_doubtful (page_index_t *self, page_index_key_t start)
{
    block_t *block = s_block_new (self, start, 0, 0);
    block->doubtful = true;
    return s_gather (block);
}

static void
s_tree_destroy (page_index_t *self, block_t **tree_p)
{
    block_t *tree = *tree_p;
    if (tree) {
        s_tree_destroy (self, &tree->newer);
        s_tree_destroy (self, &tree->older);
        self->blocks--;
        freen (*tree_p);
    }
}

//  Takes a tree apart: the blocks that start above the key, and the others.

static void
s_split (block_t *tree, page_index_key_t key, block_t **newer_p, block_t **older_p)
{
    if (!tree)
        *newer_p = *older_p = NULL;
    else if (page_index_compare (tree->start, key) > 0) {
        s_split (tree->older, key, &tree->older, older_p);
        *newer_p = s_gather (tree);
    }
    else {
        s_split (tree->newer, key, newer_p, &tree->newer);
        *older_p = s_gather (tree);
    }
}

//  Puts two trees together, one all newer than the other.

static block_t *
s_join (block_t *newer, block_t *older)
{
    if (!newer || !older)
        return newer ? newer : older;
    if (newer->priority > older->priority) {
        newer->older = s_join (newer->older, older);
        return s_gather (newer);
    }
    older->newer = s_join (newer, older->newer);
    return s_gather (older);
}

//  Brings the way up to date from the block that starts at the key; it must be there.

static void
s_gather_way (block_t *tree, page_index_key_t start)
{
    assert (tree);
    int order = page_index_compare (tree->start, start);
    if (order != 0)
        s_gather_way (order > 0 ? tree->older : tree->newer, start);
    s_gather (tree);
}

//  The block that the key is in.

static block_t *
s_locate (const page_index_t *self, page_index_key_t key)
{
    block_t *found = NULL;
    for (block_t *block = self->tree; block;) {
        bool reaches = page_index_compare (block->start, key) >= 0;
        if (reaches)
            found = block;
        block = reaches ? block->older : block->newer;
    }
    assert (found); //  The first one starts at the newest key there is
    return found;
}

//  The next older block, the next newer one; NULL when there is none.

static block_t *
s_next (const page_index_t *self, const block_t *of)
{
    block_t *found = NULL;
    for (block_t *block = self->tree; block;) {
        bool behind = page_index_compare (block->start, of->start) < 0;
        if (behind)
            found = block;
        block = behind ? block->newer : block->older;
    }
    return found;
}

static block_t *
s_previous (const page_index_t *self, const block_t *of)
{
    block_t *found = NULL;
    for (block_t *block = self->tree; block;) {
        bool before = page_index_compare (block->start, of->start) > 0;
        if (before)
            found = block;
        block = before ? block->older : block->newer;
    }
    return found;
}

//  The first block in doubt, or that is too large; NULL when there is none.

static block_t *
s_first_to_walk (const page_index_t *self)
{
    block_t *block = self->tree;
    bool doubtful = block->any_doubtful;
    if (!doubtful && !block->any_large)
        return NULL;
    while (true) {
        const block_t *newer = block->newer;
        if (newer && (doubtful ? newer->any_doubtful : newer->any_large))
            block = block->newer;
        else if (doubtful ? block->doubtful : block->large)
            return block;
        else
            block = block->older;
    }
}

//  ------------------------------------------------------------------------
//  Finding

//  The last block that begins at this rank or before, or where a key is given, that starts at this
//  key or above; but none behind the first one in doubt.

static const block_t *
s_find (const page_index_t *self, const page_index_key_t *key, int64_t rank, int64_t *before_p)
{
    const block_t *found = NULL;
    int64_t before = 0;
    for (const block_t *block = self->tree; block;) {
        bool certain = !block->newer || !block->newer->any_doubtful;
        int64_t begins = before + s_sum (block->newer);
        bool reaches = certain &&
                       (key ? page_index_compare (block->start, *key) >= 0 : begins <= rank);
        if (!reaches) {
            block = block->newer;
            continue;
        }
        found = block;
        *before_p = begins;
        before = begins + block->count;
        block = block->doubtful ? NULL : block->older;
    }
    assert (found);
    return found;
}

page_index_place_t
page_index_find (const page_index_t *self, int64_t rank)
{
    assert (self && rank >= 0);
    page_index_place_t place;
    place.start = s_find (self, NULL, rank, &place.before)->start;
    return place;
}

page_index_place_t
page_index_find_key (const page_index_t *self, page_index_key_t key)
{
    assert (self);
    page_index_place_t place;
    place.start = s_find (self, &key, 0, &place.before)->start;
    return place;
}

int64_t
page_index_messages (const page_index_t *self)
{
    assert (self);
    return self->tree->any_doubtful ? -1 : self->tree->sum;
}

//  A message of that rank must be in a block of which it is one of the first count messages.

bool
page_index_fits (const page_index_t *self, int64_t rank, const page_index_key_t *keys, size_t size,
                 bool last)
{
    assert (self);
    for (size_t index = 0; index < size; index++, rank++) {
        int64_t before;
        const block_t *block = s_find (self, &keys[index], 0, &before);
        if (rank < before || (!block->doubtful && rank >= before + block->count))
            return false;
    }
    int64_t messages = page_index_messages (self);
    return messages < 0 || (last ? rank == messages : rank <= messages);
}

//  ------------------------------------------------------------------------
//  Snapshots

//  Reads "xmin:xmax:xip,xip"; returns -1 when it is something else.

static int
s_snapshot_read (snapshot_t *self, const char *text)
{
    char *end;
    size_t size = 0;
    for (const char *at = text; *at; at++)
        size += *at == ':' || *at == ',';
    self->running = (uint64_t *) zmalloc ((size + 1) * sizeof (uint64_t));
    self->size = 0;
    self->xmin = strtoull (text, &end, 10);
    bool good = end > text && *end == ':';
    if (good)
        self->xmax = strtoull (end + 1, &end, 10);
    good = good && *end == ':';
    while (good && end[1]) {
        const char *number = end + 1;
        self->running[self->size++] = strtoull (number, &end, 10);
        good = end > number && (*end == ',' || !*end);
        if (!*end)
            break;
    }
    return good ? 0 : -1;
}

static bool
s_snapshot_sees (const snapshot_t *self, uint64_t xid)
{
    for (size_t index = 0; index < self->size; index++)
        if (self->running[index] == xid)
            return false;
    return xid < self->xmax;
}

static void
s_forget_snapshots (page_index_t *self, size_t size)
{
    if (size == 0) //  And perhaps no array at all
        return;
    for (size_t index = 0; index < size; index++)
        freen (self->snapshots[index].running);
    self->snapshots_size -= size;
    memmove (self->snapshots, self->snapshots + size, self->snapshots_size * sizeof (snapshot_t));
}

static void
s_keep_snapshot (page_index_t *self, const snapshot_t *snapshot)
{
    size_t size = (self->snapshots_size + 1) * sizeof (snapshot_t);
    self->snapshots = (snapshot_t *) realloc (self->snapshots, size);
    assert (self->snapshots); //  As zmalloc does
    self->snapshots[self->snapshots_size++] = *snapshot;
}

//  The number of the walk that counted the block, or 0 when that is settled.

static uint64_t
s_unsettled_walk (const page_index_t *self, const block_t *block)
{
    bool settled = self->snapshots_size == 0 || block->walk < self->snapshots[0].walk;
    return settled ? 0 : block->walk;
}

//  Whether the transaction's writes are in the block's count already.

static bool
s_is_counted (const page_index_t *self, const block_t *block, uint64_t xid)
{
    uint64_t walk = s_unsettled_walk (self, block);
    for (size_t index = self->snapshots_size; walk > 0 && index > 0; index--)
        if (self->snapshots[index - 1].walk == walk)
            return s_snapshot_sees (&self->snapshots[index - 1], xid);
    return false;
}

void
page_index_settle (page_index_t *self, uint64_t number)
{
    assert (self);
    size_t settled = 0;
    while (settled < self->snapshots_size && self->snapshots[settled].walk <= number)
        settled++;
    s_forget_snapshots (self, settled);
}

//  ------------------------------------------------------------------------
//  Writes

//  Begins a new first block for a message newer than all others.

static block_t *
s_begin_block (page_index_t *self, block_t *first)
{
    first->start = self->newest;
    block_t *block = s_block_new (self, PAGE_INDEX_NEWEST, 0, first->walk);
    self->tree = s_join (block, self->tree);
    return block;
}

static bool
s_can_join (const page_index_t *self, const block_t *left, const block_t *right)
{
    return left && right && !left->doubtful && !right->doubtful &&
           (int64_t) left->count + right->count <= self->block_size &&
           s_unsettled_walk (self, left) == s_unsettled_walk (self, right);
}

//  The greatest key below the key, which is not the oldest one.

static page_index_key_t
s_below (page_index_key_t key)
{
    return key.id > INT64_MIN ? (page_index_key_t){key.created_at, key.id - 1}
                              : (page_index_key_t){key.created_at - 1, INT64_MAX};
}

//  Adds the older block's messages to the newer one's.

static void
s_join_blocks (page_index_t *self, block_t *newer, const block_t *older)
{
    block_t *before;
    block_t *within;
    block_t *behind;
    newer->count += older->count;
    s_split (self->tree, older->start, &before, &within);
    s_split (within, s_below (older->start), &within, &behind);
    s_tree_destroy (self, &within);
    s_gather_way (before, newer->start);
    self->tree = s_join (before, behind);
}

//  Joins a block that has become small with a neighbour.

static void
s_shrink (page_index_t *self, block_t *block)
{
    if (block->count >= self->block_size / 4 || self->walking)
        return;
    block_t *older = s_next (self, block);
    block_t *newer = s_previous (self, block);
    if (s_can_join (self, block, older))
        s_join_blocks (self, block, older);
    else if (s_can_join (self, newer, block))
        s_join_blocks (self, newer, block);
}

static void
s_change (page_index_t *self, block_t *block, page_index_key_t key, int change)
{
    bool newest = page_index_compare (key, self->newest) > 0;
    if (change > 0 && newest && !block->doubtful && block->count >= self->block_size &&
        page_index_compare (block->start, PAGE_INDEX_NEWEST) == 0)
        block = s_begin_block (self, block);
    if (newest)
        self->newest = key;
    if (block->doubtful)
        return;
    if ((change < 0 && block->count == 0) || (change > 0 && block->count == UINT32_MAX))
        block->doubtful = true; //  It was wrong
    else
        block->count = change > 0 ? block->count + 1 : block->count - 1;
    block->large = block->count > 2 * (uint64_t) self->block_size;
    s_gather_way (self->tree, block->start);
    if (change < 0 && !block->doubtful)
        s_shrink (self, block);
}

void
page_index_add (page_index_t *self, page_index_key_t key)
{
    assert (self);
    s_change (self, s_locate (self, key), key, 1);
}

void
page_index_remove (page_index_t *self, page_index_key_t key)
{
    assert (self);
    s_change (self, s_locate (self, key), key, -1);
}

static void
s_mark_doubtful (const page_index_t *self, block_t *tree, uint64_t xid)
{
    if (!tree)
        return;
    s_mark_doubtful (self, tree->newer, xid);
    s_mark_doubtful (self, tree->older, xid);
    tree->doubtful = tree->doubtful || !s_is_counted (self, tree, xid);
    s_gather (tree);
}

//  Puts the blocks of a range in doubt, but for those whose walk has seen the transaction.

static void
s_doubt (page_index_t *self, uint64_t xid, page_index_key_t newest, page_index_key_t oldest)
{
    block_t *before;
    block_t *within;
    block_t *behind;
    page_index_key_t first = s_locate (self, newest)->start;
    page_index_key_t last = s_locate (self, oldest)->start;
    s_split (self->tree, first, &before, &within);
    s_split (within, s_below (last), &within, &behind);
    s_mark_doubtful (self, within, xid);
    self->tree = s_join (before, s_join (within, behind));
    if (page_index_compare (newest, self->newest) > 0)
        self->newest = newest;
}

//  Applies an announcement.

static void
s_apply (page_index_t *self, const heard_t *heard)
{
    if (heard->change == 0) {
        s_doubt (self, heard->xid, heard->newest, heard->oldest);
        return;
    }
    block_t *block = s_locate (self, heard->newest);
    if (!s_is_counted (self, block, heard->xid))
        s_change (self, block, heard->newest, heard->change);
}

//  Applies it, and remembers it when the walk under way may not have seen it.

static void
s_hear (page_index_t *self, const heard_t *heard)
{
    bool walked = self->walking && page_index_compare (heard->oldest, self->walk.from) <= 0 &&
                  page_index_compare (heard->newest, self->walk.to) > 0;
    if (walked && self->heard_size < HEARD_MAX) {
        if (!self->heard)
            self->heard = (heard_t *) zmalloc (HEARD_MAX * sizeof (heard_t));
        self->heard[self->heard_size] = *heard;
    }
    self->heard_size += walked;
    s_apply (self, heard);
}

void
page_index_announce (page_index_t *self, uint64_t xid, page_index_key_t key, int change)
{
    assert (self && (change == 1 || change == -1));
    s_hear (self, &(heard_t){xid, key, key, change});
}

void
page_index_doubt (page_index_t *self, uint64_t xid, page_index_key_t newest,
                  page_index_key_t oldest)
{
    assert (self && page_index_compare (newest, oldest) >= 0);
    s_hear (self, &(heard_t){xid, newest, oldest, 0});
}

//  ------------------------------------------------------------------------
//  Walks

static void
s_end_walk (page_index_t *self)
{
    self->walking = false;
    self->heard_size = 0;
    freen (self->heard);
}

page_index_t *
page_index_new (uint32_t block_size)
{
    assert (block_size > 0);
    page_index_t *self = (page_index_t *) zmalloc (sizeof (page_index_t));
    self->block_size = block_size;
    self->random = 2463534242u; //  Marsaglia's; any but 0 does
    self->tree = s_block_new_doubtful (self, PAGE_INDEX_NEWEST);
    self->newest = PAGE_INDEX_NEWEST;
    return self;
}

void
page_index_destroy (page_index_t **self_p)
{
    assert (self_p);
    if (*self_p) {
        page_index_t *self = *self_p;
        s_end_walk (self);
        s_tree_destroy (self, &self->tree);
        s_forget_snapshots (self, self->snapshots_size);
        freen (self->snapshots);
        freen (*self_p);
    }
}

void
page_index_doubt_all (page_index_t *self)
{
    assert (self);
    s_end_walk (self);
    s_tree_destroy (self, &self->tree);
    s_forget_snapshots (self, self->snapshots_size);
    self->tree = s_block_new_doubtful (self, PAGE_INDEX_NEWEST);
    self->newest = PAGE_INDEX_NEWEST;
}

bool
page_index_wants_walk (const page_index_t *self)
{
    assert (self);
    return !self->walking && s_first_to_walk (self);
}

bool
page_index_walk (page_index_t *self, page_index_walk_t *walk)
{
    assert (self && walk);
    if (!page_index_wants_walk (self))
        return false;
    const block_t *block = s_first_to_walk (self);
    self->walk.from = block->start;
    bool doubtful = block->doubtful;
    block = s_next (self, block);
    for (int blocks = 1; doubtful && block && block->doubtful && blocks < WALK_BLOCKS; blocks++)
        block = s_next (self, block);
    self->walk.to = block ? block->start : PAGE_INDEX_OLDEST;
    self->walk.number++;
    self->walking = true;
    *walk = self->walk;
    return true;
}

//  Whether marks and numbers are such as one walk through the range can find.

static bool
s_makes_sense (const page_index_t *self, const page_index_walked_t *walked)
{
    const page_index_mark_t *marks = walked->marks;
    int64_t messages = walked->messages;
    if (walked->size == 0)
        return messages == 0 && walked->complete;
    for (size_t index = 0; index < walked->size; index++) {
        int64_t end = index + 1 < walked->size ? marks[index + 1].place : messages;
        bool inside = page_index_compare (marks[index].key, self->walk.from) <= 0 &&
                      page_index_compare (marks[index].key, self->walk.to) > 0;
        bool falls = index == 0 || page_index_compare (marks[index].key, marks[index - 1].key) < 0;
        if (!inside || !falls || end <= marks[index].place || end - marks[index].place > UINT32_MAX)
            return false;
    }
    const page_index_mark_t *last = &marks[walked->size - 1];
    bool goes_on = walked->size > 1 && last->place == messages - 1;
    return marks[0].place == 0 && (walked->complete || goes_on);
}

//  The blocks that were found, as a tree. If the walk did not come to the end of its range, its
//  last mark begins a block in doubt.

static block_t *
s_blocks_new (page_index_t *self, const page_index_walked_t *walked)
{
    block_t *tree = NULL;
    const page_index_mark_t *marks = walked->marks;
    size_t size = walked->complete ? walked->size : walked->size - 1;
    for (size_t index = 0; index < size; index++) {
        int64_t end = index + 1 < walked->size ? marks[index + 1].place : walked->messages;
        page_index_key_t start = index > 0 ? marks[index].key : self->walk.from;
        tree = s_join (tree, s_block_new (self, start, end - marks[index].place, walked->number));
    }
    if (!walked->complete)
        tree = s_join (tree, s_block_new_doubtful (self, marks[size].key));
    else if (walked->size == 0)
        tree = s_block_new (self, self->walk.from, 0, walked->number);
    return tree;
}

//  Puts what was found in the place of the blocks of the range.

static void
s_replace (page_index_t *self, const page_index_walked_t *walked)
{
    block_t *before;
    block_t *within;
    block_t *behind;
    s_split (self->tree, self->walk.from, &before, &within);
    s_split (within, self->walk.to, &within, &behind);
    s_tree_destroy (self, &within);
    self->tree = s_join (before, s_join (s_blocks_new (self, walked), behind));
    if (!before)
        self->newest = walked->size > 0 ? walked->marks[0].key : self->walk.to;
}

//  Applies what was announced meanwhile and the walk has not seen.

static void
s_hear_again (page_index_t *self)
{
    size_t size = self->heard_size;
    heard_t *heard = self->heard;
    self->heard = NULL;
    s_end_walk (self);
    for (size_t index = 0; index < size; index++)
        s_apply (self, &heard[index]);
    freen (heard);
}

int
page_index_walked (page_index_t *self, const page_index_walked_t *walked)
{
    assert (self && walked);
    if (!self->walking || walked->number != self->walk.number)
        return 0;
    snapshot_t snapshot = {.walk = walked->number};
    int rc = s_makes_sense (self, walked) ? s_snapshot_read (&snapshot, walked->snapshot) : -1;
    if (rc == 0 && self->heard_size <= HEARD_MAX) {
        s_keep_snapshot (self, &snapshot);
        s_replace (self, walked);
        s_hear_again (self);
    }
    else { //  The range stays as it is, and its turn comes again
        freen (snapshot.running);
        s_end_walk (self);
    }
    return rc;
}

size_t
page_index_memory (const page_index_t *self)
{
    assert (self);
    enum { OVERHEAD = 16 }; //  Of malloc, at most
    size_t size = sizeof (*self) + self->blocks * (sizeof (block_t) + OVERHEAD);
    size += self->heard ? HEARD_MAX * sizeof (heard_t) : 0;
    for (size_t index = 0; index < self->snapshots_size; index++)
        size += sizeof (snapshot_t) + OVERHEAD +
                (self->snapshots[index].size + 1) * sizeof (uint64_t);
    return size;
}

//  ------------------------------------------------------------------------
//  Self test: random histories of a board and of those who write there, against a sorted list

#define TEST_HISTORIES  20
#define TEST_OPERATIONS 10000 //  In each
#define TEST_MESSAGES   2000  //  On the board, at most
#define TEST_LIMIT      41    //  Messages of a walk
#define TEST_RUNNING    5
#define TEST_CHANGES    8   //  Of a transaction
#define TEST_TOLD       200 //  Announcements on their way

//  In the place of a change: one of our own, which settles the walk in the place of the xid
#define TEST_SETTLES 2

typedef struct {
    page_index_t *index;
    uint32_t block; //  Its size
    size_t share;   //  Of operations that delete a block, in 10,000
    page_index_key_t keys[TEST_MESSAGES + TEST_CHANGES]; //  What is committed; in order
    size_t size;
    int64_t clock;
    int64_t id;
    uint64_t xid;                   //  The next one
    uint64_t running[TEST_RUNNING]; //  Somebody else's
    size_t running_size;
    heard_t told[TEST_TOLD + TEST_CHANGES]; //  In order of commit
    size_t told_size;
    bool sent; //  A walk is
    bool run;  //  And PostgreSQL has done it
    page_index_walk_t walk;
    page_index_walked_t walked;
    page_index_mark_t marks[TEST_LIMIT];
    char snapshot[200];
    uint32_t random;
} world_t;

//  A number below the limit.

static size_t
s_below_limit (world_t *self, size_t limit)
{
    self->random = self->random * 1664525 + 1013904223; //  Knuth, 3.3.4, line 16
    return (size_t) (((uint64_t) self->random * limit) >> 32);
}

//  How many messages are above the key.

static size_t
s_above (const world_t *self, page_index_key_t key)
{
    size_t low = 0;
    size_t high = self->size;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (page_index_compare (self->keys[middle], key) > 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void
s_insert (world_t *self, page_index_key_t key)
{
    size_t at = s_above (self, key);
    memmove (self->keys + at + 1, self->keys + at, (self->size++ - at) * sizeof (key));
    self->keys[at] = key;
}

static page_index_key_t
s_delete (world_t *self, size_t at)
{
    page_index_key_t key = self->keys[at];
    memmove (self->keys + at, self->keys + at + 1, (--self->size - at) * sizeof (key));
    return key;
}

//  Most messages are new; some are as old as another, or of any time.

static page_index_key_t
s_new_key (world_t *self)
{
    size_t kind = s_below_limit (self, 10);
    self->clock += (int64_t) s_below_limit (self, 3);
    int64_t created_at = self->clock;
    if (kind == 0)
        created_at = (int64_t) s_below_limit (self, (size_t) self->clock + 1);
    else if (kind == 1 && self->size > 0)
        created_at = self->keys[s_below_limit (self, self->size)].created_at;
    return (page_index_key_t){created_at, ++self->id};
}

//  PostgreSQL carries out the walk.

static void
s_run_walk (world_t *self)
{
    size_t first = s_above (self, self->walk.from);
    size_t end = s_above (self, self->walk.to);
    size_t size = end - first < TEST_LIMIT ? end - first : TEST_LIMIT;
    self->walked = (page_index_walked_t){.number = self->walk.number,
                                         .snapshot = self->snapshot,
                                         .marks = self->marks,
                                         .messages = (int64_t) size,
                                         .complete = size < TEST_LIMIT};
    for (size_t place = 0; place < size; place += 1 + s_below_limit (self, self->block)) {
        if (size == TEST_LIMIT && place + self->block >= size)
            place = size - 1; //  It goes on there
        self->marks[self->walked.size++] = (page_index_mark_t){(int64_t) place,
                                                               self->keys[first + place]};
    }
    uint64_t xmin = self->running_size > 0 ? self->running[0] : self->xid;
    for (size_t index = 0; index < self->running_size; index++)
        xmin = self->running[index] < xmin ? self->running[index] : xmin;
    int length = snprintf (self->snapshot, sizeof (self->snapshot), "%" PRIu64 ":%" PRIu64 ":",
                           xmin, self->xid);
    for (size_t index = 0; index < self->running_size; index++)
        length += snprintf (self->snapshot + length, sizeof (self->snapshot) - (size_t) length,
                            "%s%" PRIu64, index ? "," : "", self->running[index]);
    self->run = true;
}

static void
s_tell (world_t *self, uint64_t xid, page_index_key_t newest, page_index_key_t oldest, int change)
{
    self->told[self->told_size++] = (heard_t){xid, newest, oldest, change};
}

static void
s_take_walk (world_t *self)
{
    int rc = page_index_walked (self->index, &self->walked);
    assert (rc == 0);
    if (self->told_size < TEST_TOLD)
        s_tell (self, self->walked.number, PAGE_INDEX_NEWEST, PAGE_INDEX_OLDEST, TEST_SETTLES);
    self->sent = self->run = false;
}

static void
s_step_walk (world_t *self)
{
    if (!self->sent)
        self->sent = page_index_walk (self->index, &self->walk);
    else if (!self->run)
        s_run_walk (self);
    else
        s_take_walk (self);
}

//  We write ourselves: the result comes behind that of a walk that was carried out before.

static void
s_write (world_t *self, bool add)
{
    if (self->run)
        s_take_walk (self);
    self->xid++;
    if (add && self->size < TEST_MESSAGES) {
        page_index_key_t key = s_new_key (self);
        s_insert (self, key);
        page_index_add (self->index, key);
    }
    else if (self->size > 0)
        page_index_remove (self->index, s_delete (self, s_below_limit (self, self->size)));
}

//  Deletes messages that lie side by side.

static void
s_write_block (world_t *self)
{
    if (self->run)
        s_take_walk (self);
    self->xid++;
    size_t at = s_below_limit (self, self->size + 1);
    for (size_t count = s_below_limit (self, 100); count > 0 && at < self->size; count--)
        page_index_remove (self->index, s_delete (self, at));
}

//  Somebody else commits: some are added, some that lie side by side are deleted; each is
//  announced, or the range of them.

static void
s_commit (world_t *self, uint64_t xid)
{
    bool one_by_one = s_below_limit (self, 10) > 0;
    size_t at = s_below_limit (self, self->size + 1);
    page_index_key_t newest = PAGE_INDEX_OLDEST;
    page_index_key_t oldest = PAGE_INDEX_NEWEST;
    for (size_t count = 1 + s_below_limit (self, TEST_CHANGES - 1); count > 0; count--) {
        bool add = self->size < 100 || (self->size < TEST_MESSAGES && s_below_limit (self, 2) == 0);
        page_index_key_t key = add ? s_new_key (self) : s_delete (self, at < self->size ? at : 0);
        if (add)
            s_insert (self, key);
        if (one_by_one)
            s_tell (self, xid, key, key, add ? 1 : -1);
        newest = page_index_compare (key, newest) > 0 ? key : newest;
        oldest = page_index_compare (key, oldest) < 0 ? key : oldest;
    }
    if (!one_by_one)
        s_tell (self, xid, newest, oldest, 0);
}

//  Somebody else begins, commits or rolls back.

static void
s_step_other (world_t *self)
{
    if (self->running_size < TEST_RUNNING && s_below_limit (self, 2) == 0) {
        self->running[self->running_size++] = self->xid++;
        return;
    }
    if (self->running_size == 0 || self->told_size >= TEST_TOLD)
        return;
    size_t at = s_below_limit (self, self->running_size);
    uint64_t xid = self->running[at];
    self->running[at] = self->running[--self->running_size];
    if (s_below_limit (self, 5) > 0)
        s_commit (self, xid);
}

static void
s_hear_told (world_t *self, const heard_t *told)
{
    if (told->change == TEST_SETTLES)
        page_index_settle (self->index, told->xid);
    else if (told->change == 0)
        page_index_doubt (self->index, told->xid, told->newest, told->oldest);
    else
        page_index_announce (self->index, told->xid, told->newest, told->change);
}

//  Some of the announcements arrive, or all.

static void
s_step_announcements (world_t *self)
{
    size_t size = s_below_limit (self, self->told_size + 1);
    for (size_t index = 0; index < size; index++)
        s_hear_told (self, &self->told[index]);
    self->told_size -= size;
    memmove (self->told, self->told + size, self->told_size * sizeof (heard_t));
}

//  Once all is announced that was committed, whatever the index says is right.

static void
s_check (world_t *self)
{
    if (self->told_size > 0)
        return;
    int64_t messages = page_index_messages (self->index);
    assert (messages == -1 || messages == (int64_t) self->size);
    size_t rank = s_below_limit (self, self->size + 1);
    page_index_place_t place = page_index_find (self->index, (int64_t) rank);
    assert (place.before <= (int64_t) rank);
    assert (place.before == (int64_t) s_above (self, place.start));

    page_index_key_t key = {(int64_t) s_below_limit (self, (size_t) self->clock + 2), self->id / 2};
    place = page_index_find_key (self->index, key);
    assert (page_index_compare (place.start, key) >= 0);
    assert (place.before == (int64_t) s_above (self, place.start));

    size_t size = self->size - rank < 5 ? self->size - rank : 5;
    assert (page_index_fits (self->index, (int64_t) rank, self->keys + rank, size, size < 5));
}

//  At times it is only others who write: then they can begin, commit and be heard of during a walk.

static void
s_step (world_t *self, bool others)
{
    size_t kind = s_below_limit (self, 10000);
    if (others && kind < 3500 + self->share)
        kind = 4999; //  The last of theirs
    if (kind < 2500)
        s_write (self, true);
    else if (kind < 3500)
        s_write (self, false);
    else if (kind < 3500 + self->share)
        s_write_block (self);
    else if (kind < 5000)
        s_step_other (self);
    else if (kind < 7000)
        s_step_announcements (self);
    else if (kind < 9999)
        s_step_walk (self);
    else
        page_index_doubt_all (self->index);
}

//  Returns the number of blocks; asserts what is always true of the tree.

static size_t
s_check_tree (const page_index_t *self, block_t *tree)
{
    if (!tree)
        return 0;
    const block_t *children[] = {tree->newer, tree->older};
    for (size_t index = 0; index < 2; index++)
        assert (!children[index] || children[index]->priority <= tree->priority);
    assert (!tree->newer || page_index_compare (tree->newer->start, tree->start) > 0);
    assert (!tree->older || page_index_compare (tree->older->start, tree->start) < 0);
    size_t blocks = s_check_tree (self, tree->newer) + s_check_tree (self, tree->older) + 1;
    block_t copy = *tree;
    s_gather (tree);
    assert (tree->sum == copy.sum && tree->any_doubtful == copy.any_doubtful &&
            tree->any_large == copy.any_large); //  Nothing was left to do
    return blocks;
}

//  In the end all is announced and walked: each rank is found in a block of ordinary size.

static void
s_check_end (world_t *self)
{
    do {
        s_step_announcements (self);
        s_step_walk (self);
    } while (self->told_size > 0 || self->sent);
    assert (page_index_messages (self->index) == (int64_t) self->size);
    for (size_t rank = 0; rank < self->size; rank++) {
        page_index_place_t place = page_index_find (self->index, (int64_t) rank);
        assert (s_above (self, place.start) == (size_t) place.before);
        assert (place.before <= (int64_t) rank && place.before + 2 * self->block > (int64_t) rank);
    }
    size_t blocks = s_check_tree (self->index, self->index->tree);
    assert (blocks == self->index->blocks && blocks < self->size);
}

static world_t *
s_world_new (uint32_t history)
{
    world_t *self = (world_t *) zmalloc (sizeof (world_t));
    self->random = history;
    self->block = 2 + history % 7;
    self->share = 3 * (history % 8);
    self->index = page_index_new (self->block);
    self->xid = 700;
    return self;
}

static void
s_test_histories (bool verbose)
{
    size_t most = 0;
    size_t exact = 0;
    for (uint32_t history = 0; history < TEST_HISTORIES; history++) {
        world_t *self = s_world_new (history);
        for (int operation = 0; operation < TEST_OPERATIONS; operation++) {
            s_step (self, operation / 500 % 2 == 1);
            s_check (self);
            most = self->size > most ? self->size : most;
            exact += page_index_messages (self->index) >= 0;
            if (operation % 500 == 0)
                s_check_tree (self->index, self->index->tree);
        }
        s_check_end (self);
        page_index_destroy (&self->index);
        freen (self);
    }
    const size_t operations = TEST_HISTORIES * TEST_OPERATIONS;
    if (verbose)
        printf ("\n   up to %zu messages, nothing in doubt after %zu of %zu operations\n", most,
                exact, operations);
    assert (most > 500 && exact > operations / 10);
}

//  Counts a board of so many messages, all a second apart, as a start does.

static void
s_fill (page_index_t *self, int64_t messages)
{
    enum { MARKS = 100 };
    const int64_t limit = (int64_t) MARKS * PAGE_INDEX_BLOCK_SIZE + 1;
    page_index_mark_t marks[MARKS + 1];
    page_index_walk_t walk;
    int64_t walked = 0; //  The message with rank r has the key (-r, -r)
    while (page_index_walk (self, &walk)) {
        page_index_walked_t found = {.number = walk.number, .snapshot = "3:3:", .marks = marks};
        found.messages = messages - walked < limit ? messages - walked : limit;
        found.complete = found.messages < limit;
        for (int64_t place = 0; place < found.messages; place += PAGE_INDEX_BLOCK_SIZE)
            marks[found.size++] = (page_index_mark_t){place, {-walked - place, -walked - place}};
        int rc = page_index_walked (self, &found);
        assert (rc == 0);
        walked += limit - 1;
    }
}

//  Two bytes a message are allowed.

static void
s_test_memory (bool verbose)
{
    const int64_t messages = 10000000;
    page_index_t *self = page_index_new (PAGE_INDEX_BLOCK_SIZE);
    s_fill (self, messages);
    assert (page_index_messages (self) == messages);
    page_index_place_t place = page_index_find (self, messages - 1);
    assert (place.before == -place.start.id && messages - place.before <= PAGE_INDEX_BLOCK_SIZE);
    if (verbose)
        printf ("   %zu bytes for %zu blocks\n", page_index_memory (self), self->blocks);
    assert ((int64_t) page_index_memory (self) < 2 * messages);
    for (int64_t rank = 0; rank < messages; rank++) //  All but one in a hundred are deleted
        if (rank % 100 != 0)
            page_index_remove (self, (page_index_key_t){-rank, -rank});
    assert (page_index_messages (self) == messages / 100);
    assert ((int64_t) page_index_memory (self) < 2 * messages / 100);
    page_index_destroy (&self);
}

//  What is there at first; messages that come one behind the other need no walk.

static void
s_test_growing (void)
{
    page_index_t *self = page_index_new (PAGE_INDEX_BLOCK_SIZE);
    page_index_walk_t walk;
    assert (page_index_messages (self) == -1);
    page_index_place_t place = page_index_find (self, 1000);
    assert (place.before == 0 && page_index_compare (place.start, PAGE_INDEX_NEWEST) == 0);
    s_fill (self, 0);
    assert (page_index_messages (self) == 0);
    for (int64_t id = 1; id <= 10000; id++)
        page_index_add (self, (page_index_key_t){id, id});
    assert (page_index_messages (self) == 10000 && !page_index_walk (self, &walk));
    place = page_index_find (self, 9999);
    assert (place.before == 10000 - place.start.id && place.before >= 9999 - 512);
    place = page_index_find_key (self, (page_index_key_t){5000, 5000});
    assert (place.start.id >= 5000 && place.before == 10000 - place.start.id);
    for (int64_t id = 1; id <= 513; id++) //  Many that are older: only a walk finds where to split
        page_index_add (self, (page_index_key_t){0, id});
    assert (page_index_messages (self) == 10513 && page_index_walk (self, &walk));
    assert (walk.to.id == INT64_MIN && !page_index_walk (self, &walk));
    page_index_destroy (&self);
    page_index_destroy (&self);
}

static void
s_test_refusals (void)
{
    page_index_t *self = page_index_new (4);
    page_index_walk_t walk;
    page_index_mark_t marks[] = {{0, {9, 9}}, {4, {5, 5}}};
    page_index_walked_t walked = {.marks = marks, .size = 2, .messages = 6, .complete = true};
    const char *snapshots[] = {"", "7", "7:8", "7:8:x", "7:8:9x", "7:8:9,,10"};
    for (size_t index = 0; index < sizeof (snapshots) / sizeof (snapshots[0]); index++) {
        assert (page_index_walk (self, &walk));
        walked.number = walk.number;
        walked.snapshot = snapshots[index];
        assert (page_index_walked (self, &walked) == -1 && page_index_messages (self) == -1);
    }
    walked.snapshot = "7:9:7,8";
    marks[1].key.created_at = 10; //  Not in order
    assert (page_index_walk (self, &walk));
    walked.number = walk.number;
    assert (page_index_walked (self, &walked) == -1 && page_index_messages (self) == -1);
    marks[1].key.created_at = 5;
    assert (page_index_walk (self, &walk));
    assert (page_index_walked (self, &walked) == 0 &&
            page_index_messages (self) == -1); //  An old one
    walked.number = walk.number;
    assert (page_index_walked (self, &walked) == 0 && page_index_messages (self) == 6);

    const page_index_key_t keys[] = {{6, 6}, {5, 5}, {4, 4}};
    assert (page_index_fits (self, 3, keys, 3, true));
    assert (!page_index_fits (self, 2, keys, 3, false)); //  Somebody has deleted one before
    assert (!page_index_fits (self, 3, keys, 2, true));  //  Or the last one
    page_index_announce (self, 6, keys[0], -1);          //  The walk has seen that
    page_index_announce (self, 7, keys[0], -1);
    assert (page_index_messages (self) == 5);
    page_index_settle (self, walk.number);
    page_index_announce (self, 6, keys[0], 1);
    assert (page_index_messages (self) == 6);
    for (int count = 0; count < 7; count++)
        page_index_remove (self, keys[1]); //  More than there were: it was wrong, and knows
    assert (page_index_messages (self) == -1 && page_index_find (self, 5).before == 0);
    page_index_destroy (&self);
}

//  Walks what is to be walked next.

static int
s_walk (page_index_t *self, const char *snapshot, const page_index_mark_t *marks, size_t size,
        int64_t messages)
{
    page_index_walk_t walk;
    bool is_due = page_index_walk (self, &walk);
    assert (is_due);
    page_index_walked_t walked = {.number = walk.number,
                                  .snapshot = snapshot,
                                  .marks = marks,
                                  .size = size,
                                  .messages = messages,
                                  .complete = true};
    return page_index_walked (self, &walked);
}

//  What histories seldom come to.

static void
s_test_corners (void)
{
    const page_index_mark_t marks[] = {{0, {9, 9}}, {8, {5, 5}}};
    page_index_t *self = page_index_new (8);
    int rc = s_walk (self, "9:9:", marks, 2, 10);
    assert (rc == 0);
    page_index_add (self, (page_index_key_t){10, 10}); //  Begins a block,
    page_index_announce (self, 7, (page_index_key_t){12, 12},
                         -1); //  and the walk saw this one gone
    assert (page_index_messages (self) == 11);

    page_index_doubt_all (
        self); //  The first block is found empty, and then gets an older one's rest
    rc = s_walk (self, "9:9:", marks, 2, 10);
    page_index_settle (self, UINT64_MAX);
    page_index_doubt (self, 8, marks[0].key, marks[0].key);
    rc += s_walk (self, "9:9:", NULL, 0, 0);
    page_index_settle (self, UINT64_MAX);
    assert (rc == 0 && page_index_messages (self) == 2);
    page_index_remove (self, (page_index_key_t){2, 2});
    for (int64_t id = 1; id <= 8;
         id++) //  They are behind it, though newer than all that came since
        page_index_add (self, (page_index_key_t){4, id});
    assert (page_index_find (self, 8).before == 0); //  So they begin no block

    page_index_doubt_all (self); //  Transaction 10 deletes in both blocks; only one walk sees it
    rc = s_walk (self, "9:9:", marks, 2, 10);
    page_index_doubt (self, 9, marks[0].key, marks[0].key);
    rc += s_walk (self, "11:11:", marks, 1, 2);
    assert (rc == 0 && page_index_messages (self) == 4);
    page_index_remove (self, (page_index_key_t){3, 3}); //  Small, but not to be joined
    page_index_announce (self, 10, marks[0].key, -1);
    page_index_announce (self, 10, marks[1].key, -1);
    assert (page_index_messages (self) == 2);
    page_index_destroy (&self);
}

//  Blocks stay apart while the walk of one of them is under way.

static void
s_test_shrinking_walk (void)
{
    const page_index_mark_t marks[] = {{0, {9, 9}}, {17, {5, 5}}};
    page_index_t *self = page_index_new (8);
    int rc = s_walk (self, "9:9:", marks, 2, 19);
    page_index_walk_t walk;
    assert (rc == 0 && page_index_walk (self, &walk)); //  17 are too many
    for (int count = 0; count < 17; count++)
        page_index_remove (self, marks[0].key);
    page_index_walked_t walked = {.number = walk.number, .snapshot = "9:9:", .complete = true};
    rc = page_index_walked (self, &walked);
    assert (rc == 0 && page_index_messages (self) == 2);
    page_index_destroy (&self);
}

void
page_index_test (bool verbose)
{
    printf (" * page_index: ");
    s_test_growing ();
    s_test_refusals ();
    s_test_corners ();
    s_test_shrinking_walk ();
    s_test_histories (verbose);
    s_test_memory (verbose);
    printf ("OK\n");
}
