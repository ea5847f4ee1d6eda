//! The sixteen scripted attackers of the threat model, by number, each in every protected channel. Their stories and
//! more are in `attacks.rs`; this is the table that must have no gap.
//!
//! Two of them need more than a handshake: 12, the race for a token, is run in the store and over real connections
//! (`transport/tests/racers.rs`); 15, frames after the handshake, over real connections (`transport/tests/line.rs` for
//! `tls`, `transport/tests/sealed.rs` for `sealed`), where 1, 2 and 16 are tried once more.

use super::super::transcript::{Opened, Party};
use super::*;

/// A channel that protects, as the two ends of one connection see it.
struct Protected {
    name: &'static str,
    /// The keys of a connection, by its number.
    keys: fn(u8) -> ChannelKeys,
    /// Whether the connection itself shows the acceptor's key.
    shows_keys: bool,
}

const CHANNELS: [Protected; 2] = [
    Protected { name: "tls", keys: tls, shows_keys: true },
    Protected { name: "sealed", keys: sealed, shows_keys: false },
];

impl Protected {
    /// Two that would understand each other, over one connection.
    fn world(&self) -> World {
        let honest = World::tls();
        World {
            dialer_keys: (self.keys)(7),
            hub_keys: (self.keys)(7),
            dialer_sees: honest.dialer_sees.filter(|_| self.shows_keys),
            hub_sees: None,
            ..honest
        }
        .with_token()
    }
}

/// Tries an attack in every channel, after the same without an attacker has succeeded.
fn in_every_channel(attack: impl Fn(&Protected, World)) {
    for channel in &CHANNELS {
        assert!(channel.world().run().is_ok(), "{}", channel.name);
        attack(channel, channel.world());
    }
}

/// What an honest dialer of this world says to prove itself.
fn recorded(world: &World) -> Proof {
    let (dialing, hello) = world.dial();
    let (_, challenge) = world.answer(hello).unwrap();
    world.prove(dialing, challenge).unwrap().1
}

/// What the hub of this world makes of a proof.
fn presented(world: &World, proof: Proof) -> Result<Claim, HandshakeFault> {
    let (proving, _) = world.answer(world.dial().1).unwrap();
    proving.proof(proof).map(|(_, claim)| claim)
}

#[test]
fn attacker_01_between_two_connections_of_its_own() {
    in_every_channel(|channel, world| {
        // Hello, Challenge and Proof are carried over word for word; each leg has its own keys.
        let legs = World { hub_keys: (channel.keys)(8), dialer_sees: None, ..world.clone() };
        assert_eq!(legs.run(), Err(Refused::Dialer(HandshakeFault::AcceptorSignature)), "{}", channel.name);
        // Even if the dialer did not look: what it proves on its leg proves nothing on the other.
        let fault = presented(&legs, recorded(&world)).unwrap_err();
        assert_eq!(fault, HandshakeFault::DialerSignature, "{}", channel.name);
    });
}

#[test]
fn attacker_02_relays_to_another_hub() {
    in_every_channel(|channel, world| {
        let elsewhere = World { hub: key(5), dialer_sees: None, ..world.clone() };
        let (dialing, mut hello) = world.dial();
        assert_eq!(elsewhere.answer(hello.clone()).unwrap_err(), HandshakeFault::WrongTarget);
        hello.target_tag = target_tag(&public(&elsewhere.hub).key_id(), &hello.nonce);
        let (_, challenge) = elsewhere.answer(hello).unwrap();
        let fault = world.prove(dialing, challenge).unwrap_err();
        let other = public(&elsewhere.hub).key_id();
        let named = matches!(&fault, HandshakeFault::WrongHub { presented, .. } if *presented == other);
        assert!(named || matches!(fault, HandshakeFault::TlsKeyDiffers { .. }), "{}: {fault}", channel.name);
    });
}

#[test]
fn attacker_03_reflects() {
    in_every_channel(|channel, world| {
        let (proving, challenge) = world.answer(world.dial().1).unwrap();
        let reflected = Proof {
            public_key: challenge.public_key,
            instance_id: challenge.instance_id,
            capabilities: challenge.capabilities,
            signature: challenge.signature,
            pairing: None,
        };
        assert_eq!(proving.proof(reflected).unwrap_err(), HandshakeFault::OwnKey, "{}", channel.name);
        // The dialer's own Hello, sent back to it as to a hub.
        let mirror = World { hub: world.dialer.clone(), ..world.clone() };
        assert_eq!(mirror.answer(world.dial().1).unwrap_err(), HandshakeFault::WrongTarget);
    });
}

