/* Makes the calls of the benchmark through this library. See client.h. */

#include "arctos.h"
#include "client.h"

static arctos_client **clients;
static size_t client_count;
static size_t *turns; /* of each thread, over the clients */

/* `document` is NULL or what came with the code. */
static void check(arctos_code code, const char *what, const char *document)
{
    if (code != ARCTOS_OK)
        fail("%s: %s", what, document != NULL ? document : arctos_code_name(code));
}

static void set_number(char **config, const char *pointer, size_t number)
{
    char text[24];

    snprintf(text, sizeof text, "%zu", number);
    check(arctos_json_set(config, pointer, text), pointer, NULL);
}

static void set_up(const struct options *options)
{
    char *config = NULL;
    char *answer = NULL;
    arctos_code code;
    size_t index;

    check(arctos_json_set_text(&config, "/base_url", options->url), "base_url", NULL);
    check(arctos_json_set_text(&config, "/token", TOKEN), "token", NULL);
    check(arctos_json_set_text(&config, "/user_agent", AGENT), "user_agent", NULL);
    set_number(&config, "/timeout_ms", TIMEOUT_MS);
    set_number(&config, "/connect_timeout_ms", CONNECT_TIMEOUT_MS);
    set_number(&config, "/connections", options->threads > 8 ? options->threads : 8);
    if (!options->keep)
        check(arctos_json_set(&config, "/idle_timeout_ms", "0"), "idle_timeout_ms", NULL);
    if (options->ca_file != NULL) {
        check(arctos_json_set(&config, "/tls", "{\"roots\":\"file\"}"), "tls", NULL);
        check(arctos_json_set_text(&config, "/tls/ca_file", options->ca_file), "ca_file", NULL);
    }
    client_count = options->clients;
    clients = memory(client_count, sizeof(arctos_client *));
    turns = memory(options->threads, sizeof *turns);
    for (index = 0; index < client_count; index++) {
        code = arctos_client_new(config, &clients[index], &answer);
        check(code, "no client", answer);
        arctos_free(answer);
    }
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
