//! A hundred revocations on real processes while operations flow: the session is over within a second, nothing that
//! comes after the revoking transaction is committed, the next attempt is refused, and what is allowed again is seen.

#![expect(clippy::disallowed_methods, reason = "the issue asks for a second, by the clock")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use opmesh::admin::{Client, daemon, pb};
use opmesh::places::Places;
use rusqlite::{Connection, OpenFlags};
use tokio::task::JoinHandle;

use crate::fleet::{Instance, PATIENCE, create};

/// What the issue asks for.
const ENDED_WITHIN: Duration = Duration::from_secs(1);
/// So many operations are on their way when a revocation strikes.
const BATCH: usize = 1_500;

/// Handshakes here are far more frequent than any honest host's.
const LIMITS: &str = "[limits]
attempts_per_minute = 100000
attempts_per_minute_per_address = 100000
attempts_per_minute_per_key = 100000
";

/// A hub and one host, each a real process, with a line to each one's daemon.
struct Pair {
    hub: Instance,
    host: Arc<Instance>,
    to_hub: Client,
    to_host: Client,
    hub_key: String,
    host_key: String,
    url: String,
}

impl Pair {
    async fn new() -> Self {
        let mut hub = Instance::new("hub");
        std::fs::write(hub.dir.join("opmesh.toml"), LIMITS).unwrap();
        let url = hub.serve_hub("127.0.0.1:0");
        let mut host = Instance::new("busy");
        host.serve("none");
        host.join(&hub, &url, &[]);
        let key = |of: &Instance| of.ok(&["key", "show"]).lines().next().unwrap().trim().to_owned();
        let (hub_key, host_key) = (key_id(&key(&hub)), key_id(&key(&host)));
        let to_hub = daemon(&Places::within(&hub.dir)).await.unwrap();
        let to_host = daemon(&Places::within(&host.dir)).await.unwrap();
        let pair = Self { hub, host: Arc::new(host), to_hub, to_host, hub_key, host_key, url };
        pair.until_live().await;
        pair
    }

    async fn state_at_host(&self) -> String {
        let status = self.to_host.status(pb::StatusRequest {}).await.unwrap();
        let hub = status.peers.iter().find(|peer| peer.role == "known_host");
        hub.map_or_else(|| "gone".to_owned(), |hub| hub.state.clone())
    }

