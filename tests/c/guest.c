/*
 * A host that looks at its own process before and after it has used the library in every way: the library is a guest
 * and leaves everything as it was. Arguments, three at a time: what is done with a client ("call", "diagnose", "many", or
 * "threads", where several call at once), the name of the code with which each of it ends, and its configuration.
 */

#define _GNU_SOURCE
#include "appointment.h"

#include <dirent.h>
#include <fcntl.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#define TASK(number)                                                                                                  \
    "{\"business_id\":15,\"out_task_num\":\"" number "\",\"task_type\":\"normal\",\"branch_code\":943,"              \
    "\"room_type\":\"realtime\",\"video\":true}"

/* As many as the servers expect. */
#define THREADS 4

#define MOST_SIGNALS 65
#define MOST_VARIABLES 1024

struct process {
    struct sigaction actions[MOST_SIGNALS];
    sigset_t mask;
    mode_t umask;
    char folder[4096];
    char locale[4096];
    char *environment[MOST_VARIABLES];
    int descriptors;
    int stdout_flags;
    int stderr_flags;
};

static int open_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int count = 0;

    CHECK(folder != NULL);
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

static void look(struct process *process)
{
    int number;
    size_t index;

    memset(process, 0, sizeof *process);
    for (number = 1; number < MOST_SIGNALS; number++)
        sigaction(number, NULL, &process->actions[number]);
    CHECK(sigprocmask(SIG_SETMASK, NULL, &process->mask) == 0);
    process->umask = umask(0);
    umask(process->umask);
    CHECK(getcwd(process->folder, sizeof process->folder) != NULL);
    strncpy(process->locale, setlocale(LC_ALL, NULL), sizeof process->locale - 1);
    for (index = 0; environ[index] != NULL; index++) {
        CHECK(index < MOST_VARIABLES);
        process->environment[index] = strdup(environ[index]);
    }
    process->descriptors = open_descriptors();
    process->stdout_flags = fcntl(STDOUT_FILENO, F_GETFL);
    process->stderr_flags = fcntl(STDERR_FILENO, F_GETFL);
}

static void compare(const struct process *before, const struct process *after)
{
    int number;
    size_t index;

    for (number = 1; number < MOST_SIGNALS; number++) {
        CHECK(before->actions[number].sa_handler == after->actions[number].sa_handler);
        CHECK(before->actions[number].sa_flags == after->actions[number].sa_flags);
        CHECK(sigismember(&before->mask, number) == sigismember(&after->mask, number));
    }
    CHECK(before->umask == after->umask);
    CHECK(strcmp(before->folder, after->folder) == 0);
    CHECK(strcmp(before->locale, after->locale) == 0);
    for (index = 0; index < MOST_VARIABLES; index++) {
        CHECK((before->environment[index] == NULL) == (after->environment[index] == NULL));
        if (before->environment[index] == NULL)
            break;
        CHECK(strcmp(before->environment[index], after->environment[index]) == 0);
    }
    CHECK(before->descriptors == after->descriptors);
    CHECK(before->stdout_flags == after->stdout_flags);
    CHECK(before->stderr_flags == after->stderr_flags);
}

static void misuse(void)
{
    arctos_client *client = NULL;
    char *text = NULL;

    CHECK(arctos_client_new(NULL, &client, NULL) == ARCTOS_BAD_ARGUMENT);
    CHECK(arctos_client_new("{", &client, NULL) == ARCTOS_BAD_CONFIG);
    CHECK(arctos_client_new("{\"base_url\":\"x\",\"retries\":1}", &client, &text) == ARCTOS_BAD_CONFIG);
    arctos_free(text);
    CHECK(arctos_client_new("{\"base_url\":\"https://h\",\"tls\":{\"roots\":\"file\",\"ca_file\":\"/none\"}}", &client, NULL) ==
          ARCTOS_BAD_CONFIG);
    CHECK(arctos_task_add((arctos_client *)12345, TASK("GUEST"), NULL) == ARCTOS_BAD_ARGUMENT);
    CHECK(arctos_task_check("\xff", &text) == ARCTOS_BAD_ARGUMENT);
    arctos_free(text);
    CHECK(arctos_task_check("[]", NULL) == ARCTOS_BAD_TASK);
    CHECK(arctos_json_get("{}", "/a", NULL) == ARCTOS_NO_VALUE);
    text = NULL;
    CHECK(arctos_json_set(&text, "a", "1") == ARCTOS_BAD_ARGUMENT);
    arctos_free((char *)"a stranger");
    arctos_client_free((arctos_client *)12345);
}

