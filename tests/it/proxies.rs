//! Real nginx, Caddy and haproxy in front of a sealed listener, with the configuration that the manual prints.
//!
//! Only addresses, certificates and the limit under test differ from the page; each proxy is a child process with
//! files of its own. `scripts/test` installs the three.

use std::io::{Read, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tempfile::TempDir;

use crate::fleet::{Instance, create, held_rows, own_rows, until, until_equal};

const PAGE: &str = include_str!("../../docs/operations.md");
/// What the page writes where each installation has something else.
const PAGE_HUB: &str = "127.0.0.1:9850";
const PAGE_CERTIFICATE: &str = "/etc/ssl/hub.example.pem";
const PAGE_KEY: &str = "/etc/ssl/hub.example.key";
const PAGE_BOTH: &str = "/etc/ssl/hub.example.both.pem";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Nginx,
    Caddy,
    Haproxy,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Caddy => "caddy",
            Self::Haproxy => "haproxy",
        }
    }

    /// The first block of the page that is marked as this program's.
    fn block(self) -> String {
        let opening = format!("\n```{}\n", self.name());
        let (_, rest) = PAGE.split_once(&opening).expect("the page has a block for each proxy");
        let (block, _) = rest.split_once("\n```\n").unwrap();
        format!("{block}\n")
    }

    /// The block with this test's addresses in it, and what a whole file needs around it.
    fn file(self, block: &str, port: u16, folder: &Path) -> String {
        let folder = folder.display();
        let block = block
            .replace(PAGE_CERTIFICATE, &format!("{folder}/certificate.pem"))
            .replace(PAGE_KEY, &format!("{folder}/key.pem"))
            .replace(PAGE_BOTH, &format!("{folder}/both.pem"));
        match self {
            Self::Nginx => {
                let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .map(|name| format!("{name}_temp_path {folder}/{name};\n"))
                    .concat();
                let block = replaced(&block, "listen 443", &format!("listen 127.0.0.1:{port}"));
                format!(
                    "daemon off; master_process off; pid {folder}/pid; error_log stderr warn; events {{}}\n\
                     http {{ access_log off;\n{paths}{block} }}\n"
                )
            }
            Self::Caddy => replaced(&block, "hub.example {", &format!("https://localhost:{port} {{")),
            Self::Haproxy => replaced(&block, "bind :443", &format!("bind 127.0.0.1:{port}")),
        }
    }

    fn command(self, file: &Path) -> Command {
        let mut command = Command::new(self.name());
        match self {
            Self::Nginx => command.args(["-e", "stderr", "-c"]).arg(file),
            Self::Caddy => command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file),
            Self::Haproxy => command.args(["-db", "-f"]).arg(file),
        };
        let folder = file.parent().unwrap();
        command.current_dir(folder).env("HOME", folder).env_remove("XDG_DATA_HOME");
        command.env_remove("XDG_CONFIG_HOME");
        command
    }
}

/// As `str::replace`, where nothing to replace means that page and test have drifted apart.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in\n{text}");
    text.replace(from, to)
}

/// A running proxy; ended when dropped.
struct Proxy {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Proxy {
    /// Runs the page's configuration in front of the listener at this address.
    fn page(program: Program, hub: &str) -> Self {
        Self::start(program, hub, |block| block)
    }

