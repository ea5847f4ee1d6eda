//! Faults of the machine itself: its clock, its disk, its files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Found, doctor, host_of, key, pair};
use crate::fleet::{Instance, create};

/// A command of an instance whose clock is moved by this much, such as `-1h`.
pub(super) fn with_clock(instance: &Instance, moved: &str, arguments: &[&str]) -> Command {
    let inner = instance.command(arguments);
    let mut command = Command::new("faketime");
    command.args(["-f", moved]).arg(inner.get_program()).args(inner.get_args());
    // Spans are measured by another clock, which no operator can set.
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").stdin(Stdio::null());
    for name in ["OPMESH_DATA_DIR", "OPMESH_CONFIG", "OPMESH_FLOW_ID"] {
        command.env_remove(name);
    }
    command
}

/// Runs a script with a file system of 24 MiB at `folder`, which is gone afterwards: in a mount namespace of its own,
/// and where only root may have one, in a user namespace, too.
fn on_a_small_disk(folder: &Path, script: &str) -> std::process::Output {
    let mount = format!("mount -t tmpfs -o size=24m,mode=0700 tmpfs {0} && {script}", folder.display());
    let namespaces = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    let output = Command::new("unshare")
        .args([namespaces, "sh", "-c", &mount])
        .stdin(Stdio::null())
        .output()
        .expect("unshare is installed");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !said.contains("unshare failed") && !said.contains("mount:"),
        "a small disk cannot be had here: {said}"
    );
    output
}

#[test]
fn a_full_disk_is_named_with_and_without_room_to_open_the_store() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("disk");
    fs::create_dir(&folder).unwrap();
    let program = env!("CARGO_BIN_EXE_opmesh");
    let data = folder.join("data");
    let (fill, data) = (folder.join("fill"), data.display());
    // `dd` fills the disk to the last byte, and fails at it.
    let script = format!(
        "{program} --data-dir {data} init --instance-id web >/dev/null 2>&1; \
         dd if=/dev/zero of={} bs=64k 2>/dev/null; \
         {program} --data-dir {data} --json doctor",
        fill.display()
    );
    let found = Found::of(on_a_small_disk(&folder, &script));
    found.names("disk", "here", "the disk is full: 0 B of 24.0 MiB are free", "make room there");
}

#[test]
fn a_hub_with_a_full_disk_is_named_from_the_host() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("disk");
    fs::create_dir(&folder).unwrap();
    let web = Instance::new("web");
    let program = env!("CARGO_BIN_EXE_opmesh");
    let (hub, host) = (folder.join("hub"), web.dir.clone());
    let script = format!(
        "h='{program} --data-dir {hub}'; w='{program} --data-dir {host}'; \
         $h init --instance-id hub >/dev/null 2>&1; \
         $h -q serve --listen 127.0.0.1:0 > {folder}/ready & pid=$!; \
         for i in $(seq 300); do [ -s {folder}/ready ] && break; sleep 0.1; done; \
         at=$(sed 's/.*\"address\":\"\\([^\"]*\\)\".*/\\1/' {folder}/ready); \
         $w -q pair join $($h -q pair token) --url https://$at >/dev/null; \
         dd if=/dev/zero of={folder}/fill bs=64k 2>/dev/null; \
         $w --json doctor hub; code=$?; kill $pid; wait $pid; exit $code",
        hub = hub.display(),
        host = host.display(),
        folder = folder.display(),
    );
    let found = Found::of(on_a_small_disk(&folder, &script));
    found.names("peer_store", "peer", "the hub", "disk");
}

#[test]
fn a_key_that_others_may_read_is_named() {
    let web = Instance::new("web");
    fs::set_permissions(web.dir.join("identity.key"), fs::Permissions::from_mode(0o644)).unwrap();
    doctor(&web, &[]).names("identity", "here", "identity.key", "mend what the message names");
}

#[test]
fn a_configuration_with_a_misspelt_key_is_named() {
    let web = Instance::new("web");
    fs::write(web.dir.join("opmesh.toml"), "[cache]\nentires = 7\n").unwrap();
    doctor(&web, &[]).names("config", "here", "entires", "correct the file");
}

#[test]
fn a_process_that_holds_the_data_directory_without_answering_is_named() {
    let mut web = Instance::new("web");
    web.serve("none");
    fs::remove_file(web.dir.join("admin.sock")).unwrap();
    let pid = web.pid().to_string();
    doctor(&web, &[]).names("lock", "here", &pid, "admin socket");
}

#[test]
fn a_damaged_page_of_the_database_is_named() {
    let web = Instance::new("web");
    web.apply(&(0..200).map(|n| create("nas", "home", &format!("{n:0500}"))).collect::<String>());
    // A page in the middle, once all lies in the file itself.
    let path = web.dir.join("opmesh.db");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    doctor(&web, &[]).names("store", "here", "", "hosts verify --all");
}

#[test]
fn a_store_of_another_identity_is_named() {
    let (_hub, web, url) = pair();
    let other = host_of(key(&Instance::new("hub")), &url);
    fs::copy(other.dir.join("opmesh.db"), web.dir.join("opmesh.db")).unwrap();
    for log in ["opmesh.db-wal", "opmesh.db-shm"] {
        fs::remove_file(web.dir.join(log)).ok();
    }
    doctor(&web, &[]).names("store", "here", "belongs to", "docs/operations.md");
}
