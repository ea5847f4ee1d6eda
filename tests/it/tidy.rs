//! Holds the shape of the house: who may name whom, what stands in one place only, how long a file may grow.
//!
//! The sources are read as tokens, so that comments and strings name nothing. It does not resolve names: a path is
//! judged by how it is written, which is why modules name each other by `crate::` and never through a re-export.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The top-level modules of `opmesh`, each with the ones that it may name besides itself and `opmesh_core`.
/// `ARCHITECTURE.md` says what each is for.
const MODULES: [(&str, &str); 17] = [
    ("clock", ""),
    ("limits", ""),
    ("record", ""),
    ("config_doc", ""),
    ("wire", "config_doc"),
    ("places", ""),
    ("identity", "places"),
    ("pairing", "identity"),
    ("config", "limits places"),
    ("store", "clock config_doc"),
    ("transport", "clock identity limits store wire"),
    ("intake", "clock record store"),
    ("node", "clock limits places identity config store transport intake"),
    ("doctor", "places identity config store transport node"),
    ("admin", "clock record places identity pairing config store transport intake node doctor"),
    ("daemon", "clock limits places config transport intake node admin"),
    ("cli", "clock record places identity pairing config store transport intake node admin daemon doctor"),
];

/// Generated code and the only module that includes it.
const GENERATED: [(&str, &str); 4] = [
    ("opmesh.sync.v1", "wire"),
    ("opmesh.admin.v1", "admin"),
    ("opmesh.v1", "record"),
    ("opmesh.config.v1", "config_doc"),
];

/// The only file in which a session, a store and a stream meet: nobody else performs what a session wants.
const DRIVER: &str = "src/transport/driver.rs";

/// Who may wait for several things at once, and for which. Elsewhere a task has one input, and ends by
/// `CancellationToken::run_until_cancelled`.
const SELECTS: [(&str, &str); 5] = [
    (DRIVER, "a session's inputs: frames, store, time, the order to end"),
    ("src/daemon.rs", "two signals; a second one beside the drain"),
    ("src/node/hear.rs", "reports of sessions and changes of the own log"),
    ("src/node/network.rs", "changes of peers and the time to tidy up"),
    ("src/admin/server/operations.rs", "events for a watcher that may go away"),
];

/// Past this length a file holds a second idea.
const FILE_LINES: usize = 600;

/// What the pure package must not reach for, although `std` offers it.
const IMPURE: [&[&str]; 9] = [
    &["std", "::", "fs"],
    &["std", "::", "net"],
    &["std", "::", "env"],
    &["std", "::", "process"],
    &["std", "::", "thread"],
    &["tokio", "::"],
    &["SystemTime"],
    &["Instant"],
    &["getrandom"],
];

#[test]
fn modules_name_only_those_that_the_table_allows() {
    assert_tidy("src", forbidden_edges);
}

#[test]
fn every_module_stands_in_the_table() {
    assert_tidy("src", unknown_module);
}

#[test]
fn generated_types_are_included_in_one_module_each() {
    assert_tidy("src", misplaced_generated_code);
}

#[test]
fn only_the_driver_performs_what_a_session_wants() {
    assert_tidy("src", performed_effects);
}

#[test]
fn nobody_waits_for_several_things_without_a_reason() {
    assert_tidy("src", |file| {
        if SELECTS.iter().any(|(path, _)| *path == file.path) {
            return Vec::new();
        }
        found(file, &["select", "!"], "give the task one input, or a reason in SELECTS of tests/it/tidy.rs")
    });
}

#[test]
fn every_task_has_an_owner() {
    assert_tidy("src", |file| {
        found(file, &["tokio", "::", "spawn", "("], "a task needs an owner: use a JoinSet or a TaskTracker")
    });
}

#[test]
fn the_pure_package_reaches_for_nothing_outside() {
    assert_tidy("core/src", impurities);
}

#[test]
fn every_file_opens_with_what_it_is() {
    for root in ["src", "core/src", "tests", "benches"] {
        assert_tidy(root, undocumented);
    }
}

#[test]
fn no_file_is_longer_than_one_idea() {
    for root in ["src", "core/src", "tests", "benches"] {
        assert_tidy(root, overlong);
    }
}

#[test]
fn a_forbidden_edge_is_found_however_it_is_written() {
    let allowed = [
        "use crate::wire::Frame;",
        "//! crate::cli is named in a comment",
        "const HINT: &str = \"crate::cli\";",
        "use super::driver;",
        "fn f<'a>(x: &'a str) -> char { 'c' }",
    ];
    for text in allowed {
        assert_eq!(forbidden_edges(&file("src/transport/server.rs", text)), Vec::<String>::new(), "{text}");
    }
    let forbidden = [
        "use crate::cli;",
        "use crate::{wire::Frame, cli::Command};",
        "use crate::{store::{self, Store}, node::Node};",
        "fn f() { crate::admin::serve() }",
        "pub(in crate::node) fn f() {}",
        "use super::super::cli;",
        "const S: &str = r#\"a \" b\"#; use crate::cli;",
    ];
    for text in forbidden {
        let faults = forbidden_edges(&file("src/transport/server.rs", text));
        assert_eq!(faults.len(), 1, "{text}: {faults:?}");
        assert!(faults[0].starts_with("src/transport/server.rs:1: transport may not name "), "{faults:?}");
    }
    assert_eq!(forbidden_edges(&file("src/store/mod.rs", "use super::node;")).len(), 1);
    assert_eq!(forbidden_edges(&file("src/store.rs", "use super::node;")).len(), 1);
}

