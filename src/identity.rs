//! Who this instance is: one ed25519 key in one file.
//!
//! The file is PKCS#8 in PEM (RFC 8410, the form that `openssl genpkey -algorithm ed25519` writes), mode 0600 in a
//! directory that only its owner may enter. Every other mode, owner or file type is refused: a key that others could
//! read decides nothing any more. Key material is wiped from memory when it goes, and has no way into logs: `Debug`
//! shows the key ID only.
//!
//! Does not know peers or tokens. Called by `init`, by the node, and by the transport for certificates and signatures.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use ed25519_dalek::{Signer as _, SigningKey};
use zeroize::Zeroizing;

use opmesh_core::model::{KeyId, PublicKey, UnixMs};
use opmesh_core::succession::{Statement, Succession, SuccessionFault};

/// More than any key file holds; what is larger is not read.
const MAX_FILE_BYTES: u64 = 32 * 1024;
/// Files: nothing for group and others, nothing executable.
const FILE_FORBIDDEN: u32 = 0o177;
/// Directories: nothing for group and others.
const DIR_FORBIDDEN: u32 = 0o077;
/// Directories that keys are brought from: nothing to write for group and others.
const DIR_WRITABLE: u32 = 0o022;
const STICKY: u32 = 0o1000;
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";
const PAST_BEGIN: &str = "-----BEGIN OPMESH SUCCESSION-----";
const PAST_END: &str = "-----END OPMESH SUCCESSION-----";
/// RFC 8410: version 0, id-Ed25519, and an octet string in an octet string; the 32 bytes of the seed follow.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Why there is no identity to work with. Every text names the file and the next step.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No key file.
    #[error("no identity at {}: run `opmesh init` first", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A key is there already and is never overwritten.
    #[error("{} exists already: a key is never overwritten; move it away first", path.display())]
    Exists {
        /// The key file.
        path: PathBuf,
    },
    /// Others may read or enter it.
    #[error("{} has mode {mode:04o}, expected {expected:04o}: run `chmod {expected:o} {}`", path.display(), path.display())]
    Mode {
        /// The file or directory.
        path: PathBuf,
        /// What it has.
        mode: u32,
        /// What it should have.
        expected: u32,
    },
    /// It belongs to somebody else.
    #[error(
        "{} belongs to uid {owner}, but this process runs as uid {euid}: run as that user, or `chown {euid} {}`",
        path.display(), path.display()
    )]
    Owner {
        /// The file or directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        euid: u32,
    },
    /// A link, directory, pipe or device.
    #[error("{} is not a regular file: expected the key file itself, not a link to it", path.display())]
    NotAFile {
        /// What was found.
        path: PathBuf,
    },
    /// Not an ed25519 key in PKCS#8 PEM.
    #[error("{} holds no ed25519 private key in PKCS#8 PEM: restore it from a backup, or run `opmesh init` in a new folder", path.display())]
    Malformed {
        /// The key file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// There were too many keys already.
    #[error("no key can come after this one: {0}; begin with a new identity")]
    Succession(SuccessionFault),
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness for a new key")]
    Randomness,
}

/// This instance's key pair.
pub struct Identity {
    signing: SigningKey,
    /// How it came to this key, if it began with another.
    past: Option<Succession>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("key_id", &self.key_id()).finish_non_exhaustive()
    }
}

