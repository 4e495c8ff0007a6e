/*
 * Records how the files of a folder change. Preloaded, it stands before the system calls that change files, and writes
 * each into the file that DISK_RECORD names, in order, behind what stands there; DISK_FOLDER is the folder, without
 * symbolic links. A disk that takes DISK_SYNC_MS milliseconds longer for each sync is slow.
 *
 * A record: five numbers of eight bytes in the machine's order (what, which, where, length of text, length of data), the
 * text, the data. `which` is the inode number of a file, and the descriptor of a socket.
 *
 * What is written stands in the record when the call that writes it has returned, and a sync twice, when it begins and
 * when it has returned: it is sure of what was written before it began, once it has returned. Bytes for a socket stand
 * there before the call that hands them over. Files named …-shm are memory and no files.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { MADE = 1, CUT, WRITTEN, SYNC_BEGINS, SYNCED, NAMES_SYNC_BEGINS, NAMES_SYNCED, UNLINKED, RENAMED, LINKED, SENT, MARK };

#define LONGEST 4096

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int record = -1;
static char folder[LONGEST];
static long sync_ms;
static uint64_t syncs;

void disk_mark(const char *text);

__attribute__((constructor)) static void begin(void)
{
    const char *file = getenv("DISK_RECORD"), *where = getenv("DISK_FOLDER"), *slow = getenv("DISK_SYNC_MS");

    if (file == NULL || where == NULL)
        return;
    snprintf(folder, sizeof folder, "%s", where);
    sync_ms = slow == NULL ? 0 : atol(slow);
    record = (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (record < 0)
        abort();
}

static void put(const void *bytes, size_t length)
{
    const char *from = bytes;

    while (length > 0) {
        long written = syscall(SYS_write, record, from, length);

        if (written <= 0)
            abort();
        from += written;
        length -= (size_t)written;
    }
}

/* One record. The lock is held. */
static void note(uint64_t what, uint64_t which, uint64_t where, const char *text, const void *data, size_t length)
{
    uint64_t head[5];

    head[0] = what, head[1] = which, head[2] = where, head[3] = strlen(text), head[4] = length;
    put(head, sizeof head);
    put(text, strlen(text));
    put(data, length);
}

/* The name within the folder of what has this path, "" for the folder itself; NULL for what is elsewhere, and memory. */
static const char *name_of(const char *path)
{
    size_t length = strlen(folder);
    const char *end = strstr(path, "-shm");

    if (strncmp(path, folder, length) != 0 || (path[length] != '/' && path[length] != '\0'))
        return NULL;
    if (end != NULL && (end[4] == '\0' || end[4] == ' '))
        return NULL;
    return path[length] == '/' ? path + length + 1 : path + length;
}

/* The same of what a descriptor stands for. */
static const char *name_of_open(int descriptor, char *path)
{
    char link[64];
    long length;

    if (record < 0)
        return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    length = syscall(SYS_readlinkat, AT_FDCWD, link, path, LONGEST - 1);
    if (length <= 0)
        return NULL;
    path[length] = '\0';
    return name_of(path);
}

static struct stat about(int descriptor)
{
    struct stat stat;

    if (fstat(descriptor, &stat) != 0)
        abort();
    return stat;
}

static int is_socket(int descriptor)
{
    struct stat stat;

    return record >= 0 && fstat(descriptor, &stat) == 0 && S_ISSOCK(stat.st_mode);
}

