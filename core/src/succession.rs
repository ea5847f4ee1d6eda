//! Succession: a key says, with both its own signature and the new one's, which key comes after it.
//!
//! A [`Succession`] is a list of such statements, each beginning with the key that the one before it ends with. It
//! exists only when every signature in it holds. Nothing is signed here: [`Statement::signs`] says what to sign, with
//! which key. The byte layout is written down in `docs/protocol.md` and pinned by a test.

use crate::handshake::signature_holds;
use crate::model::{KeyId, PublicKey, UnixMs};

const BY_OLD: &[u8] = b"opmesh/succession/1/old\0";
const BY_NEW: &[u8] = b"opmesh/succession/1/new\0";

/// Most statements in a list: a key a year for longer than anybody keeps a machine. 64 are 12.5 KiB.
pub const MAX_STATEMENTS: usize = 64;
/// A statement as bytes: both keys, the time, both signatures.
pub const STATEMENT_BYTES: usize = 32 + 32 + 8 + 64 + 64;

/// "After `old` comes `new`", signed by both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The key that was used so far.
    pub old: PublicKey,
    /// The key that comes after it.
    pub new: PublicKey,
    /// When it was said.
    pub at: UnixMs,
    /// By `old`, over [`Signs::by_old`].
    pub by_old: [u8; 64],
    /// By `new`, over [`Signs::by_new`].
    pub by_new: [u8; 64],
}

/// What the two keys sign: the same facts under two labels, so that neither signature can stand for the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signs {
    /// With the old key.
    pub by_old: Vec<u8>,
    /// With the new one.
    pub by_new: Vec<u8>,
}

impl Statement {
    /// What has to be signed for this.
    pub fn signs(old: &PublicKey, new: &PublicKey, at: UnixMs) -> Signs {
        let said = |label: &[u8]| {
            let time = at.0.to_be_bytes();
            let fields: [&[u8]; 3] = [&old.0, &new.0, &time];
            fields.into_iter().fold(label.to_vec(), |mut bytes, field| {
                // No field is longer than 32 bytes.
                bytes.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
                bytes.extend_from_slice(field);
                bytes
            })
        };
        Signs { by_old: said(BY_OLD), by_new: said(BY_NEW) }
    }

    fn check(&self) -> Result<(), SuccessionFault> {
        if self.old == self.new {
            return Err(SuccessionFault::SameKey);
        }
        let signs = Self::signs(&self.old, &self.new, self.at);
        if !signature_holds(&self.old, &signs.by_old, &self.by_old) {
            return Err(SuccessionFault::OldSignature);
        }
        if !signature_holds(&self.new, &signs.by_new, &self.by_new) {
            return Err(SuccessionFault::NewSignature);
        }
        Ok(())
    }

    /// As it stands in a key file.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.old.0[..], &self.new.0, &self.at.0.to_be_bytes(), &self.by_old, &self.by_new].concat()
    }

    /// From [`Statement::to_bytes`]; nothing is checked but the length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (old, rest) = bytes.split_first_chunk()?;
        let (new, rest) = rest.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let (by_old, by_new) = rest.split_first_chunk()?;
        Some(Self {
            old: PublicKey(*old),
            new: PublicKey(*new),
            at: UnixMs(i64::from_be_bytes(*at)),
            by_old: *by_old,
            by_new: by_new.try_into().ok()?,
        })
    }
}

/// One variant for each way in which a list of statements can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SuccessionFault {
    /// Nothing is said.
    #[error("a succession without a statement")]
    Empty,
    /// More than anybody needs.
    #[error("a succession of more than {MAX_STATEMENTS} statements")]
    TooLong,
    /// A key after itself, or a key that comes twice.
    #[error("a succession that names a key twice")]
    SameKey,
    /// A statement does not begin where the one before it ended.
    #[error("a succession with a gap")]
    Gap,
    /// The old key did not say this.
    #[error("a succession that the old key did not sign")]
    OldSignature,
    /// The new key did not say this.
    #[error("a succession that the new key did not sign")]
    NewSignature,
}

/// What a succession says about the key that tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tense {
    /// It is the newest: the others were before it.
    Past,
    /// It is the last but one: the newest will take its place.
    Announced,
}

/// Statements that hold and follow each other; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Succession {
    first: PublicKey,
    last: Statement,
    statements: Vec<Statement>,
}

impl Succession {
    /// Checks every signature.
    pub fn new(statements: Vec<Statement>) -> Result<Self, SuccessionFault> {
        if statements.len() > MAX_STATEMENTS {
            return Err(SuccessionFault::TooLong);
        }
        let (Some(first), Some(last)) = (statements.first(), statements.last().cloned()) else {
            return Err(SuccessionFault::Empty);
        };
        let first = first.old;
        let mut seen = vec![first];
        for statement in &statements {
            if seen.last() != Some(&statement.old) {
                return Err(SuccessionFault::Gap);
            }
            if seen.contains(&statement.new) {
                return Err(SuccessionFault::SameKey);
            }
            statement.check()?;
            seen.push(statement.new);
        }
        Ok(Self { first, last, statements })
    }

