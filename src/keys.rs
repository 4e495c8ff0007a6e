//! The keys of a JSON object that the caller writes: which are known, of which type, in which range. Everything that
//! is wrong is noted, and no value is shown that could be a secret.
#![forbid(unsafe_code)]

use std::ops::RangeInclusive;

use zeroize::Zeroizing;

use crate::failure::Problem;
use crate::json::{self, Object, Value};
use crate::nearest::nearest;

/// The members of one object, and the list of what is wrong with them.
pub(crate) struct Keys<'a, 'p> {
    /// What stands before a key in a problem's place.
    place: &'static str,
    members: Object<'a>,
    problems: &'p mut Vec<Problem>,
}

impl<'a, 'p> Keys<'a, 'p> {
    /// Takes the members, and notes those that are unknown or stand twice; `deeper` are known names that belong
    /// elsewhere, with their place. An unknown key's value is not shown: it may be a secret under a misspelled name.
    pub(crate) fn new(
        place: &'static str,
        members: Object<'a>,
        known: &[&str],
        deeper: &[(&str, &[&str])],
        problems: &'p mut Vec<Problem>,
    ) -> Keys<'a, 'p> {
        for (index, (key, _)) in members.0.iter().enumerate() {
            let field = format!("{place}{key}");
            if !known.contains(&key.as_ref()) {
                let all = [(place, known)].into_iter().chain(deeper.iter().copied());
                let all = all.flat_map(|(place, names)| names.iter().map(move |name| format!("{place}{name}")));
                let all: Vec<String> = all.collect();
                let hints: Vec<&str> = all.iter().map(String::as_str).collect();
                let problem = match nearest(&field, &hints) {
                    Some(name) => match name.strip_prefix(place).unwrap_or(name).split_once('.') {
                        Some((outer, inner)) => {
                            format!("is not a known key; did you mean {name}, the key {inner} in the object {outer}?")
                        }
                        None => format!("is not a known key; did you mean {name}?"),
                    },
                    None => format!("is not a known key; known are {}", known.join(", ")),
                };
                problems.push(Problem::new(field, problem));
            } else if members.0[..index].iter().any(|(before, _)| before == key) {
                problems.push(Problem::new(field, "stands twice"));
            }
        }
        Keys { place, members, problems }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Value<'a>> {
        self.members.0.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
    }

    pub(crate) fn problem(&mut self, key: &str, problem: impl Into<String>) {
        self.problem_with(key, problem, None);
    }

    pub(crate) fn problem_with(&mut self, key: &str, problem: impl Into<String>, value: Option<&str>) {
        let problem = Problem::new(format!("{}{key}", self.place), problem);
        self.problems.push(problem.value(value.map(str::to_owned)));
    }

    pub(crate) fn wrong_type(&mut self, key: &str, value: Value, wanted: &str) {
        self.problem(key, format!("must be {wanted}, not {}", json::kind(value)));
    }

    pub(crate) fn boolean(&mut self, key: &str, default: bool) -> bool {
        match self.get(key).map(|value| (value, value.get())) {
            None => default,
            Some((_, "true")) => true,
            Some((_, "false")) => false,
            Some((value, _)) => {
                self.wrong_type(key, value, "true or false");
                default
            }
        }
    }

    pub(crate) fn integer(&mut self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        self.optional_integer(key, range).unwrap_or(default)
    }

    pub(crate) fn optional_integer(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.get(key)?;
        let wanted = format!("an integer from {} to {}", range.start(), range.end());
        if json::kind(value) != "a number" {
            self.wrong_type(key, value, &wanted);
            return None;
        }
        let number = value.get().parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let shown: String = value.get().chars().take(32).collect();
            self.problem_with(key, format!("must be {wanted}"), Some(&shown));
        }
        number
    }

    /// A list of integers, each of which must be `allowed`; `None` when one is not.
    pub(crate) fn integers(
        &mut self,
        key: &str,
        default: &[u64],
        wanted: &str,
        allowed: impl Fn(&u64) -> bool,
    ) -> Option<Vec<u64>> {
        let Some(value) = self.get(key) else { return Some(default.to_vec()) };
        let Some(elements) = json::elements(value) else {
            self.wrong_type(key, value, &format!("an array of {wanted}"));
            return None;
        };
        let mut numbers = Vec::new();
        for element in elements {
            match element.get().parse().ok().filter(&allowed) {
                Some(number) => numbers.push(number),
                None => {
                    let shown: Option<String> =
                        (json::kind(element) == "a number").then(|| element.get().chars().take(32).collect());
                    self.problem_with(key, format!("must be an array of {wanted}"), shown.as_deref());
                    return None;
                }
            }
        }
        Some(numbers)
    }

    /// A string, wiped after use, for it may be a secret.
    pub(crate) fn string(&mut self, key: &str) -> Option<Zeroizing<String>> {
        let value = self.get(key)?;
        match json::string(value).and_then(|text| text.owned().ok()) {
            Some(text) => Some(text),
            None if value.get().starts_with('"') => {
                self.problem(key, "holds half of a surrogate pair");
                None
            }
            None => {
                self.wrong_type(key, value, "a string");
                None
            }
        }
    }

    /// An object that need not be there.
    pub(crate) fn given_object(&mut self, key: &str) -> Option<Object<'a>> {
        let object = self.object(key);
        self.get(key).filter(|value| json::kind(*value) == "an object").map(|_| object)
    }

    /// A string that can name something.
    #[cfg(feature = "journal")]
    pub(crate) fn name(&mut self, key: &str, longest: usize) -> Option<Zeroizing<String>> {
        let text = self.string(key)?;
        if text.trim().is_empty() || text.len() > longest || text.contains(char::is_control) {
            self.problem(key, format!("must be 1 to {longest} bytes without control characters, and not only blanks"));
            return None;
        }
        Some(text)
    }

    pub(crate) fn object(&mut self, key: &str) -> Object<'a> {
        let none = Object(Vec::new());
        let Some(value) = self.get(key) else { return none };
        json::object(value.get()).unwrap_or_else(|_| {
            self.wrong_type(key, value, "an object");
            none
        })
    }
}
