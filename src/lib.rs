//! Makes arctos video appointments, and says truthfully of every failed call whether one was made.
//!
//! The product is the C library that this crate builds (`include/arctos.h`); the modules below are what
//! stands behind it, in the order in which a call goes through them:
//!
//! | module | knows |
//! |---|---|
//! | `ffi` | C: pointers, handles, texts, panics. It decides nothing |
//! | [`Client`] | one client: its configuration, its token, and the way of a call |
//! | `many` | many appointments in one call |
//! | `config`, `options` | the keys of a client and of a call, their ranges and defaults; `keys` reads them |
//! | `address`, `proxy` | where a server or a proxy is, and what the environment says of proxies |
//! | `credential`, `secret` | the token and where another one comes from; texts that nobody may see |
//! | `contract` | the vendor's endpoint: what a task must be, what an answer means |
//! | `journal` | which appointments were asked for, and what became of them, whatever dies |
//! | `tls` | whom TLS trusts, and what its errors mean |
//! | `connection` | how one request goes out and its answer comes in; records what was sent |
//! | `call` | the record of one call: its deadline, what had gone out, what came back |
//! | `cancel`, `log`, `fork` | ending calls early; telling what happens; what a fork must find in order |
//! | `stats` | what a client has done, in numbers |
//! | [`json`], `field`, `mask`, `memory` | JSON without a tree, fields of records, what no document may repeat, memory that may be refused |
//! | `diagnose` | what stands between a client and its server, step by step |
//! | [`Failure`] | the one place where a record becomes a code, an outcome and a document |
//!
//! `docs/architecture.md` is the same in prose; `docs/contract.md` numbers the decisions that comments cite.

mod address;
mod call;
mod cancel;
mod client;
mod code;
mod config;
mod connection;
mod contract;
mod credential;
mod diagnose;
mod failure;
pub mod ffi;
mod field;
mod fork;
#[cfg(feature = "journal")]
mod journal;
pub mod json;
mod keys;
mod log;
mod many;
mod mask;
mod memory;
mod nearest;
mod options;
mod outcome;
mod path;
mod proxy;
mod secret;
mod stats;
mod sys;
mod tls;

pub use client::Client;
pub use code::{Code, TABLE as CODES};
pub use contract::task_check;
pub use failure::{Failure, Problem};
pub use many::Row;
pub use options::Options;
pub use outcome::Outcome;

/// The library's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    /// Is implemented in two ways for what has `Debug`: whoever asks for it does not compile.
    trait NoDebug<Way> {
        const IS: () = ();
    }

    struct AnotherWay;

    impl<T> NoDebug<()> for T {}
    impl<T: Debug> NoDebug<AnotherWay> for T {}

    // What holds secrets, or a customer's texts.
    const _: [(); 13] = [
        <secret::Secret as NoDebug<_>>::IS,
        <credential::Credential as NoDebug<_>>::IS,
        <credential::Source as NoDebug<_>>::IS,
        <credential::LogIn as NoDebug<_>>::IS,
        <proxy::Proxy as NoDebug<_>>::IS,
        <proxy::Credentials as NoDebug<_>>::IS,
        <config::Config as NoDebug<_>>::IS,
        <Client as NoDebug<_>>::IS,
        <connection::Connection as NoDebug<_>>::IS,
        <connection::Answer as NoDebug<_>>::IS,
        <contract::Task as NoDebug<_>>::IS,
        <json::Object as NoDebug<_>>::IS,
        <json::Text as NoDebug<_>>::IS,
    ];
}
