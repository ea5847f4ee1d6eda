//! What runs programs, and whose word it takes.
//!
//! Hooks, command prefixes, environment and most flags make a host run what somebody wrote. From a peer they are refused,
//! except by name in the receiving host's own configuration file; the lists here are what that file says. Flags are not
//! judged by a list of dangerous ones, which would never be complete, but by a list of harmless ones.

use std::collections::BTreeSet;
use std::fmt;

use super::model::{EnvVar, Hook, Plan, RepoSettings};

/// What peers may set although it runs programs: nothing, unless the operator of this instance names it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allowed {
    /// Names of hooks. Whoever may set a hook decides what it runs.
    pub hooks: BTreeSet<String>,
    /// Whole command prefixes, words joined by one space: `nice -n19`.
    pub command_prefixes: BTreeSet<String>,
    /// Names of environment variables.
    pub env: BTreeSet<String>,
    /// Names of flags with their dashes: `--tag` allows it with any value, `--option=s3.region` with that beginning.
    pub flags: BTreeSet<String>,
}

/// Something that runs programs and is not allowed. It names the thing and never its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Executable {
    /// A hook by its name.
    Hook(String),
    /// The command prefix, which begins with this word.
    CommandPrefix(String),
    /// An environment variable by its name.
    Env(String),
    /// A flag by its name.
    Flag(String),
    /// A URI that makes a tool run a program of the writer's choice.
    Uri,
}

impl fmt::Display for Executable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, name, key) = match self {
            Self::Hook(name) => ("hook", name, "allow_hooks"),
            Self::CommandPrefix(word) => {
                ("the command prefix that begins with", word, "allow_command_prefix")
            }
            Self::Env(name) => ("environment variable", name, "allow_env"),
            Self::Flag(name) => ("flag", name, "allow_flags"),
            Self::Uri => {
                return f
                    .write_str("a URI that names a program or its options; only the operator may set one");
            }
        };
        write!(
            f,
            "{what} {name:?}; the operator of that instance may allow it by name: sharing.{key} in opmesh.toml"
        )
    }
}

/// Flags that only say how much, how fast, how loud or with which label. They take their value after `=`.
const HARMLESS_FLAGS: [&str; 31] = [
    "--compression",
    "--exclude-caches",
    "--exclude-if-present",
    "--exclude-larger-than",
    "--force",
    "--group-by",
    "--host",
    "--ignore-ctime",
    "--ignore-inode",
    "--insecure-no-password",
    "--keep-tag",
    "--limit-download",
    "--limit-upload",
    "--max-repack-size",
    "--max-unused",
    "--no-extra-verify",
    "--no-scan",
    "--one-file-system",
    "--pack-size",
    "--quiet",
    "--read-concurrency",
    "--read-data-subset",
    "--repack-cacheable-only",
    "--retry-lock",
    "--skip-if-unchanged",
    "--stats",
    "--tag",
    "--verbose",
    "-q",
    "-v",
    "-x",
];

impl Allowed {
    /// The first thing in these settings that may not come from a peer; what is held already and stays needs no leave.
    pub(super) fn refuses_repo(&self, new: &RepoSettings, held: Option<&RepoSettings>) -> Option<Executable> {
        let hook = self.refuses_hooks(&new.hooks, held.map_or(&[], |held| &held.hooks));
        let prefix = || {
            let kept = held.is_some_and(|held| held.command_prefix == new.command_prefix);
            if kept { None } else { self.refuses_prefix(&new.command_prefix) }
        };
        let env = || self.refuses_env(&new.env, held.map_or(&[], |held| &held.env));
        let flags = || self.refuses_flags(&new.flags, held.map(|held| &held.flags));
        let uri = || {
            let kept = held.is_some_and(|held| held.uri == new.uri);
            let runs = new.uri.expose().is_none_or(runs_program);
            (!kept && runs).then_some(Executable::Uri)
        };
        hook.or_else(prefix).or_else(env).or_else(flags).or_else(uri)
    }

    /// The same of a plan.
    pub(super) fn refuses_plan(&self, new: &Plan, held: Option<&Plan>) -> Option<Executable> {
        let hook = self.refuses_hooks(&new.hooks, held.map_or(&[], |held| &held.hooks));
        hook.or_else(|| self.refuses_flags(&new.flags, held.map(|held| &held.flags)))
    }

