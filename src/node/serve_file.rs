//! `serve.json`: what a running daemon says about itself, for whoever looks for it.
//!
//! Written atomically once everything is bound, removed when the daemon ends. A file left by a daemon that was killed
//! is harmless: nobody answers on its socket.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be used: {source}", path.display())]
pub struct ServeFileError {
    /// Which.
    pub path: PathBuf,
    /// The system's words.
    pub source: io::Error,
}

/// One line of JSON, also printed to stdout as the sign that the daemon is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServeFile {
    /// Always true.
    pub ready: bool,
    /// The daemon's process.
    pub pid: u32,
    /// What it listens on, as bound.
    pub listen: Vec<Listener>,
    /// The page.
    pub web: Option<String>,
    /// The admin socket.
    pub admin_socket: String,
    /// Where the admin service listens on TCP, as bound.
    pub admin_listen: Option<String>,
}

/// A bound listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// `tls` or `plain`.
    pub channel: String,
    /// Never port 0.
    pub address: String,
}

impl ServeFile {
    /// What is written there; `None` when there is no such file or it is of another kind.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// The line, without its end.
    pub fn line(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Puts it in the place of whatever is there.
    pub fn write(&self, path: &Path) -> Result<(), ServeFileError> {
        let unfinished = path.with_extension("json.tmp");
        let write = || {
            let mut file = File::create(&unfinished)?;
            writeln!(file, "{}", self.line()?)?;
            file.sync_all()?;
            fs::rename(&unfinished, path)
        };
        write().map_err(|source| ServeFileError { path: path.to_owned(), source })
    }

    /// Takes it away; a missing file is fine.
    pub fn remove(path: &Path) -> Result<(), ServeFileError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ServeFileError { path: path.to_owned(), source: error })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readiness_line_is_the_documented_object() {
        let file = ServeFile {
            ready: true,
            pid: 4711,
            listen: vec![Listener { channel: "tls".into(), address: "127.0.0.1:41733".into() }],
            web: None,
            admin_socket: "/d/admin.sock".into(),
            admin_listen: None,
        };
        assert_eq!(
            file.line().unwrap(),
            r#"{"ready":true,"pid":4711,"listen":[{"channel":"tls","address":"127.0.0.1:41733"}],"web":null,"admin_socket":"/d/admin.sock","admin_listen":null}"#
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serve.json");
        file.write(&path).unwrap();
        assert_eq!(ServeFile::read(&path), Some(file));
        ServeFile::remove(&path).unwrap();
        ServeFile::remove(&path).unwrap();
        assert_eq!(ServeFile::read(&path), None);
    }
}
