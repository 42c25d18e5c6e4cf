//! The virtual environment with the tools of `tests/requirements.txt`, which `tests/run` makes.

use std::path::{Path, PathBuf};

/// The environment's directory: `target/tests-venv`, or where `INTERVEN_TESTS_VENV` says.
pub(crate) fn venv() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "the tests have no configuration but their environment")]
    let given = std::env::var_os("INTERVEN_TESTS_VENV").map(PathBuf::from);
    Path::new(env!("CARGO_MANIFEST_DIR")).join(given.unwrap_or_else(|| PathBuf::from("target/tests-venv")))
}

/// One of its programs.
pub(crate) fn tool(name: &str) -> PathBuf {
    let tool = venv().join("bin").join(name);
    assert!(tool.exists(), "{} is not there: run the tests with `tests/run`, which installs it", tool.display());
    tool
}
