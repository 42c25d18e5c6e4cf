//! In the store of a stopped worker: `--data-dir`, or `data_dir` of the configuration.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::{Args, Choice, Command, Failure, Filter, Global, Purged, Shell, telling};
use crate::{
    app,
    cli::{config_file, runtime},
    config::Plan,
    dead_letters::{
        DeadLetterError, LetterFilter, OpenReport, Store, StoreOptions,
        replay::{Replay, ReplayReport},
    },
    delivery_log::DeliveryLog,
    model::{ChannelId, Clock},
};

/// Runs the command on the store of a stopped worker.
pub(super) fn run(args: &Args, global: &Global, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let runtime = runtime(false)?;
    // Replaying needs the broker, and so the whole configuration; the rest needs the directory alone.
    if let Command::Replay { choice } = &args.command {
        return runtime.block_on(replay(args, choice, global, shell));
    }
    let data_dir = match &args.place.data_dir {
        Some(dir) => shell.directory.join(dir),
        None => config_file::load(global, shell)?.data_dir,
    };
    // Running workers do everything but these.
    let alone = matches!(args.command, Command::Import { .. } | Command::Verify);
    let in_use = if alone { "a worker uses it: stop that first" } else { ASK_IT };
    let store = open(&data_dir, in_use, shell)?;
    runtime.block_on(async {
        let done = act(args, &store, shell).await;
        store.close().await;
        done
    })
}

/// Here it is known that a worker can be asked; the store knows of files alone.
const ASK_IT: &str = "a worker uses it: ask that with `--server http://HOST:PORT`, or stop it first";

/// Opens the store; `in_use` is what to do where a worker has it.
fn open(data_dir: &std::path::Path, in_use: &str, shell: &mut Shell<'_>) -> Result<Store, Failure> {
    let dir = data_dir.join(app::DEAD_LETTERS_DIR);
    if !dir.exists() {
        return Err(Failure::new(format!("there is no dead-letter store in {}", data_dir.display()))
            .hint("give the worker's data directory with `--data-dir`"));
    }
    let options = StoreOptions { clock: shell.clock, ..StoreOptions::default() };
    let (store, report) = Store::open(&dir, options).map_err(|error| {
        let hint = if matches!(error, DeadLetterError::InUse { .. }) { in_use } else { error.hint() };
        Failure::of(&error).hint(hint)
    })?;
    tell_open(&report, shell)?;
    Ok(store)
}

fn tell_open(report: &OpenReport, shell: &mut Shell<'_>) -> Result<(), Failure> {
    for incident in &report.incidents {
        shell.say("warning", incident);
    }
    match &report.down {
        Some(why) => Err(Failure::new(format!("the dead-letter store cannot be opened: {why}"))),
        None => Ok(()),
    }
}

fn failure(error: &DeadLetterError) -> Failure {
    Failure::of(error).hint(error.hint())
}

async fn act(args: &Args, store: &Store, shell: &mut Shell<'_>) -> Result<(), Failure> {
    match &args.command {
        Command::List { filter, by_cause: true } => list_causes(filter, args.json, store, shell).await,
        Command::List { filter, by_cause: false } => list(filter, args.json, store, shell).await,
        Command::Show { id } => {
            let letter = store.get(*id).await.map_err(|error| failure(&error))?;
            if args.json { shell.print_json(&letter) } else { telling::show(&letter, shell) }
        }
        Command::Purge { choice } => purge(choice, args.json, store, shell).await,
        Command::Export { filter } => export(filter, store, shell).await,
        Command::Import { file } => import(file, args.json, store, shell).await,
        Command::Verify => verify(args.json, store, shell).await,
        // It needs the broker as well, and has its own way from `run`.
        Command::Replay { .. } => Ok(()),
    }
}

async fn list_causes(filter: &Filter, json: bool, store: &Store, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let causes = store.group_by_cause(&filter.letters(&[])).await.map_err(|error| failure(&error))?;
    if json { shell.print_json(&causes) } else { telling::print_causes(&causes, shell) }
}

async fn list(filter: &Filter, json: bool, store: &Store, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let page = store.list(&filter.letters(&[]), None).await.map_err(|error| failure(&error))?;
    if json {
        return shell.print_json(&page);
    }
    let letters: Vec<_> = page.letters.into_iter().map(|letter| (letter, String::new())).collect();
    telling::print_letters(&letters, false, shell)?;
    telling::warn_damaged(&page.damaged, shell);
    if page.next.is_some() {
        shell.say("note", "there are more: raise --limit, or narrow the filters");
    }
    Ok(())
}

