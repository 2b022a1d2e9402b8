//  tsan_zmq - tells ThreadSanitizer what libzmq's queues promise
//
//  Debian's libzmq is not built for TSan, and its queues between threads have no locks that TSan
//  could see: so whatever one thread writes into a message, and another reads from it, looks like a
//  race. These functions stand before libzmq's own in builds with SANITIZE=thread, and tell that
//  what happens before a message is sent happens before it is received: this message, by the
//  address of its bytes; or where libzmq copies the bytes, because they are few, any message of the
//  same bytes. So two of our threads that touch the same memory without a message from the one to
//  the other are still found.

#include <dlfcn.h>
#include <zmq.h>

#include <stdint.h>
#include <stdlib.h>

//  TSan's own, for annotations
void __tsan_acquire (void *address);
void __tsan_release (void *address);

//  Messages of so many bytes are copied (libzmq's msg_t has room for 33)
#define COPIED_MAX 64

static char s_places[65536]; //  What stands for messages of the same bytes

//  FNV-1a, as good as any

static void *
s_place (zmq_msg_t *message)
{
    size_t size = zmq_msg_size (message);
    const unsigned char *bytes = (const unsigned char *) zmq_msg_data (message);
    if (size > COPIED_MAX)
        return (void *) bytes;
    uint32_t hash = 2166136261u;
    for (size_t at = 0; at < size; at++)
        hash = (hash ^ bytes[at]) * 16777619u;
    return &s_places[hash % sizeof (s_places)];
}

static void
s_tell_sent (zmq_msg_t *message)
{
    __tsan_release (s_place (message));
}

static void
s_tell_received (zmq_msg_t *message)
{
    __tsan_acquire (s_place (message));
}

//  libzmq's own function of the name.

static void *
s_real (const char *name)
{
    void *function = dlsym (RTLD_NEXT, name);
    if (!function)
        abort ();
    return function;
}

int
zmq_msg_send (zmq_msg_t *message, void *socket, int flags)
{
    int (*real) (zmq_msg_t * message, void *socket, int flags) = s_real (__func__);
    s_tell_sent (message);
    return real (message, socket, flags);
}

int
zmq_sendmsg (void *socket, zmq_msg_t *message, int flags)
{
    int (*real) (void *socket, zmq_msg_t *message, int flags) = s_real (__func__);
    s_tell_sent (message);
    return real (socket, message, flags);
}

int
zmq_msg_recv (zmq_msg_t *message, void *socket, int flags)
{
    int (*real) (zmq_msg_t * message, void *socket, int flags) = s_real (__func__);
    int rc = real (message, socket, flags);
    if (rc >= 0)
        s_tell_received (message);
    return rc;
}

int
zmq_recvmsg (void *socket, zmq_msg_t *message, int flags)
{
    int (*real) (void *socket, zmq_msg_t *message, int flags) = s_real (__func__);
    int rc = real (socket, message, flags);
    if (rc >= 0)
        s_tell_received (message);
    return rc;
}

//  Several threads may hold the same bytes, counted: who closes last frees them, after all that the
//  others did.

int
zmq_msg_close (zmq_msg_t *message)
{
    int (*real) (zmq_msg_t * message) = s_real (__func__);
    if (zmq_msg_size (message) > COPIED_MAX) {
        s_tell_sent (message);
        s_tell_received (message);
    }
    return real (message);
}
