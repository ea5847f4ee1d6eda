//! What a command line says about itself: which tool, which step, and how it may be shown.

use std::ffi::OsString;
use std::path::Path;

use opmesh_core::model::Kind;

use super::redact;
use crate::record::head;

/// Bytes of one argument that are recorded.
const MAX_ARGUMENT_BYTES: usize = 4 * 1024;
/// Bytes of all arguments that are recorded.
const MAX_ARGV_BYTES: usize = 16 * 1024;

/// Backup tools whose output is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// restic.
    Restic,
    /// rustic, which speaks restic's format with small differences.
    Rustic,
    /// borg 1.x and 2.
    Borg,
    /// borgmatic, which prints borg's objects in an array.
    Borgmatic,
    /// kopia.
    Kopia,
    /// Any other command: exit code, duration and the end of its output.
    Other,
}

const NAMES: [(Tool, &str); 5] = [
    (Tool::Restic, "restic"),
    (Tool::Rustic, "rustic"),
    (Tool::Borg, "borg"),
    (Tool::Borgmatic, "borgmatic"),
    (Tool::Kopia, "kopia"),
];

/// Flags whose value is the next word and that may stand before the tool's command. Unknown ones are met by the rule
/// that a word behind a flag is the command only if it is a known one.
const FLAGS_WITH_VALUE: [&str; 12] = [
    "-r",
    "--repo",
    "-p",
    "--password-file",
    "-o",
    "--option",
    "-c",
    "--config",
    "--rsh",
    "--remote-path",
    "--lock-wait",
    "--config-file",
];

/// What a flag or a variable with a secret value has in its name.
const SECRET_WORDS: [&str; 4] = ["password", "passphrase", "secret", "token"];
/// How the name ends when the value only tells where the secret is.
const PLACE_WORDS: [&str; 4] = ["file", "command", "path", "fd"];

impl Tool {
    /// By the name of the program; unknown names are [`Tool::Other`].
    pub fn from_name(name: &str) -> Self {
        NAMES.iter().find(|(_, known)| *known == name).map_or(Self::Other, |(tool, _)| *tool)
    }

    /// The step that a command word of this tool stands for. `second` is the word behind it.
    fn kind(self, word: &str, second: &str) -> Option<Kind> {
        Some(match (self, word, second) {
            (Self::Restic | Self::Rustic, "backup", _)
            | (Self::Borg | Self::Borgmatic, "create", _)
            | (Self::Kopia, "snapshot" | "snap", "create") => Kind::Backup,
            (Self::Restic | Self::Rustic, "forget", _)
            | (Self::Borg | Self::Borgmatic, "delete", _)
            | (Self::Kopia, "snapshot" | "snap", "expire" | "delete") => Kind::Forget,
            (Self::Restic | Self::Rustic | Self::Borg | Self::Borgmatic, "prune", _)
            | (Self::Borg | Self::Borgmatic, "compact", _)
            | (Self::Kopia, "maintenance", "run") => Kind::Prune,
            (Self::Restic | Self::Rustic | Self::Borg | Self::Borgmatic, "check", _)
            | (Self::Kopia, "snapshot" | "snap", "verify") => Kind::Check,
            (Self::Restic | Self::Rustic | Self::Borgmatic | Self::Kopia, "restore", _)
            | (Self::Borg | Self::Borgmatic, "extract", _)
            | (Self::Kopia, "snapshot" | "snap", "restore") => Kind::Restore,
            (Self::Restic, "stats", _) | (Self::Rustic, "repoinfo", _) => Kind::Stats,
            _ => return None,
        })
    }
}

/// A command line, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// Which tool's output to expect.
    pub tool: Tool,
    /// The tool's name, or the command's base name.
    pub name: String,
    /// Which step it is.
    pub kind: Kind,
    /// The words without secrets, as they may be recorded.
    pub argv: Vec<String>,
}

impl CommandLine {
    /// Reads the words; `tool` and `kind` are what the user said and win over what the words say. The tool may stand
    /// behind a wrapper such as sudo or nice.
    pub fn new(argv: &[OsString], tool: Option<&str>, kind: Option<Kind>) -> Self {
        let words: Vec<String> = argv.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let found = words.iter().enumerate().position(|(at, word)| names_tool(at, word));
        let name = tool.or_else(|| {
            found.and_then(|at| words.get(at)).or_else(|| words.first()).map(|word| base_name(word))
        });
        let name = name.unwrap_or_default().to_owned();
        let tool = Tool::from_name(&name);
        let behind = words.get(found.map_or(1, |at| at + 1)..).unwrap_or_default();
        let kind = kind.unwrap_or_else(|| kind_of(tool, behind));
        Self { tool, name, kind, argv: shown(&words, tool) }
    }
}

/// A path behind the first word is more likely an argument, such as a folder named after the tool.
fn names_tool(at: usize, word: &str) -> bool {
    let program = at == 0 || !word.contains('/') || word.contains("bin/");
    program && Tool::from_name(base_name(word)) != Tool::Other
}

fn base_name(word: &str) -> &str {
    Path::new(word).file_name().and_then(|name| name.to_str()).unwrap_or(word)
}

fn kind_of(tool: Tool, words: &[String]) -> Kind {
    let mut behind_flag = false;
    let mut at = 0;
    while let Some(word) = words.get(at) {
        at += 1;
        if word.starts_with('-') {
            let takes_value = FLAGS_WITH_VALUE.contains(&word.as_str());
            at += usize::from(takes_value);
            behind_flag = !takes_value && !word.contains('=');
            continue;
        }
        let second = words.get(at..).unwrap_or_default().iter().find(|next| !next.starts_with('-'));
        match tool.kind(word, second.map_or("", String::as_str)) {
            Some(kind) => return kind,
            // Probably the value of a flag that is not listed above.
            None if behind_flag => behind_flag = false,
            None => return Kind::Command,
        }
    }
    // borgmatic without an action runs all of them.
    if tool == Tool::Borgmatic { Kind::Backup } else { Kind::Command }
}

