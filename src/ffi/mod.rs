//! The border: all of C, and all that C can do wrong. Text in, text out, handles, panics; it decides nothing.
//!
//! `include/arctos.h` is made from the functions below and their comments, so that these are written for the
//! reader of the header.
//!
//! Every function stands on decision 20 of `docs/contract.md`, misuse that C lets one notice is answered, and on 21,
//! no document holds a secret; what a function stands on besides is said with it.

#![allow(non_camel_case_types)]

mod clients;
mod texts;

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::call::{Call, Purpose};
use crate::client::Client;
use crate::code::Code;
use crate::failure::{self, Failure};
use crate::memory::{self, NoMemory};
use crate::options::Options;
use crate::outcome::Outcome;
use crate::{client, contract, field, fork, json, log};

/// A client of one server, made by arctos_client_new and released by arctos_client_free. Its address is a handle that
/// the library looks up and never follows: there is nothing behind it. Any number of threads may use one client at
/// once.
pub struct arctos_client {
    _opaque: (),
}

/// What a function returns: ARCTOS_OK, which is 0, or one of the negative codes above, which say why a call failed. A
/// later version may return others.
pub type arctos_code = i32;

/// What is known of the appointment, from arctos_outcome: what to do next hangs on it, and on no code.
///
/// | outcome | what is known | what to do |
/// |---|---|---|
/// | ARCTOS_NOT_CREATED | no appointment was made | mend what the error document says, or try again |
/// | ARCTOS_CREATED | it was made; where the code is not ARCTOS_OK its number is missing | do not try again |
/// | ARCTOS_UNKNOWN | it may have been made | look for out_task_num at the server before you try again |
pub type arctos_outcome_code = i32;

/// Runs when the library is loaded, before anything can call it.
#[cfg(unix)]
#[used]
#[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
static AT_LOAD: extern "C" fn() = {
    extern "C" fn at_load() {
        fork::watch();
    }
    at_load
};

/// What `ARCTOS_ABI_VERSION` is in the header of this library.
const ABI_VERSION: u32 = 1;

/// The library's version, such as "0.1.0".
///
/// Returns a static text, never NULL, which must not be released. Any thread.
///
///     printf("arctos %s\n", arctos_version());
#[unsafe(no_mangle)]
pub extern "C" fn arctos_version() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version holds no NUL"),
    };
    VERSION.as_ptr()
}

/// The version of the interface. A program compiled with this header fits a library for which
/// `arctos_abi_version() == ARCTOS_ABI_VERSION`.
///
/// Returns that number. Any thread.
///
///     if (arctos_abi_version() != ARCTOS_ABI_VERSION)
///         fprintf(stderr, "the arctos library %s does not fit this program\n", arctos_version());
#[unsafe(no_mangle)]
pub extern "C" fn arctos_abi_version() -> u32 {
    ABI_VERSION
}

/// The name of a code, such as "ARCTOS_TIMEOUT".
///
/// `code`: any number; for one that is no code of this version the name is "ARCTOS_?".
///
/// Returns a static text, never NULL, which must not be released. Any thread.
///
///     printf("%s\n", arctos_code_name(ARCTOS_TIMEOUT));
#[unsafe(no_mangle)]
pub extern "C" fn arctos_code_name(code: arctos_code) -> *const c_char {
    Code::c_name(code).unwrap_or(c"ARCTOS_?").as_ptr()
}

/// Wipes and releases a text that the library handed over.
///
/// `text`: a text from an `answer` or from `arctos_json_set*`. NULL is fine. A text that was released before, a
/// pointer that is none of the library's, and a client are ignored; nothing behind them is read.
///
/// Texts must not be given to `free()`: they do not start where their memory does. Any thread.
///
///     char *text = NULL;
///     if (arctos_json_get("{\"video\":true}", "/video", &text) == ARCTOS_OK)
///         printf("%s\n", text);
///     arctos_free(text);
#[unsafe(no_mangle)]
pub extern "C" fn arctos_free(text: *mut c_char) {
    guarded(|| texts::release(text));
}

/// Whether the appointment was made, from what arctos_task_add or arctos_task_add_with returned and handed over; of
/// arctos_call, whether the server carried it out.
///
/// `code`: the code. `answer`: the text of the same call, or NULL. Without a text, or with one that cannot be
/// read, only ARCTOS_OK, ARCTOS_BAD_ARGUMENT, ARCTOS_BAD_CONFIG, ARCTOS_BAD_TASK and ARCTOS_NO_VALUE decide; all
/// else is ARCTOS_UNKNOWN.
///
/// Returns ARCTOS_NOT_CREATED, ARCTOS_CREATED or ARCTOS_UNKNOWN. Allocates nothing, never fails. Any thread.
/// Decision 15 of docs/contract.md.
///
///     char *answer = NULL;
///     arctos_code code = arctos_task_add(client, task, &answer);
///     if (arctos_outcome(code, answer) == ARCTOS_NOT_CREATED)
///         printf("nothing was made: %s\n", arctos_code_name(code));
///     arctos_free(answer);
///
/// # Safety
/// `answer` is NULL or a NUL-terminated text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arctos_outcome(code: arctos_code, answer: *const c_char) -> arctos_outcome_code {
    // SAFETY: the caller's promise, above.
    let document = (!answer.is_null()).then(|| unsafe { CStr::from_ptr(answer) }.to_bytes());
    Outcome::read(code, document) as i32
}

