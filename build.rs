//! Compiles `proto/` without protoc, and lets the admin messages be written as the JSON that scripts rely on.
//!
//! The JSON of `opmesh.admin.v1` follows from rules over its descriptors, so that a new field cannot be forgotten:
//! 64-bit numbers become decimal strings, `_json` texts become what they hold.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use tonic_prost_build::Builder;

const RECORD: &str = "opmesh/v1/operation.proto";
const CONFIG: &str = "opmesh/config/v1/config.proto";
const SYNC: &str = "opmesh/sync/v1/sync.proto";
const ADMIN: &str = "opmesh/admin/v1/admin.proto";
/// Where the functions are that the attributes name.
const JSON: &str = "crate::admin::json";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile([RECORD, CONFIG, SYNC, ADMIN], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    keep_descriptors(&descriptors, SYNC, &out.join("sync.descriptors.bin"))?;
    keep_descriptors(&descriptors, ADMIN, &out.join("admin.descriptors.bin"))?;
    let builder = admin_json(tonic_prost_build::configure(), &descriptors);
    builder.compile_fds(descriptors)?;
    Ok(())
}

/// What reflection serves: the file with a service, without comments. None of them imports another.
fn keep_descriptors(all: &FileDescriptorSet, name: &str, path: &Path) -> Result<(), Box<dyn Error>> {
    let mut kept = FileDescriptorSet::default();
    for file in all.file.iter().filter(|file| file.name() == name) {
        let mut file = file.clone();
        file.source_code_info = None;
        kept.file.push(file);
    }
    fs::write(path, kept.encode_to_vec())?;
    Ok(())
}

fn admin_json(builder: Builder, descriptors: &FileDescriptorSet) -> Builder {
    let mut builder = builder
        .type_attribute(".opmesh.admin.v1", "#[derive(serde::Serialize)]")
        .field_attribute(".opmesh.admin.v1.ParkedOperation.operation", "#[serde(flatten)]");
    for file in descriptors.file.iter().filter(|file| file.name() == ADMIN) {
        for message in &file.message_type {
            builder = message_json(builder, &format!(".{}", file.package()), message);
        }
    }
    builder
}

fn message_json(mut builder: Builder, scope: &str, message: &DescriptorProto) -> Builder {
    let path = format!("{scope}.{}", message.name());
    for field in &message.field {
        if let Some(attribute) = field_json(message, field) {
            builder = builder.field_attribute(format!("{path}.{}", field.name()), attribute);
        }
    }
    for nested in &message.nested_type {
        builder = message_json(builder, &path, nested);
    }
    builder
}

fn field_json(message: &DescriptorProto, field: &FieldDescriptorProto) -> Option<String> {
    let mut parts = Vec::new();
    if is_64_bit(field.r#type()) {
        let shape = match (field.label(), field.proto3_optional()) {
            (Label::Repeated, _) => "numbers",
            (_, true) => "optional_number",
            (_, false) => "number",
        };
        parts.push(format!("serialize_with = \"{JSON}::{shape}\""));
    }
    if let Some(name) = field.name().strip_suffix("_json") {
        parts.push(format!("rename = \"{name}\", serialize_with = \"{JSON}::embedded\""));
    }
    if message.name() == "ApplyResult" && field.proto3_optional() {
        parts.push("skip_serializing_if = \"Option::is_none\"".to_owned());
    }
    (!parts.is_empty()).then(|| format!("#[serde({})]", parts.join(", ")))
}

fn is_64_bit(field: Type) -> bool {
    matches!(field, Type::Int64 | Type::Uint64 | Type::Sint64 | Type::Fixed64 | Type::Sfixed64)
}
