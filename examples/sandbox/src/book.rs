//! The appointments made since the start.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use time::OffsetDateTime;

use crate::contract::Task;

#[derive(Default)]
pub struct Book {
    appointments: Mutex<Vec<Appointment>>,
}

#[derive(Serialize)]
struct List<'a> {
    appointments: &'a [Appointment],
}

#[derive(Serialize)]
struct Appointment {
    task_num: String,
    #[serde(flatten)]
    task: Task,
}

impl Book {
    /// Makes an appointment, prints its line and returns its task number: the day (UTC) and a
    /// counter. An `out_task_num` that was used before gets another number, since nothing
    /// documents that the server refuses it.
    pub fn add(&self, task: Task) -> String {
        let mut appointments = self.lock();
        let today = OffsetDateTime::now_utc().date();
        let task_num =
            format!("{:04}{:02}{:02}{:07}", today.year(), u8::from(today.month()), today.day(), appointments.len() + 1);
        crate::say(&line(&task_num, &task));
        appointments.push(Appointment { task_num: task_num.clone(), task });
        task_num
    }

    /// All appointments as JSON, the oldest first.
    pub fn list(&self) -> String {
        let list = List { appointments: &self.lock() };
        serde_json::to_string(&list).expect("strings and parsed JSON always serialize")
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Appointment>> {
        self.appointments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Values in JSON spelling keep the line a single one, whatever they hold.
fn line(task_num: &str, task: &Task) -> String {
    let mut line =
        format!("{task_num} out_task_num={} branch_code={}", serde_json::json!(task.out_task_num), task.branch_code);
    if let Some(task_time) = &task.task_time {
        line.push_str(&format!(" task_time={task_time}"));
    }
    line
}
