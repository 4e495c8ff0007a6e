//! The header is the reference: every function, type, macro and code has a comment from which a C programmer can work
//! without another page, and the examples in the comments are C that compiles and does what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use arctos_tests::api::*;
use arctos_tests::http::{Framing, answer, success_body};
use arctos_tests::server::{Script, Server, Step};
use arctos_tests::stage::{config, with};
use arctos_tests::tools::{Host, both, cc, compiler, succeed};
use serde_json::{Value, json};
use tempfile::TempDir;

const C: [&[&str]; 3] = [&["-std=c89", "-Wno-long-long"], &["-std=c99"], &["-std=c11"]];

fn header() -> String {
    std::fs::read_to_string(root().join("include/arctos.h")).expect("the header")
}

/// One function of the header.
struct Function {
    name: String,
    result: String,
    /// Type and name of each parameter.
    parameters: Vec<(String, String)>,
    /// The lines of its comment, without the marks of a comment.
    comment: Vec<String>,
}

impl Function {
    /// A line of the header that declares one, and the comment that ends right before it.
    fn read(line: &str, comment: &[&str]) -> Function {
        let declared = line.strip_prefix("ARCTOS_API ").expect("a function");
        let (result, rest) = declared.split_once("ARCTOS_CALL ").expect("a convention");
        let (name, rest) = rest.split_once('(').expect("parameters");
        let parameters = rest.strip_suffix(");").expect("a declaration on one line");
        let parameters = parameters.split(", ").filter(|parameter| *parameter != "void").map(|parameter| {
            let at = parameter.rfind([' ', '*']).expect("a type and a name") + 1;
            (parameter[..at].trim_end().to_owned(), parameter[at..].to_owned())
        });
        let lines = comment.iter().map(|line| line.strip_prefix(" *").expect("a line of a comment"));
        Function {
            name: name.to_owned(),
            result: result.trim_end().to_owned(),
            parameters: parameters.collect(),
            comment: lines.map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned()).collect(),
        }
    }

    fn text(&self) -> String {
        self.comment.join("\n")
    }

    /// The paragraphs of the comment.
    fn paragraphs(&self) -> Vec<String> {
        self.text().split("\n\n").map(str::to_owned).collect()
    }

    /// The paragraph that speaks of a parameter.
    #[track_caller]
    fn about(&self, parameter: &str) -> String {
        let mark = format!("`{parameter}`");
        // Where it is introduced, and not where another one refers to it.
        let found = self.paragraphs().into_iter().find(|paragraph| {
            paragraph.contains(&format!("{mark}:"))
                || (paragraph.starts_with('`') && paragraph.contains(&format!("{mark},")))
        });
        found.unwrap_or_else(|| panic!("{} says nothing of {mark}", self.name))
    }

    /// The codes and outcomes that stand where the comment says what the function returns.
    fn returns(&self, all: &[Function]) -> BTreeSet<String> {
        let paragraph = self.paragraphs().into_iter().find(|paragraph| paragraph.starts_with("Returns "));
        let paragraph = paragraph.unwrap_or_else(|| panic!("{} does not say what it returns", self.name));
        let words = paragraph.split(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_');
        let mut codes: BTreeSet<String> = words.filter(|word| word.starts_with("ARCTOS_")).map(str::to_owned).collect();
        // By reference to another function, whose codes are all of this one's, too, but those that it names.
        let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((_, rest)) = line.split_once("what arctos_") {
            let (name, rest) = rest.split_once(" returns").expect("what it returns");
            let other = all.iter().find(|other| other.name == format!("arctos_{name}")).expect("a function");
            codes.extend(other.returns(all));
            if let Some((except, _)) = rest.strip_prefix(" except ").and_then(|rest| rest.split_once(':')) {
                for code in except.split([',', ' ']).filter(|word| !word.is_empty() && *word != "and") {
                    assert!(codes.remove(code), "{} excepts {code}", self.name);
                }
            }
        }
        codes
    }

    /// The lines of the example.
    fn example(&self) -> String {
        example(self.comment.iter().map(String::as_str))
    }
}