    /// The key with which it all began: the owner's rows are hashed with it for ever.
    pub fn first(&self) -> PublicKey {
        self.first
    }

    /// The newest key.
    pub fn newest(&self) -> PublicKey {
        self.last.new
    }

    /// When the newest was announced.
    pub fn announced_at(&self) -> UnixMs {
        self.last.at
    }

    /// All keys but the newest, oldest first.
    pub fn before(&self) -> impl Iterator<Item = PublicKey> + '_ {
        self.statements.iter().map(|statement| statement.old)
    }

    /// What it says when this key tells it; nothing when the key has no business telling it.
    pub fn told_by(&self, key: &KeyId) -> Option<Tense> {
        if self.last.new.key_id() == *key {
            Some(Tense::Past)
        } else if self.last.old.key_id() == *key {
            Some(Tense::Announced)
        } else {
            None
        }
    }

    /// Oldest first.
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn public(seed: u8) -> PublicKey {
        PublicKey(key(seed).verifying_key().to_bytes())
    }

    fn statement(old: u8, new: u8) -> Statement {
        let at = UnixMs(1_700_000_000_000);
        let signs = Statement::signs(&public(old), &public(new), at);
        Statement {
            old: public(old),
            new: public(new),
            at,
            by_old: key(old).sign(&signs.by_old).to_bytes(),
            by_new: key(new).sign(&signs.by_new).to_bytes(),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }

    #[test]
    fn a_succession_knows_its_first_and_newest_key_and_who_may_tell_it() {
        let chain = Succession::new(vec![statement(1, 2), statement(2, 3)]).unwrap();
        assert_eq!((chain.first(), chain.newest()), (public(1), public(3)));
        assert_eq!(chain.told_by(&public(3).key_id()), Some(Tense::Past));
        assert_eq!(chain.told_by(&public(2).key_id()), Some(Tense::Announced));
        assert_eq!(chain.told_by(&public(1).key_id()), None);
        assert_eq!(chain.before().collect::<Vec<_>>(), [public(1), public(2)]);
    }

    #[test]
    fn every_bit_of_a_statement_counts() {
        let bytes = statement(1, 2).to_bytes();
        assert_eq!(bytes.len(), STATEMENT_BYTES);
        assert!(Succession::new(vec![Statement::from_bytes(&bytes).unwrap()]).is_ok());
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let changed = Statement::from_bytes(&changed).unwrap();
            assert!(Succession::new(vec![changed]).is_err(), "bit {bit}");
        }
        assert_eq!(Statement::from_bytes(&bytes[1..]), None);
        assert_eq!(Statement::from_bytes(&[&bytes[..], &[0]].concat()), None);
    }

    #[test]
    fn lists_that_do_not_follow_are_refused_by_what_is_wrong() {
        let fault = |statements: Vec<Statement>| Succession::new(statements).unwrap_err();
        assert_eq!(fault(vec![]), SuccessionFault::Empty);
        assert_eq!(fault(vec![statement(1, 2), statement(3, 4)]), SuccessionFault::Gap);
        assert_eq!(fault(vec![statement(1, 2), statement(2, 1)]), SuccessionFault::SameKey);
        assert_eq!(fault(vec![statement(1, 1)]), SuccessionFault::SameKey);
        assert_eq!(fault(vec![statement(1, 2); MAX_STATEMENTS + 1]), SuccessionFault::TooLong);
        // Neither signature can stand for the other, and nobody can speak for a key that it lacks.
        let swapped = Statement { by_old: statement(1, 2).by_new, ..statement(1, 2) };
        assert_eq!(fault(vec![swapped]), SuccessionFault::OldSignature);
        let one_sided = Statement { by_new: statement(3, 2).by_old, ..statement(1, 2) };
        assert_eq!(fault(vec![one_sided]), SuccessionFault::NewSignature);
        // A key of small order signs anything.
        let weak = Statement { old: PublicKey([0; 32]), by_old: [0; 64], ..statement(1, 2) };
        assert_eq!(fault(vec![weak]), SuccessionFault::OldSignature);
        assert!(Succession::new((1..=64).map(|n| statement(n, n + 1)).collect()).is_ok());
    }

    #[test]
    fn the_statement_of_the_manual_is_made_like_this() {
        let statement = statement(1, 2);
        let signs = Statement::signs(&statement.old, &statement.new, statement.at);
        let manual = include_str!("../../docs/protocol.md");
        let keys = [&statement.old.0[..], &statement.new.0];
        let values = [&signs.by_old[..], &signs.by_new, &statement.by_old, &statement.by_new];
        let lacks: Vec<_> =
            keys.into_iter().chain(values).map(hex).filter(|value| !manual.contains(value)).collect();
        assert!(lacks.is_empty(), "docs/protocol.md lacks {lacks:#?}");
    }
}
