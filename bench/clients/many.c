/*
 * Makes many appointments with one call of this library, over as many connections as it keeps by itself. See client.h:
 * a call is that of all MANY, and THREADS and CLIENTS must be 1.
 */

#include "arctos.h"
#include "client.h"

enum { MANY = 10000 };

static arctos_client *client;
static char *tasks;   /* a JSON array */
static size_t stride; /* from one task in it to the next */
static size_t made;

static void check(arctos_code code, const char *what, const char *answer)
{
    if (code != ARCTOS_OK)
        fail("%s: %s", what, answer != NULL ? answer : arctos_code_name(code));
}

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
    char *config = NULL;
    char *answer = NULL;

    if (options->threads != 1 || options->clients != 1)
        fail("THREADS and CLIENTS must be 1");
    set_up_tasks(options->body_bytes);
    check(arctos_json_set_text(&config, "/base_url", options->url), "base_url", NULL);
    check(arctos_json_set_text(&config, "/token", TOKEN), "token", NULL);
    check(arctos_json_set_text(&config, "/user_agent", AGENT), "user_agent", NULL);
    if (!options->keep)
        check(arctos_json_set(&config, "/idle_timeout_ms", "0"), "idle_timeout_ms", NULL);
    if (options->ca_file != NULL) {
        check(arctos_json_set(&config, "/tls", "{\"roots\":\"file\"}"), "tls", NULL);
        check(arctos_json_set_text(&config, "/tls/ca_file", options->ca_file), "ca_file", NULL);
    }
    check(arctos_client_new(config, &client, &answer), "no client", answer);
    arctos_free(answer);
    arctos_free(config);
}

static const char *version(void)
{
    static char text[64];

    snprintf(text, sizeof text, "libarctos/%s", arctos_version());
    return text;
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
