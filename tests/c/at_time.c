/*
 * Makes one appointment where the clock may be set by a preloaded library.
 *
 * Arguments: a configuration, and the number of the appointment. It prints one line with the time of its clock, the code
 * and the outcome, and then the text: that of arctos_client_new, where that fails.
 */
#include "appointment.h"

int main(int count, char **arguments)
{
    arctos_client *client = NULL;
    time_t now = time(NULL);
    char *answer = NULL, clock[32];
    arctos_code code;

    CHECK(count == 3);
    code = arctos_client_new(arguments[1], &client, &answer);
    if (code == ARCTOS_OK) {
        arctos_free(answer);
        code = add(client, arguments[2], &answer);
    }
    CHECK(answer != NULL);
    CHECK(strftime(clock, sizeof clock, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now)) > 0);
    printf("%s %d %d\n%s", clock, (int)code, (int)arctos_outcome(code, answer), answer);
    arctos_free(answer);
    arctos_client_free(client);
    return 0;
}