/* Puts another token into the file of a client that has one. */
static void change_token_file(const char *config)
{
    char *path = NULL;
    FILE *file;

    if (arctos_json_get(config, "/token_file", &path) != ARCTOS_OK)
        return;
    file = fopen(path, "w");
    CHECK(file != NULL && fputs("another-token\n", file) >= 0 && fclose(file) == 0);
    arctos_free(path);
}

/* A call must end with the code of this name, and with a text. */
static void ends(arctos_code code, const char *name, char *answer)
{
    if (strcmp(arctos_code_name(code), name) != 0)
        fprintf(stderr, "not %s: %s\n", name, answer == NULL ? "no text" : answer);
    CHECK(strcmp(arctos_code_name(code), name) == 0);
    CHECK(answer != NULL);
    arctos_free(answer);
}

static void call(const char *config, const char *name)
{
    arctos_client *client = new_client(config);
    char *answer = NULL;
    arctos_code code;

    code = arctos_task_add(client, TASK("GUEST-1"), &answer);
    ends(code, name, answer);
    change_token_file(config);
    CHECK(arctos_client_stats(client, &answer) == ARCTOS_OK);
    arctos_free(answer);
    /* Nothing is in flight. */
    CHECK(arctos_client_cancel(client) == ARCTOS_OK);
    CHECK(arctos_call_cancel(client, "c-1") == ARCTOS_OK);
    code = arctos_task_add_with(client, TASK("GUEST-2"), "{\"call_id\":\"c-1\"}", &answer);
    ends(code, name, answer);
    code = arctos_call(client, "/api/x", "{\"out_task_num\":\"GUEST-3\"}", NULL, &answer);
    ends(code, name, answer);
    arctos_client_free(client);
}

static void diagnose(const char *config, const char *name)
{
    arctos_client *client = new_client(config);
    char *answer = NULL;
    arctos_code code = arctos_client_diagnose(client, &answer);

    ends(code, name, answer);
    arctos_client_free(client);
}

static int32_t ARCTOS_CALL count_row(void *user, int32_t index, int32_t done, int32_t total, arctos_code code,
                                     const char *row)
{
    CHECK(index < total && done <= total && code == ARCTOS_OK && row[0] == '{');
    ++*(int *)user;
    return 0;
}

static void many(const char *config, const char *name)
{
    arctos_client *client = new_client(config);
    char *answer = NULL;
    int rows = 0;
    arctos_code code = arctos_task_add_many(client, "[" TASK("GUEST-4") "," TASK("GUEST-5") "]", NULL, count_row, &rows,
                                            &answer);

    ends(code, name, answer);
    CHECK(rows == 2);
    arctos_client_free(client);
}

static void *make(void *client)
{
    made(client, "GUEST-1");
    return NULL;
}

/* Every call must be made. */
static void call_at_once(const char *config, const char *name)
{
    arctos_client *client = new_client(config);
    pthread_t threads[THREADS];
    int index;

    CHECK(strcmp(name, "ARCTOS_OK") == 0);
    for (index = 0; index < THREADS; index++)
        CHECK(pthread_create(&threads[index], NULL, make, client) == 0);
    for (index = 0; index < THREADS; index++)
        CHECK(pthread_join(threads[index], NULL) == 0);
    arctos_client_free(client);
}

static void ARCTOS_CALL count_lines(void *user, int32_t level, const char *line)
{
    CHECK(level >= 1 && level <= 4 && line[0] == '{');
    /* Several threads may be here at once. */
    __atomic_fetch_add((int *)user, 1, __ATOMIC_RELAXED);
}

static void use(int count, char **arguments)
{
    int index;
    int lines = 0;

    arctos_set_log(count_lines, &lines, 4);
    misuse();
    for (index = 1; index < count; index += 3) {
        const char *what = arguments[index], *name = arguments[index + 1], *config = arguments[index + 2];

        if (strcmp(what, "call") == 0)
            call(config, name);
        else if (strcmp(what, "diagnose") == 0)
            diagnose(config, name);
        else if (strcmp(what, "many") == 0)
            many(config, name);
        else {
            CHECK(strcmp(what, "threads") == 0);
            call_at_once(config, name);
        }
    }
    arctos_set_log(NULL, NULL, 0);
    CHECK(lines > 0);
}

static struct process before, after;

int main(int count, char **arguments)
{
    CHECK(count > 3 && count % 3 == 1);
    CHECK(setlocale(LC_ALL, "") != NULL);
    umask(037);
    look(&before);
    use(count, arguments);
    look(&after);
    compare(&before, &after);
    return 0;
}
