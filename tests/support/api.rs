//! The C functions, loaded from the library that ships (`target/release`, or `ARCTOS_LIBRARY`).
//!
//! Every text that the library hands over is checked here for what holds always: that it is valid
//! UTF-8, that an error document names its own code, and that `arctos_outcome` reads from it what it says.

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::{Library, Symbol};
use serde_json::Value;

/// An opaque client, as C sees it.
pub type Client = *mut c_void;

/// `arctos_log_fn`.
pub type LogFn = unsafe extern "C" fn(*mut c_void, i32, *const c_char);

/// `arctos_row_fn`.
pub type RowFn = unsafe extern "C-unwind" fn(*mut c_void, i32, i32, i32, i32, *const c_char) -> i32;

/// `ARCTOS_NOT_CREATED`.
pub const NOT_CREATED: i32 = 0;
/// `ARCTOS_CREATED`.
pub const CREATED: i32 = 1;
/// `ARCTOS_UNKNOWN`.
pub const UNKNOWN: i32 = 2;

macro_rules! codes {
    ($($name:ident = $value:literal;)*) => {
        $(#[doc = concat!("`ARCTOS_", stringify!($name), "`.")] pub const $name: i32 = $value;)*
    };
}

// Written down here once more on purpose: a code that changed its value must fail a test.
codes! {
    OK = 0; BAD_ARGUMENT = -1; BAD_CONFIG = -2; BAD_TASK = -3; NO_VALUE = -4;
    CONNECT = -10; TLS = -11; TIMEOUT = -12; BROKEN = -13; CANCELLED = -14;
    FAILED = -20; FORBIDDEN = -21; NOT_FOUND = -22; REJECTED = -23; BUSY = -24;
    SERVER_ERROR = -25; BAD_RESPONSE = -26; PARTIAL = -27; JOURNAL = -30; UNRESOLVED = -31; CONFLICT = -32; INTERNAL = -99;
}

macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The library's functions under their C names without `arctos_`.
        pub struct Functions {
            $(#[doc = concat!("`arctos_", stringify!($name), "`.")] pub $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            _library: Library,
        }

        impl Functions {
            /// Loads the library at `path`; every function must be there.
            pub fn load(path: &Path) -> Functions {
                // SAFETY: all that the library does when it is loaded is to ask to be told of forks, and the types below are
                // those of its header.
                unsafe {
                    let library = Library::new(path)
                        .unwrap_or_else(|error| panic!("{}: {error}; run `make build` first", path.display()));
                    Functions {
                        $($name: {
                            let symbol: Symbol<unsafe extern "C" fn($($argument),*) $(-> $result)?> = library
                                .get(concat!("arctos_", stringify!($name)))
                                .expect(concat!("arctos_", stringify!($name)));
                            *symbol
                        },)*
                        _library: library,
                    }
                }
            }
        }
    };
}

functions! {
    version: fn() -> *const c_char;
    abi_version: fn() -> u32;
    code_name: fn(i32) -> *const c_char;
    free: fn(*mut c_char);
    outcome: fn(i32, *const c_char) -> i32;
    client_new: fn(*const c_char, *mut Client, *mut *mut c_char) -> i32;
    client_free: fn(Client);
    client_set_token: fn(Client, *const c_char, *mut *mut c_char) -> i32;
    client_diagnose: fn(Client, *mut *mut c_char) -> i32;
    client_stats: fn(Client, *mut *mut c_char) -> i32;
    task_add: fn(Client, *const c_char, *mut *mut c_char) -> i32;
    task_add_with: fn(Client, *const c_char, *const c_char, *mut *mut c_char) -> i32;
    task_add_many: fn(Client, *const c_char, *const c_char, Option<RowFn>, *mut c_void, *mut *mut c_char) -> i32;
    task_check: fn(*const c_char, *mut *mut c_char) -> i32;
    call: fn(Client, *const c_char, *const c_char, *const c_char, *mut *mut c_char) -> i32;
    journal_list: fn(Client, *const c_char, *mut *mut c_char) -> i32;
    journal_resolve: fn(Client, *const c_char, *const c_char, *mut *mut c_char) -> i32;
    client_cancel: fn(Client) -> i32;
    call_cancel: fn(Client, *const c_char) -> i32;
    set_log: fn(Option<LogFn>, *mut c_void, i32);
    json_get: fn(*const c_char, *const c_char, *mut *mut c_char) -> i32;
    json_set: fn(*mut *mut c_char, *const c_char, *const c_char) -> i32;
    json_set_text: fn(*mut *mut c_char, *const c_char, *const c_char) -> i32;
    json_set_field: fn(*mut *mut c_char, *const c_char, *const c_char, i32, *const c_char) -> i32;
    text_copy: fn(*const c_char, *const c_char, *mut c_char, i32, i32) -> i32;
}