    /// Runs the page's configuration after `change`.
    fn start(program: Program, hub: &str, change: impl Fn(String) -> String) -> Self {
        let folder = tempfile::Builder::new().prefix("omproxy").tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = pem("CERTIFICATE", made.cert.der());
        let key = pem("PRIVATE KEY", made.signing_key.serialized_der());
        for (name, text) in [
            ("certificate.pem", &certificate),
            ("key.pem", &key),
            ("both.pem", &format!("{certificate}{key}")),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let block = change(replaced(&program.block(), PAGE_HUB, hub));
        // A proxy cannot say which port the system gave it: one that was free a moment ago is tried until it starts.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let file = folder.path().join("configuration");
            std::fs::write(&file, program.file(&block, port, folder.path())).unwrap();
            let log = std::fs::File::create(folder.path().join("log")).unwrap();
            let mut child = program
                .command(&file)
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap_or_else(|error| {
                    panic!("{}: {error}: scripts/need nginx caddy haproxy", program.name())
                });
            let mut ended = false;
            until("the proxy listens", || {
                ended = child.try_wait().unwrap().is_some();
                ended || TcpStream::connect(("127.0.0.1", port)).is_ok()
            });
            if !ended {
                return Self { child, port, folder };
            }
        }
        panic!("{} does not start: {}", program.name(), log(folder.path()));
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    fn log(&self) -> String {
        log(self.folder.path())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn pem(what: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", lines.join("\n"))
}

fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap_or_default()
}

/// A hub with a sealed listener; where it listens.
fn sealed_hub(name: &str) -> (Instance, String) {
    let mut hub = Instance::new(name);
    let ready = hub.serve("sealed://127.0.0.1:0");
    assert_eq!(ready["listen"][0]["channel"], "sealed");
    let address = ready["listen"][0]["address"].as_str().unwrap().to_owned();
    (hub, address)
}

fn host(name: &str) -> Instance {
    let mut host = Instance::new(name);
    host.serve("none");
    host
}

fn join(host: &Instance, hub: &Instance, url: &str, channel: &[&str]) -> std::process::Output {
    let token = hub.ok(&["pair", "token"]);
    let mut arguments = vec!["pair", "join", token.trim(), "--url", url];
    arguments.extend_from_slice(channel);
    host.run(&arguments)
}

fn must_join(host: &Instance, hub: &Instance, url: &str, proxy: &Proxy) {
    let joined = join(host, hub, url, &["--channel", "sealed"]);
    let said = String::from_utf8_lossy(&joined.stderr);
    assert!(joined.status.success(), "{said}\n{}\n{}", proxy.log(), hub.log());
}

fn hosts_federate_through(proxy: &Proxy, hub: &Instance, url: &str) {
    let hosts = ["web", "mail", "files"].map(host);
    for host in &hosts {
        host.apply(&create("r", "p", "before it was paired"));
        must_join(host, hub, url, proxy);
    }
    for host in &hosts {
        until_equal(hub, host);
        host.apply(&(0..300).map(|n| create("r", "p", &format!("run {n}"))).collect::<String>());
    }
    for host in &hosts {
        until_equal(hub, host);
        assert_eq!(own_rows(host), held_rows(hub, host));
    }
    assert_eq!(hub.code(&["hosts", "verify", "--all"]), 0);
    let peer = hosts[0].json(&["peer", "show", "hub"]);
    assert_eq!(peer["channel"], "sealed");
}

#[test]
fn operations_reach_a_sealed_listener_through_nginx() {
    let (hub, address) = sealed_hub("hub");
    let proxy = Proxy::page(Program::Nginx, &address);
    hosts_federate_through(&proxy, &hub, &proxy.url());
}

#[test]
fn operations_reach_a_sealed_listener_through_caddy() {
    let (hub, address) = sealed_hub("hub");
    let proxy = Proxy::page(Program::Caddy, &address);
    hosts_federate_through(&proxy, &hub, &proxy.url());
}

#[test]
fn operations_reach_a_sealed_listener_through_haproxy() {
    let (hub, address) = sealed_hub("hub");
    let proxy = Proxy::page(Program::Haproxy, &address);
    hosts_federate_through(&proxy, &hub, &proxy.url());
}

#[test]
fn operations_reach_a_sealed_listener_through_a_proxy_without_tls() {
    let (hub, address) = sealed_hub("hub");
    let proxy = Proxy::start(Program::Nginx, &address, |block| {
        let lines: Vec<_> = block.lines().filter(|line| !line.trim_start().starts_with("ssl_")).collect();
        replaced(&lines.join("\n"), "443 ssl http2", "443 http2")
    });
    hosts_federate_through(&proxy, &hub, &proxy.url().replace("https", "http"));
}

#[test]
fn a_proxy_that_ends_tls_in_front_of_a_tls_listener_is_named_with_the_way_out() {
    let mut hub = Instance::new("hub");
    let url = hub.serve_hub("127.0.0.1:0");
    for program in [Program::Nginx, Program::Caddy, Program::Haproxy] {
        let proxy = Proxy::page(program, url.trim_start_matches("https://"));
        let host = host("web");
        let joined = join(&host, &hub, &proxy.url(), &["--timeout", "2s"]);
        assert_eq!(joined.status.code(), Some(10));
        let said = String::from_utf8_lossy(&joined.stderr).into_owned();
        let why = host.peer("known_host")["reason"].as_str().unwrap().to_owned();
        for text in [said, why] {
            assert!(text.contains("without the certificate of an opmesh hub"), "{program:?}: {text}");
            assert!(text.contains("--channel sealed"), "{program:?}: {text}");
        }
    }
}

/// A hop in front of a proxy that counts what the host sends, once and again.
struct Meter {
    port: u16,
    bytes: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
}

impl Meter {
    fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let meter = Self {
            port: listener.local_addr().unwrap().port(),
            bytes: Arc::default(),
            connections: Arc::default(),
        };
        let (bytes, connections) = (meter.bytes.clone(), meter.connections.clone());
        // Ends with the test's process.
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                connections.fetch_add(1, Ordering::Relaxed);
                let (near_back, far_back) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                let bytes = bytes.clone();
                thread::spawn(move || pass(near, far, Some(&bytes)));
                thread::spawn(move || pass(far_back, near_back, None));
            }
        });
        meter
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, count: Option<&AtomicU64>) {
    let mut room = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut room) {
        if read == 0 || to.write_all(&room[..read]).is_err() {
            break;
        }
        if let Some(count) = count {
            count.fetch_add(read.try_into().unwrap(), Ordering::Relaxed);
        }
    }
    from.shutdown(Shutdown::Both).ok();
    to.shutdown(Shutdown::Both).ok();
}