impl Identity {
    /// A new key that is nowhere stored yet.
    pub fn generate() -> Result<Self, IdentityError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(|_| IdentityError::Randomness)?;
        Ok(Self::from_seed(&seed))
    }

    /// The key pair of a seed: pairing tokens are such keys, and tests use fixed ones.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self { signing: SigningKey::from_bytes(seed), past: None }
    }

    /// A new key, stored at `path`. The directory is made with mode 0700 when it is missing.
    pub fn create(path: &Path) -> Result<Self, IdentityError> {
        let identity = Self::generate()?;
        identity.store(path)?;
        Ok(identity)
    }

    /// Reads the key file, and refuses it when anybody else could have read or replaced it.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        check_directory(parent(path))?;
        Self::read(path)
    }

    fn read(path: &Path) -> Result<Self, IdentityError> {
        let file = open(path)?;
        check_file(path, &file)?;
        let mut text = Zeroizing::new(String::new());
        match file.take(MAX_FILE_BYTES).read_to_string(&mut text) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(malformed(path)),
            Err(source) => return Err(failed("read", path)(source)),
        }
        let (key, past) = split(&text);
        let der = unwrap_pem(key).ok_or_else(|| malformed(path))?;
        let signing = SigningKey::from_pkcs8_der(&der).map_err(|_| malformed(path))?;
        let past = read_past(past).ok_or_else(|| malformed(path))?;
        let past = match past.as_slice() {
            [] => None,
            _ => Some(Succession::new(past).map_err(|_| malformed(path))?),
        };
        let identity = Self { signing, past };
        let ends_here = |past: &Succession| past.newest() == identity.public_key();
        if identity.past.as_ref().is_none_or(ends_here) { Ok(identity) } else { Err(malformed(path)) }
    }

    /// A new key that comes after this one, nowhere stored yet; both sign that it does.
    pub fn succeed(&self, at: UnixMs) -> Result<Self, IdentityError> {
        let next = Self::generate()?;
        let (old, new) = (self.public_key(), next.public_key());
        let signs = Statement::signs(&old, &new, at);
        let statement =
            Statement { old, new, at, by_old: self.sign(&signs.by_old), by_new: next.sign(&signs.by_new) };
        let mut statements = self.past.as_ref().map_or_else(Vec::new, |past| past.statements().to_vec());
        statements.push(statement);
        let past = Succession::new(statements).map_err(IdentityError::Succession)?;
        Ok(Self { past: Some(past), ..next })
    }

    /// How it came to this key; none if it began with it.
    pub const fn past(&self) -> Option<&Succession> {
        self.past.as_ref()
    }

    /// The keys that it had before, oldest first.
    pub fn before(&self) -> impl Iterator<Item = PublicKey> + '_ {
        self.past.iter().flat_map(Succession::before)
    }

    /// The key that it began with: its operations are hashed with it for ever.
    pub fn first(&self) -> PublicKey {
        self.past.as_ref().map_or_else(|| self.public_key(), Succession::first)
    }

    /// Since when it has this key, if it had another before.
    pub fn since(&self) -> UnixMs {
        self.past.as_ref().map_or(UnixMs(0), Succession::announced_at)
    }

    /// Takes the place of the key at `old`, in one step; its own file was `new`. Durable when it returns.
    pub fn replace(&self, new: &Path, old: &Path) -> Result<(), IdentityError> {
        fs::rename(new, old).map_err(failed("put a new key in the place of", old))?;
        sync(parent(old))
    }

    /// Throws a key away.
    pub fn remove(path: &Path) -> Result<(), IdentityError> {
        fs::remove_file(path).map_err(failed("remove", path))?;
        sync(parent(path))
    }

    /// Reads a key file that was brought here, from a folder that need not be private: nobody else can read the file,
    /// or put another in its place.
    pub fn import(path: &Path) -> Result<Self, IdentityError> {
        check_not_replaceable(parent(path))?;
        Self::read(path)
    }

    /// Writes the key to a file that does not exist yet; durable when it returns.
    pub fn store(&self, path: &Path) -> Result<(), IdentityError> {
        let directory = parent(path);
        make_directory(directory)?;
        check_directory(directory)?;
        let unfinished = path.with_extension("key.tmp");
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &unfinished)(error));
            }
            _ => {}
        }
        self.write_new(&unfinished)?;
        // A link, unlike a rename, never replaces a key that is there.
        let linked = fs::hard_link(&unfinished, path);
        fs::remove_file(&unfinished).map_err(failed("remove", &unfinished))?;
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(IdentityError::Exists { path: path.to_owned() });
            }
            other => other.map_err(failed("create", path))?,
        }
        sync(directory)
    }

    fn write_new(&self, path: &Path) -> Result<(), IdentityError> {
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(flags)
            .open(path)
            .map_err(failed("create", path))?;
        let encoded = Zeroizing::new(STANDARD.encode(self.pkcs8_der().as_slice()));
        let mut text = Zeroizing::new(format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", encoded.as_str()));
        for statement in self.past.iter().flat_map(Succession::statements) {
            let encoded = STANDARD.encode(statement.to_bytes());
            for part in [PAST_BEGIN, "\n", &encoded, "\n", PAST_END, "\n"] {
                text.push_str(part);
            }
        }
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed("write", path))
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.signing.verifying_key().to_bytes())
    }

    /// The name by which peers authorize this instance.
    pub fn key_id(&self) -> KeyId {
        self.public_key().key_id()
    }

    /// Signs; what is signed must start with a label that says what for.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }

    /// The key as PKCS#8 version 1 DER, for making certificates.
    pub fn pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        let mut der = Zeroizing::new(Vec::with_capacity(PKCS8_PREFIX.len() + 32));
        der.extend_from_slice(&PKCS8_PREFIX);
        der.extend_from_slice(self.signing.as_bytes());
        der
    }
}

