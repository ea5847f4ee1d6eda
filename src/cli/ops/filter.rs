//! Which operations are meant: the filters of `ops list` and `ops watch`.

use clap::builder::PossibleValuesParser;
use opmesh_core::model::{Kind, Status, UnixMs};

use crate::admin::pb;
use crate::cli::time::When;

/// Conditions on operations.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Filters")]
pub(in crate::cli) struct Filter {
    /// Of this host: name, instance id, key ID, or the start of the key ID
    #[arg(long, value_name = "H")]
    host: Vec<String>,
    /// Of this repository
    #[arg(long, value_name = "R")]
    repo: Vec<String>,
    /// Of this plan
    #[arg(long, value_name = "P")]
    plan: Vec<String>,
    /// Of this kind
    #[arg(long, value_name = "K", value_delimiter = ',', value_parser = kinds())]
    kind: Vec<String>,
    /// With this status
    #[arg(long, value_name = "S", value_delimiter = ',', value_parser = statuses())]
    status: Vec<String>,
    /// Of this flow
    #[arg(long, value_name = "F")]
    flow: Vec<u64>,
    /// Started then or later: RFC 3339, YYYY-MM-DD or a span back (90m, 36h, 7d, 2w)
    #[arg(long, value_name = "T")]
    since: Option<When>,
    /// Started before then
    #[arg(long, value_name = "T")]
    until: Option<When>,
}

impl Filter {
    /// The conditions as they are asked at `now`.
    pub(in crate::cli) fn resolve(self, now: UnixMs) -> pb::OperationFilter {
        pb::OperationFilter {
            host: self.host,
            repo_id: self.repo,
            plan_id: self.plan,
            kind: self.kind,
            status: self.status,
            flow_id: self.flow,
            since_unix_ms: self.since.map(|when| when.resolve(now).0),
            until_unix_ms: self.until.map(|when| when.resolve(now).0),
        }
    }
}

/// What an operation can be, and what a newer program may have written.
fn kinds() -> PossibleValuesParser {
    PossibleValuesParser::new(Kind::ALL.map(|(.., name)| name).into_iter().chain(["unknown"]))
}

/// How an operation can stand.
fn statuses() -> PossibleValuesParser {
    PossibleValuesParser::new(Status::ALL.map(|(.., name)| name))
}
