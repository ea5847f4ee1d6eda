//! What may stand between a host and its hub: a relay that cuts, and real nginx.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use tempfile::TempDir;

use crate::fleet::until;

/// When a relay cuts a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    /// So long after it began.
    After(Duration),
    /// After so many bytes from the host.
    AfterBytes(usize),
}

/// Passes TCP on to `hub`, and cuts; the address to dial. Lives as long as the test's process.
pub(crate) fn relay(hub: &str, cut: Cut) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let hub = hub.to_owned();
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(&hub) else { continue };
            let budget = match cut {
                Cut::After(_) => usize::MAX,
                Cut::AfterBytes(bytes) => bytes,
            };
            pass(&near, &far, budget);
            pass(&far, &near, usize::MAX);
            if let Cut::After(span) = cut {
                std::thread::spawn(move || {
                    std::thread::sleep(span);
                    part(&near, &far);
                });
            }
        }
    });
    address
}

fn pass(from: &TcpStream, to: &TcpStream, mut budget: usize) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    std::thread::spawn(move || {
        let mut room = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut room) {
            let passed = read.min(budget);
            budget -= passed;
            if to.write_all(&room[..passed]).is_err() || budget == 0 {
                break;
            }
        }
        part(&from, &to);
    });
}

fn part(one: &TcpStream, other: &TcpStream) {
    one.shutdown(Shutdown::Both).ok();
    other.shutdown(Shutdown::Both).ok();
}

/// A service that says this to whoever connects, once it has heard something or not.
pub(crate) fn service(words: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut caller in listener.incoming().flatten() {
            caller.write_all(words).ok();
            caller.shutdown(Shutdown::Write).ok();
            // What was heard is read, so that the words are not lost to a reset.
            std::thread::spawn(move || std::io::copy(&mut caller, &mut std::io::sink()).ok());
        }
    });
    address
}

/// A running nginx.
pub(crate) struct Nginx {
    child: Child,
    pub(crate) address: String,
    _folder: TempDir,
}

impl Nginx {
    /// An ordinary web server.
    pub(crate) fn web_server() -> Self {
        Self::start("", "return 200 'hello';")
    }

    /// Ends TLS of these versions with a certificate of its own, and passes gRPC on to a hub by TLS.
    pub(crate) fn ending_tls(hub: &str, versions: &str) -> Self {
        Self::start(&format!("ssl http2; ssl_protocols {versions}"), &format!("grpc_pass grpcs://{hub};"))
    }

    /// The same in front of a sealed listener.
    pub(crate) fn before_sealed(hub: &str) -> Self {
        Self::start("ssl http2", &format!("grpc_pass grpc://{hub}; client_max_body_size 0;"))
    }

    fn start(listen: &str, location: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificate(folder.path());
        // Free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let child = Self::run(folder.path(), &address, listen, location);
        let mut nginx = Self { child, address, _folder: folder };
        let mut ended = false;
        until("nginx listens", || {
            ended = nginx.child.try_wait().unwrap().is_some();
            ended || TcpStream::connect(&nginx.address).is_ok()
        });
        // Somebody else took the port in between.
        if ended { Self::start(listen, location) } else { nginx }
    }

    fn run(folder: &Path, address: &str, listen: &str, location: &str) -> Child {
        let here = folder.display();
        let config = format!(
            "daemon off; master_process off; pid {here}/nginx.pid; error_log stderr;
             events {{}}
             http {{
                 access_log off;
                 client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/fastcgi;
                 uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;
                 ssl_certificate {here}/cert.pem; ssl_certificate_key {here}/key.pem;
                 server {{ listen {address} {listen}; location / {{ {location} }} }}
             }}"
        );
        std::fs::write(folder.join("nginx.conf"), config).unwrap();
        Command::new("nginx")
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(folder.join("nginx.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed: scripts/need nginx")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A certificate as any web server has one, with an ECDSA key.
fn certificate(folder: &Path) {
    let pair = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["hub.example".to_owned()]).unwrap();
    let certificate = params.self_signed(&pair).unwrap();
    std::fs::write(folder.join("cert.pem"), pem("CERTIFICATE", certificate.der())).unwrap();
    std::fs::write(folder.join("key.pem"), pem("PRIVATE KEY", &pair.serialize_der())).unwrap();
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