    fn refuses_hooks(&self, new: &[Hook], held: &[Hook]) -> Option<Executable> {
        let bad = new.iter().find(|hook| !held.contains(hook) && !self.hooks.contains(&hook.name))?;
        Some(Executable::Hook(bad.name.clone()))
    }

    fn refuses_prefix(&self, prefix: &[String]) -> Option<Executable> {
        let first = prefix.first()?;
        let one_word_each = prefix.iter().all(|word| !word.contains(char::is_whitespace));
        let allowed = one_word_each && self.command_prefixes.contains(&prefix.join(" "));
        (!allowed).then(|| Executable::CommandPrefix(first.clone()))
    }

    fn refuses_env(&self, new: &[EnvVar], held: &[EnvVar]) -> Option<Executable> {
        let bad =
            new.iter().find(|variable| !held.contains(variable) && !self.env.contains(&variable.name))?;
        Some(Executable::Env(bad.name.clone()))
    }

    /// A list of flags is one thing: between others a flag may be another's value.
    fn refuses_flags(&self, new: &[String], held: Option<&Vec<String>>) -> Option<Executable> {
        if held.is_some_and(|held| held == new) {
            return None;
        }
        let bad = new.iter().find(|flag| !is_harmless(flag) && !self.names_flag(flag))?;
        Some(Executable::Flag(flag_name(bad).to_owned()))
    }

    fn names_flag(&self, flag: &str) -> bool {
        let mut ends = flag.match_indices('=').map(|(at, _)| at).chain([flag.len()]);
        flag.starts_with('-') && ends.any(|end| flag.get(..end).is_some_and(|name| self.flags.contains(name)))
    }
}

fn flag_name(flag: &str) -> &str {
    flag.split_once('=').map_or(flag, |(name, _)| name)
}

/// A listed flag whose value no shell and no splitter of arguments could take for more than a value.
fn is_harmless(flag: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "-_.,:/+%@=".contains(c);
    HARMLESS_FLAGS.contains(&flag_name(flag)) && flag.chars().all(plain)
}