/// Makes a client. Reads the configuration and the files that it names; opens no connection.
///
/// `config_json`: the configuration, a JSON object in UTF-8. Only `base_url` is required:
///
/// | key | type, default | meaning |
/// |---|---|---|
/// | base_url | string | `https://host[:port][/prefix]`; http only to this machine, or with allow_http |
/// | allow_http | false | lets base_url be http to any host: the token travels unencrypted |
/// | token | string | the Bearer token; may be set later by arctos_client_set_token. At most one of token, token_file and login |
/// | token_file | string | a file that holds the token, read now and again when the server refuses it; blanks, line ends and a BOM around it do not count |
/// | login.path | string | the library logs in by itself: where, below base_url |
/// | login.body | any JSON | what is POSTed there |
/// | login.token_pointer | string | where the token stands in the answer, a JSON pointer |
/// | login.refresh_on | [401,403] | statuses of a refused call after which it logs in once more and sends the call once more; only such after which nothing was made |
/// | proxy | string | `http://[user:password@]host:port`, asked by CONNECT; or "env": what HTTPS_PROXY, HTTP_PROXY and NO_PROXY say (in lower case first), read now. No proxy without it |
/// | timeout_ms | 15000 | the whole call, from the entry of the function, in milliseconds, 1 to 3600000 |
/// | connect_timeout_ms | 5000 | name, connection, proxy and TLS of one try, in milliseconds, 1 to 3600000 |
/// | retries | 2 | further tries, 0 to 10, of what made no appointment and may pass: no connection, 429 |
/// | retry_503 | false | your word that HTTP 503 of this server means that it did nothing: it is tried again |
/// | server_dedupes | false | the vendor's word that a repeat is answered with the first success: what is unknown is tried again |
/// | connections | 8 | connections that are kept for further calls, 1 to 1024; more threads open more |
/// | idle_timeout_ms | 4000 | how long one is kept without a call, in milliseconds, 0 (not at all) to 3600000 |
/// | max_response_bytes | 1048576 | a longer answer is ARCTOS_BAD_RESPONSE, in bytes, 1 to 1073741824 |
/// | tls.roots | "system" | whom to trust: "system", "bundled" (Mozilla's list) or "file" |
/// | tls.ca_file | string | with roots "file": the trusted authorities, PEM |
/// | tls.min_version | "1.2" | the lowest version of TLS: "1.2" or "1.3" |
/// | tls.cert_file | string | the client's own certificate, and those between it and its authority, PEM |
/// | tls.key_file | string | its key, PEM (PKCS #8, PKCS #1 or SEC 1), without a passphrase |
/// | tls.pins | array of strings | SHA-256 of the server's key (SPKI), base64: the server must have one of these, besides a certificate that is trusted |
/// | strict | false | refuses tasks with undocumented fields |
/// | user_agent | string | put before the library's own |
/// | keep_bodies | false | puts the server's body into error documents as `server_body` |
/// | journal.file | string | a file of this machine's disk by which an appointment is made once under its number, whatever dies; made where it is not there. All who make appointments here name the same file |
/// | journal.server_id | string | whose rows they are; base_url without it. One id for two hosts of one server lets them share their rows |
/// | journal.keep_days | 400 | how long what is certain is kept, in days, 1 to 36525 |
///
/// What has a dot stands in an object: `"tls":{"roots":"file","ca_file":"/etc/bank/ca.pem"}`.
///
/// `client`: receives the client, NULL on failure; release it with arctos_client_free.
///
/// `answer`: NULL, or receives a text to be released with arctos_free: the configuration in force as JSON, with
/// secrets as "***", or the error document, whose `problems` lists everything that is wrong.
///
/// Returns ARCTOS_OK, ARCTOS_BAD_CONFIG or ARCTOS_BAD_ARGUMENT. Any thread; with proxy "env" or roots "system" no other
/// thread of the program may change the environment meanwhile, for nothing guards it. Waits at most timeout_ms for a
/// journal that another program has locked. Decisions 29 to 33 and 35 of docs/contract.md; docs/network.md leads from the
/// text of an error to the key that ends it, docs/journal.md tells of the journal.
///
///     const char *config = "{\"base_url\":\"https://arctos.bank.example\",\"token\":\"the-token\"}";
///     arctos_client *client = NULL;
///     char *answer = NULL;
///     if (arctos_client_new(config, &client, &answer) != ARCTOS_OK)
///         printf("no client: %s\n", answer);
///     arctos_free(answer);
///     arctos_client_free(client);
///
/// # Safety
/// `config_json` is NULL or a NUL-terminated text; `client` and `answer` are NULL or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arctos_client_new(
    config_json: *const c_char,
    client: *mut *mut arctos_client,
    answer: *mut *mut c_char,
) -> arctos_code {
    if !client.is_null() {
        // SAFETY: the caller's promise.
        unsafe { *client = ptr::null_mut() };
    }
    let work = |_: &Rc<Call>| {
        if client.is_null() {
            return Err(null("client"));
        }
        // SAFETY: the caller's promise.
        let config = unsafe { input(config_json, "config_json") }?;
        let made = Client::new(config)?;
        let in_force = Zeroizing::new(made.config().to_owned());
        let handle = clients::insert(made)?;
        // SAFETY: the caller's promise.
        unsafe { *client = handle };
        Ok(in_force)
    };
    // SAFETY: the caller's promise.
    unsafe { border(Purpose::Local, answer, work) }
}

/// Releases a client. Returns at once: calls that are in flight finish, and the last of them wipes the secrets, and all
/// that HTTP and TLS kept of them; docs/network.md says what is not the library's to wipe.
///
/// `client`: NULL is fine; a client that was released before, or any other pointer, is ignored. Any thread.
///
///     arctos_client *client = NULL;
///     if (arctos_client_new("{\"base_url\":\"https://arctos.bank.example\"}", &client, NULL) == ARCTOS_OK)
///         arctos_client_free(client);
#[unsafe(no_mangle)]
pub extern "C" fn arctos_client_free(client: *mut arctos_client) {
    guarded(|| clients::remove(client));
}

/// Ends every call of a client that is in flight, whatever it waits for: a name, a connection, the server, or the next
/// try. Each returns ARCTOS_CANCELLED soon, usually within 50 milliseconds; its outcome says whether the appointment may
/// have been made. Calls that begin later are not affected.
///
/// `client`: a client.
///
/// Returns ARCTOS_OK, also when nothing is in flight, or ARCTOS_BAD_ARGUMENT. Returns at once. Any thread, but no signal
/// handler. Decision 24 of docs/contract.md.
///
///     if (arctos_client_cancel(client) != ARCTOS_OK)
///         printf("no such client\n");
#[unsafe(no_mangle)]
pub extern "C" fn arctos_client_cancel(client: *mut arctos_client) -> arctos_code {
    let work = |_: &Rc<Call>| {
        clients::find(client)?.cancel();
        Ok(Zeroizing::new(String::new()))
    };
    // SAFETY: no answer is asked for.
    unsafe { border(Purpose::Local, ptr::null_mut(), work) }
}

/// Ends the calls of a client that are in flight under an id, as arctos_client_cancel ends all.
///
/// `client`: a client.
///
/// `call_id`: the id, in UTF-8, that the call was given in its options. One that is not in flight is no error.
///
/// Returns ARCTOS_OK or ARCTOS_BAD_ARGUMENT. Returns at once. Any thread, but no signal handler. Decision 24 of
/// docs/contract.md.
///
///     if (arctos_call_cancel(client, "desk-7") != ARCTOS_OK)
///         printf("no such client\n");
///
/// # Safety
/// `call_id` is NULL or a NUL-terminated text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arctos_call_cancel(client: *mut arctos_client, call_id: *const c_char) -> arctos_code {
    let work = |_: &Rc<Call>| {
        let client = clients::find(client)?;
        // SAFETY: the caller's promise.
        client.cancel_call(unsafe { input(call_id, "call_id") }?);
        Ok(Zeroizing::new(String::new()))
    };
    // SAFETY: no answer is asked for.
    unsafe { border(Purpose::Local, ptr::null_mut(), work) }
}

/// Puts another token in the place of the client's. Calls in flight go on with the one they started with.
///
/// `client`: a client. `token`: the token alone, without "Bearer"; visible ASCII characters and blanks between
/// them, at most 8192.
///
/// `answer`: NULL, or receives a text to be released with arctos_free: `{}` or the error document.
///
/// Returns ARCTOS_OK or ARCTOS_BAD_ARGUMENT, after which the old token is still in place; so does a client with
/// token_file or login, which gets its tokens by itself. Any thread. Decisions 14 and 31 of docs/contract.md.
///
///     if (arctos_client_set_token(client, "another-token", NULL) != ARCTOS_OK)
///         printf("the old token is still in place\n");
///
/// # Safety
/// `token` is NULL or a NUL-terminated text; `answer` is NULL or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arctos_client_set_token(
    client: *mut arctos_client,
    token: *const c_char,
    answer: *mut *mut c_char,
) -> arctos_code {
    let work = |_: &Rc<Call>| {
        let client = clients::find(client)?;
        // SAFETY: the caller's promise.
        client.set_token(unsafe { input(token, "token") }?)?;
        Ok(Zeroizing::new("{}".to_owned()))
    };
    // SAFETY: the caller's promise.
    unsafe { border(Purpose::Local, answer, work) }
}

