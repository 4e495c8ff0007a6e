//! What the tests stand on: the C functions of the library that ships, and servers that misbehave.

pub mod api;
pub mod chaos;
pub mod deadline;
pub mod disk;
pub mod expected;
pub mod front;
pub mod http;
pub mod journal;
pub mod ledger;
pub mod proxy;
pub mod secrets;
pub mod server;
pub mod service;
pub mod stage;
pub mod sys;
pub mod tls;
pub mod tokens;
pub mod tools;
pub mod vectors;
mod watched;
