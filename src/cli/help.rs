//! The first page of help: commands in groups, in the order in which a newcomer needs them.

use std::fmt::Write as _;

use clap::Command;

/// Every command of the first level, once.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Start here", &["demo", "init", "serve", "status", "doctor"]),
    ("Backups", &["run", "record", "ops", "hosts"]),
    ("Peers", &["pair", "peer", "config", "key", "admin", "audit"]),
    ("This instance", &["store"]),
    ("About", &["version", "completion", "help"]),
];

const EXAMPLES: &str = "\
Examples:
  opmesh demo                                    a hub and two hosts on this machine, to look at
  opmesh init && opmesh serve                    become an instance
  opmesh pair token                              on the hub: a token for one host
  opmesh pair join TOKEN --url https://hub:9850  on the host
  opmesh run --plan home --repo nas -- restic backup /home --json
  opmesh ops list --since 7d --status error,warning

Exit codes: 0 ok, 1 error, 2 usage, 3 done in part, 4 refused by the peer, 10 unreachable,
11 locked by another, 12 not the identity expected, 20 the check found something,
128+N by signal, 141 stdout closed.";

/// Replaces the one long list of commands by groups.
pub(super) fn grouped(command: Command) -> Command {
    let mut page = String::from("{about-with-newline}\n{usage-heading} {usage}\n");
    for (title, names) in GROUPS {
        // Writing to a string cannot fail.
        write!(page, "\n{title}:\n").unwrap_or_default();
        for name in names {
            let about = command.find_subcommand(name).and_then(Command::get_about).map(ToString::to_string);
            let about = about.unwrap_or_else(|| "Help for a command".to_owned());
            writeln!(page, "  {name:<12}{about}").unwrap_or_default();
        }
    }
    page.push_str("\nOptions for every command:\n{options}{after-help}");
    command.help_template(page).after_help(EXAMPLES)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_command_stands_in_one_group() {
        let listed: Vec<_> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let command = Cli::command();
        let known: BTreeSet<_> = command.get_subcommands().map(Command::get_name).chain(["help"]).collect();
        assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), known);
        assert_eq!(listed.len(), known.len());
    }

    #[test]
    fn every_command_has_help_and_the_ones_that_do_something_have_examples() {
        fn walk(command: &Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} has no help");
            if command.has_subcommands() {
                command.get_subcommands().for_each(|sub| walk(sub, &path));
            } else {
                assert!(command.get_after_help().is_some(), "{path} has no examples");
            }
            for argument in
                command.get_arguments().filter(|a| !["help", "version"].contains(&a.get_id().as_str()))
            {
                assert!(argument.get_help().is_some(), "{path}: {} has no help", argument.get_id());
            }
        }
        Cli::command().get_subcommands().for_each(|command| walk(command, "opmesh"));
    }
}
