/*
 * Makes many appointments with one call of this library, over 8 connections. See client.h: a call is that of all MANY,
 * and THREADS and CLIENTS must be 1.
 */

#include "own.h"

enum { MANY = 10000 };

static arctos_client *client;
static char *tasks;   /* a JSON array */
static size_t stride; /* from one task in it to the next */
static size_t made;

static int32_t ARCTOS_CALL count_row(void *user, int32_t index, int32_t done, int32_t total, arctos_code code,
                                     const char *row)
{
    (void)user, (void)index, (void)done, (void)total;
    check(code, "a call failed", row);
    if (!has_number(row))
        fail("no number: %s", row);
    made++;
    return 0;
}

static void set_up_tasks(size_t bytes)
{
    char *task = task_without_number(bytes);
    size_t index;

    stride = bytes + 1;
    tasks = memory(MANY * stride + 2, 1);
    for (index = 0; index < MANY; index++) {
        tasks[index * stride] = index == 0 ? '[' : ',';
        memcpy(tasks + index * stride + 1, task, bytes);
    }
    tasks[MANY * stride] = ']';
    free(task);
}

static void set_up(const struct options *options)
{
    if (options->threads != 1 || options->clients != 1)
        fail("THREADS and CLIENTS must be 1");
    set_up_tasks(options->body_bytes);
    client = new_client(options, 8);
}

static void call(size_t thread, const char *task, size_t length)
{
    static uint64_t last;
    size_t index;

    (void)thread, (void)task, (void)length;
    for (index = 0; index < MANY; index++)
        write_number(tasks + index * stride + 1, ++last);
    made = 0;
    check(arctos_task_add_many(client, tasks, NULL, count_row, NULL, NULL), "not all were made", NULL);
    if (made != MANY)
        fail("%zu of %d rows", made, (int)MANY);
}

static void tear_down(void)
{
    arctos_client_free(client);
    free(tasks);
}

int main(int count, char **arguments)
{
    static const struct library library = {set_up, version, call, tear_down};

    return run(&library, count, arguments);
}
