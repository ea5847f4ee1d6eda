//! Compiles `proto/` without protoc, and lets the admin messages be written as the JSON that scripts rely on.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let sources = ["proto/opmesh/v1/operation.proto", "proto/opmesh/sync/v1/sync.proto"];
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(sources, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
