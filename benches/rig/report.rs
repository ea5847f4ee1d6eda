//! What every bench prints: the machine, then one table. Sizes are small when `OPMESH_BENCH=short`.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use opmesh::clock::Clock;

/// Whether this run is only to show that the bench works.
pub(crate) fn is_short() -> bool {
    std::env::var("OPMESH_BENCH").is_ok_and(|mode| mode == "short")
}

/// Prints one line at once, so that a long run shows where it is.
pub(crate) fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

/// What the figures below it were measured on.
pub(crate) fn machine(bench: &str, folder: &Path) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory.lines().find_map(|line| field(line, "MemTotal:")).unwrap_or(0);
    let build = if cfg!(debug_assertions) { "debug build" } else { "release build" };
    let sync = micros(fsync_median(folder));
    say(&format!(
        "{bench}: {cores} cores, {} GiB of memory, one fsync of a 4 KiB write {sync}, {build}",
        kib >> 20
    ));
}

fn field(line: &str, name: &str) -> Option<u64> {
    line.strip_prefix(name)?.split_whitespace().next()?.parse().ok()
}

/// The median of 50 writes of 4 KiB, each made durable, to a new file in this folder.
pub(crate) fn fsync_median(folder: &Path) -> Duration {
    let clock = Clock::system();
    let mut file = tempfile::tempfile_in(folder).unwrap();
    let took = (0..50).map(|_| {
        file.write_all(&[7; 4096]).unwrap();
        let began = clock.monotonic();
        file.sync_data().unwrap();
        clock.monotonic() - began
    });
    percentile(took.collect(), 50)
}

/// The value below which `percent` of the measured ones lie.
pub(crate) fn percentile(mut values: Vec<Duration>, percent: usize) -> Duration {
    values.sort_unstable();
    values[(values.len() - 1) * percent / 100]
}

/// A span in the unit that suits it.
pub(crate) fn micros(span: Duration) -> String {
    let micros = span.as_micros();
    if micros < 10_000 { format!("{micros} µs") } else { format!("{} ms", micros / 1000) }
}

/// Prints rows of cells under their heads, each column as wide as it must be.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
        say(&format!("| {} |", padded.collect::<Vec<_>>().join(" | ")));
    };
    line(heads.to_vec());
    say(&format!(
        "|{}|",
        widths.iter().map(|width| "-".repeat(width + 1) + ":").collect::<Vec<_>>().join("|")
    ));
    for row in rows {
        line(row.iter().map(String::as_str).collect());
    }
}