async fn purge(choice: &Choice, json: bool, store: &Store, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let ids = store.select(&choice.to_delete()?).await.map_err(|error| failure(&error))?;
    let purged = if choice.dry_run { ids.len() } else { store.remove(ids).await.map_err(|error| failure(&error))? };
    let report = Purged { purged: purged as u64, dry_run: choice.dry_run };
    if json {
        return shell.print_json(&report);
    }
    let verb = if choice.dry_run { "would purge" } else { "purged" };
    Ok(writeln!(shell.out, "{verb} {purged}")?)
}

async fn export(filter: &Filter, store: &Store, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let mut after = None;
    let wanted = filter.letters(&[]);
    let mut left = wanted.limit.unwrap_or(usize::MAX);
    // Page by page, so that an export of any size needs the memory of one page.
    while left > 0 {
        let page_filter = LetterFilter { limit: Some(left.min(LetterFilter::LIMIT_MAX)), ..wanted.clone() };
        let page = store.list(&page_filter, after).await.map_err(|error| failure(&error))?;
        left -= page.letters.len().min(left);
        for letter in &page.letters {
            let line = serde_json::to_string(letter).map_err(|error| Failure::of(&error))?;
            writeln!(shell.out, "{line}")?;
        }
        for id in &page.damaged {
            shell.say("warning", &format!("{id} is damaged on disk and not in the export"));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(())
}

async fn import(file: &std::path::Path, json: bool, store: &Store, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let path = shell.directory.join(file);
    let input = tokio::fs::File::open(&path).await.map_err(|error| Failure::of(&error).hint("check the path"))?;
    let report = store.import(&mut tokio::io::BufReader::new(input)).await.map_err(|error| failure(&error))?;
    if json {
        shell.print_json(&report)?;
    } else {
        writeln!(
            shell.out,
            "imported {}, already there {}, faulty {}",
            report.imported, report.already_there, report.faulty_total
        )?;
    }
    for (line, fault) in &report.faulty {
        shell.say("error", &format!("line {line}: {fault}"));
    }
    if report.faulty_total > 0 {
        Err(Failure::new(format!("{} lines are no dead letters", report.faulty_total)))
    } else {
        Ok(())
    }
}

async fn verify(json: bool, store: &Store, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let report = store.verify().await.map_err(|error| failure(&error))?;
    if json {
        shell.print_json(&report)?;
    } else {
        writeln!(
            shell.out,
            "{} letters and {} journal segments read; mended {}, beyond mending {}",
            report.letters,
            report.segments,
            report.mended,
            report.damaged.len()
        )?;
    }
    for incident in &report.incidents {
        shell.say("warning", incident);
    }
    if report.damaged.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("{} dead letters are damaged beyond mending", report.damaged.len()))
        .hint("what was damaged is kept beside the store; restore it from a backup or an export with `import`"))
}

async fn replay(args: &Args, choice: &Choice, global: &Global, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let letters = choice.to_send();
    let plan = config_file::load(global, shell)?;
    let data_dir = args.place.data_dir.as_ref().map_or_else(|| plan.data_dir.clone(), |dir| shell.directory.join(dir));
    let store = open(&data_dir, ASK_IT, shell)?;
    let done = replay_from(&store, &plan, &letters, choice.dry_run, shell.clock).await;
    store.close().await;
    let report = done?;
    if args.json {
        shell.print_json(&report)?;
    } else {
        telling::tell_replay(&report, choice.dry_run, shell)?;
    }
    telling::failed(&report)
}

async fn replay_from(
    store: &Store,
    plan: &Plan,
    letters: &LetterFilter,
    dry_run: bool,
    clock: Clock,
) -> Result<ReplayReport, Failure> {
    let ids = store.select(letters).await.map_err(|error| failure(&error))?;
    let broker =
        app::connect(plan, clock, &TaskTracker::new()).await.map_err(|error| crate::cli::run::start_failure(&error))?;
    let known = |id: &ChannelId| plan.channels.iter().any(|channel| channel.id == *id);
    // The worker that delivers them says how that ends.
    let deliveries = &DeliveryLog::none();
    let replaying =
        Replay { up_to: None, store, broker: Arc::as_ref(&broker), known: &known, deliveries, clock, dry_run };
    let done = replaying.run(&ids, |_| {}).await;
    broker.close().await;
    done.map_err(|error| failure(&error))
}
