//! Where an instance keeps its things: the data directory, and what stands in it under which name.
//!
//! Reads the environment it is given and touches no file. Called by the command line, once.

use std::ffi::OsString;
use std::path::{Path, PathBuf, absolute};

/// What the user said on the command line.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--config`.
    pub config: Option<PathBuf>,
}

/// Why no place could be named.
#[derive(Debug, thiserror::Error)]
pub enum PlacesError {
    /// Nothing says where the data should be.
    #[error(
        "no data directory: neither HOME nor XDG_STATE_HOME is set; give --data-dir or set OPMESH_DATA_DIR"
    )]
    NoHome,
    /// The current directory is gone, or the path is empty.
    #[error("{} cannot be made absolute: {source}; give an absolute path", path.display())]
    Relative {
        /// What was given.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}

/// The data directory and what stands in it. All paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    data_dir: PathBuf,
    config: ConfigFile,
}

/// The configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigFile {
    /// The user named it: it must be there.
    Named(PathBuf),
    /// It is where it is looked for when nobody names one: it may be missing.
    Usual(PathBuf),
}

impl Places {
    /// Follows the documented order: what was given, `OPMESH_DATA_DIR`, the first of `STATE_DIRECTORY`, then
    /// `/var/lib/opmesh` for uid 0 and the user's state directory for everybody else. Empty variables do not count.
    pub fn resolve(
        given: Given,
        variable: impl Fn(&str) -> Option<OsString>,
        uid: u32,
    ) -> Result<Self, PlacesError> {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let data_dir = given
            .data_dir
            .or_else(|| variable("OPMESH_DATA_DIR").map(PathBuf::from))
            .or_else(|| {
                variable("STATE_DIRECTORY").as_ref().and_then(|all| std::env::split_paths(all).next())
            })
            .or_else(|| (uid == 0).then(|| PathBuf::from("/var/lib/opmesh")))
            .or_else(|| variable("XDG_STATE_HOME").map(|state| Path::new(&state).join("opmesh")))
            .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".local/state/opmesh")))
            .ok_or(PlacesError::NoHome)?;
        let data_dir = full(data_dir)?;
        let config = match given.config.or_else(|| variable("OPMESH_CONFIG").map(PathBuf::from)) {
            Some(named) => ConfigFile::Named(full(named)?),
            None => ConfigFile::Usual(data_dir.join("opmesh.toml")),
        };
        Ok(Self { data_dir, config })
    }

    /// Everything inside one directory, as tests and demos want it.
    pub fn within(data_dir: &Path) -> Self {
        let config = ConfigFile::Usual(data_dir.join("opmesh.toml"));
        Self { data_dir: data_dir.to_owned(), config }
    }

    /// The directory; 0700.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The configuration file.
    pub fn config(&self) -> &ConfigFile {
        &self.config
    }

    /// The identity key.
    pub fn key(&self) -> PathBuf {
        self.data_dir.join("identity.key")
    }

    /// The key that waits to take over.
    pub fn next_key(&self) -> PathBuf {
        self.data_dir.join("identity.next.key")
    }

    /// The database.
    pub fn store(&self) -> PathBuf {
        self.data_dir.join("opmesh.db")
    }

    /// Held by the process that has the database open.
    pub fn lock(&self) -> PathBuf {
        self.data_dir.join("lock")
    }

    /// The admin socket, unless `serve` is told another place; [`Places::serve_file`] has the one in use.
    pub fn socket(&self) -> PathBuf {
        self.data_dir.join("admin.sock")
    }

    /// What a running daemon says about itself.
    pub fn serve_file(&self) -> PathBuf {
        self.data_dir.join("serve.json")
    }

    /// Results of runs that could not be recorded at once.
    pub fn spool(&self) -> PathBuf {
        self.data_dir.join("spool")
    }
}

fn full(path: PathBuf) -> Result<PathBuf, PlacesError> {
    absolute(&path).map_err(|source| PlacesError::Relative { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_dir(given: Option<&str>, variables: &[(&str, &str)], uid: u32) -> String {
        let given = Given { data_dir: given.map(PathBuf::from), config: None };
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        Places::resolve(given, find, uid)
            .map_or_else(|error| error.to_string(), |places| places.data_dir.display().to_string())
    }

    #[test]
    fn the_first_that_says_a_data_directory_decides() {
        let all = [
            ("OPMESH_DATA_DIR", "/env"),
            ("STATE_DIRECTORY", "/unit:/other"),
            ("XDG_STATE_HOME", "/xdg"),
            ("HOME", "/home/x"),
        ];
        assert_eq!(data_dir(Some("/given"), &all, 0), "/given");
        assert_eq!(data_dir(None, &all, 0), "/env");
        assert_eq!(data_dir(None, &all[1..], 0), "/unit");
        assert_eq!(data_dir(None, &all[2..], 0), "/var/lib/opmesh");
        assert_eq!(data_dir(None, &all[2..], 1000), "/xdg/opmesh");
        assert_eq!(data_dir(None, &all[3..], 1000), "/home/x/.local/state/opmesh");
        assert!(data_dir(None, &[("HOME", "")], 1000).contains("--data-dir"));
    }

    #[test]
    fn a_relative_directory_is_one_below_the_current() {
        let here = std::env::current_dir().unwrap().join("x");
        assert_eq!(data_dir(Some("x"), &[], 1000), here.display().to_string());
    }

    #[test]
    fn a_named_configuration_file_must_be_there_and_the_usual_one_need_not() {
        let usual = Places::within(Path::new("/d"));
        assert_eq!(usual.config, ConfigFile::Usual("/d/opmesh.toml".into()));
        let given = Given { data_dir: Some("/d".into()), config: Some("/e/o.toml".into()) };
        let named = Places::resolve(given, |_| None, 0).unwrap();
        assert_eq!(named.config, ConfigFile::Named("/e/o.toml".into()));
    }
}
