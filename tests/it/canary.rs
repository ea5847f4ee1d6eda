//! Secrets that a test plants, and the search for them: in every file that an instance keeps, in every line that it
//! logs and in every answer that it gives, as they are, in hex and in base64.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tonic::Code;

use crate::admin_doors::{call_with, connect_from};
use crate::fleet::{Instance, create, until, until_equal};

/// One secret, and where it belongs.
pub(crate) struct Canary {
    name: &'static str,
    forms: Vec<Vec<u8>>,
    /// Ends of paths that hold it.
    home: &'static [&'static str],
    /// Ends of paths that may hold it for a while.
    passing: &'static [&'static str],
}

impl Canary {
    pub(crate) fn new(name: &'static str, secret: &[u8], home: &'static [&'static str]) -> Self {
        assert!(secret.len() >= 12, "{name} is too short to be looked for");
        let hex = secret.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        });
        let mut forms = vec![secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
        for alignment in 0..3 {
            let shifted = [&[0; 2][..alignment.min(2)], secret].concat();
            // Only the characters that the secret alone decides.
            let (from, to) = ((8 * alignment).div_ceil(6), 8 * shifted.len() / 6);
            for text in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
                forms.push(text.into_bytes()[from..to].to_vec());
            }
        }
        Self { name, forms, home, passing: &[] }
    }

    /// It may also be found here, for a reason that the test gives.
    fn passing(self, passing: &'static [&'static str]) -> Self {
        Self { passing, ..self }
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        self.forms.iter().any(|form| bytes.windows(form.len()).any(|window| window == form))
    }

    fn belongs(&self, path: &Path) -> bool {
        self.home.iter().chain(self.passing).any(|end| path.ends_with(end))
    }
}

/// Every place below `folder` where a canary lies and does not belong. Each home must hold its canary: a search that
/// finds nothing there would find nothing anywhere.
pub(crate) fn stray(canaries: &[Canary], folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut at_home: Vec<&str> = Vec::new();
    for path in files(folder) {
        let bytes = std::fs::read(&path).unwrap_or_default();
        for canary in canaries.iter().filter(|canary| canary.is_in(&bytes)) {
            if canary.belongs(&path) {
                at_home.push(canary.name);
            } else {
                found.push(format!("{} in {}", canary.name, path.display()));
            }
        }
    }
    for canary in canaries.iter().filter(|canary| !canary.home.is_empty()) {
        assert!(at_home.contains(&canary.name), "{} is not even where it belongs", canary.name);
    }
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

#[test]
fn a_canary_is_found_in_every_form_and_in_the_middle_of_others() {
    let secret = b"a secret of some length";
    let canary = Canary::new("test", secret, &[]);
    for before in 0..4 {
        let text = [&b"xyzw"[..before], secret, b"rest"].concat();
        for bytes in [
            text.clone(),
            STANDARD_NO_PAD.encode(&text).into_bytes(),
            URL_SAFE_NO_PAD.encode(&text).into_bytes(),
            text.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}")).into_bytes(),
        ] {
            assert!(canary.is_in(&bytes), "{before}");
        }
    }
    assert!(!canary.is_in(b"a secret of other length"));
}

/// An instance, and all that its commands have said.
struct Witness {
    instance: Instance,
    heard: PathBuf,
}

impl Witness {
    fn new(name: &str, config: &str) -> Self {
        let mut instance = Instance::new(name);
        // Libraries, too: they hold what passes through them.
        instance.log_filter = Some("trace");
        std::fs::write(instance.dir.join("opmesh.toml"), config).unwrap();
        let heard = instance.dir.with_extension("heard");
        Self { instance, heard }
    }