fn sync(directory: &Path) -> Result<(), IdentityError> {
    File::open(directory).and_then(|open| open.sync_all()).map_err(failed("sync", directory))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::Io { what, path, source }
}

fn malformed(path: &Path) -> IdentityError {
    IdentityError::Malformed { path: path.to_owned() }
}

fn make_directory(directory: &Path) -> Result<(), IdentityError> {
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed("create", directory))
}

/// Opens without following a link at the end of the path, and without waiting for the other end of a pipe.
fn open(path: &Path) -> Result<File, IdentityError> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => IdentityError::Missing { path: path.to_owned() },
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            IdentityError::NotAFile { path: path.to_owned() }
        }
        _ => failed("open", path)(error),
    })
}

fn check_file(path: &Path, file: &File) -> Result<(), IdentityError> {
    let metadata = file.metadata().map_err(failed("inspect", path))?;
    if !metadata.is_file() {
        return Err(IdentityError::NotAFile { path: path.to_owned() });
    }
    check_access(path, &metadata, FILE_FORBIDDEN, 0o600)
}

fn check_directory(directory: &Path) -> Result<(), IdentityError> {
    let metadata = match fs::metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(IdentityError::Missing { path: directory.to_owned() });
        }
        other => other.map_err(failed("inspect", directory))?,
    };
    check_access(directory, &metadata, DIR_FORBIDDEN, 0o700)
}

/// Others may look into the directory, but not put another file in the place of one; the sticky bit sees to that where
/// they may write.
fn check_not_replaceable(directory: &Path) -> Result<(), IdentityError> {
    let metadata = fs::metadata(directory).map_err(failed("inspect", directory))?;
    let mode = metadata.mode() & 0o7777;
    if mode & DIR_WRITABLE != 0 && mode & STICKY == 0 {
        return Err(IdentityError::Mode { path: directory.to_owned(), mode, expected: mode & !DIR_WRITABLE });
    }
    Ok(())
}

fn check_access(
    path: &Path,
    metadata: &fs::Metadata,
    forbidden: u32,
    expected: u32,
) -> Result<(), IdentityError> {
    let euid = rustix::process::geteuid().as_raw();
    if metadata.uid() != euid {
        return Err(IdentityError::Owner { path: path.to_owned(), owner: metadata.uid(), euid });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(IdentityError::Mode { path: path.to_owned(), mode, expected });
    }
    Ok(())
}

