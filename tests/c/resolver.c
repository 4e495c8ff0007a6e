/*
 * A getaddrinfo that does what a name says. Preloaded, it stands before the system's:
 *   hang…    does not return before resolver_release() was called
 *   slow…    takes 300 ms
 *   fail-N…  fails with the code -N
 *   list.…   the addresses that its labels spell, such as list.127-0-0-2.ip6-loopback.127-0-0-10-20.bank.example: one,
 *            ::1, and eleven
 * All others, and those that no longer hang, are 127.0.0.1.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int (*getaddrinfo_fn)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

/* Without a lock, which a child of fork would find closed. */
static int released;

void resolver_release(void);

void resolver_release(void)
{
    __atomic_store_n(&released, 1, __ATOMIC_SEQ_CST);
}

static int begins(const char *name, const char *with)
{
    return strncmp(name, with, strlen(with)) == 0;
}

static int list(getaddrinfo_fn system, const char *labels, const char *service, const struct addrinfo *hints,
                struct addrinfo **found)
{
    struct addrinfo **next = found;
    int part[5], count, code;
    char address[64];

    *found = NULL;
    for (; strchr(labels, '-') != NULL; labels += strcspn(labels, ".") + 1) {
        count = sscanf(labels, "%d-%d-%d-%d-%d", &part[0], &part[1], &part[2], &part[3], &part[4]);
        if (count < 4)
            part[3] = 0;
        if (count < 5)
            part[4] = part[3];
        for (; part[3] <= part[4]; part[3]++) {
            snprintf(address, sizeof address, "%d.%d.%d.%d", part[0], part[1], part[2], part[3]);
            code = system(begins(labels, "ip6-loopback") ? "::1" : address, service, hints, next);
            if (code != 0)
                return code;
            next = &(*next)->ai_next;
        }
    }
    return *found == NULL ? EAI_NONAME : 0;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    static const struct timespec slow = {0, 300000000}, moment = {0, 1000000};
    getaddrinfo_fn system;

    *(void **)&system = dlsym(RTLD_NEXT, "getaddrinfo");
    while (begins(name, "hang") && !__atomic_load_n(&released, __ATOMIC_SEQ_CST))
        nanosleep(&moment, NULL);
    if (begins(name, "slow"))
        nanosleep(&slow, NULL);
    if (begins(name, "fail-")) {
        errno = EIO;
        return -atoi(name + strlen("fail-"));
    }
    if (begins(name, "list."))
        return list(system, name + strlen("list."), service, hints, found);
    return system("127.0.0.1", service, hints, found);
}
