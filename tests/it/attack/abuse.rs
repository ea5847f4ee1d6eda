//! A listed peer keeps syncing whatever others do, and the hub's memory stays bounded.
//!
//! A hub and a host are real processes. While the host records operations, an attacker does one thing after the other
//! for `OPMESH_ABUSE_SECONDS` each (2, so that a test run stays short; `.ci/run` has 20), from addresses of its own:
//! as a stranger, and with a listed key, which gets past the limits on strangers. After each it is printed how long
//! the host's operations took to the hub, and how much memory the hub has used at most.

use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use opmesh::identity::Identity;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Target;
use super::flood::{Flood, Flooded, flood};
use super::stages::{Stage, hold, hold_listed};
use crate::fleet::{Instance, create, held_rows, until, until_equal};

/// An operation of a listed peer is at the hub after this time at the latest, under every attack.
const LAG: Duration = Duration::from_secs(5);
/// A listed peer that was restarted is connected again after this time at the latest, under attack.
const RETURN: Duration = Duration::from_secs(15);
/// What the hub may use at most, over all attacks.
const MEMORY_KIB: u64 = 256 * 1024;
/// Between two operations of the host.
const EVERY: Duration = Duration::from_millis(200);
/// A handshake is over after 10 s, and the attacker hears of it a moment later.
const LONGEST_HOLD: Duration = Duration::from_secs(11);
/// Addresses of strangers that stall: few enough that none has to make room, so that each is held to its deadline.
const PATIENT: u8 = 60;
/// And so many that most of them find no room.
const CROWD: u8 = 200;
/// Listed keys that attack.
const TRAITORS: u8 = 4;

fn duration() -> Duration {
    let seconds = std::env::var("OPMESH_ABUSE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(2))
}

pub(super) fn traitor(number: u8) -> Identity {
    Identity::from_seed(&[100 + number; 32])
}

/// Lets a key in.
pub(super) fn list(hub: &Instance, who: &Identity) {
    let id = who.key_id().to_string();
    hub.ok(&["peer", "add", "--key-id", &id]);
    hub.ok(&["peer", "verify", &id, "--key-id", &id]);
}

/// What arrives at the hub, as it arrives.
struct Watch {
    child: Child,
    messages: Receiver<String>,
}

impl Watch {
    fn begin(hub: &Instance) -> Self {
        let mut child = hub
            .command(&["--json", "ops", "watch"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (out, messages) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event: Value = serde_json::from_str(&line).unwrap();
                out.send(event["operation"]["message"].as_str().unwrap_or_default().to_owned()).ok();
            }
        });
        Self { child, messages }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A host that works while others attack.
struct Victim<'a> {
    hub: &'a Instance,
    host: &'a Instance,
    watch: Watch,
    recorded: u64,
}

impl Victim<'_> {
    /// Records operations until `end`; how long each took from being durable here to being seen at the hub.
    #[expect(clippy::disallowed_methods, reason = "the lag is what is measured")]
    fn work(&mut self, end: Instant) -> Vec<Duration> {
        let mut lags = Vec::new();
        while Instant::now() < end {
            self.recorded += 1;
            let message = format!("operation {}", self.recorded);
            self.host.apply(&create("repo", "plan", &message));
            let durable = Instant::now();
            while let Ok(seen) = self.messages(LAG.saturating_sub(durable.elapsed())) {
                if seen == message {
                    break;
                }
            }
            let lag = durable.elapsed();
            assert!(lag < LAG, "{message} took {lag:?}\n{}", self.hub.log());
            lags.push(lag);
            std::thread::sleep(EVERY);
        }
        lags.sort();
        lags
    }

    fn messages(&self, patience: Duration) -> Result<String, std::sync::mpsc::RecvTimeoutError> {
        self.watch.messages.recv_timeout(patience)
    }
}

/// The most memory that the hub has used, from `/proc`.
fn peak_kib(hub: &Instance) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", hub.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Open sockets of the hub, from `/proc`.
fn sockets(hub: &Instance) -> usize {
    let Ok(files) = std::fs::read_dir(format!("/proc/{}/fd", hub.pid())) else { return 0 };
    let targets = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// The hub under attack, with its only honest host.
struct Siege<'a> {
    victim: Victim<'a>,
    attackers: tokio::runtime::Runtime,
    target: Target,
}

