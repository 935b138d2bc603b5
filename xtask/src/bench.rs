//! `cargo xtask bench`: runs the benches and writes what they printed, with the command,
//! the date, the commit and the machine, into docs/PERFORMANCE.md. A bench prints its
//! result as lines of a Markdown table (`| ... |`); everything else it prints is noise.

use std::fs;

use clap::Args;

use crate::run::Call;
use crate::tree::Tree;

const PAGE: &str = "docs/PERFORMANCE.md";

/// Title of the tables that tests print, in simulated time or counts: the same on every machine.
const SIMULATED: &str = "simulated drives";
/// These tests: package, file, name.
const TABLES: [(&str, &str, &str); 9] = [
    ("raid", "flow", "clients_hardly_notice_what_the_pool_does_beside_them"),
    ("raid", "flow", "a_late_read_is_answered_by_the_other_drives"),
    ("raid", "flow", "at_most_one_drive_at_a_time_is_busy_with_bulk_writes"),
    ("raid", "slow", "a_slow_drive_is_read_around_as_soon_as_it_is_found"),
    ("raid", "layout", "parity_is_spread_evenly_over_full_width_groups"),
    ("raid", "rebuild", "two_rebuilds_in_one_pass_seek_less_than_two_by_themselves"),
    ("engine", "rebuild", "a_rebuild_is_as_fast_as_the_slowest_drive_and_proportional_to_what_is_written"),
    ("engine", "rebuild", "a_scrub_is_proportional_to_what_is_written"),
    ("engine", "expansion", "clients_do_not_notice_an_expansion"),
];

/// Arguments of `bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// Only benches whose package or name contains this
    #[arg(long)]
    only: Option<String>,
    /// Print, but leave docs/PERFORMANCE.md as it is
    #[arg(long)]
    no_write: bool,
}

/// `cargo xtask bench`.
pub fn bench(tree: &Tree, args: &BenchArgs) -> Result<(), String> {
    let mut ran = 0;
    for package in tree.packages()? {
        for name in &package.benches {
            let title = format!("{} {name}", package.name);
            if args.only.as_ref().is_some_and(|only| !title.contains(only)) {
                continue;
            }
            ran += 1;
            let call = Call::cargo(tree.root()).args(["bench", "--quiet", "-p", &package.name, "--bench", name]);
            let command = call.shown().to_owned();
            println!("$ {command}");
            let output = call.output()?;
            print!("{output}");
            if !args.no_write {
                write(tree, &title, &command, &output)?;
            }
        }
    }
    if args.only.as_ref().is_none_or(|only| SIMULATED.contains(only.as_str())) {
        ran += 1;
        simulated(tree, args.no_write)?;
    }
    if ran == 0 { Err("no bench of that name".into()) } else { Ok(()) }
}

/// The tables of [`TABLES`], one below the other.
fn simulated(tree: &Tree, no_write: bool) -> Result<(), String> {
    let mut tables = Vec::new();
    for (package, file, name) in TABLES {
        let test = ["test", "--quiet", "-p", package, "--test", file, "--", "--exact", name, "--nocapture"];
        let call = Call::cargo(tree.root()).args(test);
        println!("$ {}", call.shown());
        let output = call.output()?;
        let lines: Vec<&str> = output.lines().filter(|line| line.starts_with('|')).collect();
        if lines.is_empty() {
            return Err(format!("the test {name} of {package} printed no table"));
        }
        println!("{}\n", lines.join("\n"));
        tables.push(format!("`{name}`:\n\n{}\n", lines.join("\n")));
    }
    if no_write { Ok(()) } else { put(tree, SIMULATED, "cargo xtask bench --only simulated", &tables.join("\n")) }
}

fn write(tree: &Tree, title: &str, command: &str, output: &str) -> Result<(), String> {
    let table: Vec<&str> = output.lines().filter(|line| line.starts_with('|')).collect();
    if table.is_empty() {
        return Err(format!("`{command}` printed no table line"));
    }
    put(tree, title, command, &format!("{}\n", table.join("\n")))
}

/// Puts a section with its figures on the page.
fn put(tree: &Tree, title: &str, command: &str, figures: &str) -> Result<(), String> {
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let measured = format!("`{command}`, {date}, commit {}, {}", tree.commit(), machine());
    let section = format!("## {title}\n\n{measured}\n\n{figures}");
    let path = tree.root().join(PAGE);
    let head = "# Performance\n\nEach section names the command that printed it. Written by `cargo xtask bench`.\n\n";
    let before = fs::read_to_string(&path).unwrap_or_else(|_| head.to_owned());
    fs::write(&path, replace(&before, title, &section)).map_err(|why| format!("{PAGE}: {why}"))
}

/// Puts a section in the place of the one with the same title, or at the end.
fn replace(page: &str, title: &str, section: &str) -> String {
    let head = format!("## {title}\n");
    let Some(start) = page.find(&head) else {
        return format!("{}\n\n{section}", page.trim_end());
    };
    let rest = &page[start + head.len()..];
    let end = rest.find("\n## ").map_or(page.len(), |at| start + head.len() + at + 1);
    let gap = if end == page.len() { "" } else { "\n" };
    format!("{}{section}{gap}{}", &page[..start], &page[end..])
}

fn machine() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    let count = processors.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{count} x {}, Linux {}", model.unwrap_or("unknown processor"), kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_takes_the_place_of_its_elder() {
        let page = "# P\n\n## a\n\nold\n\n## b\n\nkeep\n";
        assert_eq!(replace(page, "a", "## a\n\nnew\n"), "# P\n\n## a\n\nnew\n\n## b\n\nkeep\n");
        assert_eq!(replace(page, "b", "## b\n\nnew\n"), "# P\n\n## a\n\nold\n\n## b\n\nnew\n");
        assert_eq!(replace("# P\n", "c", "## c\n\nnew\n"), "# P\n\n## c\n\nnew\n");
    }
}
