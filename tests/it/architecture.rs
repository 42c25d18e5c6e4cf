//! The shape of the house, held by a test: imports run downhill, each outside crate stays in its room, no file is an orphan.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Which rooms each room may name. A room that is not in the table is a fault: add it where it belongs, and below everything
/// that it uses.
const DOWNHILL: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("tls", &[]),
    ("sealing", &[]),
    ("settings", &["model"]),
    ("formats", &["model"]),
    ("telemetry", &["model"]),
    ("channels", &["model", "settings", "formats"]),
    ("broker", &["model", "tls"]),
    ("dead_letters", &["broker", "model"]),
    ("route", &["model"]),
    ("settle", &["broker", "dead_letters", "model", "telemetry"]),
    ("approvals", &["broker", "channels", "model", "telemetry"]),
    ("lane", &["broker", "channels", "dead_letters", "model", "settle", "telemetry"]),
    ("intake", &["approvals", "broker", "dead_letters", "lane", "model", "route", "settle", "telemetry"]),
    ("notices", &["broker", "intake", "lane", "model", "telemetry"]),
    ("canary", &["broker", "intake", "model"]),
    ("channel_log", &["broker", "model"]),
    ("export", &["broker", "formats", "model"]),
    ("config", &["approvals", "channels", "model", "sealing", "settings"]),
    ("interactions", &["approvals", "channels", "lane", "model"]),
    ("managed", &["broker", "channel_log", "channels", "config", "lane", "model", "sealing", "settings"]),
    ("workers", &["dead_letters", "model", "settings", "tls"]),
    ("console", &["channels", "formats", "model"]),
    (
        "http",
        &[
            "approvals",
            "broker",
            "channel_log",
            "console",
            "dead_letters",
            "export",
            "interactions",
            "lane",
            "managed",
            "model",
            "sealing",
            "telemetry",
            "workers",
        ],
    ),
    ("stand_ins", &["model"]),
    (
        "app",
        &[
            "approvals",
            "broker",
            "canary",
            "channel_log",
            "channels",
            "config",
            "dead_letters",
            "export",
            "http",
            "intake",
            "interactions",
            "lane",
            "managed",
            "model",
            "notices",
            "route",
            "sealing",
            "settle",
            "telemetry",
            "tls",
        ],
    ),
    (
        "cli",
        &[
            "app",
            "broker",
            "channels",
            "config",
            "dead_letters",
            "export",
            "lane",
            "managed",
            "model",
            "route",
            "settings",
            "stand_ins",
            "telemetry",
            "tls",
            "workers",
        ],
    ),
];

/// Where each outside crate that shapes the program may be named.
const CRATES: &[(&str, &[&str])] = &[
    ("lapin", &["src/broker/rabbitmq"]),
    ("reqwest", &["src/lane/post.rs", "src/workers"]),
    ("sled", &["src/broker/embedded", "src/dead_letters"]),
    ("ring", &["src/sealing.rs"]),
    ("backoff", &["src/lane/backoff.rs"]),
    ("prometheus", &["src/telemetry"]),
    ("askama", &["src/console"]),
    ("axum", &["src/http"]),
    ("hyper", &["src/http/serving.rs"]),
    ("hyper_util", &["src/http/serving.rs"]),
    ("tempfile", &["src/export/runs.rs", "src/cli/decisions.rs"]),
    ("clap", &["src/cli", "src/main.rs"]),
    ("clap_complete", &["src/cli"]),
    ("clap_mangen", &["src/cli"]),
    ("indicatif", &["src/cli"]),
    ("toml", &["src/settings", "src/config"]),
];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join("src"), &mut found);
    assert!(found.len() > 40, "the sources were not found below {}", root.display());
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    found.into_iter().map(|path| (path.strip_prefix(root).unwrap().to_owned(), text(&path))).collect()
}

/// The code of a file: its comments and everything from its tests on left out.
fn code(text: &str) -> String {
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]") || line.contains("fn "));
    lines.filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn is_test_file(path: &Path) -> bool {
    path.components().any(|part| {
        let name = part.as_os_str().to_string_lossy();
        name == "tests" || name.trim_end_matches(".rs").ends_with("tests") || name.starts_with("conformance")
    })
}

/// The first segment of every path that begins with `crate::`, grouped ones included.
fn rooms_named(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` and `some_crate::` are not ours.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            rooms.insert(word(rest));
            continue;
        };
        let (mut depth, mut start) = (0, true);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && !c.is_whitespace() => {
                    rooms.insert(word(&group[at..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    rooms
}

#[test]
fn imports_run_downhill() {
    let table: BTreeMap<&str, &[&str]> = DOWNHILL.iter().copied().collect();
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let room = path.iter().nth(1).unwrap().to_string_lossy().trim_end_matches(".rs").to_owned();
        if ["lib", "main"].contains(&room.as_str()) || is_test_file(&path) {
            continue;
        }
        let Some(allowed) = table.get(room.as_str()) else {
            faults.push(format!("{}: the room `{room}` is not in the table", path.display()));
            continue;
        };
        for named in rooms_named(&code(&text)) {
            if named != room && table.contains_key(named.as_str()) && !allowed.contains(&named.as_str()) {
                faults.push(format!("{}: `{room}` must not name `{named}`", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_table_itself_has_no_way_uphill() {
    for (at, (room, allowed)) in DOWNHILL.iter().enumerate() {
        for one in *allowed {
            let place = DOWNHILL.iter().position(|(name, _)| name == one);
            assert!(place.is_some_and(|place| place < at), "`{room}` may name `{one}`, which does not stand above it");
        }
    }
}

#[test]
fn each_outside_crate_stays_in_its_room() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let code = code(&text);
        for (name, places) in CRATES {
            let named = code
                .match_indices(&format!("{name}::"))
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'));
            // A module beside the file may have the name of a crate (`lane::backoff`).
            let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join(&path).with_file_name(format!("{name}.rs"));
            if named && !beside.exists() && !is_test_file(&path) && !places.iter().any(|place| path.starts_with(place))
            {
                faults.push(format!("{} names `{name}`, which belongs into {}", path.display(), places.join(", ")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_file_is_an_orphan() {
    let sources: BTreeMap<PathBuf, String> = sources().into_iter().collect();
    for path in sources.keys() {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let folder = path.parent().unwrap();
        let (name, parents) = if stem == "mod" {
            (folder.file_name().unwrap().to_string_lossy().into_owned(), folder.parent().unwrap())
        } else {
            (stem, folder)
        };
        if ["lib", "main"].contains(&name.as_str()) {
            continue;
        }
        let candidates = [parents.join("mod.rs"), parents.join("lib.rs"), parents.with_extension("rs")];
        let declared = candidates.iter().filter_map(|file| sources.get(file)).any(|text| {
            text.lines().any(|line| {
                line.trim_start()
                    .trim_start_matches("pub(crate) ")
                    .trim_start_matches("pub(super) ")
                    .trim_start_matches("pub ")
                    .trim_end()
                    == format!("mod {name};")
            })
        });
        // Or by its path, as the tests of a file that is no folder are.
        let by_path = format!("#[path = \"{name}.rs\"]");
        let declared =
            declared || sources.iter().any(|(file, text)| file.parent() == Some(folder) && text.contains(&by_path));
        assert!(declared, "{} is declared by no module", path.display());
    }
}
