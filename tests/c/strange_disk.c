/*
 * A disk that does what its environment says. Preloaded, it stands before the system's:
 *   DISK_HANGS   while a file of this name is there, fsync and fdatasync of files do not come back
 *   DISK_IS      statfs says that all folders lie on a file system of this number
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

static int when_it_answers(const char *name, int descriptor)
{
    int (*system)(int);
    const char *hangs = getenv("DISK_HANGS");
    const struct timespec ms = {0, 1000000};
    struct stat about;

    while (hangs != NULL && stat(hangs, &about) == 0)
        nanosleep(&ms, NULL);
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

int statfs64(const char *path, struct statfs64 *about)
{
    int (*system)(const char *, struct statfs64 *);
    const char *is = getenv("DISK_IS");
    int done;

    *(void **)&system = dlsym(RTLD_NEXT, "statfs64");
    done = system(path, about);
    if (done == 0 && is != NULL)
        about->f_type = (long)strtoul(is, NULL, 0);
    return done;
}
