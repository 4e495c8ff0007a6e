//! The header compiles wherever C and C++ are compiled, says what the library does, and a program that uses every
//! function of it links against both libraries that ship.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arctos_tests::api::*;
use arctos_tests::tools::{Host, both, compiler, source, succeed, tool};
use tempfile::TempDir;

const C: [&[&str]; 3] = [&["-std=c89", "-Wno-long-long"], &["-std=c99"], &["-std=c11"]];
const CXX: [&[&str]; 2] = [&["-std=c++98"], &["-std=c++17"]];

fn header() -> String {
    std::fs::read_to_string(root().join("include/arctos.h")).expect("the header")
}

/// The header without its comments.
fn code() -> String {
    let header = header();
    let mut code = String::new();
    let mut rest = &*header;
    while let Some((before, after)) = rest.split_once("/*") {
        code.push_str(before);
        code.push(' ');
        rest = after.split_once("*/").expect("comments end").1;
    }
    code.push_str(rest);
    assert!(!code.contains("//"), "C89 has no such comments");
    code
}

/// Compiles the header alone, twice, and with a program that uses every function.
fn compiles(program: &Path, language: &str, standards: &[&[&str]]) {
    let folder = TempDir::new().expect("a folder");
    let file = |name: &str, contents: &str| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, contents).expect("a file");
        path
    };
    let once = file("once.c", "#include <arctos.h>\n");
    let twice = file("twice.c", "#include \"arctos.h\"\n#include \"arctos.h\"\n");
    let object = folder.path().join("object.o");
    for standard in standards {
        for file in [&once, &twice, &source("every_function")] {
            let mut command = compiler(program);
            command.args(*standard).args(["-x", language, "-c"]).arg(file).arg("-o").arg(&object);
            let output = succeed(&mut command);
            assert_eq!(both(&output), "", "{command:?}");
        }
    }
}

#[test]
fn the_header_compiles_as_c() {
    if let Some(gcc) = tool("the header as C", "gcc", "gcc") {
        compiles(&gcc, "c", &C);
    }
}

#[test]
fn the_header_compiles_as_cxx() {
    if let Some(gxx) = tool("the header as C++", "g++", "g++") {
        compiles(&gxx, "c++", &CXX);
    }
}

#[test]
fn the_header_compiles_for_windows() {
    for (name, package, language, standards) in [
        ("x86_64-w64-mingw32-gcc", "gcc-mingw-w64-x86-64", "c", &C[..]),
        ("i686-w64-mingw32-gcc", "gcc-mingw-w64-i686", "c", &C[..]),
        ("x86_64-w64-mingw32-g++", "g++-mingw-w64-x86-64", "c++", &CXX[..]),
        ("i686-w64-mingw32-g++", "g++-mingw-w64-i686", "c++", &CXX[..]),
    ] {
        if let Some(program) = tool("the header for Windows", name, package) {
            compiles(&program, language, standards);
        }
    }
}

#[test]
fn the_header_includes_stdint_and_nothing_else() {
    let header = header();
    let includes: Vec<&str> = header.lines().filter(|line| line.trim_start().starts_with("#include")).collect();
    assert_eq!(includes, ["#include <stdint.h>"]);
    assert!(header.is_ascii() && !header.contains('\t') && !header.contains('\r'));
}

