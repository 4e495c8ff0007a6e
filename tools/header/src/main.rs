//! Writes `include/arctos.h`; with `--check`, says whether the committed one is what would be written.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use arctos::{CODES, Outcome};

fn main() -> ExitCode {
    let check = std::env::args().nth(1).as_deref() == Some("--check");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("include/arctos.h");
    let header = match header(&root) {
        Ok(header) => header,
        Err(problem) => {
            eprintln!("include/arctos.h: {problem}");
            return ExitCode::FAILURE;
        }
    };
    if !check {
        std::fs::write(&path, header).expect("include/arctos.h can be written");
        return ExitCode::SUCCESS;
    }
    if std::fs::read_to_string(&path).is_ok_and(|committed| committed == header) {
        return ExitCode::SUCCESS;
    }
    eprintln!("include/arctos.h is not what `make header` writes; run it and commit the result");
    ExitCode::FAILURE
}

fn header(root: &Path) -> Result<String, String> {
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml"))?;
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(root.join("src/ffi/mod.rs"))
        .generate()
        .map_err(|error| error.to_string())?;
    let mut written = Vec::new();
    bindings.write(&mut written);
    let written = String::from_utf8(written).map_err(|error| error.to_string())?;
    let written = without_notes_for_rust(&written);
    let written = written.replacen("@CODES@", &codes(), 1);
    let header = in_c89(&with_convention(&written)?);
    let source = std::fs::read_to_string(root.join("src/ffi/mod.rs")).map_err(|error| error.to_string())?;
    check(&header, source.matches("#[unsafe(no_mangle)]").count())?;
    Ok(header)
}

/// Every function of the border stands in the header, and each with its calling convention.
fn check(header: &str, functions: usize) -> Result<(), String> {
    let mut code = String::new();
    for (index, part) in header.split("/*").enumerate() {
        code.push_str(if index == 0 { part } else { part.split_once("*/").map_or("", |(_, after)| after) });
    }
    let mut declared = 0;
    for (open, _) in code.match_indices('(') {
        let before = code[..open].trim_end();
        let name = before.rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(0, |at| at + 1);
        if before[name..].starts_with("arctos_") {
            declared += 1;
            if !before[..name].ends_with("ARCTOS_CALL ") {
                return Err(format!("{} lacks ARCTOS_CALL", &before[name..]));
            }
        }
    }
    if declared == functions { Ok(()) } else { Err(format!("{declared} of {functions} functions are declared")) }
}

/// The outcomes and codes, with their meaning.
fn codes() -> String {
    let mut text = String::new();
    let _ = writeln!(text, "/* What arctos_abi_version returns in a library that fits this header. */");
    let _ = writeln!(text, "#define ARCTOS_ABI_VERSION {}\n", arctos::ffi::arctos_abi_version());
    let _ = writeln!(text, "/* Whether the appointment was made. Not zero means that one may exist. */");
    for outcome in Outcome::ALL {
        let _ = writeln!(text, "#define ARCTOS_{} {}", outcome.word().to_uppercase(), outcome as i32);
    }
    let _ = writeln!(
        text,
        "\n/*\n * The codes. A code never changes its value or meaning; new ones may come, so branch on arctos_outcome.\n */"
    );
    for row in CODES {
        let _ = writeln!(text, "\n/* {}.", row.when);
        if !row.outcome.is_empty() {
            let _ = writeln!(text, "   Outcome: {}.", row.outcome);
        }
        let value = row.code.value();
        let value = if value < 0 { format!("({value})") } else { value.to_string() };
        text.truncate(text.trim_end().len());
        let _ = writeln!(text, " */\n#define {} {value}", row.name);
    }
    text
}

/// Takes out the sections that speak to callers from Rust.
fn without_notes_for_rust(text: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.trim() == "* # Safety" {
            inside = true;
            // The blank line before it goes too.
            if kept.last().is_some_and(|line| line.trim() == "*") {
                kept.pop();
            }
        }
        inside &= !line.trim().ends_with("*/");
        if !inside {
            kept.push(line);
        }
    }
    kept.join("\n") + "\n"
}

/// The comments that cbindgen writes itself are not those of C89.
fn in_c89(text: &str) -> String {
    let lines = text.lines().map(|line| match line.split_once("// ") {
        Some((before, comment)) if before.starts_with(['#', '}']) => format!("{} /* {comment} */", before.trim_end()),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// Puts ARCTOS_CALL where compilers want it: between the type and the name, and before the star of a callback.
fn with_convention(text: &str) -> Result<String, String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        if let Some((before, after)) = line.split_once("(*").filter(|_| line.starts_with("typedef ")) {
            lines.push(format!("{before}(ARCTOS_CALL *{after}"));
            continue;
        }
        if !line.starts_with("ARCTOS_API ") {
            lines.push(line.to_owned());
            continue;
        }
        let open = line.find('(').ok_or_else(|| format!("no function: {line}"))?;
        let name = line[..open].rfind("arctos_").ok_or_else(|| format!("no function of ours: {line}"))?;
        let (before, after) = line.split_at(name);
        lines.push(format!("{before}ARCTOS_CALL {after}"));
    }
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_without_its_convention_is_found() {
        let good = "/* arctos_comment(x) */\nARCTOS_API int ARCTOS_CALL arctos_a(void);\n";
        assert_eq!(check(good, 1), Ok(()));
        assert!(check(good, 2).is_err());
        assert!(check("ARCTOS_API int arctos_a(void);\n", 1).is_err());
        assert!(check("ARCTOS_API\nint arctos_a(void);\n", 1).is_err());
    }

    #[test]
    fn the_convention_stands_between_type_and_name() {
        let text = with_convention("ARCTOS_API const char *arctos_a(int b);\n").unwrap();
        assert_eq!(text, "ARCTOS_API const char *ARCTOS_CALL arctos_a(int b);\n");
        let text = with_convention("typedef void (*arctos_a_fn)(int b);\n").unwrap();
        assert_eq!(text, "typedef void (ARCTOS_CALL *arctos_a_fn)(int b);\n");
    }
}
