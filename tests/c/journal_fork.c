/*
 * A host with a journal that forks. Arguments: a mode, the configuration, the file of the journal.
 *   storm   500 children while six threads add numbers: each adds one of its own, and one that its parent adds too; prints
 *           how many each thread has added. What there is:
 *             T<thread>-<call>  of a thread
 *             C<child>          of a child
 *             S<child>          of a child and, at the same time, of its parent
 *             L<child>          of a child whose parent has freed the client by then
 *   orphan  a child lives on when its parent was killed amid calls; at each stage it prints a word and waits for a line
 */

#define _GNU_SOURCE
#include "children.h"

#include <limits.h>
#include <pthread.h>
#include <stdint.h>

#define ROUNDS 25
#define CHILDREN 20
#define THREADS 6
/* No thread makes more calls, should a child hang. */
#define MOST_CALLS 5000
/* A child, or a round, that is not done after so many seconds hangs, and is ended by the system. */
#define PATIENCE 60

static arctos_client *client;
static const char *file;
static int stop, calls[THREADS];
/* Numbers that parent and child add: how many there are, and how many the parent's threads have taken. */
static int shared, taken;

static void say(const char *word)
{
    char answer[16];

    dprintf(STDOUT_FILENO, "%s\n", word);
    CHECK(read(STDIN_FILENO, answer, sizeof answer) > 0);
}

/* How many descriptors this process has of the journal's file and of those beside it. */
static int descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    struct dirent *entry;
    char target[PATH_MAX];
    int count = 0;

    CHECK(folder != NULL);
    while ((entry = readdir(folder)) != NULL) {
        ssize_t length = readlinkat(dirfd(folder), entry->d_name, target, sizeof target - 1);

        if (length < 0)
            continue;
        target[length] = '\0';
        count += strncmp(target, file, strlen(file)) == 0;
    }
    closedir(folder);
    return count;
}

static void made_of(const char *kind, int index)
{
    char number[32];

    snprintf(number, sizeof number, "%s%d", kind, index);
    made(client, number);
}