#[test]
fn constants_have_their_values() {
    let code = code();
    let constants: BTreeMap<&str, i64> = code
        .lines()
        .filter_map(|line| line.strip_prefix("#define ")?.split_once(' '))
        .filter_map(|(name, value)| Some((name, value.trim().trim_matches(['(', ')']).parse().ok()?)))
        .collect();
    let expected = BTreeMap::from([
        ("ARCTOS_ABI_VERSION", 1),
        ("ARCTOS_NOT_CREATED", NOT_CREATED),
        ("ARCTOS_CREATED", CREATED),
        ("ARCTOS_UNKNOWN", UNKNOWN),
        ("ARCTOS_OK", OK),
        ("ARCTOS_BAD_ARGUMENT", BAD_ARGUMENT),
        ("ARCTOS_BAD_CONFIG", BAD_CONFIG),
        ("ARCTOS_BAD_TASK", BAD_TASK),
        ("ARCTOS_NO_VALUE", NO_VALUE),
        ("ARCTOS_CONNECT", CONNECT),
        ("ARCTOS_TLS", TLS),
        ("ARCTOS_TIMEOUT", TIMEOUT),
        ("ARCTOS_BROKEN", BROKEN),
        ("ARCTOS_CANCELLED", CANCELLED),
        ("ARCTOS_FAILED", FAILED),
        ("ARCTOS_FORBIDDEN", FORBIDDEN),
        ("ARCTOS_NOT_FOUND", NOT_FOUND),
        ("ARCTOS_REJECTED", REJECTED),
        ("ARCTOS_BUSY", BUSY),
        ("ARCTOS_SERVER_ERROR", SERVER_ERROR),
        ("ARCTOS_BAD_RESPONSE", BAD_RESPONSE),
        ("ARCTOS_PARTIAL", PARTIAL),
        ("ARCTOS_JOURNAL", JOURNAL),
        ("ARCTOS_UNRESOLVED", UNRESOLVED),
        ("ARCTOS_CONFLICT", CONFLICT),
        ("ARCTOS_INTERNAL", INTERNAL),
    ])
    .into_iter()
    .map(|(name, value)| (name, i64::from(value)))
    .collect::<BTreeMap<&str, i64>>();
    assert_eq!(constants, expected);
    // A negative value stands in parentheses, so that it is one value in every expression.
    for line in code.lines().filter(|line| line.starts_with("#define ARCTOS_") && line.contains('-')) {
        assert!(line.contains("(-") && line.ends_with(')'), "{line}");
    }
    // Macros besides these are the three of the header itself.
    let others: Vec<&str> = code
        .lines()
        .filter_map(|line| line.trim_start_matches(['#', ' ']).strip_prefix("define "))
        .map(|line| line.split_whitespace().next().expect("a name"))
        .filter(|name| !expected.contains_key(name))
        .collect();
    assert!(others.iter().all(|name| ["ARCTOS_H", "ARCTOS_API", "ARCTOS_CALL"].contains(name)), "{others:?}");
}

/// The names of the functions, each with what stands before it.
fn prototypes() -> BTreeMap<String, String> {
    let code: String = code().lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join(" ");
    let mut prototypes = BTreeMap::new();
    for (open, _) in code.match_indices('(') {
        let before = code[..open].trim_end();
        let name = before.rsplit(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_').next().expect("a part");
        if name.starts_with("arctos_") {
            let start = before.rfind([';', '{', '}']).map_or(0, |at| at + 1);
            let type_and_marks =
                before[start..before.len() - name.len()].split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(prototypes.insert(name.to_owned(), type_and_marks), None, "{name} is declared twice");
        }
    }
    prototypes
}

#[test]
fn every_function_is_declared_with_its_convention_and_visibility() {
    let prototypes = prototypes();
    let listed = std::fs::read_to_string(root().join("tests/exported-symbols.txt")).expect("the list");
    assert_eq!(prototypes.keys().map(String::as_str).collect::<Vec<_>>(), listed.lines().collect::<Vec<_>>());
    for (name, before) in &prototypes {
        let result = before.strip_prefix("ARCTOS_API ").and_then(|rest| rest.strip_suffix("ARCTOS_CALL"));
        let result = result.unwrap_or_else(|| panic!("{name}: {before}")).trim_end();
        let known = ["arctos_code", "arctos_outcome_code", "const char *", "uint32_t", "int32_t", "void"];
        assert!(known.contains(&result), "{name} returns {result}");
    }
}

#[test]
fn the_program_of_every_function_leaves_none_out() {
    let program = std::fs::read_to_string(source("every_function")).expect("the program");
    for name in prototypes().keys() {
        assert!(program.contains(&format!("{name}(")), "{name} is not used");
    }
}

#[track_caller]
fn prints_its_version(host: &Host) {
    let output = succeed(&mut host.command());
    assert_eq!(both(&output), concat!(env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_program_links_against_the_shared_library() {
    prints_its_version(&Host::new("every_function"));
}

#[test]
fn a_program_links_against_the_static_library() {
    let library = root().join("target/release/libarctos.a");
    assert!(library.exists(), "{}: run `make build` first", library.display());
    // It needs nothing of the system but what the C compiler always links.
    let host = Host::linked("every_function", |command| command.arg(&library));
    prints_its_version(&host);
}