    /// Runs a command at trace level; keeps what it says, and its standard output unless that is the secret itself.
    fn say(&self, words: &[&str], stdin: &str, secret: Answer) -> String {
        let mut child = self
            .instance
            .command(&[&["-vv"], words].concat())
            .env("RESTIC_PASSWORD", PASSWORD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap_or_default();
        let output = child.wait_with_output().unwrap();
        let mut heard = std::fs::File::options().create(true).append(true).open(&self.heard).unwrap();
        // What a backup tool prints passes byte for byte; the rest is ours.
        let ours = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&tool_says(), "");
        writeln!(heard, "{} {}: {}", words[0], output.status, ours(&output.stderr)).unwrap();
        if secret == Answer::Public {
            writeln!(heard, "{}", ours(&output.stdout)).unwrap();
        }
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn hear(&self, words: &[&str]) -> String {
        self.say(words, "", Answer::Public)
    }

    fn seed(&self) -> Vec<u8> {
        let pem = std::fs::read_to_string(self.instance.dir.join("identity.key")).unwrap();
        let body: String = pem.lines().filter(|line| !line.starts_with("--")).collect();
        let der = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
        // PKCS #8 with an inner octet string: the seed follows its tag and length.
        let at = der.windows(2).position(|window| window == [4, 32]).unwrap();
        der[at + 2..at + 34].to_vec()
    }
}

/// Whether an answer is a secret that its caller asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Public,
    Secret,
}

const PASSWORD: &str = "canary-of-the-repository-password";
const IN_URL: &str = "canary-in-the-address";
const IN_INPUT: &str = "canary-in-a-line-of-input";
const IN_KEY_FILE: &str = "canary-in-a-file-that-is-no-key";

const TRACE: &str = "[log]\nlevel = \"trace\"\n";

fn seed_of(token: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(token.split('.').nth(3).unwrap()).unwrap()
}

/// Refused, mistyped and misplaced: errors are where secrets slip out.
fn provoke(hub: &Witness, host: &Witness, url: &str, spent: &str) {
    let cut = &spent[..spent.len() - 20];
    for token in [spent, cut, &spent.replace("opmesh1", "opmesh2"), &spent.replace('.', "_")] {
        host.say(&["pair", "join", "-", "--url", url, "--timeout", "5s"], token, Answer::Public);
    }
    let with_user = format!("https://user:{IN_URL}@127.0.0.1:1");
    host.say(&["pair", "join", "-", "--url", &with_user], spent, Answer::Public);
    host.hear(&["peer", "set", "hub", "--url", &with_user]);
    let line = format!(
        r#"{{"create":{{"kind":"backup","status":"success","repo_id":"r","plan_id":"p","password":"{IN_INPUT}"}}}}"#
    );
    host.say(&["ops", "apply", "-"], &line, Answer::Public);
    host.say(&["--json", "ops", "apply", "-"], &line.replace("password", "snapshot"), Answer::Public);
    host.say(&["ops", "apply", "-"], &format!("{{\"create\": {IN_INPUT}"), Answer::Public);
    let no_key = hub.instance.dir.with_extension("nokey");
    std::fs::write(
        &no_key,
        format!("-----BEGIN PRIVATE KEY-----\n{IN_KEY_FILE}\n-----END PRIVATE KEY-----\n"),
    )
    .unwrap();
    let elsewhere = host.instance.dir.with_extension("other");
    let (no_key, elsewhere) = (no_key.display().to_string(), elsewhere.display().to_string());
    host.hear(&["--data-dir", &elsewhere, "init", "--import-key", &no_key]);
}

fn repo() -> String {
    format!("rest:https://user:{IN_URL}@backup.example/repo")
}

/// The line of a tool that prints its repository.
fn tool_says() -> String {
    format!("opening {}", repo())
}

/// What backups say and are told.
fn back_up(host: &Witness) {
    let (repo, says) = (repo(), tool_says());
    let script = format!("echo {says}; echo {says} >&2; test -n \"$RESTIC_PASSWORD\"; exit 3");
    host.hear(&["run", "--plan", "p", "--repo", "r", "--", "sh", "-c", &script]);
    host.hear(&["run", "--plan", "p", "--repo", "r", "--tool", "restic", "--", "false", "-r", &repo]);
    let record = ["record", "--tool", "restic", "--plan", "p", "--repo", "r", "--exit-code", "1"];
    host.say(&record, &format!("Fatal: unable to open {repo}: no"), Answer::Public);
    for words in [&["ops", "list"][..], &["--json", "ops", "list"], &["status"], &["--json", "peer", "list"]]
    {
        host.hear(words);
    }
}

