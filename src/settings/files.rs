//! The files that a configuration names with `KEY_file`, without reading the configuration itself.
//!
//! A worker watches them beside the configuration: a secret that is rotated in its file is a change of the configuration.

use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::{Outside, expand::expand, reading::content};
use crate::model::Secret;

/// Each file that a `KEY_file` anywhere in `text` names, sorted by key, with its content or what is wrong with it.
/// What cannot be told (a variable that is not set, a text that is no TOML) is left out: reading the configuration tells that.
pub fn files_named(text: &str, outside: &Outside<'_>) -> Vec<(PathBuf, Result<Secret, String>)> {
    let (document, _) = DeTable::parse_recoverable(text);
    let mut names = Vec::new();
    in_table(document.get_ref(), &mut names);
    let path = |name: &str| Some(outside.directory().join(expand(name, &|name| outside.variable(name)).ok()?.text));
    let read = |path: PathBuf| {
        let content = content(&path);
        (path, content)
    };
    names.into_iter().filter_map(path).map(read).collect()
}

fn in_table<'t>(table: &'t DeTable<'_>, names: &mut Vec<&'t str>) {
    for (key, value) in table {
        match value.get_ref().as_str() {
            Some(name) if key.get_ref().ends_with("_file") => names.push(name),
            _ => in_value(value.get_ref(), names),
        }
    }
}

fn in_value<'t>(value: &'t DeValue<'_>, names: &mut Vec<&'t str>) {
    match value {
        DeValue::Table(table) => in_table(table, names),
        DeValue::Array(values) => values.iter().for_each(|value| in_value(value.get_ref(), names)),
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_wherever_they_are_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("one"), "first\n").unwrap();
        let env = |name: &str| (name == "NAME").then(|| String::from("one"));
        let outside = Outside::new(&env, dir.path());
        let text = "a_file = \"one\"\n[[channel]]\nid = \"x\"\nurl_file = \"${NAME}\"\n[channel.headers]\nAuth_file = \"two\"\n\
                    x_file = \"${UNSET}\"\nother = [{ y_file = 3 }]\n";
        let found = files_named(text, &outside);
        let names: Vec<_> = found.iter().map(|(path, _)| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["one", "two", "one"]);
        assert_eq!(found[0].1.as_ref().map(Secret::expose), Ok("first"));
        assert!(found[1].1.is_err());
        assert!(files_named("not toml at all", &outside).is_empty());
    }
}
