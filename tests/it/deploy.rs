//! What lies in `deploy/` is held against the tools that will read it, and against this binary.
//!
//! The script does the work, so that somebody who changes a dashboard runs the same thing; what a machine has no tool for, it
//! leaves out and says. The ones that tests/run installs are always there.

mod example;

use std::{path::Path, process::Command};

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