#[test]
fn the_other_rules_find_what_they_forbid() {
    assert_eq!(unknown_module(&file("src/utils.rs", "//! u")).len(), 1);
    let sync = "mod pb { tonic::include_proto!(\"opmesh.sync.v1\"); }";
    assert_eq!(misplaced_generated_code(&file("src/wire/mod.rs", sync)), Vec::<String>::new());
    assert_eq!(misplaced_generated_code(&file("src/node.rs", sync)).len(), 1);
    let effects = "use opmesh_core::session::{Input, Output};";
    assert_eq!(performed_effects(&file(DRIVER, effects)), Vec::<String>::new());
    assert_eq!(performed_effects(&file("src/transport/server.rs", effects)).len(), 1);
    assert_eq!(impurities(&file("core/src/x.rs", "use std::fs::File;")).len(), 1);
    assert_eq!(impurities(&file("core/src/x.rs", "use std::{fmt, net};")).len(), 1);
    assert_eq!(impurities(&file("core/src/x.rs", "// std::fs\nuse std::fmt;")), Vec::<String>::new());
    assert_eq!(undocumented(&file("src/x.rs", "use std::fmt;\n//! late")).len(), 1);
    assert_eq!(overlong(&file("src/x.rs", &"\n".repeat(FILE_LINES + 1))).len(), 1);
    assert_eq!(overlong(&file("src/x.rs", &"\n".repeat(FILE_LINES))), Vec::<String>::new());
}

/// A source file of the repository.
struct SourceFile {
    /// From the repository's root, with slashes.
    path: String,
    text: String,
    tokens: Vec<Token>,
}

#[derive(Debug, PartialEq, Eq)]
struct Token {
    line: usize,
    /// An identifier, `::`, a single other character, or a string literal with its quotes.
    text: String,
}

impl SourceFile {
    /// The top-level module that the file belongs to; none for `lib.rs` and `main.rs`.
    fn module(&self) -> Option<&str> {
        let inner = self.path.strip_prefix("src/")?;
        let name = inner.split('/').next()?;
        Some(name.strip_suffix(".rs").unwrap_or(name)).filter(|name| !matches!(*name, "lib" | "main"))
    }

    /// How many `super`s lead from the file's own module to the crate's root.
    fn depth(&self) -> usize {
        self.path.trim_start_matches("src/").trim_end_matches("/mod.rs").split('/').count()
    }

    fn fault(&self, line: usize, text: &str) -> String {
        format!("{}:{line}: {text}", self.path)
    }
}

fn file(path: &str, text: &str) -> SourceFile {
    SourceFile { path: path.to_owned(), text: text.to_owned(), tokens: tokens(text) }
}

/// Runs one rule over every source below a folder and shows all that it found.
fn assert_tidy(folder: &str, rule: impl Fn(&SourceFile) -> Vec<String>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join(folder)];
    let mut faults = Vec::new();
    while let Some(folder) = folders.pop().filter(|folder| folder.is_dir()) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().expect("sources have UTF-8 names");
                faults.extend(rule(&file(name, &fs::read_to_string(&path).unwrap())));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn forbidden_edges(file: &SourceFile) -> Vec<String> {
    let Some(from) = file.module() else { return Vec::new() };
    let allowed = MODULES.iter().find(|(name, _)| *name == from).map_or("", |(_, may)| may);
    named_modules(file)
        .into_iter()
        .filter(|(_, to)| to != from && !allowed.split(' ').any(|may| may == to))
        .map(|(line, to)| {
            file.fault(line, &format!("{from} may not name {to}; see MODULES in tests/it/tidy.rs"))
        })
        .collect()
}

/// The top-level modules that a file's paths begin with: `crate::x`, `crate::{x, y::z}`, `super::…::x`.
fn named_modules(file: &SourceFile) -> BTreeSet<(usize, String)> {
    let mut named = BTreeSet::new();
    for at in 0..file.tokens.len() {
        if let Some(first) = after_root(file, at) {
            let heads = heads(&file.tokens[first..]);
            named.extend(heads.into_iter().map(|token| (token.line, token.text.clone())));
        }
    }
    named.retain(|(_, name)| MODULES.iter().any(|(module, _)| module == name));
    named
}

/// The token after `crate::`, or after as many `super::` as lead to the root.
fn after_root(file: &SourceFile, at: usize) -> Option<usize> {
    let word = |n: usize| file.tokens.get(n).map(|token| token.text.as_str());
    if at > 0 && word(at - 1) == Some("::") {
        return None;
    }
    let mut end = at;
    while word(end) == Some("super") && word(end + 1) == Some("::") {
        end += 2;
    }
    if end == at + 2 * file.depth() {
        return Some(end);
    }
    (word(at) == Some("crate") && word(at + 1) == Some("::")).then_some(at + 2)
}

