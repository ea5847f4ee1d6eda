//! What somebody with keys of their own, or with access to the line, could try. Each test is an attempt; the last one
//! holds that every fault has been provoked.

use ed25519_dalek::VerifyingKey;

use super::super::transcript::{Challenged, Opened, Party};
use super::*;

/// What the acceptor makes of a changed Hello.
fn hello_refused(world: &World, change: impl Fn(&mut Hello)) -> HandshakeFault {
    let (_, mut hello) = world.dial();
    change(&mut hello);
    world.answer(hello).unwrap_err()
}

/// What the dialer makes of a changed Challenge.
fn challenge_refused(world: &World, change: impl Fn(&mut Challenge)) -> HandshakeFault {
    let (dialing, hello) = world.dial();
    let (_, mut challenge) = world.answer(hello).unwrap();
    change(&mut challenge);
    world.prove(dialing, challenge).unwrap_err()
}

/// What the acceptor makes of a changed Proof.
fn proof_refused(world: &World, change: impl Fn(&mut Proof)) -> HandshakeFault {
    let (dialing, hello) = world.dial();
    let (proving, challenge) = world.answer(hello).unwrap();
    let (_, mut proof) = world.prove(dialing, challenge).unwrap();
    change(&mut proof);
    proving.proof(proof).unwrap_err()
}

/// What the dialer makes of a changed Accepted.
fn accepted_refused(world: &World, change: impl Fn(&mut Accepted)) -> HandshakeFault {
    let refused = world.exchange(&mut |said| match said {
        Said::Accepted(mut accepted) => {
            change(&mut accepted);
            Some(Said::Accepted(accepted))
        }
        other => Some(other),
    });
    let Err(Refused::Dialer(fault)) = refused else { panic!("not refused by the dialer: {refused:?}") };
    fault
}

/// What the acceptor makes of a changed Confirm.
fn confirm_refused(world: &World, change: impl Fn(&mut Confirm)) -> HandshakeFault {
    let refused = world.exchange(&mut |said| match said {
        Said::Confirm(mut confirm) => {
            change(&mut confirm);
            Some(Said::Confirm(confirm))
        }
        other => Some(other),
    });
    let Err(Refused::Acceptor(fault)) = refused else { panic!("not refused by the acceptor: {refused:?}") };
    fault
}

/// The proof of an honest handshake between the two of this world.
fn recorded_proof(world: &World) -> Proof {
    let (dialing, hello) = world.dial();
    let (_, challenge) = world.answer(hello).unwrap();
    world.prove(dialing, challenge).unwrap().1
}

/// What the hub of another world makes of a proof from this one.
fn replayed(proof: &Proof, to: &World) -> HandshakeFault {
    let (proving, _) = to.answer(to.dial().1).unwrap();
    proving.proof(proof.clone()).unwrap_err()
}

/// The transcript as it stands when the dialer signs.
fn challenged(world: &World, hello: &Hello, challenge: &Challenge) -> Challenged {
    let opened = Opened::new(&world.hub_keys, hello, challenge.version, &challenge.nonce, &challenge.session);
    opened.challenged(Party::of_challenge(challenge), &challenge.signature)
}

// Versions and channels.

#[test]
fn the_highest_common_version_is_taken() {
    let world = World::tls();
    let (_, hello) = world.dial();
    assert_eq!(world.answer(Hello { versions: vec![1, 2, 7], ..hello }).unwrap().1.version, 1);
}

#[test]
fn without_a_common_version_there_is_no_session() {
    let fault = hello_refused(&World::tls(), |hello| hello.versions = vec![2]);
    assert_eq!(fault, HandshakeFault::NoCommonVersion { offered: vec![2] });
    for malformed in [vec![], vec![2, 1], vec![1, 1]] {
        let fault = hello_refused(&World::tls(), |hello| hello.versions.clone_from(&malformed));
        assert_eq!(fault, HandshakeFault::MalformedVersions(malformed));
    }
}

#[test]
fn versions_cannot_be_edited_on_the_line() {
    let world = World::tls();
    let (dialing, hello) = world.dial();
    let (_, challenge) = world.answer(Hello { versions: vec![1, 2], ..hello }).unwrap();
    assert_eq!(world.prove(dialing, challenge).unwrap_err(), HandshakeFault::AcceptorSignature);
    let fault = challenge_refused(&world, |challenge| challenge.version = 2);
    assert_eq!(fault, HandshakeFault::VersionNotOffered { version: 2 });
}

