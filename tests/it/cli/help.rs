//! What the program says about itself: help texts, manual pages and completions, which must not rot.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use clap::{CommandFactory as _, Parser as _};
use interven_alerts::cli::{Cli, help};

use super::EVENT;
use crate::support::worker::{Said, run_plain};

/// The columns that help texts have without a terminal: longer lines are broken.
const COLUMNS_MAX: usize = 100;

/// Every command with its words: `dead-letters replay`.
fn commands() -> Vec<(String, clap::Command)> {
    fn walk(words: &str, command: &clap::Command, found: &mut Vec<(String, clap::Command)>) {
        found.push((words.to_owned(), command.clone()));
        for below in command.get_subcommands() {
            walk(format!("{words} {}", below.get_name()).trim(), below, found);
        }
    }
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut found = Vec::new();
    walk("", &root, &mut found);
    found
}

fn long_part(command: &clap::Command) -> String {
    command.get_after_long_help().map(ToString::to_string).unwrap_or_default()
}

fn examples() -> Vec<String> {
    commands().iter().flat_map(|(_, command)| help::examples(&long_part(command))).collect()
}

/// The words of a line as a shell would read them; operators are words of their own.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote): (Vec<String>, Option<String>, Option<char>) = (Vec::new(), None, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    assert_eq!(quote, None, "a quote is open in {line}");
    words.extend(word);
    words
}

/// The programs of a line, and the arguments of those that are ours.
fn programs(line: &str) -> Vec<(String, Option<Vec<String>>)> {
    let words = words(line);
    let parts = words.split(|word| word == "|");
    parts
        .map(|part| {
            let end = part.iter().position(|word| [">", "<"].contains(&word.as_str())).unwrap_or(part.len());
            let part = &part[..end];
            // `sudo -u interven-alerts interven-alerts doctor`: the user has our name, too.
            let ours = part.iter().rposition(|word| word == "interven-alerts");
            let program = part.iter().find(|word| !word.contains('=')).unwrap();
            (program.clone(), ours.map(|at| part[at..].to_vec()))
        })
        .collect()
}

