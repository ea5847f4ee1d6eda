//! Values that must not be shown, and the marker that stands for one.
//!
//! A [`Secret`] or a [`Uri`] is either known or redacted, and the two can never be mistaken for each other: the marker
//! is a variant, not a text. Nothing here has a `Display`; `Debug` shows neither a secret nor its length. Whoever needs
//! the text calls `expose`, so that each such place can be found.

use std::fmt;

use zeroize::Zeroizing;

/// What stands in place of credentials in a URI.
pub const HIDDEN: &str = "***";

/// A password, the value of an environment variable, the body of a hook.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The value, wiped from memory when it is dropped.
    Known(Zeroizing<String>),
    /// There is a value and it is not shown. Pushed back it means: keep what is there.
    Redacted,
}

impl Secret {
    /// A known value.
    pub fn new(value: impl Into<String>) -> Self {
        Self::Known(Zeroizing::new(value.into()))
    }

    /// The value; none when it is redacted.
    pub fn expose(&self) -> Option<&str> {
        match self {
            Self::Known(value) => Some(value),
            Self::Redacted => None,
        }
    }

    /// Whether only the marker is here.
    pub const fn is_redacted(&self) -> bool {
        matches!(self, Self::Redacted)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Known(_) => "Known(***)",
            Self::Redacted => "Redacted",
        })
    }
}

/// Where a repository lies, as its tool writes it. It may carry credentials.
#[derive(Clone, PartialEq, Eq)]
pub enum Uri {
    /// The whole text.
    Known(Zeroizing<String>),
    /// The text with its credentials replaced by [`HIDDEN`]. Pushed back it means: keep what is there, if that reads so.
    Redacted(String),
}

impl Uri {
    /// A whole text.
    pub fn new(text: impl Into<String>) -> Self {
        Self::Known(Zeroizing::new(text.into()))
    }

    /// The whole text; none when its credentials are redacted.
    pub fn expose(&self) -> Option<&str> {
        match self {
            Self::Known(text) => Some(text),
            Self::Redacted(_) => None,
        }
    }

    /// As others may see it: redacted if there is anything to hide, else as it is.
    #[must_use]
    pub fn shown(&self) -> Self {
        match self {
            Self::Known(text) => hide(text).map_or_else(|| self.clone(), Self::Redacted),
            Self::Redacted(_) => self.clone(),
        }
    }

    /// The text that others may see.
    pub fn shown_text(&self) -> String {
        match self {
            Self::Known(text) => hide(text).unwrap_or_else(|| text.as_str().to_owned()),
            Self::Redacted(text) => text.clone(),
        }
    }

    /// Whether credentials are left out of it.
    pub const fn is_redacted(&self) -> bool {
        matches!(self, Self::Redacted(_))
    }

    /// The length of the text in bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Known(text) => text.len(),
            Self::Redacted(text) => text.len(),
        }
    }
}

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uri({})", self.shown_text())
    }
}

/// The text without its credentials; none if it has none. Where a text can be read in two ways, it hides too much: a
/// password with an `@` or a `/` in it must not come through, a path with an `@` in it may look odd.
fn hide(text: &str) -> Option<String> {
    let without_query = text.split_once('?').map(|(before, _)| format!("{before}?{HIDDEN}"));
    let text = without_query.as_deref().unwrap_or(text);
    if let Some(remote) = text.strip_prefix("rclone:")
        && remote.contains('=')
    {
        // A connection string: its parameters may be keys.
        return Some(format!("rclone:{HIDDEN}"));
    }
    let Some((before, host)) = text.rsplit_once('@') else { return without_query };
    let start = match (before.find("://"), before.find(':')) {
        (Some(at), _) => at + "://".len(),
        (None, Some(at)) => at + ':'.len_utf8(),
        (None, None) => 0,
    };
    let (scheme, user) = before.split_at_checked(start).unwrap_or(("", before));
    let is_place = matches!(scheme, "" | "ssh://" | "sftp://" | "sftp:") && !user.contains(':');
    if is_place || user == HIDDEN {
        return without_query;
    }
    Some(format!("{scheme}{HIDDEN}@{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_a_uri_are_hidden_and_places_are_not() {
        for (text, shown) in [
            ("rest:https://u:p@h:8000/x", "rest:https://***@h:8000/x"),
            ("rest:https://token@h/x", "rest:https://***@h/x"),
            ("rest:https://u:p/q@h/x", "rest:https://***@h/x"),
            ("rest:https://u:p@q@h/x", "rest:https://***@h/x"),
            ("rest:https://h/x?key=k", "rest:https://h/x?***"),
            ("rest:https://u:p@h/x?key=k", "rest:https://***@h/x?***"),
            ("user:pass@h:/srv/x", "user:***@h:/srv/x"),
            ("ssh://borg@h:22/./r", "ssh://borg@h:22/./r"),
            ("ssh://borg:pw@h/./r", "ssh://***@h/./r"),
            ("sftp:backup@h:/srv/x", "sftp:backup@h:/srv/x"),
            ("sftp:backup:pw@h:/srv/x", "sftp:***@h:/srv/x"),
            ("backup@h:/srv/x", "backup@h:/srv/x"),
            ("s3:s3.example.com/bucket", "s3:s3.example.com/bucket"),
            ("rclone:remote:path", "rclone:remote:path"),
            ("rclone::b2,key=k:path", "rclone:***"),
            ("/srv/x", "/srv/x"),
        ] {
            let uri = Uri::new(text);
            assert_eq!(uri.shown_text(), shown, "{text}");
            assert_eq!(uri.shown().is_redacted(), text != shown, "{text}");
            assert_eq!(uri.shown().shown(), uri.shown(), "{text}");
            assert_eq!(Uri::new(shown).shown_text(), shown, "hiding twice is hiding once");
        }
    }

    #[test]
    fn nothing_prints_a_secret() {
        let secret = Secret::new("canary");
        assert!(!format!("{secret:?}{:?}", Uri::new("https://canary:canary@h/")).contains("canary"));
        assert_eq!(format!("{secret:?}").len(), format!("{:?}", Secret::new("")).len());
        assert_eq!(Secret::Redacted.expose(), None);
    }
}
