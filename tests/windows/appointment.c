/*
 * Calls the library on Windows, one case after the other, against the sandbox:
 *
 *     appointment.exe BASE_URL TOKEN PROXY [CA_FILE]
 *
 * PROXY, http://user:password@host:port, leads to that server, and to no one who gives another password.
 *
 * The first thing that is wrong ends the program with exit code 1 and a message on stderr. On stdout it names each case
 * before it runs, and each call after it, for whoever can ask the sandbox what was made:
 *
 *     case: a refusal
 *     call: fail-1 not_created -
 *
 * With an APPOINTMENT in its environment it makes that one with a journal, and nothing else.
 */

#include <winsock2.h>
#include <windows.h>

#include <arctos.h>
#include <check.h>
#include <stdint.h>
#include <string.h>

/* How much later than it should be something may happen on a busy machine. */
#define SLACK_MS 8000

static const char *base_url;
static const char *token;
static const char *proxy;
static const char *ca_file;

/* One call: what goes in, and what came out of it. */
struct call {
    arctos_client *client;
    const char *number;
    const char *options;
    arctos_code code;
    char *answer;
    int64_t elapsed_ms;
    HANDLE thread;
};

static int64_t now_ms(void)
{
    LARGE_INTEGER count, frequency;

    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&frequency);
    return count.QuadPart * 1000 / frequency.QuadPart;
}

/* The configuration for a server, without a token. */
static char *config_without_token(const char *url)
{
    char *text = NULL;

    CHECK(arctos_json_set_text(&text, "/base_url", url) == ARCTOS_OK);
    if (ca_file != NULL) {
        CHECK(arctos_json_set(&text, "/tls", "{\"roots\":\"file\"}") == ARCTOS_OK);
        CHECK(arctos_json_set_text(&text, "/tls/ca_file", ca_file) == ARCTOS_OK);
    }
    return text;
}

/* Makes a client, and releases the configuration. */
/* The configuration for a server. A case may add to it before it makes the client. */
static char *config(const char *url)
{
    char *text = config_without_token(url);

    CHECK(arctos_json_set_text(&text, "/token", token) == ARCTOS_OK);
    return text;
}

static arctos_client *new_client(char *configuration)
{
    arctos_client *client = NULL;
    char *answer = NULL;

    if (arctos_client_new(configuration, &client, &answer) != ARCTOS_OK) {
        fprintf(stderr, "no client: %s\n", answer);
        exit(1);
    }
    CHECK(client != NULL);
    arctos_free(answer);
    arctos_free(configuration);
    return client;
}

static DWORD WINAPI run(LPVOID argument)
{
    struct call *call = argument;
    char *task = NULL;
    int64_t start;

    CHECK(arctos_json_set(&task, "",
                          "{\"business_id\":15,\"task_type\":\"normal\",\"branch_code\":943,"
                          "\"room_type\":\"realtime\",\"video\":true}") == ARCTOS_OK);
    CHECK(arctos_json_set_text(&task, "/out_task_num", call->number) == ARCTOS_OK);
    start = now_ms();
    call->code = arctos_task_add_with(call->client, task, call->options, &call->answer);
    call->elapsed_ms = now_ms() - start;
    arctos_free(task);
    return 0;
}

/* Runs a call on a thread of its own, until it is finished. */
static void start(struct call *call)
{
    call->thread = CreateThread(NULL, 0, run, call, 0, NULL);
    CHECK(call->thread != NULL);
}

static int is_running(const struct call *call)
{
    return WaitForSingleObject(call->thread, 0) == WAIT_TIMEOUT;
}

static void finish(struct call *call)
{
    CHECK(WaitForSingleObject(call->thread, INFINITE) == WAIT_OBJECT_0);
    CloseHandle(call->thread);
}

