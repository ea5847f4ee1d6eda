//! Who this instance is: its name, and the key that takes over.

use opmesh_core::model::InstanceId;

use crate::admin::error::{Failure, Reason};
use crate::admin::pb;
use crate::node::Node;

pub(super) async fn rename(node: &Node, name: &str) -> Result<pb::Identity, Failure> {
    let instance: InstanceId = name.parse().map_err(|fault| Failure::new(Reason::InvalidArgument, fault))?;
    node.rename(instance).await?;
    Ok(shown(node))
}

fn shown(node: &Node) -> pb::Identity {
    pb::Identity { key_id: node.identity().key_id().to_string(), instance_id: node.instance().to_string() }
}
