//! Looking at the dead letters of running workers: every one is asked, and their answers are put together.

use serde::Serialize;

use super::{Exit, Failure, Filter, Shell, telling};
use crate::{
    cli::server,
    dead_letters::{DeadLetter, LetterFilter, LetterId},
    workers::{
        Merge, Servers, Unheard,
        letters::{self, Pages},
    },
};

/// Letters in one page of an export, from each worker.
const EXPORT_PAGE: usize = 250;

/// A letter and who has it.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    letter: &'a DeadLetter,
    server: &'a str,
}

#[derive(Serialize)]
struct AllTold<'a> {
    letters: Vec<Told<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damaged: Vec<LetterId>,
    /// From where on there is more; none at the end.
    next: Option<LetterId>,
    /// Workers whose letters are not among these.
    #[serde(skip_serializing_if = "<[Unheard]>::is_empty")]
    silent: &'a [Unheard],
}

/// Lists the newest letters of all workers.
pub(super) async fn list(filter: &Filter, json: bool, servers: &Servers, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let limit = filter.limit.unwrap_or(LetterFilter::LIMIT_DEFAULT).min(LetterFilter::LIMIT_MAX);
    let mut merge = Pages::merged(servers, &filter.letters(&[]), limit, json);
    let (mut letters, mut more) = (Vec::new(), false);
    while let Some((letter, at)) = merge.next().await {
        if letters.len() >= limit {
            more = true;
            break;
        }
        letters.push((letter, merge.name(at).to_owned()));
    }
    let Merge { unheard, damaged, .. } = merge;
    if json {
        let next = letters.last().map(|(letter, _)| letter.id).filter(|_| more);
        let told = letters.iter().map(|(letter, server)| Told { letter, server }).collect();
        shell.print_json(&AllTold { letters: told, damaged, next, silent: &unheard })?;
    } else {
        // Nothing at all was heard: then "no dead letters" would not be true.
        if !letters.is_empty() || unheard.is_empty() {
            telling::print_letters(&letters, servers.several(), shell)?;
        }
        telling::warn_damaged(&damaged, shell);
        if more {
            shell.say("note", "there are more: raise --limit, or narrow the filters");
        }
    }
    server::end(server::failures(unheard), shell)
}

/// Groups the letters of all workers by what they died of.
pub(super) async fn causes(
    filter: &Filter,
    json: bool,
    servers: &Servers,
    shell: &mut Shell<'_>,
) -> Result<(), Failure> {
    let (heard, unheard) = letters::causes(servers, &filter.letters(&[])).await;
    let mut causes = letters::together(heard.into_iter().map(|(_, grouped)| grouped));
    causes.truncate(filter.limit.unwrap_or(usize::MAX));
    if json {
        shell.print_json(&causes)?;
    } else if !causes.is_empty() || unheard.is_empty() {
        telling::print_causes(&causes, shell)?;
    }
    server::end(server::failures(unheard), shell)
}

/// Shows one letter, whoever has it.
pub(super) async fn show(id: LetterId, json: bool, servers: &Servers, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let (found, unheard) = letters::find(servers, id).await;
    match found {
        Some(had) if json => return shell.print_json(&Told { letter: &had.letter, server: &had.server }),
        Some(had) => return telling::show(&had.letter, shell),
        None => {}
    }
    if unheard.is_empty() {
        return Err(Failure::new(format!("no worker that was asked has the dead letter {id}"))
            .hint("it may have been replayed or purged: run `interven-alerts dead-letters list`")
            .exit(Exit::Failed));
    }
    server::end(server::failures(unheard), shell)
}

/// Writes the letters of all workers, newest first, one a line.
pub(super) async fn export(filter: &Filter, servers: &Servers, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let limit = filter.limit.unwrap_or(usize::MAX);
    let mut merge = Pages::merged(servers, &filter.letters(&[]), EXPORT_PAGE.min(limit), true);
    let mut written = 0;
    while written < limit
        && let Some((letter, _)) = merge.next().await
    {
        let line = serde_json::to_string(&letter).map_err(|error| Failure::of(&error))?;
        writeln!(shell.out, "{line}")?;
        written += 1;
        for id in std::mem::take(&mut merge.damaged) {
            shell.say("warning", &format!("{id} is damaged on disk and not in the export"));
        }
    }
    server::end(server::failures(merge.unheard), shell)
}
