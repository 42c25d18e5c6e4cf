//! Decisions as CSV (RFC 4180), safe to open in a spreadsheet.
//!
//! A spreadsheet runs a cell that begins like a formula, so such a text gets an apostrophe in front, which spreadsheets hide.
//! Every text is in quotes: one that holds a semicolon could otherwise begin a cell of its own where semicolons separate.
//! Fields that we do not know are not here; the JSON formats have them.

use std::borrow::Cow;

use crate::model::Decision;

use super::clean::{is_invisible, one_line};

/// The first row, with its line break.
pub const HEADER: &str = "id,time,decision,severity,risk,title,agent_id,agent_name,tool,operation,reasons,src,\
                          approval_id,approval_expires_at\r\n";

/// The row of `decision`, with its line break.
pub fn row(decision: &Decision) -> String {
    let mut row = String::with_capacity(256);
    text(&mut row, &decision.id);
    text(&mut row, &decision.time.to_rfc3339_millis());
    text(&mut row, decision.kind.as_str());
    text(&mut row, decision.severity.as_str());
    // A number is ours, never a formula, and is better without quotes.
    row.push_str(&decision.risk.map(|risk| risk.abs().to_string()).unwrap_or_default());
    row.push(',');
    text(&mut row, decision.title.as_deref().unwrap_or_default());
    text(&mut row, &decision.agent.id);
    text(&mut row, decision.agent.name.as_deref().unwrap_or_default());
    text(&mut row, decision.tool());
    text(&mut row, decision.operation().unwrap_or_default());
    text(&mut row, &decision.reasons.join(", "));
    text(&mut row, &decision.src.map(|src| src.to_string()).unwrap_or_default());
    let approval = decision.approval_asked();
    text(&mut row, approval.map(|approval| &*approval.id).unwrap_or_default());
    let expires_at = approval.and_then(|approval| approval.expires_at);
    text(&mut row, &expires_at.map(crate::model::Timestamp::to_rfc3339_millis).unwrap_or_default());
    row.pop();
    row.push_str("\r\n");
    row
}

/// One cell and the comma after it. An empty text is an empty cell.
fn text(row: &mut String, text: &str) {
    let clean = guarded(text);
    if !clean.is_empty() {
        row.push('"');
        row.push_str(&clean.replace('"', "\"\""));
        row.push('"');
    }
    row.push(',');
}

/// `text` on one clean line, with an apostrophe in front where a spreadsheet would run it. Full-width signs count too, and
/// what is hidden or blank before a sign does not help it: both are gone before the look.
fn guarded(text: &str) -> Cow<'_, str> {
    let line = one_line(text, usize::MAX);
    debug_assert!(!line.chars().any(is_invisible), "a cell is one clean line");
    let formula = line.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠', '|', '%']);
    if formula { Cow::Owned(format!("'{line}")) } else { line }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::formats::hostile;

    /// The cells of one row, read by the grammar of RFC 4180.
    fn parse(row: &str) -> Vec<String> {
        let row = row.strip_suffix("\r\n").expect("a row ends with CRLF");
        let mut cells = vec![String::new()];
        let mut chars = row.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                ',' => cells.push(String::new()),
                '"' => loop {
                    match chars.next().expect("a quoted cell ends") {
                        '"' if chars.peek() == Some(&'"') => cells.last_mut().unwrap().push(chars.next().unwrap()),
                        '"' => break,
                        c => cells.last_mut().unwrap().push(c),
                    }
                },
                c => cells.last_mut().unwrap().push(c),
            }
        }
        cells
    }

    #[test]
    fn a_row_has_a_cell_for_every_column() {
        let row = row(&hostile::decode(hostile::EXAMPLE));
        insta::assert_snapshot!(row, @r#""f1e2d3c4-5b6a-4788-99aa-bbccddeeff00","2026-06-01T12:00:00.123Z","DENY","HIGH",0.71,"Secret egress blocked","agt_42","production-langgraph","slack","post_message","SECRET_DETECTED","10.0.0.42",,"#);
        assert_eq!(parse(&row).len(), parse(HEADER).len());
    }

    #[test]
    fn a_formula_is_defused() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " \n=1", "\u{200b}=1", "＝1", "=cmd|' /C calc'!A0"] {
            let cells = parse(&row(&hostile::example(&json!({"title": formula}))));
            assert!(cells[5].starts_with('\''), "{formula:?} became {:?}", cells[5]);
        }
        assert_eq!(parse(&row(&hostile::example(&json!({"title": "a=b"}))))[5], "a=b");
    }

    proptest! {
        #[test]
        fn any_decision_is_one_row_that_reads_back(decision in hostile::decision()) {
            let row = row(&decision);
            prop_assert_eq!(row.matches(['\r', '\n']).count(), 2);
            let cells = parse(&row);
            prop_assert_eq!(cells.len(), parse(HEADER).len());
            prop_assert_eq!(&cells[6], &guarded(&decision.agent.id));
            for (column, cell) in cells.iter().enumerate() {
                prop_assert!(column == 4 || !cell.starts_with(['=', '+', '-', '@']), "{cell:?}");
            }
            if let Some(risk) = decision.risk {
                prop_assert_eq!(cells[4].parse::<f64>().unwrap().to_bits(), risk.abs().to_bits());
            }
        }
    }
}