/* Checks what became of a call: its code, its outcome, and the text that it handed over. */
static void became(struct call *call, arctos_code code, arctos_outcome_code outcome)
{
    static const char *const OUTCOMES[] = {"not_created", "created", "unknown"};
    const arctos_outcome_code told = arctos_outcome(call->code, call->answer);
    char *value = NULL;

    if (call->code != code || told != outcome) {
        fprintf(stderr, "%s: should be %s and %s, is %s and %s after %lld ms: %s\n", call->number,
                arctos_code_name(code), OUTCOMES[outcome], arctos_code_name(call->code), OUTCOMES[told],
                (long long)call->elapsed_ms, call->answer != NULL ? call->answer : "no answer");
        exit(1);
    }
    if (code == ARCTOS_OK) {
        CHECK(arctos_json_get(call->answer, "/info/task_num", &value) == ARCTOS_OK);
        CHECK(*value != '\0');
        printf("call: %s created %s\n", call->number, value);
    } else {
        CHECK(arctos_json_get(call->answer, "/outcome", &value) == ARCTOS_OK);
        CHECK(strcmp(value, OUTCOMES[outcome]) == 0);
        printf("call: %s %s -\n", call->number, value);
    }
    arctos_free(value);
    arctos_free(call->answer);
}

/* Makes a call on this thread, checks what became of it, and gives how long it took. */
static int64_t add(arctos_client *client, const char *number, const char *options, arctos_code code,
                   arctos_outcome_code outcome)
{
    struct call call = {.client = client, .number = number, .options = options};

    run(&call);
    became(&call, code, outcome);
    return call.elapsed_ms;
}

/* The same for one call, on a client of its own. */
static int64_t add_once(char *configuration, const char *number, const char *options, arctos_code code,
                        arctos_outcome_code outcome)
{
    arctos_client *client = new_client(configuration);
    int64_t elapsed_ms = add(client, number, options, code, outcome);

    arctos_client_free(client);
    return elapsed_ms;
}

/* A server of this program's that says nothing, and the address of a client for it. */
static SOCKET silent_server(const char *scheme, char url[64])
{
    SOCKET listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int length = sizeof address;

    CHECK(listener != INVALID_SOCKET);
    CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(listener, 16) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
    snprintf(url, 64, "%s://127.0.0.1:%u", scheme, ntohs(address.sin_port));
    return listener;
}

static void an_appointment(void)
{
    add_once(config(base_url), "windows-1", NULL, ARCTOS_OK, ARCTOS_CREATED);
}

static void a_server_by_its_name(void)
{
    char url[64];

    snprintf(url, sizeof url, "%s://localhost%s", ca_file != NULL ? "https" : "http", strrchr(base_url, ':'));
    add_once(config(url), "by-name-1", NULL, ARCTOS_OK, ARCTOS_CREATED);
}

static void a_refusal(void)
{
    add_once(config(base_url), "fail-1", NULL, ARCTOS_FAILED, ARCTOS_NOT_CREATED);
}

static void an_outcome_that_nobody_knows(void)
{
    add_once(config(base_url), "reset-after-1", NULL, ARCTOS_BROKEN, ARCTOS_UNKNOWN);
}

static void one_client_after_a_failure(void)
{
    arctos_client *client = new_client(config(base_url));

    add(client, "windows-2", NULL, ARCTOS_OK, ARCTOS_CREATED);
    add(client, "reset-after-2", NULL, ARCTOS_BROKEN, ARCTOS_UNKNOWN);
    add(client, "windows-3", NULL, ARCTOS_OK, ARCTOS_CREATED);
    arctos_client_free(client);
}

static void a_deadline_while_the_server_thinks(void)
{
    int64_t elapsed_ms = add_once(config(base_url), "slow-1", "{\"timeout_ms\":1500}", ARCTOS_TIMEOUT, ARCTOS_UNKNOWN);

    CHECK(elapsed_ms >= 1500 - 1);
    CHECK(elapsed_ms < 1500 + SLACK_MS);
}