/// Makes an appointment. Blocks until it is known what became of it, at most timeout_ms.
///
/// `client`: a client. `task_json`: the task, a JSON object in UTF-8 (decisions 1 to 7 of docs/contract.md):
///
/// | field | type | |
/// |---|---|---|
/// | business_id | integer | required |
/// | out_task_num | string | required, your own unique identifier of the appointment |
/// | task_type | "normal" or "custom" | required |
/// | branch_code | string or number | required |
/// | room_type | "normal" or "realtime" | required |
/// | video | true, false, "true" or "false" | required |
/// | task_time | Unix seconds as string or integer, or an RFC 3339 time with its offset | required if room_type is "normal" |
/// | task_notify | true or false | sent as false when it is missing |
/// | out_task_type, task_remark or task_remarks | string | optional |
/// | business_code | string or number | optional |
///
/// `answer`: NULL, or receives a text to be released with arctos_free: the server's answer, byte for byte, or the
/// error document. The appointment's number stands at "/info/task_num", the server's status (1 success, 2 warning:
/// made all the same) at "/status"; read them with arctos_json_get.
///
/// Returns ARCTOS_OK when the appointment was made. ARCTOS_BAD_ARGUMENT, ARCTOS_BAD_TASK, and ARCTOS_FORBIDDEN when the
/// client has no token: nothing was sent. ARCTOS_CONNECT, ARCTOS_TLS, ARCTOS_TIMEOUT, ARCTOS_BROKEN and ARCTOS_CANCELLED:
/// there is no answer. ARCTOS_JOURNAL, ARCTOS_UNRESOLVED and ARCTOS_CONFLICT, with a journal: nothing was sent now; the
/// answer that it has of the same task is handed over as the server's. ARCTOS_FAILED, ARCTOS_FORBIDDEN, ARCTOS_NOT_FOUND, ARCTOS_REJECTED, ARCTOS_BUSY, ARCTOS_SERVER_ERROR and
/// ARCTOS_BAD_RESPONSE: by the answer. For all of them arctos_outcome tells whether the appointment was made.
///
/// Any thread, any number of calls on one client at once. Decisions 8 to 19, 22, 23, 27 and 36 to 39 of docs/contract.md:
/// what may have been made is not sent again (but see server_dedupes), and nothing is sent after the function has returned.
///
///     char *answer = NULL;
///     char *number = NULL;
///     arctos_code code = arctos_task_add(client, task, &answer);
///     switch (arctos_outcome(code, answer)) {
///     case ARCTOS_CREATED:
///         if (arctos_json_get(answer, "/info/task_num", &number) == ARCTOS_OK)
///             printf("made: %s\n", number);
///         else
///             printf("made, without a number\n");
///         break;
///     case ARCTOS_NOT_CREATED:
///         printf("not made: %s\n", arctos_code_name(code));
///         break;
///     default:
///         printf("perhaps made: %s\n", arctos_code_name(code));
///         break;
///     }
///     arctos_free(number);
///     arctos_free(answer);
///
/// # Safety
/// `task_json` is NULL or a NUL-terminated text; `answer` is NULL or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arctos_task_add(
    client: *mut arctos_client,
    task_json: *const c_char,
    answer: *mut *mut c_char,
) -> arctos_code {
    // SAFETY: the caller's promise; there are no options.
    unsafe { arctos_task_add_with(client, task_json, ptr::null(), answer) }
}

/// Makes an appointment as arctos_task_add does, with options for this call.
///
/// `client`, `task_json`, `answer`: as for arctos_task_add.
///
/// `options_json`: NULL for none, or a JSON object in UTF-8:
///
/// | key | type | meaning |
/// |---|---|---|
/// | timeout_ms | integer | in place of the configuration's, in milliseconds, 1 to 3600000 |
/// | call_id | string | your own name for the call, for the log, the error document and arctos_call_cancel; 1 to 128 bytes, no control characters |
///
/// Returns what arctos_task_add returns; an unknown key or a wrong value in the options is ARCTOS_BAD_ARGUMENT, and
/// nothing is sent. Any thread.
///
///     char *answer = NULL;
///     arctos_code code = arctos_task_add_with(client, task, "{\"timeout_ms\":30000,\"call_id\":\"desk-7\"}", &answer);
///     printf("%s\n", arctos_code_name(code));
///     arctos_free(answer);
///
/// # Safety
/// `task_json` and `options_json` are NULL or NUL-terminated texts; `answer` is NULL or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arctos_task_add_with(
    client: *mut arctos_client,
    task_json: *const c_char,
    options_json: *const c_char,
    answer: *mut *mut c_char,
) -> arctos_code {
    let work = |call: &Rc<Call>| {
        let client = clients::find(client)?;
        client.count(call);
        // SAFETY: the caller's promise.
        let task = unsafe { input(task_json, "task_json") }?;
        // SAFETY: the caller's promise.
        let options = unsafe { options(options_json) }?;
        client.add(call, task, &options)
    };
    // SAFETY: the caller's promise.
    unsafe { border(Purpose::Appointment, answer, work) }
}

/// Receives what became of one task, from arctos_task_add_many: `user` is what was given there, `index` the place of the
/// task in the array, from 0; `done` how many have ended by now, this one included, `total` how many there are; `code` its
/// code; `row` one JSON object in UTF-8, which is the library's and gone when the function returns.
///
/// A row is `{"index","out_task_num","code","name","outcome","answer"}`, with the server's answer, or has "error", the error
/// document, in the place of "answer"; without out_task_num where the task has none. `arctos_outcome(code, row)` works on
/// it.
///
/// Returns 0 to go on. Anything else stops: nothing more is begun. What was begun goes on to its end, and what was not is
/// ARCTOS_CANCELLED; each task has its row all the same. It is called on the thread that called arctos_task_add_many, one at
/// a time, and may call the library. It must return: an exception or longjmp out of it ends the process. It must not fork.
///
///     static int32_t ARCTOS_CALL print_row(void *user, int32_t index, int32_t done, int32_t total, arctos_code code,
///                                          const char *row)
///     {
///         fprintf((FILE *)user, "%d of %d: task %d: %s\n", (int)done, (int)total, (int)index, arctos_code_name(code));
///         return arctos_outcome(code, row) == ARCTOS_UNKNOWN;
///     }
pub type arctos_row_fn = Option<
    unsafe extern "C-unwind" fn(
        user: *mut c_void,
        index: i32,
        done: i32,
        total: i32,
        code: arctos_code,
        row: *const c_char,
    ) -> i32,
>;

