//! Credentials in URLs do not get into records.

/// What stands in place of a secret.
pub(super) const HIDDEN: &str = "***";

/// The text with the credentials of every URL in it replaced by `***`. A bare user name of an ssh or sftp URL stays:
/// it is a place, not a secret.
pub(super) fn urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(ends_authority).unwrap_or(after.len());
        let credentials = after.get(..end).and_then(|authority| authority.rfind('@'));
        let credentials = credentials.and_then(|at| after.split_at_checked(at));
        rest = match credentials {
            Some((user, host)) if is_secret(before, user) => {
                out.push_str(HIDDEN);
                host
            }
            _ => after,
        };
    }
    out.push_str(rest);
    out
}

fn ends_authority(c: char) -> bool {
    c == '/' || c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>' | '\\')
}

fn is_secret(before: &str, user: &str) -> bool {
    user.contains(':') || !(before.ends_with("ssh://") || before.ends_with("sftp://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_urls_are_hidden_wherever_they_stand() {
        for (text, shown) in [
            ("rest:https://u:p@h:8000/x", "rest:https://***@h:8000/x"),
            ("https://token@h/x", "https://***@h/x"),
            ("https://u:p%40q@w@h/x y://a:b@c", "https://***@h/x y://***@c"),
            ("ssh://borg@h:22/./r", "ssh://borg@h:22/./r"),
            ("ssh://borg:pw@h/./r", "ssh://***@h/./r"),
            ("https://h/p@q", "https://h/p@q"),
            ("s3:s3.example.com/b", "s3:s3.example.com/b"),
            ("{\"url\":\"http://a:b@c\"}", "{\"url\":\"http://***@c\"}"),
            ("a://b://c:d@", "a://b://***@"),
        ] {
            assert_eq!(urls(text), shown);
        }
    }
}