static void a_deadline_in_the_tls_handshake(void)
{
    char url[64];
    SOCKET listener = silent_server("https", url);
    char *configuration = config(url);
    int64_t elapsed_ms;

    CHECK(arctos_json_set(&configuration, "/connect_timeout_ms", "500") == ARCTOS_OK);
    elapsed_ms = add_once(configuration, "handshake-1", "{\"timeout_ms\":60000}", ARCTOS_TIMEOUT, ARCTOS_NOT_CREATED);
    CHECK(elapsed_ms >= 500 - 1);
    CHECK(elapsed_ms < 500 + SLACK_MS);
    closesocket(listener);
}

/* Windows itself tries a refused connection to this machine again for about 2 s. */
static void a_closed_port(void)
{
    char url[64];
    char *configuration;

    closesocket(silent_server("http", url));
    configuration = config(url);
    CHECK(arctos_json_set(&configuration, "/connect_timeout_ms", "60000") == ARCTOS_OK);
    CHECK(add_once(configuration, "closed-1", "{\"timeout_ms\":60000}", ARCTOS_CONNECT, ARCTOS_NOT_CREATED) < SLACK_MS);
}

static void an_authority_that_windows_does_not_know(void)
{
    char *configuration = config(base_url);

    CHECK(arctos_json_set(&configuration, "/tls", "{\"roots\":\"system\"}") == ARCTOS_OK);
    add_once(configuration, "authority-1", NULL, ARCTOS_TLS, ARCTOS_NOT_CREATED);
}

static void two_threads_at_once(void)
{
    arctos_client *client = new_client(config(base_url));
    struct call first = {.client = client, .number = "at-once-1"};
    struct call second = {.client = client, .number = "at-once-2"};

    start(&first);
    start(&second);
    finish(&first);
    finish(&second);
    became(&first, ARCTOS_OK, ARCTOS_CREATED);
    became(&second, ARCTOS_OK, ARCTOS_CREATED);
    arctos_client_free(client);
}

static void a_call_that_waits_holds_up_nobody(void)
{
    char url[64];
    char byte;
    SOCKET listener = silent_server("http", url);
    struct call waiting = {.client = new_client(config(url)), .number = "waits-1", .options = "{\"timeout_ms\":60000}"};
    SOCKET connection;

    start(&waiting);
    connection = accept(listener, NULL, NULL);
    CHECK(connection != INVALID_SOCKET);
    CHECK(recv(connection, &byte, 1, 0) == 1);
    add_once(config(base_url), "meanwhile-1", NULL, ARCTOS_OK, ARCTOS_CREATED);
    CHECK(is_running(&waiting));
    closesocket(connection);
    closesocket(listener);
    finish(&waiting);
    became(&waiting, ARCTOS_BROKEN, ARCTOS_UNKNOWN);
    arctos_client_free(waiting.client);
}

static int reuses;
static int retries;

/* Every case runs its calls one at a time while it counts. */
static void ARCTOS_CALL count_events(void *user, int32_t level, const char *line)
{
    (void)level;
    CHECK(user == &reuses);
    reuses += strstr(line, "\"event\":\"reuse\"") != NULL;
    retries += strstr(line, "\"event\":\"retry\"") != NULL;
}

static void a_connection_that_is_kept_and_a_try_that_is_repeated(void)
{
    arctos_client *client = new_client(config(base_url));

    reuses = retries = 0;
    arctos_set_log(count_events, &reuses, 4);
    add(client, "kept-1", NULL, ARCTOS_OK, ARCTOS_CREATED);
    CHECK(reuses == 0);
    add(client, "kept-2", NULL, ARCTOS_OK, ARCTOS_CREATED);
    CHECK(reuses == 1);
    add(client, ca_file != NULL ? "busy-once-2" : "busy-once-1", NULL, ARCTOS_OK, ARCTOS_CREATED);
    CHECK(retries == 1);
    arctos_set_log(NULL, NULL, 0);
    arctos_client_free(client);
}

