//! Dead letters as people read them. Their text is hostile, and a terminal obeys more than a card does.

use super::{Failure, Shell};
use crate::{
    cli::table,
    dead_letters::{Cause, DeadLetter, LetterId, ReplayReport},
    model::Timestamp,
    settings::printable,
};

/// Letters of a replay that are named one by one.
const NOTES_MAX: usize = 10;

/// Letters as a table; with a name in front of each where several workers were asked.
pub(super) fn print_letters(
    letters: &[(DeadLetter, String)],
    several: bool,
    shell: &mut Shell<'_>,
) -> Result<(), Failure> {
    let head = ["ID", "DIED", "REASON", "CHANNEL", "DECISION", "DETAIL"].map(str::to_owned);
    let rows = letters.iter().map(|(letter, worker)| named(several, worker, row(letter)));
    print_table(shell, named(several, "WORKER", head.to_vec()), rows.collect())
}

/// Causes as a table.
pub(super) fn print_causes(causes: &[Cause], shell: &mut Shell<'_>) -> Result<(), Failure> {
    let rows = causes.iter().map(|cause| {
        let channel = cause.channel.as_ref().map_or("-", |id| id.as_str());
        vec![
            cause.count.to_string(),
            cause.reason.to_string(),
            channel.to_owned(),
            cause.newest.to_rfc3339_millis(),
            printable(&cause.detail),
        ]
    });
    print_table(shell, ["COUNT", "REASON", "CHANNEL", "NEWEST", "CAUSE"].map(str::to_owned).to_vec(), rows.collect())
}

/// Says which letters are damaged.
pub(super) fn warn_damaged(damaged: &[LetterId], shell: &mut Shell<'_>) {
    for id in damaged {
        shell.say("warning", &format!("{id} is damaged on disk: run `dead-letters verify`"));
    }
}

fn named(several: bool, worker: &str, mut cells: Vec<String>) -> Vec<String> {
    if several {
        cells.insert(0, worker.to_owned());
    }
    cells
}

fn print_table(shell: &mut Shell<'_>, head: Vec<String>, mut rows: Vec<Vec<String>>) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(writeln!(shell.out, "no dead letters")?);
    }
    rows.insert(0, head);
    table::print(&rows, shell)
}

/// One letter in one line.
fn row(letter: &DeadLetter) -> Vec<String> {
    let short = |text: &str, chars: usize| printable(&text.chars().take(chars).collect::<String>());
    vec![
        letter.id.to_string(),
        letter.died_at.to_rfc3339_millis(),
        letter.reason.to_string(),
        letter.channel.as_ref().map_or_else(|| String::from("-"), ToString::to_string),
        letter.decision_id.as_deref().map_or_else(|| String::from("-"), |id| short(id, 40)),
        short(&letter.detail, 80),
    ]
}

/// One letter whole.
pub(super) fn show(letter: &DeadLetter, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let dash = || String::from("-");
    let reply = letter.last_reply.as_ref().map_or_else(dash, |reply| told(reply.at, reply.status, &reply.text));
    let tries = letter.history.iter().enumerate().map(|(at, one)| {
        let name = if at == 0 { "failed tries" } else { "" };
        (name, format!("{} ({})", told(one.at, one.status, &one.text), printable(&one.outcome)))
    });
    let before = [
        ("id", letter.id.to_string()),
        ("reason", letter.reason.to_string()),
        ("detail", printable(&letter.detail)),
        ("channel", letter.channel.as_ref().map_or_else(dash, ToString::to_string)),
        ("decision", letter.decision_id.as_deref().map_or_else(dash, printable)),
        ("severity", letter.severity.map_or_else(dash, |severity| severity.to_string())),
        ("first seen", letter.first_at.to_rfc3339_millis()),
        ("died", letter.died_at.to_rfc3339_millis()),
        ("attempts", letter.attempts.to_string()),
    ];
    let after = [("last reply", reply), ("body", printable(&String::from_utf8_lossy(&letter.body)))];
    let rows = before.into_iter().chain(tries).chain(after);
    let rows: Vec<Vec<String>> = rows.map(|(name, value)| vec![name.to_owned(), value]).collect();
    Ok(writeln!(shell.out, "{}", table::aligned(&rows).trim_end())?)
}

/// What an endpoint answered to a try.
fn told(at: Timestamp, status: Option<u16>, text: &str) -> String {
    let status = status.map_or_else(|| String::from("no answer"), |status| format!("HTTP {status}"));
    // The worker's words begin with the status, too.
    let text = text.strip_prefix(&format!("{status}: ")).unwrap_or(text);
    format!("{status} at {}: {}", at.to_rfc3339_millis(), printable(text))
}

/// What a replay did, in one line, and which letters it left where they are.
pub(super) fn tell_replay(report: &ReplayReport, dry_run: bool, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let verb = if dry_run { "would replay" } else { "replayed" };
    writeln!(
        shell.out,
        "{verb} {}; skipped {} whose approval has expired and {} whose channel is not configured; failed {}",
        report.replayed, report.skipped_expired, report.skipped_no_channel, report.failed
    )?;
    for (id, why) in report.notes.iter().take(NOTES_MAX) {
        shell.say("note", &format!("{id}: {}", printable(why)));
    }
    if report.unreadable > 0 {
        let verb = if dry_run { "are" } else { "were" };
        shell.say(
            "note",
            &format!(
                "{} of them {verb} no decisions that this version can read: they come back as `malformed`; purge them, or replay them \
                 when a version runs that can",
                report.unreadable
            ),
        );
    }
    let told = report.notes.len().min(NOTES_MAX) as u64;
    let more = (report.skipped_expired + report.skipped_no_channel + report.failed).saturating_sub(told);
    if more > 0 {
        shell.say("note", &format!("{more} more were left where they are"));
    }
    Ok(())
}

/// The failure that letters which could not be replayed are.
pub(super) fn failed(report: &ReplayReport) -> Result<(), Failure> {
    if report.failed == 0 {
        return Ok(());
    }
    Err(Failure::new(format!("{} dead letters could not be replayed", report.failed))
        .hint("they are still in the store: replay them again"))
}