#[test]
fn attacker_04_swaps_roles() {
    in_every_channel(|channel, world| {
        let (dialing, hello) = world.dial();
        let (_, challenge) = world.answer(hello.clone()).unwrap();
        let (_, proof) = world.prove(dialing, challenge.clone()).unwrap();
        let opened =
            Opened::new(&world.hub_keys, &hello, challenge.version, &challenge.nonce, &challenge.session);
        // What the dialer would sign as a hub, put in the place of what it signs as a dialer.
        let as_hub = opened.acceptor_signs(&Party::of_proof(&proof));
        let swapped = Proof { signature: sign(&world.dialer, &as_hub), ..proof };
        let (proving, _) = world.answer(hello).unwrap();
        assert_eq!(proving.proof(swapped).unwrap_err(), HandshakeFault::DialerSignature, "{}", channel.name);
    });
}

#[test]
fn attacker_05_replays_a_proof_to_the_same_hub() {
    in_every_channel(|channel, world| {
        let proof = recorded(&world);
        let later = World { seed: 0x80, ..world.clone() };
        let elsewhen = World { dialer_keys: (channel.keys)(9), hub_keys: (channel.keys)(9), ..world };
        for again in [later, elsewhen] {
            let fault = presented(&again, proof.clone()).unwrap_err();
            assert_eq!(fault, HandshakeFault::DialerSignature, "{}", channel.name);
        }
    });
}

#[test]
fn attacker_06_replays_a_proof_to_another_hub() {
    in_every_channel(|channel, world| {
        let (proof, hub) = (recorded(&world), key(5));
        let elsewhere = World { target: public(&hub).key_id(), hub, dialer_sees: None, ..world };
        let fault = presented(&elsewhere, proof).unwrap_err();
        assert_eq!(fault, HandshakeFault::DialerSignature, "{}", channel.name);
    });
}

#[test]
fn attacker_07_moves_a_transcript_to_another_kind_of_channel() {
    in_every_channel(|from, world| {
        let others: [fn(u8) -> ChannelKeys; 3] = [tls, sealed, |_| ChannelKeys::Plain];
        for other in others.map(|keys| keys(7)).into_iter().filter(|keys| *keys != world.hub_keys) {
            let to = World {
                dialer_keys: other.clone(),
                hub_keys: other.clone(),
                dialer_sees: None,
                ..world.clone()
            };
            let fault = presented(&to, recorded(&world)).unwrap_err();
            assert_eq!(fault, HandshakeFault::DialerSignature, "{} to {other:?}", from.name);
            let mixed = World { hub_keys: other, dialer_sees: None, ..world.clone() };
            assert_eq!(mixed.run(), Err(Refused::Dialer(HandshakeFault::AcceptorSignature)), "{}", from.name);
        }
    });
}

#[test]
fn attacker_08_edits_versions() {
    in_every_channel(|channel, world| {
        let (dialing, mut hello) = world.dial();
        hello.versions = vec![1, 2];
        let (_, challenge) = world.answer(hello.clone()).unwrap();
        // In Hello only.
        let fault = world.prove(dialing, challenge).unwrap_err();
        assert_eq!(fault, HandshakeFault::AcceptorSignature, "{}", channel.name);
        // In Challenge only, and in both.
        for (hello, fault) in [
            (world.dial().1, HandshakeFault::VersionNotOffered { version: 2 }),
            (hello, HandshakeFault::VersionNotOffered { version: 2 }),
        ] {
            let (_, mut challenge) = world.answer(hello).unwrap();
            challenge.version = 2;
            assert_eq!(world.prove(world.dial().0, challenge).unwrap_err(), fault, "{}", channel.name);
        }
        let (_, mut none) = world.dial();
        none.versions = vec![2];
        let offered = HandshakeFault::NoCommonVersion { offered: vec![2] };
        assert_eq!(world.answer(none).unwrap_err(), offered, "{}", channel.name);
    });
}

#[test]
fn attacker_09_puts_another_name_on_a_valid_key() {
    in_every_channel(|channel, world| {
        let (dialing, hello) = world.dial();
        let (_, mut challenge) = world.answer(hello).unwrap();
        challenge.instance_id = "hub-2".parse().unwrap();
        let fault = world.prove(dialing, challenge).unwrap_err();
        assert_eq!(fault, HandshakeFault::AcceptorSignature, "{}", channel.name);
        let renamed = Proof { instance_id: "web-2".parse().unwrap(), ..recorded(&world) };
        let fault = presented(&world, renamed).unwrap_err();
        assert_eq!(fault, HandshakeFault::DialerSignature, "{}", channel.name);
    });
}

/// The name is B's to choose; what it may do hangs on its key. That the store then refuses it A's name is
/// `attacker_10_presents_the_name_of_another_live_key_and_is_refused` in the store's contract.
#[test]
fn attacker_10_presents_the_name_of_another_listed_peer() {
    in_every_channel(|channel, world| {
        let other = World { dialer: key(9), token: None, ..world.clone() };
        let claim = presented(&other, recorded(&other)).unwrap();
        assert_eq!(claim.instance.as_str(), "web-1", "{}", channel.name);
        assert_eq!(claim.key, public(&key(9)), "{}: the claim is about the key that signed", channel.name);
        let taken = Proof { public_key: public(&world.dialer), ..recorded(&other) };
        let fault = presented(&other, taken).unwrap_err();
        assert_eq!(fault, HandshakeFault::DialerSignature, "{}", channel.name);
    });
}

