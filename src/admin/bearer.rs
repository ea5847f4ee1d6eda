//! Bearer tokens of the admin listener: what they look like, whether one is good, and who has failed too often.
//!
//! Only the hash of a token is kept, and it is found by that hash: nothing is compared byte by byte. Whoever fails
//! hears one text, whatever was wrong; the audit log says what it was, so many records a minute and the rest as a
//! number.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use opmesh_core::model::UnixMs;
use tokio_util::sync::CancellationToken;

use super::error::{Failure, Reason};
use super::guard::Role;
use super::tcp::Caller;
use crate::node::Node;
use crate::store::{AuditEvent, AuditKind};

/// What every token begins with, so that one that leaked is recognised.
const PREFIX: &str = "opmesh_admin_";
/// Before the token in the `authorization` header.
const SCHEME: &str = "Bearer ";
/// Failures of one address within [`WINDOW`] before it is refused without a look.
const FAILURES: u32 = 10;
/// See [`FAILURES`].
const WINDOW: Duration = Duration::from_mins(1);
/// Addresses whose failures are counted one by one; further ones share a count.
const ADDRESSES: usize = 1024;
/// How soon the connections of a token that was revoked or has expired are closed.
const RECHECK: Duration = Duration::from_secs(1);
/// Tokens that one connection may show: a proxy's callers need one connection each.
const TOKENS_ON_A_CONNECTION: usize = 8;
/// How exact the time of a token's last use is: a monitor that asks each second writes once a minute.
const USE_STEP_MS: i64 = 60_000;

/// A token, as its holder has it.
pub(super) struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secret").finish_non_exhaustive()
    }
}

impl Secret {
    /// 256 random bits.
    pub(super) fn random() -> Result<Self, Failure> {
        let mut bits = [0; 32];
        getrandom::fill(&mut bits)
            .map_err(|error| Failure::new(Reason::Internal, format!("no random numbers: {error}")))?;
        Ok(Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bits))))
    }

    /// The token itself, for the one time when it is shown.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub(super) fn hash(&self) -> [u8; 32] {
        blake3::hash(self.0.as_bytes()).into()
    }

    /// From an `authorization` header.
    fn of_header(header: &str) -> Option<Self> {
        let token = header.strip_prefix(SCHEME)?;
        token.starts_with(PREFIX).then(|| Self(token.to_owned()))
    }
}

/// Decides about callers of the admin listener.
#[derive(Debug)]
pub(super) struct Bearers {
    node: Node,
    failures: Mutex<Failures>,
}

impl Bearers {
    pub(super) fn new(node: Node) -> Self {
        Self { node, failures: Mutex::default() }
    }

    /// Whose listener it is.
    pub(super) const fn node(&self) -> &Node {
        &self.node
    }

    /// What the caller may do, by its `authorization` header.
    pub(super) async fn role(&self, caller: &Caller, header: Option<&str>) -> Result<Role, Failure> {
        let address = caller.address;
        match self.judge(header).await? {
            // Whoever shares an address with a guesser is not kept out by him: there is nothing to guess.
            Ok((role, hash)) => {
                caller.shown.add(hash)?;
                Ok(role)
            }
            Err(_) if self.failures().is_blocked(address, self.node.clock().monotonic()) => {
                Err(Failure::new(Reason::Limit, "too many calls without a valid token came from here")
                    .hint("wait a minute"))
            }
            Err(wrong) => {
                self.failed(address, &wrong).await?;
                Err(Failure::new(Reason::Unauthenticated, "this listener needs a valid admin token").hint(
                    "send `authorization: Bearer …`; `opmesh admin token create` on the host makes a token",
                ))
            }
        }
    }

    /// The role and the token's hash, or what is wrong with the credential.
    async fn judge(&self, header: Option<&str>) -> Result<Result<(Role, [u8; 32]), String>, Failure> {
        let Some(header) = header else { return Ok(Err("no token".to_owned())) };
        let Some(secret) = Secret::of_header(header) else { return Ok(Err("no admin token".to_owned())) };
        let store = self.node.store();
        let hash = secret.hash();
        let Some(token) = store.find_admin_token(hash).await? else {
            return Ok(Err("an unknown or revoked token".to_owned()));
        };
        let now = self.node.clock().wall();
        if token.expires <= now {
            return Ok(Err(format!("token {}, which has expired", token.id)));
        }
        let Some(role) = Role::from_name(&token.role) else {
            return Ok(Err(format!("token {} with the unknown role {:?}", token.id, token.role)));
        };
        if token.used.is_none_or(|UnixMs(used)| now.0.saturating_sub(used) >= USE_STEP_MS) {
            store.note_admin_token_used(token.id).await?;
        }
        Ok(Ok((role, hash)))
    }

