//! How admin messages are written as JSON: the functions that `build.rs` attaches to fields by rule.

use std::fmt::Display;

use serde::{Serialize as _, Serializer};

/// A 64-bit number as a decimal string: JSON numbers lose digits above 2⁵³ in many readers.
pub(super) fn number<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// As [`number`]; nothing is `null`.
#[expect(clippy::ref_option, reason = "serde passes the field by reference")]
pub(super) fn optional_number<T: Display, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

/// As [`number`], one by one.
pub(super) fn numbers<T: Display, S: Serializer>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(ToString::to_string))
}

/// JSON text as the value that it is: empty is `null`, and what is no JSON stays text.
pub(super) fn embedded<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    if text.is_empty() {
        return serializer.serialize_none();
    }
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value) => value.serialize(serializer),
        Err(_) => serializer.serialize_str(text),
    }
}
