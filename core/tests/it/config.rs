//! The rules of federated config: against a second implementation that was written from the words, and one by one.

mod made;
mod naive;
mod rules;
mod sharing;

use std::collections::BTreeMap;

use opmesh_core::config::{Authority, GuidSeed, Taken, apply, resources, shown, take_shared};

use crate::random::Random;
use made::Maker;
use naive::Verdict;

/// Cases of each comparison; `OPMESH_SEED` runs one alone.
const CASES: u64 = 100_000;

fn cases() -> std::ops::Range<u64> {
    match std::env::var("OPMESH_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 0..CASES,
    }
}

/// Counts what happened, and says so if something that should happen never did.
#[derive(Default)]
struct Seen(BTreeMap<String, u64>);

impl Seen {
    fn note(&mut self, what: &str) {
        *self.0.entry(what.to_owned()).or_default() += 1;
    }

    fn expect(&self, least: u64, all: &[&str]) {
        println!("{:?}", self.0);
        if cases().end - cases().start < CASES {
            return;
        }
        for what in all {
            assert!(
                self.0.get(*what).is_some_and(|count| *count >= least),
                "{what} hardly happened: {:?}",
                self.0
            );
        }
    }
}

#[test]
fn what_is_shown_is_what_the_words_say() {
    let mut seen = Seen::default();
    for seed in cases() {
        let mut maker = Maker::new(Random::new(seed));
        let config = maker.config();
        let grants = maker.grants();
        let view = shown(&config, &grants.parsed);
        let (repos, plans) = naive::shown(&config, &grants.texts);
        assert_eq!(view.repos(), repos, "seed {seed}: {:?}", grants.texts);
        assert_eq!(view.plans(), plans, "seed {seed}: {:?}", grants.texts);
        assert_eq!(view.modno(), config.modno());
        let named = resources(&config, &grants.parsed);
        let (repo_ids, plan_ids) = naive::resources(&config, &grants.texts);
        assert_eq!(
            named.repos.iter().map(|repo| repo.id.clone()).collect::<Vec<_>>(),
            repo_ids,
            "seed {seed}"
        );
        assert_eq!(
            named.plans.iter().map(|plan| plan.id.clone()).collect::<Vec<_>>(),
            plan_ids,
            "seed {seed}"
        );
        let all = config.repos().len() + config.plans().len();
        seen.note(match repos.len() + plans.len() {
            0 => "nothing",
            some if some == all => "everything",
            _ => "a part",
        });
    }
    seen.expect(1_000, &["nothing", "everything", "a part"]);
}

#[test]
fn a_change_does_what_the_words_say() {
    let mut seen = Seen::default();
    for seed in cases() {
        let mut maker = Maker::new(Random::new(seed));
        let config = maker.config();
        let grants = maker.grants();
        let allowed = maker.allowed();
        let change = maker.change(&config);
        let operator = maker.random.chance(20);
        let by = if operator {
            Authority::Operator
        } else {
            Authority::Peer { grants: &grants.parsed, allowed: &allowed }
        };
        let texts = (!operator).then_some(grants.texts.as_slice());
        let told = apply(&config, change.clone(), by, GuidSeed([9; 32]));
        let context = || format!("seed {seed}\n{config:#?}\n{:?}\n{change:#?}", grants.texts);
        match (told, naive::apply(&config, &change, texts, &allowed)) {
            (Ok(applied), Verdict::Becomes { repos, plans, changed }) => {
                assert!(naive::same(&applied.config, &config, &repos, &plans), "{}", context());
                assert_eq!(applied.touched.is_empty(), !changed, "{}", context());
                let step = u64::from(changed);
                assert_eq!(applied.config.modno().get(), config.modno().get() + step, "{}", context());
                seen.note(if changed { "changed" } else { "unchanged" });
            }
            (Err(refusal), Verdict::Breaks(rules)) => {
                assert!(rules.contains(refusal.rule()), "{} but {rules:?}\n{}", refusal.rule(), context());
                seen.note(refusal.rule());
            }
            (told, naive) => panic!("{told:?}\nbut {naive:?}\n{}", context()),
        }
    }
    let rules = [
        "stale",
        "out_of_scope",
        "unknown",
        "read_only",
        "repo_in_use",
        "executable",
        "secret_moved",
        "may_not_share",
        "nothing_to_keep",
        "twice",
        "invalid",
    ];
    seen.expect(100, &rules);
    seen.expect(5_000, &["changed", "unchanged"]);
}

#[test]
fn an_offer_is_taken_as_the_words_say() {
    let mut seen = Seen::default();
    for seed in cases() {
        let mut maker = Maker::new(Random::new(seed));
        let config = maker.config();
        let grants = maker.grants();
        let allowed = maker.allowed();
        let offer = maker.offer(&config);
        let from = maker.key();
        let Taken { config: now, touched, refused } =
            take_shared(&config, from, &grants.parsed, &offer, &allowed).unwrap();
        let context = || format!("seed {seed} from {from}\n{config:#?}\n{:?}\n{offer:#?}", grants.texts);
        let naive = naive::take(&config, from, &grants.texts, &offer, &allowed);
        assert_eq!(now.repos(), naive.repos, "{}", context());
        assert_eq!(now.plans(), config.plans(), "no plan is ever touched: {}", context());
        let rules: Vec<_> = refused.iter().map(|refused| (refused.guid, refused.rule.name())).collect();
        assert_eq!(rules, naive.refused, "{}", context());
        let changed = naive.repos != config.repos();
        assert_eq!(touched.is_empty(), !changed, "{}", context());
        assert_eq!(now.modno().get(), config.modno().get() + u64::from(changed), "{}", context());
        for (_, rule) in &rules {
            seen.note(rule);
        }
        for touched in &touched {
            seen.note(&format!("{:?}", touched.how));
        }
    }
    let happened = [
        "out_of_scope",
        "executable",
        "guid_taken",
        "id_taken",
        "uri_taken",
        "renamed_in_use",
        "twice",
        "invalid",
        "Created",
        "Changed",
        "Withdrawn",
    ];
    seen.expect(100, &happened);
}