/* Cancels a call that waits for its answer: all of the client when `call_id` is NULL, else the one of that id. */
static void cancelled(const char *number, const char *options, const char *call_id)
{
    char url[64];
    char byte;
    SOCKET listener = silent_server("http", url);
    struct call waiting = {.client = new_client(config(url)), .number = number, .options = options};
    SOCKET connection;
    int64_t then;

    start(&waiting);
    connection = accept(listener, NULL, NULL);
    CHECK(connection != INVALID_SOCKET);
    CHECK(recv(connection, &byte, 1, 0) == 1);
    CHECK(arctos_call_cancel(waiting.client, "another") == ARCTOS_OK);
    CHECK(is_running(&waiting));
    then = now_ms();
    CHECK((call_id != NULL ? arctos_call_cancel(waiting.client, call_id) : arctos_client_cancel(waiting.client)) ==
          ARCTOS_OK);
    finish(&waiting);
    CHECK(now_ms() - then < SLACK_MS);
    became(&waiting, ARCTOS_CANCELLED, ARCTOS_UNKNOWN);
    arctos_client_free(waiting.client);
    closesocket(connection);
    closesocket(listener);
}

static void calls_that_are_cancelled(void)
{
    cancelled("cancelled-1", "{\"timeout_ms\":60000}", NULL);
    cancelled("cancelled-2", "{\"timeout_ms\":60000,\"call_id\":\"desk-7\"}", "desk-7");
}

/* The configuration for the server through a proxy. */
static char *config_through(const char *setting)
{
    char *text = config(base_url);

    CHECK(arctos_json_set_text(&text, "/proxy", setting) == ARCTOS_OK);
    return text;
}

static void a_proxy_with_a_password(void)
{
    char wrong[128];

    add_once(config_through(proxy), "proxy-1", NULL, ARCTOS_OK, ARCTOS_CREATED);
    snprintf(wrong, sizeof wrong, "http://branch:wrong%s", strrchr(proxy, '@'));
    add_once(config_through(wrong), "proxy-2", NULL, ARCTOS_CONNECT, ARCTOS_NOT_CREATED);
}

static void a_proxy_that_the_environment_names(void)
{
    const char *variable = ca_file != NULL ? "HTTPS_PROXY" : "HTTP_PROXY";

    CHECK(SetEnvironmentVariableA(variable, proxy));
    add_once(config_through("env"), "env-1", NULL, ARCTOS_OK, ARCTOS_CREATED);
    /* Nothing listens there, and nobody is sent there. */
    CHECK(SetEnvironmentVariableA(variable, "http://127.0.0.1:1"));
    CHECK(SetEnvironmentVariableA("NO_PROXY", "bank.example, 127.0.0.0/8"));
    add_once(config_through("env"), "env-2", NULL, ARCTOS_OK, ARCTOS_CREATED);
    CHECK(SetEnvironmentVariableA(variable, NULL));
    CHECK(SetEnvironmentVariableA("NO_PROXY", NULL));
}

static void write_token(const char *file, const char *text)
{
    FILE *stream = fopen(file, "wb");

    CHECK(stream != NULL);
    CHECK(fprintf(stream, "\xef\xbb\xbf%s\r\n", text) > 0);
    CHECK(fclose(stream) == 0);
}

static void a_token_from_a_file(void)
{
    const char *file = "token.txt";
    char *configuration = config_without_token(base_url);
    arctos_client *client;

    write_token(file, "an-old-token");
    CHECK(arctos_json_set_text(&configuration, "/token_file", file) == ARCTOS_OK);
    client = new_client(configuration);
    add(client, "file-1", NULL, ARCTOS_FORBIDDEN, ARCTOS_NOT_CREATED);
    write_token(file, token);
    add(client, "file-2", NULL, ARCTOS_OK, ARCTOS_CREATED);
    arctos_client_free(client);
    CHECK(DeleteFileA(file));
}

static char *config_with_journal(void)
{
    char *text = config(base_url);

    CHECK(arctos_json_set(&text, "/journal", "{\"file\":\"journal\"}") == ARCTOS_OK);
    return text;
}

static void resolve(arctos_client *client, const char *number, const char *resolution, arctos_code code)
{
    char *answer = NULL;
    arctos_code told = arctos_journal_resolve(client, number, resolution, &answer);

    if (told != code) {
        fprintf(stderr, "%s: should be %s: %s\n", number, arctos_code_name(code), answer != NULL ? answer : "no answer");
        exit(1);
    }
    arctos_free(answer);
}