impl Siege<'_> {
    /// Runs one attack beside the host's work, and prints how both went. The attack returns what it has to say.
    #[expect(clippy::disallowed_methods, reason = "the attack's end")]
    fn under<A>(&mut self, name: &str, attack: impl FnOnce(Target, Instant) -> A)
    where
        A: Future<Output = String> + Send + 'static,
    {
        let end = Instant::now() + duration();
        let mut attacking = JoinSet::new();
        attacking.spawn_on(attack(self.target, end), self.attackers.handle());
        let lags = self.victim.work(end);
        let said = self.attackers.block_on(attacking.join_next()).unwrap().unwrap();
        let peak = peak_kib(self.victim.hub);
        let median = lags[lags.len() / 2].as_secs_f64() * 1e3;
        let longest = lags.last().unwrap().as_secs_f64() * 1e3;
        println!(
            "{name:45} {:3} operations, lag {median:6.1} ms, at most {longest:6.1} ms; hub {:3} MiB; {said}",
            lags.len(),
            peak / 1024
        );
        assert!(peak <= MEMORY_KIB, "{name}: the hub has used {peak} KiB");
    }

    fn stage(&mut self, stage: Stage) {
        self.under(stage.name(), async move |target, end| {
            let held = hold(target, stage, PATIENT, end).await;
            assert!(held.opened > 0, "{}: no attacker got so far", stage.name());
            assert!(held.longest <= LONGEST_HOLD, "{}: one was held for {:?}", stage.name(), held.longest);
            format!("{} opened, {} refused, longest {:.1?}", held.opened, held.refused, held.longest)
        });
        let open = sockets(self.victim.hub);
        assert!(open <= 64 + 32, "{}: {open} sockets are open", stage.name());
    }

    fn listed_stage(&mut self, stage: Stage) {
        self.under(stage.name(), async move |target, end| {
            let mut holders = JoinSet::new();
            for number in 0..TRAITORS {
                holders.spawn(hold_listed(target, elsewhere(number), traitor(number), stage, end));
            }
            let sessions: usize = holders.join_all().await.into_iter().sum();
            assert!(sessions > 0, "{}: no attacker got so far", stage.name());
            format!("{sessions} sessions")
        });
    }

    /// From four addresses as strangers, and from four others with listed keys.
    fn flood(&mut self, kind: Flood) {
        self.under(kind.name(), async move |target, end| {
            let mut floods = JoinSet::new();
            for number in 0..TRAITORS {
                floods.spawn(flood(target, IpAddr::from([127, 0, 3, number + 1]), kind, None, end));
                floods.spawn(flood(target, elsewhere(number), kind, Some(traitor(number)), end));
            }
            let all = floods.join_all().await;
            let sum = |of: fn(&Flooded) -> usize| all.iter().map(of).sum::<usize>();
            let bytes: u64 = all.iter().map(|one| one.bytes).sum();
            let (connections, refused) = (sum(|one| one.connections), sum(|one| one.refused));
            assert!(connections > 0 && bytes > 0, "{}: no attacker got so far", kind.name());
            format!("{connections} connections, {refused} refused, {} KiB", bytes / 1024)
        });
    }
}

/// Where listed attackers come from.
fn elsewhere(number: u8) -> IpAddr {
    IpAddr::from([127, 0, 2, number + 1])
}

#[test]
fn a_listed_peer_keeps_syncing_under_every_attack() {
    let mut hub = Instance::new("hub");
    // Nobody is privileged for coming from this machine.
    std::fs::write(hub.dir.join("opmesh.toml"), "[limits]\nshared_addresses = []\n").unwrap();
    let ready = hub.serve("127.0.0.1:0");
    let target = Target::of(hub.ok(&["key", "show"]).trim(), &ready["listen"][0]);
    let mut host = Instance::new("host");
    host.serve("none");
    host.join(&hub, &format!("https://{}", target.address), &[]);
    for number in 0..TRAITORS {
        list(&hub, &traitor(number));
    }
    let victim = Victim { hub: &hub, host: &host, watch: Watch::begin(&hub), recorded: 0 };
    let attackers =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut siege = Siege { victim, attackers, target };

    siege.under("nothing", async |_, _| String::new());
    for stage in Stage::OF_STRANGERS {
        siege.stage(stage);
    }
    for stage in [Stage::Accepted, Stage::StalledReader] {
        siege.listed_stage(stage);
    }
    for kind in Flood::ALL {
        siege.flood(kind);
    }
    let Siege { victim, attackers, .. } = siege;
    let recorded = victim.recorded;

    until_equal(&hub, &host);
    assert_eq!(held_rows(&hub, &host).len(), usize::try_from(recorded).unwrap());
    let status = hub.json(&["status"]);
    assert_eq!(status["daemon"]["pid"], hub.pid(), "the daemon is the one that was started");
    assert!(!hub.log().contains("panicked"), "{}", hub.log());
    let sessions = host.log().matches("a session begins").count();
    assert_eq!(sessions, 1, "the host's one session lasted: {}", host.log());
    drop(victim.watch);
    returning(&hub, &mut host, target, &attackers);
}

/// A listed peer comes back while strangers from hundreds of addresses hold all the places that there are for them.
#[expect(clippy::disallowed_methods, reason = "the attack's end, and how long the return took")]
fn returning(hub: &Instance, host: &mut Instance, target: Target, attackers: &tokio::runtime::Runtime) {
    let mut crowd = JoinSet::new();
    crowd.spawn_on(hold(target, Stage::Preface, CROWD, Instant::now() + 10 * LAG), attackers.handle());
    until("strangers crowd the hub", || hub.log().contains("was turned away"));
    host.kill();
    let begun = Instant::now();
    host.serve("none");
    until("the host is back", || host.peer("known_host")["state"] == "live");
    println!("a listed peer returns through a crowd of strangers: {:.1?} after its start", begun.elapsed());
    assert!(begun.elapsed() < RETURN, "{:?}", begun.elapsed());
    crowd.abort_all();
    host.apply(&create("repo", "plan", "after the return"));
    until_equal(hub, host);
}