/// Whether a tool that opens this URI runs a program, or takes an option, that the URI's writer chose: a host that
/// begins with a dash is an option to ssh, a connection string of rclone can name the ssh program, and a doubled colon
/// names a transport.
fn runs_program(uri: &str) -> bool {
    if uri.contains("@-") || uri.contains("::") {
        return true;
    }
    let (scheme, rest) = uri.split_once(':').unwrap_or(("", uri));
    let rest = rest.trim_start_matches('/');
    if rest.starts_with('-') {
        return true;
    }
    let plain = |c: char| c.is_alphanumeric() || "-_.+@".contains(c);
    scheme == "rclone" && !rest.split(':').next().is_some_and(|remote| remote.chars().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Retention;
    use crate::config::{Secret, Uri};

    fn settings() -> RepoSettings {
        RepoSettings {
            id: "r".into(),
            uri: Uri::new("/srv/r"),
            password: None,
            env: Vec::new(),
            flags: Vec::new(),
            command_prefix: Vec::new(),
            hooks: Vec::new(),
            schedule: String::new(),
            retention: Retention::default(),
            shared: false,
        }
    }

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_flag_is_refused_unless_it_is_harmless_or_named() {
        let allowed = Allowed { flags: names(&["--cacert", "--option=s3.region"]), ..Allowed::default() };
        let refused = |flag: &str| {
            let new = RepoSettings { flags: vec![flag.to_owned()], ..settings() };
            allowed.refuses_repo(&new, None)
        };
        for good in [
            "-v",
            "--tag=a,b",
            "--limit-upload=100",
            "--cacert=/etc/x y",
            "--option=s3.region=eu",
            "--cacert",
        ] {
            assert_eq!(refused(good), None, "{good}");
        }
        for (bad, name) in [
            ("--password-command=sh", "--password-command"),
            ("--password-command", "--password-command"),
            ("-osftp.command=sh", "-osftp.command"),
            ("-o", "-o"),
            ("--option=sftp.command=sh", "--option"),
            ("--option=s3.regional=sh", "--option"),
            ("--rsh=sh", "--rsh"),
            ("--tag=a --rsh=sh", "--tag"),
            ("--tag=$(sh)", "--tag"),
            ("--verbose\n--rsh", "--verbose\n--rsh"),
            ("sh", "sh"),
            ("s3.region", "s3.region"),
            ("--tags", "--tags"),
        ] {
            assert_eq!(refused(bad), Some(Executable::Flag(name.to_owned())), "{bad}");
        }
    }

    #[test]
    fn flags_that_the_operator_set_stay_only_as_a_whole() {
        let allowed = Allowed::default();
        let flags = |list: &[&str]| RepoSettings {
            flags: list.iter().map(ToString::to_string).collect(),
            ..settings()
        };
        let held = flags(&["--password-command", "pass show r"]);
        assert_eq!(allowed.refuses_repo(&held, Some(&held)), None);
        assert_eq!(allowed.refuses_repo(&flags(&[]), Some(&held)), None);
        assert!(allowed.refuses_repo(&flags(&["--password-command", "-v"]), Some(&held)).is_some());
        assert!(allowed.refuses_repo(&flags(&["pass show r"]), Some(&held)).is_some());
    }

    #[test]
    fn hooks_prefixes_and_environment_need_a_name_or_to_be_there_already() {
        let hook = |name: &str, command: &str| Hook {
            name: name.into(),
            condition: "error".into(),
            command: Secret::new(command),
        };
        let variable = |name: &str, value: &str| EnvVar { name: name.into(), value: Secret::new(value) };
        let allowed = Allowed {
            hooks: names(&["notify"]),
            command_prefixes: names(&["nice -n19"]),
            env: names(&["AWS_REGION"]),
            ..Allowed::default()
        };
        let held =
            RepoSettings { hooks: vec![hook("own", "a")], env: vec![variable("PATH", "/bin")], ..settings() };
        let refuses = |change: &dyn Fn(&mut RepoSettings)| {
            let mut new = held.clone();
            change(&mut new);
            allowed.refuses_repo(&new, Some(&held))
        };
        assert_eq!(refuses(&|new| new.hooks.push(hook("notify", "x"))), None);
        assert_eq!(refuses(&|new| new.hooks.clear()), None);
        assert_eq!(refuses(&|new| new.hooks.push(hook("new", "x"))), Some(Executable::Hook("new".into())));
        assert_eq!(refuses(&|new| new.hooks = vec![hook("own", "b")]), Some(Executable::Hook("own".into())));
        assert_eq!(refuses(&|new| new.env.push(variable("AWS_REGION", "x"))), None);
        assert_eq!(
            refuses(&|new| new.env = vec![variable("PATH", "/x")]),
            Some(Executable::Env("PATH".into()))
        );
        assert_eq!(
            refuses(&|new| new.env.push(variable("LD_PRELOAD", "x"))),
            Some(Executable::Env("LD_PRELOAD".into()))
        );
        assert_eq!(refuses(&|new| new.command_prefix = vec!["nice".into(), "-n19".into()]), None);
        let prefix = Some(Executable::CommandPrefix("nice".into()));
        assert_eq!(refuses(&|new| new.command_prefix = vec!["nice".into(), "sh".into()]), prefix);
        let prefix = Some(Executable::CommandPrefix("nice -n19".into()));
        assert_eq!(refuses(&|new| new.command_prefix = vec!["nice -n19".into()]), prefix);
    }

    #[test]
    fn a_uri_that_names_a_program_is_refused() {
        for uri in [
            "sftp:-oProxyCommand=sh:/x",
            "ssh://-oProxyCommand=sh/x",
            "sftp:u@-oProxyCommand=sh:/x",
            "ext::sh",
            "rclone::sftp,ssh=sh:x",
            "rclone:-x:y",
            "rclone:a,b=c:y",
        ] {
            assert!(runs_program(uri), "{uri}");
        }
        for uri in [
            "/srv/x",
            "sftp:u@h:/x",
            "ssh://u@h/x",
            "rest:https://u:p@h/",
            "s3:h/b",
            "rclone:name:x=y",
            "u@h:x",
            "rclone:my-remote:x",
        ] {
            assert!(!runs_program(uri), "{uri}");
        }
    }
}