    async fn until_state(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Duration {
        let began = now();
        loop {
            let state = self.state_at_host().await;
            if wanted(&state) {
                return began.elapsed();
            }
            assert!(began.elapsed() < PATIENCE, "never {what}: {state}\n{}", self.hub.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_live(&self) {
        self.until_state("live", |state| state == "live").await;
    }

    /// The host dials now, whatever it was waiting for.
    async fn redial(&self) {
        let request = pb::SetPeerRequest {
            peer: self.hub_key.clone(),
            urls: vec![self.url.clone()],
            ..pb::SetPeerRequest::default()
        };
        self.to_host.set_peer(request).await.unwrap();
    }

    /// Live rows that the hub holds of the host, by its database: what is committed is there.
    fn held(&self) -> u64 {
        self.ask("SELECT count(*) FROM operations WHERE owner <> 1")
    }

    /// Rows that the hub stored later than the record of its last revocation.
    fn stored_after_the_revocation(&self) -> u64 {
        self.ask(
            "SELECT (SELECT count(*) FROM operations WHERE owner <> 1 AND received_unix_ms > last.at)
                  + (SELECT count(*) FROM parked WHERE received_unix_ms > last.at)
             FROM (SELECT max(at_unix_ms) AS at FROM audit
                   WHERE event IN ('peer_blocked', 'peer_unverified', 'peer_removed')) AS last",
        )
    }

    fn ask(&self, sql: &str) -> u64 {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let database = Connection::open_with_flags(self.hub.dir.join("opmesh.db"), flags).unwrap();
        let answer: i64 = database.query_row(sql, [], |row| row.get(0)).unwrap();
        u64::try_from(answer).unwrap()
    }

    /// One more attempt of the host, which is turned away.
    async fn tries_in_vain(&self) {
        let refusals = || self.host.log().matches("the hub refused us").count();
        let before = refusals();
        self.redial().await;
        let began = now();
        while refusals() == before {
            assert!(began.elapsed() < PATIENCE, "no attempt was refused: {}", self.host.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(self.state_at_host().await, "refused");
    }

    /// Records a batch at the host, and returns once the hub has begun to store it; the rest follows meanwhile.
    async fn flow(&self, plan: &str) -> JoinHandle<()> {
        let before = self.held();
        let lines: String = (0..BATCH).map(|n| create("r", plan, &format!("run {n}"))).collect();
        let host = self.host.clone();
        let recording = tokio::task::spawn_blocking(move || drop(host.apply(&lines)));
        let began = now();
        while self.held() == before {
            assert!(began.elapsed() < PATIENCE, "no operation arrives");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        recording
    }
}

fn key_id(line: &str) -> String {
    line.split_whitespace().find(|word| word.starts_with("ed25519.")).unwrap().to_owned()
}

fn now() -> Instant {
    Instant::now()
}

/// How the hub's operator revokes.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Block,
    Unverify,
    Remove,
}

impl Deed {
    async fn perform(self, pair: &Pair) {
        let (hub, peer) = (&pair.to_hub, pair.host_key.clone());
        match self {
            Self::Block => {
                hub.block_peer(pb::BlockPeerRequest { peer, reason: "test".to_owned() }).await.unwrap();
            }
            Self::Unverify => drop(hub.unverify_peer(pb::UnverifyPeerRequest { peer }).await.unwrap()),
            Self::Remove => drop(hub.remove_peer(pb::RemovePeerRequest { peer }).await.unwrap()),
        }
    }

    async fn undo(self, pair: &Pair) {
        let (hub, peer) = (&pair.to_hub, pair.host_key.clone());
        let verify = pb::VerifyPeerRequest { peer: peer.clone(), key_id: peer.clone() };
        match self {
            Self::Block => drop(hub.unblock_peer(pb::UnblockPeerRequest { peer }).await.unwrap()),
            Self::Unverify => drop(hub.verify_peer(verify).await.unwrap()),
            Self::Remove => {
                let add = pb::AddPeerRequest { key_id: peer, ..pb::AddPeerRequest::default() };
                hub.add_peer(add).await.unwrap();
                hub.verify_peer(verify).await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_revocations_under_load_end_the_session_at_once_and_let_nothing_in() {
    let pair = Pair::new().await;
    let (mut slowest, mut in_flight) = (Duration::ZERO, 0);
    for round in 0..81 {
        let deed = [Deed::Block, Deed::Unverify, Deed::Remove][round % 3];
        let recording = pair.flow("p").await;
        deed.perform(&pair).await;
        let frozen = pair.held();
        let more = !recording.is_finished();
        let ended = pair.until_state("ended", |state| state != "live" && state != "catching_up").await;
        assert!(ended <= ENDED_WITHIN, "round {round}, {deed:?}: ended after {ended:?}");
        slowest = slowest.max(ended);
        pair.tries_in_vain().await;
        assert_eq!((pair.held(), pair.stored_after_the_revocation()), (frozen, 0), "round {round}, {deed:?}");
        recording.await.unwrap();
        let status = pair.to_host.status(pb::StatusRequest {}).await.unwrap();
        in_flight += usize::from(more || status.count > frozen);
        assert_eq!((pair.held(), pair.stored_after_the_revocation()), (frozen, 0), "round {round}, {deed:?}");
        deed.undo(&pair).await;
        pair.redial().await;
        pair.until_live().await;
    }
    crate::fleet::until_equal(&pair.hub, &pair.host);
    println!("81 revocations by the hub: {in_flight} with operations under way, slowest end {slowest:?}");
    assert!(in_flight >= 40, "only {in_flight} revocations struck while operations were under way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_host_takes_back_ends_the_session_at_once_and_leaves_the_view() {
    let pair = Pair::new().await;
    let (mut slowest, mut slowest_end) = (Duration::ZERO, Duration::ZERO);
    let sessions_over = || pair.hub.log().matches("a session ended").count();
    let grant = |grant: &str| pb::GrantPeerRequest { peer: pair.hub_key.clone(), grant: grant.to_owned() };
    for round in 0..19 {
        let secret = format!("secret-{round}");
        pair.flow(&secret).await.await.unwrap();
        let over = sessions_over();
        let ended = match round % 3 {
            0 => {
                let peer = pair.hub_key.clone();
                let request = pb::RevokePeerRequest { peer, grant: "READ_OPERATIONS".to_owned() };
                pair.to_host.revoke_peer(request).await.unwrap();
                now()
            }
            1 => {
                let narrow = format!("READ_OPERATIONS:*,!plan:{secret}");
                pair.to_host.grant_peer(grant(&narrow)).await.unwrap();
                now()
            }
            _ => {
                let request = pb::BlockPeerRequest { peer: pair.hub_key.clone(), reason: String::new() };
                pair.to_host.block_peer(request).await.unwrap();
                now()
            }
        };
        while sessions_over() == over {
            assert!(ended.elapsed() <= ENDED_WITHIN, "round {round}: the session goes on");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        slowest_end = slowest_end.max(ended.elapsed());
        // Nothing that is recorded from now on may reach the hub.
        pair.host.apply(&create("r", &secret, "after"));
        if round % 3 == 2 {
            pair.until_state("blocked", |state| state == "blocked").await;
        }
        // A session with another view begins at once: that the old one is over shows at the hub, which sets aside
        // what left the view, or in its log.
        while round % 3 < 2 && pair.ask(&live_in(&secret)) > 0 {
            assert!(ended.elapsed() < PATIENCE, "round {round}: still there");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if round % 3 < 2 {
            slowest = slowest.max(ended.elapsed());
        }
        let sneaked = format!(
            "SELECT (SELECT count(*) FROM operations AS o JOIN groups AS g ON g.group_id = o.group_id
                     WHERE o.owner <> 1 AND g.plan_id = '{secret}' AND instr(CAST(o.record AS TEXT), 'after') > 0)
                  + (SELECT count(*) FROM parked AS o JOIN groups AS g ON g.group_id = o.group_id
                     WHERE g.plan_id = '{secret}' AND instr(CAST(o.record AS TEXT), 'after') > 0)"
        );
        assert_eq!(pair.ask(&sneaked), 0, "round {round}");
        if round % 3 == 2 {
            let peer = pair.hub_key.clone();
            pair.to_host.unblock_peer(pb::UnblockPeerRequest { peer }).await.unwrap();
        }
        pair.to_host.grant_peer(grant("READ_OPERATIONS:*")).await.unwrap();
        pair.until_live().await;
        crate::fleet::until_equal(&pair.hub, &pair.host);
    }
    println!(
        "19 revocations by the host: slowest end {slowest_end:?}, set aside at the hub within {slowest:?}"
    );
}

fn live_in(plan: &str) -> String {
    format!(
        "SELECT count(*) FROM operations AS o JOIN groups AS g ON g.group_id = o.group_id
         WHERE o.owner <> 1 AND g.plan_id = '{plan}'"
    )
}