/// Makes many appointments: as many at once as the client has `connections`, each as arctos_task_add_with makes it, with
/// a deadline of its own that begins when it is taken up, and with the client's journal. Blocks until all have ended.
///
/// `client`: a client. `tasks_json`: a JSON array of tasks in UTF-8, each as for arctos_task_add. `options_json`: NULL, or
/// as for arctos_task_add_with, for each of them.
///
/// `row`, `user`: NULL, or the function that hears of each task as it ends, and what it is handed.
///
/// `answer`: NULL, and nothing is collected, or receives a text to be released with arctos_free: `{"results":[...]}` with the
/// row of each task, in order; or the error document, which has `results` too where the code is ARCTOS_PARTIAL.
///
/// Returns ARCTOS_OK when all were made, ARCTOS_PARTIAL when one was not. ARCTOS_BAD_ARGUMENT, and ARCTOS_BAD_TASK for what is
/// no JSON array or holds an out_task_num twice: nothing was sent. What is wrong with a single task is in its row. After a
/// failure that all would share (the token is refused, TLS, no connection after all tries) the rest is not tried: the same
/// code, with `attempts` 0, but for what a journal knows of one. The document has no outcome; each row has.
///
/// arctos_client_cancel, and arctos_call_cancel with the call_id of the options, end all of it. Any thread. Decision 42 of
/// docs/contract.md.
///
///     char *answer = NULL;
///     const char *tasks = "[{\"business_id\":15,\"out_task_num\":\"BR0943-187\",\"task_type\":\"normal\",\"branch_code\":943,"
///                         "\"room_type\":\"realtime\",\"video\":true}]";
///     arctos_code code = arctos_task_add_many(client, tasks, NULL, print_row, stdout, &answer);
///     printf("%s\n", arctos_code_name(code));
///     arctos_free(answer);
///
/// # Safety
/// `tasks_json` and `options_json` are NULL or NUL-terminated texts; `row` may be called with `user`; `answer` is NULL or
/// may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arctos_task_add_many(
    client: *mut arctos_client,
    tasks_json: *const c_char,
    options_json: *const c_char,
    row: arctos_row_fn,
    user: *mut c_void,
    answer: *mut *mut c_char,
) -> arctos_code {
    let work = |_: &Rc<Call>| {
        let client = clients::find(client)?;
        // SAFETY: the caller's promise.
        let tasks = unsafe { input(tasks_json, "tasks_json") }?;
        // SAFETY: the caller's promise.
        let options = unsafe { options(options_json) }?;
        client.add_many(tasks, &options, !answer.is_null(), |ended| {
            let Some(row) = row else { return true };
            // A row is JSON and holds no NUL.
            let Ok(text) = memory::join(&[ended.text, "\0"]) else { return false };
            let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
            let (index, done, total) = (number(ended.index), number(ended.done), number(ended.total));
            // SAFETY: the caller's promise.
            unsafe { hand_over(row, user, index, done, total, ended.code.value(), text.as_ptr().cast()) == 0 }
        })
    };
    // SAFETY: the caller's promise.
    unsafe { border(Purpose::Local, answer, work) }
}

/// Calls a callback. What is thrown out of it ends the process here, before it can unwind the library.
///
/// # Safety
/// As for the callback.
unsafe extern "C" fn hand_over(
    row: unsafe extern "C-unwind" fn(*mut c_void, i32, i32, i32, arctos_code, *const c_char) -> i32,
    user: *mut c_void,
    index: i32,
    done: i32,
    total: i32,
    code: arctos_code,
    text: *const c_char,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { row(user, index, done, total, code, text) }
}

/// Asks the server for anything else: POSTs a JSON text to a path below base_url, with the client's token, TLS, deadlines
/// and retries.
///
/// `client`: a client.
///
/// `path`: in UTF-8, begins with a slash and is put behind base_url. It may have a query, and no segment "." or "..",
/// however it is spelled, no fragment, blank or control character. The path of appointments is refused: arctos_task_add
/// makes them.
///
/// `body_json`: any JSON in UTF-8, sent as it is. `options_json`: NULL, or as for arctos_task_add_with.
///
/// `answer`: NULL, or receives a text to be released with arctos_free: the server's answer, byte for byte, or the
/// error document.
///
/// Returns ARCTOS_OK when the answer's "status" is 1 or 2; no task number is asked for, and no journal keeps it. Otherwise
/// what arctos_task_add returns except ARCTOS_BAD_TASK, ARCTOS_JOURNAL, ARCTOS_UNRESOLVED and ARCTOS_CONFLICT: a body that is
/// not JSON is ARCTOS_BAD_ARGUMENT.
///
/// arctos_outcome tells whether the server carried it out: ARCTOS_CREATED that it did, ARCTOS_UNKNOWN that it may have.
/// Any thread. Decisions 8 to 19 and 22 to 27 of docs/contract.md.
///
///     char *answer = NULL;
///     arctos_code code = arctos_call(client, "/api/room/list", "{\"branch_code\":943}", NULL, &answer);
///     printf("%s\n", code == ARCTOS_OK ? answer : arctos_code_name(code));
///     arctos_free(answer);
///
/// # Safety
/// `path`, `body_json` and `options_json` are NULL or NUL-terminated texts; `answer` is NULL or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arctos_call(
    client: *mut arctos_client,
    path: *const c_char,
    body_json: *const c_char,
    options_json: *const c_char,
    answer: *mut *mut c_char,
) -> arctos_code {
    let work = |call: &Rc<Call>| {
        let client = clients::find(client)?;
        client.count(call);
        // SAFETY: the caller's promise.
        let path = unsafe { input(path, "path") }?;
        // SAFETY: the caller's promise.
        let body = unsafe { input(body_json, "body_json") }?;
        // SAFETY: the caller's promise.
        let options = unsafe { options(options_json) }?;
        client.post(call, path, body, &options)
    };
    // SAFETY: the caller's promise.
    unsafe { border(Purpose::Request, answer, work) }
}

/// Finds out what stands between a client and its server, for a help desk: the route, the name, the connection, the
/// proxy, TLS with the certificates that come, whether an HTTP server answers (one HEAD of base_url), the clocks, whether
/// there is a token, and the version. Makes no appointment, logs in nowhere and sends no token. Opens connections of its
/// own; blocks at most timeout_ms.
///
/// `client`: a client.
///
/// `answer`: NULL, or receives a text to be released with arctos_free:
/// `{"steps":[{"step","state","ms","detail","advice"},...]}`, or the error document, which has `steps` too. Each step is
/// "ok", "failed" or "skipped", with one sentence on what was found and one on what to do ("nothing to do" where there is
/// nothing), both in English:
///
/// | step | has besides |
/// |---|---|
/// | route | proxy, where one is in use: host and port |
/// | name | addresses: those of the server, or of the proxy |
/// | connect | |
/// | proxy | |
/// | tls | protocol, cipher, chain (subject, issuer, not_before, not_after and pin of each certificate that came), root (the authority that is trusted, where it is known), public (whether Mozilla's list knows it, where that can be told), inspected (whether it has the name of a proxy that reads TLS) |
/// | server | http_status |
/// | clock | ahead_ms: how far this machine's clock is ahead of the server's |
/// | token | |
/// | library | version |
///
/// Returns ARCTOS_OK when no step failed, or the code of the first that did: ARCTOS_CONNECT, ARCTOS_TLS, ARCTOS_TIMEOUT,
/// ARCTOS_CANCELLED, ARCTOS_BROKEN, ARCTOS_BAD_RESPONSE, and ARCTOS_FORBIDDEN without a token; ARCTOS_BAD_ARGUMENT. Its document
/// has no outcome. Any thread. Decision 34 of docs/contract.md.
///
///     char *answer = NULL;
///     arctos_code code = arctos_client_diagnose(client, &answer);
///     printf("%s\n%s\n", arctos_code_name(code), answer ? answer : "");
///     arctos_free(answer);
///
/// # Safety
/// `answer` is NULL or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arctos_client_diagnose(client: *mut arctos_client, answer: *mut *mut c_char) -> arctos_code {
    let work = |call: &Rc<Call>| clients::find(client)?.examine(call).map(Zeroizing::new);
    // SAFETY: the caller's promise.
    unsafe { border(Purpose::Diagnosis, answer, work) }
}

