/* What the programs of this library have in common. See client.h. */

#ifndef ARCTOS_BENCH_OWN_H
#define ARCTOS_BENCH_OWN_H

#include "arctos.h"
#include "client.h"

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

/* A client that keeps so many connections. */
static arctos_client *new_client(const struct options *options, size_t connections)
{
    arctos_client *client = NULL;
    char *config = NULL;
    char *answer = NULL;

    check(arctos_json_set_text(&config, "/base_url", options->url), "base_url", NULL);
    check(arctos_json_set_text(&config, "/token", TOKEN), "token", NULL);
    check(arctos_json_set_text(&config, "/user_agent", AGENT), "user_agent", NULL);
    set_number(&config, "/timeout_ms", TIMEOUT_MS);
    set_number(&config, "/connect_timeout_ms", CONNECT_TIMEOUT_MS);
    set_number(&config, "/connections", connections);
    if (!options->keep)
        check(arctos_json_set(&config, "/idle_timeout_ms", "0"), "idle_timeout_ms", NULL);
    if (options->ca_file != NULL) {
        check(arctos_json_set(&config, "/tls", "{\"roots\":\"file\"}"), "tls", NULL);
        check(arctos_json_set_text(&config, "/tls/ca_file", options->ca_file), "ca_file", NULL);
    }
    check(arctos_client_new(config, &client, &answer), "no client", answer);
    arctos_free(answer);
    arctos_free(config);
    return client;
}

static const char *version(void)
{
    static char text[64];

    snprintf(text, sizeof text, "libarctos/%s", arctos_version());
    return text;
}

#endif
