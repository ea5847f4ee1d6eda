//! What the demo's hosts do: files to back up, and the runs over them, by restic where there is one.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::lab::Lab;

/// What makes the backups.
#[derive(Debug, Clone)]
pub(super) enum Tool {
    /// restic, found here.
    Restic(PathBuf),
    /// Every system has it.
    Copy,
}

/// One run.
#[derive(Debug)]
pub(super) struct Job {
    plan: &'static str,
    repo: &'static str,
    kind: Option<&'static str>,
    command: Vec<OsString>,
    /// A file that is written before, so that there is something new to back up.
    fresh: PathBuf,
    /// restic's surroundings.
    environment: Vec<(&'static str, OsString)>,
}

/// Files of each host, and their size: a few hundred KiB together.
const FILES: usize = 20;
const FILE_BYTES: usize = 12 * 1024;
/// So that one can watch the table fill.
const BETWEEN: Duration = Duration::from_millis(400);
/// Names of the restic repository and of one that is not there.
const REPO: &str = "nas";
const LOST_REPO: &str = "old-disk";

impl Tool {
    /// restic, when it is on PATH.
    pub(super) fn find() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found =
            std::env::split_paths(&path).map(|folder| folder.join("restic")).find(|file| file.is_file());
        found.map_or(Self::Copy, Self::Restic)
    }
}

/// Makes every host's files and repository; returns what each is to do.
pub(super) async fn prepare<const N: usize>(
    lab: &Lab,
    tool: &Tool,
    hosts: [&'static str; N],
) -> anyhow::Result<Vec<Vec<Job>>> {
    let mut all = Vec::new();
    for host in hosts {
        let folder = lab.folder().join(format!("{host}-disk"));
        write_files(&folder.join("data"))?;
        all.push(match tool {
            Tool::Restic(restic) => restic_jobs(lab, host, restic, &folder).await?,
            Tool::Copy => copy_jobs(&folder),
        });
    }
    Ok(all)
}

async fn restic_jobs(lab: &Lab, host: &str, restic: &Path, folder: &Path) -> anyhow::Result<Vec<Job>> {
    let password = folder.join("password");
    fs::write(&password, format!("{host} demo\n")).context("the demo's password file cannot be written")?;
    let environment = |repo: &str| -> Vec<(&'static str, OsString)> {
        vec![
            ("RESTIC_REPOSITORY", folder.join(repo).into()),
            ("RESTIC_PASSWORD_FILE", password.clone().into()),
            ("RESTIC_CACHE_DIR", folder.join("cache").into()),
        ]
    };
    let mut init = lab.tool(host, restic.as_os_str())?;
    init.arg("init").envs(environment(REPO));
    let (made, _) = lab.run(&mut init, None).await?;
    anyhow::ensure!(made, "`restic init` failed; see {host}.log in {}", lab.folder().display());

    let data = folder.join("data");
    let missing = folder.join("not-mounted");
    let job = |plan, repo, words: &[&str], paths: &[&Path]| {
        let mut command = vec![restic.as_os_str().to_owned()];
        command.extend(words.iter().map(OsString::from));
        command.extend(paths.iter().map(|path| path.as_os_str().to_owned()));
        Job { plan, repo, kind: None, command, fresh: data.join("fresh"), environment: environment(repo) }
    };
    let backup = ["backup", "--json"];
    Ok(vec![
        job("data", REPO, &backup, &[&data]),
        job("data", REPO, &backup, &[&data]),
        job("media", REPO, &backup, &[&data, &missing]),
        job("data", REPO, &backup, &[&data]),
        job("archive", LOST_REPO, &backup, &[&data]),
        job("data", REPO, &["forget", "--keep-last", "2", "--json"], &[]),
    ])
}

fn copy_jobs(folder: &Path) -> Vec<Job> {
    let data = folder.join("data");
    let job = |plan, from: &Path, to: &str| Job {
        plan,
        repo: REPO,
        kind: Some("backup"),
        command: vec!["cp".into(), "-R".into(), from.into(), folder.join(to).into()],
        fresh: data.join("fresh"),
        environment: Vec::new(),
    };
    vec![
        job("data", &data, "copy-1"),
        job("data", &data, "copy-2"),
        job("media", &folder.join("not-mounted"), "copy-3"),
        job("data", &data, "copy-4"),
    ]
}

impl Job {
    /// Runs it as an operator would: `opmesh run --plan … --repo … -- …`. That a backup fails is part of the demo.
    pub(super) async fn run(self, lab: &Lab, host: &str) -> anyhow::Result<()> {
        fs::write(&self.fresh, random_bytes(FILE_BYTES)?).context("the demo's files cannot be written")?;
        let mut command = lab.command(host, &["run", "--plan", self.plan, "--repo", self.repo])?;
        if let Some(kind) = self.kind {
            command.args(["--kind", kind]);
        }
        command.arg("--").args(&self.command).envs(self.environment);
        lab.run(&mut command, None).await?;
        Ok(lab.pause(BETWEEN).await?)
    }
}

fn write_files(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    for number in 1..=FILES {
        let path = folder.join(format!("file-{number:02}"));
        fs::write(&path, random_bytes(FILE_BYTES)?)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

fn random_bytes(count: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    getrandom::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system has no randomness"))?;
    Ok(bytes)
}
