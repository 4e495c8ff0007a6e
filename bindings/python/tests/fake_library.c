/* A library with the names of arctos.h that says what a test tells it to, and counts what it handed out.
   The test builds it with -DABI=<version>. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static int32_t next_code;
static int32_t next_outcome;
static char *next_text;
static int texts;
static int clients;
static char last_options[256];
static void (*log_function)(void *, int32_t, const char *);
static int32_t log_most;

void fake_next(int32_t code, const char *text, int32_t outcome)
{
    free(next_text);
    next_text = text == NULL ? NULL : strdup(text);
    next_code = code;
    next_outcome = outcome;
}

int fake_texts(void) { return texts; }
int fake_clients(void) { return clients; }
const char *fake_options(void) { return last_options; }

/* Tells an event, as far as the log wants it. */
void fake_event(int32_t level, const char *line)
{
    if (log_function != NULL && level <= log_most)
        log_function(NULL, level, line);
}

static int32_t reply(char **answer)
{
    *answer = next_text == NULL ? NULL : strdup(next_text);
    texts += *answer != NULL;
    return next_code;
}

uint32_t arctos_abi_version(void) { return ABI; }

#if ABI == 1
const char *arctos_version(void) { return "fake"; }

const char *arctos_code_name(int32_t code)
{
    (void)code;
    return "ARCTOS_FAKE";
}

void arctos_free(char *text)
{
    texts -= text != NULL;
    free(text);
}

int32_t arctos_outcome(int32_t code, const char *answer)
{
    (void)code, (void)answer;
    return next_outcome;
}

int32_t arctos_client_new(const char *config, void **client, char **answer)
{
    int32_t code = reply(answer);
    (void)config;
    *client = code == 0 ? malloc(1) : NULL;
    clients += *client != NULL;
    return code;
}

void arctos_client_free(void *client)
{
    clients -= client != NULL;
    free(client);
}

int32_t arctos_client_set_token(void *client, const char *token, char **answer)
{
    (void)client, (void)token;
    return reply(answer);
}

int32_t arctos_task_add(void *client, const char *task, char **answer)
{
    (void)client, (void)task;
    return reply(answer);
}

int32_t arctos_task_add_with(void *client, const char *task, const char *options, char **answer)
{
    (void)client, (void)task;
    strncpy(last_options, options == NULL ? "NULL" : options, sizeof last_options - 1);
    fake_event(1, "{\"event\":\"failure\"}");
    return reply(answer);
}

int32_t arctos_task_add_many(void *client, const char *tasks, const char *options,
                             int32_t (*row)(void *, int32_t, int32_t, int32_t, int32_t, const char *), void *user,
                             char **answer)
{
    if (row != NULL || user != NULL)
        abort();
    return arctos_task_add_with(client, tasks, options, answer);
}

int32_t arctos_call(void *client, const char *path, const char *body, const char *options, char **answer)
{
    (void)path;
    return arctos_task_add_with(client, body, options, answer);
}

int32_t arctos_client_diagnose(void *client, char **answer)
{
    (void)client;
    return reply(answer);
}

int32_t arctos_client_stats(void *client, char **answer)
{
    (void)client;
    return reply(answer);
}

int32_t arctos_journal_list(void *client, const char *filter, char **answer)
{
    return arctos_task_add_with(client, NULL, filter, answer);
}

int32_t arctos_journal_resolve(void *client, const char *out_task_num, const char *resolution, char **answer)
{
    return arctos_task_add_with(client, out_task_num, resolution, answer);
}

int32_t arctos_client_cancel(void *client)
{
    (void)client;
    return next_code;
}

int32_t arctos_call_cancel(void *client, const char *call_id)
{
    (void)client, (void)call_id;
    return next_code;
}

void arctos_set_log(void (*log)(void *, int32_t, const char *), void *user, int32_t most)
{
    (void)user;
    log_function = log;
    log_most = most;
}

int32_t arctos_task_check(const char *task, char **answer)
{
    (void)task;
    return reply(answer);
}
#endif