/// Tells in numbers what a client has done since it was made, for whoever watches over it.
///
/// `client`: a client.
///
/// `answer`: NULL, or receives a text to be released with arctos_free: a JSON object, or the error document. A call is
/// each arctos_task_add, arctos_task_add_with and arctos_call that names the client, whatever is wrong with its other
/// arguments, and each row of arctos_task_add_many:
///
/// | key | what it counts |
/// |---|---|
/// | calls.in_flight | calls that are under way now |
/// | calls.ended | calls that have ended |
/// | calls.codes | these by code, `{"ARCTOS_OK":7,...}`: codes that occurred |
/// | calls.outcomes | these by outcome: created, not_created, unknown; of arctos_call, whether it was carried out |
/// | attempts | their tries, as `attempts` of the error document counts them |
/// | retries | the tries among these that came after a failure that may pass; not those with another token |
/// | logins | log-ins that were begun, which are no calls and no tries |
/// | connections.opened | connections that were opened, TLS and all |
/// | connections.resumed | those among them that resumed an earlier TLS session |
/// | connections.reused | how often a kept connection was used for a further request |
/// | connections.failed | how often none could be opened: the name, the address, the proxy, TLS, its time-out, or a cancel |
/// | connections.in_use, connections.kept | those that are open now, with a request on them, or kept for one |
/// | connections.closed | all others, by the reason |
/// | connections.closed.expired | had been kept for idle_timeout_ms, or as long as the server said |
/// | connections.closed.stale | when one was to be used again, the server had ended it, or something had come that nobody had asked for |
/// | connections.closed.not_kept | the answer, or idle_timeout_ms 0, allowed no further request, more came than an answer, or what came was no answer |
/// | connections.closed.ended | the server ended it with its answer, or in the middle of one |
/// | connections.closed.broken | cut off on it: reset, late, cancelled, or answered before the request was sent |
/// | connections.closed.surplus | as many as `connections` allows were kept already |
/// | connections.closed.fork | a parent's, in its child |
/// | bytes.sent, bytes.received | bytes that sockets took and gave: HTTP, TLS and its handshakes, the proxy's part |
/// | latency_us.count, latency_us.mean | calls that have ended, and how long they took, in microseconds, from the entry of the function to its return; a row from when it is taken up |
/// | latency_us.p50, latency_us.p90, latency_us.p99 | 50, 90 and 99 of a hundred took no longer; never too low, and at most 3.2 % too high |
/// | latency_us.max | the longest one |
///
/// What has a dot stands in an object. All are integers, 0 where there is nothing to tell; they only grow, but for those
/// of now and for the times. New keys may come. What a diagnosis does is not counted.
///
/// While calls go on, the figures are taken one after another, so that a call may be in one of them and not yet in the
/// next; calls.codes and calls.outcomes always agree. When none is in flight all do, and connections.opened is the sum of
/// in_use, kept and closed. A child of fork goes on from its parent's figures, but in_flight, in_use and kept are its own;
/// a connection that its parent keeps is closed for it when the next call comes across it.
///
/// Returns ARCTOS_OK or ARCTOS_BAD_ARGUMENT. Returns at once, and holds up no call. Any thread. Decision 43 of
/// docs/contract.md.
///
///     char *answer = NULL;
///     char *made = NULL;
///     if (arctos_client_stats(client, &answer) == ARCTOS_OK
///         && arctos_json_get(answer, "/calls/outcomes/created", &made) == ARCTOS_OK)
///         printf("made so far: %s\n", made);
///     arctos_free(made);
///     arctos_free(answer);
///
/// # Safety
/// `answer` is NULL or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arctos_client_stats(client: *mut arctos_client, answer: *mut *mut c_char) -> arctos_code {
    let work = |_: &Rc<Call>| clients::find(client)?.stats();
    // SAFETY: the caller's promise.
    unsafe { border(Purpose::Local, answer, work) }
}

/// Tells what a client's journal has of its server: what was made, what may have been made, and what is being sent.
///
/// `client`: a client with a journal.
///
/// `filter_json`: NULL for the first rows of all, or a JSON object in UTF-8:
///
/// | key | type | meaning |
/// |---|---|---|
/// | outcome | string | "created", "not_created", "unknown" or "sending" |
/// | since, until | string | started at this time or later; before this one. RFC 3339, with the offset |
/// | limit | integer | rows at most, 1 to 1000; 100 without it. With large answers there are fewer on a page |
/// | after | string | the `next` of the page before |
///
/// `answer`: NULL, or receives a text to be released with arctos_free: `{"rows":[...],"next":"..."}`, oldest first, or the
/// error document. `next` is there when there are more. Each row has out_task_num, outcome, server and started, and
/// where they apply ended, code, answer (the server's), resolved (when), by and note. Times are in UTC.
///
/// A row is "sending" while its call is under way in any process; when that has died, the row is "unknown".
///
/// Returns ARCTOS_OK, ARCTOS_BAD_ARGUMENT (also for a client without a journal) or ARCTOS_JOURNAL. Waits at most timeout_ms
/// for another program that has the file locked. Any thread. Decisions 35 and 40 of docs/contract.md.
///
///     char *answer = NULL;
///     if (arctos_journal_list(client, "{\"outcome\":\"unknown\"}", &answer) == ARCTOS_OK)
///         printf("to be found out: %s\n", answer);
///     arctos_free(answer);
///
/// # Safety
/// `filter_json` is NULL or a NUL-terminated text; `answer` is NULL or may be written to.
#[cfg(feature = "journal")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arctos_journal_list(
    client: *mut arctos_client,
    filter_json: *const c_char,
    answer: *mut *mut c_char,
) -> arctos_code {
    let work = |_: &Rc<Call>| {
        let client = clients::find(client)?;
        // SAFETY: the caller's promise.
        client.journal_list(unsafe { optional(filter_json, "filter_json") }?.unwrap_or("{}"))
    };
    // SAFETY: the caller's promise.
    unsafe { border(Purpose::Local, answer, work) }
}