fn shown(words: &[String], tool: Tool) -> Vec<String> {
    let mut argv = Vec::new();
    let mut room = MAX_ARGV_BYTES;
    let mut secret_follows = false;
    for (at, word) in words.iter().enumerate() {
        let shown = if secret_follows { redact::HIDDEN.to_owned() } else { without_secret(word) };
        secret_follows = (word.starts_with("--") && is_secret(word)) || (tool == Tool::Kopia && word == "-p");
        let shown = head(&shown, MAX_ARGUMENT_BYTES);
        let Some(left) = room.checked_sub(shown.len() + 1) else {
            argv.push(format!("… {} more", words.len() - at));
            break;
        };
        room = left;
        argv.push(shown.to_owned());
    }
    argv
}

fn without_secret(word: &str) -> String {
    match word.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}={}", redact::HIDDEN),
        _ => redact::urls(word),
    }
}

/// A flag or the name of a variable; anything with other characters is an argument.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && SECRET_WORDS.iter().any(|word| name.contains(word))
        && !PLACE_WORDS.iter().any(|word| name.ends_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> CommandLine {
        CommandLine::new(&text.split(' ').map(OsString::from).collect::<Vec<_>>(), None, None)
    }

    #[test]
    fn the_step_is_the_first_word_of_the_tool_that_is_no_flag() {
        for (text, tool, kind) in [
            ("restic backup /src", Tool::Restic, Kind::Backup),
            ("restic -r backup check", Tool::Restic, Kind::Check),
            ("restic --repo prune --json backup /src", Tool::Restic, Kind::Backup),
            ("/usr/bin/restic --repo=x -v forget --prune", Tool::Restic, Kind::Forget),
            ("restic --cache-dir /c --limit-upload 5 prune", Tool::Restic, Kind::Prune),
            ("restic snapshots", Tool::Restic, Kind::Command),
            ("restic snapshots check", Tool::Restic, Kind::Command),
            ("restic restore latest --target /x", Tool::Restic, Kind::Restore),
            ("restic stats", Tool::Restic, Kind::Stats),
            ("sudo -u backup restic backup /src", Tool::Restic, Kind::Backup),
            ("nice -n 19 borg --log-json create --json r::a /src", Tool::Borg, Kind::Backup),
            ("borg --lock-wait 5 compact r", Tool::Borg, Kind::Prune),
            ("borg extract r::a", Tool::Borg, Kind::Restore),
            ("borgmatic --verbosity 1 create", Tool::Borgmatic, Kind::Backup),
            ("borgmatic", Tool::Borgmatic, Kind::Backup),
            ("borgmatic -c prune check", Tool::Borgmatic, Kind::Check),
            ("kopia snapshot create /src", Tool::Kopia, Kind::Backup),
            ("kopia --config-file /c snapshot verify", Tool::Kopia, Kind::Check),
            ("kopia snapshot list", Tool::Kopia, Kind::Command),
            ("kopia maintenance run --full", Tool::Kopia, Kind::Prune),
            ("rustic -P main backup", Tool::Rustic, Kind::Backup),
            ("pg_dump backup", Tool::Other, Kind::Command),
            ("./nightly.sh /mnt/borg create", Tool::Other, Kind::Command),
            ("env A=b /usr/bin/borg create r::a", Tool::Borg, Kind::Backup),
        ] {
            let line = line(text);
            assert_eq!((line.tool, line.kind), (tool, kind), "{text}");
        }
    }

    #[test]
    fn what_the_user_says_wins_over_what_the_words_say() {
        let argv = [OsString::from("./nightly.sh"), OsString::from("x")];
        let line = CommandLine::new(&argv, Some("restic"), Some(Kind::Prune));
        assert_eq!((line.tool, line.name.as_str(), line.kind), (Tool::Restic, "restic", Kind::Prune));
        assert_eq!(CommandLine::new(&argv, None, None).name, "nightly.sh");
        assert_eq!(CommandLine::new(&[], None, None).kind, Kind::Command);
    }

    #[test]
    fn secrets_on_the_command_line_are_not_recorded() {
        let argv =
            line("kopia -p s1 --password s2 --password=s3 x https://u:s4@h/p --secret-access-key s5").argv;
        assert_eq!(argv.join(" ").matches("***").count(), 5);
        assert!(!argv.iter().any(|word| (1..=5).any(|n| word.contains(&format!("s{n}")))), "{argv:?}");
        let argv =
            line("env RESTIC_PASSWORD=s1 RESTIC_PASSWORD_FILE=/f restic backup --password-command=x").argv;
        assert_eq!(argv[1..3], ["RESTIC_PASSWORD=***", "RESTIC_PASSWORD_FILE=/f"]);
        assert_eq!(argv[5], "--password-command=x");
        assert_eq!(line("restic -p /etc/pw backup").argv, ["restic", "-p", "/etc/pw", "backup"]);
    }

    #[test]
    fn a_command_line_of_any_length_is_recorded_in_bounded_space() {
        let argv: Vec<OsString> = (0..50_000).map(|n| OsString::from(format!("/file/{n}"))).collect();
        let shown = CommandLine::new(&argv, None, None).argv;
        assert!(shown.iter().map(|word| word.len() + 1).sum::<usize>() <= MAX_ARGV_BYTES + 32);
        assert!(shown.last().unwrap().ends_with("more"));
        let long = [OsString::from("x".repeat(100_000))];
        assert_eq!(CommandLine::new(&long, None, None).argv[0].len(), MAX_ARGUMENT_BYTES);
    }
}