/// The folder of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests stand in the repository").to_path_buf()
}

/// The shared library that the tests drive.
pub fn library_path() -> PathBuf {
    match std::env::var_os("ARCTOS_LIBRARY") {
        Some(path) => PathBuf::from(path),
        None => root().join("target/release").join(libloading::library_filename("arctos")),
    }
}

/// The functions of the library that ships, loaded once.
pub fn arctos() -> &'static Functions {
    static FUNCTIONS: OnceLock<Functions> = OnceLock::new();
    FUNCTIONS.get_or_init(|| Functions::load(&library_path()))
}

/// What a call returned: its code, its text, and what `arctos_outcome` made of both.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The code.
    pub code: i32,
    /// The text, `None` when the library wrote NULL.
    pub text: Option<String>,
    /// What `arctos_outcome` says of code and text.
    pub outcome: i32,
}

impl Reply {
    /// The text as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        let text = self.text.as_deref().expect("a text");
        serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON: {error}: {text}"))
    }

    /// The text.
    #[track_caller]
    pub fn text(&self) -> &str {
        self.text.as_deref().expect("a text")
    }

    /// The names of the fields that the error document lists under `problems`, in order.
    #[track_caller]
    pub fn problem_fields(&self) -> Vec<String> {
        self.json()["problems"]
            .as_array()
            .unwrap_or_else(|| panic!("no problems in {}", self.text()))
            .iter()
            .map(|problem| problem["field"].as_str().expect("a field").to_owned())
            .collect()
    }

    /// Checks what holds for every reply, and takes the text over from the library.
    fn take(code: i32, answer: *mut c_char) -> Reply {
        let library = arctos();
        // SAFETY: `answer` is NULL or a text that the library has just handed over; it is freed once.
        unsafe {
            let outcome = (library.outcome)(code, answer);
            let text =
                (!answer.is_null()).then(|| CStr::from_ptr(answer).to_str().expect("texts are UTF-8").to_owned());
            (library.free)(answer);
            let reply = Reply { code, text, outcome };
            assert!(code <= 0, "there is no positive code: {reply:?}");
            if code != OK && reply.text.is_some() {
                let document = reply.json();
                assert_eq!(document["code"], code, "{reply:?}");
                let name = CStr::from_ptr((library.code_name)(code)).to_str().expect("names are ASCII");
                assert_eq!(document["name"], name, "{reply:?}");
                assert!(document["message"].as_str().is_some_and(|message| !message.is_empty()), "{reply:?}");
                if let Some(word) = document.get("outcome") {
                    let word = word.as_str().expect("outcome is a string");
                    let read = ["not_created", "created", "unknown"].iter().position(|known| *known == word);
                    assert_eq!(read, usize::try_from(outcome).ok(), "{reply:?}");
                }
            }
            reply
        }
    }
}

/// Text as C takes it. The texts of tests hold no NUL.
pub fn c(text: &str) -> CString {
    CString::new(text).expect("no NUL in a test's text")
}

/// A client that is freed at the end of its scope.
#[derive(Debug)]
pub struct Owned(pub Client);

// SAFETY: every function of the library may be called from every thread.
unsafe impl Send for Owned {}
// SAFETY: as above.
unsafe impl Sync for Owned {}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: a client of the library; freeing one twice would be ignored.
        unsafe { (arctos().client_free)(self.0) }
    }
}

impl Owned {
    /// A client from its configuration, which must be accepted.
    #[track_caller]
    pub fn new(config: &Value) -> Owned {
        let (client, reply) = client_new(&config.to_string());
        assert_eq!(reply.code, OK, "{reply:?}");
        client.expect("a client")
    }

    /// `arctos_task_add`.
    pub fn add(&self, task: &str) -> Reply {
        let task = c(task);
        call(|answer| unsafe { (arctos().task_add)(self.0, task.as_ptr(), answer) })
    }

    /// `arctos_task_add_with`.
    pub fn add_with(&self, task: &str, options: &str) -> Reply {
        let (task, options) = (c(task), c(options));
        call(|answer| unsafe { (arctos().task_add_with)(self.0, task.as_ptr(), options.as_ptr(), answer) })
    }