async fn over_tcp(hub: &Witness, ready: &serde_json::Value, token: &str) {
    let address = ready["admin_listen"].as_str().unwrap().parse().unwrap();
    let pem = hub.hear(&["key", "certificate"]);
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let channel = connect_from([127, 0, 0, 1], address, &certificate, "opmesh").await.unwrap();
    let call =
        async |path: &str, token: &str| call_with(&channel, path, Some(&format!("Bearer {token}"))).await;
    assert_ne!(call("/opmesh.admin.v1.Admin/Status", token).await, Code::Unauthenticated);
    assert_eq!(call("/opmesh.admin.v1.Admin/BlockPeer", token).await, Code::PermissionDenied);
    let wrong = format!("{token}x");
    assert_eq!(call("/opmesh.admin.v1.Admin/Status", &wrong).await, Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_nowhere_but_where_they_belong_whatever_goes_wrong_at_trace_level() {
    let listening = format!("{TRACE}[admin]\nlisten = \"127.0.0.1:0\"\n");
    let mut hub = Witness::new("hub", &listening);
    let mut host = Witness::new("web", TRACE);
    let ready = hub.instance.serve("127.0.0.1:0");
    let url = format!("https://{}", ready["listen"][0]["address"].as_str().unwrap());
    host.instance.serve("none");

    let admin = hub.say(&["admin", "token", "create", "--role", "read"], "", Answer::Secret);
    over_tcp(&hub, &ready, &admin).await;
    let token = || hub.say(&["pair", "token", "--ttl", "1h"], "", Answer::Secret);
    let (used, waiting, unused) = (token(), token(), token());
    host.say(&["pair", "join", "-", "--url", &url], &used, Answer::Public);
    host.instance.apply(&create("r", "p", "before"));
    until_equal(&hub.instance, &host.instance);
    provoke(&hub, &host, &url, &used);
    back_up(&host);
    // A hub that is not there: the entry waits with its seed, which is the one place where a token's secret is kept.
    let mut elsewhere = Witness::new("later", TRACE);
    elsewhere.instance.serve("none");
    let nobody = ["pair", "join", "-", "--url", "https://127.0.0.1:1", "--no-wait"];
    elsewhere.say(&nobody, &waiting, Answer::Public);
    until("the entry was dialled", || elsewhere.instance.log().contains("no session came about"));
    for words in
        [&["audit"][..], &["--json", "audit"], &["pair", "tokens"], &["admin", "tokens"], &["doctor"]]
    {
        hub.hear(words);
    }

    let canaries = [
        Canary::new("the hub's identity", &hub.seed(), &["hub/identity.key"]),
        Canary::new("the host's identity", &host.seed(), &["web/identity.key"]),
        // The host's entry had it while it waited; what SQLite's log still has of that is gone after a clean end.
        Canary::new("a used token", &seed_of(&used), &[]).passing(&["running/web/opmesh.db-wal"]),
        Canary::new("an unused token", &seed_of(&unused), &[]),
        Canary::new("a token that waits", &seed_of(&waiting), &["later/opmesh.db", "later/opmesh.db-wal"]),
        Canary::new("an admin token", admin.trim_start_matches("opmesh_admin_").as_bytes(), &[]),
        Canary::new("a repository's password", PASSWORD.as_bytes(), &[]),
        Canary::new("a password in a URL", IN_URL.as_bytes(), &[]),
        Canary::new("input", IN_INPUT.as_bytes(), &[]),
        Canary::new("a file that is no key", IN_KEY_FILE.as_bytes(), &["hub.nokey"]),
    ];
    let folders = [&hub, &host, &elsewhere].map(|witness| witness.instance.dir.parent().unwrap().to_owned());
    let gathered = tempfile::tempdir().unwrap();
    // While they run, and after a clean end, when nothing lies in a log of SQLite any more.
    for moment in ["running", "stopped"] {
        if moment == "stopped" {
            for witness in [&mut hub, &mut host, &mut elsewhere] {
                assert_eq!(witness.instance.stop("TERM"), Some(0));
            }
        }
        for folder in &folders {
            copy(folder, &gathered.path().join(folder.file_name().unwrap()).join(moment));
        }
        let found = stray(&canaries, gathered.path());
        assert!(found.is_empty(), "{moment}: {found:#?}");
    }
    assert!(hub.instance.log().contains("TRACE"), "the log was not that talkative: {}", hub.instance.log());
}

fn copy(from: &Path, to: &Path) {
    for path in files(from) {
        let to = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        // Sockets have no bytes.
        std::fs::copy(&path, to).unwrap_or_default();
    }
}
