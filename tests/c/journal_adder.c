/*
 * Makes appointments from several threads: CONFIG PREFIX FIRST COUNT THREADS WHO. The numbers are PREFIX-FIRST and so
 * on, COUNT of them. WHO: each (every number by one thread), all (every number by every thread).
 * Of each call it prints number, code, outcome and answer at once when it has returned, with a NUL behind, for an answer
 * may hold line ends.
 */

#define _GNU_SOURCE
#include "appointment.h"

#include <pthread.h>
#include <unistd.h>

static arctos_client *client;
static const char *prefix;
static int first, count, all;
static int taken;

static void one(int index)
{
    char number[64], *answer = NULL, *text = NULL;
    arctos_code code;
    int length;

    snprintf(number, sizeof number, "%s-%d", prefix, first + index);
    code = add(client, number, &answer);
    length = asprintf(&text, "%s %d %d %s", number, (int)code, (int)arctos_outcome(code, answer), answer);
    CHECK(length > 0 && write(STDOUT_FILENO, text, (size_t)length + 1) == length + 1);
    free(text);
    arctos_free(answer);
}

static void *work(void *unused)
{
    int own = 0;

    (void)unused;
    for (;;) {
        int index = all ? own++ : __atomic_fetch_add(&taken, 1, __ATOMIC_SEQ_CST);

        if (index >= count)
            return NULL;
        one(index);
    }
}

int main(int argc, char **argv)
{
    pthread_t threads[64];
    int index, running;

    CHECK(argc == 7);
    client = new_client(argv[1]);
    prefix = argv[2];
    first = atoi(argv[3]);
    count = atoi(argv[4]);
    running = atoi(argv[5]);
    all = strcmp(argv[6], "all") == 0;
    CHECK(running <= 64);
    for (index = 0; index < running; index++)
        CHECK(pthread_create(&threads[index], NULL, work, NULL) == 0);
    for (index = 0; index < running; index++)
        CHECK(pthread_join(threads[index], NULL) == 0);
    arctos_client_free(client);
    return 0;
}