#[test]
fn two_channels_with_somebody_between_them_are_noticed_at_once() {
    let tls = World { hub_keys: tls(8), dialer_sees: None, hub_sees: None, ..World::tls() };
    let sealed = World { hub_keys: sealed(10), ..World::sealed() };
    for world in [tls, sealed] {
        assert_eq!(world.run(), Err(Refused::Dialer(HandshakeFault::AcceptorSignature)));
    }
}

#[test]
fn a_proof_from_another_channel_of_the_same_kind_does_not_hold() {
    let tls = (World::tls(), World { hub_keys: tls(8), ..World::tls() });
    let sealed = (World::sealed(), World { hub_keys: sealed(10), ..World::sealed() });
    for (from, to) in [tls, sealed] {
        assert_eq!(replayed(&recorded_proof(&from), &to), HandshakeFault::DialerSignature);
    }
}

#[test]
fn what_was_said_in_one_kind_of_channel_is_worth_nothing_in_another() {
    let mixed = World { hub_keys: ChannelKeys::Plain, ..World::tls() };
    assert_eq!(mixed.run(), Err(Refused::Dialer(HandshakeFault::AcceptorSignature)));
    let mixed = World { dialer_keys: ChannelKeys::Plain, ..World::tls() };
    assert_eq!(mixed.run(), Err(Refused::Dialer(HandshakeFault::AcceptorSignature)));
    let worlds = [World::tls(), World::sealed(), World::plain()];
    let pairs = worlds.iter().flat_map(|from| worlds.iter().map(move |to| (from, to)));
    for (from, to) in pairs.filter(|(from, to)| from.hub_keys != to.hub_keys) {
        assert_eq!(replayed(&recorded_proof(from), to), HandshakeFault::DialerSignature);
    }
}

#[test]
fn a_certificate_with_another_key_than_the_message_is_refused_on_both_sides() {
    let other = public(&key(9));
    let world = World { dialer_sees: Some(other), ..World::tls() };
    let presented = public(&world.hub).key_id();
    let fault = HandshakeFault::TlsKeyDiffers { tls: other.key_id(), presented };
    assert_eq!(world.run(), Err(Refused::Dialer(fault)));

    let world = World { hub_sees: Some(other), ..World::tls() };
    let presented = public(&world.dialer).key_id();
    let fault = HandshakeFault::TlsKeyDiffers { tls: other.key_id(), presented };
    assert_eq!(world.run(), Err(Refused::Acceptor(fault)));
}

// Replay and relay.

#[test]
fn a_proof_counts_in_its_own_session_only() {
    let world = World::tls().with_token();
    let later = World { seed: 0x80, ..world.clone() };
    assert_eq!(replayed(&recorded_proof(&world), &later), HandshakeFault::DialerSignature);
    let (dialing, hello) = world.dial();
    let (_, challenge) = world.answer(hello).unwrap();
    for change in [|c: &mut Challenge| c.session[0] ^= 1, |c: &mut Challenge| c.nonce[0] ^= 1] {
        let mut other_session = challenge.clone();
        change(&mut other_session);
        let (waiting, _) = world.dial();
        assert_eq!(world.prove(waiting, other_session).unwrap_err(), HandshakeFault::AcceptorSignature);
    }
    assert!(world.prove(dialing, challenge).is_ok());
}

#[test]
fn a_recorded_challenge_does_not_answer_a_new_hello() {
    let world = World::tls();
    let (_, challenge) = world.answer(world.dial().1).unwrap();
    let later = World { seed: 0x80, ..world };
    assert_eq!(later.prove(later.dial().0, challenge).unwrap_err(), HandshakeFault::AcceptorSignature);
}

#[test]
fn a_hello_relayed_to_another_hub_is_refused_there() {
    let elsewhere = World { hub: key(5), ..World::tls() };
    assert_eq!(elsewhere.answer(World::tls().dial().1).unwrap_err(), HandshakeFault::WrongTarget);
}

#[test]
fn another_hub_cannot_answer_even_with_a_hello_made_for_it() {
    let world = World { hub: key(5), dialer_sees: None, ..World::tls() };
    let (dialing, mut hello) = world.dial();
    hello.target_tag = target_tag(&public(&world.hub).key_id(), &hello.nonce);
    let (_, challenge) = world.answer(hello).unwrap();
    let presented = public(&world.hub).key_id();
    let expected = HandshakeFault::WrongHub { expected: world.target, presented };
    assert_eq!(world.prove(dialing, challenge).unwrap_err(), expected);
}