/// What is indented in a comment.
fn example<'a>(comment: impl Iterator<Item = &'a str>) -> String {
    comment.filter_map(|line| line.strip_prefix("    ")).map(|line| format!("{line}\n")).collect()
}

/// The examples of callbacks: functions that the examples of others use.
fn callbacks() -> String {
    let header = header();
    let of = |kind: &str| {
        let (before, _) = header.split_once(kind).expect("the callback");
        let (_, comment) = before.rsplit_once("/**").expect("a comment");
        example(comment.lines().filter_map(|line| line.strip_prefix(" * ")))
    };
    of("\ntypedef void (ARCTOS_CALL *arctos_log_fn)") + &of("\ntypedef int32_t (ARCTOS_CALL *arctos_row_fn)")
}

fn functions() -> Vec<Function> {
    let header = header();
    let lines: Vec<&str> = header.lines().collect();
    let mut functions = Vec::new();
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("ARCTOS_API ")) {
        assert_eq!(lines[index - 1], " */", "there is no comment before {line}");
        let start = lines[..index].iter().rposition(|line| *line == "/**").expect("comments start");
        functions.push(Function::read(line, &lines[start + 1..index - 1]));
    }
    let listed = std::fs::read_to_string(root().join("tests/exported-symbols.txt")).expect("the list");
    let names: BTreeSet<&str> = functions.iter().map(|function| &*function.name).collect();
    assert_eq!(names, listed.lines().collect());
    functions
}

/// The names of all codes.
fn codes() -> Vec<String> {
    let header = header();
    let names = header.lines().filter_map(|line| line.strip_prefix("#define ARCTOS_")?.split_once(' '));
    let codes = names.filter(|(name, value)| value.starts_with('(') || (*name, *value) == ("OK", "0"));
    codes.map(|(name, _)| format!("ARCTOS_{name}")).collect()
}

#[test]
fn every_parameter_is_explained_with_its_owner_and_unit() {
    for function in functions() {
        let name = &function.name;
        for (kind, parameter) in &function.parameters {
            let about = function.about(parameter);
            // What is handed over says who releases it, and how; or the function does to which it refers.
            let released = match &**kind {
                "char **" => Some("arctos_free"),
                "arctos_client **" => Some("arctos_client_free"),
                _ => None,
            };
            if let Some(released) = released {
                assert!(about.contains(released) || about.contains(": as for arctos_"), "{name}, {parameter}: {about}");
            }
            if kind == "int32_t" {
                let unit = if parameter == "most" { "level" } else { "byte" };
                assert!(about.contains(unit), "{name}, {parameter} has no unit: {about}");
            }
            if kind.ends_with("char *") && parameter != "data" && parameter != "buffer" && parameter != "text" {
                let said = ["UTF-8", "JSON", "NULL", "token", "as for arctos_"].iter().any(|word| about.contains(word));
                assert!(said, "{name}, {parameter}: what text it is: {about}");
            }
        }
    }
}

#[test]
fn every_function_says_which_threads_may_call_it_and_what_it_returns() {
    for function in functions() {
        let (name, text) = (&function.name, function.text());
        assert!(text.split_whitespace().collect::<Vec<_>>().join(" ").contains("Any thread"), "{name}: {text}");
        assert_eq!(text.contains("\nReturns "), function.result != "void", "{name}: {text}");
        if function.result == "const char *" {
            assert!(text.contains("static text") && text.contains("must not be released"), "{name}: {text}");
        }
    }
}

