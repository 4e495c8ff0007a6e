/*
 * Makes one video appointment with the arctos library. Needs no JSON library.
 *
 *     ARCTOS_TOKEN=... add_task [-v] [-d] BASE_URL OUT_TASK_NUM [CA_FILE]
 *
 * OUT_TASK_NUM is the caller's own number of the appointment. CA_FILE (PEM) holds the authorities to trust
 * instead of the system's. Every text is UTF-8. The token comes from the environment, since other users of the
 * machine can read a program's arguments.
 *
 * -v shows the library's log, a retry for one. -d says that the vendor has promised that a repeat is answered with
 * the first success: then what is unknown is tried again. Ctrl-C cancels the call.
 *
 * The server's task number is the only thing on standard output; everything else goes to standard error.
 *
 * Exit code   0  the appointment was made
 *             2  it was not made: trying again is safe
 *             3  unknown: it may have been made; find out before trying again
 *             4  it was made, but its number could not be had or printed
 * Any other end, such as a signal, says no more than 3.
 */

#define _POSIX_C_SOURCE 200112L /* for signals and threads; the library needs neither */

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "arctos.h"

enum { MADE = 0, NOT_MADE = 2, MAYBE_MADE = 3, MADE_WITHOUT_NUMBER = 4 };

/* The text at a JSON pointer, as it may be shown; to be released with arctos_free. NULL when there is none. */
static char *text_at(const char *json, const char *pointer)
{
    char *text = NULL;
    char *at;

    if (arctos_json_get(json, pointer, &text) != ARCTOS_OK) {
        arctos_free(text); /* of a failure the text is an error document, and is released too */
        return NULL;
    }
    /* What a server says must neither break the line nor command the terminal. */
    for (at = text; at != NULL && *at != '\0'; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = ' ';
    return text;
}

/* Tells what failed, and gives the exit code. Where there is no document, NULL, the caller's reason stands in. */
static int report(arctos_code code, const char *document, const char *reason, arctos_outcome_code outcome)
{
    char *message = text_at(document, "/message");
    char *server = text_at(document, "/server_message");
    const char *word;
    int result;

    /* Codes tell why it failed; only the outcome tells whether the appointment may exist. New codes may come
       with a newer library, and this needs no change for them. */
    switch (outcome) {
    case ARCTOS_NOT_CREATED:
        word = "not_created";
        result = NOT_MADE;
        break;
    case ARCTOS_CREATED:
        word = "created";
        result = MADE_WITHOUT_NUMBER;
        break;
    default:
        word = "unknown";
        result = MAYBE_MADE;
        break;
    }
    fprintf(stderr, "%s: %s", arctos_code_name(code), message != NULL ? message : reason);
    if (server != NULL)
        fprintf(stderr, "; the server says: %s", server);
    fprintf(stderr, " (outcome: %s)\n", word);
    arctos_free(server);
    arctos_free(message);
    return result;
}

/* The configuration, into *config, which the caller releases whatever the code is. */
static arctos_code build_config(char **config, const char *base_url, const char *ca_file, int server_dedupes)
{
    const char *token = getenv("ARCTOS_TOKEN");
    arctos_code code = arctos_json_set_text(config, "/base_url", base_url);

    /* Without a token the library itself says what is missing, at the call. */
    if (code == ARCTOS_OK && token != NULL)
        code = arctos_json_set_text(config, "/token", token);
    if (code == ARCTOS_OK && ca_file != NULL)
        code = arctos_json_set(config, "/tls", "{\"roots\":\"file\"}");
    if (code == ARCTOS_OK && ca_file != NULL)
        code = arctos_json_set_text(config, "/tls/ca_file", ca_file);
    if (code == ARCTOS_OK && server_dedupes)
        code = arctos_json_set(config, "/server_dedupes", "true");
    return code;
}

/* The same time tomorrow. Empty when the machine's clock cannot tell: the library refuses that as a time. */
static void tomorrow(char *text, size_t size)
{
    time_t now = time(NULL);
    time_t then = now + 24L * 60 * 60;
    const struct tm *utc = now == (time_t)-1 ? NULL : gmtime(&then);

    if (utc == NULL || strftime(text, size, "%Y-%m-%dT%H:%M:%SZ", utc) == 0)
        text[0] = '\0';
}

/* The task, into *task, which the caller releases whatever the code is. */
static arctos_code build_task(char **task, const char *out_task_num)
{
    char task_time[32];
    arctos_code code;

    tomorrow(task_time, sizeof task_time);

    /* json_set takes JSON, such as a number. json_set_text takes any text and escapes it: use it for everything
       that comes from outside, so that no quote in a name can change what is sent. */
    code = arctos_json_set(task, "/business_id", "15");
    if (code == ARCTOS_OK)
        code = arctos_json_set_text(task, "/out_task_num", out_task_num);
    if (code == ARCTOS_OK)
        code = arctos_json_set_text(task, "/task_type", "normal");
    if (code == ARCTOS_OK)
        code = arctos_json_set(task, "/task_notify", "false");
    if (code == ARCTOS_OK)
        code = arctos_json_set_text(task, "/task_time", task_time);
    if (code == ARCTOS_OK)
        code = arctos_json_set_text(task, "/branch_code", "943");
    if (code == ARCTOS_OK)
        code = arctos_json_set_text(task, "/room_type", "normal");
    if (code == ARCTOS_OK)
        code = arctos_json_set(task, "/video", "true");
    return code;
}

/* Makes *client, which stays NULL on failure. Gives the exit code. */
static int open_client(arctos_client **client, const char *base_url, const char *ca_file, int server_dedupes)
{
    char *config = NULL;
    char *answer = NULL;
    int result = MADE;
    arctos_code code = build_config(&config, base_url, ca_file, server_dedupes);

    if (code == ARCTOS_OK)
        code = arctos_client_new(config, client, &answer);
    /* Nothing is sent up to here, so whatever failed, no appointment was made. */
    if (code != ARCTOS_OK)
        result = report(code, answer, "no configuration: is every argument UTF-8?", ARCTOS_NOT_CREATED);
    arctos_free(answer);
    arctos_free(config); /* wipes the token in it */
    return result;
}

/* Prints the number that a successful answer gives, and a note when it carries a warning. Gives the exit code. */
static int print_number(const char *answer)
{
    char *number = text_at(answer, "/info/task_num");
    char *status = text_at(answer, "/status");
    char *message = text_at(answer, "/message");
    int result = MADE;

    /* The server may write its status as 2 or as "2"; the text is the same. */
    if (status != NULL && strcmp(status, "2") == 0)
        fprintf(stderr, "warning: %s (outcome: created)\n", message != NULL ? message : "the server gives no reason");

    if (number == NULL) {
        fprintf(stderr, "no memory for the task number (outcome: created)\n");
        result = MADE_WITHOUT_NUMBER;
    } else if (printf("%s\n", number) < 0 || fflush(stdout) != 0) {
        fprintf(stderr, "the task number %s could not be printed (outcome: created)\n", number);
        result = MADE_WITHOUT_NUMBER;
    }
    arctos_free(message);
    arctos_free(status);
    arctos_free(number);
    return result;
}

/* Each event of the library is one line of JSON. */
static void ARCTOS_CALL write_event(void *file, int32_t level, const char *line)
{
    (void)level;
    fprintf((FILE *)file, "%s\n", line);
}

static sigset_t interrupt(void)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    return signals;
}

