//! Scopes against a second implementation, written from the words of the design and not from the code: a million
//! questions, no difference.
//!
//! The words: scopes are `*`, `repo:ID`, `plan:ID`, `!repo:ID`, `!plan:ID`, separated by commas; in an id `%`, `,` and
//! control bytes stand percent-encoded. Exclusion beats everything; an operation is excluded if its repository or its
//! plan is. An empty list, or one of exclusions only, is an error. WRITE implies READ. A view is what both lists
//! include.

use opmesh_core::model::Scope;
use opmesh_core::permission::{GrantType, Grants, Scopes, View};

use crate::random::Random;

/// How many questions are asked in all.
const QUESTIONS: u64 = 1_000_000;
/// Lists are read more slowly than questions are answered: each set of lists answers so many.
const QUESTIONS_A_WORLD: u64 = 25;

/// Ids that differ in as little as ids can, and such as try to be more than an id.
const IDS: [&str; 16] = [
    "a", "b", "A", "a ", "aa", "", "*", "!a", "repo:a", "plan:a", "a,b", "100%", "%61", "é", "a\nb", "repo:*",
];

#[test]
fn a_million_questions_get_the_answer_that_the_words_give() {
    let seed = std::env::var("OPMESH_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = seed.map_or(0..QUESTIONS, |seed: u64| seed..seed + 1);
    let (mut asked, mut allowed, mut refused, mut malformed) = (0, 0, 0, 0);
    for seed in seeds {
        if asked >= QUESTIONS {
            break;
        }
        let mut random = Random::new(seed);
        let grants = grant_texts(&mut random);
        let (ours, naive) = (Grants::parse(&grants), naive::grants(&grants));
        assert_eq!(ours.is_ok(), naive.is_some(), "OPMESH_SEED={seed}: {grants:?}: {ours:?}");
        let accepted = list_text(&mut random);
        let accepts = Scopes::from_wire(&accepted);
        let may_be_empty = accepted.is_empty() || naive::list(&accepted).is_some();
        assert_eq!(accepts.is_ok(), may_be_empty, "OPMESH_SEED={seed}: {accepted:?}: {accepts:?}");
        let (Ok(ours), Some(naive), Ok(accepts)) = (ours, naive, accepts) else {
            malformed += 1;
            continue;
        };
        let view = View::new(ours.scopes_of(GrantType::ReadOperations), accepts);
        for _ in 0..QUESTIONS_A_WORLD {
            asked += 1;
            let (repo, plan) = (IDS[random.index(IDS.len())], IDS[random.index(IDS.len())]);
            let kind = GrantType::ALL[random.index(4)];
            let scope = Scope { repo: repo.to_owned(), plan: plan.to_owned() };
            let expected = naive::allows(&naive, kind.as_str(), repo, plan);
            let story = || format!("OPMESH_SEED={seed}: {grants:?} {kind} {repo:?} {plan:?}");
            assert_eq!(ours.allows(kind, &scope), expected, "{}", story());
            if expected {
                allowed += 1;
            } else {
                refused += 1;
            }
            let shared = naive::allows(&naive, "READ_OPERATIONS", repo, plan)
                && naive::includes(&naive::list(&accepted).unwrap_or_default(), repo, plan);
            assert_eq!(view.includes(&scope), shared, "{} accepted {accepted:?}", story());
        }
    }
    println!(
        "{asked} asked: {allowed} allowed, {refused} refused; {malformed} worlds with a list that is none"
    );
    if seed.is_none() {
        assert!(
            asked >= QUESTIONS && allowed > QUESTIONS / 10 && refused > QUESTIONS / 10 && malformed > 100
        );
    }
}

/// Revoking exactly what the words say, and nothing else, leaves exactly the rest.
#[test]
fn what_was_revoked_is_gone_and_the_rest_stays() {
    for seed in 0..20_000 {
        let mut random = Random::new(seed);
        let terms: Vec<_> = (0..=random.below(5)).map(|_| term(&mut random, false)).collect();
        let Ok(mut ours) = Grants::parse([format!("READ_CONFIG:{}", terms.join(","))]) else { continue };
        let gone = &terms[random.index(terms.len())];
        ours.revoke(&format!("READ_CONFIG:{gone}")).unwrap();
        let gone = naive::term(gone).unwrap();
        let mut left: Vec<_> = terms.iter().map(|text| naive::term(text).unwrap()).collect();
        left.retain(|term| *term != gone);
        for (repo, plan) in IDS.iter().flat_map(|repo| IDS.iter().map(move |plan| (*repo, *plan))) {
            let scope = Scope { repo: repo.to_owned(), plan: plan.to_owned() };
            let expected = naive::includes(&left, repo, plan);
            assert_eq!(
                ours.allows(GrantType::ReadConfig, &scope),
                expected,
                "seed {seed}: {terms:?} - {gone:?}"
            );
        }
    }
}

fn grant_texts(random: &mut Random) -> Vec<String> {
    (0..random.below(4))
        .map(|_| {
            let kind = GrantType::ALL[random.index(4)].as_str();
            let kind = if random.chance(2) { "READ_EVERYTHING" } else { kind };
            format!("{kind}:{}", list_text(random))
        })
        .collect()
}

fn list_text(random: &mut Random) -> String {
    let faulty = random.chance(6);
    let terms: Vec<_> = (0..random.below(6)).map(|_| term(random, faulty)).collect();
    if terms.is_empty() && random.chance(90) { "*".to_owned() } else { terms.join(",") }
}

fn term(random: &mut Random, faulty: bool) -> String {
    if faulty && random.chance(40) {
        let bad = [
            "",
            "repo",
            "repo:",
            "!*",
            "Repo:a",
            "repo:%",
            "repo:%4",
            "plan:%zz",
            "repo:a\nb",
            " *",
            "repo:%ff",
        ];
        return bad[random.index(bad.len())].to_owned();
    }
    if random.chance(15) {
        return "*".to_owned();
    }
    let sign = if random.chance(35) { "!" } else { "" };
    let dimension = if random.chance(50) { "repo" } else { "plan" };
    // No scope names the empty id.
    let id = loop {
        let id = IDS[random.index(IDS.len())];
        if !id.is_empty() {
            break id;
        }
    };
    let spelt: String = id
        .bytes()
        .map(|byte| match byte {
            b'%' | b',' | 0..=31 => format!("%{byte:02X}"),
            _ if random.chance(5) => format!("%{byte:02x}"),
            byte if byte.is_ascii() => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    format!("{sign}{dimension}:{spelt}")
}

/// The words of the design, one after the other, with nothing but lists and loops.
mod naive {
    /// `*`, or (is it excluded, `repo` or `plan`, the id).
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(super) enum Term {
        Everything,
        Named { excluded: bool, what: &'static str, id: String },
    }

    pub(super) type List = Vec<Term>;

    /// All that was granted, by type; none when one of the texts is an error.
    pub(super) fn grants(texts: &[String]) -> Option<Vec<(String, List)>> {
        let mut granted = Vec::new();
        for text in texts {
            let colon = text.find(':')?;
            let (kind, scopes) = (&text[..colon], &text[colon + 1..]);
            let types = ["READ_OPERATIONS", "READ_CONFIG", "READ_WRITE_CONFIG", "RECEIVE_SHARED_REPOS"];
            if !types.contains(&kind) {
                return None;
            }
            granted.push((kind.to_owned(), list(scopes)?));
        }
        Some(granted)
    }

    /// Whether the peer may do this: its own type, or for reading the configuration also writing it.
    pub(super) fn allows(granted: &[(String, List)], kind: &str, repo: &str, plan: &str) -> bool {
        let by = |kind: &str| {
            let all: List =
                granted.iter().filter(|(of, _)| of == kind).flat_map(|(_, list)| list.clone()).collect();
            includes(&all, repo, plan)
        };
        by(kind) || (kind == "READ_CONFIG" && by("READ_WRITE_CONFIG"))
    }

    /// Exclusion beats everything; either dimension excludes, either includes.
    pub(super) fn includes(list: &[Term], repo: &str, plan: &str) -> bool {
        let mut included = false;
        for term in list {
            match term {
                Term::Everything => included = true,
                Term::Named { excluded, what, id } => {
                    let meant = if *what == "repo" { id == repo } else { id == plan };
                    if meant && *excluded {
                        return false;
                    }
                    included = included || meant;
                }
            }
        }
        included
    }

    /// None when the list is empty, says nothing but exclusions, or holds what is no scope.
    pub(super) fn list(text: &str) -> Option<List> {
        let mut list = List::new();
        for word in text.split(',') {
            list.push(term(word)?);
        }
        let includes = |term: &Term| !matches!(term, Term::Named { excluded: true, .. });
        if list.iter().any(includes) { Some(list) } else { None }
    }

    pub(super) fn term(word: &str) -> Option<Term> {
        if word == "*" {
            return Some(Term::Everything);
        }
        let excluded = word.starts_with('!');
        let named = if excluded { &word[1..] } else { word };
        for what in ["repo", "plan"] {
            let prefix = format!("{what}:");
            if let Some(spelt) = named.strip_prefix(&prefix) {
                return Some(Term::Named { excluded, what, id: id(spelt)? });
            }
        }
        None
    }

    /// The id that is meant: at least one byte, control characters only as `%XX`, UTF-8 in the end.
    fn id(spelt: &str) -> Option<String> {
        if spelt.is_empty() || spelt.chars().any(char::is_control) {
            return None;
        }
        let mut bytes = Vec::new();
        let mut at = 0;
        let spelt = spelt.as_bytes();
        while at < spelt.len() {
            if spelt[at] == b'%' {
                let digits = spelt.get(at + 1..at + 3)?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                at += 3;
            } else {
                bytes.push(spelt[at]);
                at += 1;
            }
        }
        String::from_utf8(bytes).ok()
    }
}