static void an_appointment_once(void)
{
    arctos_client *client = new_client(config_with_journal());

    add(client, "journal-1", NULL, ARCTOS_OK, ARCTOS_CREATED);
    add(client, "journal-1", NULL, ARCTOS_OK, ARCTOS_CREATED);
    add_once(config_with_journal(), "journal-1", NULL, ARCTOS_OK, ARCTOS_CREATED);
    add(client, "reset-after-3", NULL, ARCTOS_BROKEN, ARCTOS_UNKNOWN);
    add(client, "reset-after-3", NULL, ARCTOS_UNRESOLVED, ARCTOS_UNKNOWN);
    resolve(client, "reset-after-3", "{\"outcome\":\"not_created\"}", ARCTOS_BAD_ARGUMENT);
    resolve(client, "journal-1", "{\"outcome\":\"not_created\",\"by\":\"a\"}", ARCTOS_BAD_ARGUMENT);
    resolve(client, "nothing", "{\"outcome\":\"not_created\",\"by\":\"a\"}", ARCTOS_NO_VALUE);
    arctos_client_free(client);
}

/* The number that a process of its own makes, and dies meanwhile. */
static const char *const LOST = "slow-journal-1";

/* Whether the journal has the number, in this state. */
static int has(arctos_client *client, const char *filter, const char *number)
{
    char *answer = NULL;
    int found;

    CHECK(arctos_journal_list(client, filter, &answer) == ARCTOS_OK);
    found = strstr(answer, number) != NULL;
    arctos_free(answer);
    return found;
}

static void a_sender_that_dies(void)
{
    arctos_client *client = new_client(config_with_journal());
    STARTUPINFOA startup = {.cb = sizeof startup};
    PROCESS_INFORMATION child;
    const int64_t start = now_ms();

    CHECK(SetEnvironmentVariableA("APPOINTMENT", LOST));
    CHECK(CreateProcessA(NULL, GetCommandLineA(), NULL, NULL, FALSE, 0, NULL, NULL, &startup, &child));
    CHECK(SetEnvironmentVariableA("APPOINTMENT", NULL));
    while (!has(client, "{\"outcome\":\"sending\"}", LOST)) {
        CHECK(now_ms() - start < 60000);
        Sleep(10);
    }
    /* A living one is waited for. */
    add(client, LOST, "{\"timeout_ms\":300}", ARCTOS_TIMEOUT, ARCTOS_UNKNOWN);
    CHECK(TerminateProcess(child.hProcess, 1));
    CHECK(WaitForSingleObject(child.hProcess, INFINITE) == WAIT_OBJECT_0);
    CHECK(has(client, "{\"outcome\":\"unknown\"}", LOST));
    add(client, LOST, NULL, ARCTOS_UNRESOLVED, ARCTOS_UNKNOWN);
    CloseHandle(child.hProcess);
    CloseHandle(child.hThread);
    arctos_client_free(client);
}

static void a_file_that_is_no_journal(void)
{
    char *text = config_with_journal();
    arctos_client *client = NULL;
    char *answer = NULL;

    write_token("no journal", "text");
    CHECK(arctos_json_set_text(&text, "/journal/file", "no journal") == ARCTOS_OK);
    CHECK(arctos_client_new(text, &client, &answer) == ARCTOS_BAD_CONFIG);
    CHECK(strstr(answer, "journal.file") != NULL);
    CHECK(DeleteFileA("no journal"));
    arctos_free(answer);
    arctos_free(text);
}

static void diagnosed(char *configuration, arctos_code code)
{
    arctos_client *client = new_client(configuration);
    char *answer = NULL;
    char *value = NULL;
    arctos_code told = arctos_client_diagnose(client, &answer);

    if (told != code) {
        fprintf(stderr, "should be %s: %s\n", arctos_code_name(code), answer != NULL ? answer : "no answer");
        exit(1);
    }
    CHECK(arctos_json_get(answer, "/steps/8/step", &value) == ARCTOS_OK);
    CHECK(strcmp(value, "library") == 0);
    arctos_free(value);
    arctos_free(answer);
    arctos_client_free(client);
}

