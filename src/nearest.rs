//! Finds the known name that a caller probably meant.
#![forbid(unsafe_code)]

/// The known name that is near enough to `name` to be worth naming, and nearest to it.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |name: &str| name.replace(['_', '-', '.', ' '], "").to_lowercase();
    let given = plain(name);
    if given.is_empty() {
        return None;
    }
    known
        .iter()
        .filter_map(|candidate| {
            let wanted = plain(candidate);
            let distance = strsim::osa_distance(&given, &wanted);
            // A part of a name ("remark") is as good a hint as a slip of the fingers.
            let part = given.len() >= 4 && (wanted.ends_with(&given) || wanted.starts_with(&given))
                || given.strip_prefix(&wanted).is_some_and(|more| more.len() <= 3);
            let slip = distance <= 2.min(wanted.chars().count() / 3);
            (slip || part).then_some((!slip, distance, *candidate))
        })
        .min()
        .map(|(_, _, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_parts_are_found_and_strangers_are_not() {
        let known = ["task_time", "task_remark", "business_id", "video", "tls"];
        assert_eq!(nearest("tasktime", &known), Some("task_time"));
        assert_eq!(nearest("Task-Time", &known), Some("task_time"));
        assert_eq!(nearest("taks_time", &known), Some("task_time"));
        assert_eq!(nearest("remark", &known), Some("task_remark"));
        assert_eq!(nearest("vidoe", &known), Some("video"));
        assert_eq!(nearest("task_remarked", &known), Some("task_remark"));
        assert_eq!(nearest("ssl", &known), None);
        assert_eq!(nearest("customer", &known), None);
        assert_eq!(nearest("", &known), None);
    }
}
