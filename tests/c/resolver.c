/*
 * A getaddrinfo that does what a name says. Preloaded, it stands before the system's:
 *   hang…    does not return before resolver_release() was called
 *   slow…    takes 300 ms
 *   fail-N…  fails with the code -N
 *   two…     127.0.0.2, then 127.0.0.1
 * All others, and those that no longer hang, are 127.0.0.1.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int (*getaddrinfo_fn)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int released;

void resolver_release(void);

void resolver_release(void)
{
    pthread_mutex_lock(&lock);
    released = 1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static int begins(const char *name, const char *with)
{
    return strncmp(name, with, strlen(with)) == 0;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    static const struct timespec slow = {0, 300000000};
    getaddrinfo_fn system;
    int code;

    *(void **)&system = dlsym(RTLD_NEXT, "getaddrinfo");
    if (begins(name, "hang")) {
        pthread_mutex_lock(&lock);
        while (!released)
            pthread_cond_wait(&changed, &lock);
        pthread_mutex_unlock(&lock);
    }
    if (begins(name, "slow"))
        nanosleep(&slow, NULL);
    if (begins(name, "fail-")) {
        errno = EIO;
        return -atoi(name + strlen("fail-"));
    }
    if (begins(name, "two")) {
        code = system("127.0.0.2", service, hints, found);
        return code != 0 ? code : system("127.0.0.1", service, hints, &(*found)->ai_next);
    }
    return system("127.0.0.1", service, hints, found);
}
