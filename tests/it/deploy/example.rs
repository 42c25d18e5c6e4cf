//! The example configuration shows every key that the configuration knows.
//!
//! Nobody keeps a list of the keys: a key is one because a room asks for it. But a table that holds an unknown key is told all that
//! are known there, so a wrong key in each table of the example makes the configuration itself say what the example must have.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use interven_alerts::{channels, config, settings::Outside};

const EXAMPLE: &str = include_str!("../../../deploy/interven-alerts.example.toml");

/// A key that no room has, and that is near none.
const WRONG: &str = "zzzzzzzzzzzzzzzzzzzzzzzz";

/// What stands in the example's prose, because it stands in the place of another key.
const IN_PROSE: &[(&str, &str)] = &[("broker", "urls")];

/// A table of the example: `broker`, `channel slack`, `channel siem batch`.
type Table = String;

/// The example with everything taken in and a wrong key in each table.
#[derive(Default)]
struct Spoiled {
    text: String,
    lines: usize,
    /// The table that has its wrong key on a line.
    wrong: BTreeMap<usize, Table>,
    /// The keys that each table has.
    written: BTreeMap<Table, BTreeSet<String>>,
    table: Table,
}

impl Spoiled {
    fn new() -> Self {
        let taken_in = |line: &'static str| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => rest,
            _ => line,
        };
        let lines: Vec<&str> = EXAMPLE.lines().map(taken_in).collect();
        let mut spoiled = Self::default();
        spoiled.put_wrong();
        for (at, line) in lines.iter().enumerate() {
            if let Some(header) = line.strip_prefix('[') {
                spoiled.enter(header.trim_matches(['[', ']']), &lines[at..]);
                spoiled.put(line);
                spoiled.put_wrong();
            } else {
                spoiled.assignment(line);
            }
        }
        spoiled
    }

    fn put(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        self.lines += 1;
    }

    fn put_wrong(&mut self) {
        self.put(&format!("{WRONG} = 1"));
        self.wrong.insert(self.lines, self.table.clone());
    }

    /// The header of a table. A channel's keys depend on its kind, which stands below.
    fn enter(&mut self, header: &str, below: &[&str]) {
        let parent = match header.split_once('.') {
            // What is in a channel is in the one above.
            Some(("channel", inner)) => {
                let mut words = self.table.split(' ');
                let channel: Vec<&str> = words.by_ref().take(2).collect();
                let channel = channel.join(" ");
                self.table = format!("{channel} {inner}");
                channel
            }
            Some((parent, _)) => {
                self.table = header.replace('.', " ");
                parent.to_owned()
            }
            None if header == "channel" => {
                let kind = below.iter().find_map(|line| line.strip_prefix("kind = ")).unwrap().trim_matches('"');
                self.table = format!("channel {kind}");
                String::new()
            }
            None => {
                header.clone_into(&mut self.table);
                String::new()
            }
        };
        let key = header.rsplit('.').next().unwrap();
        self.written.entry(parent).or_default().insert(key.to_owned());
    }

    /// `key = value`, and what is neither a header nor a comment is nothing else.
    fn assignment(&mut self, line: &str) {
        let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) else {
            return self.put(line);
        };
        self.written.entry(self.table.clone()).or_default().insert(key.to_owned());
        let Some(inside) = value.strip_prefix("{ ") else { return self.put(line) };
        self.put(&format!("{key} = {{ {WRONG} = 1, {inside}"));
        let table = format!("{} {key}", self.table);
        self.wrong.insert(self.lines, table.clone());
        let keys = inside.split(", ").filter_map(|entry| entry.split_once(" = "));
        self.written.entry(table).or_default().extend(keys.map(|(key, _)| key.to_owned()));
    }
}

#[test]
fn the_example_shows_every_key_that_the_configuration_knows() {
    let spoiled = Spoiled::new();
    let known = known(&spoiled);
    for table in spoiled.wrong.values().filter(|table| !free(table)) {
        assert!(known.contains_key(table), "nobody said which keys are known in `{table}`");
    }

    let kinds: Vec<&Table> = known.keys().filter(|table| table.split(' ').count() == 2 && in_channel(table)).collect();
    assert_eq!(kinds.len(), channels::KINDS.len(), "a kind has no channel in the example: {kinds:?}");
    let missing: Vec<String> = known
        .iter()
        .flat_map(|(table, keys)| keys.iter().map(move |key| (table, key)))
        .filter(|(table, key)| !shown(&spoiled, &known, table, key))
        .map(|(table, key)| format!("`{key}` in `{table}`"))
        .collect();
    assert!(missing.is_empty(), "the example does not show {}", missing.join(", "));

    for (_, key) in IN_PROSE {
        assert!(EXAMPLE.contains(&format!("{key} = [")), "the example's prose does not tell of `{key}`");
    }
}

fn in_channel(table: &str) -> bool {
    table.starts_with("channel ")
}

/// Tables whose keys are the operator's own.
fn free(table: &str) -> bool {
    table.ends_with(" headers") || table.ends_with(" template")
}

/// The keys that each table knows, as the configuration says.
fn known(spoiled: &Spoiled) -> BTreeMap<Table, BTreeSet<String>> {
    let env = |name: &str| {
        Some(match name {
            "SLACK_WEBHOOK" => "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX".into(),
            "SLACK_BOT_TOKEN" => "xoxb-0123456789-abcdefghij".into(),
            "DISCORD_WEBHOOK" => "https://discord.com/api/webhooks/123456789012345678/abcdefghijklmnop".into(),
            "TEAMS_WORKFLOW_URL" => {
                "https://prod-1.westeurope.logic.azure.com/workflows/abc/triggers/manual/paths/invoke?sig=x".into()
            }
            "TELEGRAM_BOT_TOKEN" => "123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw0".into(),
            "INTERVEN_ALERTS_KEY" => "0123456789abcdef0123456789abcdef".into(),
            other => format!("value-of-{other}"),
        })
    };
    let faulty = config::parse(&spoiled.text, &Outside::new(&env, Path::new("")), channels::KINDS).unwrap_err();
    let mut known: BTreeMap<Table, BTreeSet<String>> = BTreeMap::new();
    for fault in &faulty.faults {
        let table = spoiled.wrong.get(&fault.line).filter(|_| fault.path.ends_with(WRONG));
        let keys = fault.hint.strip_prefix("remove it; known here: ");
        // Where the operator's own keys stand, a number is what is wrong with it.
        let (Some(table), Some(keys)) = (table, keys) else {
            assert!(table.is_some_and(|table| free(table)), "{}", fault.show("example"));
            continue;
        };
        known.entry(table.clone()).or_default().extend(keys.split(", ").map(str::to_owned));
    }
    known
}

/// Whether the example has `key` in this table; of what every kind has, one channel shows it for all.
fn shown(spoiled: &Spoiled, known: &BTreeMap<Table, BTreeSet<String>>, table: &str, key: &str) -> bool {
    let written = |table: &str| spoiled.written.get(table).is_some_and(|keys| keys.contains(key));
    if written(table) || IN_PROSE.contains(&(table, key)) {
        return true;
    }
    // `channel slack` and `channel siem` say the same of what they share.
    let place = |table: &str| table.split(' ').skip(2).collect::<Vec<_>>().join(" ");
    let mut siblings = known.iter().filter(|(other, _)| in_channel(other) && place(other) == place(table)).peekable();
    in_channel(table)
        && siblings.peek().is_some()
        && siblings.clone().all(|(_, keys)| keys.contains(key))
        && siblings.any(|(other, _)| written(other))
}