    async fn failed(&self, address: IpAddr, wrong: &str) -> Result<(), Failure> {
        self.failures().failed(address, self.node.clock().monotonic());
        tracing::info!(%address, wrong, "a call of the admin service was refused");
        let detail = format!("{address} came with {wrong}");
        self.node
            .store()
            .note_refusal(AuditEvent { event: AuditKind::AdminRefused, peer: None, detail })
            .await?;
        Ok(())
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tokens that a connection has shown; shared by the connection and the guard.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown {
    hashes: Arc<Mutex<Vec<[u8; 32]>>>,
    first: CancellationToken,
}

impl Shown {
    fn add(&self, hash: [u8; 32]) -> Result<(), Failure> {
        let mut hashes = self.hashes();
        if !hashes.contains(&hash) {
            if hashes.len() >= TOKENS_ON_A_CONNECTION {
                let text = format!("{TOKENS_ON_A_CONNECTION} tokens were shown on this connection already");
                return Err(Failure::new(Reason::Limit, text).hint("open another connection"));
            }
            hashes.push(hash);
        }
        self.first.cancel();
        Ok(())
    }

    fn hashes(&self) -> MutexGuard<'_, Vec<[u8; 32]>> {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the connection must go: nobody showed a valid token within `patience`, or one that was shown is
    /// valid no more. With it go the calls that are under way.
    pub(super) async fn over(self, node: Node, patience: Duration) {
        if tokio::time::timeout(patience, self.first.cancelled()).await.is_err() {
            return;
        }
        loop {
            tokio::time::sleep(RECHECK).await;
            let hashes = self.hashes().clone();
            for hash in hashes {
                // A store that cannot be read stops the daemon; until then nobody stays without a look.
                let Ok(Some(token)) = node.store().find_admin_token(hash).await else { return };
                if token.expires <= node.clock().wall() {
                    return;
                }
            }
        }
    }
}

/// Who failed how often. Remembered, not stored: a new process begins with a new minute.
#[derive(Debug, Default)]
struct Failures {
    by_network: HashMap<IpAddr, Window>,
}

/// A count that begins anew each minute.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    began: Duration,
    count: u32,
}

impl Window {
    fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.began) >= WINDOW
    }

    /// One more.
    fn add(&mut self, now: Duration) {
        if self.count == 0 || self.is_over(now) {
            *self = Self { began: now, count: 0 };
        }
        self.count = self.count.saturating_add(1);
    }
}

impl Failures {
    fn is_blocked(&self, address: IpAddr, now: Duration) -> bool {
        let window = self.by_network.get(&self.counted_as(address));
        window.is_some_and(|window| window.count >= FAILURES && !window.is_over(now))
    }

    fn failed(&mut self, address: IpAddr, now: Duration) {
        if self.by_network.len() >= ADDRESSES {
            self.by_network.retain(|_, window| !window.is_over(now));
        }
        let network = self.counted_as(address);
        self.by_network.entry(network).or_default().add(now);
    }

    /// An IPv4 address, or the /64 network of an IPv6 address; when there are too many, all others together.
    fn counted_as(&self, address: IpAddr) -> IpAddr {
        let network = match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        };
        let is_counted = self.by_network.contains_key(&network) || self.by_network.len() < ADDRESSES;
        if is_counted { network } else { Ipv6Addr::UNSPECIFIED.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn ten_failures_within_a_minute_keep_an_address_out_until_the_minute_is_over() {
        let mut failures = Failures::default();
        let (one, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for second in 0..9 {
            failures.failed(one, seconds(second));
            assert!(!failures.is_blocked(one, seconds(second)), "{second}");
        }
        failures.failed(one, seconds(9));
        assert!(failures.is_blocked(one, seconds(59)) && !failures.is_blocked(other, seconds(59)));
        assert!(failures.is_blocked("::ffff:192.0.2.1".parse().unwrap(), seconds(59)));
        assert!(!failures.is_blocked(one, seconds(60)));
        failures.failed(one, seconds(60));
        assert!(!failures.is_blocked(one, seconds(60)), "a new minute, a new count");
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let mut failures = Failures::default();
        for host in 0..10 {
            failures.failed(format!("2001:db8::{host}").parse().unwrap(), seconds(0));
        }
        assert!(failures.is_blocked("2001:db8::ffff".parse().unwrap(), seconds(1)));
        assert!(!failures.is_blocked("2001:db8:0:1::1".parse().unwrap(), seconds(1)));
    }

    #[test]
    fn however_many_addresses_fail_few_are_remembered_and_the_rest_share_a_count() {
        let mut failures = Failures::default();
        let address = |number: u32| IpAddr::V4(std::net::Ipv4Addr::from_bits(number));
        for number in 0..5000 {
            failures.failed(address(number), seconds(1));
        }
        assert!(failures.by_network.len() <= ADDRESSES + 1);
        assert!(failures.is_blocked(address(9999), seconds(2)), "one more of very many");
        assert!(!failures.is_blocked(address(9999), seconds(61)));
    }

    #[test]
    fn a_token_is_recognised_in_its_header_and_by_its_hash_alone() {
        let secret = Secret::random().unwrap();
        assert_eq!(secret.reveal().len(), PREFIX.len() + 43);
        assert!(!format!("{secret:?}").contains(secret.reveal()));
        let header = format!("Bearer {}", secret.reveal());
        assert_eq!(Secret::of_header(&header).unwrap().hash(), secret.hash());
        assert_ne!(Secret::random().unwrap().hash(), secret.hash());
        for other in ["", "Bearer x", "bearer opmesh_admin_x", "opmesh_admin_x", "Basic opmesh_admin_x"] {
            assert!(Secret::of_header(other).is_none(), "{other}");
        }
    }
}