/// Tells a client's journal what a person has found out of an appointment that may have been made. From then on
/// arctos_task_add of the same task hands over the number that was found, or sends.
///
/// `client`: a client with a journal. `out_task_num`: the number of the row, in UTF-8.
///
/// `resolution_json`: a JSON object in UTF-8; the time is recorded by itself:
///
/// | key | type | meaning |
/// |---|---|---|
/// | outcome | string | "created" or "not_created" |
/// | task_num | string | the server's number of what was created, required for that; at most 256 bytes |
/// | by | string | who found it out, required; at most 128 bytes |
/// | note | string | how, or anything else; at most 4096 bytes |
///
/// `answer`: NULL, or receives a text to be released with arctos_free: the row, as of arctos_journal_list, or the error
/// document.
///
/// Returns ARCTOS_OK; ARCTOS_NO_VALUE when there is no such row; ARCTOS_BAD_ARGUMENT for a resolution that is none, a row
/// that is being sent or says the contrary, and a client without a journal, after all of which the row is as before;
/// ARCTOS_JOURNAL, after which it may have been recorded all the same, once the disk answers. Waits at most timeout_ms for
/// the disk, and for another program that has the file locked. Any thread. Decisions 35 and 40 of docs/contract.md.
///
///     char *answer = NULL;
///     const char *found = "{\"outcome\":\"created\",\"task_num\":\"202312210000001\",\"by\":\"m.lin\"}";
///     if (arctos_journal_resolve(client, "BR0943-187", found, &answer) == ARCTOS_OK)
///         printf("recorded: %s\n", answer);
///     arctos_free(answer);
///
/// # Safety
/// `out_task_num` and `resolution_json` are NULL or NUL-terminated texts; `answer` is NULL or may be written to.
#[cfg(feature = "journal")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arctos_journal_resolve(
    client: *mut arctos_client,
    out_task_num: *const c_char,
    resolution_json: *const c_char,
    answer: *mut *mut c_char,
) -> arctos_code {
    let work = |_: &Rc<Call>| {
        let client = clients::find(client)?;
        // SAFETY: the caller's promise.
        let number = unsafe { input(out_task_num, "out_task_num") }?;
        // SAFETY: the caller's promise.
        client.journal_resolve(number, unsafe { input(resolution_json, "resolution_json") }?)
    };
    // SAFETY: the caller's promise.
    unsafe { border(Purpose::Local, answer, work) }
}

/// Receives the events of the library, from arctos_set_log: `user` is what was given there, `level` is 1 error, 2
/// warning, 3 information or 4 detail, `line` one JSON object in UTF-8, which is the library's and gone when the function
/// returns.
///
/// It is called on the thread on which the event happens, from several threads at once where several call. It must
/// return: an exception or longjmp out of it ends the process. It must not fork. Events that it causes itself are not
/// told.
///
/// A line has "time", "level", "event", and where they apply "call_id", "out_task_num", "host", "proxy" (its host and
/// port), "elapsed_ms" (since the function was entered), "attempt", "address", "http_status", "code", "name", "outcome",
/// "pause_ms", "field" and "note". New keys may come.
///
/// | event | level | what happened |
/// |---|---|---|
/// | login | 4 | a log-in begins; its connection and its answer are told as those of a call |
/// | attempt | 4 | a try begins |
/// | connect | 4 | a connection stands, to this address; with a proxy the address is the proxy's |
/// | reuse | 4 | a kept connection is used again |
/// | answer | 3 | the server has answered, with this code and outcome |
/// | refused | 2 | the server has refused the token; another one is got, and the call is sent once more with it |
/// | retry | 2 | a try has failed, with this code and outcome, and another follows |
/// | pause | 3 | before it, this long |
/// | warning | 2 | a task has a field that is not documented, or the server's status is 2; the appointment goes on |
/// | recorded | 3 | the journal has the answer of an earlier call, which is handed over; nothing is sent |
/// | journal | 2 | the server's answer could not be written into the journal, which holds the appointment for unknown from now on |
/// | cancel | 2 | a call was cancelled |
/// | failure | 1 | a call has failed: its code, and its outcome over all tries |
///
/// No line holds a token, the contents of a field, or the server's words.
///
///     static void ARCTOS_CALL write_line(void *user, int32_t level, const char *line)
///     {
///         fprintf((FILE *)user, "%s%s\n", level == 1 ? "ERROR " : "", line);
///     }
pub type arctos_log_fn = Option<unsafe extern "C-unwind" fn(user: *mut c_void, level: i32, line: *const c_char)>;

/// Sets the function that receives the events of the library, one for the whole process, in the place of the one
/// before.
///
/// `log`: the function, or NULL for none. `user`: yours, handed to it at each event; may be NULL.
///
/// `most`: the highest level that is told, 1 to 4. With 0 or less there is none, more than 4 is as 4.
///
/// Comes back when no other thread is inside a function that was set before: what that used may be released then. From
/// within such a function itself it comes back at once. Any thread; it waits for as long as a function does not return.
/// Decision 26 of docs/contract.md.
///
///     arctos_set_log(write_line, stderr, 3);
///     arctos_task_add(client, task, NULL);
///     arctos_set_log(NULL, NULL, 0);
///
/// # Safety
/// `log` may be called with `user` from any thread until another was set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arctos_set_log(log: arctos_log_fn, user: *mut c_void, most: i32) {
    let user = User(user);
    let callback = log.map(|log| -> log::Callback {
        Arc::new(move |level, line| {
            // A line is JSON and holds no NUL.
            let line = memory::join(&[line, "\0"]);
            if let Some(line) = line.ok().as_ref().and_then(|line| CStr::from_bytes_with_nul(line.as_bytes()).ok()) {
                // SAFETY: the caller's promise.
                unsafe { deliver(log, user.get(), level, line.as_ptr()) };
            }
        })
    });
    guarded(|| log::set(callback, most));
}

/// Calls a callback. What is thrown out of it ends the process here, before it can unwind the library.
///
/// # Safety
/// As for the callback.
unsafe extern "C" fn deliver(
    log: unsafe extern "C-unwind" fn(*mut c_void, i32, *const c_char),
    user: *mut c_void,
    level: i32,
    line: *const c_char,
) {
    // SAFETY: the caller's promise.
    unsafe { log(user, level, line) }
}

/// What the caller wants to get back, on whichever thread.
struct User(*mut c_void);

impl User {
    fn get(&self) -> *mut c_void {
        self.0
    }
}

// SAFETY: the library never follows the pointer; whom it is handed to has promised to be called from any thread.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

/// Says what arctos_task_add would send, by the same rules, and sends nothing.
///
/// `task_json`: as for arctos_task_add. Decisions 1 to 7 of docs/contract.md.
///
/// `answer`: NULL, or receives a text to be released with arctos_free: `{"path","body","notes":[{"field","note"}]}`,
/// where notes lists the fields that the vendor does not document, with the documented one that is near; or the
/// error document, whose `problems` lists everything that is wrong.
///
/// Returns ARCTOS_OK, ARCTOS_BAD_TASK or ARCTOS_BAD_ARGUMENT. Any thread.
///
///     char *answer = NULL;
///     if (arctos_task_check(task, &answer) == ARCTOS_OK)
///         printf("would be sent: %s\n", answer);
///     else
///         printf("refused: %s\n", answer);
///     arctos_free(answer);
///
/// # Safety
/// `task_json` is NULL or a NUL-terminated text; `answer` is NULL or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arctos_task_check(task_json: *const c_char, answer: *mut *mut c_char) -> arctos_code {
    // SAFETY: the caller's promise, twice.
    let work = |_: &Rc<Call>| contract::task_check(unsafe { input(task_json, "task_json") }?);
    unsafe { border(Purpose::Local, answer, work) }
}

