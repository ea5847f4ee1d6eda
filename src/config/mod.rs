//! The configuration file `opmesh.toml`: `File` is what was written, [`Config`] what it means.
//!
//! Defaults have their one home here. Unknown keys, wrong types and values out of range are refused with file, line and
//! column, and with the nearest key that exists. Knows no peers and no grants: those are the store's.

mod fault;
mod file;
mod limits;
mod settings;
mod sharing;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

pub use fault::{ConfigError, Wrong};
pub use file::{LogFormat, LogLevel};
pub use settings::{Setting, Settings, settings};

use opmesh_core::config::Allowed;

use crate::limits::Limits;
use crate::places::ConfigFile;

/// The effective configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `admin.group`: who else may open the admin socket, by name or number. Default: nobody.
    pub admin_group: Option<String>,
    /// `admin.listen`: where the admin service listens on TCP. Default: nowhere.
    pub admin_listen: Option<SocketAddr>,
    /// `admin.certificate` and `admin.key`: what it shows there. Default: the identity's own certificate.
    pub admin_certificate: Option<AdminCertificate>,
    /// `cache.entries`: entries of each id cache; 0 = off. Default: what the store thinks best.
    pub cache_entries: Option<usize>,
    /// `[limits]`. Defaults: those of [`Limits`].
    pub limits: Limits,
    /// `log.format`. Default: text.
    pub log_format: LogFormat,
    /// `log.level`. Default: info.
    pub log_level: LogLevel,
    /// `[sharing]`: what peers may set although it runs programs. Default: nothing.
    pub allowed: Allowed,
}

/// A certificate of its own for the admin listener, both files in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminCertificate {
    /// The certificate, then any that lead to its root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            admin_group: None,
            admin_listen: None,
            admin_certificate: None,
            cache_entries: None,
            limits: Limits::default(),
            log_format: LogFormat::Text,
            log_level: LogLevel::Info,
            allowed: Allowed::default(),
        }
    }
}

impl Config {
    /// Reads the file; a usual one that is missing means all defaults.
    pub fn load(file: &ConfigFile) -> Result<Self, ConfigError> {
        match read(file)? {
            Some((path, text)) => Self::parse(path, &text),
            None => Ok(Self::default()),
        }
    }

    /// What a file with this text means; `path` is for the errors.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let file = file::read(path, text)?;
        let usual = Self::default();
        let admin = file.admin.unwrap_or_default();
        let cache = file.cache.unwrap_or_default();
        let log = file.log.unwrap_or_default();
        Ok(Self {
            admin_group: admin.group,
            admin_listen: admin.listen.map(|listen| file::admin_listen(path, text, &listen)).transpose()?,
            admin_certificate: file::admin_certificate(path, text, admin.certificate, admin.key)?,
            cache_entries: match cache.entries {
                Some(entries) => Some(file::cache_entries(path, text, &entries)?),
                None => usual.cache_entries,
            },
            limits: limits::limits(path, text, file.limits.unwrap_or_default())?,
            log_format: log.format.unwrap_or(usual.log_format),
            log_level: log.level.unwrap_or(usual.log_level),
            allowed: sharing::allowed(path, text, file.sharing.unwrap_or_default())?,
        })
    }
}

