/* A log function that throws: it must end the process, before the library is unwound. */

#include <arctos.h>
#include <cstdio>

static void ARCTOS_CALL throw_something(void *, int32_t, const char *)
{
    std::puts("thrown");
    std::fflush(stdout);
    throw 1;
}

int main()
{
    arctos_client *client = NULL;

    if (arctos_client_new("{\"base_url\":\"http://127.0.0.1:1\"}", &client, NULL) != ARCTOS_OK)
        return 1;
    arctos_set_log(throw_something, NULL, 4);
    try {
        arctos_task_add(client, "{}", NULL);
        std::puts("returned");
    } catch (...) {
        std::puts("caught");
    }
    return 0;
}