/// The first word of a path, or of every path of a braced group.
fn heads(tokens: &[Token]) -> Vec<&Token> {
    if tokens.first().is_none_or(|token| token.text != "{") {
        return tokens.first().into_iter().collect();
    }
    let mut heads = Vec::new();
    let mut depth = 0;
    for pair in tokens.windows(2) {
        match pair[0].text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && matches!(pair[0].text.as_str(), "{" | ",") {
            heads.push(&pair[1]);
        }
    }
    heads
}

fn unknown_module(file: &SourceFile) -> Vec<String> {
    let known = |module: &str| MODULES.iter().any(|(name, _)| *name == module);
    match file.module() {
        Some(module) if !known(module) => {
            vec![file.fault(1, &format!("{module} is not in MODULES of tests/it/tidy.rs"))]
        }
        _ => Vec::new(),
    }
}

fn misplaced_generated_code(file: &SourceFile) -> Vec<String> {
    let mut faults = Vec::new();
    for token in &file.tokens {
        let package = token.text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let home = GENERATED.iter().find(|(name, _)| Some(*name) == package);
        if let Some((package, home)) = home.filter(|(_, home)| file.module() != Some(*home)) {
            faults.push(file.fault(token.line, &format!("the types of {package} stay in {home}")));
        }
    }
    faults
}

fn performed_effects(file: &SourceFile) -> Vec<String> {
    let path = ["opmesh_core", "::", "session", "::"];
    let mut faults = Vec::new();
    for (at, window) in file.tokens.windows(path.len()).enumerate() {
        let names_session = window.iter().zip(path).all(|(token, word)| token.text == word);
        let after = file.tokens.get(at + path.len()..).unwrap_or_default();
        if names_session && file.path != DRIVER && heads(after).iter().any(|head| head.text == "Output") {
            faults.push(file.fault(window[0].line, "only the driver performs what a session wants"));
        }
    }
    faults
}

fn impurities(file: &SourceFile) -> Vec<String> {
    let mut faults: Vec<_> = IMPURE
        .iter()
        .flat_map(|words| found(file, words, &format!("core may not reach for {}", words.concat())))
        .collect();
    for (at, token) in file.tokens.iter().enumerate().filter(|(_, token)| token.text == "std") {
        let grouped = heads(file.tokens.get(at + 2..).unwrap_or_default())
            .into_iter()
            .skip_while(|head| file.tokens.get(at + 2).is_some_and(|first| first == *head));
        for head in grouped {
            if IMPURE.iter().any(|words| words.first() == Some(&"std") && words.last() == Some(&&*head.text))
            {
                faults.push(file.fault(token.line, &format!("core may not reach for std::{}", head.text)));
            }
        }
    }
    faults
}

fn undocumented(file: &SourceFile) -> Vec<String> {
    if file.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![file.fault(1, "the first line is a module doc that says what the file is")]
}

fn overlong(file: &SourceFile) -> Vec<String> {
    let lines = file.text.lines().count();
    if lines <= FILE_LINES {
        return Vec::new();
    }
    vec![file.fault(lines, &format!("longer than {FILE_LINES} lines: look for the second idea in it"))]
}

/// Where these tokens follow each other.
fn found(file: &SourceFile, words: &[&str], fault: &str) -> Vec<String> {
    file.tokens
        .windows(words.len())
        .filter(|window| window.iter().zip(words).all(|(token, word)| token.text == *word))
        .map(|window| file.fault(window[0].line, fault))
        .collect()
}

/// Rust's text as words and signs; comments, characters and lifetimes are left out.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let length = token_length(rest, first);
        let (token, after) = rest.split_at(length);
        let comment = token.starts_with("//") || token.starts_with("/*");
        if !(comment || first.is_whitespace() || first == '\'') {
            tokens.push(Token { line, text: token.to_owned() });
        }
        line += token.matches('\n').count();
        rest = after;
    }
    tokens
}

fn token_length(rest: &str, first: char) -> usize {
    let until =
        |end: &str, from: usize| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    let word = |c: char| c.is_alphanumeric() || c == '_';
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return until("*/", 2);
    }
    if rest.starts_with("::") {
        return 2;
    }
    if let Some(hashes) = raw_string_hashes(rest) {
        return until(&format!("\"{}", "#".repeat(hashes)), rest.find('"').unwrap_or(0) + 1);
    }
    match first {
        '"' => quoted_length(rest, '"'),
        '\'' if rest[1..].starts_with('\\') || rest[1..].chars().nth(1) == Some('\'') => {
            quoted_length(rest, '\'')
        }
        '\'' => 1 + rest[1..].find(|c| !word(c)).unwrap_or(rest.len() - 1),
        _ if word(first) => rest.find(|c| !word(c)).unwrap_or(rest.len()),
        _ => first.len_utf8(),
    }
}

/// How many `#` open a raw string here.
fn raw_string_hashes(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

fn quoted_length(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}