/// Reads one value out of a JSON text.
///
/// `json`: any JSON text in UTF-8. `pointer`: a JSON pointer (RFC 6901), such as "/info/task_num" or "/problems/0"; ""
/// is the whole. In a name, ~ is written ~0 and / is written ~1.
///
/// `answer`: NULL, or receives a text to be released with arctos_free: the contents of a string as plain text,
/// anything else as its JSON text; or the error document.
///
/// Returns ARCTOS_OK; ARCTOS_NO_VALUE when nothing is there; ARCTOS_BAD_ARGUMENT when the text is not JSON, the
/// pointer is none, a member on the way stands twice, or the string holds U+0000 or half a surrogate pair; also when an
/// argument is NULL or not UTF-8. Any thread.
///
///     char *number = NULL;
///     if (arctos_json_get("{\"info\":{\"task_num\":\"202312210000001\"}}", "/info/task_num", &number) == ARCTOS_OK)
///         printf("%s\n", number);
///     arctos_free(number);
///
/// # Safety
/// `json` and `pointer` are NULL or NUL-terminated texts; `answer` is NULL or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arctos_json_get(
    json: *const c_char,
    pointer: *const c_char,
    answer: *mut *mut c_char,
) -> arctos_code {
    // SAFETY: the caller's promise, three times.
    let work = |_: &Rc<Call>| json::get(unsafe { input(json, "json") }?, unsafe { input(pointer, "pointer") }?);
    unsafe { border(Purpose::Local, answer, work) }
}

/// Puts a JSON value into a JSON text, in place. All else in the text stays as it is, digits, order and blanks.
///
/// `json`: the address of a text of the library's, or of NULL, which starts an empty object. On success the old
/// text is released and the new one stands in its place; on failure nothing changes. Release the last one with
/// arctos_free.
///
/// `pointer`: a JSON pointer (RFC 6901). Its last member is created when it is not there, "-" appends to an array.
/// The empty pointer replaces the whole: `arctos_json_set(&text, "", your_json)` makes a text of the library's out
/// of JSON of your own.
///
/// `value_json`: any JSON value, such as "15", "true" or "{}".
///
/// Returns ARCTOS_OK; ARCTOS_NO_VALUE when the parent is not there; ARCTOS_BAD_ARGUMENT for bad JSON, a bad pointer,
/// a text that is not the library's, and an argument that is NULL or not UTF-8; ARCTOS_INTERNAL when there is no memory
/// for the new text. Any thread, though one text only by one thread at a time.
///
///     char *task = NULL;
///     arctos_code code = arctos_json_set(&task, "", "{\"business_id\":15,\"branch_code\":943}");
///     if (code == ARCTOS_OK)
///         code = arctos_json_set(&task, "/video", "true");
///     if (code == ARCTOS_OK)
///         printf("%s\n", task);
///     arctos_free(task);
///
/// # Safety
/// `json` is NULL or may be read and written; `pointer` and `value_json` are NULL or NUL-terminated texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arctos_json_set(
    json: *mut *mut c_char,
    pointer: *const c_char,
    value_json: *const c_char,
) -> arctos_code {
    // SAFETY: the caller's promise, twice.
    let value = || Ok(memory::join(&[unsafe { input(value_json, "value_json") }?])?);
    unsafe { json_set(json, pointer, value) }
}

/// Puts a text into a JSON text as a string, escaped as JSON wants it, in place; otherwise as arctos_json_set. Use it
/// for whatever comes from outside: no quote in it can change what is sent.
///
/// `json`, `pointer`: as for arctos_json_set. `text`: any UTF-8 text.
///
/// Returns what arctos_json_set returns. Any thread, though one text only by one thread at a time.
///
///     char *task = NULL;
///     if (arctos_json_set_text(&task, "/task_remark", "asks for \"Ms Lin\"") == ARCTOS_OK)
///         printf("%s\n", task);
///     arctos_free(task);
///
/// # Safety
/// `json` is NULL or may be read and written; `pointer` and `text` are NULL or NUL-terminated texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arctos_json_set_text(
    json: *mut *mut c_char,
    pointer: *const c_char,
    text: *const c_char,
) -> arctos_code {
    // SAFETY: the caller's promise, twice.
    let value = || Ok(json::quoted(unsafe { input(text, "text") }?)?);
    unsafe { json_set(json, pointer, value) }
}

/// Puts a field of a fixed-length record into a JSON text as a string, in place; otherwise as arctos_json_set.
///
/// `json`, `pointer`: as for arctos_json_set.
///
/// `data`, `length`: the field, `length` bytes that need no NUL at their end. Blanks and NULs at its end are left
/// out; a field of nothing else is the empty string.
///
/// `encoding`: the field's encoding; NULL or "UTF-8".
///
/// Returns what arctos_json_set returns; ARCTOS_BAD_ARGUMENT also for a negative length, an encoding that is not known,
/// and bytes that are not of the encoding, such as a character that is cut at the field's end. Any thread, though one
/// text only by one thread at a time.
///
///     const char *record = "BR0943-187          window 4  ";
///     char *task = NULL;
///     arctos_code code = arctos_json_set_field(&task, "/out_task_num", record, 20, NULL);
///     if (code == ARCTOS_OK)
///         code = arctos_json_set_field(&task, "/task_remark", record + 20, 10, NULL);
///     if (code == ARCTOS_OK)
///         printf("%s\n", task);
///     arctos_free(task);
///
/// # Safety
/// `json` is NULL or may be read and written; `pointer` and `encoding` are NULL or NUL-terminated texts; `data` is NULL
/// or `length` bytes may be read there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arctos_json_set_field(
    json: *mut *mut c_char,
    pointer: *const c_char,
    data: *const c_char,
    length: i32,
    encoding: *const c_char,
) -> arctos_code {
    let value = || {
        if data.is_null() {
            return Err(null("data"));
        }
        let length = usize::try_from(length)
            .map_err(|_| Failure::plain(Code::BadArgument, format!("length is {length}, which is negative")))?;
        // SAFETY: the caller's promise.
        let encoding = unsafe { optional(encoding, "encoding") }?;
        // SAFETY: the caller's promise.
        let data = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), length) };
        Ok(json::quoted(field::decode(data, encoding)?)?)
    };
    // SAFETY: the caller's promise.
    unsafe { json_set(json, pointer, value) }
}