#[test]
fn a_proof_made_for_one_hub_is_refused_by_another() {
    let other_hub = key(5);
    let elsewhere = World { target: public(&other_hub).key_id(), hub: other_hub, ..World::tls() };
    assert_eq!(replayed(&recorded_proof(&World::tls()), &elsewhere), HandshakeFault::DialerSignature);
}

// Reflection and roles.

#[test]
fn a_hub_recognises_its_own_challenge_when_it_comes_back_as_a_proof() {
    let world = World { hub_sees: None, ..World::tls() };
    let (proving, challenge) = world.answer(world.dial().1).unwrap();
    let reflected = Proof {
        public_key: challenge.public_key,
        instance_id: challenge.instance_id,
        capabilities: challenge.capabilities,
        signature: challenge.signature,
        pairing: None,
    };
    assert_eq!(proving.proof(reflected).unwrap_err(), HandshakeFault::OwnKey);
}

#[test]
fn an_instance_that_dials_itself_notices() {
    let own = key(1);
    let world = World { target: public(&own).key_id(), hub: own, ..World::plain() };
    assert_eq!(world.run(), Err(Refused::Dialer(HandshakeFault::OwnKey)));
}

#[test]
fn a_hello_sent_back_to_its_dialer_does_not_mean_it() {
    let world = World::tls();
    let dialer_as_hub = World { hub: world.dialer.clone(), ..world.clone() };
    assert_eq!(dialer_as_hub.answer(world.dial().1).unwrap_err(), HandshakeFault::WrongTarget);
}

#[test]
fn a_signature_counts_in_its_own_role_only() {
    let world = World::tls().with_token();
    let (dialing, hello) = world.dial();
    let (proving, challenge) = world.answer(hello.clone()).unwrap();
    let transcript = challenged(&world, &hello, &challenge);
    let (_, proof) = world.prove(dialing, challenge).unwrap();
    let signs =
        transcript.dialer_signs(&Party::of_proof(&proof), proof.pairing.as_ref().map(|p| &p.token_key));
    let as_responder =
        [b"opmesh/hs/1/responder\0", &signs.identity["opmesh/hs/1/initiator\0".len()..]].concat();
    for bytes in [as_responder, signs.token] {
        let proof = Proof { signature: sign(&world.dialer, &bytes), ..proof.clone() };
        let (proving, _) = world.answer(hello.clone()).unwrap();
        assert_eq!(proving.proof(proof).unwrap_err(), HandshakeFault::DialerSignature);
    }
    assert!(proving.proof(proof).is_ok());
}

#[test]
fn a_confirmation_counts_in_its_own_direction_only() {
    let mut heard = [0; 32];
    let refused = World::tls().exchange(&mut |said| match said {
        Said::Accepted(accepted) => {
            heard = accepted.confirmation;
            Some(Said::Accepted(accepted))
        }
        Said::Confirm(confirm) => Some(Said::Confirm(Confirm { confirmation: heard, ..confirm })),
        other => Some(other),
    });
    assert_eq!(refused, Err(Refused::Acceptor(HandshakeFault::DialerConfirmation)));
}

// Names, keys and tokens.

#[test]
fn a_name_belongs_to_the_key_that_signed_it() {
    let world = World::tls().with_token();
    let fault = challenge_refused(&world, |challenge| challenge.instance_id = "hub-2".parse().unwrap());
    assert_eq!(fault, HandshakeFault::AcceptorSignature);
    let fault = proof_refused(&world, |proof| proof.instance_id = "web-2".parse().unwrap());
    assert_eq!(fault, HandshakeFault::DialerSignature);
}

#[test]
fn somebody_elses_key_cannot_be_presented_without_holding_it() {
    let world = World { hub_sees: None, ..World::tls() };
    let fault = proof_refused(&world, |proof| proof.public_key = public(&key(9)));
    assert_eq!(fault, HandshakeFault::DialerSignature);
    let impostor = World { hub: key(5), ..World::tls() };
    let (dialing, mut hello) = impostor.dial();
    hello.target_tag = target_tag(&public(&impostor.hub).key_id(), &hello.nonce);
    let (_, challenge) = impostor.answer(hello).unwrap();
    let challenge = Challenge { public_key: public(&World::tls().hub), ..challenge };
    assert_eq!(impostor.prove(dialing, challenge).unwrap_err(), HandshakeFault::AcceptorSignature);
}

