//! The long part of help texts as data, for the manual pages and for the tests that walk the examples.
//!
//! One form for all commands: a heading with a colon at the start of a line, below it lines with two spaces (prose, or a term, two
//! spaces or more, and what it means), and among the examples lines with four spaces, which are there to be copied. A `\` at the
//! end of such a line goes on in the next one.

/// The heading of what can be copied.
pub const EXAMPLES: &str = "Examples";

/// A part of a help text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// Its heading, without the colon.
    pub heading: &'a str,
    /// What is below it.
    pub lines: Vec<Line<'a>>,
}

/// A line of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Words; those of lines that follow each other are one paragraph, or go on with what a term means.
    Prose(&'a str),
    /// A term and what it means.
    Term(&'a str, &'a str),
    /// A command to copy, with its indentation beyond the four spaces.
    Code(&'a str),
    /// A paragraph ends.
    Blank,
}

/// The sections of a help text. What stands before the first heading has none, and is left out.
pub fn sections(text: &str) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_suffix(':').filter(|heading| !heading.starts_with(' ')) {
            sections.push(Section { heading, lines: Vec::new() });
        } else if let Some(section) = sections.last_mut() {
            section.lines.push(read(line, section.heading == EXAMPLES));
        }
    }
    for section in &mut sections {
        while section.lines.last() == Some(&Line::Blank) {
            section.lines.pop();
        }
    }
    sections
}

fn read(line: &str, examples: bool) -> Line<'_> {
    if line.trim().is_empty() {
        return Line::Blank;
    }
    if let Some(code) = line.strip_prefix("    ").filter(|_| examples) {
        return Line::Code(code);
    }
    let deeper = line.starts_with("   ");
    let line = line.trim();
    match line.split_once("  ") {
        Some((term, meaning)) if !deeper => Line::Term(term, meaning.trim_start()),
        Some(_) | None => Line::Prose(line),
    }
}

/// The commands among the examples of a help text, each in one line.
pub fn examples(text: &str) -> Vec<String> {
    let mut examples: Vec<String> = Vec::new();
    let mut goes_on = false;
    let sections = sections(text);
    let lines = sections.iter().filter(|section| section.heading == EXAMPLES).flat_map(|section| &section.lines);
    for line in lines {
        let Line::Code(code) = line else { continue };
        let code = code.trim();
        let part = code.strip_suffix('\\').unwrap_or(code).trim_end();
        match examples.last_mut().filter(|_| goes_on) {
            Some(example) => example.extend([" ", part]),
            None => examples.push(part.to_owned()),
        }
        goes_on = code.ends_with('\\');
    }
    examples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_help_text_has_sections_of_prose_terms_and_commands() {
        let text = "\
Lost.

Examples:
  Do it:
    interven-alerts run \\
      --json
    interven-alerts check

Exit codes:
  0   done
  78  faulty: see
      below

  Prose.
";
        let expected = [
            Section {
                heading: "Examples",
                lines: vec![
                    Line::Prose("Do it:"),
                    Line::Code("interven-alerts run \\"),
                    Line::Code("  --json"),
                    Line::Code("interven-alerts check"),
                ],
            },
            Section {
                heading: "Exit codes",
                lines: vec![
                    Line::Term("0", "done"),
                    Line::Term("78", "faulty: see"),
                    Line::Prose("below"),
                    Line::Blank,
                    Line::Prose("Prose."),
                ],
            },
        ];
        assert_eq!(sections(text), expected);
        assert_eq!(examples(text), ["interven-alerts run --json", "interven-alerts check"]);
    }
}
