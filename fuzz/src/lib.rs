//! What the fuzz targets know without asking the library: a reader of JSON and a reader of answers of their own, which
//! share no code with what they judge.

pub mod answer;
pub mod document;
pub mod json;