#[test]
fn a_token_proof_cannot_be_moved_to_another_key() {
    let honest = World { hub_sees: None, ..World::tls().with_token() };
    let stolen = recorded_proof(&honest).pairing;
    assert!(stolen.is_some());
    let thief = World { dialer: key(9), token: None, ..honest };
    let fault = proof_refused(&thief, |proof| proof.pairing.clone_from(&stolen));
    assert_eq!(fault, HandshakeFault::DialerSignature, "the thief's own signature does not cover the token");

    // The thief signs anew with its own key over the stolen token's public key, but lacks the token's seed.
    let (_, hello) = thief.dial();
    let (proving, challenge) = thief.answer(hello.clone()).unwrap();
    let mut proof = recorded_proof(&thief);
    let transcript = challenged(&thief, &hello, &challenge);
    let signs = transcript.dialer_signs(&Party::of_proof(&proof), stolen.as_ref().map(|p| &p.token_key));
    proof.signature = sign(&thief.dialer, &signs.identity);
    proof.pairing = stolen;
    assert_eq!(proving.proof(proof).unwrap_err(), HandshakeFault::TokenSignature);
}

#[test]
fn a_token_proof_can_neither_be_dropped_nor_added_on_the_line() {
    let world = World::tls().with_token();
    assert_eq!(proof_refused(&world, |proof| proof.pairing = None), HandshakeFault::DialerSignature);
    let pairing = recorded_proof(&world).pairing;
    let fault = proof_refused(&World::tls(), |proof| proof.pairing.clone_from(&pairing));
    assert_eq!(fault, HandshakeFault::DialerSignature);
}

#[test]
fn a_hub_refuses_a_proof_that_lacks_the_token_signature_it_announced() {
    let world = World::tls().with_token();
    let (dialing, hello) = world.dial();
    let (proving, challenge) = world.answer(hello).unwrap();
    let (signing, request) = dialing.challenge(challenge).unwrap();
    let (_, proof) = signing.signed(sign(&world.dialer, &request.identity), None);
    assert_eq!(proving.proof(proof).unwrap_err(), HandshakeFault::DialerSignature);
}

/// Points of small order: for each of them some signature holds for many messages.
fn weak_keys() -> Vec<[u8; 32]> {
    let little = |low: u8, high: u8| {
        let mut bytes = [0; 32];
        (bytes[0], bytes[31]) = (low, high);
        bytes
    };
    let mut minus_one = [0xff; 32];
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    vec![little(1, 0), little(0, 0), little(0, 0x80), minus_one]
}

/// Second spellings: y is p + k, which decodes to the point with y = k.
fn non_canonical_keys() -> Vec<[u8; 32]> {
    (0xed..=0xff)
        .flat_map(|low| [0x7f, 0xff].map(|high| (low, high)))
        .map(|(low, high)| {
            let mut bytes = [0xff; 32];
            (bytes[0], bytes[31]) = (low, high);
            bytes
        })
        .collect()
}

#[test]
fn keys_for_which_signatures_prove_nothing_are_refused_for_peers_and_tokens() {
    let world = World { hub_sees: None, ..World::tls().with_token() };
    let decodes = |bytes: &[u8; 32]| VerifyingKey::from_bytes(bytes).is_ok_and(|key| !key.is_weak());
    assert!(non_canonical_keys().iter().any(decodes), "some of them would pass without a check of their own");
    assert!(weak_keys().iter().all(|bytes| VerifyingKey::from_bytes(bytes).is_ok_and(|key| key.is_weak())));
    for bytes in weak_keys().into_iter().chain(non_canonical_keys()).chain([[2; 32]]) {
        let unusable = HandshakeFault::UnusableKey { key: PublicKey(bytes).key_id() };
        // R = the identity and S = 0: holds for a key of order 1, whatever was said.
        let mut signature = [0; 64];
        signature[0] = 1;
        let fault = proof_refused(&world, |proof| {
            (proof.public_key, proof.signature) = (PublicKey(bytes), signature);
        });
        assert_eq!(fault, unusable);

        let dialing = World { target: PublicKey(bytes).key_id(), dialer_sees: None, ..world.clone() };
        let challenge = world.answer(world.dial().1).unwrap().1;
        let challenge = Challenge { public_key: PublicKey(bytes), signature, ..challenge };
        assert_eq!(dialing.prove(dialing.dial().0, challenge).unwrap_err(), unusable);

        let (_, hello) = world.dial();
        let (proving, challenge) = world.answer(hello.clone()).unwrap();
        let mut proof = recorded_proof(&world);
        let transcript = challenged(&world, &hello, &challenge);
        let signs = transcript.dialer_signs(&Party::of_proof(&proof), Some(&PublicKey(bytes)));
        proof.signature = sign(&world.dialer, &signs.identity);
        proof.pairing = Some(PairingProof { token_key: PublicKey(bytes), signature });
        assert_eq!(proving.proof(proof).unwrap_err(), unusable);
    }
}