#[test]
fn every_command_and_every_flag_says_what_it_is_and_every_command_has_examples() {
    let mut faults = Vec::new();
    for (words, command) in commands() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        if about.is_empty() || about.lines().count() > 1 || about.ends_with('.') {
            faults.push(format!("`{words}` has no line of help without a full stop: {about:?}"));
        }
        let text = long_part(&command);
        if help::examples(&text).is_empty() {
            faults.push(format!("`{words}` has no examples"));
        }
        if !text.is_empty() && help::sections(&text).first().is_none_or(|section| section.heading != help::EXAMPLES) {
            faults.push(format!("the long help of `{words}` does not begin with examples"));
        }
        for line in text.lines().filter(|line| line.chars().count() > COLUMNS_MAX) {
            faults.push(format!("`{words}`: this line is broken where there is no terminal: {line}"));
        }
        for argument in command.get_arguments() {
            if argument.get_help().is_none_or(|help| help.to_string().is_empty()) {
                faults.push(format!("`{words}`: {} says nothing", argument.get_id()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_example_is_a_command_that_can_be_given() {
    let examples = examples();
    assert!(examples.len() > 50, "{examples:#?}");
    for example in examples {
        let mut ours = 0;
        for (program, arguments) in programs(&example) {
            let Some(arguments) = arguments else { continue };
            ours += 1;
            if let Err(error) = Cli::try_parse_from(&arguments) {
                panic!("`{example}` ({program}): {error}");
            }
        }
        assert!(ours > 0 || example.starts_with("mkdir -p "), "`{example}` has nothing to do with us");
    }
}

/// Runs a line in a shell that finds the program, in `dir`, which is also the home.
async fn shell(line: &str, dir: &Path) -> Said {
    let program = Path::new(env!("CARGO_BIN_EXE_interven-alerts"));
    let path = format!("{}:/usr/bin:/bin", program.parent().unwrap().display());
    let mut command = Command::new("bash");
    command.args(["-o", "pipefail", "-c", line]).current_dir(dir).env_clear();
    command.env("HOME", dir).env("PATH", path).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_that_need_nothing_but_files_work() {
    const FILES_ALONE: [&str; 7] = ["check", "explain", "render", "token", "channels", "completions", "man"];
    let dir = tempfile::tempdir().unwrap();
    let config = "data_dir = \"data\"\n[http]\npublic_url = \"https://alerts.example.com\"\n\
         [[channel]]\nid = \"soc-slack\"\nkind = \"slack\"\nwebhook_url = \"http://127.0.0.1:9/hook\"\nmin_severity = \"HIGH\"\n\
         [[channel]]\nid = \"siem\"\nkind = \"siem\"\nurl = \"http://127.0.0.1:9/intake\"\nformat = \"ocsf\"\n";
    for name in ["interven-alerts.toml", "new.toml"] {
        fs::write(dir.path().join(name), config).unwrap();
    }
    fs::write(dir.path().join("decision.json"), EVENT).unwrap();
    let mut run = 0;
    for example in examples() {
        let programs = programs(&example);
        let ours = |(program, arguments): &(String, Option<Vec<String>>)| match arguments {
            Some(arguments) => arguments.get(1).is_some_and(|command| FILES_ALONE.contains(&command.as_str())),
            None => program == "mkdir",
        };
        // A worker that answers, or a place of the machine's, is not there.
        let away = ["--server", " /", "channels pause", "channels resume", "channels test"];
        if !programs.iter().all(ours) || away.iter().any(|part| example.contains(part)) {
            continue;
        }
        let said = shell(&example, dir.path()).await;
        assert_eq!(said.code, 0, "`{example}`: {said:?}");
        let quiet = example.contains(" > ") || example.contains("--out") || example.starts_with("mkdir");
        assert!(quiet || !said.out.is_empty(), "`{example}`: {said:?}");
        run += 1;
    }
    assert!(run >= 15, "only {run} examples were run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_manual_has_a_page_for_every_command_that_says_what_the_help_says() {
    let dir = tempfile::tempdir().unwrap();
    let said = run_plain(&["man", "--out", "pages"], dir.path()).await;
    assert_eq!(said.code, 0, "{said:?}");
    for (words, command) in commands() {
        let name = format!("interven-alerts {words}").trim().replace(' ', "-");
        let path = dir.path().join("pages").join(format!("{name}.1"));
        let page = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let title = page.lines().find_map(|line| line.strip_prefix(&format!(".TH {name} 1"))).expect("a title");
        // The names at both ends have room beside each other, and nothing stands between them that has not.
        assert!(title.ends_with("\" \"") && 2 * format!("{name}(1)").len() < 78, "{title}");
        // In roff, a hyphen that is to stay one is written as `\-`.
        let page = page.replace("\\-", "-");
        for section in help::sections(&long_part(&command)) {
            assert!(page.contains(&section.heading.to_uppercase()), "{name}: {}", section.heading);
        }
        for example in help::examples(&long_part(&command)) {
            let beginning = example.split('\'').next().unwrap().split(" |").next().unwrap();
            // One that goes on in the next line does so in the page.
            let beginning = beginning.get(..60).unwrap_or(beginning);
            assert!(page.contains(beginning), "{name}: {beginning} in {page}");
        }
        let printed = run_plain(&[vec!["man"], words.split_whitespace().collect()].concat(), dir.path()).await;
        assert_eq!(printed.out, fs::read_to_string(&path).unwrap(), "{name}");
        // Where there is groff, it has nothing to complain about.
        let mut groff = Command::new("sh");
        groff.args(["-c", "command -v groff >/dev/null || exit 0; exec groff -ww -man -Tutf8 -z \"$0\""]).arg(&path);
        let output = tokio::task::spawn_blocking(move || groff.output().unwrap()).await.unwrap();
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && complaints.is_empty(), "{name}: {complaints}");
    }
    for command in ["import", "verify"] {
        let said = run_plain(&["man", "dead-letters", command], dir.path()).await;
        assert!(!said.out.contains("server"), "it refuses this flag, and does not offer it: {}", said.out);
    }
    let said = run_plain(&["man", "dead-letters", "revive"], dir.path()).await;
    assert!(said.code == 2 && said.err.contains("no command `dead-letters revive`"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shells_take_their_completions_and_complete_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let complete = r#"
        source <(interven-alerts completions bash)
        function=$(complete -p interven-alerts | sed 's/.*-F \([^ ]*\) .*/\1/')
        COMP_WORDS=(interven-alerts doc) COMP_CWORD=1
        "$function" interven-alerts doc interven-alerts
        echo "${COMPREPLY[*]}"
        COMP_WORDS=(interven-alerts dead-letters re) COMP_CWORD=2
        "$function" interven-alerts re dead-letters
        echo "${COMPREPLY[*]}"
        COMP_WORDS=(interven-alerts channels pause --wh) COMP_CWORD=3
        "$function" interven-alerts --wh pause
        echo "${COMPREPLY[*]}"
        COMP_WORDS=(interven-alerts token ann --role a) COMP_CWORD=4
        "$function" interven-alerts a --role
        echo "${COMPREPLY[*]}"
    "#;
    let said = shell(complete, dir.path()).await;
    assert_eq!((said.code, said.out.as_str()), (0, "doctor\nreplay\n--why\nauditor analyst admin\n"), "{said:?}");
    // The others are not on every machine; what is there must be content.
    for (name, check) in [("zsh", "zsh -n script"), ("fish", "fish --no-execute script")] {
        let line = format!(
            "interven-alerts completions {name} > script; test -s script || exit 9; \
             command -v {name} > /dev/null || {{ echo absent; exit 0; }}; {check}"
        );
        let said = shell(&line, dir.path()).await;
        assert!(said.code == 0 && said.err.is_empty(), "{name}: {said:?}");
    }
}

/// The commands that a text tells people to give: what stands after our name and the name of a command, up to where code ends.
fn commands_in(text: &str, names: &[String]) -> Vec<String> {
    const NAME: &str = "interven-alerts ";
    let mut found = Vec::new();
    for line in text.lines() {
        let places = line.match_indices(NAME).map(|(at, _)| &line[at..]);
        for place in places.filter(|place| {
            let next = place[NAME.len()..].split([' ', '`']).next().unwrap_or_default();
            names.iter().any(|name| name == next)
        }) {
            let end = ["`", " #", " |", " >", " <", " \\"].iter().filter_map(|end| place.find(end)).min();
            found.push(place[..end.unwrap_or(place.len())].trim().to_owned());
        }
    }
    found
}

#[test]
fn the_documents_name_only_commands_that_can_be_given() {
    fn walk(path: &Path, found: &mut Vec<std::path::PathBuf>) {
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                walk(&entry.unwrap().path(), found);
            }
        } else if path
            .extension()
            .is_some_and(|kind| ["md", "yaml", "yml", "service", "toml"].iter().any(|k| kind == *k))
        {
            found.push(path.to_owned());
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![root.join("README.md")];
    walk(&root.join("deploy"), &mut documents);
    let names: Vec<String> = Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
    // Words that stand for others.
    let example = [
        ("CHANNEL", "soc-slack"),
        ("ID", "0197a2b4-0000-7000-8000-000000000001"),
        ("ROLE", "admin"),
        ("SHELL", "bash"),
    ];
    let (mut faults, mut seen) = (Vec::new(), 0);
    for document in documents {
        for command in commands_in(&fs::read_to_string(&document).unwrap(), &names) {
            seen += 1;
            let stands_for = |word: &String| example.iter().find(|(name, _)| name == word).map(|(_, value)| *value);
            let words: Vec<String> = words(&command);
            if words.len() == 2 {
                // A name alone, which it is.
                continue;
            }
            let words = words.iter().map(|word| stands_for(word).unwrap_or(word));
            if let Err(error) = Cli::try_parse_from(words)
                && error.kind() != clap::error::ErrorKind::DisplayHelp
            {
                let fault = error.to_string();
                faults.push(format!(
                    "{}: `{command}`: {}",
                    document.display(),
                    fault.lines().next().unwrap_or_default()
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(seen > 30, "only {seen} commands were found");
}
