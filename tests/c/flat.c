/*
 * Makes the same call again and again, every other time with a log, and looks at its own process before and after:
 * nothing may have grown. Linux with glibc only, without its quick lists of freed blocks and with one heap for all
 * threads. Arguments: the code that every call must return, its outcome (-1: any), "kept" for one client or "fresh" for
 * a new one each time, how many calls, a configuration, a task, or "diagnose".
 */

#define _GNU_SOURCE
#include "check.h"

#include <arctos.h>
#include <dirent.h>
#include <malloc.h>
#include <string.h>
#include <unistd.h>

/* Whatever is made once has been made by then. */
#define WARM_UP 100
/* 1,000 calls that each lose five bytes leave more. What the C library keeps for a thread is less. */
#define MOST_HEAP 4096
/* What does not come from the heap, to the page. */
#define MOST_MEMORY (512 * 1024)
/* How long threads that have nothing more to do may take to end, in milliseconds. */
#define PATIENCE 30000

struct process {
    int descriptors;
    int threads;
    long heap;
    long memory;
};

/* How many entries a folder has, its own two left out. */
static int entries(const char *path)
{
    DIR *folder = opendir(path);
    int count = 0;

    CHECK(folder != NULL);
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count - 2;
}

static void look(struct process *process)
{
    struct mallinfo2 heap;
    FILE *file;
    long size, resident;
    int patience;

    /* No call waits for the end of a thread that looks names up: it ends when it finds nothing more to do. */
    for (patience = PATIENCE; (process->threads = entries("/proc/self/task")) > 1 && patience > 0; patience--)
        usleep(1000);
    heap = mallinfo2();
    process->heap = (long)(heap.uordblks + heap.hblkhd);
    file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%ld %ld", &size, &resident) == 2);
    fclose(file);
    process->memory = resident * sysconf(_SC_PAGESIZE);
    process->descriptors = entries("/proc/self/fd");
}

static arctos_code wanted;
static int outcome;
static const char *config, *task;

static arctos_client *new_client(void)
{
    arctos_client *client = NULL;
    char *answer = NULL;
    arctos_code code = arctos_client_new(config, &client, &answer);

    CHECK(code == (wanted == ARCTOS_BAD_CONFIG ? wanted : ARCTOS_OK));
    CHECK(answer != NULL);
    arctos_free(answer);
    return client;
}

static void add(arctos_client *client)
{
    char *answer = NULL;
    arctos_code code = strcmp(task, "diagnose") == 0 ? arctos_client_diagnose(client, &answer)
                                                     : arctos_task_add(client, task, &answer);
    int is = arctos_outcome(code, answer);

    if (code != wanted)
        fprintf(stderr, "%s\n", answer);
    CHECK(code == wanted);
    CHECK(outcome == -1 || is == outcome);
    CHECK(answer != NULL);
    arctos_free(answer);
}

static void ARCTOS_CALL count_lines(void *user, int32_t level, const char *line)
{
    CHECK(level >= 1 && level <= 4 && line[0] == '{');
    ++*(long *)user;
}

static void call(arctos_client *kept, int number)
{
    static long lines;
    arctos_client *client = kept != NULL ? kept : new_client();

    arctos_set_log(number % 2 == 0 ? count_lines : NULL, &lines, 4);
    if (client != NULL)
        add(client);
    if (client != kept)
        arctos_client_free(client);
}

int main(int count, char **arguments)
{
    struct process before, after;
    arctos_client *kept;
    int calls;

    CHECK(count == 7);
    wanted = atoi(arguments[1]);
    outcome = atoi(arguments[2]);
    calls = atoi(arguments[4]);
    config = arguments[5];
    task = arguments[6];
    kept = strcmp(arguments[3], "kept") == 0 ? new_client() : NULL;

    for (count = 0; count < WARM_UP; count++)
        call(kept, count);
    look(&before);
    for (count = 0; count < calls; count++)
        call(kept, count);
    look(&after);
    arctos_client_free(kept);

    fprintf(stderr, "descriptors %d to %d, threads %d to %d, heap %ld to %ld, memory %ld to %ld\n", before.descriptors,
            after.descriptors, before.threads, after.threads, before.heap, after.heap, before.memory, after.memory);
    CHECK(after.descriptors == before.descriptors);
    CHECK(after.threads == 1 && before.threads == 1);
    CHECK(after.heap - before.heap <= MOST_HEAP);
    CHECK(after.memory - before.memory <= MOST_MEMORY);
    return 0;
}
