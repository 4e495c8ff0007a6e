/*
 * A host in which pauses take no time: a thread that sleeps moves the clock forward instead.
 *
 * Arguments: how many calls it makes, one after another; a configuration. It prints the lines of the log up to
 * information, and for each call its error document.
 */

#define _GNU_SOURCE
#include "appointment.h"

#include <sys/syscall.h>
#include <unistd.h>

#define BILLION 1000000000LL

/* How many nanoseconds were slept. The host has one thread, and the library none of its own. */
static int64_t slept;

/* The library's, too: what a program has itself stands before the C library's. */
int clock_gettime(clockid_t clock, struct timespec *time)
{
    int64_t nanoseconds;

    if (syscall(SYS_clock_gettime, clock, time) != 0)
        return -1;
    if (clock == CLOCK_MONOTONIC) {
        nanoseconds = time->tv_nsec + slept;
        time->tv_sec += nanoseconds / BILLION;
        time->tv_nsec = nanoseconds % BILLION;
    }
    return 0;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time, struct timespec *left)
{
    (void)clock;
    (void)left;
    CHECK(flags == 0);
    slept += time->tv_sec * BILLION + time->tv_nsec;
    return 0;
}

static void print(void *user, int32_t level, const char *line)
{
    (void)user;
    (void)level;
    puts(line);
}

int main(int count, char **arguments)
{
    arctos_client *client;
    char *answer = NULL;
    int call;

    CHECK(count == 3);
    client = new_client(arguments[2]);
    arctos_set_log(print, NULL, 3);
    for (call = 0; call < atoi(arguments[1]); call++) {
        CHECK(add(client, "N", &answer) != ARCTOS_OK && answer != NULL);
        puts(answer);
        arctos_free(answer);
    }
    arctos_client_free(client);
    return 0;
}