/* The next number that a child adds too, if there is one that no thread has taken. */
static int take_shared(void)
{
    int next = __atomic_load_n(&taken, __ATOMIC_SEQ_CST);

    while (next < __atomic_load_n(&shared, __ATOMIC_SEQ_CST))
        if (__atomic_compare_exchange_n(&taken, &next, next + 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            return next;
    return -1;
}

static void *busy(void *argument)
{
    int thread = (int)(intptr_t)argument;
    char kind[16];

    snprintf(kind, sizeof kind, "T%d-", thread);
    for (;;) {
        int next = take_shared();

        if (next >= 0)
            made_of("S", next);
        else if (__atomic_load_n(&stop, __ATOMIC_SEQ_CST))
            return NULL;
        if (calls[thread] < MOST_CALLS)
            made_of(kind, calls[thread]++);
    }
}

/* What children of a round do at last. */
enum { LEAVE, FREE, OUTLIVE, ENDS };

static void child_of(int number, int end, int go)
{
    char byte;

    alarm(PATIENCE);
    CHECK(descriptors() == 0);
    if (number % 2) {
        made_of("S", number);
        made_of("C", number);
    } else {
        made_of("C", number);
        made_of("S", number);
    }
    if (end == OUTLIVE) {
        /* Its parent has no client any more when this comes to its end. */
        CHECK(read(go, &byte, 1) == 0);
        made_of("L", number);
        made_of("C", number);
    }
    if (end == FREE)
        arctos_client_free(client);
    _exit(0);
}

static void round_of(const char *config, int first, int end)
{
    pthread_t threads[THREADS];
    pid_t children[CHILDREN];
    int index, go[2];

    alarm(PATIENCE);
    client = new_client(config);
    CHECK(pipe(go) == 0);
    __atomic_store_n(&stop, 0, __ATOMIC_SEQ_CST);
    for (index = 0; index < THREADS; index++)
        CHECK(pthread_create(&threads[index], NULL, busy, (void *)(intptr_t)index) == 0);
    for (index = 0; index < CHILDREN; index++) {
        children[index] = fork_here();
        if (children[index] == 0) {
            close(go[1]);
            child_of(first + index, end, go[0]);
        }
        __atomic_store_n(&shared, first + index + 1, __ATOMIC_SEQ_CST);
        /* Four at once, so that each has its parent's calls beside it. */
        if (index >= 4 && end != OUTLIVE)
            must_end(children[index - 4], "of a round");
    }
    if (end != OUTLIVE)
        for (index = CHILDREN - 4; index < CHILDREN; index++)
            must_end(children[index], "of a round");
    __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
    for (index = 0; index < THREADS; index++)
        CHECK(pthread_join(threads[index], NULL) == 0);
    /* Also after a child has freed it, it is the parent's. */
    made_of("S", first);
    arctos_client_free(client);
    close(go[1]);
    if (end == OUTLIVE)
        for (index = 0; index < CHILDREN; index++)
            must_end(children[index], "that outlives the client");
    close(go[0]);
}

static void storm(const char *config)
{
    int index;

    client = new_client(config);
    made_of("S", 0);
    /* Where a child has none of these, it is not for want of them. */
    CHECK(descriptors() > 0);
    arctos_client_free(client);
    for (index = 0; index < ROUNDS; index++)
        round_of(config, index * CHILDREN, index % ENDS);
    for (index = 0; index < THREADS; index++)
        dprintf(STDOUT_FILENO, "%d\n", calls[index]);
}

static void *call_once(void *argument)
{
    char *answer = NULL;

    /* Its process is killed before. */
    add(client, argument, &answer);
    CHECK(!"the call has returned");
    return NULL;
}

/* Asks for a number that its parent was sending: nobody waits for who is dead. */
static void is_unresolved(const char *number)
{
    char *answer = NULL;
    arctos_code code = add(client, number, &answer);

    if (code != ARCTOS_UNRESOLVED)
        fprintf(stderr, "%s: %s\n", number, answer == NULL ? "no answer" : answer);
    CHECK(code == ARCTOS_UNRESOLVED && arctos_outcome(code, answer) == ARCTOS_UNKNOWN);
    arctos_free(answer);
}

static void orphan(const char *config)
{
    static char *const numbers[] = {"O-0", "O-1", "O-2", "O-3"};
    char *answer = NULL;
    pthread_t thread;
    time_t began;
    int index;

    client = new_client(config);
    for (index = 0; index < 4; index++)
        CHECK(pthread_create(&thread, NULL, call_once, numbers[index]) == 0);
    say("calling");
    if (fork() != 0)
        for (;;)
            pause();
    alarm(PATIENCE);
    CHECK(descriptors() == 0);
    made(client, "CHILD-1");
    /* While the parent lives, they are being sent. */
    CHECK(arctos_task_add_with(client,
                               "{\"business_id\":15,\"out_task_num\":\"O-0\",\"task_type\":\"normal\","
                               "\"branch_code\":943,\"room_type\":\"realtime\",\"video\":true}",
                               "{\"timeout_ms\":500}", &answer) == ARCTOS_TIMEOUT);
    arctos_free(answer);
    say("waited");
    began = time(NULL);
    for (index = 0; index < 4; index++)
        is_unresolved(numbers[index]);
    /* A call may last 50 seconds. */
    CHECK(time(NULL) - began < 20);
    made(client, "CHILD-2");
    arctos_client_free(client);
    dprintf(STDOUT_FILENO, "done\n");
    _exit(0);
}

int main(int count, char **arguments)
{
    CHECK(count == 4);
    file = arguments[3];
    if (strcmp(arguments[1], "storm") == 0)
        storm(arguments[2]);
    else if (strcmp(arguments[1], "orphan") == 0)
        orphan(arguments[2]);
    else
        CHECK(!"a mode");
    return 0;
}
