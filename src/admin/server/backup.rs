//! Copies of the store on the daemon's machine.

use std::path::PathBuf;

use crate::admin::error::{Failure, Reason};
use crate::admin::pb;
use crate::node::Node;

/// The caller says where, in full: this process has another working directory.
pub(super) async fn backup(node: &Node, path: String) -> Result<pb::Backup, Failure> {
    let to = PathBuf::from(&path);
    if !to.is_absolute() {
        let text = format!("{path:?} is no absolute path: the daemon does not know where the caller is");
        return Err(Failure::new(Reason::InvalidArgument, text));
    }
    node.store().backup(to.clone()).await?;
    let size_bytes = std::fs::metadata(&to)
        .map_err(|error| Failure::new(Reason::Io, format!("{path} cannot be looked at any more: {error}")))?;
    Ok(pb::Backup { path, size_bytes: size_bytes.len() })
}
