//! The libraries that ship are built as they must be, and unloading one does no harm.

use std::collections::BTreeSet;
use std::path::PathBuf;

use arctos_tests::api::root;
use arctos_tests::tools::Host;
use object::elf::{DF_1_NODELETE, DT_FLAGS_1, FileHeader64};
use object::read::archive::ArchiveFile;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSymbol, SymbolKind};

fn path(name: &str) -> PathBuf {
    root().join("target/release").join(name)
}

fn library(name: &str) -> Vec<u8> {
    let path = path(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run `make build` first", path.display()))
}

/// The crates of Rust's own whose code comes compiled and takes no part in link-time optimisation.
fn comes_compiled(unit: &str) -> bool {
    unit.starts_with("compiler_builtins")
}

/// The codegen units of Rust that an object file was made of. Units that were optimised together are one.
fn units(file: &object::File) -> BTreeSet<String> {
    file.symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::File)
        .map(|symbol| symbol.name().expect("UTF-8").to_owned())
        .filter(|name| name.contains("-cgu.") && !comes_compiled(name))
        .collect()
}

#[track_caller]
fn is_the_one_unit(units: &BTreeSet<String>) {
    let [only] = units.iter().collect::<Vec<_>>()[..] else {
        panic!("not built with LTO and one codegen unit; `make build` does: {units:?}")
    };
    assert!(only.starts_with("arctos.") && only.ends_with("-cgu.0"), "{only}");
}

#[test]
fn the_shared_library_is_optimised_as_a_whole() {
    let bytes = library("libarctos.so");
    is_the_one_unit(&units(&object::File::parse(&*bytes).expect("an object file")));
}

#[test]
fn the_static_library_is_optimised_as_a_whole() {
    let bytes = library("libarctos.a");
    let archive = ArchiveFile::parse(&*bytes).expect("an archive");
    let mut all = BTreeSet::new();
    let mut members = Vec::new();
    for member in archive.members() {
        let member = member.expect("a member");
        let name = String::from_utf8_lossy(member.name()).into_owned();
        // An archive does not align its members as an object file wants it.
        let contents = member.data(&*bytes).expect("contents").to_vec();
        let file = object::File::parse(&*contents).expect("an object file");
        let units = units(&file);
        if !units.is_empty() || (name.contains(".rcgu.") && !comes_compiled(&name)) {
            members.push(name);
        }
        all.extend(units);
    }
    is_the_one_unit(&all);
    assert_eq!(members.len(), 1, "{members:?}");
}

#[test]
fn the_shared_library_stays_where_it_is() {
    let bytes = library("libarctos.so");
    let header = FileHeader64::<Endianness>::parse(&*bytes).expect("a 64-bit ELF file");
    let endian = header.endian().expect("an order of bytes");
    let segments = header.program_headers(endian, &*bytes).expect("segments");
    let dynamic = segments.iter().find_map(|segment| segment.dynamic(endian, &*bytes).expect("readable"));
    let flags: u64 = dynamic
        .expect("a dynamic section")
        .iter()
        .filter(|entry| entry.d_tag(endian) == u64::from(DT_FLAGS_1))
        .map(|entry| entry.d_val(endian))
        .sum();
    assert_ne!(flags & u64::from(DF_1_NODELETE), 0, "flags {flags:#x}");
}

#[test]
fn a_library_that_is_opened_and_closed_again_and_again_does_no_harm() {
    let library = path("libarctos.so");
    let host = Host::linked("unload", |command| command.args(["-lpthread", "-ldl"]));
    host.run(&[library.to_str().expect("UTF-8")]);
}

#[test]
fn no_path_of_the_machine_that_built_them_stands_in_the_libraries() {
    let home = std::env::var("HOME").expect("a home");
    let places = [root().display().to_string(), home + "/", "/registry/src/".to_owned()];
    for name in ["libarctos.so", "libarctos.a"] {
        let bytes = library(name);
        for place in &places {
            let found = bytes.windows(place.len()).any(|window| window == place.as_bytes());
            assert!(!found, "{name} holds {place}; `make build` leaves it out");
        }
    }
}
