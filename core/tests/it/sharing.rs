//! What is said beside the operations: two machines over a pipe, and one alone with a peer that says too much.

use std::time::Duration;

use opmesh_core::config::{
    Change, Guid, ListedPlan, RepoSettings, Resources, Retention, SharedRepo, Shown, Uri,
};
use opmesh_core::model::ConfigModno;
use opmesh_core::protocol::limits::{
    ANSWERS_KEPT, OWN_SHOWN_A_MINUTE, SHOWN_A_MINUTE, WRITES_A_MINUTE, WRITES_WAITING,
};
use opmesh_core::protocol::{Outcome, Request, Share, Violation, Write, WriteKey, Written};
use opmesh_core::session::{Kept, Look, Offer, Sharing, SharingInput, SharingOutput};

const START: Duration = Duration::from_secs(100);

pub fn shown(modno: u64) -> Shown {
    Shown::new(ConfigModno::new(modno).unwrap(), Vec::new(), Vec::new()).unwrap()
}

pub fn write(key: u8) -> Write {
    let change = Change { delete_plans: vec![key.to_string()], ..Change::default() };
    Write { key: WriteKey([key; 16]), request: Request::Config(change) }
}

fn offer(key: u8, id: &str) -> Offer {
    let settings = RepoSettings {
        id: id.to_owned(),
        uri: Uri::new("/srv/x"),
        password: None,
        env: Vec::new(),
        flags: Vec::new(),
        command_prefix: Vec::new(),
        hooks: Vec::new(),
        schedule: String::new(),
        retention: Retention::default(),
        shared: true,
    };
    Offer { key: WriteKey([key; 16]), repos: vec![SharedRepo { guid: Guid::from_bytes([1; 32]), settings }] }
}

fn offered(key: u8, id: &str) -> SharingOutput {
    let Offer { key, repos } = offer(key, id);
    SharingOutput::Send(Share::Write(Write { key, request: Request::Shared(repos) }))
}

pub fn written(key: u8, outcome: Outcome) -> Written {
    Written { key: WriteKey([key; 16]), outcome }
}

/// One machine, and the time.
struct Bench {
    sharing: Sharing,
    now: Duration,
}

impl Bench {
    fn new() -> Self {
        Self { sharing: Sharing::default(), now: START }
    }

    fn tell(&mut self, input: SharingInput) -> Vec<SharingOutput> {
        let mut out = Vec::new();
        self.sharing.handle(self.now, input, &mut out);
        out
    }

    fn hear(&mut self, share: Share) -> Vec<SharingOutput> {
        self.tell(SharingInput::Received(share))
    }

    /// What is sent when this is what the store holds.
    fn look(&mut self, look: Look) -> Vec<SharingOutput> {
        assert_eq!(self.tell(SharingInput::Changed), [SharingOutput::Look]);
        self.tell(SharingInput::Looked(look))
    }
}

pub fn flood(share: Share) -> Violation {
    flood_after(None, share)
}

/// The same frame again and again, the first of them answered so.
pub fn flood_after(mut answer: Option<Written>, share: Share) -> Violation {
    let mut bench = Bench::new();
    for _ in 0..=WRITES_A_MINUTE {
        if let [SharingOutput::Refuse(violation)] = &bench.hear(share.clone())[..] {
            return violation.clone();
        }
        if let Some(answer) = answer.take() {
            bench.tell(SharingInput::Judged(answer));
        }
    }
    panic!("never refused")
}

pub fn two_writes() -> Violation {
    let mut bench = Bench::new();
    assert_eq!(bench.hear(Share::Write(write(1))), [SharingOutput::Judge(write(1))]);
    only(bench.hear(Share::Write(write(2))))
}

pub fn an_answer_to_nothing() -> Violation {
    let mut bench = Bench::new();
    bench.tell(SharingInput::Ask(write(1)));
    only(bench.hear(Share::Written(written(2, Outcome::Unchanged))))
}