static void what_stands_in_the_way(void)
{
    diagnosed(config(base_url), ARCTOS_OK);
    diagnosed(config_through(proxy), ARCTOS_OK);
    diagnosed(config_through("http://127.0.0.1:1"), ARCTOS_CONNECT);
    diagnosed(config_without_token(base_url), ARCTOS_FORBIDDEN);
}

static void misuse(void)
{
    arctos_client *client = new_client(config(base_url));
    char *text = config(base_url);

    add(NULL, "no-client-1", NULL, ARCTOS_BAD_ARGUMENT, ARCTOS_NOT_CREATED);
    add(client, "options-1", "{\"timeout\":1}", ARCTOS_BAD_ARGUMENT, ARCTOS_NOT_CREATED);
    arctos_client_free(client);
    arctos_client_free(client);
    add(client, "freed-client-1", NULL, ARCTOS_BAD_ARGUMENT, ARCTOS_NOT_CREATED);
    CHECK(arctos_client_set_token(client, "another-token", NULL) == ARCTOS_BAD_ARGUMENT);
    arctos_free(text);
    arctos_free(text);
    CHECK(arctos_json_set(&text, "/strict", "true") == ARCTOS_BAD_ARGUMENT);
}

static const struct {
    const char *name;
    void (*run)(void);
    int over_https_only;
} CASES[] = {
    {"an appointment", an_appointment, 0},
    {"a server by its name", a_server_by_its_name, 0},
    {"a refusal", a_refusal, 0},
    {"an outcome that nobody knows", an_outcome_that_nobody_knows, 0},
    {"one client after a failure", one_client_after_a_failure, 0},
    {"a deadline while the server thinks", a_deadline_while_the_server_thinks, 0},
    {"a deadline in the TLS handshake", a_deadline_in_the_tls_handshake, 0},
    {"a closed port", a_closed_port, 0},
    {"an authority that Windows does not know", an_authority_that_windows_does_not_know, 1},
    {"two threads at once", two_threads_at_once, 0},
    {"a call that waits holds up nobody", a_call_that_waits_holds_up_nobody, 0},
    {"a connection that is kept and a try that is repeated", a_connection_that_is_kept_and_a_try_that_is_repeated, 0},
    {"calls that are cancelled", calls_that_are_cancelled, 0},
    {"a proxy with a password", a_proxy_with_a_password, 0},
    {"a proxy that the environment names", a_proxy_that_the_environment_names, 0},
    {"a token from a file", a_token_from_a_file, 0},
    {"an appointment once", an_appointment_once, 0},
    {"a sender that dies", a_sender_that_dies, 0},
    {"a file that is no journal", a_file_that_is_no_journal, 0},
    {"what stands in the way", what_stands_in_the_way, 0},
    {"misuse", misuse, 0},
};

int main(int count, char **arguments)
{
    WSADATA winsock;
    size_t index;

    CHECK(count == 4 || count == 5);
    base_url = arguments[1];
    token = arguments[2];
    proxy = arguments[3];
    ca_file = arguments[4];
    /* A case that hangs has told its name by then. */
    setvbuf(stdout, NULL, _IONBF, 0);
    CHECK(WSAStartup(MAKEWORD(2, 2), &winsock) == 0);
    CHECK(arctos_abi_version() == ARCTOS_ABI_VERSION);
    if (getenv("APPOINTMENT") != NULL) {
        add_once(config_with_journal(), getenv("APPOINTMENT"), "{\"timeout_ms\":60000}", ARCTOS_OK, ARCTOS_CREATED);
        return 0;
    }
    for (index = 0; index < sizeof CASES / sizeof *CASES; index++) {
        if (CASES[index].over_https_only && ca_file == NULL)
            continue;
        printf("case: %s\n", CASES[index].name);
        CASES[index].run();
    }
    return 0;
}
