//! What comes out where: colours for eyes alone, data and trouble on their own sides, and a reader that leaves is no trouble.

use std::{
    fs::{self, File},
    io::Read as _,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

use nix::pty::{Winsize, openpty};

use super::event;
use crate::support::worker::{run, run_plain};

const PROGRAM: &str = env!("CARGO_BIN_EXE_interven-alerts");

/// A directory with a sound configuration (the embedded broker, no channel), a faulty one, and some decisions.
fn room() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let good = "data_dir = \"data\"\n[http]\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\n\
         public_url = \"http://127.0.0.1:8080\"\n[[channel]]\nid = \"siem\"\nkind = \"siem\"\nurl = \"http://127.0.0.1:9/x\"\n\
         format = \"json\"\ntools = [\"a-tool-with-a-long-name.and-an-operation-that-has-one-too\", \"another-one-of-them.*\"]\n";
    fs::write(dir.path().join("interven-alerts.toml"), good).unwrap();
    fs::write(dir.path().join("faulty.toml"), "unknown = 1\n").unwrap();
    let decisions: Vec<String> = (0..5).map(|number| event(&format!("hygiene-{number}"))).collect();
    fs::write(dir.path().join("decisions.ndjson"), decisions.join("\n")).unwrap();
    dir
}

/// What a command prints when standard output and standard error are a terminal.
fn on_a_terminal(line: &str, env: &[(&str, &str)], dir: &Path) -> String {
    let size = Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(line.split_whitespace()).current_dir(dir).stdin(Stdio::null());
    command.env_remove("NO_COLOR").env("TERM", "xterm").envs(env.iter().copied());
    command.stdout(terminal.slave.try_clone().unwrap()).stderr(terminal.slave);
    let mut child = command.spawn().unwrap();
    // The command holds the last handles of the terminal's other side, which ends with it.
    drop(command);
    let (mut text, mut master) = (Vec::new(), File::from(terminal.master));
    // The end of a terminal is an error.
    drop(master.read_to_end(&mut text));
    child.wait().unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_gets_colours_unless_somebody_asked_for_none_and_nothing_else_ever_does() {
    let dir = room();
    let plain = [("NO_COLOR", "1")];
    for line in
        ["check --config faulty.toml", "--help", "doctor --config interven-alerts.toml", "publish decisions.ndjson"]
    {
        let seen = tokio::task::block_in_place(|| on_a_terminal(line, &[], dir.path()));
        assert!(seen.contains('\u{1b}'), "`{line}` has colours or moves on a terminal: {seen:?}");
        for env in [plain, [("TERM", "dumb")]] {
            let seen = tokio::task::block_in_place(|| on_a_terminal(line, &env, dir.path()));
            assert!(!seen.is_empty() && !seen.contains('\u{1b}'), "`{line}` with {env:?}: {seen:?}");
        }
        let said = run_plain(&line.split_whitespace().collect::<Vec<_>>(), dir.path()).await;
        let bare = |text: &str| text.chars().all(|c| c == '\n' || !c.is_control());
        assert!(bare(&said.out) && bare(&said.err), "`{line}` through pipes: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_goes_to_standard_output_and_everything_else_to_standard_error() {
    let dir = room();
    for (line, code, on_out, on_err) in [
        ("publish decisions.ndjson", 0, "published 5", ""),
        ("publish decisions.ndjson --json", 0, "\"published\": 5", ""),
        ("channels list", 0, "CHANNEL", ""),
        ("check", 0, "no faults", ""),
        ("check --config faulty.toml", 78, "", "error: faulty.toml:1:1: unknown"),
        ("check --config faulty.toml --json", 78, "\"faults\"", "error: faulty.toml: the configuration has"),
        ("run --config faulty.toml", 78, "", "hint"),
        ("explain absent.json", 1, "", "hint: give a file"),
        ("explain", 2, "", "Usage"),
        ("dead-letters purge --data-dir data", 2, "", "hint: give ids"),
        ("decisions export --since 1000d --out all.ndjson", 0, "", "note: wrote"),
        ("decisions export --since yesterday", 2, "", "how long ago as 24h"),
    ] {
        let said = run_plain(&line.split_whitespace().collect::<Vec<_>>(), dir.path()).await;
        assert_eq!(said.code, code, "`{line}`: {said:?}");
        assert!(said.out.contains(on_out) && (!on_out.is_empty() || said.out.is_empty()), "`{line}`: {said:?}");
        assert!(said.err.contains(on_err) && (!on_err.is_empty() || said.err.is_empty()), "`{line}`: {said:?}");
    }
    assert!(dir.path().join("all.ndjson").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wide_table_is_cut_to_a_terminal_and_whole_everywhere_else() {
    let dir = room();
    let said = run_plain(&["channels", "list"], dir.path()).await;
    assert!(said.out.lines().any(|line| line.chars().count() > 100 && line.contains("127.0.0.1:9")), "{said:?}");
    let seen = tokio::task::block_in_place(|| on_a_terminal("channels list", &[("NO_COLOR", "1")], dir.path()));
    let lines: Vec<&str> = seen.lines().collect();
    assert!(lines.len() == 2 && lines.iter().all(|line| line.trim_end().chars().count() <= 100), "{seen:?}");
    assert!(lines[1].trim_end().ends_with("..."), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn help_shows_no_value_of_the_environment_that_may_hold_a_password() {
    let dir = room();
    let env = [("INTERVEN_ALERTS_SERVER", "http://me:hush-hush@127.0.0.1:9"), ("INTERVEN_ALERTS_TOKEN", "hush-hush")];
    for line in
        ["channels list --help", "dead-letters replay -h", "channels list", "publish decisions.ndjson", "explain -"]
    {
        let said = run(line.split(' ').map(str::to_owned).collect(), &event("hush"), &env, dir.path()).await;
        assert!(!said.out.contains("hush-hush") && !said.err.contains("hush-hush"), "`{line}`: {said:?}");
        assert!(!line.contains("-h") || said.out.contains("INTERVEN_ALERTS_SERVER"), "`{line}`: {said:?}");
    }
}

/// The writing end of a pipe that nobody reads any more.
fn deserted() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn a_reader_that_has_gone_is_no_trouble() {
    let dir = room();
    let end = |line: &str, out: Stdio, err: Stdio| {
        let mut command = Command::new(PROGRAM);
        command.args(line.split_whitespace()).current_dir(dir.path()).stdin(Stdio::null()).stdout(out).stderr(err);
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for line in
        ["--help", "--version", "completions bash", "man", "check", "channels list --json", "token a --role admin"]
    {
        assert_eq!(end(line, deserted(), Stdio::piped()), (Some(0), String::new()), "{line}");
    }
    // Nobody hears what is wrong, and the exit code still tells it.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = fs::read_to_string(dir.path().join("interven-alerts.toml")).unwrap();
    let text = text.replacen("127.0.0.1:0", &taken.local_addr().unwrap().to_string(), 1);
    fs::write(dir.path().join("taken.toml"), text).unwrap();
    for (line, code) in [("check --config faulty.toml", 78), ("nonsense", 2), ("run --config taken.toml", 1)] {
        assert_eq!(end(line, Stdio::null(), deserted()).0, Some(code), "{line}");
    }
    // A start that fails says why at once: nothing that has begun keeps it for the whole grace.
    let (code, said) = end("run --config taken.toml", Stdio::null(), Stdio::piped());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("could not listen on") && !said.contains("the grace was too short"), "{said}");
}
