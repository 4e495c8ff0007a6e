/*
 * A disk that does what its environment says. Preloaded, it stands before the system's:
 *   DISK_HANGS   while a file of this name is there, fsync and fdatasync of files do not come back
 *   DISK_FAILS   while a file of this name is there, they fail
 *   DISK_IS      statfs says that all folders lie on a file system of this number
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

static int is_there(const char *variable)
{
    const char *name = getenv(variable);
    struct stat about;

    return name != NULL && stat(name, &about) == 0;
}

static int when_it_answers(const char *name, int descriptor)
{
    int (*system)(int);
    const struct timespec ms = {0, 1000000};

    while (is_there("DISK_HANGS"))
        nanosleep(&ms, NULL);
    if (is_there("DISK_FAILS")) {
        errno = EIO;
        return -1;
    }
    *(void **)&system = dlsym(RTLD_NEXT, name);
    return system(descriptor);
}

int fsync(int descriptor)
{
    return when_it_answers("fsync", descriptor);
}

int fdatasync(int descriptor)
{
    return when_it_answers("fdatasync", descriptor);
}

int statfs(const char *path, struct statfs *about)
{
    int (*system)(const char *, struct statfs *);
    const char *is = getenv("DISK_IS");
    int done;

    *(void **)&system = dlsym(RTLD_NEXT, "statfs");
    done = system(path, about);
    if (done == 0 && is != NULL)
        about->f_type = (long)strtoul(is, NULL, 0);
    return done;
}