static int open_file(int at, const char *path, int flags, mode_t mode)
{
    char real[LONGEST];
    const char *name;
    struct stat before;
    int there, descriptor;

    if (record < 0 || (flags & (O_CREAT | O_TRUNC)) == 0)
        return (int)syscall(SYS_openat, at, path, flags, mode);
    pthread_mutex_lock(&lock);
    there = fstatat(at, path, &before, 0) == 0;
    descriptor = (int)syscall(SYS_openat, at, path, flags, mode);
    if (descriptor >= 0 && (name = name_of_open(descriptor, real)) != NULL) {
        struct stat now = about(descriptor);

        if (!there || before.st_ino != now.st_ino)
            note(MADE, now.st_ino, 0, name, NULL, 0);
        else if ((flags & O_TRUNC) != 0)
            note(CUT, now.st_ino, 0, name, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return descriptor;
}

#define MODE(flags, mode)                                              \
    do {                                                               \
        va_list rest;                                                  \
        va_start(rest, flags);                                         \
        if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) \
            mode = va_arg(rest, mode_t);                               \
        va_end(rest);                                                  \
    } while (0)

int open(const char *path, int flags, ...)
{
    mode_t mode = 0;

    MODE(flags, mode);
    return open_file(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    mode_t mode = 0;

    MODE(flags, mode);
    return open_file(AT_FDCWD, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...)
{
    mode_t mode = 0;

    MODE(flags, mode);
    return open_file(at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...)
{
    mode_t mode = 0;

    MODE(flags, mode);
    return open_file(at, path, flags, mode);
}

static void sends(int socket, const void *data, size_t length)
{
    pthread_mutex_lock(&lock);
    note(SENT, (uint64_t)socket, 0, "", data, length);
    pthread_mutex_unlock(&lock);
}

/* A write at a place, or where the file stands. */
static ssize_t write_file(int descriptor, const void *data, size_t length, const off_t *place)
{
    char path[LONGEST];
    const char *name = name_of_open(descriptor, path);
    ssize_t written;

    if (name == NULL)
        return place == NULL ? syscall(SYS_write, descriptor, data, length)
                             : syscall(SYS_pwrite64, descriptor, data, length, *place);
    pthread_mutex_lock(&lock);
    written = place == NULL ? syscall(SYS_write, descriptor, data, length)
                            : syscall(SYS_pwrite64, descriptor, data, length, *place);
    if (written > 0) {
        off_t at = place != NULL ? *place : lseek(descriptor, 0, SEEK_CUR) - written;

        note(WRITTEN, about(descriptor).st_ino, (uint64_t)at, name, data, (size_t)written);
    }
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t write(int descriptor, const void *data, size_t length)
{
    if (is_socket(descriptor))
        sends(descriptor, data, length);
    return write_file(descriptor, data, length, NULL);
}

ssize_t pwrite(int descriptor, const void *data, size_t length, off_t place)
{
    return write_file(descriptor, data, length, &place);
}

ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t place)
{
    return write_file(descriptor, data, length, &place);
}

ssize_t writev(int descriptor, const struct iovec *pieces, int count)
{
    char path[LONGEST];
    int index;

    if (is_socket(descriptor))
        for (index = 0; index < count; index++)
            sends(descriptor, pieces[index].iov_base, pieces[index].iov_len);
    if (name_of_open(descriptor, path) == NULL)
        return syscall(SYS_writev, descriptor, pieces, count);
    /* May write less than it was asked for. */
    return count == 0 ? 0 : write_file(descriptor, pieces[0].iov_base, pieces[0].iov_len, NULL);
}

ssize_t send(int socket, const void *data, size_t length, int flags)
{
    if (is_socket(socket))
        sends(socket, data, length);
    return syscall(SYS_sendto, socket, data, length, flags, NULL, 0);
}

ssize_t sendto(int socket, const void *data, size_t length, int flags, __CONST_SOCKADDR_ARG to, socklen_t size)
{
    if (is_socket(socket))
        sends(socket, data, length);
    return syscall(SYS_sendto, socket, data, length, flags, to.__sockaddr__, size);
}

ssize_t sendmsg(int socket, const struct msghdr *message, int flags)
{
    size_t index;

    if (is_socket(socket))
        for (index = 0; index < message->msg_iovlen; index++)
            sends(socket, message->msg_iov[index].iov_base, message->msg_iov[index].iov_len);
    return syscall(SYS_sendmsg, socket, message, flags);
}

static int cut(int descriptor, off_t length)
{
    char path[LONGEST];
    const char *name = name_of_open(descriptor, path);
    int result;

    if (name == NULL)
        return (int)syscall(SYS_ftruncate, descriptor, length);
    pthread_mutex_lock(&lock);
    result = (int)syscall(SYS_ftruncate, descriptor, length);
    if (result == 0)
        note(CUT, about(descriptor).st_ino, (uint64_t)length, name, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int descriptor, off_t length)
{
    return cut(descriptor, length);
}

int ftruncate64(int descriptor, off64_t length)
{
    return cut(descriptor, length);
}

static int allocate(int descriptor, int mode, off_t place, off_t length)
{
    char path[LONGEST];
    const char *name = name_of_open(descriptor, path);
    int result;

    if (name == NULL)
        return (int)syscall(SYS_fallocate, descriptor, mode, place, length);
    /* What else it can do to a file, the record has no words for. */
    if (mode != 0)
        abort();
    pthread_mutex_lock(&lock);
    result = (int)syscall(SYS_fallocate, descriptor, mode, place, length);
    if (result == 0)
        note(CUT, about(descriptor).st_ino, (uint64_t)about(descriptor).st_size, name, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int fallocate(int descriptor, int mode, off_t place, off_t length)
{
    return allocate(descriptor, mode, place, length);
}

int fallocate64(int descriptor, int mode, off64_t place, off64_t length)
{
    return allocate(descriptor, mode, place, length);
}

int posix_fallocate(int descriptor, off_t place, off_t length)
{
    return allocate(descriptor, 0, place, length) == 0 ? 0 : errno;
}

static int sync_file(int descriptor, long call)
{
    char path[LONGEST];
    const char *name = name_of_open(descriptor, path);
    struct timespec pause;
    int result, error, names;
    uint64_t which, number;

    if (name == NULL)
        return (int)syscall(call, descriptor);
    names = name[0] == '\0';
    pthread_mutex_lock(&lock);
    which = about(descriptor).st_ino;
    number = ++syncs;
    note(names ? NAMES_SYNC_BEGINS : SYNC_BEGINS, which, number, name, NULL, 0);
    pthread_mutex_unlock(&lock);
    pause.tv_sec = sync_ms / 1000;
    pause.tv_nsec = sync_ms % 1000 * 1000000;
    nanosleep(&pause, NULL);
    result = (int)syscall(call, descriptor);
    error = errno;
    if (result == 0) {
        pthread_mutex_lock(&lock);
        note(names ? NAMES_SYNCED : SYNCED, which, number, name, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return result;
}

int fsync(int descriptor)
{
    return sync_file(descriptor, SYS_fsync);
}

int fdatasync(int descriptor)
{
    return sync_file(descriptor, SYS_fdatasync);
}

/* What changes one name, or two. */
static int change_names(uint64_t what, long call, const char *from, const char *to)
{
    const char *name = record < 0 ? NULL : name_of(from), *other = record < 0 || to == NULL ? NULL : name_of(to);
    int result;

    pthread_mutex_lock(&lock);
    if (call == SYS_unlinkat)
        result = (int)syscall(call, AT_FDCWD, from, 0);
    else if (call == SYS_linkat)
        result = (int)syscall(call, AT_FDCWD, from, AT_FDCWD, to, 0);
    else
        result = (int)syscall(call, AT_FDCWD, from, AT_FDCWD, to);
    /* A file that comes from elsewhere, or goes there, the record has no words for. */
    if (result == 0 && to != NULL && (name == NULL) != (other == NULL))
        abort();
    if (result == 0 && name != NULL)
        note(what, 0, 0, name, other, other == NULL ? 0 : strlen(other));
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path)
{
    return change_names(UNLINKED, SYS_unlinkat, path, NULL);
}

int rename(const char *from, const char *to)
{
    return change_names(RENAMED, SYS_renameat, from, to);
}

int link(const char *from, const char *to)
{
    return change_names(LINKED, SYS_linkat, from, to);
}

/* For the program that is recorded: a text of its own. */
void disk_mark(const char *text)
{
    if (record < 0)
        return;
    pthread_mutex_lock(&lock);
    note(MARK, 0, 0, text, NULL, 0);
    pthread_mutex_unlock(&lock);
}