/// The order of the group, little-endian: S and S + L would be the same signature twice.
const GROUP_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

#[test]
fn a_signature_has_one_form_only() {
    let fault = proof_refused(&World::tls(), |proof| {
        let mut carry = 0;
        for (byte, order) in proof.signature[32..].iter_mut().zip(GROUP_ORDER) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
        }
        assert_eq!(carry, 0);
    });
    assert_eq!(fault, HandshakeFault::DialerSignature);
}

// Capabilities.

#[test]
fn unknown_capabilities_are_ignored_but_covered() {
    let world = World::tls();
    let (dialing, hello) = world.dial();
    let (_, mut challenge) = world.answer(hello.clone()).unwrap();
    challenge.capabilities = vec!["fingerprints".to_owned(), "sketches".to_owned()];
    let opened = Opened::new(&world.hub_keys, &hello, 1, &challenge.nonce, &challenge.session);
    challenge.signature = sign(&world.hub, &opened.acceptor_signs(&Party::of_challenge(&challenge)));
    let mut stripped = challenge.clone();
    stripped.capabilities.pop();
    assert!(world.prove(dialing, challenge).is_ok());
    assert_eq!(world.prove(world.dial().0, stripped).unwrap_err(), HandshakeFault::AcceptorSignature);
    let fault = proof_refused(&world, |proof| proof.capabilities.push("sketches".to_owned()));
    assert_eq!(fault, HandshakeFault::DialerSignature);
}

#[test]
fn capabilities_have_one_order_and_limits() {
    let numbered = |count: usize| (0..count).map(|n| format!("c{n:03}")).collect::<Vec<_>>();
    let malformed = [
        vec!["b".to_owned(), "a".to_owned()],
        vec!["a".to_owned(), "a".to_owned()],
        vec![String::new()],
        vec!["x".repeat(MAX_CAPABILITY_BYTES + 1)],
        numbered(MAX_CAPABILITIES + 1),
    ];
    for names in malformed {
        let fault = proof_refused(&World::tls(), |proof| proof.capabilities.clone_from(&names));
        assert_eq!(fault, HandshakeFault::MalformedCapabilities);
        let fault = challenge_refused(&World::tls(), |challenge| challenge.capabilities.clone_from(&names));
        assert_eq!(fault, HandshakeFault::MalformedCapabilities);
    }
    for names in [vec!["x".repeat(MAX_CAPABILITY_BYTES)], numbered(MAX_CAPABILITIES)] {
        let fault = proof_refused(&World::tls(), |proof| proof.capabilities.clone_from(&names));
        assert_eq!(fault, HandshakeFault::DialerSignature, "well-formed, but added on the line");
    }
}

// Grants and confirmations.

#[test]
fn grants_cannot_be_changed_moved_or_dropped_on_the_line() {
    let changes: [fn(&mut Accepted); 4] = [
        |accepted| accepted.grants.clear(),
        |accepted| accepted.grants.push("READ_OPERATIONS:*".to_owned()),
        |accepted| accepted.accepted_scopes = "*".to_owned(),
        |accepted| accepted.accepted_scopes = std::mem::take(&mut accepted.grants).concat(),
    ];
    for change in changes {
        assert_eq!(accepted_refused(&World::tls(), change), HandshakeFault::AcceptorConfirmation);
    }
    let fault =
        confirm_refused(&World::tls(), |confirm| confirm.grants = vec!["READ_OPERATIONS:*".to_owned()]);
    assert_eq!(fault, HandshakeFault::DialerConfirmation);
}

