//! Every bit of every message counts.

use super::*;

/// An encoding with one form for each message, so that flipping a bit changes the message or makes it none.
fn encode(said: &Said) -> Vec<u8> {
    let mut out = Vec::new();
    match said {
        Said::Hello(hello) => {
            let versions: Vec<u8> = hello.versions.iter().flat_map(|v| v.to_be_bytes()).collect();
            text(&mut out, &versions);
            out.extend(hello.nonce);
            out.extend(hello.target_tag);
        }
        Said::Challenge(challenge) => {
            out.extend(challenge.version.to_be_bytes());
            out.extend(challenge.nonce);
            out.extend(challenge.session);
            out.extend(challenge.public_key.0);
            text(&mut out, challenge.instance_id.as_str().as_bytes());
            texts(&mut out, &challenge.capabilities);
            out.extend(challenge.signature);
        }
        Said::Proof(proof) => {
            out.extend(proof.public_key.0);
            text(&mut out, proof.instance_id.as_str().as_bytes());
            texts(&mut out, &proof.capabilities);
            out.extend(proof.signature);
            if let Some(pairing) = &proof.pairing {
                out.extend(pairing.token_key.0);
                out.extend(pairing.signature);
            }
        }
        Said::Accepted(accepted) => {
            texts(&mut out, &accepted.grants);
            text(&mut out, accepted.accepted_scopes.as_bytes());
            out.extend(accepted.confirmation);
        }
        Said::Confirm(confirm) => {
            texts(&mut out, &confirm.grants);
            out.extend(confirm.confirmation);
        }
    }
    out
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(u8::try_from(bytes.len()).unwrap());
    out.extend(bytes);
}

fn texts(out: &mut Vec<u8>, list: &[String]) {
    out.push(u8::try_from(list.len()).unwrap());
    for item in list {
        text(out, item.as_bytes());
    }
}

/// Reads what [`encode`] wrote; `like` says which message it is.
fn decode(like: &Said, bytes: &[u8]) -> Option<Said> {
    let mut from = Reader(bytes);
    let said = match like {
        Said::Hello(_) => {
            Said::Hello(Hello { versions: from.versions()?, nonce: from.array()?, target_tag: from.array()? })
        }
        Said::Challenge(_) => Said::Challenge(Challenge {
            version: u32::from_be_bytes(from.array()?),
            nonce: from.array()?,
            session: from.array()?,
            public_key: PublicKey(from.array()?),
            instance_id: from.text()?.parse().ok()?,
            capabilities: from.texts()?,
            signature: from.array()?,
        }),
        Said::Proof(_) => Said::Proof(Proof {
            public_key: PublicKey(from.array()?),
            instance_id: from.text()?.parse().ok()?,
            capabilities: from.texts()?,
            signature: from.array()?,
            pairing: if from.0.is_empty() {
                None
            } else {
                Some(PairingProof { token_key: PublicKey(from.array()?), signature: from.array()? })
            },
        }),
        Said::Accepted(_) => Said::Accepted(Accepted {
            grants: from.texts()?,
            accepted_scopes: from.text()?,
            confirmation: from.array()?,
        }),
        Said::Confirm(_) => Said::Confirm(Confirm { grants: from.texts()?, confirmation: from.array()? }),
    };
    from.0.is_empty().then_some(said)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let [length] = self.array()?;
        let (head, tail) = self.0.split_at_checked(length.into())?;
        self.0 = tail;
        Some(head.to_vec())
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?).ok()
    }

    fn texts(&mut self) -> Option<Vec<String>> {
        let [count] = self.array()?;
        (0..count).map(|_| self.text()).collect()
    }

    fn versions(&mut self) -> Option<Vec<u32>> {
        let bytes = self.bytes()?;
        let (chunks, rest) = bytes.as_chunks();
        rest.is_empty().then(|| chunks.iter().map(|chunk| u32::from_be_bytes(*chunk)).collect())
    }
}

/// The bytes of the five messages when nobody interferes.
fn transcript(world: &World) -> Vec<Said> {
    let mut all = Vec::new();
    let mut line = |said: Said| {
        assert_eq!(decode(&said, &encode(&said)), Some(said.clone()));
        all.push(said.clone());
        Some(said)
    };
    assert!(world.exchange(&mut line).is_ok());
    assert_eq!(all.len(), 5);
    all
}

/// Flips each bit of the message at `index` in a handshake of its own.
fn every_flip_is_refused(world: &World, index: usize) {
    let original = transcript(world).swap_remove(index);
    let clean = encode(&original);
    for bit in 0..clean.len() * 8 {
        let mut flipped = clean.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let arrived = decode(&original, &flipped);
        assert_ne!(arrived.as_ref(), Some(&original));
        let mut passed = 0;
        let mut line = |said| {
            passed += 1;
            if passed == index + 1 { arrived.clone() } else { Some(said) }
        };
        let outcome = world.exchange(&mut line);
        assert!(outcome.is_err(), "message {index}, bit {bit}: {outcome:?}");
    }
}

#[test]
fn every_bit_of_hello_counts() {
    every_flip_is_refused(&World::tls().with_token(), 0);
    every_flip_is_refused(&World::sealed().with_token(), 0);
    every_flip_is_refused(&World::plain(), 0);
}

#[test]
fn every_bit_of_challenge_counts() {
    every_flip_is_refused(&World::tls().with_token(), 1);
    every_flip_is_refused(&World::sealed().with_token(), 1);
    every_flip_is_refused(&World::plain(), 1);
}

#[test]
fn every_bit_of_proof_counts() {
    every_flip_is_refused(&World::tls().with_token(), 2);
    every_flip_is_refused(&World::sealed().with_token(), 2);
    every_flip_is_refused(&World::plain(), 2);
}

#[test]
fn every_bit_of_accepted_counts() {
    every_flip_is_refused(&World::tls().with_token(), 3);
    every_flip_is_refused(&World::sealed().with_token(), 3);
    every_flip_is_refused(&World::plain(), 3);
}

#[test]
fn every_bit_of_confirm_counts() {
    every_flip_is_refused(&World::tls().with_token(), 4);
    every_flip_is_refused(&World::sealed().with_token(), 4);
    every_flip_is_refused(&World::plain(), 4);
}