pub fn an_answer_twice() -> Violation {
    let mut bench = Bench::new();
    bench.tell(SharingInput::Ask(write(1)));
    let answer = written(1, Outcome::Unchanged);
    assert_eq!(bench.hear(Share::Written(answer.clone())), [SharingOutput::Answered(answer.clone())]);
    only(bench.hear(Share::Written(answer)))
}

fn only(out: Vec<SharingOutput>) -> Violation {
    match &out[..] {
        [SharingOutput::Refuse(violation)] => violation.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_shown_is_sent_once_and_again_when_it_changes() {
    let mut bench = Bench::new();
    let look = |modno| Look { config: Some(shown(modno)), ..Look::default() };
    assert_eq!(bench.look(look(1)), [SharingOutput::Send(Share::Config(shown(1)))]);
    assert_eq!(bench.look(look(1)), []);
    assert_eq!(bench.look(look(2)), [SharingOutput::Send(Share::Config(shown(2)))]);
    let named =
        Resources { repos: Vec::new(), plans: vec![ListedPlan { id: "p".to_owned(), repo: "r".to_owned() }] };
    let look = Look { resources: Some(named.clone()), ..Look::default() };
    assert_eq!(bench.look(look.clone()), [SharingOutput::Send(Share::Resources(named))]);
    assert_eq!(bench.look(look), []);
    assert_eq!(bench.look(Look::default()), [], "nothing to say is not an empty list");
}

#[test]
fn changes_while_a_look_is_under_way_lead_to_one_more_and_no_queue() {
    let mut bench = Bench::new();
    assert_eq!(bench.tell(SharingInput::Changed), [SharingOutput::Look]);
    for _ in 0..100 {
        assert_eq!(bench.tell(SharingInput::Changed), []);
    }
    let look = Look { config: Some(shown(1)), ..Look::default() };
    let out = bench.tell(SharingInput::Looked(look));
    assert_eq!(out, [SharingOutput::Send(Share::Config(shown(1))), SharingOutput::Look]);
    assert_eq!(bench.tell(SharingInput::Looked(Look::default())), []);
}

#[test]
fn an_honest_side_that_changes_all_the_time_keeps_clear_of_the_peers_limit() {
    let (mut honest, mut peer) = (Bench::new(), Bench::new());
    let (mut sent, mut at_once) = (0, 0);
    for tenth in 0..6_000_u64 {
        let now = START + Duration::from_millis(100) * u32::try_from(tenth).unwrap();
        (honest.now, peer.now) = (now, now);
        for output in honest.tell(SharingInput::Changed) {
            assert_eq!(output, SharingOutput::Look);
            let look = Look { config: Some(shown(tenth)), ..Look::default() };
            for output in honest.tell(SharingInput::Looked(look)) {
                let SharingOutput::Send(share) = output else { panic!("{output:?}") };
                let heard = peer.hear(share);
                assert!(matches!(heard[..], [SharingOutput::Keep(Kept::Config(_))]), "{heard:?}");
                sent += 1;
            }
        }
        at_once = if tenth == 100 { sent } else { at_once };
    }
    assert!(at_once >= OWN_SHOWN_A_MINUTE, "{at_once} in ten seconds: an operator who edits sees it at once");
    assert!((80..=90).contains(&sent), "{sent} in ten minutes");
}

#[test]
fn a_change_that_came_too_fast_is_shown_as_soon_as_it_may() {
    let mut bench = Bench::new();
    for modno in 0..u64::from(OWN_SHOWN_A_MINUTE) {
        assert_eq!(bench.look(Look { config: Some(shown(modno)), ..Look::default() }).len(), 1);
    }
    assert_eq!(bench.tell(SharingInput::Changed), []);
    let due = bench.sharing.deadline();
    assert!(due > bench.now && due < bench.now + Duration::from_secs(10), "{due:?}");
    bench.now = due;
    assert_eq!(bench.tell(SharingInput::Tick), [SharingOutput::Look]);
    assert_eq!(bench.sharing.deadline(), Duration::MAX);
}

#[test]
fn a_repeated_key_gets_the_same_answer_and_has_no_second_effect() {
    let mut bench = Bench::new();
    let answer = written(1, Outcome::Applied { modno: ConfigModno::new(2).unwrap() });
    assert_eq!(bench.hear(Share::Write(write(1))), [SharingOutput::Judge(write(1))]);
    let said = [SharingOutput::Send(Share::Written(answer.clone()))];
    assert_eq!(bench.tell(SharingInput::Judged(answer)), said);
    assert_eq!(bench.hear(Share::Write(write(1))), said);
    assert_eq!(bench.hear(Share::Write(write(1))), said);
}

#[test]
fn a_session_remembers_a_bounded_number_of_answers() {
    let mut bench = Bench::new();
    let mut key = 0_u8;
    for _ in 0..=ANSWERS_KEPT {
        key += 1;
        bench.now += Duration::from_secs(1);
        assert_eq!(bench.hear(Share::Write(write(key))), [SharingOutput::Judge(write(key))]);
        bench.tell(SharingInput::Judged(written(key, Outcome::Unchanged)));
    }
    assert_eq!(bench.hear(Share::Write(write(1))), [SharingOutput::Judge(write(1))]);
}

#[test]
fn one_request_of_this_side_is_under_way_at_a_time_and_the_others_wait_in_order() {
    let mut bench = Bench::new();
    assert_eq!(bench.tell(SharingInput::Ask(write(1))), [SharingOutput::Send(Share::Write(write(1)))]);
    for key in 2..2 + u8::try_from(WRITES_WAITING).unwrap() {
        assert_eq!(bench.tell(SharingInput::Ask(write(key))), []);
    }
    assert_eq!(bench.tell(SharingInput::Ask(write(99))), [SharingOutput::Busy(WriteKey([99; 16]))]);
    let answer = written(1, Outcome::Unchanged);
    let out = bench.hear(Share::Written(answer.clone()));
    assert_eq!(out, [SharingOutput::Answered(answer), SharingOutput::Send(Share::Write(write(2)))]);
}

#[test]
fn shared_repositories_are_offered_again_only_when_they_change_and_never_out_of_date() {
    let mut bench = Bench::new();
    let look = |key, id: &str| Look { offer: Some(offer(key, id)), ..Look::default() };
    assert_eq!(bench.look(look(1, "a")), [offered(1, "a")]);
    assert_eq!(bench.look(look(2, "a")), []);
    assert_eq!(bench.look(look(3, "b")), [], "the first one is not answered yet");
    assert_eq!(bench.look(look(4, "c")), []);
    let answer = written(1, Outcome::Taken { taken: 1, refused: Vec::new() });
    let out = bench.hear(Share::Written(answer));
    assert_eq!(out[1..], [offered(4, "c")], "b was out of date");
}

#[test]
fn a_peer_may_show_as_much_as_the_limit_allows_and_no_more() {
    let mut bench = Bench::new();
    for _ in 0..SHOWN_A_MINUTE {
        let out = bench.hear(Share::Config(shown(1)));
        assert_eq!(out, [SharingOutput::Keep(Kept::Config(shown(1)))]);
        assert_eq!(bench.hear(Share::Resources(Resources::default())).len(), 1);
    }
    let violation = only(bench.hear(Share::Config(shown(1))));
    assert_eq!(violation, Violation::TooOften { message: "Config", limit: SHOWN_A_MINUTE });
    let mut later = Bench::new();
    for _ in 0..1_000 {
        later.now += Duration::from_mins(1) / SHOWN_A_MINUTE;
        assert!(matches!(later.hear(Share::Config(shown(1)))[..], [SharingOutput::Keep(_)]));
    }
}