#[test]
fn a_list_cannot_be_cut_differently() {
    let split = |text: &str| text.split('|').map(str::to_owned).collect::<Vec<_>>();
    let world = World::tls();
    let (dialing, hello) = world.dial();
    let (proving, challenge) = world.answer(hello).unwrap();
    let (accepting, proof) = world.prove(dialing, challenge).unwrap();
    let (authorizing, _) = proving.proof(proof).unwrap();
    let (_, accepted) = authorizing.authorized(split("ab|c"), Scopes::nothing());
    let recut = Accepted { grants: split("a|bc"), ..accepted };
    assert_eq!(accepting.accepted(recut).unwrap_err(), HandshakeFault::AcceptorConfirmation);
}

#[test]
fn confirmations_need_the_key_of_the_channel() {
    let ChannelKeys::Tls { exporter, .. } = tls(7) else { unreachable!() };
    let world = World { hub_keys: ChannelKeys::Tls { exporter, confirm: [0; 32] }, ..World::tls() };
    assert_eq!(world.run(), Err(Refused::Dialer(HandshakeFault::AcceptorConfirmation)));
}

/// What the dialer makes of a hub that confirms scopes that are none.
fn malformed_scopes() -> HandshakeFault {
    let world = World::tls();
    let (dialing, hello) = world.dial();
    let (_, challenge) = world.answer(hello.clone()).unwrap();
    let transcript = challenged(&world, &hello, &challenge);
    let (accepting, proof) = world.prove(dialing, challenge).unwrap();
    let text = "!repo:a".to_owned();
    let confirmation = transcript.proved(&proof).confirmation(&[], &text);
    accepting.accepted(Accepted { grants: Vec::new(), accepted_scopes: text, confirmation }).unwrap_err()
}

#[test]
fn a_hub_that_confirms_a_malformed_scope_list_is_refused() {
    let fault = ScopeFault::OnlyExclusions("!repo:a".to_owned());
    assert_eq!(malformed_scopes(), HandshakeFault::MalformedScopes { text: "!repo:a".to_owned(), fault });
}

// All of them.

/// A number for each fault: a new one does not compile before it has one, and is not proved before it is provoked.
const fn number(fault: &HandshakeFault) -> usize {
    match fault {
        HandshakeFault::MalformedVersions(_) => 0,
        HandshakeFault::NoCommonVersion { .. } => 1,
        HandshakeFault::WrongTarget => 2,
        HandshakeFault::VersionNotOffered { .. } => 3,
        HandshakeFault::WrongHub { .. } => 4,
        HandshakeFault::OwnKey => 5,
        HandshakeFault::TlsKeyDiffers { .. } => 6,
        HandshakeFault::MalformedCapabilities => 7,
        HandshakeFault::UnusableKey { .. } => 8,
        HandshakeFault::AcceptorSignature => 9,
        HandshakeFault::DialerSignature => 10,
        HandshakeFault::TokenSignature => 11,
        HandshakeFault::AcceptorConfirmation => 12,
        HandshakeFault::MalformedScopes { .. } => 13,
        HandshakeFault::DialerConfirmation => 14,
    }
}

#[test]
fn every_fault_can_be_provoked() {
    let world = World::tls().with_token();
    let unseen = World { hub_sees: None, dialer_sees: None, ..world.clone() };
    let provoked = [
        hello_refused(&world, |hello| hello.versions.clear()),
        hello_refused(&world, |hello| hello.versions = vec![2]),
        hello_refused(&world, |hello| hello.target_tag[0] ^= 1),
        challenge_refused(&world, |challenge| challenge.version = 2),
        challenge_refused(&unseen, |challenge| challenge.public_key = public(&key(9))),
        proof_refused(&unseen, |proof| proof.public_key = public(&key(2))),
        proof_refused(&world, |proof| proof.public_key = public(&key(9))),
        proof_refused(&world, |proof| proof.capabilities.push(String::new())),
        proof_refused(&unseen, |proof| proof.public_key = PublicKey([0; 32])),
        challenge_refused(&world, |challenge| challenge.signature[0] ^= 1),
        proof_refused(&world, |proof| proof.signature[0] ^= 1),
        proof_refused(&world, |proof| proof.pairing.as_mut().unwrap().signature[0] ^= 1),
        accepted_refused(&world, |accepted| accepted.confirmation[0] ^= 1),
        malformed_scopes(),
        confirm_refused(&world, |confirm| confirm.confirmation[0] ^= 1),
    ];
    for (expected, fault) in provoked.iter().enumerate() {
        assert_eq!(number(fault), expected, "{fault}");
    }
}
