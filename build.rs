//! Link options of the shared library.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        // A library that has started threads must stay where it is: dlclose becomes harmless.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
