//! `cargo xtask bench`: runs the benches and writes what they printed, with the command,
//! the date, the commit and the machine, into docs/PERFORMANCE.md. A bench prints its
//! result as lines of a Markdown table (`| ... |`); everything else it prints is noise.

use std::fs;

use clap::Args;

use crate::run::Call;
use crate::tree::Tree;

const PAGE: &str = "docs/PERFORMANCE.md";

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
    if ran == 0 { Err("no bench of that name".into()) } else { Ok(()) }
}

fn write(tree: &Tree, title: &str, command: &str, output: &str) -> Result<(), String> {
    let table: Vec<&str> = output.lines().filter(|line| line.starts_with('|')).collect();
    if table.is_empty() {
        return Err(format!("`{command}` printed no table line"));
    }
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let measured = format!("`{command}`, {date}, commit {}, {}", tree.commit(), machine());
    let section = format!("## {title}\n\n{measured}\n\n{}\n", table.join("\n"));
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