#[test]
fn every_code_that_a_function_returns_is_listed() {
    let functions = functions();
    let set = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|name| format!("ARCTOS_{name}")).collect() };
    // ARCTOS_INTERNAL can come from all of them, which the header says once, for all.
    let others = set(&["BAD_CONFIG", "NO_VALUE", "PARTIAL", "INTERNAL"]);
    let add: BTreeSet<String> = codes().into_iter().filter(|code| !others.contains(code)).collect();
    assert!(add.len() > 10, "the codes are not seen: {add:?}");
    let mut call = add.clone();
    for code in set(&["BAD_TASK", "JOURNAL", "UNRESOLVED", "CONFLICT"]) {
        call.remove(&code);
    }
    let expected = BTreeMap::from([
        ("arctos_outcome", set(&["NOT_CREATED", "CREATED", "UNKNOWN"])),
        ("arctos_client_new", set(&["OK", "BAD_CONFIG", "BAD_ARGUMENT"])),
        ("arctos_client_set_token", set(&["OK", "BAD_ARGUMENT"])),
        (
            "arctos_client_diagnose",
            set(&[
                "OK",
                "BAD_ARGUMENT",
                "CONNECT",
                "TLS",
                "TIMEOUT",
                "BROKEN",
                "CANCELLED",
                "FORBIDDEN",
                "BAD_RESPONSE",
            ]),
        ),
        ("arctos_client_stats", set(&["OK", "BAD_ARGUMENT"])),
        ("arctos_client_cancel", set(&["OK", "BAD_ARGUMENT"])),
        ("arctos_call_cancel", set(&["OK", "BAD_ARGUMENT"])),
        ("arctos_task_add", add.clone()),
        ("arctos_task_add_with", add),
        ("arctos_task_add_many", set(&["OK", "PARTIAL", "BAD_ARGUMENT", "BAD_TASK"])),
        ("arctos_call", call),
        ("arctos_journal_list", set(&["OK", "BAD_ARGUMENT", "JOURNAL"])),
        ("arctos_journal_resolve", set(&["OK", "BAD_ARGUMENT", "NO_VALUE", "JOURNAL"])),
        ("arctos_task_check", set(&["OK", "BAD_TASK", "BAD_ARGUMENT"])),
        ("arctos_json_get", set(&["OK", "NO_VALUE", "BAD_ARGUMENT"])),
        ("arctos_json_set", set(&["OK", "NO_VALUE", "BAD_ARGUMENT", "INTERNAL"])),
        ("arctos_json_set_text", set(&["OK", "NO_VALUE", "BAD_ARGUMENT", "INTERNAL"])),
        ("arctos_json_set_field", set(&["OK", "NO_VALUE", "BAD_ARGUMENT", "INTERNAL"])),
    ]);
    let with_codes = functions.iter().filter(|function| function.result.starts_with("arctos_"));
    let listed: BTreeMap<&str, BTreeSet<String>> =
        with_codes.map(|function| (&*function.name, function.returns(&functions))).collect();
    assert_eq!(listed, expected);
    let header = header();
    let (rules, _) = header.split_once("*/").expect("the comment at the top");
    assert!(rules.contains("ARCTOS_INTERNAL"), "{rules}");
}

#[test]
fn every_type_and_macro_has_a_comment() {
    let header = header();
    let lines: Vec<&str> = header.lines().collect();
    let mut types = 0;
    let mut macros = 0;
    for (index, line) in lines.iter().enumerate() {
        let before = if line.starts_with("typedef ") {
            types += 1;
            lines[index - 1]
        } else if line.trim_start_matches(['#', ' ']).starts_with("define ARCTOS_") && !line.ends_with("ARCTOS_H") {
            macros += 1;
            // Macros that belong together, and their conditions, share one comment.
            lines[..index].iter().rev().find(|line| !line.starts_with('#')).expect("a line before it")
        } else {
            continue;
        };
        assert!(before.ends_with("*/"), "there is no comment before {line}: {before}");
    }
    assert_eq!(types, 5);
    assert_eq!(macros, codes().len() + 9, "version, 3 outcomes, 3 ways of visibility, 2 conventions");
}