/// The key, and the statements after it.
fn split(text: &str) -> (&str, &str) {
    let end = text.find(PEM_END).map_or(text.len(), |at| at + PEM_END.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// The statements that a key file ends with; `None` when there is anything else.
fn read_past(text: &str) -> Option<Vec<Statement>> {
    let mut statements = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (body, after) = rest.strip_prefix(PAST_BEGIN)?.split_once(PAST_END)?;
        let joined: String = body.split_ascii_whitespace().collect();
        statements.push(Statement::from_bytes(&STANDARD.decode(joined).ok()?)?);
        rest = after.trim();
    }
    Some(statements)
}

/// The bytes between the PEM lines; `None` when there is anything else than exactly one private key.
fn unwrap_pem(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let body = text.trim().strip_prefix(PEM_BEGIN)?.strip_suffix(PEM_END)?;
    let joined = Zeroizing::new(body.split_ascii_whitespace().collect::<String>());
    STANDARD.decode(joined.as_bytes()).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let path = folder.path().join("identity.key");
        (folder, path)
    }

    #[test]
    fn a_created_key_is_read_back_and_signs_alike() {
        let (_folder, path) = folder();
        let created = Identity::create(&path).unwrap();
        let loaded = Identity::load(&path).unwrap();
        assert_eq!(loaded.key_id(), created.key_id());
        assert_eq!(loaded.sign(b"x"), created.sign(b"x"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn a_missing_directory_is_made_for_its_owner_alone() {
        let (folder, _) = folder();
        let path = folder.path().join("deep/er").join("identity.key");
        Identity::create(&path).unwrap();
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
        Identity::load(&path).unwrap();
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let (_folder, path) = folder();
        let first = Identity::create(&path).unwrap();
        assert!(matches!(Identity::create(&path), Err(IdentityError::Exists { .. })));
        assert_eq!(Identity::load(&path).unwrap().key_id(), first.key_id());
    }

    #[test]
    fn only_modes_that_shut_everybody_else_out_are_accepted() {
        let (folder, path) = folder();
        Identity::create(&path).unwrap();
        for (mode, fine) in
            [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o700, false), (0o660, false)]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let loaded = Identity::load(&path);
            assert_eq!(loaded.is_ok(), fine, "{mode:o}");
            if let Err(error) = loaded {
                assert!(error.to_string().contains(&format!("chmod 600 {}", path.display())), "{error}");
            }
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for (mode, fine) in [(0o700, true), (0o500, true), (0o750, false), (0o701, false), (0o777, false)] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            let loaded = Identity::load(&path);
            assert_eq!(loaded.is_ok(), fine, "{mode:o}");
            if let Err(error) = loaded {
                assert!(error.to_string().contains("chmod 700"), "{error}");
            }
        }
    }

    #[test]
    fn a_key_is_brought_from_a_folder_that_others_may_see_and_not_change() {
        let (folder, path) = folder();
        Identity::create(&path).unwrap();
        for (mode, fine) in [(0o755, true), (0o700, true), (0o1777, true), (0o775, false), (0o777, false)] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Identity::import(&path).is_ok(), fine, "{mode:o}");
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Identity::import(&path), Err(IdentityError::Mode { .. })));
    }

    #[test]
    fn links_directories_and_other_contents_are_refused() {
        let (folder, path) = folder();
        assert!(matches!(Identity::load(&path), Err(IdentityError::Missing { .. })));
        let real = folder.path().join("real.key");
        Identity::create(&real).unwrap();
        symlink(&real, &path).unwrap();
        assert!(matches!(Identity::load(&path), Err(IdentityError::NotAFile { .. })));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(Identity::load(&path), Err(IdentityError::NotAFile { .. })));
        fs::remove_dir(&path).unwrap();
        for text in [&b""[..], b"\xff\xfe", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
        {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(Identity::load(&path), Err(IdentityError::Malformed { .. })));
        }
    }

    #[test]
    fn debug_output_and_errors_show_no_key_material() {
        let seed = [0x5a; 32];
        let identity = Identity::from_seed(&seed);
        let shown = format!("{identity:?}");
        assert!(shown.contains(&identity.key_id().to_string()));
        assert!(!shown.to_lowercase().contains("5a5a") && !shown.contains("90, 90"));
    }

    #[test]
    fn the_key_encodes_as_pkcs8_that_other_programs_read() {
        let identity = Identity::from_seed(&[7; 32]);
        let der = identity.pkcs8_der();
        assert_eq!(der.len(), 48);
        let private = rustls::pki_types::PrivatePkcs8KeyDer::from(der.as_slice());
        assert!(rcgen::KeyPair::try_from(&private).is_ok());
        assert_eq!(SigningKey::from_pkcs8_der(&der).unwrap().to_bytes(), [7; 32]);
    }
}
