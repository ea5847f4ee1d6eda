//! Who this instance is: its name, and the key that takes over.

use opmesh_core::model::InstanceId;

use crate::admin::error::{Failure, Reason};
use crate::admin::pb;
use crate::node::{Confirming, Node, Rotation};

pub(super) async fn rename(node: &Node, name: &str) -> Result<pb::Identity, Failure> {
    let instance: InstanceId = name.parse().map_err(|fault| Failure::new(Reason::InvalidArgument, fault))?;
    node.rename(instance).await?;
    Ok(shown(node))
}

pub(super) async fn rotate(node: &Node, step: &str) -> Result<pb::Rotation, Failure> {
    Ok(match step {
        "begin" => {
            let rotation = node.rotate().await?;
            let state = if rotation.next.is_some() { "waiting" } else { "rotated" };
            rotation_shown(state, &rotation)
        }
        "force" => rotation_shown("rotated", &node.force_rotation().await?),
        "abort" => rotation_shown("aborted", &node.abort_rotation().await?),
        "status" => {
            let rotation = node.rotation().await?;
            rotation_shown(if rotation.next.is_some() { "waiting" } else { "none" }, &rotation)
        }
        other => {
            let text = format!("{other:?} is no step: expected begin, status, force or abort");
            return Err(Failure::new(Reason::InvalidArgument, text));
        }
    })
}

fn rotation_shown(state: &str, rotation: &Rotation) -> pb::Rotation {
    let confirming = |peer: &Confirming| pb::ConfirmingPeer {
        key_id: peer.key.to_string(),
        instance_id: peer.instance.as_ref().map(ToString::to_string).unwrap_or_default(),
        name: peer.name.clone(),
        confirmed: peer.confirmed,
    };
    pb::Rotation {
        state: state.to_owned(),
        key_id: rotation.key.to_string(),
        succeeds: rotation.before.iter().map(ToString::to_string).collect(),
        next_key_id: rotation.next.map(|(key, _)| key.to_string()),
        begun_unix_ms: rotation.next.map(|(_, begun)| begun.0),
        peers: rotation.peers.iter().map(confirming).collect(),
    }
}

fn shown(node: &Node) -> pb::Identity {
    pb::Identity { key_id: node.identity().key_id().to_string(), instance_id: node.instance().to_string() }
}
