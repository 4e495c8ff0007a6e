/*
 * A host whose disk is full, which is played by a limit on the size of its files. The first argument says when:
 *   first CONFIG LOG          before the request: LOG is the file that grows
 *   second CONFIG LOG         after it; at each stage it prints a word and waits for a line
 *   asks CONFIG LOG           the same, and the number is added once more while the disk is full
 *   mode CONFIG FILE          not full, but read-only: FILE is the journal
 *   new CONFIG-BEGIN CONFIG-END
 *                             when the journal is made: between both stands the end of a file's name
 * The system sends a signal to who writes beyond the limit, and by default it ends the process: here that is left so.
 */

#define _GNU_SOURCE
#include "children.h"

#include <linux/capability.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static int journal_events;

static void say(const char *word)
{
    char answer[16];

    dprintf(STDOUT_FILENO, "%s\n", word);
    CHECK(read(STDIN_FILENO, answer, sizeof answer) > 0);
}

static void limit(rlim_t bytes)
{
    struct rlimit limit;

    CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = bytes;
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

static rlim_t size_of(const char *file)
{
    struct stat about;

    CHECK(stat(file, &about) == 0);
    return (rlim_t)about.st_size;
}

static void hear(void *unused, int32_t level, const char *line)
{
    (void)unused;
    if (strstr(line, "\"event\":\"journal\"") != NULL) {
        CHECK(level == 2 && strstr(line, "\"outcome\":\"created\"") != NULL);
        __atomic_add_fetch(&journal_events, 1, __ATOMIC_SEQ_CST);
    }
}

/* A call that must end so. */
static void ends(arctos_client *client, const char *number, arctos_code code, int32_t outcome)
{
    char *answer = NULL;
    arctos_code ended = add(client, number, &answer);

    if (ended != code || arctos_outcome(ended, answer) != outcome)
        fprintf(stderr, "%s: %d %s\n", number, (int)ended, answer);
    CHECK(ended == code && arctos_outcome(ended, answer) == outcome);
    arctos_free(answer);
}

/* How many rows have this outcome. */
static int rows(arctos_client *client, const char *outcome)
{
    char filter[64], *answer = NULL;
    const char *row;
    int count = 0;

    snprintf(filter, sizeof filter, "{\"outcome\":\"%s\",\"limit\":1000}", outcome);
    CHECK(arctos_journal_list(client, filter, &answer) == ARCTOS_OK);
    for (row = answer; (row = strstr(row, "\"out_task_num\"")) != NULL; row++)
        count++;
    arctos_free(answer);
    return count;
}

/* Makes appointments until the log is the longest of the journal's files: only what it would grow by is refused then. */
static void grow(arctos_client *client, const char *log)
{
    char number[16];
    int count = 0;

    do {
        snprintf(number, sizeof number, "G-%d", ++count);
        made(client, number);
    } while (size_of(log) < 256 * 1024);
}

static void first(const char *config, const char *log)
{
    arctos_client *client = new_client(config);
    rlim_t room;
    int known, failed = 0;

    grow(client, log);
    made(client, "F-1");
    known = rows(client, "created");
    /* The log takes a part of what is written, until there is room for all. What was not written may grow it, for
       something else is written over it. */
    for (room = 0; room < 30 * 1024; room += 700) {
        char *answer = NULL;
        arctos_code code;

        limit(size_of(log) + room);
        code = add(client, "F-2", &answer);
        if (code == ARCTOS_OK) {
            arctos_free(answer);
            break;
        }
        CHECK(code == ARCTOS_JOURNAL && arctos_outcome(code, answer) == ARCTOS_NOT_CREATED);
        arctos_free(answer);
        failed++;
        made(client, "F-1");
        CHECK(rows(client, "created") == known && rows(client, "sending") == 0 && rows(client, "unknown") == 0);
    }
    limit(RLIM_INFINITY);
    CHECK(failed > 5);
    /* The room was enough for the request, but maybe not for its outcome. */
    CHECK(rows(client, "created") + rows(client, "unknown") == known + 1);
    made(client, "F-3");
    arctos_client_free(client);
}

static arctos_client *caller;

static void *call(void *unused)
{
    (void)unused;
    made(caller, "S-2");
    return NULL;
}

static void second(const char *config, const char *log, int asks)
{
    pthread_t thread;
    int known;

    caller = new_client(config);
    arctos_set_log(hear, NULL, 2);
    grow(caller, log);
    made(caller, "S-1");
    known = rows(caller, "created");
    CHECK(pthread_create(&thread, NULL, call, NULL) == 0);
    say("sending");
    limit(size_of(log));
    say("full");
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(journal_events == 1);
    CHECK(rows(caller, "unknown") == 1 && rows(caller, "sending") == 0 && rows(caller, "created") == known);
    if (asks)
        ends(caller, "S-2", ARCTOS_UNRESOLVED, ARCTOS_UNKNOWN);
    made(caller, "S-1");
    say("unknown");
    limit(RLIM_INFINITY);
    ends(caller, "S-2", ARCTOS_UNRESOLVED, ARCTOS_UNKNOWN);
    CHECK(rows(caller, "unknown") == 1);
    made(caller, "S-3");
    arctos_client_free(caller);
    arctos_set_log(NULL, NULL, 0);
}

static void anew(const char *begin, const char *end)
{
    rlim_t room;
    int failed = 0;

    for (room = 0; room < 100 * 1024; room += 3000) {
        char config[4096], *answer = NULL;
        arctos_client *client = NULL;
        arctos_code code;

        snprintf(config, sizeof config, "%s-%lu%s", begin, (unsigned long)room, end);
        limit(room);
        code = arctos_client_new(config, &client, &answer);
        limit(RLIM_INFINITY);
        if (code == ARCTOS_OK) {
            arctos_free(answer);
            arctos_client_free(client);
            break;
        }
        CHECK(code == ARCTOS_BAD_CONFIG && client == NULL && strstr(answer, "\"journal.file\"") != NULL);
        arctos_free(answer);
        failed++;
        /* What it left is no hindrance. */
        client = new_client(config);
        snprintf(config, sizeof config, "N-%lu", (unsigned long)room);
        made(client, config);
        made(client, config);
        arctos_client_free(client);
    }
    CHECK(failed > 5 && room < 100 * 1024);
    printf("%d\n", failed);
}

/* Has the modes of files count for the superuser too, in this thread and those that it starts. */
static void obey_modes(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

    CHECK(syscall(SYS_capget, &header, data) == 0);
    data[0].effective &= ~(1U << CAP_DAC_OVERRIDE);
    CHECK(syscall(SYS_capset, &header, data) == 0);
}

static void mode(const char *config, const char *file)
{
    arctos_client *client, *other = NULL;
    char *answer = NULL;
    pid_t child;

    obey_modes();
    client = new_client(config);
    made(client, "O-1");
    CHECK(chmod(file, 0400) == 0);
    /* The file that is open can be written still. */
    made(client, "O-2");
    CHECK(arctos_client_new(config, &other, &answer) == ARCTOS_OK);
    arctos_free(answer);
    arctos_client_free(other);
    /* It is closed before a fork. */
    child = fork_here();
    if (child == 0)
        _exit(0);
    must_end(child, "that only ends");
    ends(client, "O-1", ARCTOS_JOURNAL, ARCTOS_UNKNOWN);
    ends(client, "O-3", ARCTOS_JOURNAL, ARCTOS_UNKNOWN);
    CHECK(arctos_client_new(config, &other, &answer) == ARCTOS_BAD_CONFIG && other == NULL);
    CHECK(strstr(answer, "\"journal.file\"") != NULL && strstr(answer, "may not be written") != NULL);
    arctos_free(answer);
    CHECK(chmod(file, 0600) == 0);
    made(client, "O-1");
    made(client, "O-3");
    other = new_client(config);
    made(other, "O-2");
    made(other, "O-4");
    arctos_client_free(other);
    arctos_client_free(client);
}

int main(int argc, char **argv)
{
    CHECK(argc == 4);
    if (strcmp(argv[1], "first") == 0)
        first(argv[2], argv[3]);
    else if (strcmp(argv[1], "second") == 0)
        second(argv[2], argv[3], 0);
    else if (strcmp(argv[1], "asks") == 0)
        second(argv[2], argv[3], 1);
    else if (strcmp(argv[1], "mode") == 0)
        mode(argv[2], argv[3]);
    else
        anew(argv[2], argv[3]);
    return 0;
}