    /// `arctos_task_add_many`, its results collected and nobody told of a row.
    pub fn add_many(&self, tasks: &str, options: &str) -> Reply {
        let (tasks, options, many) = (c(tasks), c(options), arctos().task_add_many);
        let nobody = std::ptr::null_mut();
        call(|answer| unsafe { many(self.0, tasks.as_ptr(), options.as_ptr(), None, nobody, answer) })
    }

    /// `arctos_call`.
    pub fn call(&self, path: &str, body: &str) -> Reply {
        let (path, body) = (c(path), c(body));
        call(|answer| unsafe { (arctos().call)(self.0, path.as_ptr(), body.as_ptr(), std::ptr::null(), answer) })
    }

    /// `arctos_call` with options.
    pub fn call_with(&self, path: &str, body: &str, options: &str) -> Reply {
        let (path, body, options) = (c(path), c(body), c(options));
        call(|answer| unsafe { (arctos().call)(self.0, path.as_ptr(), body.as_ptr(), options.as_ptr(), answer) })
    }

    /// `arctos_client_cancel`.
    pub fn cancel(&self) -> i32 {
        unsafe { (arctos().client_cancel)(self.0) }
    }

    /// `arctos_call_cancel`.
    pub fn cancel_call(&self, call_id: &str) -> i32 {
        let call_id = c(call_id);
        unsafe { (arctos().call_cancel)(self.0, call_id.as_ptr()) }
    }

    /// `arctos_client_diagnose`.
    pub fn diagnose(&self) -> Reply {
        call(|answer| unsafe { (arctos().client_diagnose)(self.0, answer) })
    }

    /// `arctos_client_stats`.
    pub fn told(&self) -> Reply {
        call(|answer| unsafe { (arctos().client_stats)(self.0, answer) })
    }

    /// `arctos_client_stats` of a client that lives.
    #[track_caller]
    pub fn stats(&self) -> Value {
        let reply = self.told();
        assert_eq!(reply.code, OK, "{reply:?}");
        reply.json()
    }

    /// `arctos_journal_list`.
    pub fn journal_list(&self, filter: &str) -> Reply {
        let filter = c(filter);
        call(|answer| unsafe { (arctos().journal_list)(self.0, filter.as_ptr(), answer) })
    }

    /// `arctos_journal_resolve`.
    pub fn journal_resolve(&self, number: &str, resolution: &str) -> Reply {
        let (number, resolution) = (c(number), c(resolution));
        call(|answer| unsafe { (arctos().journal_resolve)(self.0, number.as_ptr(), resolution.as_ptr(), answer) })
    }

    /// `arctos_client_set_token`.
    pub fn set_token(&self, token: &str) -> Reply {
        let token = c(token);
        call(|answer| unsafe { (arctos().client_set_token)(self.0, token.as_ptr(), answer) })
    }
}

/// Runs one function that hands over a text, and takes the text.
pub fn call(function: impl FnOnce(*mut *mut c_char) -> i32) -> Reply {
    // Not NULL before the call, so that a function that leaves it unwritten is found out.
    let mut answer: *mut c_char = std::ptr::without_provenance_mut(1);
    let code = function(&mut answer);
    assert_ne!(answer.addr(), 1, "*answer is always written");
    Reply::take(code, answer)
}

/// `arctos_client_new`: the client, `None` on failure, and the reply.
pub fn client_new(config: &str) -> (Option<Owned>, Reply) {
    let config = c(config);
    let mut client: Client = std::ptr::without_provenance_mut(1);
    let reply = call(|answer| unsafe { (arctos().client_new)(config.as_ptr(), &mut client, answer) });
    assert_eq!(client.is_null(), reply.code != OK, "*client is NULL on failure and only then: {reply:?}");
    ((!client.is_null()).then_some(Owned(client)), reply)
}

/// `arctos_task_check`.
pub fn task_check(task: &str) -> Reply {
    let task = c(task);
    call(|answer| unsafe { (arctos().task_check)(task.as_ptr(), answer) })
}

/// `arctos_json_get`.
pub fn json_get(json: &str, pointer: &str) -> Reply {
    let (json, pointer) = (c(json), c(pointer));
    call(|answer| unsafe { (arctos().json_get)(json.as_ptr(), pointer.as_ptr(), answer) })
}

/// A task that is right, with `number` as its `out_task_num`.
pub fn task(number: &str) -> String {
    format!(
        r#"{{"business_id":15,"out_task_num":"{number}","task_type":"normal","task_notify":false,"task_time":"1703141398","branch_code":943,"room_type":"normal","video":true}}"#
    )
}
