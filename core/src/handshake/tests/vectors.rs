//! The values of `docs/handshake-vectors.json`, so that another language can hold its own against them.
//!
//! The messages come out of the two state machines; the values between them are computed once more from the messages.
//! When the layout changes on purpose, the failing test prints the new file.

use std::fmt::Write as _;

use super::super::transcript::{Opened, Party};
use super::*;

const WRITTEN: &str = include_str!("../../../../docs/handshake-vectors.json");

/// One object of the file, line by line.
#[derive(Default)]
struct Object(Vec<String>);

impl Object {
    fn text(&mut self, name: &str, value: &str) {
        self.0.push(format!("{name:?}: {value:?}"));
    }

    fn hex(&mut self, name: &str, bytes: &[u8]) {
        let text = bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        });
        self.text(name, &text);
    }

    fn list(&mut self, name: &str, values: &[String]) {
        self.0.push(format!("{name:?}: {values:?}"));
    }

    fn null(&mut self, name: &str) {
        self.0.push(format!("{name:?}: null"));
    }

    fn seed(&mut self, name: &str, key: Option<&SigningKey>) {
        match key {
            Some(key) => self.hex(name, key.as_bytes()),
            None => self.null(name),
        }
    }
}

/// The five messages of a handshake that succeeds.
fn messages(world: &World) -> (Hello, Challenge, Proof, Accepted, Confirm) {
    let mut all = Vec::new();
    let mut line = |said: Said| {
        all.push(said.clone());
        Some(said)
    };
    assert!(world.exchange(&mut line).is_ok());
    let Ok(
        [
            Said::Hello(hello),
            Said::Challenge(challenge),
            Said::Proof(proof),
            Said::Accepted(accepted),
            Said::Confirm(confirm),
        ],
    ) = <[Said; 5]>::try_from(all)
    else {
        panic!("five messages in order")
    };
    (hello, challenge, proof, accepted, confirm)
}

fn inputs(out: &mut Object, world: &World) {
    out.text("suite", world.hub_keys.suite());
    out.seed("dialer_seed", Some(&world.dialer));
    out.seed("acceptor_seed", Some(&world.hub));
    out.seed("token_seed", world.token.as_ref());
    match &world.hub_keys {
        ChannelKeys::Tls { exporter: binding, confirm } | ChannelKeys::Sealed { binding, confirm } => {
            out.hex("channel_binding", binding);
            out.hex("channel_confirmation_key", confirm);
        }
        ChannelKeys::Plain => {
            out.null("channel_binding");
            out.null("channel_confirmation_key");
        }
    }
}

/// One handshake with every value on its way.
fn vector(world: &World) -> Object {
    let (hello, challenge, proof, accepted, confirm) = messages(world);
    let mut out = Object::default();
    inputs(&mut out, world);
    let (acceptor, dialer) = (Party::of_challenge(&challenge), Party::of_proof(&proof));
    out.text("acceptor_key_id", &acceptor.key.key_id().to_string());
    out.text("dialer_key_id", &dialer.key.key_id().to_string());

    out.0.push(format!("\"hello_versions\": {:?}", hello.versions));
    out.hex("hello_nonce", &hello.nonce);
    out.hex("hello_target_tag", &hello.target_tag);

    out.0.push(format!("\"challenge_version\": {}", challenge.version));
    out.hex("challenge_nonce", &challenge.nonce);
    out.hex("challenge_session", &challenge.session);
    out.hex("challenge_public_key", &challenge.public_key.0);
    out.text("challenge_instance_id", challenge.instance_id.as_str());
    out.list("challenge_capabilities", &challenge.capabilities);
    let opened =
        Opened::new(&world.hub_keys, &hello, challenge.version, &challenge.nonce, &challenge.session);
    out.hex("th1", &opened.history);
    out.hex("acceptor_signs", &opened.acceptor_signs(&acceptor));
    out.hex("challenge_signature", &challenge.signature);

    let challenged = opened.challenged(acceptor, &challenge.signature);
    out.hex("th2", &challenged.history);
    out.hex("proof_public_key", &proof.public_key.0);
    out.text("proof_instance_id", proof.instance_id.as_str());
    out.list("proof_capabilities", &proof.capabilities);
    let token = proof.pairing.as_ref().map(|pairing| pairing.token_key);
    let signs = challenged.dialer_signs(&dialer, token.as_ref());
    out.hex("dialer_signs", &signs.identity);
    out.hex("proof_signature", &proof.signature);
    if let Some(pairing) = &proof.pairing {
        out.hex("pairing_token_key", &pairing.token_key.0);
        out.hex("token_signs", &signs.token);
        out.hex("pairing_signature", &pairing.signature);
    } else {
        for name in ["pairing_token_key", "token_signs", "pairing_signature"] {
            out.null(name);
        }
    }

    let proved = challenged.proved(&proof);
    out.hex("th3", &proved.history);
    out.hex("confirmation_key", &proved.confirmation_key.0);
    out.list("accepted_grants", &accepted.grants);
    out.text("accepted_scopes", &accepted.accepted_scopes);
    out.hex("accepted_confirmation", &accepted.confirmation);
    let closing = proved.accepted(&accepted);
    out.hex("th4", &closing.history);
    out.list("confirm_grants", &confirm.grants);
    out.hex("confirm_confirmation", &confirm.confirmation);
    out
}

#[test]
fn the_written_vectors_are_what_the_handshake_computes() {
    let objects = [World::tls().with_token(), World::sealed().with_token(), World::plain()]
        .map(|world| format!("  {{\n    {}\n  }}", vector(&world).0.join(",\n    ")));
    let computed = format!("[\n{}\n]\n", objects.join(",\n"));
    assert!(computed == WRITTEN, "docs/handshake-vectors.json should be:\n{computed}");
}
