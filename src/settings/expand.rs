//! `${NAME}` in strings.
//!
//! `${NAME}` stands for the environment variable `NAME` (letters, digits and `_`, no digit first). `$${` stands for a literal
//! `${`. Every other `$` is just a `$`. What a variable holds is not looked through again.

/// A string with its variables replaced.
#[derive(Debug)]
pub(super) struct Expanded {
    /// The text.
    pub text: String,
    /// What each variable held: these may be secrets, whatever the key.
    pub pieces: Vec<String>,
}

/// Why a string could not be expanded. It quotes names only.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ExpandError {
    /// The variable is not set (or is not UTF-8).
    Unset(String),
    /// `${` without a name and `}` after it.
    Malformed,
}

/// Replaces each `${NAME}` of `text` by what `env` says.
pub(super) fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Expanded, ExpandError> {
    let mut expanded = Expanded { text: String::with_capacity(text.len()), pieces: Vec::new() };
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            expanded.text.push_str(before);
            expanded.text.push_str("${");
            rest = after;
            continue;
        }
        let (name, after) = after.split_once('}').ok_or(ExpandError::Malformed)?;
        if !is_name(name) {
            return Err(ExpandError::Malformed);
        }
        let value = env(name).ok_or_else(|| ExpandError::Unset(name.to_owned()))?;
        expanded.text.push_str(before);
        expanded.text.push_str(&value);
        expanded.pieces.push(value);
        rest = after;
    }
    expanded.text.push_str(rest);
    Ok(expanded)
}

/// Whether `name` may name an environment variable here.
pub(super) fn is_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_once_and_an_escape_is_kept() {
        let env = |name: &str| match name {
            "A" => Some(String::from("one")),
            "NESTED" => Some(String::from("${A}")),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let unset = |name: &str| Err(ExpandError::Unset(name.to_owned()));
        let cases = [
            ("plain $5 $", Ok("plain $5 $")),
            ("x${A}y${A}", Ok("xoneyone")),
            ("${NESTED}", Ok("${A}")),
            ("${EMPTY}", Ok("")),
            ("$${A}", Ok("${A}")),
            ("$$${A}", Ok("$${A}")),
            ("$$", Ok("$$")),
            ("${MISSING}", unset("MISSING")),
            ("${A", Err(ExpandError::Malformed)),
            ("${}", Err(ExpandError::Malformed)),
            ("${1A}", Err(ExpandError::Malformed)),
            ("${A:-b}", Err(ExpandError::Malformed)),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &env).map(|expanded| expanded.text), expected.map(str::to_owned), "{text}");
        }
    }
}
