/*
 * Another thread forks at a certain allocation of the library's first use. The child then uses the library, though
 * nobody finishes what the first use had begun. Arguments: at which allocation, and a configuration. Exits with 3 when
 * there were fewer allocations.
 */

#define _GNU_SOURCE
#include "children.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);

static sem_t fork_now, forked;
static long place;
static __thread long left;

/* The allocation goes on when the other thread has forked, or waits for this one. */
static void at_allocation(void)
{
    struct timespec until;

    if (left == 0 || --left > 0)
        return;
    sem_post(&fork_now);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 30000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    while (sem_timedwait(&forked, &until) != 0 && errno == EINTR)
        ;
}

void *malloc(size_t size)
{
    at_allocation();
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    at_allocation();
    return __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    at_allocation();
    return __libc_realloc(memory, size);
}

static arctos_client *volatile before;

static void *fork_when_told(void *config)
{
    char number[32], *text = NULL;
    pid_t child;

    while (sem_wait(&fork_now) != 0)
        ;
    child = fork_here();
    snprintf(number, sizeof number, "C%ld", place);
    if (child == 0) {
        arctos_client *client = new_client(config);

        arctos_set_log(NULL, NULL, 0);
        made(client, number);
        CHECK(arctos_json_set(&text, "/a", "1") == ARCTOS_OK);
        /* The client of the first use, once it is there. */
        if (before != NULL) {
            snprintf(number, sizeof number, "B%ld", place);
            made(before, number);
            arctos_client_free(before);
        }
        _exit(0);
    }
    sem_post(&forked);
    must_end(child, number);
    return NULL;
}

int main(int count, char **arguments)
{
    pthread_t forker;
    char number[32];
    int reached;

    CHECK(count == 3);
    place = atol(arguments[1]);
    CHECK(sem_init(&fork_now, 0, 0) == 0 && sem_init(&forked, 0, 0) == 0);
    CHECK(pthread_create(&forker, NULL, fork_when_told, arguments[2]) == 0);
    snprintf(number, sizeof number, "P%ld", place);

    left = place;
    before = new_client(arguments[2]);
    made(before, number);
    reached = left == 0;
    left = 0;

    if (reached)
        CHECK(pthread_join(forker, NULL) == 0);
    arctos_client_free(before);
    return reached ? 0 : 3;
}
