//! The vendor's endpoint, createBlankTask: what a task must be and what an answer means.
//!
//! Decisions 1 to 12 of `docs/contract.md` stand in this module and in no other; comments cite their numbers.
#![forbid(unsafe_code)]

mod answer;
mod task;

pub(crate) use answer::{Envelope, Status, envelope, is_refusal, message, status};
pub use task::task_check;
pub(crate) use task::{Task, number};

/// The field that names an appointment.
pub(crate) const NUMBER: &str = "out_task_num";

/// The path of the endpoint below the base URL.
pub(crate) const PATH: &str = "/api/task/do_add";