/* No function of the library may be called by a signal handler: all threads hold Ctrl-C back, and this one waits for
   it. It lives as long as the process. */
static void *cancel_on_interrupt(void *client)
{
    sigset_t signals = interrupt();
    int number;

    while (sigwait(&signals, &number) == 0)
        arctos_client_cancel((arctos_client *)client);
    return NULL;
}

/* Has Ctrl-C end the call, which tells its outcome as ever. Without a thread it ends the process, as ever. */
static void watch_for_interrupt(arctos_client *client)
{
    sigset_t signals = interrupt();
    pthread_t watcher;

    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    if (pthread_create(&watcher, NULL, cancel_on_interrupt, client) == 0)
        pthread_detach(watcher);
    else
        pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
}

/* Makes the appointment. Gives the exit code. */
static int add_task(arctos_client *client, const char *out_task_num)
{
    char *task = NULL;
    char *answer = NULL;
    int result;
    arctos_code code = build_task(&task, out_task_num);

    if (code != ARCTOS_OK) {
        result = report(code, NULL, "no task: is its number UTF-8?", ARCTOS_NOT_CREATED);
    } else {
        code = arctos_task_add(client, task, &answer);
        if (code == ARCTOS_OK)
            result = print_number(answer);
        else
            result = report(code, answer, "no memory to say more", arctos_outcome(code, answer));
    }
    arctos_free(answer);
    arctos_free(task);
    return result;
}

int main(int argc, char **argv)
{
    arctos_client *client = NULL;
    int verbose = 0;
    int server_dedupes = 0;
    int result;

    for (; argc > 1 && (strcmp(argv[1], "-v") == 0 || strcmp(argv[1], "-d") == 0); argc--, argv++) {
        if (argv[1][1] == 'v')
            verbose = 1;
        else
            server_dedupes = 1;
    }
    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: ARCTOS_TOKEN=... add_task [-v] [-d] BASE_URL OUT_TASK_NUM [CA_FILE]\n");
        return NOT_MADE;
    }
    /* A header and a library of two different interfaces must not meet. */
    if (arctos_abi_version() != ARCTOS_ABI_VERSION) {
        fprintf(stderr, "the arctos library %s does not fit this program (outcome: not_created)\n", arctos_version());
        return NOT_MADE;
    }
    if (verbose)
        arctos_set_log(write_event, stderr, 3);
    result = open_client(&client, argv[1], argc == 4 ? argv[3] : NULL, server_dedupes);
    if (result == MADE) {
        watch_for_interrupt(client);
        result = add_task(client, argv[2]);
    }
    arctos_client_free(client);
    arctos_set_log(NULL, NULL, 0);
    return result;
}
