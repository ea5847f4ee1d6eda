//! How fresh a host's backups are: the state that lists show for it. Pure.
//!
//! Judged for each plan in each repository; a host is as well as its worst plan. Whether the host is connected is
//! another matter and never makes it stale.

use std::time::Duration;

use opmesh_core::model::{Status, UnixMs};

use crate::store::PlanFacts;

/// A plan without a good backup for so long is stale: a daily one with two hours of grace.
const STALE_AFTER: Duration = Duration::from_hours(26);

/// The state of one plan, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Freshness {
    /// No good backup within the last 26 hours, counted from the first sight of the plan.
    Stale,
    /// The last finished backup failed.
    Failing,
    /// No backup has succeeded yet.
    Never,
    /// The last finished backup had warnings.
    Warning,
    /// A backup is under way.
    Running,
    /// None of these.
    Ok,
}

impl Freshness {
    /// The name in JSON.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Failing => "failing",
            Self::Never => "never",
            Self::Warning => "warning",
            Self::Running => "running",
            Self::Ok => "ok",
        }
    }

    fn of_plan(plan: &PlanFacts, now: UnixMs) -> Self {
        let reference = plan.last_success_unix_ms.unwrap_or(plan.first_seen_unix_ms);
        if u128::from(now.since(reference)) > STALE_AFTER.as_millis() {
            return Self::Stale;
        }
        match plan.last_finished {
            _ if plan.last_success_unix_ms.is_none() => Self::Never,
            Some(Status::Error | Status::SystemCancelled | Status::UserCancelled) => Self::Failing,
            Some(Status::Warning) => Self::Warning,
            _ if plan.running => Self::Running,
            _ => Self::Ok,
        }
    }

    /// The worst of a host's plans; a host without plans has never made a backup.
    pub(super) fn of_host<'a>(plans: impl Iterator<Item = &'a PlanFacts>, now: UnixMs) -> Self {
        plans.map(|plan| Self::of_plan(plan, now)).min().unwrap_or(Self::Never)
    }
}

#[cfg(test)]
mod tests {
    use opmesh_core::model::{PublicKey, Scope};

    use super::*;

    const HOUR: i64 = 3_600_000;
    const NOW: UnixMs = UnixMs(1000 * HOUR);

    fn plan(success_hours_ago: Option<i64>, last: Option<Status>, running: bool) -> PlanFacts {
        let ago = |hours: i64| UnixMs(NOW.0 - hours * HOUR);
        PlanFacts {
            owner: PublicKey([1; 32]).key_id(),
            scope: Scope { repo: "r".into(), plan: "p".into() },
            first_seen_unix_ms: ago(20),
            last_start_unix_ms: Some(ago(1)),
            last_finished: last,
            last_success_unix_ms: success_hours_ago.map(ago),
            running,
        }
    }

    #[test]
    fn the_first_that_applies_is_a_plans_state() {
        for (facts, expected) in [
            (plan(Some(27), Some(Status::Success), true), Freshness::Stale),
            (plan(None, Some(Status::Error), false), Freshness::Never),
            (plan(Some(25), Some(Status::UserCancelled), true), Freshness::Failing),
            (plan(Some(1), Some(Status::Warning), true), Freshness::Warning),
            (plan(Some(25), Some(Status::Success), true), Freshness::Running),
            (plan(Some(25), Some(Status::Success), false), Freshness::Ok),
        ] {
            assert_eq!(Freshness::of_plan(&facts, NOW), expected);
        }
        let unseen = PlanFacts { first_seen_unix_ms: UnixMs(0), ..plan(None, None, false) };
        assert_eq!(Freshness::of_plan(&unseen, NOW), Freshness::Stale);
    }

    #[test]
    fn a_host_is_as_well_as_its_worst_plan() {
        let plans = [plan(Some(1), Some(Status::Success), false), plan(Some(1), Some(Status::Error), false)];
        assert_eq!(Freshness::of_host(plans.iter(), NOW).name(), "failing");
        assert_eq!(Freshness::of_host([].iter(), NOW).name(), "never");
    }
}
