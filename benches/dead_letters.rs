//! How fast the dead-letter store is at a million letters: burying, opening, listing, counting, verifying, after a clean
//! stop and after `kill -9`. Prints numbers; asserts the two that are promised (open within 2 s, list 100 within 100 ms).
//!
//! `cargo bench --bench dead_letters -- [LETTERS]`

use std::{fs, path::Path, time::Duration};

use bytes::Bytes;
use interven_alerts::{
    dead_letters::{DeadLetter, LetterFilter, LetterId, Store, StoreOptions},
    model::{Clock, DeathReason, DecisionKind, Severity},
};
use tokio::time::Instant;
use uuid::Uuid;

fn letter(n: u64) -> DeadLetter {
    let now = Clock::System.now();
    DeadLetter {
        id: LetterId(Uuid::now_v7()),
        subject: Uuid::from_u128(u128::from(n) + 1),
        reason: DeathReason::ALL[usize::try_from(n % 8).unwrap_or(0)],
        detail: format!("HTTP 503: try {n} failed"),
        channel: format!("channel-{}", n % 10).parse().ok(),
        decision_id: Some(format!("decision-{n}")),
        decision: Some(DecisionKind::Deny),
        severity: Some(Severity::High),
        first_at: now,
        died_at: now,
        attempts: 10,
        history: Vec::new(),
        last_reply: None,
        body: Bytes::from(vec![b'x'; 600]),
    }
}

fn memory_mb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) / 1024
}

fn disk_mb(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_mb(&entry.path()),
        Ok(metadata) => metadata.len() / 1024 / 1024,
        Err(_) => 0,
    });
    sizes.sum()
}

fn say(what: &str, took: Duration, more: &str) {
    println!("{what:<44} {:>10.1} ms  {more} [{} MB resident]", took.as_secs_f64() * 1000.0, memory_mb());
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let letters: u64 = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000);
    let dir = tempfile::Builder::new().prefix("dead-letters-bench").tempdir_in("target")?;
    let (store, _) = Store::open(dir.path(), StoreOptions::default())?;

    let started = Instant::now();
    for n in 0..1_000 {
        store.bury(letter(n)).await?;
    }
    say("bury 1,000 one after another", started.elapsed(), "");
    let started = Instant::now();
    for first in (1_000..letters).step_by(1_000) {
        let burials = (first..(first + 1_000).min(letters)).map(|n| store.bury(letter(n)));
        futures_util::future::try_join_all(burials).await?;
    }
    let per_second = u128::from(letters) * 1_000 / started.elapsed().as_millis().max(1);
    say("bury the rest, 1,000 at a time", started.elapsed(), &format!("{per_second}/s, {} MB", disk_mb(dir.path())));

    let started = Instant::now();
    store.close().await;
    say("close", started.elapsed(), "");
    let started = Instant::now();
    let (store, report) = Store::open(dir.path(), StoreOptions::default())?;
    let opened = started.elapsed();
    say("open after a clean stop", opened, &format!("{} letters", report.letters));
    let started = Instant::now();
    let page = store.list(&LetterFilter::default(), None).await?;
    let listed = started.elapsed();
    say("list the newest 100", listed, &format!("{}", page.letters.len()));
    assert!(opened < Duration::from_secs(2) && listed < Duration::from_millis(100), "{opened:?}, {listed:?}");

    let nobody = LetterFilter { decision: Some("no such".to_owned()), ..LetterFilter::default() };
    let started = Instant::now();
    store.list(&nobody, None).await?;
    say("a filter that matches nothing", started.elapsed(), "");
    let started = Instant::now();
    let causes = store.group_by_cause(&LetterFilter::default()).await?;
    say("group by cause", started.elapsed(), &format!("{} causes", causes.len()));

    let started = Instant::now();
    let ids = store.select(&LetterFilter { limit: Some(5_000), ..LetterFilter::default() }).await?;
    let removed = store.remove(ids).await?;
    say("select and remove 5,000", started.elapsed(), &format!("{removed}"));

    // A copy of the files as they are is what a crash leaves: no checkpoint after the removals.
    let crashed = tempfile::Builder::new().prefix("dead-letters-bench").tempdir_in("target")?;
    copy(dir.path(), crashed.path())?;
    let started = Instant::now();
    let (again, report) = Store::open(crashed.path(), StoreOptions::default())?;
    say("open after a crash", started.elapsed(), &format!("{} letters, {} replayed", report.letters, report.replayed));
    assert!(started.elapsed() < Duration::from_secs(2), "opening after a crash is slow");
    again.close().await;

    let started = Instant::now();
    let report = store.verify().await?;
    say("verify", started.elapsed(), &format!("{} letters, clean: {}", report.letters, report.is_clean()));
    store.close().await;
    fs::remove_dir_all(dir.path().join("index"))?;
    let started = Instant::now();
    let (store, report) = Store::open(dir.path(), StoreOptions::default())?;
    say("rebuild a lost index from the journal", started.elapsed(), &format!("{} letters", report.letters));
    store.close().await;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
