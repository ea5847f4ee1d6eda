//! `opmesh version`.

use std::process::ExitCode;

use serde::Serialize;

use super::context::Context;

/// The version of this program
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  opmesh version\n  opmesh version --json")]
pub(super) struct Version {}

#[derive(Serialize)]
struct About {
    version: &'static str,
}

impl Version {
    pub(super) fn execute(self, context: &mut Context) -> anyhow::Result<ExitCode> {
        let about = About { version: env!("CARGO_PKG_VERSION") };
        if context.output.is_json() {
            context.output.object(&about)?;
        } else {
            context.output.line(format_args!("opmesh {}", about.version))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