#[test]
fn attacker_11_moves_a_token_proof_to_its_own_key() {
    in_every_channel(|channel, world| {
        let stolen = recorded(&world).pairing;
        assert!(stolen.is_some());
        let thief = World { dialer: key(9), token: None, ..world };
        let moved = Proof { pairing: stolen.clone(), ..recorded(&thief) };
        assert_eq!(
            presented(&thief, moved).unwrap_err(),
            HandshakeFault::DialerSignature,
            "{}",
            channel.name
        );
        // Signed anew by the thief, over the stolen token's public half.
        let (_, hello) = thief.dial();
        let (proving, challenge) = thief.answer(hello.clone()).unwrap();
        let opened =
            Opened::new(&thief.hub_keys, &hello, challenge.version, &challenge.nonce, &challenge.session);
        let transcript = opened.challenged(Party::of_challenge(&challenge), &challenge.signature);
        let mut proof = Proof { pairing: stolen, ..recorded(&thief) };
        let token = proof.pairing.as_ref().map(|pairing| &pairing.token_key);
        proof.signature =
            sign(&thief.dialer, &transcript.dialer_signs(&Party::of_proof(&proof), token).identity);
        assert_eq!(proving.proof(proof).unwrap_err(), HandshakeFault::TokenSignature, "{}", channel.name);
    });
}

#[test]
fn attacker_13_presents_weak_keys_and_second_spellings_of_a_signature() {
    /// The order of the group, little-endian: S + ORDER verifies where only S should.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    in_every_channel(|channel, world| {
        let mut identity = [0; 32];
        identity[0] = 1;
        for weak in [identity, [0; 32]] {
            let mut signature = [0; 64];
            signature[0] = 1;
            let proof = Proof { public_key: PublicKey(weak), signature, ..recorded(&world) };
            let fault = presented(&world, proof).unwrap_err();
            assert!(matches!(fault, HandshakeFault::UnusableKey { .. }), "{}: {fault}", channel.name);
        }
        let mut proof = recorded(&world);
        let mut carry = 0;
        for (byte, more) in proof.signature[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(more) + carry;
            [*byte, _] = sum.to_le_bytes();
            carry = sum >> 8;
        }
        assert_eq!(
            presented(&world, proof).unwrap_err(),
            HandshakeFault::DialerSignature,
            "{}",
            channel.name
        );
    });
}

#[test]
fn attacker_14_is_another_listed_hub_than_the_one_that_was_dialled() {
    in_every_channel(|channel, world| {
        // It has a valid key, answers on its own connection, and makes the Hello its own.
        let other = World { hub: key(5), dialer_sees: None, ..world };
        let (dialing, mut hello) = other.dial();
        hello.target_tag = target_tag(&public(&other.hub).key_id(), &hello.nonce);
        let (_, challenge) = other.answer(hello).unwrap();
        let fault = other.prove(dialing, challenge).unwrap_err();
        let presented = public(&other.hub).key_id();
        assert_eq!(fault, HandshakeFault::WrongHub { expected: other.target, presented }, "{}", channel.name);
    });
}

#[test]
fn attacker_16_has_another_key_in_the_connection_than_in_the_message() {
    let world = CHANNELS[0].world();
    let shown = public(&key(9));
    let presented = public(&world.hub).key_id();
    let differs = HandshakeFault::TlsKeyDiffers { tls: shown.key_id(), presented };
    let split = World { dialer_sees: Some(shown), ..world };
    assert_eq!(split.run(), Err(Refused::Dialer(differs.clone())));
    // In `sealed` the outer key is a proxy's and no dialer hands it in: there is none to differ. One that were handed
    // in would have to be the hub's there, too.
    assert!(CHANNELS[1].world().run().is_ok());
    assert_eq!(
        World { dialer_sees: Some(shown), ..CHANNELS[1].world() }.run(),
        Err(Refused::Dialer(differs))
    );
}

/// By number: no test, no row. The second column is where the attackers that need more than a handshake are run.
#[test]
fn every_attacker_has_a_test_by_its_number() {
    let here = include_str!("attackers.rs");
    let tokens = include_str!("../../../../tests/it/store_contract/admission.rs");
    let frames = [
        include_str!("../../../../src/transport/tests/line.rs"),
        include_str!("../../../../src/transport/tests/sealed.rs"),
    ];
    for number in 1..=16 {
        let places: &[&str] = match number {
            12 => &[tokens],
            15 => &frames,
            _ => &[here],
        };
        let name = format!("fn attacker_{number:02}_");
        assert!(places.iter().all(|place| place.contains(&name)), "attacker {number} is missing");
    }
}
