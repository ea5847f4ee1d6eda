//! The options by which a command works on an instance elsewhere: three that go together.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::admin::{Failure, Reason, Remote};

/// Where, which one, and by what right.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Elsewhere {
    /// Administer an instance elsewhere: https://HOST:PORT of its admin listener
    #[arg(id = "admin_url", long = "admin-url", global = true, value_name = "URL")]
    url: Option<String>,
    /// Which instance must answer there
    #[arg(id = "admin_key_id", long = "admin-key-id", global = true, value_name = "K")]
    key_id: Option<String>,
    /// File with a token that `opmesh admin token create` printed there
    #[arg(id = "admin_token_file", long = "admin-token-file", global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Elsewhere {
    /// The instance elsewhere; none: the one here is meant.
    pub(super) fn remote(self) -> anyhow::Result<Option<Remote>> {
        let (url, key_id, file) = match (self.url, self.key_id, self.token_file) {
            (None, None, None) => return Ok(None),
            (Some(url), Some(key_id), Some(file)) => (url, key_id, file),
            _ => {
                let text = "--admin-url, --admin-key-id and --admin-token-file go together";
                return Err(Failure::new(Reason::InvalidArgument, text)
                    .hint("give all three, or none for the instance on this machine")
                    .into());
            }
        };
        let token = fs::read_to_string(&file)
            .with_context(|| format!("the admin token cannot be read from {}", file.display()))?;
        Ok(Some(Remote::new(&url, &key_id, &token)?))
    }
}