/// How many operations wait when a host meets its hub, each with a text of this length.
const BACKLOG: usize = 50_000;
const TEXT_BYTES: usize = 400;

/// A host with a backlog sends it through a proxy that cuts every stream, and through the page's as it is: how many
/// connections the first took, and what each host sent.
fn backlog(program: Program, cutting: impl Fn(String) -> String) -> (u64, u64, u64) {
    let mut host = Instance::new("web");
    for _ in 0..BACKLOG / 1000 {
        host.apply(&(0..1000).map(|n| create("r", "p", &format!("{n:0TEXT_BYTES$}"))).collect::<String>());
    }
    host.serve("none");
    let send = |proxy: Proxy, hub: &Instance| {
        let meter = Meter::before(proxy.port);
        must_join(&host, hub, &meter.url(), &proxy);
        until_equal(hub, &host);
        meter
    };
    let (whole_hub, address) = sealed_hub("whole");
    let once = send(Proxy::page(program, &address), &whole_hub);
    let (cut_hub, address) = sealed_hub("cut");
    let cut = send(Proxy::start(program, &address, cutting), &cut_hub);
    assert_eq!(cut_hub.code(&["hosts", "verify", "--all"]), 0);
    assert_eq!(once.connections.load(Ordering::Relaxed), 1, "the page's own configuration cuts nothing");
    (cut.connections.load(Ordering::Relaxed), cut.bytes(), once.bytes())
}

fn assert_little_was_sent_again((connections, cut, once): (u64, u64, u64), cuts: u64) {
    println!("{connections} connections carried {cut} bytes, one carried {once}");
    assert!(connections > cuts, "{connections} connections");
    assert!(cut * 100 <= once * 110, "{cut} bytes instead of {once}");
}

#[test]
fn a_backlog_gets_through_nginx_although_it_cuts_every_stream_after_1_mib() {
    let sent = backlog(Program::Nginx, |block| replaced(&block, "client_max_body_size 0;", ""));
    assert_little_was_sent_again(sent, 15);
}

#[test]
fn a_backlog_gets_through_caddy_although_it_cuts_every_stream_after_a_while() {
    let sent = backlog(Program::Caddy, |block| {
        format!("{{\n servers {{\n timeouts {{\n write 2s\n }}\n }}\n}}\n{block}")
    });
    assert_little_was_sent_again(sent, 2);
}
