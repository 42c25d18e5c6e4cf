//! Columns of text for people.
//!
//! A terminal that is too narrow would break each line in two; there, lines are cut. Whoever wants everything has --json, or a pipe.

use super::{Failure, Shell};

/// A terminal that says it is narrower than this is not believed.
const COLUMNS_MIN: usize = 40;

/// Prints rows with their columns aligned, cut to the terminal where standard output is one.
pub fn print(rows: &[Vec<String>], shell: &mut Shell<'_>) -> Result<(), Failure> {
    let text = aligned(rows);
    let size = shell.out_is_terminal.then(|| rustix::termios::tcgetwinsize(std::io::stdout()).ok()).flatten();
    let columns = size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns >= COLUMNS_MIN);
    let text = columns.map_or(text.clone(), |columns| cut(&text, columns));
    Ok(shell.out.write_all(text.as_bytes())?)
}

/// Every line with at most this many characters.
fn cut(text: &str, columns: usize) -> String {
    let line = |line: &str| {
        if line.chars().count() <= columns {
            return format!("{line}\n");
        }
        line.chars().take(columns - 3).chain("...\n".chars()).collect()
    };
    text.lines().map(line).collect()
}

/// Rows with their columns aligned by characters, two spaces between them, each row with a newline.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_aligned_by_characters() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        assert_eq!(super::aligned(&[row(["é", "b"]), row(["long", ""])]), "é     b\nlong\n");
    }

    #[test]
    fn lines_are_cut_to_the_terminal() {
        assert_eq!(super::cut("ééééé\nab\n\nabcdef\n", 5), "ééééé\nab\n\nab...\n");
    }
}
