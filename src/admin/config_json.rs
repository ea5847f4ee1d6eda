//! A config as the JSON that an operator reads, edits and gives back: shown, changed, in one shape.
//!
//! What is shown can be applied as it is and changes nothing: a value that is not shown has a marker that means "keep
//! it". Reading refuses unknown fields with line and column; what a config may hold is checked where it is applied.

use opmesh_core::config::{
    Change, EnvVar, Guid, Hook, Origin, Plan, PutRepo, Repo, RepoSettings, Retention, Secret, Standing, Uri,
};
use opmesh_core::model::{ConfigModno, KeyId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::{Failure, Reason};

/// A config, or a change of one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    /// Whose it is; not read.
    #[serde(default)]
    host: Option<String>,
    /// Whose it is; not read.
    #[serde(default)]
    key_id: Option<String>,
    /// The config that a change was made for.
    #[serde(default)]
    modno: Option<String>,
    #[serde(default)]
    repos: Vec<RepoJson>,
    #[serde(default)]
    plans: Vec<PlanJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delete: Option<Delete>,
}

/// Ids.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    #[serde(default)]
    repos: Vec<String>,
    #[serde(default)]
    plans: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RepoJson {
    id: String,
    #[serde(default)]
    guid: Option<String>,
    uri: String,
    /// Its credentials are `***`; they are kept when it is applied.
    #[serde(default)]
    uri_redacted: bool,
    #[serde(default)]
    password: Option<SecretJson>,
    #[serde(default)]
    env: Vec<EnvJson>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    command_prefix: Vec<String>,
    #[serde(default)]
    hooks: Vec<HookJson>,
    #[serde(default)]
    schedule: String,
    #[serde(default)]
    retention: RetentionJson,
    #[serde(default)]
    shared: bool,
    /// Who shares it; not read.
    #[serde(default)]
    origin: Option<OriginJson>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OriginJson {
    key_id: String,
    withdrawn: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanJson {
    id: String,
    repo: String,
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    excludes: Vec<String>,
    #[serde(default)]
    iexcludes: Vec<String>,
    #[serde(default)]
    schedule: String,
    #[serde(default)]
    retention: RetentionJson,
    #[serde(default)]
    hooks: Vec<HookJson>,
    #[serde(default)]
    flags: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvJson {
    name: String,
    value: SecretJson,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HookJson {
    name: String,
    #[serde(default)]
    condition: String,
    command: SecretJson,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RetentionJson {
    last: u32,
    hourly: u32,
    daily: u32,
    weekly: u32,
    monthly: u32,
    yearly: u32,
}

/// A text, or `{"redacted": true}`: no text can be mistaken for the marker.
#[derive(Debug)]
struct SecretJson(Secret);

/// See [`SecretJson`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    redacted: bool,
}

/// See [`SecretJson`].
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text, or {\"redacted\": true} to keep what is there")]
enum Written {
    Value(String),
    Marker(Marker),
}

impl Serialize for SecretJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.expose() {
            Some(value) => serializer.serialize_str(value),
            None => Marker { redacted: true }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for SecretJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Value(value) => Ok(Self(Secret::new(value))),
            Written::Marker(Marker { redacted: true }) => Ok(Self(Secret::Redacted)),
            Written::Marker(Marker { redacted: false }) => {
                Err(serde::de::Error::custom("`redacted` can only be true; for no value leave the field out"))
            }
        }
    }
}

/// Whose config is shown.
#[derive(Debug)]
pub(super) struct Owner {
    /// What it is called here.
    pub(super) name: String,
    /// Its key.
    pub(super) key: KeyId,
}

/// The JSON of a config.
pub(super) fn write(
    owner: &Owner,
    modno: ConfigModno,
    repos: &[Repo],
    plans: &[Plan],
) -> Result<String, Failure> {
    let document = Document {
        host: Some(owner.name.clone()),
        key_id: Some(owner.key.to_string()),
        modno: Some(modno.to_string()),
        repos: repos.iter().map(RepoJson::from).collect(),
        plans: plans.iter().map(PlanJson::from).collect(),
        delete: None,
    };
    serde_json::to_string_pretty(&document).map_err(|fault| Failure::new(Reason::Internal, fault))
}

/// What a document asks for, and the config that it was made for, if it says so.
#[derive(Debug)]
pub(super) struct Asked {
    /// Its `modno`.
    pub(super) base: Option<ConfigModno>,
    /// With no base of its own.
    pub(super) change: Change,
}

/// Reads a document as a change.
pub(super) fn read(text: &str) -> Result<Asked, Failure> {
    let invalid = |fault: &dyn std::fmt::Display| {
        Failure::new(Reason::InvalidArgument, format!("the config cannot be read: {fault}"))
            .hint("its shape is what `opmesh config get` prints")
    };
    // A list would be read as the fields in their order.
    if !text.trim_start().starts_with('{') {
        return Err(invalid(&"it is no JSON object"));
    }
    let document: Document = serde_json::from_str(text).map_err(|fault| invalid(&fault))?;
    let base = match document.modno.as_deref() {
        None => None,
        Some(text) => {
            let number: u64 =
                text.parse().map_err(|_| invalid(&format_args!("modno {text:?} is no number")))?;
            Some(ConfigModno::new(number).map_err(|fault| invalid(&fault))?)
        }
    };
    let put_repos: Result<Vec<PutRepo>, Failure> = document
        .repos
        .into_iter()
        .map(|repo| {
            let guid = repo.guid.as_deref().filter(|text| !text.is_empty()).map(str::parse::<Guid>);
            let guid = guid.transpose().map_err(|fault| invalid(&fault))?;
            Ok(PutRepo { guid, settings: repo.into() })
        })
        .collect();
    let delete = document.delete.unwrap_or_default();
    let change = Change {
        base: base.unwrap_or_default(),
        put_repos: put_repos?,
        put_plans: document.plans.into_iter().map(Plan::from).collect(),
        delete_repos: delete.repos,
        delete_plans: delete.plans,
    };
    Ok(Asked { base, change })
}

impl From<&Repo> for RepoJson {
    fn from(repo: &Repo) -> Self {
        let settings = &repo.settings;
        Self {
            id: settings.id.clone(),
            guid: Some(repo.guid.to_string()),
            uri: settings.uri.expose().map_or_else(|| settings.uri.shown_text(), str::to_owned),
            uri_redacted: settings.uri.is_redacted(),
            password: settings.password.clone().map(SecretJson),
            env: settings
                .env
                .iter()
                .map(|variable| EnvJson {
                    name: variable.name.clone(),
                    value: SecretJson(variable.value.clone()),
                })
                .collect(),
            flags: settings.flags.clone(),
            command_prefix: settings.command_prefix.clone(),
            hooks: settings.hooks.iter().map(HookJson::from).collect(),
            schedule: settings.schedule.clone(),
            retention: settings.retention.into(),
            shared: settings.shared,
            origin: repo.origin.map(|Origin { from, standing }| OriginJson {
                key_id: from.to_string(),
                withdrawn: standing == Standing::Withdrawn,
            }),
        }
    }
}

impl From<RepoJson> for RepoSettings {
    fn from(repo: RepoJson) -> Self {
        Self {
            id: repo.id,
            uri: if repo.uri_redacted { Uri::Redacted(repo.uri) } else { Uri::new(repo.uri) },
            password: repo.password.map(|secret| secret.0),
            env: repo
                .env
                .into_iter()
                .map(|variable| EnvVar { name: variable.name, value: variable.value.0 })
                .collect(),
            flags: repo.flags,
            command_prefix: repo.command_prefix,
            hooks: repo.hooks.into_iter().map(Hook::from).collect(),
            schedule: repo.schedule,
            retention: repo.retention.into(),
            shared: repo.shared,
        }
    }
}

impl From<&Plan> for PlanJson {
    fn from(plan: &Plan) -> Self {
        Self {
            id: plan.id.clone(),
            repo: plan.repo.clone(),
            paths: plan.paths.clone(),
            excludes: plan.excludes.clone(),
            iexcludes: plan.iexcludes.clone(),
            schedule: plan.schedule.clone(),
            retention: plan.retention.into(),
            hooks: plan.hooks.iter().map(HookJson::from).collect(),
            flags: plan.flags.clone(),
        }
    }
}

impl From<PlanJson> for Plan {
    fn from(plan: PlanJson) -> Self {
        Self {
            id: plan.id,
            repo: plan.repo,
            paths: plan.paths,
            excludes: plan.excludes,
            iexcludes: plan.iexcludes,
            schedule: plan.schedule,
            retention: plan.retention.into(),
            hooks: plan.hooks.into_iter().map(Hook::from).collect(),
            flags: plan.flags,
        }
    }
}

impl From<&Hook> for HookJson {
    fn from(hook: &Hook) -> Self {
        Self {
            name: hook.name.clone(),
            condition: hook.condition.clone(),
            command: SecretJson(hook.command.clone()),
        }
    }
}

impl From<HookJson> for Hook {
    fn from(hook: HookJson) -> Self {
        Self { name: hook.name, condition: hook.condition, command: hook.command.0 }
    }
}

impl From<Retention> for RetentionJson {
    fn from(retention: Retention) -> Self {
        let Retention { last, hourly, daily, weekly, monthly, yearly } = retention;
        Self { last, hourly, daily, weekly, monthly, yearly }
    }
}

impl From<RetentionJson> for Retention {
    fn from(retention: RetentionJson) -> Self {
        let RetentionJson { last, hourly, daily, weekly, monthly, yearly } = retention;
        Self { last, hourly, daily, weekly, monthly, yearly }
    }
}

#[cfg(test)]
mod tests {
    use opmesh_core::config::{Authority, Config, GuidSeed, apply};

    use super::*;

    const CHANGE: &str = r#"{
        "repos": [{"id": "nas", "uri": "rest:https://u:pw@nas/r", "password": "secret",
                   "env": [{"name": "REGION", "value": "eu"}], "retention": {"daily": 7}, "shared": true,
                   "hooks": [{"name": "mail", "condition": "error", "command": "mail root"}]}],
        "plans": [{"id": "home", "repo": "nas", "paths": ["/home"], "schedule": "daily"}]}"#;

    fn applied(config: &Config, text: &str) -> Config {
        let asked = read(text).unwrap();
        let change = Change { base: config.modno(), ..asked.change };
        apply(config, change, Authority::Operator, GuidSeed([1; 32])).unwrap().config
    }

    fn written(config: &Config) -> String {
        let owner = Owner { name: "web-1".to_owned(), key: KeyId::from_bytes([1; 32]) };
        write(&owner, config.modno(), config.repos(), config.plans()).unwrap()
    }

    #[test]
    fn what_is_shown_can_be_applied_and_changes_nothing() {
        let config = applied(&Config::default(), CHANGE);
        assert_eq!((config.repos().len(), config.plans().len(), config.modno().get()), (1, 1, 1));
        assert_eq!(applied(&config, &written(&config)), config);
        let shown = opmesh_core::config::Shown::all(&config);
        let owner = Owner { name: "web-1".to_owned(), key: KeyId::from_bytes([1; 32]) };
        let redacted = write(&owner, shown.modno(), shown.repos(), shown.plans()).unwrap();
        for secret in ["secret", "u:pw", "eu\"", "mail root"] {
            assert!(written(&config).contains(secret) && !redacted.contains(secret), "{secret}: {redacted}");
        }
        assert_eq!(read(&redacted).unwrap().base, Some(config.modno()));
        assert_eq!(applied(&config, &redacted), config);
    }

    #[test]
    fn deleting_is_said() {
        let config = applied(&Config::default(), CHANGE);
        assert_eq!(applied(&config, r#"{"repos": [], "plans": []}"#), config);
        let less = applied(&config, r#"{"delete": {"plans": ["home"]}}"#);
        assert_eq!((less.repos().len(), less.plans().len()), (1, 0));
    }

    #[test]
    fn what_is_no_document_is_refused_where_it_stands() {
        for (text, said) in [
            ("[]", "it is no JSON object"),
            ("", "it is no JSON object"),
            (r#"{"repo": []}"#, "unknown field `repo`"),
            ("{\n\"plans\": [{\"id\": \"x\"}]}", "missing field `repo` at line 2"),
            (r#"{"modno": "-1"}"#, "modno \"-1\" is no number"),
            (r#"{"repos": [{"id": "a", "uri": "b", "guid": "c"}]}"#, "is not a guid"),
            (r#"{"repos": [{"id": "a", "uri": "b", "password": 7}]}"#, "expected a text, or"),
            (r#"{"repos": [{"id": "a", "uri": "b", "password": {"redacted": false}}]}"#, "can only be true"),
        ] {
            let failure = read(text).unwrap_err();
            assert_eq!(failure.reason, Reason::InvalidArgument);
            assert!(failure.message.contains(said), "{}", failure.message);
        }
    }
}
