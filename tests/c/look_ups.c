/*
 * A thousand calls at once, whose names are never found, are cancelled. Arguments: configurations, of which each has as
 * many of the calls. Prints how many threads the library had at most, and the median and the longest of the times that
 * calls went on after they had been cancelled, in milliseconds.
 */

#define _GNU_SOURCE
#include "appointment.h"

#include <dirent.h>
#include <pthread.h>

#define CALLS 1000
#define MOST_CLIENTS 100

struct caller {
    pthread_t thread;
    arctos_client *client;
    int64_t ended;
};

static int begun, ended;

static int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int threads(void)
{
    DIR *folder = opendir("/proc/self/task");
    struct dirent *entry;
    int count = 0;

    CHECK(folder != NULL);
    while ((entry = readdir(folder)) != NULL)
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count;
}

/* The last thing that is told of a call before it asks for its name. */
static void count_attempts(void *user, int32_t level, const char *line)
{
    (void)user, (void)level;
    if (strstr(line, "\"event\":\"attempt\"") != NULL)
        __atomic_add_fetch(&begun, 1, __ATOMIC_SEQ_CST);
}

static void *call_once(void *argument)
{
    struct caller *caller = argument;
    char *answer = NULL;
    arctos_code code = add(caller->client, "NEVER", &answer);

    caller->ended = now();
    if (code != ARCTOS_CANCELLED)
        fprintf(stderr, "%s\n", answer);
    CHECK(code == ARCTOS_CANCELLED && arctos_outcome(code, answer) == ARCTOS_NOT_CREATED);
    arctos_free(answer);
    __atomic_add_fetch(&ended, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static int by_time(const void *one, const void *other)
{
    int64_t first = ((const struct caller *)one)->ended, second = ((const struct caller *)other)->ended;

    return first < second ? -1 : first > second;
}

int main(int count, char **arguments)
{
    static struct caller callers[CALLS];
    arctos_client *clients[MOST_CLIENTS];
    pthread_attr_t attributes;
    int64_t cancelled;
    int index, most;

    CHECK(count > 1 && --count <= MOST_CLIENTS);
    arctos_set_log(count_attempts, NULL, 4);
    for (index = 0; index < count; index++)
        clients[index] = new_client(arguments[1 + index]);
    CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, 256 * 1024) == 0);
    for (index = 0; index < CALLS; index++) {
        callers[index].client = clients[index % count];
        CHECK(pthread_create(&callers[index].thread, &attributes, call_once, &callers[index]) == 0);
    }
    while (__atomic_load_n(&begun, __ATOMIC_SEQ_CST) < CALLS)
        pause_ms(1);
    most = threads() - CALLS - 1;
    CHECK(__atomic_load_n(&ended, __ATOMIC_SEQ_CST) == 0);
    cancelled = now();
    for (index = 0; index < count; index++)
        CHECK(arctos_client_cancel(clients[index]) == ARCTOS_OK);
    for (index = 0; index < CALLS; index++)
        CHECK(pthread_join(callers[index].thread, NULL) == 0);
    qsort(callers, CALLS, sizeof callers[0], by_time);
    printf("%d %d %d\n", most, (int)((callers[CALLS / 2].ended - cancelled) / 1000000),
           (int)((callers[CALLS - 1].ended - cancelled) / 1000000));
    for (index = 0; index < count; index++)
        arctos_client_free(clients[index]);
    return 0;
}
