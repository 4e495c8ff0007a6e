/* What the programs share that fork. */
#ifndef CHILDREN_H
#define CHILDREN_H

#include "appointment.h"

#include <dirent.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* A child that is not done after this time hangs. No call of a child waits for anything nearly as long. */
#define PATIENCE_MS 40000

/* Forks; a child ends with the thread that forked it at the latest. */
static inline pid_t fork_here(void)
{
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0)
        CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
    return child;
}

/* Waits until a child has ended, which must be well. */
static inline void must_end(pid_t child, const char *what)
{
    int ms, status;

    for (ms = 0; ms < PATIENCE_MS; ms++) {
        pid_t ended = waitpid(child, &status, WNOHANG);

        CHECK(ended == 0 || ended == child);
        if (ended == child) {
            if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
                fprintf(stderr, "the child %s has ended with status %#x\n", what, (unsigned)status);
            CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
            return;
        }
        pause_ms(1);
    }
    fprintf(stderr, "the child %s hangs\n", what);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    exit(1);
}

/* How many sockets this process has open; none of these programs opens one by itself. */
static inline int sockets(void)
{
    DIR *folder = opendir("/proc/self/fd");
    struct dirent *entry;
    char target[64];
    int count = 0;

    CHECK(folder != NULL);
    while ((entry = readdir(folder)) != NULL) {
        ssize_t length = readlinkat(dirfd(folder), entry->d_name, target, sizeof target);

        count += length > 7 && strncmp(target, "socket:", 7) == 0;
    }
    closedir(folder);
    return count;
}

#endif