#[test]
fn every_code_says_when_it_comes_and_with_which_outcome() {
    let header = header();
    for code in codes() {
        let (before, _) = header.split_once(&format!("\n#define {code} ")).expect("a macro");
        let (_, comment) = before.rsplit_once("/* ").expect("a comment");
        assert!(comment.ends_with(". */") && comment.len() > 20, "{code}: {comment}");
        // No appointment is in question where a configuration or a pointer is wrong.
        let appointment = !["ARCTOS_BAD_CONFIG", "ARCTOS_NO_VALUE"].contains(&&*code);
        assert_eq!(comment.contains("\n   Outcome: "), appointment, "{code}: {comment}");
    }
}

/// The rows of a table in a function's comment, cell by cell, without its head.
#[track_caller]
fn table(function: &str) -> Vec<Vec<String>> {
    let all = functions();
    let function = all.iter().find(|other| other.name == function).expect("a function");
    let rows = function.comment.iter().filter(|line| line.starts_with("| "));
    let cells = |row: &String| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    let rows: Vec<Vec<String>> = rows.skip(1).map(cells).collect();
    assert!(!rows.is_empty(), "{} has no table", function.name);
    rows
}

#[test]
fn the_keys_of_the_configuration_are_those_of_the_library_with_their_defaults() {
    let login = json!({ "path": "/login", "body": {}, "token_pointer": "/token" });
    let folder = TempDir::new().expect("a folder");
    let journal = json!({ "file": folder.path().join("journal") });
    let config = json!({ "base_url": "http://127.0.0.1:1", "login": login, "journal": journal });
    let (_, reply) = client_new(&config.to_string());
    let in_force = reply.json();
    let rows = table("arctos_client_new");
    let mut optional = 0;
    for row in &rows {
        let (key, default) = (&row[0], row[1].as_str());
        let value = key.split('.').fold(&in_force, |value, part| &value[part]);
        match serde_json::from_str::<Value>(default) {
            Ok(default) => assert_eq!(value, &default, "{key}"),
            // Without a default, a type stands there.
            Err(_) => {
                assert!(["string", "any JSON", "array of strings"].contains(&default), "{key}");
                optional += 1;
            }
        }
    }
    assert!(optional < rows.len());
    let known = |config: Value| {
        let (_, reply) = client_new(&config.to_string());
        known_keys(&reply)
    };
    let top = known(json!({ "base_url": "http://127.0.0.1:1", STRANGER: 1 }));
    const OBJECTS: [&str; 3] = ["journal", "login", "tls"];
    let inner = OBJECTS.into_iter().flat_map(|outer| {
        let inner = known(json!({ "base_url": "http://127.0.0.1:1", outer: { STRANGER: 1 } }));
        inner.into_iter().map(move |key| format!("{outer}.{key}"))
    });
    let all: BTreeSet<String> = top.into_iter().filter(|key| !OBJECTS.contains(&&**key)).chain(inner).collect();
    assert_eq!(rows.into_iter().map(|row| row[0].clone()).collect::<BTreeSet<_>>(), all);
}

/// A key that is near to none of the library's.
const STRANGER: &str = "0123456789";

/// The keys that a refusal of a strange one names.
#[track_caller]
fn known_keys(reply: &Reply) -> BTreeSet<String> {
    let document = reply.json();
    let problem = document["problems"][0]["problem"].as_str().unwrap_or_else(|| panic!("{reply:?}"));
    let (_, known) = problem.split_once("known are ").unwrap_or_else(|| panic!("{problem}"));
    known.split(", ").map(str::to_owned).collect()
}

