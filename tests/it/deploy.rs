//! What lies in `deploy/` is held against the tools that will read it, and against this binary.
//!
//! The script does the work, so that somebody who changes a dashboard runs the same thing; what a machine has no tool for, it
//! leaves out and says. The ones that tests/run installs are always there.

mod example;

use std::{fs, path::Path, process::Command};

use crate::support::python;

#[test]
fn what_is_deployed_is_read_by_the_tools_that_will_read_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tools = python::venv().join("bin");
    let path = format!("{}:{}", tools.display(), env!("PATH"));
    let output = Command::new(root.join("deploy/test/run"))
        .arg(env!("CARGO_BIN_EXE_interven-alerts"))
        .current_dir(root)
        .env("PATH", path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for step in ["names:", "grafana:", "promtool:", "interven-alerts check:", "fit:", "hadolint:", "check-jsonschema:"]
    {
        assert!(said.contains(step), "`{step}` was left out: run tests/run, which installs its tool\n{said}");
    }
}

/// What a page says to type into a shell: lines of blocks that are for one, and words within sentences.
pub(crate) fn shell_lines(page: &str) -> impl Iterator<Item = &str> {
    let blocks = page.split("```sh\n").skip(1).filter_map(|block| block.split("```").next());
    // A fence is three of these, and two fences are an even number: every other piece is within a sentence's.
    let words = page.split('`').skip(1).step_by(2);
    blocks.flat_map(str::lines).chain(words)
}

/// The commands of ours in a page, as they are written there.
fn commands_in(page: &str) -> Vec<String> {
    let ours = shell_lines(page).filter(|text| text.starts_with("interven-alerts "));
    // What follows is for the shell, or for the reader.
    let ours = ours.map(|text| text.split(['#', '|', '>', '<', '&', ';']).next().unwrap_or_default());
    ours.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn every_command_that_the_runbook_names_is_one_that_there_is() {
    // Method: with `--help` behind it, a command is read to the end and not carried out.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let pages = ["runbook/README.md", "README.md", "kubernetes/README.md"];
    let pages = pages.map(|page| fs::read_to_string(root.join(page)).unwrap());
    let commands: Vec<_> = pages.iter().flat_map(|page| commands_in(page)).collect();
    assert!(commands.len() > 30, "only {} were found: has the way they are written changed?", commands.len());
    for command in commands {
        let filled = command.replace("CHANNEL", "soc-slack").replace(" ID", " 0190a1b2-c3d4-7000-8000-000000000001");
        let words = filled.split(' ').skip(1);
        let output = Command::new(env!("CARGO_BIN_EXE_interven-alerts")).args(words).arg("--help").output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        let help = String::from_utf8_lossy(&output.stdout);
        let named = help.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or_default();
        assert!(!named.contains("<COMMAND>"), "{command} is no whole command: {named}");
    }
}
