/* Makes the calls of the benchmark through this library. See client.h. */

#include "own.h"

static arctos_client **clients;
static size_t client_count;
static size_t *turns; /* of each thread, over the clients */

static void set_up(const struct options *options)
{
    size_t index;

    client_count = options->clients;
    clients = memory(client_count, sizeof(arctos_client *));
    turns = memory(options->threads, sizeof *turns);
    for (index = 0; index < client_count; index++)
        clients[index] = new_client(options, options->threads > 8 ? options->threads : 8);
}

static void call(size_t thread, const char *task, size_t length)
{
    arctos_client *client = clients[turns[thread]++ % client_count];
    char *answer = NULL;
    arctos_code code;

    (void)length;
    code = arctos_task_add(client, task, &answer);
    check(code, "a call failed", answer);
    if (!has_number(answer))
        fail("no number: %s", answer);
    arctos_free(answer);
}

static void tear_down(void)
{
    size_t index;

    for (index = 0; index < client_count; index++)
        arctos_client_free(clients[index]);
    free(clients);
    free(turns);
}

int main(int count, char **arguments)
{
    static const struct library library = {set_up, version, call, tear_down};

    return run(&library, count, arguments);
}