#[test]
fn the_fields_of_a_task_are_those_of_the_library() {
    let rows = table("arctos_task_add");
    let mut required = BTreeSet::new();
    for row in &rows {
        for field in row[0].split([',', ' ']).filter(|word| word.contains('_') || *word == "video") {
            // A documented field is no note.
            let reply =
                task_check(&with(serde_json::from_str(&task("N")).expect("JSON"), json!({ field: {} })).to_string());
            assert_eq!(reply.code, BAD_TASK, "{field}: no object is a value of it: {reply:?}");
            assert_eq!(reply.problem_fields()[0], field, "{reply:?}");
            if row[2].starts_with("required") {
                required.insert(field.to_owned());
            }
        }
    }
    let missing = task_check(r#"{"room_type":"normal"}"#).problem_fields();
    required.remove("room_type");
    assert_eq!(missing.into_iter().collect::<BTreeSet<_>>(), required);
}

#[test]
fn the_keys_of_filters_and_resolutions_are_those_of_the_library() {
    let folder = TempDir::new().expect("a folder");
    let journal = json!({ "journal": { "file": folder.path().join("journal") } });
    let client = Owned::new(&with(config("http://127.0.0.1:1"), journal));
    let keys = |function: &str| -> BTreeSet<String> {
        let rows = table(function);
        rows.iter().flat_map(|row| row[0].split(", ").map(str::to_owned)).collect()
    };
    let stranger = json!({ STRANGER: 1 }).to_string();
    assert_eq!(keys("arctos_journal_list"), known_keys(&client.journal_list(&stranger)));
    assert_eq!(keys("arctos_journal_resolve"), known_keys(&client.journal_resolve("N", &stranger)));
}

#[test]
fn the_options_are_those_of_the_library() {
    let client = Owned::new(&config("http://127.0.0.1:1"));
    let known = known_keys(&client.add_with(&task("N"), &json!({ STRANGER: 1 }).to_string()));
    assert_eq!(table("arctos_task_add_with").into_iter().map(|row| row[0].clone()).collect::<BTreeSet<_>>(), known);
}

#[test]
fn the_keys_of_statistics_are_those_of_the_library() {
    fn keys(prefix: &str, value: &Value, all: &mut BTreeSet<String>) {
        match value.as_object().filter(|_| !["calls.codes", "calls.outcomes"].contains(&prefix)) {
            Some(object) => object.iter().for_each(|(key, value)| {
                let prefix = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                keys(&prefix, value, all);
            }),
            None => drop(all.insert(prefix.to_owned())),
        }
    }
    let mut known = BTreeSet::new();
    keys("", &Owned::new(&config("http://127.0.0.1:1")).stats(), &mut known);
    let rows = table("arctos_client_stats");
    let mut told: BTreeSet<String> = rows.iter().flat_map(|row| row[0].split(", ").map(str::to_owned)).collect();
    assert!(told.remove("connections.closed"), "its members are told too");
    assert_eq!(told, known);
}

/// A program with every example in a function of its own. Its arguments: a configuration, the name of a function, and a
/// task.
fn program() -> String {
    let mut program = "#include <arctos.h>\n#include <stdio.h>\n#include <string.h>\n\n".to_owned() + &callbacks();
    let mut choices = String::new();
    for function in functions() {
        let (name, example) = (&function.name, function.example());
        assert!(example.contains(&format!("{name}(")), "{name} has no example");
        let used = "(void)client; (void)task;";
        let head = format!("static void example_{name}(arctos_client *client, const char *task)");
        write!(program, "\n{head}\n{{\n    {used}\n    {{\n{example}    }}\n}}\n").expect("memory");
        writeln!(
            choices,
            "    if (strcmp(arguments[2], \"{name}\") == 0)\n        example_{name}(client, arguments[3]);"
        )
        .expect("memory");
    }
    let made = "if (count != 4 || arctos_client_new(arguments[1], &client, NULL) != ARCTOS_OK)\n        return 1;";
    let freed = "arctos_client_free(client);\n    return 0;";
    let main = "int main(int count, char **arguments)\n{\n    arctos_client *client = NULL;\n";
    write!(program, "\n{main}    {made}\n{choices}    {freed}\n}}\n").expect("memory");
    program
}

struct Examples {
    host: Host,
    _folder: TempDir,
}

impl Examples {
    /// Compiles them as strictly as anybody may.
    fn new() -> Examples {
        let folder = TempDir::new().expect("a folder");
        let file = folder.path().join("examples.c");
        std::fs::write(&file, program()).expect("a file");
        for standard in C {
            let mut command = compiler(&cc());
            command.args(standard).arg("-c").arg(&file).arg("-o").arg(folder.path().join("object.o"));
            assert_eq!(both(&succeed(&mut command)), "");
        }
        Examples { host: Host::new(file.to_str().expect("UTF-8")), _folder: folder }
    }

    /// Runs the example of one function.
    #[track_caller]
    fn prints(&self, config: &Value, function: &str, task: &str, expected: &str) {
        let output = succeed(self.host.command().args([&config.to_string(), function, task]));
        assert_eq!(both(&output), expected, "{function}");
    }
}

#[test]
fn the_examples_do_what_they_say() {
    let examples = Examples::new();
    let nowhere = config("http://127.0.0.1:1");
    let mut run = BTreeSet::new();
    for (function, expected) in [
        ("arctos_version", concat!("arctos ", env!("CARGO_PKG_VERSION"), "\n")),
        ("arctos_abi_version", ""),
        ("arctos_code_name", "ARCTOS_TIMEOUT\n"),
        ("arctos_free", "true\n"),
        ("arctos_client_new", ""),
        ("arctos_client_free", ""),
        ("arctos_client_set_token", ""),
        ("arctos_client_cancel", ""),
        ("arctos_call_cancel", ""),
        ("arctos_client_stats", "made so far: 0\n"),
        ("arctos_json_get", "202312210000001\n"),
        ("arctos_json_set", "{\"business_id\":15,\"branch_code\":943,\"video\":true}\n"),
        ("arctos_json_set_text", "{\"task_remark\":\"asks for \\\"Ms Lin\\\"\"}\n"),
        ("arctos_json_set_field", "{\"out_task_num\":\"BR0943-187\",\"task_remark\":\"window 4\"}\n"),
        ("arctos_text_copy", "[202312210000001     ]\n"),
    ] {
        examples.prints(&nowhere, function, "{}", expected);
        run.insert(function.to_owned());
    }

    let checked = format!("would be sent: {}\n", task_check(&task("N")).text());
    examples.prints(&nowhere, "arctos_task_check", &task("N"), &checked);
    let output = succeed(examples.host.command().args([&nowhere.to_string(), "arctos_task_check", "{}"]));
    assert!(both(&output).starts_with("refused: {\"code\":-3,"), "{}", both(&output));
    run.insert("arctos_task_check".to_owned());

    let output = succeed(examples.host.command().args([&nowhere.to_string(), "arctos_client_diagnose", "{}"]));
    let text = both(&output).strip_prefix("ARCTOS_CONNECT\n").map(str::to_owned);
    let document: Value = serde_json::from_str(&text.expect("the code")).expect("JSON");
    assert_eq!(document["steps"][0]["step"], "route");
    run.insert("arctos_client_diagnose".to_owned());

    let output = succeed(examples.host.command().args([&nowhere.to_string(), "arctos_set_log", "{}"]));
    let line = both(&output).strip_prefix("ERROR ").map(str::to_owned).unwrap_or_else(|| panic!("{}", both(&output)));
    let event: Value = serde_json::from_str(&line).expect("one line of JSON");
    assert_eq!(
        (&event["event"], &event["code"], &event["level"]),
        (&json!("failure"), &json!(BAD_TASK), &json!("error"))
    );
    run.insert("arctos_set_log".to_owned());

    let server = Server::plain();
    let served = config(&server.base_url());
    let answers = |status: &str, body: &str| answer(status, Framing::Length, body.as_bytes());
    let made = || Script::made().send(answers("200 OK", &success_body("EXAMPLE"))).close();
    let without = || Script::made().send(answers("200 OK", r#"{"status":1}"#)).close();
    let listed = || Script::request().send(answers("200 OK", r#"{"status":1,"rooms":[]}"#)).close();
    let refused = || Script::request().send(answers("403 Forbidden", "no")).close();
    let reset = || Script::request().then(Step::Reset);
    let cases = [
        ("arctos_task_add", made(), "made: T-EXAMPLE\n"),
        ("arctos_task_add", without(), "made, without a number\n"),
        ("arctos_task_add", refused(), "not made: ARCTOS_FORBIDDEN\n"),
        ("arctos_task_add", reset(), "perhaps made: ARCTOS_BROKEN\n"),
        ("arctos_task_add_with", made(), "ARCTOS_OK\n"),
        ("arctos_task_add_many", made(), "1 of 1: task 0: ARCTOS_OK\nARCTOS_OK\n"),
        ("arctos_task_add_many", refused(), "1 of 1: task 0: ARCTOS_FORBIDDEN\nARCTOS_PARTIAL\n"),
        ("arctos_call", listed(), "{\"status\":1,\"rooms\":[]}\n"),
        ("arctos_call", refused(), "ARCTOS_FORBIDDEN\n"),
        ("arctos_outcome", refused(), "nothing was made: ARCTOS_FORBIDDEN\n"),
        ("arctos_outcome", reset(), ""),
    ];
    let connections = cases.len();
    for (function, script, expected) in cases {
        server.next(script);
        examples.prints(&served, function, &task("EXAMPLE"), expected);
        run.insert(function.to_owned());
    }
    assert_eq!(server.settle(0).expect("the connections have ended").len(), connections);
    assert_eq!(server.ledger().made("EXAMPLE"), 3);
    assert_eq!(server.ledger().made("BR0943-187"), 1);

    let folder = TempDir::new().expect("a folder");
    let kept = with(served, json!({ "journal": { "file": folder.path().join("journal") } }));
    let client = Owned::new(&kept);
    server.next(reset());
    assert_eq!(client.add(&task("BR0943-187")).code, BROKEN);
    for (function, begins) in [("arctos_journal_list", "to be found out: "), ("arctos_journal_resolve", "recorded: ")] {
        let output = succeed(examples.host.command().args([&kept.to_string(), function, "{}"]));
        let text = both(&output).strip_prefix(begins).map(str::to_owned).unwrap_or_else(|| panic!("{}", both(&output)));
        let shown: Value = serde_json::from_str(&text).expect("JSON");
        assert!(shown.to_string().contains("BR0943-187"), "{shown}");
        run.insert(function.to_owned());
    }
    assert_eq!(client.add(&task("BR0943-187")).code, OK);

    let all: BTreeSet<String> = functions().into_iter().map(|function| function.name).collect();
    assert_eq!(run, all, "every example is run");
}

/// The sources of the library, the strings in them in one piece.
fn sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            sources(&entry, text);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let file = std::fs::read_to_string(&entry).expect("a source");
            let mut parts = file.split("\\\n");
            text.push_str(parts.next().expect("split gives one part at least"));
            parts.for_each(|part| text.push_str(part.trim_start()));
        }
    }
}

#[test]
fn the_messages_of_the_page_on_networks_are_those_of_the_library() {
    let page = std::fs::read_to_string(root().join("docs/network.md")).expect("the page");
    let mut library = String::new();
    sources(&root().join("src"), &mut library);
    let library = library.replace("\\\"", "\"");
    let mut count = 0;
    // The first column of the tables, and in it what is quoted.
    for line in page.lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
        let cell = line.split('|').nth(1).expect("a cell");
        for message in cell.split('`').skip(1).step_by(2) {
            // What stands between the parts that differ; a limit is put behind what it ended.
            let message = message.replace("the proxy", "…").replace(" within …", "…");
            let message = message.split("(HTTP ").next().expect("split gives one part at least");
            for part in message.split('…').map(|part| part.trim_matches([' ', ':', ';', ','])) {
                assert!(library.contains(part), "the library does not say {part:?}, of: {line}");
                count += usize::from(part.len() > 3);
            }
        }
    }
    assert!(count > 60, "{count} messages");
}
