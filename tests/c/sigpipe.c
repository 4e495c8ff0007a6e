/*
 * Sends large tasks to a server that closes early, with SIGPIPE as it is in every new process: it would end this one.
 * Arguments: a configuration, and how many calls to make.
 */

#define _GNU_SOURCE
#include "check.h"

#include <arctos.h>
#include <signal.h>
#include <string.h>

/* More than the buffers of both kernels take, so that the call is still writing when the server closes. */
#define REMARK (24 * 1024 * 1024)

int main(int count, char **arguments)
{
    arctos_client *client = NULL;
    struct sigaction action;
    sigset_t mask;
    char *task = NULL;
    char *remark = malloc(REMARK + 1);
    long calls;

    CHECK(count == 3 && remark != NULL);
    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    sigemptyset(&mask);
    sigaddset(&mask, SIGPIPE);
    CHECK(sigprocmask(SIG_UNBLOCK, &mask, NULL) == 0);

    memset(remark, 'x', REMARK);
    remark[REMARK] = '\0';
    CHECK(arctos_json_set(&task, "",
                          "{\"business_id\":15,\"out_task_num\":\"LARGE\",\"task_type\":\"normal\",\"branch_code\":943,"
                          "\"room_type\":\"realtime\",\"video\":true}") == ARCTOS_OK);
    CHECK(arctos_json_set_text(&task, "/task_remark", remark) == ARCTOS_OK);
    CHECK(arctos_client_new(arguments[1], &client, NULL) == ARCTOS_OK);
    for (calls = strtol(arguments[2], NULL, 10); calls > 0; calls--) {
        char *answer = NULL;
        arctos_code code = arctos_task_add(client, task, &answer);

        if (code != ARCTOS_BROKEN && code != ARCTOS_CONNECT)
            fprintf(stderr, "%s\n", answer);
        CHECK(code == ARCTOS_BROKEN || code == ARCTOS_CONNECT);
        arctos_free(answer);
    }

    /* It was neither ignored nor held back meanwhile. */
    CHECK(sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL);
    CHECK(sigprocmask(SIG_SETMASK, NULL, &mask) == 0 && sigismember(&mask, SIGPIPE) == 0);
    CHECK(sigpending(&mask) == 0 && sigismember(&mask, SIGPIPE) == 0);
    arctos_client_free(client);
    arctos_free(task);
    free(remark);
    return 0;
}
