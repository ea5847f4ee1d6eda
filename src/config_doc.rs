//! Documents of federated config: what is kept, shown, shared and asked for, as encoded bytes.
//!
//! Reading checks whatever the core package's types demand, so that nothing past here checks it again. This is the only
//! file that names the generated `opmesh.config.v1` types, and those never appear outside it: they print secrets. Called
//! by the store for what it keeps, and by sessions and faces for what travels.

use opmesh_core::config::{
    Change, EnvVar, Fault, Guid, GuidFault, Hook, ListedPlan, ListedRepo, Origin, Plan, PutRepo, Repo,
    RepoSettings, Resources, Retention, Secret, SharedRepo, Shown, Standing, Uri,
};
use opmesh_core::model::{ConfigModno, KeyId, NumberFault};
use prost::Message;

#[allow(warnings, clippy::pedantic, clippy::restriction, reason = "generated code")]
mod pb {
    tonic::include_proto!("opmesh.config.v1");
}

/// Why bytes are not a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentFault {
    /// Not an encoded message, or not this one.
    #[error("the config document cannot be decoded")]
    NotADocument,
    /// A secret that is neither a value nor the marker of one.
    #[error("a secret has neither a value nor the marker `redacted`")]
    NoSecret,
    /// Not the 32 bytes of a key ID.
    #[error("an origin is not the 32 bytes of a key ID")]
    Origin,
    /// Not a guid.
    #[error(transparent)]
    Guid(#[from] GuidFault),
    /// A number out of range.
    #[error(transparent)]
    Number(#[from] NumberFault),
    /// Well-formed, and not valid.
    #[error(transparent)]
    Invalid(#[from] Fault),
}

/// One repository as the store keeps it.
pub fn encode_repo(repo: &Repo) -> Vec<u8> {
    repo_to_pb(repo).encode_to_vec()
}

/// What [`encode_repo`] made.
pub fn decode_repo(bytes: &[u8]) -> Result<Repo, DocumentFault> {
    repo_from_pb(decode(bytes)?)
}

/// One plan as the store keeps it.
pub fn encode_plan(plan: &Plan) -> Vec<u8> {
    plan_to_pb(plan).encode_to_vec()
}

/// What [`encode_plan`] made.
pub fn decode_plan(bytes: &[u8]) -> Result<Plan, DocumentFault> {
    plan_from_pb(decode(bytes)?)
}

/// What one side shows of its config.
pub fn encode_shown(shown: &Shown) -> Vec<u8> {
    let config = pb::Config {
        modno: shown.modno().get(),
        repos: shown.repos().iter().map(repo_to_pb).collect(),
        plans: shown.plans().iter().map(plan_to_pb).collect(),
    };
    config.encode_to_vec()
}

/// What a peer shows of its config. A secret that it failed to redact is dropped.
pub fn decode_shown(bytes: &[u8]) -> Result<Shown, DocumentFault> {
    let config: pb::Config = decode(bytes)?;
    let repos = all(config.repos, repo_from_pb)?;
    let plans = all(config.plans, plan_from_pb)?;
    Ok(Shown::new(ConfigModno::new(config.modno)?, repos, plans)?)
}

/// A change, without the modno that it was made for.
pub fn encode_change(change: &Change) -> Vec<u8> {
    let put = |put: &PutRepo| pb::Repo {
        guid: put.guid.map(|guid| guid.to_string()).unwrap_or_default(),
        ..settings_to_pb(&put.settings)
    };
    let change = pb::Change {
        repos: change.put_repos.iter().map(put).collect(),
        plans: change.put_plans.iter().map(plan_to_pb).collect(),
        repos_to_delete: change.delete_repos.clone(),
        plans_to_delete: change.delete_plans.clone(),
    };
    change.encode_to_vec()
}

/// A change that was made for this modno.
pub fn decode_change(base: ConfigModno, bytes: &[u8]) -> Result<Change, DocumentFault> {
    let change: pb::Change = decode(bytes)?;
    let put = |repo: pb::Repo| {
        let guid = if repo.guid.is_empty() { None } else { Some(repo.guid.parse()?) };
        Ok(PutRepo { guid, settings: settings_from_pb(repo)? })
    };
    Ok(Change {
        base,
        put_repos: all(change.repos, put)?,
        put_plans: all(change.plans, plan_from_pb)?,
        delete_repos: change.repos_to_delete,
        delete_plans: change.plans_to_delete,
    })
}

/// The repositories that are shared with one peer: a config with nothing else.
pub fn encode_shared(repos: &[SharedRepo]) -> Vec<u8> {
    let shared =
        |repo: &SharedRepo| pb::Repo { guid: repo.guid.to_string(), ..settings_to_pb(&repo.settings) };
    let config = pb::Config { repos: repos.iter().map(shared).collect(), ..pb::Config::default() };
    config.encode_to_vec()
}

/// The repositories that a peer shares. Each is checked when it is taken, so that a bad one spoils no other.
pub fn decode_shared(bytes: &[u8]) -> Result<Vec<SharedRepo>, DocumentFault> {
    let config: pb::Config = decode(bytes)?;
    all(config.repos, |repo| Ok(SharedRepo { guid: repo.guid.parse()?, settings: settings_from_pb(repo)? }))
}

/// Which repositories and plans one side names.
pub fn encode_resources(resources: &Resources) -> Vec<u8> {
    let repo = |repo: &ListedRepo| pb::RepoName { id: repo.id.clone(), guid: repo.guid.to_string() };
    let plan = |plan: &ListedPlan| pb::PlanName { id: plan.id.clone(), repo: plan.repo.clone() };
    let resources = pb::Resources {
        repos: resources.repos.iter().map(repo).collect(),
        plans: resources.plans.iter().map(plan).collect(),
    };
    resources.encode_to_vec()
}

/// Which repositories and plans a peer names.
pub fn decode_resources(bytes: &[u8]) -> Result<Resources, DocumentFault> {
    let resources: pb::Resources = decode(bytes)?;
    let repo = |repo: pb::RepoName| Ok(ListedRepo { id: repo.id, guid: repo.guid.parse()? });
    let plans = resources.plans.into_iter().map(|plan| ListedPlan { id: plan.id, repo: plan.repo });
    let resources = Resources { repos: all(resources.repos, repo)?, plans: plans.collect() };
    Ok(resources.checked()?)
}

/// The decoder's own words could quote what was decoded.
fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, DocumentFault> {
    M::decode(bytes).map_err(|_| DocumentFault::NotADocument)
}

fn all<A, B>(list: Vec<A>, one: impl Fn(A) -> Result<B, DocumentFault>) -> Result<Vec<B>, DocumentFault> {
    list.into_iter().map(one).collect()
}

fn repo_to_pb(repo: &Repo) -> pb::Repo {
    pb::Repo {
        guid: repo.guid.to_string(),
        origin: repo.origin.map(|origin| origin.from.as_bytes().to_vec()),
        withdrawn: repo.origin.is_some_and(|origin| origin.standing == Standing::Withdrawn),
        ..settings_to_pb(&repo.settings)
    }
}

fn repo_from_pb(mut repo: pb::Repo) -> Result<Repo, DocumentFault> {
    let guid: Guid = repo.guid.parse()?;
    let standing = if repo.withdrawn { Standing::Withdrawn } else { Standing::Shared };
    let origin = match repo.origin.take() {
        None => None,
        Some(bytes) => {
            let bytes = bytes.try_into().map_err(|_| DocumentFault::Origin)?;
            Some(Origin { from: KeyId::from_bytes(bytes), standing })
        }
    };
    Ok(Repo { guid, origin, settings: settings_from_pb(repo)? })
}

fn settings_to_pb(settings: &RepoSettings) -> pb::Repo {
    let (uri, uri_redacted) = match &settings.uri {
        Uri::Known(text) => (text.as_str().to_owned(), false),
        Uri::Redacted(text) => (text.clone(), true),
    };
    let variable = |variable: &EnvVar| pb::EnvVar {
        name: variable.name.clone(),
        value: Some(secret_to_pb(&variable.value)),
    };
    pb::Repo {
        id: settings.id.clone(),
        uri,
        uri_redacted,
        password: settings.password.as_ref().map(secret_to_pb),
        env: settings.env.iter().map(variable).collect(),
        flags: settings.flags.clone(),
        hooks: settings.hooks.iter().map(hook_to_pb).collect(),
        command_prefix: settings.command_prefix.clone(),
        shared: settings.shared,
        schedule: settings.schedule.clone(),
        retention: Some(retention_to_pb(settings.retention)),
        guid: String::new(),
        origin: None,
        withdrawn: false,
    }
}

fn settings_from_pb(repo: pb::Repo) -> Result<RepoSettings, DocumentFault> {
    let variable =
        |variable: pb::EnvVar| Ok(EnvVar { name: variable.name, value: secret_from_pb(variable.value)? });
    Ok(RepoSettings {
        id: repo.id,
        uri: if repo.uri_redacted { Uri::Redacted(repo.uri) } else { Uri::new(repo.uri) },
        password: repo.password.map(|secret| secret_from_pb(Some(secret))).transpose()?,
        env: all(repo.env, variable)?,
        flags: repo.flags,
        command_prefix: repo.command_prefix,
        hooks: all(repo.hooks, hook_from_pb)?,
        schedule: repo.schedule,
        retention: retention_from_pb(repo.retention),
        shared: repo.shared,
    })
}

fn plan_to_pb(plan: &Plan) -> pb::Plan {
    pb::Plan {
        id: plan.id.clone(),
        repo: plan.repo.clone(),
        paths: plan.paths.clone(),
        excludes: plan.excludes.clone(),
        iexcludes: plan.iexcludes.clone(),
        schedule: plan.schedule.clone(),
        retention: Some(retention_to_pb(plan.retention)),
        hooks: plan.hooks.iter().map(hook_to_pb).collect(),
        backup_flags: plan.flags.clone(),
    }
}

fn plan_from_pb(plan: pb::Plan) -> Result<Plan, DocumentFault> {
    Ok(Plan {
        id: plan.id,
        repo: plan.repo,
        paths: plan.paths,
        excludes: plan.excludes,
        iexcludes: plan.iexcludes,
        schedule: plan.schedule,
        retention: retention_from_pb(plan.retention),
        hooks: all(plan.hooks, hook_from_pb)?,
        flags: plan.backup_flags,
    })
}

fn hook_to_pb(hook: &Hook) -> pb::Hook {
    pb::Hook {
        name: hook.name.clone(),
        condition: hook.condition.clone(),
        command: Some(secret_to_pb(&hook.command)),
    }
}

fn hook_from_pb(hook: pb::Hook) -> Result<Hook, DocumentFault> {
    Ok(Hook { name: hook.name, condition: hook.condition, command: secret_from_pb(hook.command)? })
}

fn secret_to_pb(secret: &Secret) -> pb::Secret {
    let kind = match secret.expose() {
        Some(value) => pb::secret::Kind::Value(value.to_owned()),
        None => pb::secret::Kind::Redacted(true),
    };
    pb::Secret { kind: Some(kind) }
}

fn secret_from_pb(secret: Option<pb::Secret>) -> Result<Secret, DocumentFault> {
    match secret.and_then(|secret| secret.kind) {
        Some(pb::secret::Kind::Value(value)) => Ok(Secret::new(value)),
        Some(pb::secret::Kind::Redacted(true)) => Ok(Secret::Redacted),
        Some(pb::secret::Kind::Redacted(false)) | None => Err(DocumentFault::NoSecret),
    }
}

fn retention_to_pb(retention: Retention) -> pb::Retention {
    let Retention { last, hourly, daily, weekly, monthly, yearly } = retention;
    pb::Retention { last, hourly, daily, weekly, monthly, yearly }
}

fn retention_from_pb(retention: Option<pb::Retention>) -> Retention {
    let pb::Retention { last, hourly, daily, weekly, monthly, yearly } = retention.unwrap_or_default();
    Retention { last, hourly, daily, weekly, monthly, yearly }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opmesh_core::config::{
        Config, MAX_CONFIG_BYTES, MAX_PLANS, MAX_REPOS, MAX_RETENTION, weight_of_plan, weight_of_repo,
    };

    const CANARY: &str = "canary-0451";

    fn guid() -> Guid {
        Guid::from_bytes([0xab; 32])
    }

    fn hook(name: &str) -> Hook {
        Hook { name: name.into(), condition: "error".into(), command: Secret::new(CANARY) }
    }

    fn retention() -> Retention {
        Retention { last: 1, hourly: 2, daily: 3, weekly: 4, monthly: 5, yearly: MAX_RETENTION }
    }

    fn settings() -> RepoSettings {
        RepoSettings {
            id: "nas".into(),
            uri: Uri::new(format!("rest:https://u:{CANARY}@nas:8000/r")),
            password: Some(Secret::new(CANARY)),
            env: vec![EnvVar { name: "AWS_REGION".into(), value: Secret::new(CANARY) }],
            flags: vec!["--verbose".into()],
            command_prefix: vec!["nice".into(), "-n19".into()],
            hooks: vec![hook("mail"), hook("page")],
            schedule: "weekly".into(),
            retention: retention(),
            shared: true,
        }
    }

    fn repo() -> Repo {
        let origin = Origin { from: KeyId::from_bytes([7; 32]), standing: Standing::Withdrawn };
        Repo { guid: guid(), origin: Some(origin), settings: settings() }
    }

    fn plan() -> Plan {
        Plan {
            id: "daily".into(),
            repo: "nas".into(),
            paths: vec!["/etc".into(), "/home".into()],
            excludes: vec!["*.tmp".into()],
            iexcludes: vec!["*.Bak".into()],
            schedule: "0 3 * * *".into(),
            retention: retention(),
            hooks: vec![hook("mail")],
            flags: vec!["--tag=a".into()],
        }
    }

    fn shown() -> Shown {
        Shown::new(ConfigModno::new(7).unwrap(), vec![repo()], vec![plan()]).unwrap()
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        assert_eq!(decode_repo(&encode_repo(&repo())).unwrap(), repo());
        let own = Repo { origin: None, ..repo() };
        assert_eq!(decode_repo(&encode_repo(&own)).unwrap(), own);
        assert_eq!(decode_plan(&encode_plan(&plan())).unwrap(), plan());
        assert_eq!(decode_shown(&encode_shown(&shown())).unwrap(), shown());
        let shared = vec![SharedRepo { guid: guid(), settings: settings() }];
        assert_eq!(decode_shared(&encode_shared(&shared)).unwrap(), shared);
        let resources = Resources {
            repos: vec![ListedRepo { id: "nas".into(), guid: guid() }],
            plans: vec![ListedPlan { id: "daily".into(), repo: "nas".into() }],
        };
        assert_eq!(decode_resources(&encode_resources(&resources)).unwrap(), resources);
        let change = Change {
            base: ConfigModno::new(3).unwrap(),
            put_repos: vec![
                PutRepo { guid: None, settings: settings() },
                PutRepo { guid: Some(guid()), settings: shown().repos()[0].settings.clone() },
            ],
            put_plans: vec![plan()],
            delete_repos: vec!["old".into()],
            delete_plans: vec!["older".into()],
        };
        assert_eq!(decode_change(change.base, &encode_change(&change)).unwrap(), change);
    }

    #[test]
    fn a_shown_document_has_no_secret_even_if_its_sender_left_one_in() {
        assert!(encode_repo(&repo()).windows(CANARY.len()).any(|part| part == CANARY.as_bytes()));
        let careless =
            pb::Config { modno: 7, repos: vec![repo_to_pb(&repo())], plans: vec![plan_to_pb(&plan())] };
        let read = decode_shown(&careless.encode_to_vec()).unwrap();
        assert_eq!(read, shown());
        let again = encode_shown(&read);
        assert!(!again.windows(CANARY.len()).any(|part| part == CANARY.as_bytes()));
        assert!(!format!("{:?}{read:?}", repo()).contains(CANARY));
    }

    #[test]
    fn documents_that_are_not_are_refused_without_quoting_them() {
        assert_eq!(decode_shown(CANARY.as_bytes()), Err(DocumentFault::NotADocument));
        let broken = |change: fn(&mut pb::Repo)| {
            let mut broken = repo_to_pb(&repo());
            change(&mut broken);
            decode_repo(&broken.encode_to_vec()).unwrap_err()
        };
        let no_kind = |kind| Some(pb::Secret { kind });
        assert_eq!(broken(|repo| repo.origin = Some(vec![1; 31])), DocumentFault::Origin);
        assert!(matches!(broken(|repo| repo.guid.clear()), DocumentFault::Guid(_)));
        assert_eq!(broken(|repo| repo.env[0].value = None), DocumentFault::NoSecret);
        let mut password = repo_to_pb(&repo());
        for kind in [None, Some(pb::secret::Kind::Redacted(false))] {
            password.password = no_kind(kind);
            assert_eq!(decode_repo(&password.encode_to_vec()), Err(DocumentFault::NoSecret));
        }
    }

    #[test]
    fn no_encoding_is_larger_than_what_is_counted() {
        let mut long = settings();
        let mut small = plan();
        for round in 0..40 {
            long.id = "i".repeat(round);
            long.flags.push("f".repeat(round));
            long.env.push(EnvVar { name: format!("V{round}"), value: Secret::Redacted });
            long.hooks.push(hook(&format!("h{round}")));
            small.paths.push(String::new());
            small.hooks.push(hook(""));
            let repo = Repo { settings: long.clone(), ..repo() };
            let framed = |bytes: usize| bytes + 5;
            assert!(framed(encode_repo(&repo).len()) <= weight_of_repo(&repo.settings));
            assert!(framed(encode_plan(&small).len()) <= weight_of_plan(&small));
        }
    }

    /// The largest config that may be is shown within a message of an authenticated peer.
    #[test]
    fn a_config_of_as_many_objects_as_may_be_fits_a_message() {
        let repos = (0..MAX_REPOS).map(|number| {
            let mut guid = [0; 32];
            guid[..8].copy_from_slice(&number.to_le_bytes());
            let uri = Uri::new("https://u:p@h/".to_owned() + &"x".repeat(60));
            let settings = RepoSettings {
                id: number.to_string(),
                uri,
                password: Some(Secret::new("p")),
                env: Vec::new(),
                flags: Vec::new(),
                command_prefix: Vec::new(),
                hooks: Vec::new(),
                ..settings()
            };
            Repo { guid: Guid::from_bytes(guid), origin: None, settings }
        });
        let plans = (0..MAX_PLANS).map(|number| Plan {
            id: number.to_string(),
            repo: "7".into(),
            paths: vec!["/".into()],
            excludes: Vec::new(),
            iexcludes: Vec::new(),
            hooks: Vec::new(),
            flags: Vec::new(),
            ..plan()
        });
        let config = Config::new(ConfigModno::MAX, repos.collect(), plans.collect()).unwrap();
        assert!(encode_shown(&Shown::all(&config)).len() <= MAX_CONFIG_BYTES);
    }
}