/// The file and its text; nothing when a usual one is missing.
fn read(file: &ConfigFile) -> Result<Option<(&Path, String)>, ConfigError> {
    let (path, may_miss) = match file {
        ConfigFile::Named(path) => (path, false),
        ConfigFile::Usual(path) => (path, true),
    };
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some((path, text))),
        // A data folder that is none is for others to complain about.
        Err(error)
            if may_miss && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(source) => Err(ConfigError::Unreadable { path: path.clone(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("/etc/opmesh.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(parse("").unwrap(), Config::default());
        assert_eq!(parse("# nothing\n[log]\n").unwrap(), Config::default());
    }

    #[test]
    fn every_key_is_read() {
        let text = "[admin]\ngroup = \"backup\"\nlisten = \"[::1]:9852\"\ncertificate = \"a.pem\"\nkey = \"/b.pem\"\n\
                    [cache]\nentries = 0\n\
                    [limits]\nconnections = 100\nsession_age = \"90m\"\nshared_addresses = []\n\
                    [log]\nformat = \"json\"\nlevel = \"debug\"\n\
                    [sharing]\nallow_hooks = [\"mail\"]\nallow_command_prefix = [\"nice -n19\"]\n\
                    allow_env = [\"AWS_REGION\"]\nallow_flags = [\"--cacert\"]\n";
        let limits = Limits {
            connections: 100,
            session_age: Duration::from_mins(90),
            shared_addresses: Vec::new(),
            ..Limits::default()
        };
        let expected = Config {
            admin_group: Some("backup".into()),
            admin_listen: Some("[::1]:9852".parse().unwrap()),
            admin_certificate: Some(AdminCertificate {
                certificate: "/etc/a.pem".into(),
                key: "/b.pem".into(),
            }),
            cache_entries: Some(0),
            limits,
            log_format: LogFormat::Json,
            log_level: LogLevel::Debug,
            allowed: Allowed {
                hooks: ["mail".to_owned()].into(),
                command_prefixes: ["nice -n19".to_owned()].into(),
                env: ["AWS_REGION".to_owned()].into(),
                flags: ["--cacert".to_owned()].into(),
            },
        };
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn a_misspelt_key_is_shown_where_it_stands_with_the_nearest_one() {
        insta::assert_snapshot!(parse("[cache]\nentires = 7\n").unwrap_err(), @r#"
        unknown key cache.entires
         --> /etc/opmesh.toml:2:1
          |
        2 | entires = 7
          | ^^^^^^^
          |
          = help: did you mean cache.entries?
        "#);
        insta::assert_snapshot!(parse("[amdin]\ngroup = \"x\"\n").unwrap_err(), @r#"
        unknown key amdin
         --> /etc/opmesh.toml:1:2
          |
        1 | [amdin]
          |  ^^^^^
          |
          = help: did you mean admin?
        "#);
        insta::assert_snapshot!(parse("[log]\ncolour = \"x\"\n").unwrap_err(), @r#"
        unknown key log.colour
         --> /etc/opmesh.toml:2:1
          |
        2 | colour = "x"
          | ^^^^^^
          |
          = help: the keys are log.format, log.level
        "#);
        insta::assert_snapshot!(parse("[network]\nport = 7\n").unwrap_err(), @r#"
        unknown key network
         --> /etc/opmesh.toml:1:2
          |
        1 | [network]
          |  ^^^^^^^
          |
          = help: the tables are admin, cache, limits, log, sharing
        "#);
    }

    #[test]
    fn a_wrong_value_is_shown_where_it_stands() {
        insta::assert_snapshot!(parse("[cache]\nentries = \"many\"\n").unwrap_err(), @r#"
        invalid type: string "many", expected i64
         --> /etc/opmesh.toml:2:11
          |
        2 | entries = "many"
          |           ^^^^^^
        "#);
        insta::assert_snapshot!(parse("[cache]\nentries = -1\n").unwrap_err(), @r#"
        cache.entries is out of range
         --> /etc/opmesh.toml:2:11
          |
        2 | entries = -1
          |           ^^
          |
          = help: expected 0 to 16777216; 0 turns the caches off
        "#);
        insta::assert_snapshot!(parse("[log]\nlevel = \"loud\"\n").unwrap_err(), @r#"
        unknown variant `loud`, expected one of `error`, `warn`, `info`, `debug`, `trace`
         --> /etc/opmesh.toml:2:9
          |
        2 | level = "loud"
          |         ^^^^^^
        "#);
        insta::assert_snapshot!(parse("[log\n").unwrap_err(), @r#"
        unclosed table, expected `]`
         --> /etc/opmesh.toml:1:5
          |
        1 | [log
          |     ^
        "#);
    }

    #[test]
    fn a_name_that_would_allow_nothing_is_shown_where_it_stands() {
        insta::assert_snapshot!(parse("[sharing]\nallow_flags = [\"--tag\", \"cacert\"]\n").unwrap_err(), @r#"
        sharing.allow_flags has a name that allows nothing
         --> /etc/opmesh.toml:2:25
          |
        2 | allow_flags = ["--tag", "cacert"]
          |                         ^^^^^^^^
          |
          = help: expected a flag with its dashes, such as "--cacert", or with the beginning of its value, such as "--option=s3.region"
        "#);
        for bad in [
            "allow_hooks = [\"\"]",
            "allow_command_prefix = [\"nice  -n19\"]",
            "allow_env = [\"A=B\"]",
            "allow_flags = [\"--x=\"]",
        ] {
            assert!(parse(&format!("[sharing]\n{bad}\n")).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_admin_listener_is_an_address_and_a_certificate_needs_its_key() {
        insta::assert_snapshot!(parse("[admin]\nlisten = \"9852\"\n").unwrap_err(), @r#"
        admin.listen is no address
         --> /etc/opmesh.toml:2:10
          |
        2 | listen = "9852"
          |          ^^^^^^
          |
          = help: expected ADDRESS:PORT, as in "127.0.0.1:9852"; leave the key out for no listener
        "#);
        insta::assert_snapshot!(parse("[admin]\ncertificate = \"a.pem\"\n").unwrap_err(), @r#"
        admin.certificate and admin.key go together
         --> /etc/opmesh.toml:2:15
          |
        2 | certificate = "a.pem"
          |               ^^^^^^^
          |
          = help: name both, or neither for the identity's own certificate
        "#);
    }

    #[test]
    fn only_the_usual_file_may_be_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("opmesh.toml");
        assert_eq!(Config::load(&ConfigFile::Usual(path.clone())).unwrap(), Config::default());
        assert!(matches!(Config::load(&ConfigFile::Named(path)), Err(ConfigError::Unreadable { .. })));
    }
}