/// Copies a text into a field of a fixed length, such as one of a COBOL record.
///
/// `text`: any text in UTF-8, such as one from arctos_json_get; NULL counts as "".
///
/// `encoding`: the encoding of the field; NULL or "UTF-8".
///
/// `buffer`, `size`: the field, `size` bytes. It receives as much of the text as fits, never a part of a character, and
/// then `pad` up to its end. With `pad` 0 it always ends with a NUL. With NULL or a size of 0 nothing is written.
///
/// `pad`: the byte that fills the field, 0 to 255: 32 for a COBOL field, 0 for a C string.
///
/// Returns the length in bytes of the whole text in that encoding: it was cut when that is more than `size` (with
/// `pad` 0: not less than `size`). Returns -1 when the text is not UTF-8, the encoding cannot hold it or is not
/// known, or an argument is out of range; the field is all `pad` then, unless `size` or `pad` is what is wrong. Any
/// thread.
///
///     char field[20];
///     int32_t length = arctos_text_copy("202312210000001", NULL, field, (int32_t)sizeof field, ' ');
///     if (length >= 0 && length <= (int32_t)sizeof field)
///         printf("[%.20s]\n", field);
///
/// # Safety
/// `text` and `encoding` are NULL or NUL-terminated texts; `buffer` is NULL or `size` bytes may be written there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arctos_text_copy(
    text: *const c_char,
    encoding: *const c_char,
    buffer: *mut c_char,
    size: i32,
    pad: i32,
) -> i32 {
    let copy = || {
        let (size, pad) = (usize::try_from(size).ok()?, u8::try_from(pad).ok()?);
        let size = if buffer.is_null() { 0 } else { size };
        // SAFETY: the caller's promise, twice.
        let text = unsafe { optional(text, "text") }.map(Option::unwrap_or_default);
        let encoding = unsafe { optional(encoding, "encoding") };
        let encoded = text.and_then(|text| field::encode(text, encoding?)).ok();
        let room = if pad == 0 { size.saturating_sub(1) } else { size };
        let fits = encoded.map_or(0, |text| field::fitting(text, room));
        let (start, length) =
            encoded.map_or((ptr::null(), None), |text| (text.as_ptr(), i32::try_from(text.len()).ok()));
        if size > 0 {
            let buffer = buffer.cast::<u8>();
            // SAFETY: the caller's promise. The text may lie in the buffer: it is moved before anything is filled, and
            // not looked at afterwards.
            unsafe {
                if fits > 0 {
                    ptr::copy(start, buffer, fits);
                }
                ptr::write_bytes(buffer.add(fits), pad, size - fits);
            }
        }
        length
    };
    guarded(copy).flatten().unwrap_or(-1)
}

/// What the in-place setters share.
///
/// # Safety
/// `target` is NULL or may be read and written; `pointer` is NULL or a NUL-terminated text.
unsafe fn json_set(
    target: *mut *mut c_char,
    pointer: *const c_char,
    value: impl FnOnce() -> Result<Zeroizing<String>, Failure>,
) -> arctos_code {
    let work = |_: &Rc<Call>| {
        if target.is_null() {
            return Err(null("json"));
        }
        // SAFETY: the caller's promise, twice.
        let (old, pointer) = (unsafe { *target }, unsafe { input(pointer, "pointer") }?);
        let value = value()?;
        let changed = if old.is_null() {
            json::set("{}", pointer, &value)?
        } else {
            json::set(&texts::copy(old)?, pointer, &value)?
        };
        let new = texts::give(&changed).ok_or(NoMemory)?;
        // SAFETY: the caller's promise.
        unsafe { *target = new };
        texts::release(old);
        Ok(Zeroizing::new(String::new()))
    };
    // SAFETY: no answer is asked for.
    unsafe { border(Purpose::Local, ptr::null_mut(), work) }
}

/// The way of every function that hands over a text: panics stop here, and what the function says becomes a code
/// and a text.
///
/// # Safety
/// `answer` is NULL or may be written to.
unsafe fn border(
    purpose: Purpose,
    answer: *mut *mut c_char,
    work: impl FnOnce(&Rc<Call>) -> Result<Zeroizing<String>, Failure>,
) -> arctos_code {
    if !answer.is_null() {
        // SAFETY: the caller's promise.
        unsafe { *answer = ptr::null_mut() };
    }
    let call = Call::start(purpose);
    let result =
        guarded(|| work(&call).map_err(|failure| failure.of(&call))).unwrap_or_else(|| Err(Failure::internal(&call)));
    if let Err(failure) = &result
        && purpose != Purpose::Local
    {
        guarded(|| client::report_end(&call, failure));
    }
    let (code, outcome) = failure::end(&result);
    if !answer.is_null() {
        let text = guarded(|| match &result {
            Ok(text) => texts::give(text),
            Err(failure) => texts::give(&failure.document()),
        });
        // SAFETY: the caller's promise.
        unsafe { *answer = text.flatten().unwrap_or(ptr::null_mut()) };
    }
    call.count_end(code, outcome);
    if let Ok(text) = result {
        memory::release(text);
    }
    code.value()
}

thread_local! {
    /// Whether this thread is inside the library, where a panic is not the host's to hear of.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs work of the library; `None` when it panicked. Nothing of a panic reaches stderr, and a panic hook of the
/// host goes on hearing of the host's own.
fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    fork::ready(|| {
        let hosts = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let resolver = std::thread::current().name().is_some_and(|name| name.starts_with("arctos-"));
            if !INSIDE.get() && !resolver {
                hosts(info);
            }
        }));
    });
    let outer = INSIDE.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work)).ok();
    INSIDE.set(outer);
    done
}

/// A text argument.
///
/// # Safety
/// `text` is NULL or a NUL-terminated text that stays as it is while the function runs.
unsafe fn input<'a>(text: *const c_char, name: &str) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(null(name));
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|error| {
        let place = error.valid_up_to();
        Failure::plain(Code::BadArgument, format!("{name} is not UTF-8: the byte at offset {place} fits no character"))
    })
}

/// A text argument that may be NULL.
///
/// # Safety
/// As for [`input`].
unsafe fn optional<'a>(text: *const c_char, name: &str) -> Result<Option<&'a str>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    unsafe { input(text, name) }.map(Some)
}

/// The options of a call, which may be NULL.
///
/// # Safety
/// As for [`input`].
unsafe fn options(text: *const c_char) -> Result<Options, Failure> {
    // SAFETY: the caller's promise.
    let options = unsafe { optional(text, "options_json") }?.map(Options::read).transpose()?;
    Ok(options.unwrap_or_default())
}

fn null(name: &str) -> Failure {
    Failure::plain(Code::BadArgument, format!("{name} is NULL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_code_and_an_outcome() {
        for (sent, outcome) in [(false, Outcome::NotCreated), (true, Outcome::Unknown)] {
            let mut answer = ptr::null_mut();
            let work = |call: &Rc<Call>| {
                if sent {
                    call.record_sent();
                }
                panic!("planted, with a secret")
            };
            let code = unsafe { border(Purpose::Appointment, &mut answer, work) };
            assert_eq!(code, Code::Internal.value());
            let text = unsafe { CStr::from_ptr(answer) }.to_str().unwrap();
            assert!(!text.contains("planted") && !text.contains("secret"));
            assert_eq!(unsafe { arctos_outcome(code, answer) }, outcome as i32, "{text}");
            arctos_free(answer);
        }
    }
}
